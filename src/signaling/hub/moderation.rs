//! Acting on others in a call: `call:invite`, `call:kick`, `call:mute`, `call:lock`.

use serde_json::{Value, json};

use super::{Caller, Hub};
use crate::signaling::call::Call;
use crate::signaling::deadline::after;
use crate::signaling::message::Media;
use crate::signaling::participant::{BANNED, Participant, Rank, State};
use crate::signaling::session::Presence;
use crate::signaling::{CallId, Now, Reject, UserId};

/// On whose behalf, and what that allows.
pub(super) struct Actor {
    /// Who; `None` is the operator.
    pub(super) user: Option<UserId>,
    /// Only those of a lower rank are acted on.
    pub(super) rank: Rank,
}

impl Hub {
    pub(super) fn invite_to(
        &mut self,
        caller: Caller,
        id: &CallId,
        users: &[UserId],
        now: Now,
    ) -> Result<Value, Reject> {
        let actor = self.moderator(caller, id, now)?;
        self.invite_as(&actor, id, users, now)
    }

    pub(super) fn kick(
        &mut self,
        caller: Caller,
        id: &CallId,
        user: &UserId,
        ban: bool,
        now: Now,
    ) -> Result<Value, Reject> {
        let actor = self.moderator(caller, id, now)?;
        self.kick_as(&actor, id, user, ban, now)
    }

    pub(super) fn mute(
        &mut self,
        caller: Caller,
        id: &CallId,
        user: &UserId,
        media: Media,
        now: Now,
    ) -> Result<Value, Reject> {
        let actor = self.moderator(caller, id, now)?;
        self.mute_as(&actor, id, user, media, now)
    }

    pub(super) fn lock(
        &mut self,
        caller: Caller,
        id: &CallId,
        locked: bool,
        now: Now,
    ) -> Result<Value, Reject> {
        let actor = self.moderator(caller, id, now)?;
        self.lock_as(&actor, id, locked, now)
    }

    /// The sender, who has joined the call with this session.
    fn moderator(&mut self, caller: Caller, id: &CallId, now: Now) -> Result<Actor, Reject> {
        let identity = self.board.identity(caller.session)?;
        self.charge_message(caller.session, now)?;
        let call = self.joined_here(caller.session, &identity.user, id)?;
        let rank = call.of(&identity.user).map_or(Rank::Member, |who| who.rank);
        Ok(Actor { user: Some(identity.user.clone()), rank })
    }

    /// Takes a token from the bucket of a session's messages.
    pub(super) fn charge_message(
        &mut self,
        session: crate::signaling::SessionId,
        now: Now,
    ) -> Result<(), Reject> {
        let rate = self.board.config.rates.messages;
        let session = self.board.sessions.get_mut(&session).ok_or(Reject::NotAuthenticated)?;
        session
            .messages
            .take(rate, now.instant)
            .map_err(|retry_after| Reject::RateLimited { limit: "messages", retry_after })
    }

    /// Calls more people into a running call.
    pub(super) fn invite_as(
        &mut self,
        actor: &Actor,
        id: &CallId,
        users: &[UserId],
        now: Now,
    ) -> Result<Value, Reject> {
        let call = moderated(self.calls.get(id), actor, id)?;
        if users.iter().any(|user| call.of(user).is_some_and(Participant::is_banned)) {
            return Err(Reject::PermissionDenied("somebody was banned from this call"));
        }
        let limits = &self.board.config.limits;
        let new: Vec<UserId> =
            users.iter().filter(|user| call.of(user).is_none_or(|who| !who.is_live())).cloned().collect();
        let unknown = new.iter().filter(|user| call.of(user).is_none()).count();
        if call.live() + new.len() > limits.participants || call.participants.len() + unknown > limits.roster
        {
            return Err(Reject::MaxParticipants(limits.participants));
        }
        let anyone = self.board.config.ring_offline;
        let (busy, idle): (Vec<UserId>, Vec<UserId>) =
            new.into_iter().partition(|user| self.refuses_to_ring(user));
        let (rung, offline): (Vec<UserId>, Vec<UserId>) =
            idle.into_iter().partition(|user| anyone || self.board.is_reachable(user));
        if rung.is_empty() && !(busy.is_empty() && offline.is_empty()) {
            return Err(if offline.is_empty() { Reject::UserBusy } else { Reject::UserOffline });
        }
        let profiles: Vec<_> = rung.iter().map(|user| self.profile_of(user)).collect();
        let ids = |users: &[UserId]| users.iter().map(|user| user.0.to_string()).collect::<Vec<_>>();
        let outcome = json!({ "ringing": ids(&rung), "offline": ids(&offline), "busy": ids(&busy) });
        if rung.is_empty() {
            return Ok(outcome);
        }
        self.edit(id, now, |call, board| {
            let ring = board.config.ring_timeout;
            call.ring_until = call.ring_until.max(after(now.instant, ring));
            let ring_ms = i64::try_from(ring.as_millis()).unwrap_or(i64::MAX);
            call.expires_at = call.expires_at.max(now.unix_ms.saturating_add(ring_ms));
            for (user, profile) in rung.iter().zip(profiles) {
                match call.of_mut(user) {
                    Some(who) => who.call_again(),
                    None => call.invite(user, profile, now),
                }
                board.index(user, &call.id, Presence::Pending);
            }
            call.bump();
            for user in &rung {
                call.ring(board, user, &board.devices(user), now);
            }
            let state = call.state_event();
            call.tell(board, "call:state", &state, None);
        });
        Ok(outcome)
    }

    /// Removes someone from a call, for good unless invited again; with a ban, nobody can. A ban reaches those too who
    /// have left already.
    pub(super) fn kick_as(
        &mut self,
        actor: &Actor,
        id: &CallId,
        user: &UserId,
        ban: bool,
        now: Now,
    ) -> Result<Value, Reject> {
        let call = moderated(self.calls.get(id), actor, id)?;
        let gone = call.of(user).is_some_and(|who| !who.is_live());
        if ban && gone {
            allowed(actor, user, call.of(user))?;
            self.edit(id, now, |call, _| {
                if let Some(who) = call.of_mut(user) {
                    who.depart(State::Kicked, BANNED, now.unix_ms);
                }
                call.bump();
            });
            return Ok(json!({}));
        }
        outranked(call, actor, user)?;
        self.edit(id, now, |call, board| {
            let own = call
                .of(user)
                .and_then(Participant::active_device)
                .map_or_else(|| board.devices(user), |device| vec![device]);
            let reason = if ban { BANNED } else { "kicked" };
            call.dismiss(board, user, State::Kicked, reason, now);
            let by = actor.user.as_ref().map(|by| by.0.as_ref());
            let kicked =
                call.participant_event(user, json!({ "by": by, "reason": reason, "mode": call.mode() }));
            board.deliver_all(&own, "call:kicked", &kicked);
            let left = call.left_event(user, reason);
            call.tell(board, "call:participant-left", &left, None);
            let cause = call.settled_reason();
            call.settle(board, cause, actor.user.as_ref(), &own, now);
        });
        Ok(json!({}))
    }

    /// Switches the media of someone off. Only they can switch it on again.
    pub(super) fn mute_as(
        &mut self,
        actor: &Actor,
        id: &CallId,
        user: &UserId,
        media: Media,
        now: Now,
    ) -> Result<Value, Reject> {
        let call = moderated(self.calls.get(id), actor, id)?;
        if !outranked(call, actor, user)?.is_present() {
            return Err(Reject::TargetNotFound);
        }
        self.edit(id, now, |call, board| {
            if call.toggle(user, media, false).is_none() {
                return;
            }
            let by = actor.user.as_ref().map(|by| by.0.as_ref());
            let fields = json!({ "mediaType": media.name(), "enabled": false, "by": by });
            let event = call.participant_event(user, fields);
            if let Some(device) = call.of(user).and_then(|who| who.device) {
                board.deliver(device, "call:muted", &event);
            }
            call.tell(board, "call:media-toggled", &event, None);
        });
        Ok(json!({}))
    }

    /// Closes a call to whoever is not in it, or opens it again.
    pub(super) fn lock_as(
        &mut self,
        actor: &Actor,
        id: &CallId,
        locked: bool,
        now: Now,
    ) -> Result<Value, Reject> {
        moderated(self.calls.get(id), actor, id)?;
        self.edit(id, now, |call, board| {
            if std::mem::replace(&mut call.locked, locked) != locked {
                call.bump();
                let state = call.state_event();
                call.tell(board, "call:state", &state, None);
            }
        });
        Ok(json!({}))
    }
}

/// The running call, if the actor may act on others in it.
fn moderated<'a>(call: Option<&'a Call>, actor: &Actor, id: &CallId) -> Result<&'a Call, Reject> {
    let call = call.ok_or(Reject::CallNotFound)?;
    if call.is_over() {
        return Err(Reject::CallEnded(id.clone()));
    }
    if actor.rank > Rank::Member { Ok(call) } else { Err(Reject::PermissionDenied("moderate")) }
}

/// Someone who is called or joined, and has a lower rank than the actor.
fn outranked<'a>(call: &'a Call, actor: &Actor, user: &UserId) -> Result<&'a Participant, Reject> {
    allowed(actor, user, call.of(user).filter(|who| who.is_live()))
}

/// The same of whoever is given.
fn allowed<'a>(
    actor: &Actor,
    user: &UserId,
    who: Option<&'a Participant>,
) -> Result<&'a Participant, Reject> {
    let who = who.ok_or(Reject::TargetNotFound)?;
    if actor.user.as_ref() == Some(user) {
        return Err(Reject::Invalid { field: "participantId", why: "names the sender" });
    }
    if actor.rank > who.rank { Ok(who) } else { Err(Reject::PermissionDenied("the other has no lower rank")) }
}
