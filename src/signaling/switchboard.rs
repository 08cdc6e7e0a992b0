//! Everything but the calls: who can be reached where, and what goes out.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use super::config::Config;
use super::deadline::Deadlines;
use super::session::{Presence, Room, Session, User};
use super::{CallId, Entropy, Event, IceMint, Identity, Now, Output, Reject, ServerEvent, SessionId, UserId};

/// What wants attention at a deadline.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A running call.
    Call(CallId),
    /// A user that may be forgotten.
    User(UserId),
}

/// Sessions, users, rooms, timers and the outputs that wait for the shell.
pub(super) struct Switchboard {
    pub(super) config: Config,
    pub(super) sessions: HashMap<SessionId, Session>,
    pub(super) users: HashMap<UserId, User>,
    pub(super) rooms: HashMap<Arc<str>, Room>,
    pub(super) timers: Deadlines<Timer>,
    pub(super) out: VecDeque<Output>,
    ice: Box<dyn IceMint>,
    entropy: Entropy,
    last_session: u64,
}

/// Freshly minted ICE servers, as they go out.
pub(super) struct Ice {
    /// `iceServers`.
    pub(super) servers: Value,
    /// `ttl` in seconds.
    pub(super) ttl: u64,
}

impl Switchboard {
    pub(super) fn new(config: Config, ice: Box<dyn IceMint>, entropy: Entropy) -> Self {
        Self {
            config,
            sessions: HashMap::new(),
            users: HashMap::new(),
            rooms: HashMap::new(),
            timers: Deadlines::new(),
            out: VecDeque::new(),
            ice,
            entropy,
            last_session: 0,
        }
    }

    /// Adds a session of a user.
    pub(super) fn connect(&mut self, identity: Identity, now: Now) -> Result<SessionId, Reject> {
        if self.sessions.len() >= self.config.limits.sessions {
            return Err(Reject::Capacity("sessions"));
        }
        let limit = self.config.limits.sessions_per_user;
        if self.devices(&identity.user).len() >= limit {
            return Err(Reject::Capacity("sessions of this user"));
        }
        self.last_session += 1;
        let id = SessionId(self.last_session);
        self.users.entry(identity.user.clone()).or_default().sessions.push(id);
        let session = Session {
            sid: self.random_id(),
            identity: Arc::new(identity),
            opened: now.instant,
            seq: 0,
            frames: super::limits::Bucket::default(),
            signals: super::limits::Bucket::default(),
            flooded: 0,
            rooms: BTreeSet::new(),
        };
        self.sessions.insert(id, session);
        self.emit(Event::SessionOpened);
        Ok(id)
    }

    /// Removes a session from every table.
    pub(super) fn disconnect(&mut self, id: SessionId, now: Now) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        for room in &session.rooms {
            self.vacate(room, id);
        }
        if let Some(user) = self.users.get_mut(&session.identity.user) {
            user.sessions.retain(|other| *other != id);
        }
        self.release(&session.identity.user, now);
        self.emit(Event::SessionClosed);
        Some(session)
    }

    /// Takes a session out of a room; the session's own list is the caller's.
    pub(super) fn vacate(&mut self, name: &Arc<str>, session: SessionId) {
        if let Some(room) = self.rooms.get_mut(name) {
            room.sessions.remove(&session);
            if room.sessions.is_empty() && room.call.is_none() {
                self.rooms.remove(name);
            }
        }
    }

    /// Names or clears the call that a room may join.
    pub(super) fn host(&mut self, name: &Arc<str>, call: Option<CallId>) {
        let room = self.rooms.entry(name.clone()).or_default();
        room.call = call;
        if room.sessions.is_empty() && room.call.is_none() {
            self.rooms.remove(name);
        }
    }

    /// Whether a session is in a room.
    pub(super) fn is_in_room(&self, session: SessionId, room: &str) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.rooms.contains(room))
    }

    /// The identity behind a session.
    pub(super) fn identity(&self, session: SessionId) -> Result<Arc<Identity>, Reject> {
        self.sessions.get(&session).map(|session| session.identity.clone()).ok_or(Reject::NotAuthenticated)
    }

    /// The sessions of a user.
    pub(super) fn devices(&self, user: &UserId) -> Vec<SessionId> {
        self.users.get(user).map(|user| user.sessions.clone()).unwrap_or_default()
    }

    /// Notes how a user is part of a call from now on.
    pub(super) fn index(&mut self, user: &UserId, call: &CallId, presence: Presence) {
        self.users.entry(user.clone()).or_default().calls.insert(call.clone(), presence);
    }

    /// Notes that a user is no part of a call any more.
    pub(super) fn unindex(&mut self, user: &UserId, call: &CallId, now: Now) {
        if let Some(entry) = self.users.get_mut(user) {
            entry.calls.remove(call);
        }
        self.release(user, now);
    }

    /// Whether a user has joined a running call.
    pub(super) fn is_busy(&self, user: &UserId) -> bool {
        self.users.get(user).is_some_and(|user| user.calls.values().any(|how| *how == Presence::Present))
    }

    /// Whether no further call may ring or hold this user.
    pub(super) fn is_crowded(&self, user: &UserId) -> bool {
        self.users.get(user).is_some_and(|user| user.calls.len() >= self.config.limits.calls_per_user)
    }

    /// Forgets a user without session and call, once its buckets are full: reconnecting must not fill them.
    pub(super) fn release(&mut self, id: &UserId, now: Now) {
        let Some(user) = self.users.get(id) else { return };
        if !user.sessions.is_empty() || !user.calls.is_empty() {
            return;
        }
        match user.full_at() {
            Some(at) if at > now.instant => self.timers.arm(&Timer::User(id.clone()), Some(at)),
            _ => {
                self.users.remove(id);
                self.timers.arm(&Timer::User(id.clone()), None);
            }
        }
    }

    /// Sends an event that belongs to the sequence of the session.
    pub(super) fn deliver(&mut self, to: SessionId, name: &'static str, mut payload: Value) {
        let Some(session) = self.sessions.get_mut(&to) else { return };
        session.seq += 1;
        if let Some(fields) = payload.as_object_mut() {
            fields.insert("seq".into(), json!(session.seq));
        }
        self.out.push_back(Output::Deliver { session: to, event: ServerEvent { name, payload } });
    }

    /// Sends an event about the transport itself, which no later transport would need.
    pub(super) fn deliver_volatile(&mut self, to: SessionId, name: &'static str, payload: Value) {
        if self.sessions.contains_key(&to) {
            self.out.push_back(Output::Deliver { session: to, event: ServerEvent { name, payload } });
        }
    }

    /// Sends one event to several sessions.
    pub(super) fn deliver_all(&mut self, to: &[SessionId], name: &'static str, payload: &Value) {
        for session in to {
            self.deliver(*session, name, payload.clone());
        }
    }

    /// Hands something to `observe`.
    pub(super) fn emit(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    /// Makes ICE servers for the owner of a session.
    pub(super) fn mint(&mut self, identity: &Identity, call: Option<&CallId>, now: Now) -> Ice {
        let minted = self.ice.mint(&identity.user, call, identity.grants.relay, now);
        self.emit(Event::IceMinted { kind: if call.is_some() { "call" } else { "session" } });
        Ice { servers: json!(minted.servers), ttl: minted.ttl.as_secs() }
    }

    /// 128 random bits as text.
    pub(super) fn random_id(&mut self) -> Arc<str> {
        let mut bytes = [0; 16];
        (self.entropy)(&mut bytes);
        let mut text = String::with_capacity(32);
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.into()
    }

    /// A random number below `bound` (0 for a bound of 0).
    pub(super) fn random_below(&mut self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        (self.entropy)(&mut bytes);
        u64::from_le_bytes(bytes).checked_rem(bound).unwrap_or(0)
    }
}
