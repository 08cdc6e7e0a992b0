//! Transports come and go: sessions open, wait, go on and end.

use serde_json::{Value, json};

use super::{Hub, Output};
use crate::signaling::call::Call;
use crate::signaling::participant::Lost;
use crate::signaling::resume::Fit;
use crate::signaling::{
    CallId, Close, Event, Identity, Now, Opened, Reject, Resume, Resumption, ServerEvent, SessionId, UserId,
};

/// A session that may go on.
struct Resumable {
    session: SessionId,
    key: Fit,
    missed: Vec<ServerEvent>,
}

impl Hub {
    /// Opens a session for an authenticated transport, or goes on with the one it wishes to resume; `session:ready` is
    /// the first output that goes to it, and after a resume exactly what was missed follows, in order. The transport
    /// that had the session before is closed.
    ///
    /// # Errors
    /// [`Reject`] when a limit on sessions is reached or the server drains. A wish that cannot be granted is none: see
    /// [`Resumption`].
    pub fn open(&mut self, identity: Identity, resume: Option<Resume>, now: Now) -> Result<Opened, Reject> {
        self.board.tick(now);
        let wish = resume.map(|resume| self.resumable(&identity.user, &resume));
        let resumption = match wish {
            Some(Ok(resumable)) => {
                let session = self.resume(resumable, identity, now)?;
                self.board.emit(Event::Resume { result: Resumption::Resumed });
                return Ok(Opened { session, resumption: Some(Resumption::Resumed) });
            }
            Some(Err((result, session))) => {
                self.board.emit(Event::Resume { result });
                session.iter().for_each(|session| self.replace(*session, now));
                Some(result)
            }
            None => None,
        };
        let session = self.open_new(identity, now)?;
        Ok(Opened { session, resumption })
    }

    fn open_new(&mut self, identity: Identity, now: Now) -> Result<SessionId, Reject> {
        if self.draining {
            return Err(Reject::Draining);
        }
        self.make_room(&identity.user, now)?;
        let user = identity.user.clone();
        let session = self.board.connect(identity, now);
        self.welcome(session, false, now)?;
        for id in self.calls_of(&user) {
            self.edit(&id, now, |call, board| call.ring(board, &user, &[session], now));
        }
        Ok(session)
    }

    /// A session that is beyond its limit takes the place of one that waits.
    fn make_room(&mut self, user: &UserId, now: Now) -> Result<(), Reject> {
        let limits = &self.board.config.limits;
        let (own, all) = (limits.sessions_per_user, limits.sessions);
        let devices = self.board.devices(user);
        if devices.len() >= own {
            let waiting = devices.into_iter().find(|session| !self.board.is_attached(*session));
            self.forsake(waiting.ok_or(Reject::Capacity("sessions of this user"))?, now);
        }
        if self.board.sessions.len() >= all {
            let waiting = self.board.detached.first().copied();
            self.forsake(waiting.ok_or(Reject::Capacity("sessions"))?, now);
        }
        Ok(())
    }

    /// Whether a wish can be granted; if not, why, and which session is of no use any more.
    fn resumable(
        &self,
        user: &UserId,
        resume: &Resume,
    ) -> Result<Resumable, (Resumption, Option<SessionId>)> {
        let found = self.board.sids.get(resume.sid.as_str()).copied();
        let found = found.and_then(|id| Some((id, self.board.sessions.get(&id)?)));
        let Some((id, session)) = found else { return Err((Resumption::Expired, None)) };
        let key = session.keys.fit(&resume.key);
        match key {
            _ if session.identity.user != *user => Err((Resumption::Wrong, None)),
            Fit::Wrong => Err((Resumption::Wrong, None)),
            Fit::Spent => Err((Resumption::Expired, None)),
            Fit::Current | Fit::Former => match session.replay.since(resume.seq) {
                Some(missed) => Ok(Resumable { session: id, key, missed }),
                None => Err((Resumption::Beyond, Some(id))),
            },
        }
    }

    fn resume(&mut self, from: Resumable, identity: Identity, now: Now) -> Result<SessionId, Reject> {
        let Resumable { session: old, key, missed } = from;
        self.close_old(old);
        let session = self.board.attach(old).ok_or(Reject::Internal)?;
        let random = self.board.random_bytes();
        let user = identity.user.clone();
        if let Some(session) = self.board.sessions.get_mut(&session) {
            session.keys.rotate(key, random);
            session.identity = identity.into();
        }
        let seats = self.take_seats(&user, old, session);
        self.welcome(session, true, now)?;
        for event in missed {
            self.board.out.push_back(Output::Deliver { session, event });
        }
        self.settle_ranks(session);
        for (id, lost) in seats {
            self.edit(&id, now, |call, board| call.go_on(board, &user, session, lost, now));
        }
        for id in self.calls_of(&user) {
            self.edit(&id, now, |call, board| call.reach(board, &user, now));
        }
        Ok(session)
    }

    /// A new token of a session: its grants and its expiry count from now on.
    ///
    /// # Errors
    /// `NOT_AUTHENTICATED` for a session without a transport, `PERMISSION_DENIED` for the token of someone else.
    pub fn refresh(&mut self, session: SessionId, identity: Identity, now: Now) -> Result<Value, Reject> {
        self.board.tick(now);
        self.board.emit(Event::EventIn { name: "session:refresh" });
        let expires = identity.expires_unix_ms.map(crate::signaling::snapshot::time);
        let open = self.board.sessions.get_mut(&session).filter(|session| session.attached);
        let outcome = match open {
            None => Err(Reject::NotAuthenticated),
            Some(open) if open.identity.user != identity.user => {
                Err(Reject::PermissionDenied("the token is of another user"))
            }
            Some(open) => {
                open.identity = identity.into();
                Ok(json!({ "expiresAt": expires }))
            }
        };
        match &outcome {
            Ok(_) => self.settle_ranks(session),
            Err(reject) => self.board.emit(Event::Rejected { code: reject.code() }),
        }
        outcome
    }

    /// What the owner of a session may do in its calls follows its identity.
    fn settle_ranks(&mut self, session: SessionId) {
        let Ok(identity) = self.board.identity(session) else { return };
        for id in self.calls_of(&identity.user) {
            let who = self.calls.get_mut(&id).and_then(|call| call.of_mut(&identity.user));
            if let Some(who) = who.filter(|who| who.device == Some(session)) {
                who.identify(&identity);
            }
        }
    }

    /// The seats that a session holds in calls pass to its new name.
    fn take_seats(&mut self, user: &UserId, old: SessionId, new: SessionId) -> Vec<(CallId, Option<Lost>)> {
        let mut seats = Vec::new();
        for id in self.calls_of(user) {
            let who = self.calls.get_mut(&id).and_then(|call| call.of_mut(user));
            if let Some(who) = who.filter(|who| who.device == Some(old)) {
                who.device = Some(new);
                seats.push((id, who.lost.take()));
            }
        }
        seats
    }

    /// Tells a transport that another one has its session now, and closes it.
    fn close_old(&mut self, session: SessionId) {
        if self.board.is_attached(session) {
            self.board.deliver_volatile(session, "session:replaced", &json!({}));
            self.board.out.push_back(Output::Close { session, close: Close::Replaced });
        }
    }

    /// A session that its own client has given up.
    fn replace(&mut self, session: SessionId, now: Now) {
        self.close_old(session);
        self.close(session, now);
        self.forsake(session, now);
    }

    /// The transport of a session is gone (not a hang-up: participants enter their grace, and the session waits to be
    /// resumed). Does nothing for a transport whose session has another one already.
    pub fn close(&mut self, session: SessionId, now: Now) {
        self.board.tick(now);
        if !self.board.detach(session, now) {
            return;
        }
        let Ok(identity) = self.board.identity(session) else { return };
        for id in self.calls_of(&identity.user) {
            self.edit(&id, now, |call, board| {
                if call.of(&identity.user).is_some_and(|who| who.device == Some(session)) {
                    call.lose(board, &identity.user, now);
                }
            });
        }
    }

    /// Ends a session that has no transport, or whose client said good-bye.
    pub(super) fn forsake(&mut self, session: SessionId, now: Now) {
        let Ok(identity) = self.board.identity(session) else { return };
        for id in self.calls_of(&identity.user) {
            let who = self.calls.get_mut(&id).and_then(|call| call.of_mut(&identity.user));
            if let Some(who) = who.filter(|who| who.device == Some(session)) {
                who.device = None;
            }
        }
        self.board.disconnect(session, now);
    }

    fn welcome(&mut self, id: SessionId, resumed: bool, now: Now) -> Result<(), Reject> {
        let identity = self.board.identity(id)?;
        let ice = self.board.mint(&identity, None, now);
        let active: Vec<Value> = self
            .calls_of(&identity.user)
            .iter()
            .filter_map(|id| self.calls.get(id))
            .map(Call::to_json)
            .collect();
        let missed = self.board.missed.take(&identity.user);
        if !missed.is_empty() {
            self.board.emit(Event::MissedSeen { user: identity.user.clone(), at: now.unix_ms });
        }
        // After a resume they are among what was missed.
        let missed = Some(missed).filter(|_| !resumed).unwrap_or_default();
        let session = self.board.sessions.get(&id).ok_or(Reject::Internal)?;
        let limits = &self.board.config.limits;
        let mut ready = json!({
            "sid": session.sid.as_ref(),
            "resumed": resumed,
            "resume": { "key": session.keys.wire() },
            "userId": identity.user.0.as_ref(),
            "serverTime": crate::signaling::snapshot::time(now.unix_ms),
            "protocol": 1,
            "limits": {
                "frameBytes": limits.frame_bytes,
                "sdpBytes": limits.sdp_bytes,
                "candidateBytes": limits.candidate_bytes,
                "idBytes": limits.id_bytes,
                "metadataBytes": limits.metadata_bytes,
                "participants": limits.participants,
            },
            "iceServers": ice.servers,
            "iceTtl": ice.ttl,
            "activeCalls": active,
            "missed": missed,
        });
        if let (Some(kbps), Some(limits)) = (identity.grants.max_kbps, ready["limits"].as_object_mut()) {
            limits.insert("maxKbps".into(), json!(kbps));
        }
        ready.as_object_mut().into_iter().for_each(|fields| ice.describe_policy(fields));
        self.board.deliver_volatile(id, "session:ready", &ready);
        Ok(())
    }
}
