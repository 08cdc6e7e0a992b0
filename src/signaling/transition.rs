//! What happens to a call: rung, joined, lost, found again, left, over. Every transition is here, and a call that is
//! over never changes again.

use std::sync::Arc;

use serde_json::{Value, json};

use super::call::{Call, End, Reason, Status};
use super::deadline::after;
use super::message::{Kind, Media, Settings};
use super::notice::{NoticeKind, Step};
use super::participant::{Lost, Participant, Profile, State};
use super::session::Presence;
use super::signal::SignalType;
use super::switchboard::Switchboard;
use super::{Event, Identity, Now, Reject, SessionId, UserId};

impl Call {
    /// Adds someone who is called.
    pub(super) fn invite(&mut self, user: &UserId, profile: Profile, now: Now) {
        self.participants.push(Participant::invited(user.clone(), profile, self.kind, now.unix_ms));
        self.meshed |= self.live() > 2;
    }

    /// Rings some devices of an undecided callee; the initiator hears of the first.
    pub(super) fn ring(&mut self, board: &mut Switchboard, user: &UserId, devices: &[SessionId], now: Now) {
        let busy = board.is_busy(user);
        let Some(who) = self.of_mut(user).filter(|who| who.is_pending()) else { return };
        let Some(first) = devices.first() else { return };
        if let Ok(identity) = board.identity(*first) {
            who.identify(&identity);
        }
        let newly = devices.iter().any(|device| board.is_attached(*device)) && self.start_ringing(user, now);
        let mut invitation = self.invitation();
        if busy {
            invitation.insert("busy".into(), json!(true));
        }
        board.deliver_all(devices, "call:initiated", &Value::Object(invitation));
        if newly {
            self.tell_ringing(board, user, busy);
        }
    }

    /// A device that was called while it had no transport has one again; the call itself was among what it missed.
    pub(super) fn reach(&mut self, board: &mut Switchboard, user: &UserId, now: Now) {
        if self.start_ringing(user, now) {
            self.tell_ringing(board, user, board.is_busy(user));
        }
    }

    /// The first device of a callee rings; whether it did not before.
    fn start_ringing(&mut self, user: &UserId, now: Now) -> bool {
        let Some(who) = self.of_mut(user).filter(|who| who.state == State::Invited) else { return false };
        who.state = State::Ringing;
        self.ringing_at.get_or_insert(now.unix_ms);
        self.note(NoticeKind::Ringing, Some(user), None);
        self.bump();
        true
    }

    fn tell_ringing(&self, board: &mut Switchboard, user: &UserId, busy: bool) {
        let fields = if busy { json!({ "busy": true }) } else { json!({}) };
        let ringing = self.participant_event(user, fields);
        self.tell(board, "call:ringing", &ringing, None);
    }

    /// A callee accepts, or someone who had left comes back, with this device.
    pub(super) fn accept(
        &mut self,
        board: &mut Switchboard,
        identity: &Identity,
        device: SessionId,
        settings: Settings,
        now: Now,
    ) -> Result<(), Reject> {
        let limit = board.config.limits.participants;
        if self.present().count() >= limit {
            return Err(Reject::MaxParticipants(limit));
        }
        let user = &identity.user;
        if self.of(user).is_none() {
            if self.participants.len() >= board.config.limits.roster {
                return Err(Reject::MaxParticipants(limit));
            }
            self.invite(user, Profile::of(identity), now);
        }
        let (order, kind) = (self.joins, self.kind);
        let Some(who) = self.of_mut(user) else { return Err(Reject::Internal) };
        who.identify(identity);
        who.state = State::Joined;
        who.device = Some(device);
        who.joined = Some(now.instant);
        who.joined_at.get_or_insert(now.unix_ms);
        (who.left_at, who.leave_reason) = (None, None);
        (who.audio, who.video, who.screen) = (true, kind == Kind::Video, false);
        who.apply(settings);
        who.order = order;
        self.joins = self.joins.saturating_add(1);
        board.index(user, &self.id, Presence::Present);
        self.answer(board, user, now);
        self.note(NoticeKind::ParticipantJoined, Some(user), None);
        self.bump();
        self.announce(board, user);
        let others: Vec<SessionId> =
            board.devices(user).into_iter().filter(|other| *other != device).collect();
        let answered = self.participant_event(user, json!({ "by": user.0.as_ref() }));
        board.deliver_all(&others, "call:already-answered", &answered);
        Ok(())
    }

    /// Somebody accepts; the first who does answers the call.
    fn answer(&mut self, board: &mut Switchboard, user: &UserId, now: Now) {
        self.alone_until = None;
        if !self.negotiated {
            self.negotiate_until = Some(after(now.instant, board.config.negotiation_timeout));
        }
        if self.answered.is_some() {
            return;
        }
        self.answered = Some(now.instant);
        self.answered_at = Some(now.unix_ms);
        self.note(NoticeKind::Answered, Some(user), None);
        board.emit(Event::CallAnswered { ring: now.instant.saturating_duration_since(self.created) });
        // The initiator may be away just now: from here on it has the patience of any participant.
        let grace = board.config.grace;
        for who in &mut self.participants {
            if let Some(lost) = &mut who.lost {
                lost.until = lost.until.max(after(lost.at, grace));
            }
        }
    }

    /// Tells those already there. They are the impolite side towards the newcomer, who offers.
    fn announce(&self, board: &mut Switchboard, user: &UserId) {
        let Some(who) = self.of(user) else { return };
        let fields = json!({ "participant": who.to_json(), "mode": self.mode(), "polite": false });
        let event = self.participant_event(user, fields);
        self.tell(board, "call:participant-joined", &event, Some(user));
    }

    /// The transport of a joined device is gone.
    pub(super) fn lose(&mut self, board: &mut Switchboard, user: &UserId, now: Now) {
        let config = &board.config;
        let grace = if self.answered.is_none() { config.initiator_grace } else { config.grace };
        let Some(who) = self.of_mut(user).filter(|who| who.is_present()) else { return };
        who.lost = Some(Lost { at: now.instant, until: after(now.instant, grace), told: false });
        self.bump();
    }

    /// The session of a participant has its next transport. `lost` is what was known of the gap, if anything was.
    pub(super) fn go_on(
        &mut self,
        board: &mut Switchboard,
        user: &UserId,
        device: SessionId,
        lost: Option<Lost>,
        now: Now,
    ) {
        if let Some(lost) = lost {
            if let Some(who) = self.of_mut(user) {
                who.reconnects = who.reconnects.saturating_add(1);
            }
            self.bump();
            self.tell_return(board, user, lost);
        }
        self.flush(board, user, now);
        if !self.refresh_status(board) {
            board.deliver(device, "call:state", &self.state_event());
        }
    }

    fn tell_return(&self, board: &mut Switchboard, user: &UserId, lost: Lost) {
        if lost.told {
            let event = self.participant_event(user, json!({ "state": "connected" }));
            self.tell(board, "call:participant-state", &event, Some(user));
        }
    }

    /// A user who has joined already comes with another session.
    pub(super) fn reattach(
        &mut self,
        board: &mut Switchboard,
        identity: &Identity,
        device: SessionId,
        now: Now,
    ) {
        let user = &identity.user;
        let Some(who) = self.of_mut(user).filter(|who| who.is_present()) else { return };
        let (old, lost) = (who.device.replace(device), who.lost.take());
        // A caller on whose behalf a server has called takes its seat for the first time.
        if who.joined.replace(who.joined.unwrap_or(now.instant)).is_some() {
            who.reconnects = who.reconnects.saturating_add(1);
        }
        who.identify(identity);
        self.negotiation.forget(user);
        self.bump();
        if let Some(old) = old {
            let answered = self.participant_event(user, json!({ "by": user.0.as_ref() }));
            board.deliver(old, "call:already-answered", &answered);
        }
        if let Some(lost) = lost {
            self.tell_return(board, user, lost);
        }
    }

    /// Sends what waited for a participant.
    pub(super) fn flush(&mut self, board: &mut Switchboard, user: &UserId, now: Now) {
        let Some(who) = self.of_mut(user) else { return };
        let Some(device) = who.device else { return };
        for queued in who.queue.take() {
            board.deliver_text(device, "call:signal", &queued.payload);
            if queued.kind == SignalType::Answer {
                self.connect(board, &queued.from, user, now);
            }
        }
    }

    /// An answer was relayed between two participants.
    pub(super) fn connect(&mut self, board: &mut Switchboard, one: &UserId, other: &UserId, now: Now) {
        let mut setup_from = None;
        for user in [one, other] {
            let Some(who) = self.of_mut(user).filter(|who| who.state == State::Joined) else { continue };
            who.state = State::Connected;
            who.connected_at.get_or_insert(now.unix_ms);
            setup_from = setup_from.max(who.joined);
        }
        let Some(joined) = setup_from else { return };
        self.bump();
        if !std::mem::replace(&mut self.negotiated, true) {
            self.negotiate_until = None;
            board.emit(Event::CallConnected { setup: now.instant.saturating_duration_since(joined) });
        }
    }

    /// Switches a media of a participant; the new `rev` if that changed anything.
    pub(super) fn toggle(&mut self, user: &UserId, media: Media, enabled: bool) -> Option<u64> {
        let changed = self.of_mut(user)?.set(media, enabled);
        changed.then(|| self.bump())
    }

    /// A callee says no. The ring of the others goes on.
    pub(super) fn decline(&mut self, board: &mut Switchboard, user: &UserId, now: Now) {
        self.dismiss(board, user, State::Declined, "declined", now);
        let event = self.participant_event(user, json!({ "reason": "declined", "mode": self.mode() }));
        let own = board.devices(user);
        self.tell(board, "call:declined", &event, None);
        board.deliver_all(&own, "call:declined", &event);
        let everybody = self.unanswered_reason();
        self.settle(board, everybody, Some(user), &own, now);
    }

    /// A participant leaves. `echo` tells the device that left as well.
    pub(super) fn leave(
        &mut self,
        board: &mut Switchboard,
        user: &UserId,
        by: SessionId,
        echo: bool,
        now: Now,
    ) {
        if self.answered.is_none() && *user == self.initiator {
            self.finish(board, Reason::Cancelled, Some(user), &[by], now);
            return;
        }
        self.dismiss(board, user, State::Left, "left", now);
        let event = self.left_event(user, "left");
        self.tell(board, "call:participant-left", &event, Some(user));
        if echo {
            board.deliver(by, "call:participant-left", &event);
        }
        self.settle(board, Reason::Completed, Some(user), &[by], now);
    }

    /// Ends the part of one participant, with everything that waits from or for it.
    pub(super) fn dismiss(
        &mut self,
        board: &mut Switchboard,
        user: &UserId,
        state: State,
        reason: &'static str,
        now: Now,
    ) {
        if let Some(who) = self.of_mut(user) {
            let was_present = who.is_present();
            who.depart(state, reason, now.unix_ms);
            match state {
                _ if was_present => {
                    self.note(NoticeKind::ParticipantLeft, Some(user), Some(reason));
                    board.emit(Event::Departed { call: self.id.clone(), user: user.clone() });
                }
                State::Missed => self.note(NoticeKind::Missed, Some(user), Some(reason)),
                _ => {}
            }
        }
        for other in &mut self.participants {
            other.queue.forget(user);
        }
        self.negotiation.forget(user);
        board.unindex(user, &self.id, now);
        self.bump();
    }

    /// What an unanswered call ends with once nobody is undecided.
    fn unanswered_reason(&self) -> Reason {
        let any = |state| self.participants.iter().any(|who| who.state == state);
        if any(State::Declined) {
            Reason::Rejected
        } else if any(State::Kicked) {
            Reason::Cancelled
        } else if any(State::Missed) || !any(State::Busy) {
            Reason::Missed
        } else {
            Reason::Busy
        }
    }

    /// What a call ends with when the last one who was called is gone, or the last but one who talked.
    pub(super) fn settled_reason(&self) -> Reason {
        if self.answered.is_some() { Reason::Completed } else { self.unanswered_reason() }
    }

    /// After somebody went: is there still a call?
    pub(super) fn settle(
        &mut self,
        board: &mut Switchboard,
        cause: Reason,
        by: Option<&UserId>,
        also: &[SessionId],
        now: Now,
    ) {
        let (present, pending) = (self.present().count(), self.pending().count());
        let over = if self.answered.is_none() {
            pending == 0
        } else {
            present == 0 || (present == 1 && pending == 0 && !self.is_group())
        };
        if over {
            let cause =
                if self.answered.is_some() && cause == Reason::Rejected { Reason::Completed } else { cause };
            self.finish(board, cause, by, also, now);
        } else if self.answered.is_some() && present == 1 {
            // Nobody to negotiate with: the one who is left waits for those still rung, or for a return.
            self.negotiate_until = None;
            self.alone_until.get_or_insert(after(now.instant, board.config.alone_timeout));
        }
    }

    /// Ends the call, once and for all. `also` hears of it even if it has left.
    pub(super) fn finish(
        &mut self,
        board: &mut Switchboard,
        reason: Reason,
        by: Option<&UserId>,
        also: &[SessionId],
        now: Now,
    ) {
        if self.is_over() {
            return;
        }
        let old = self.status;
        self.status = Status::Ended(reason);
        let (audience, missed) = self.close_parts(board, reason, also, now);
        let duration = self.answered.map(|at| now.instant.saturating_duration_since(at));
        self.end = Some(End { at: now.unix_ms, by: by.cloned(), duration });
        (self.negotiate_until, self.alone_until) = (None, None);
        for user in &missed {
            self.note(NoticeKind::Missed, Some(user), Some(reason.name()));
        }
        self.note(NoticeKind::Ended, by, Some(reason.name()));
        self.bump();
        let event = self.missed_event(reason.name());
        missed.iter().for_each(|user| board.tell_missed(user, &event, now));
        let event = self.ended_event();
        board.deliver_all(&audience, "call:ended", &event);
        if self.open
            && let Some(room) = &self.room
        {
            board.unhost(room, &self.id);
        }
        board.emit(Event::CallStatus { from: Some(old.name()), to: None });
        board.emit(Event::CallEnded {
            call: self.id.clone(),
            kind: self.kind.name(),
            reason: reason.name(),
            answered: self.answered.is_some(),
            duration,
        });
    }

    /// Ends every part: who hears of the end, and who missed the call.
    fn close_parts(
        &mut self,
        board: &mut Switchboard,
        reason: Reason,
        also: &[SessionId],
        now: Now,
    ) -> (Vec<SessionId>, Vec<UserId>) {
        let (mut audience, mut missed) = (also.to_vec(), Vec::new());
        let id = self.id.clone();
        for who in self.participants.iter_mut().filter(|who| who.is_live()) {
            let reached = who.active_device().map_or_else(|| board.devices(&who.user), |device| vec![device]);
            if who.is_pending() {
                missed.push(who.user.clone());
                who.depart(State::Missed, "missed", now.unix_ms);
            } else {
                let lost = reason == Reason::ConnectionLost && who.lost.is_some();
                who.depart(if lost { State::Lost } else { State::Left }, reason.name(), now.unix_ms);
            }
            audience.extend(reached);
            board.unindex(&who.user, &id, now);
        }
        self.negotiation = super::negotiation::Negotiation::default();
        audience.sort_unstable();
        audience.dedup();
        (audience, missed)
    }

    /// Ends a call that could ring nobody, and that nobody has heard of.
    pub(super) fn end_unheard(&mut self, board: &mut Switchboard, reason: Reason, now: Now) {
        let event = self.missed_event(reason.name());
        for who in &mut self.participants {
            if who.is_pending() {
                board.tell_missed(&who.user, &event, now);
                let step = Step::of(NoticeKind::Missed, Some(&who.user), Some(reason.name()));
                self.steps.push(step);
            }
            if who.is_pending() {
                who.depart(State::Missed, reason.name(), now.unix_ms);
            } else if who.is_present() {
                who.depart(State::Left, reason.name(), now.unix_ms);
            }
        }
        self.status = Status::Ended(reason);
        self.note(NoticeKind::Ended, None, Some(reason.name()));
        self.end = Some(End { at: now.unix_ms, by: None, duration: None });
    }

    /// Runs whatever is due.
    pub(super) fn on_timeout(&mut self, board: &mut Switchboard, now: Now) {
        let due = |at: std::time::Instant| at <= now.instant;
        if !self.is_over() && due(self.ends_by) {
            self.finish(board, Reason::MaxDuration, None, &[], now);
        }
        if !self.is_over() && due(self.ring_until) && self.pending().next().is_some() {
            self.ring_out(board, now);
        }
        if !self.is_over() && self.negotiate_until.is_some_and(due) {
            self.finish(board, Reason::NegotiationTimeout, None, &[], now);
        }
        if !self.is_over() && self.alone_until.is_some_and(due) {
            self.finish(board, Reason::Completed, None, &[], now);
        }
        self.renew_ice(board, now);
        let lost: Vec<UserId> =
            self.present().filter(|who| who.lost.is_some()).map(|who| who.user.clone()).collect();
        for user in lost {
            self.check_lost(board, &user, now);
        }
    }

    /// Renews the ICE servers of those whose are about to run out.
    fn renew_ice(&mut self, board: &mut Switchboard, now: Now) {
        for who in
            self.participants.iter_mut().filter(|who| who.renew_ice.is_some_and(|at| at <= now.instant))
        {
            let Some(device) = who.active_device() else { continue };
            let Ok(identity) = board.identity(device) else { continue };
            let ice = board.mint(&identity, Some(&self.id), now);
            who.renew_ice = ice.renew;
            let event = ice.described(json!({ "callId": self.id.0.as_ref() }));
            board.deliver(device, "call:ice-servers-refreshed", &event);
        }
    }

    /// The ring is over: those undecided have missed the call, even if others are in it.
    fn ring_out(&mut self, board: &mut Switchboard, now: Now) {
        if self.answered.is_none() {
            self.finish(board, Reason::Missed, None, &[], now);
            return;
        }
        let undecided: Vec<UserId> = self.pending().map(|who| who.user.clone()).collect();
        for user in undecided {
            self.dismiss(board, &user, State::Missed, "missed", now);
            let event = self.missed_event("missed");
            board.tell_missed(&user, &event, now);
            let event = self.left_event(&user, "missed");
            self.tell(board, "call:participant-left", &event, None);
        }
        self.settle(board, Reason::Completed, None, &[], now);
    }

    /// A lost connection: kept quiet at first, then shown, then given up.
    fn check_lost(&mut self, board: &mut Switchboard, user: &UserId, now: Now) {
        let answered = self.answered.is_some();
        let connected_elsewhere = board.is_reachable(user);
        let (quiet, longest) = (board.config.reconnecting_after, board.config.grace_with_session);
        let Some(lost) = self.of_mut(user).and_then(|who| who.lost.as_mut()) else { return };
        let mut show = false;
        if !lost.told && after(lost.at, quiet) <= now.instant {
            (lost.told, show) = (true, true);
        }
        let extended = after(lost.at, longest);
        if answered && connected_elsewhere && lost.until <= now.instant && now.instant < extended {
            lost.until = extended;
        }
        let given_up = lost.until <= now.instant;
        if show && !given_up {
            self.bump();
            let event = self.participant_event(user, json!({ "state": "reconnecting" }));
            self.tell(board, "call:participant-state", &event, Some(user));
        }
        if given_up && !answered {
            self.finish(board, Reason::Cancelled, None, &[], now);
        } else if given_up {
            self.give_up(board, user, now);
        }
    }

    fn give_up(&mut self, board: &mut Switchboard, user: &UserId, now: Now) {
        let reason = Reason::ConnectionLost;
        self.dismiss(board, user, State::Lost, reason.name(), now);
        let event = self.left_event(user, reason.name());
        self.tell(board, "call:participant-left", &event, None);
        let own = board.devices(user);
        self.settle(board, reason, None, &own, now);
    }

    /// The record, if the store does not have it yet.
    pub(super) fn take_record(&mut self) -> Option<Event> {
        std::mem::take(&mut self.dirty).then(|| Event::Record(Arc::new(self.to_record())))
    }
}
