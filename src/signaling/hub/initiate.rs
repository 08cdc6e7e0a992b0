//! `call:initiate`: who is called, and whether a call comes of it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Caller, Hub};
use crate::signaling::call::{Call, Reason};
use crate::signaling::config::BusyPolicy;
use crate::signaling::message::{Initiate, Kind, Settings};
use crate::signaling::notice::NoticeKind;
use crate::signaling::participant::{Participant, Profile, State};
use crate::signaling::session::Presence;
use crate::signaling::{CallId, Event, Identity, Now, Reject, SessionId, UserId};

/// A call that is running between the same two people.
enum Pair {
    /// The other one is ringing us: pick up.
    Incoming(CallId),
    /// It is ours, or answered.
    Running(CallId),
}

impl Hub {
    pub(super) fn initiate(&mut self, caller: Caller, request: Initiate, now: Now) -> Result<Value, Reject> {
        let identity = self.board.identity(caller.session)?;
        self.charge(caller.session, "initiate", now)?;
        if self.draining {
            return Err(Reject::Draining);
        }
        may_initiate(&identity, &request, now)?;
        let callees = self.callees(&identity.user, &request)?;
        if let Some(Pair::Incoming(call)) = self.pair(&identity.user, &callees) {
            return self.pick_up(caller, &identity, &call, request.settings, now);
        }
        self.start(&identity, Some(caller.session), request, &callees, now)
    }

    /// Rings on behalf of a user, who has no device in the call yet: any of its devices may take the seat.
    pub(super) fn ring_for(
        &mut self,
        identity: &Identity,
        request: Initiate,
        now: Now,
    ) -> Result<Value, Reject> {
        if self.draining {
            return Err(Reject::Draining);
        }
        may_initiate(identity, &request, now)?;
        let callees = self.callees(&identity.user, &request)?;
        self.start(identity, None, request, &callees, now)
    }

    fn start(
        &mut self,
        identity: &Identity,
        device: Option<SessionId>,
        request: Initiate,
        callees: &[UserId],
        now: Now,
    ) -> Result<Value, Reject> {
        if let Some(Pair::Incoming(call) | Pair::Running(call)) = self.pair(&identity.user, callees) {
            return Err(Reject::CallAlreadyActive(call));
        }
        self.check_room(device, &identity.user, &request, callees)?;
        self.check_capacity(&identity.user)?;
        let id = CallId(self.board.random_id());
        let mut call = Call::new(id, identity, device, request, &self.board.config, now);
        call.note(NoticeKind::Initiated, Some(&identity.user), None);
        self.invite(&mut call, callees, now);
        self.board.emit(Event::CallStarted { kind: call.kind.name() });
        if let Some(reject) = self.unplaceable(&mut call, now) {
            return Err(reject);
        }
        Ok(self.place(identity, device, call, now))
    }

    /// `to`, or everyone else in the room.
    fn callees(&self, caller: &UserId, request: &Initiate) -> Result<Vec<UserId>, Reject> {
        if request.to.contains(caller) {
            return Err(Reject::Invalid { field: "to", why: "names the caller" });
        }
        let limits = &self.board.config.limits;
        if !request.to.is_empty() {
            let full = request.to.len() >= limits.participants;
            return if full {
                Err(Reject::MaxParticipants(limits.participants))
            } else {
                Ok(request.to.clone())
            };
        }
        let room = request.room.as_ref().and_then(|name| self.board.rooms.get(name));
        if let Some(members) = room.and_then(|room| room.members.as_ref()) {
            if !members.contains(caller) {
                return Err(Reject::ConversationNotFound);
            }
            return Ok(members.iter().filter(|user| *user != caller).take(limits.invited).cloned().collect());
        }
        let sessions = room.into_iter().flat_map(|room| &room.sessions);
        let users: BTreeSet<&UserId> = sessions
            .filter_map(|session| self.board.sessions.get(session))
            .map(|session| &session.identity.user)
            .filter(|user| *user != caller)
            .collect();
        Ok(users.into_iter().take(limits.invited).cloned().collect())
    }

    /// A running call of just the caller and the only callee.
    fn pair(&self, caller: &UserId, callees: &[UserId]) -> Option<Pair> {
        let [callee] = callees else { return None };
        let call =
            self.calls_of(caller).into_iter().filter_map(|id| self.calls.get(&id)).find(|call| {
                call.participants.len() == 2 && call.of(callee).is_some_and(Participant::is_live)
            })?;
        let incoming = call.initiator == *callee && call.of(caller).is_some_and(Participant::is_pending);
        Some(if incoming { Pair::Incoming(call.id.clone()) } else { Pair::Running(call.id.clone()) })
    }

    /// Two people call each other: the second call becomes the answer to the first.
    fn pick_up(
        &mut self,
        caller: Caller,
        identity: &Identity,
        id: &CallId,
        settings: Settings,
        now: Now,
    ) -> Result<Value, Reject> {
        let mut joined = self.enter(caller, identity, id, settings, now)?;
        let Some(fields) = joined.as_object_mut() else { return Err(Reject::Internal) };
        // The rest is about ICE.
        let call = fields.remove("callSession").unwrap_or_default();
        fields.insert("callId".into(), json!(id.0.as_ref()));
        fields.insert("mode".into(), json!(call.get("mode")));
        fields.insert("ringing".into(), json!([]));
        fields.insert("existing".into(), json!(true));
        fields.insert("call".into(), call);
        Ok(joined)
    }

    /// One running call a room; and in a conversation, one between the same people.
    fn check_room(
        &self,
        device: Option<SessionId>,
        user: &UserId,
        request: &Initiate,
        callees: &[UserId],
    ) -> Result<(), Reject> {
        let Some(name) = &request.room else { return Ok(()) };
        let hosted = self.board.rooms.get(name).and_then(|room| room.call.clone());
        let concerned =
            request.to.is_empty() || device.is_some_and(|session| self.board.is_in_room(session, name));
        let own = || {
            let calls = self.calls_of(user).into_iter().filter_map(|id| self.calls.get(&id));
            let mut same = calls.filter(|call| call.room.as_ref() == Some(name));
            // That someone else rings a user in this conversation must not keep it from calling third parties.
            same.find(|call| {
                let live = |user| call.of(user).is_some_and(Participant::is_live);
                call.of(user).is_some_and(Participant::is_present) || callees.iter().any(live)
            })
        };
        match hosted.filter(|_| concerned).or_else(|| own().map(|call| call.id.clone())) {
            Some(call) => Err(Reject::CallAlreadyActive(call)),
            None => Ok(()),
        }
    }

    fn check_capacity(&self, user: &UserId) -> Result<(), Reject> {
        let limits = &self.board.config.limits;
        if self.calls.len().saturating_sub(self.ended.len()) >= limits.calls {
            return Err(Reject::Capacity("running calls"));
        }
        let started = self.calls_of(user).into_iter().filter_map(|id| self.calls.get(&id));
        if started.filter(|call| call.initiator == *user).count() >= limits.calls_per_initiator
            || self.board.is_crowded(user)
        {
            return Err(Reject::Capacity("running calls of this user"));
        }
        Ok(())
    }

    fn invite(&self, call: &mut Call, callees: &[UserId], now: Now) {
        for user in callees {
            call.invite(user, self.profile_of(user), now);
            let busy = self.refuses_to_ring(user);
            if let Some(who) = call.of_mut(user).filter(|_| busy) {
                who.depart(State::Busy, "busy", now.unix_ms);
            }
        }
    }

    /// What the devices of a user show of it.
    pub(super) fn profile_of(&self, user: &UserId) -> Profile {
        let device = self.board.devices(user).first().copied();
        let identity = device.and_then(|device| self.board.identity(device).ok());
        identity.map(|identity| Profile::of(&identity)).unwrap_or_default()
    }

    /// Whether a user is in another call, and not to be disturbed.
    pub(super) fn refuses_to_ring(&self, user: &UserId) -> bool {
        let refuse_busy = self.board.config.busy == BusyPolicy::Reject;
        (refuse_busy && self.board.is_busy(user)) || self.board.is_crowded(user)
    }

    /// A call that rings nobody is over before it began; the record says so.
    fn unplaceable(&mut self, call: &mut Call, now: Now) -> Option<Reject> {
        let anyone = self.board.config.ring_offline;
        if call.pending().any(|who| anyone || self.board.is_reachable(&who.user)) {
            return None;
        }
        let busy = call.pending().next().is_none() && call.participants.len() > 1;
        let (reason, reject) =
            if busy { (Reason::Busy, Reject::UserBusy) } else { (Reason::Offline, Reject::UserOffline) };
        call.end_unheard(&mut self.board, reason, now);
        call.tell_steps(&mut self.board, now);
        self.board.emit(Event::CallEnded {
            call: call.id.clone(),
            kind: call.kind.name(),
            reason: reason.name(),
            answered: false,
            duration: None,
        });
        if let Some(record) = call.take_record() {
            self.board.emit(record);
        }
        Some(reject)
    }

    /// Puts the call into the tables and rings.
    fn place(&mut self, identity: &Identity, device: Option<SessionId>, mut call: Call, now: Now) -> Value {
        let id = call.id.clone();
        for who in call.participants.iter().filter(|who| who.is_live()) {
            let how = if who.is_present() { Presence::Present } else { Presence::Pending };
            self.board.index(&who.user, &id, how);
        }
        if let Some(room) = call.room.as_ref().filter(|_| call.open) {
            self.board.host(room, id.clone());
        }
        call.meshed = call.live() > 2;
        self.board.emit(Event::CallStatus { from: None, to: Some(call.status.name()) });
        let ice = self.board.mint(identity, Some(&id), now);
        let mut own = call.invitation();
        own.insert("self".into(), json!(true));
        ice.describe(&mut own);
        if let Some(who) = call.of_mut(&identity.user) {
            who.renew_ice = ice.renew;
        }
        let devices = device.map_or_else(|| self.board.devices(&identity.user), |device| vec![device]);
        self.board.deliver_all(&devices, "call:initiated", &Value::Object(own));
        self.calls.insert(id.clone(), call);
        let ack = self.edit(&id, now, |call, board| {
            let callees: Vec<UserId> = call.pending().map(|who| who.user.clone()).collect();
            for user in &callees {
                call.ring(board, user, &board.devices(user), now);
            }
            call.refresh_status(board);
            let rung = call.pending().filter(|who| who.state == State::Ringing);
            ice.described(json!({
                "callId": call.id.0.as_ref(),
                "mode": call.mode(),
                "ringing": rung.map(|who| who.user.0.as_ref()).collect::<Vec<_>>(),
                "call": call.to_json(),
            }))
        });
        ack.unwrap_or_default()
    }
}

fn may_initiate(identity: &Identity, request: &Initiate, now: Now) -> Result<(), Reject> {
    if identity.expired(now.unix_ms) {
        return Err(Reject::TokenExpired);
    }
    let grants = &identity.grants;
    if !grants.initiate {
        return Err(Reject::PermissionDenied("initiate"));
    }
    if request.kind == Kind::Video && !grants.video {
        return Err(Reject::PermissionDenied("video"));
    }
    if !grants.allows_room(request.room.as_deref()) {
        return Err(Reject::PermissionDenied("this room"));
    }
    Ok(())
}
