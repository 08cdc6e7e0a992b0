//! Coming into a call and going from it: `call:join`, `call:leave`, `call:decline`, `call:end`.

use serde_json::{Value, json};

use super::{Caller, Hub};
use crate::signaling::call::{Call, Reason};
use crate::signaling::message::{Kind, Media, Settings};
use crate::signaling::participant::State;
use crate::signaling::{CallId, Identity, Now, Reject, SessionId, UserId};

/// What a session is to a call.
enum Standing {
    /// The device that joined, or a later connection of its user that takes its place.
    Joined,
    /// Called and undecided.
    Pending,
    /// Another device of the user has joined.
    Elsewhere,
    /// Gone.
    Gone,
}

impl Hub {
    pub(super) fn join(
        &mut self,
        caller: Caller,
        id: &CallId,
        settings: Settings,
        now: Now,
    ) -> Result<Value, Reject> {
        let identity = self.board.identity(caller.session)?;
        self.charge(caller.session, "join", now)?;
        self.enter(caller, &identity, id, settings, now)
    }

    /// Joins, or takes up where another connection of the user was lost.
    pub(super) fn enter(
        &mut self,
        caller: Caller,
        identity: &Identity,
        id: &CallId,
        settings: Settings,
        now: Now,
    ) -> Result<Value, Reject> {
        let (call, session) = (self.visible(caller.session, &identity.user, id)?, caller.session);
        if call.is_over() {
            return Err(Reject::CallEnded(id.clone()));
        }
        let device = call.of(&identity.user).filter(|who| who.is_present()).map(|who| who.device);
        match device {
            Some(Some(device)) if device == session => {}
            Some(_) => {
                if let Standing::Elsewhere = self.standing(session, &identity.user, call) {
                    return Err(Reject::AlreadyInCall(id.clone()));
                }
                self.edit(id, now, |call, board| call.reattach(board, identity, session, now));
            }
            None => {
                may_join(identity, call, now)?;
                let who = call.of(&identity.user);
                if call.locked && who.is_none_or(|who| !who.is_pending()) {
                    return Err(Reject::CallLocked);
                }
                if who.is_some_and(|who| who.state == State::Kicked) {
                    return Err(Reject::PermissionDenied("you were removed from this call"));
                }
                if call.of(&identity.user).is_none() && self.board.is_crowded(&identity.user) {
                    return Err(Reject::Capacity("running calls of this user"));
                }
                self.edit(id, now, |call, board| call.accept(board, identity, session, settings, now))
                    .unwrap_or(Err(Reject::CallNotFound))?;
            }
        }
        let reattached = matches!(device, Some(held) if held != Some(session));
        Ok(self.seat(caller, identity, id, reattached, now))
    }

    /// The answer to a join, and what waited for it.
    fn seat(
        &mut self,
        caller: Caller,
        identity: &Identity,
        id: &CallId,
        reattached: bool,
        now: Now,
    ) -> Value {
        let ice = self.board.mint(identity, Some(id), now);
        let call = self.calls.get(id).map(Call::to_json).unwrap_or_default();
        let joined = ice.described(json!({ "callSession": call }));
        if !caller.wants_ack {
            let mut echo = joined.clone();
            if let Some(fields) = echo.as_object_mut() {
                fields.insert("success".into(), json!(true));
                fields.insert("callId".into(), json!(id.0.as_ref()));
            }
            self.board.deliver(caller.session, "call:join", &echo);
        }
        self.edit(id, now, |call, board| {
            if let Some(who) = call.of_mut(&identity.user) {
                who.renew_ice = ice.renew;
            }
            call.flush(board, &identity.user, now);
            if reattached {
                board.deliver(caller.session, "call:state", &call.state_event());
            }
        });
        joined
    }

    pub(super) fn leave(&mut self, caller: Caller, id: &CallId, now: Now) -> Result<Value, Reject> {
        let user = self.charged_leave(caller, id, now)?;
        let standing = self.standing_in(caller, &user, id)?;
        self.edit(id, now, |call, board| match standing {
            Standing::Joined => call.leave(board, &user, caller.session, !caller.wants_ack, now),
            Standing::Pending => call.decline(board, &user, now),
            Standing::Elsewhere | Standing::Gone => {}
        });
        Ok(json!({}))
    }

    pub(super) fn decline(&mut self, caller: Caller, id: &CallId, now: Now) -> Result<Value, Reject> {
        let user = self.charged_leave(caller, id, now)?;
        match self.standing_in(caller, &user, id)? {
            Standing::Joined => return Err(Reject::StateConflict("you have joined: leave instead")),
            Standing::Pending => {
                self.edit(id, now, |call, board| call.decline(board, &user, now));
            }
            Standing::Elsewhere | Standing::Gone => {}
        }
        Ok(json!({}))
    }

    pub(super) fn end(&mut self, caller: Caller, id: &CallId, now: Now) -> Result<Value, Reject> {
        let user = self.charged_leave(caller, id, now)?;
        let identity = self.board.identity(caller.session)?;
        self.visible(caller.session, &user, id)?;
        self.end_as(&identity, id, &[caller.session], now)
    }

    /// Ends a call on behalf of a user; `also` hears of it.
    pub(super) fn end_as(
        &mut self,
        identity: &Identity,
        id: &CallId,
        also: &[SessionId],
        now: Now,
    ) -> Result<Value, Reject> {
        let (user, moderates) = (&identity.user, identity.grants.moderate);
        let call = self.calls.get(id).ok_or(Reject::CallNotFound)?;
        if call.is_over() {
            return Ok(json!({}));
        }
        let who = call.of(user).filter(|who| who.is_live()).ok_or(Reject::NotInCall)?;
        if call.is_group() && call.initiator != *user && !moderates {
            return Err(Reject::PermissionDenied("only its initiator ends a group call for all"));
        }
        let reason = match (call.answered.is_some(), who.is_pending()) {
            (true, _) => Reason::Completed,
            (false, true) => Reason::Rejected,
            (false, false) => Reason::Cancelled,
        };
        self.edit(id, now, |call, board| {
            call.finish(board, reason, Some(user), also, now);
        });
        Ok(json!({}))
    }

    pub(super) fn toggle(
        &mut self,
        caller: Caller,
        id: &CallId,
        media: Media,
        enabled: bool,
        now: Now,
    ) -> Result<Value, Reject> {
        let identity = self.board.identity(caller.session)?;
        self.charge(caller.session, "toggle", now)?;
        self.joined_here(caller.session, &identity.user, id)?;
        if enabled && media != Media::Audio && !identity.grants.video {
            return Err(Reject::PermissionDenied("video"));
        }
        let user = &identity.user;
        let rev = self.edit(id, now, |call, board| {
            let changed = call.toggle(user, media, enabled);
            let fields = json!({ "mediaType": media.name(), "enabled": enabled });
            let event = call.participant_event(user, fields);
            match changed {
                Some(_) => call.tell(board, "call:media-toggled", &event, None),
                None if caller.wants_ack => {}
                None => board.deliver(caller.session, "call:media-toggled", &event),
            }
            call.rev
        });
        Ok(json!({ "rev": rev }))
    }

    pub(super) fn request_ice(
        &mut self,
        caller: Caller,
        id: Option<&CallId>,
        now: Now,
    ) -> Result<Value, Reject> {
        let identity = self.board.identity(caller.session)?;
        self.charge(caller.session, "join", now)?;
        if let Some(id) = id {
            self.joined_here(caller.session, &identity.user, id)?;
        }
        let ice = self.board.mint(&identity, id, now);
        if let Some(id) = id {
            self.edit(id, now, |call, _| {
                if let Some(who) = call.of_mut(&identity.user) {
                    who.renew_ice = ice.renew;
                }
            });
        }
        let refreshed = ice.described(json!({}));
        if !caller.wants_ack {
            let mut echo = refreshed.clone();
            if let (Some(fields), Some(id)) = (echo.as_object_mut(), id) {
                fields.insert("callId".into(), json!(id.0.as_ref()));
            }
            self.board.deliver(caller.session, "call:ice-servers-refreshed", &echo);
        }
        Ok(refreshed)
    }

    /// A session says good-bye: it leaves the calls it has joined, and is gone at once.
    pub(super) fn bye(&mut self, caller: Caller, now: Now) -> Result<Value, Reject> {
        let identity = self.board.identity(caller.session)?;
        for id in self.calls_of(&identity.user) {
            self.edit(&id, now, |call, board| {
                if call.of(&identity.user).is_some_and(|who| who.device == Some(caller.session)) {
                    call.leave(board, &identity.user, caller.session, false, now);
                }
            });
        }
        self.close(caller.session, now);
        self.forsake(caller.session, now);
        Ok(json!({}))
    }

    /// A call this user has a part in, or that is open to a room the session is in. To anyone else there is none.
    pub(super) fn visible(&self, session: SessionId, user: &UserId, id: &CallId) -> Result<&Call, Reject> {
        let call = self.calls.get(id).ok_or(Reject::CallNotFound)?;
        let invited = call.of(user).is_some();
        let open =
            call.open && call.room.as_ref().is_some_and(|room| self.board.may_enter(session, user, room));
        if invited || open { Ok(call) } else { Err(Reject::CallNotFound) }
    }

    /// The running call, if this session is the device that has joined it.
    pub(super) fn joined_here(
        &self,
        session: SessionId,
        user: &UserId,
        id: &CallId,
    ) -> Result<&Call, Reject> {
        let call = self.visible(session, user, id)?;
        if call.is_over() {
            return Err(Reject::CallEnded(id.clone()));
        }
        if call.of(user).is_some_and(|who| who.device == Some(session)) {
            Ok(call)
        } else {
            Err(Reject::NotInCall)
        }
    }

    fn standing_in(&self, caller: Caller, user: &UserId, id: &CallId) -> Result<Standing, Reject> {
        let call = self.visible(caller.session, user, id)?;
        Ok(self.standing(caller.session, user, call))
    }

    fn standing(&self, session: SessionId, user: &UserId, call: &Call) -> Standing {
        let Some(who) = call.of(user).filter(|who| who.is_live()) else { return Standing::Gone };
        if who.is_pending() {
            return Standing::Pending;
        }
        // A connection younger than the join is the user coming back before the old connection was noticed to be
        // dead; one that was there all along is another device.
        let opened = self.board.sessions.get(&session).map(|session| session.opened);
        let younger = opened > who.joined;
        match who.active_device() {
            Some(device) if device != session && !younger => Standing::Elsewhere,
            _ => Standing::Joined,
        }
    }

    fn charged_leave(&mut self, caller: Caller, id: &CallId, now: Now) -> Result<UserId, Reject> {
        let identity = self.board.identity(caller.session)?;
        self.charge(caller.session, "leave", now)?;
        self.visible(caller.session, &identity.user, id)?;
        Ok(identity.user.clone())
    }

    /// Takes a token from a bucket of the user.
    pub(super) fn charge(&mut self, session: SessionId, limit: &'static str, now: Now) -> Result<(), Reject> {
        let identity = self.board.identity(session)?;
        let rates = &self.board.config.rates;
        let user = self.board.users.get_mut(&identity.user).ok_or(Reject::NotAuthenticated)?;
        let (bucket, rate) = match limit {
            "initiate" => (&mut user.initiate, rates.initiate),
            "join" => (&mut user.join, rates.join),
            "toggle" => (&mut user.toggle, rates.toggle),
            _ => (&mut user.leave, rates.leave),
        };
        bucket.take(rate, now.instant).map_err(|retry_after| Reject::RateLimited { limit, retry_after })
    }
}

fn may_join(identity: &Identity, call: &Call, now: Now) -> Result<(), Reject> {
    if identity.expired(now.unix_ms) {
        return Err(Reject::TokenExpired);
    }
    let grants = &identity.grants;
    if !grants.join {
        return Err(Reject::PermissionDenied("join"));
    }
    if call.kind == Kind::Video && !grants.video {
        return Err(Reject::PermissionDenied("video"));
    }
    if !grants.allows_room(call.room.as_deref()) {
        return Err(Reject::PermissionDenied("this room"));
    }
    Ok(())
}
