//! What comes through REST: the same changes, made by the same code, so that participants hear of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Hub;
use super::moderation::Actor;
use crate::signaling::call::{Call, Reason};
use crate::signaling::message::Media;
use crate::signaling::participant::{Rank, Role};
use crate::signaling::session::Presence;
use crate::signaling::{CallId, CallRecord, ClientMessage, Identity, Now, Reject, RelayUsage, UserId};

/// Who commands.
#[derive(Debug, Clone)]
pub enum Authority {
    /// The operator's own servers (an api key).
    Operator,
    /// A user with a token: sees its own calls, and acts in them as it could through its session.
    User(Identity),
}

/// A command of REST. The value of [`Hub::admin`] for each of them is named in brackets.
#[derive(Debug, Clone)]
pub enum AdminCommand {
    /// Ends a call for all (`{}`).
    End(CallId),
    /// Removes a participant (`{}`).
    Kick {
        /// The call.
        call: CallId,
        /// Who.
        user: UserId,
        /// For good: no invitation brings it back.
        ban: bool,
    },
    /// Switches a media of a participant off (`{}`).
    Mute {
        /// The call.
        call: CallId,
        /// Who.
        user: UserId,
        /// What.
        media: Media,
    },
    /// Locks or unlocks a call (`{}`).
    Lock {
        /// The call.
        call: CallId,
        /// The state to set.
        locked: bool,
    },
    /// Calls more people into a call (`{ringing, offline, busy}`).
    Invite {
        /// The call.
        call: CallId,
        /// Who.
        users: Vec<UserId>,
    },
    /// Calls on behalf of a user (the ack of `call:initiate`); any of its devices takes the seat with `call:join`.
    Ring {
        /// The caller. Its grants count; its user is the commander's own unless that is the operator.
        from: Identity,
        /// Payload of `call:initiate`.
        request: Value,
    },
    /// Names the members of a room, or (with `None`) no longer (`{roomId, members, activeCall?}`).
    SetMembers {
        /// The room.
        room: Arc<str>,
        /// Who is rung for a call to the room, and may enter it.
        members: Option<Vec<UserId>>,
    },
    /// Who is in a room (`{roomId, members, named?, activeCall?}`).
    Room(Arc<str>),
    /// Who is connected (`{presence:[{userId, status, inCall}]}`).
    Presence(Vec<UserId>),
    /// Running calls, oldest first (`{calls:[CallSession]}`).
    ActiveCalls {
        /// Only those of this user.
        user: Option<UserId>,
        /// At most so many.
        limit: usize,
    },
    /// Sessions, oldest first (`{sessions:[{sid, userId, state, rooms}]}`).
    Sessions {
        /// Only those of this user.
        user: Option<UserId>,
        /// At most so many.
        limit: usize,
    },
    /// Counts (`{sessions:{connected, resumable}, users, rooms, calls}`).
    Stats,
}

impl Hub {
    /// Carries out a command.
    ///
    /// # Errors
    /// What the same request of a session would be refused with.
    pub fn admin(&mut self, by: &Authority, command: AdminCommand, now: Now) -> Result<Value, Reject> {
        self.board.tick(now);
        match command {
            AdminCommand::End(call) => self.end_by(by, &call, now),
            AdminCommand::Kick { call, user, ban } => {
                self.kick_as(&self.actor(by, &call)?, &call, &user, ban, now)
            }
            AdminCommand::Mute { call, user, media } => {
                self.mute_as(&self.actor(by, &call)?, &call, &user, media, now)
            }
            AdminCommand::Lock { call, locked } => self.lock_as(&self.actor(by, &call)?, &call, locked, now),
            AdminCommand::Invite { call, users } => {
                self.invite_as(&self.actor(by, &call)?, &call, &users, now)
            }
            AdminCommand::Ring { from, request } => self.ring_by(by, &from, request, now),
            AdminCommand::SetMembers { room, members } => self.set_members(by, &room, members),
            AdminCommand::Room(room) => {
                operator(by)?;
                Ok(self.room_json(&room))
            }
            AdminCommand::Presence(users) => self.list_presence(by, &users),
            AdminCommand::ActiveCalls { user, limit } => Ok(self.list_calls(by, user, limit)),
            AdminCommand::Sessions { user, limit } => self.list_sessions(by, user.as_ref(), limit),
            AdminCommand::Stats => self.stats(by),
        }
    }

    /// The record of a call that runs or ended a moment ago, as the store will have it.
    ///
    /// # Errors
    /// `CALL_NOT_FOUND`, also for a call that is not the commander's own.
    pub fn record(&self, by: &Authority, id: &CallId) -> Result<CallRecord, Reject> {
        self.actor(by, id)?;
        self.calls.get(id).map(Call::to_record).ok_or(Reject::CallNotFound)
    }

    /// Notes what a participant's media has cost the relay, in addition to what was noted before. Late is fine, as long
    /// as the call is remembered; the record follows.
    pub fn relay_usage(&mut self, call: &CallId, user: &UserId, usage: RelayUsage, now: Now) {
        self.board.tick(now);
        self.edit(call, now, |call, _| {
            let (up, down) = (usage.up, usage.down);
            let Some(who) = call.of_mut(user) else { return };
            who.note_relay(usage);
            call.relay_bytes_up = call.relay_bytes_up.saturating_add(up);
            call.relay_bytes_down = call.relay_bytes_down.saturating_add(down);
            call.bump();
        });
    }

    /// What a commander may do in a call. A call that is not its own does not exist for a user.
    fn actor(&self, by: &Authority, id: &CallId) -> Result<Actor, Reject> {
        let call = self.calls.get(id).ok_or(Reject::CallNotFound)?;
        match by {
            Authority::Operator => Ok(Actor { user: None, rank: Rank::Operator }),
            Authority::User(identity) => {
                let who = call.of(&identity.user);
                if who.is_none() && !identity.grants.admin {
                    return Err(Reject::CallNotFound);
                }
                let role = who.map_or(Role::Participant, |who| who.role);
                let rank = Rank::of(role, &identity.grants);
                Ok(Actor { user: Some(identity.user.clone()), rank })
            }
        }
    }

    fn end_by(&mut self, by: &Authority, id: &CallId, now: Now) -> Result<Value, Reject> {
        let actor = self.actor(by, id)?;
        if let (Authority::User(identity), true) = (by, actor.rank < Rank::Admin) {
            return self.end_as(identity, id, &[], now);
        }
        self.edit(id, now, |call, board| {
            let reason = if call.answered.is_some() { Reason::Admin } else { Reason::Cancelled };
            call.finish(board, reason, actor.user.as_ref(), &[], now);
        });
        Ok(json!({}))
    }

    fn ring_by(
        &mut self,
        by: &Authority,
        from: &Identity,
        request: Value,
        now: Now,
    ) -> Result<Value, Reject> {
        if let Authority::User(identity) = by
            && identity.user != from.user
            && !identity.grants.admin
        {
            return Err(Reject::PermissionDenied("calling for someone else"));
        }
        match ClientMessage::parse("call:initiate", request, &self.board.config.limits)? {
            ClientMessage::Initiate(request) => self.ring_for(from, request, now),
            _ => Err(Reject::Internal),
        }
    }

    fn set_members(
        &mut self,
        by: &Authority,
        name: &Arc<str>,
        members: Option<Vec<UserId>>,
    ) -> Result<Value, Reject> {
        operator(by)?;
        let limits = &self.board.config.limits;
        if members.as_ref().is_some_and(|members| members.len() > limits.members) {
            return Err(Reject::Invalid { field: "members", why: "are too many" });
        }
        let named = self.board.rooms.values().filter(|room| room.members.is_some()).count();
        let is_new = self.board.rooms.get(name).is_none_or(|room| room.members.is_none());
        if members.is_some() && named >= limits.member_rooms && is_new {
            return Err(Reject::Capacity("rooms with members"));
        }
        let room = self.board.rooms.entry(name.clone()).or_default();
        room.members = members.map(|members| members.into_iter().collect::<BTreeSet<_>>());
        // Whoever is no member any more is out.
        let strangers: Vec<_> = room.sessions.iter().copied().collect();
        for session in strangers {
            self.expel(session, name);
        }
        let shown = self.room_json(name);
        if self.board.rooms.get(name).is_some_and(crate::signaling::session::Room::is_empty) {
            self.board.rooms.remove(name);
        }
        Ok(shown)
    }

    fn expel(&mut self, session: crate::signaling::SessionId, name: &Arc<str>) {
        let Some(open) = self.board.sessions.get_mut(&session) else { return };
        if self.board.rooms.get(name).is_some_and(|room| !room.admits(&open.identity.user)) {
            open.rooms.remove(name);
            self.board.vacate(name, session);
        }
    }

    fn list_presence(&self, by: &Authority, users: &[UserId]) -> Result<Value, Reject> {
        if let Authority::User(identity) = by
            && users.iter().any(|user| *user != identity.user)
        {
            operator(by)?;
        }
        let presence: Vec<Value> = users.iter().map(|user| self.presence(user)).collect();
        Ok(json!({ "presence": presence }))
    }

    fn list_calls(&self, by: &Authority, user: Option<UserId>, limit: usize) -> Value {
        let user = match by {
            Authority::User(identity) if !identity.grants.admin => Some(identity.user.clone()),
            _ => user,
        };
        let mut calls: Vec<&Call> = match user {
            Some(user) => self.calls_of(&user).iter().filter_map(|id| self.calls.get(id)).collect(),
            None => self.calls.values().filter(|call| !call.is_over()).collect(),
        };
        calls.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        json!({ "calls": calls.into_iter().take(limit).map(Call::to_json).collect::<Vec<_>>() })
    }

    fn list_sessions(&self, by: &Authority, user: Option<&UserId>, limit: usize) -> Result<Value, Reject> {
        let user = match by {
            Authority::User(identity) if !identity.grants.admin => Some(&identity.user),
            _ => user,
        };
        let mut ids = match user {
            Some(user) => self.board.devices(user),
            None => self.board.sessions.keys().copied().collect(),
        };
        ids.sort_unstable();
        let sessions = ids.iter().take(limit).filter_map(|id| self.board.sessions.get(id)).map(|session| {
            json!({
                "sid": session.sid.as_ref(),
                "userId": session.identity.user.0.as_ref(),
                "state": if session.attached { "connected" } else { "resumable" },
                "rooms": session.rooms.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
            })
        });
        Ok(json!({ "sessions": sessions.collect::<Vec<_>>() }))
    }

    fn stats(&self, by: &Authority) -> Result<Value, Reject> {
        operator(by)?;
        let resumable = self.board.detached.len();
        let busy = |user: &&crate::signaling::session::User| {
            user.calls.values().any(|how| *how == Presence::Present)
        };
        Ok(json!({
            "sessions": { "connected": self.board.sessions.len() - resumable, "resumable": resumable },
            "users": self.board.users.len(),
            "usersInCalls": self.board.users.values().filter(busy).count(),
            "rooms": self.board.rooms.len(),
            "calls": self.calls.len() - self.ended.len(),
            "draining": self.draining,
        }))
    }
}

/// An api key, or a token with the `admin` grant.
fn operator(by: &Authority) -> Result<(), Reject> {
    match by {
        Authority::User(identity) if !identity.grants.admin => Err(Reject::PermissionDenied("admin")),
        _ => Ok(()),
    }
}
