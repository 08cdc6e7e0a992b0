//! Everything but the calls: who can be reached where, and what goes out.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::config::Config;
use super::deadline::{Deadlines, after};
use super::missed::Missed;
use super::resume::Keys;
use super::session::{Presence, Room, Session, User};
use super::{CallId, Entropy, Event, IceMint, Identity, Now, Output, Reject, ServerEvent, SessionId, UserId};

/// What wants attention at a deadline.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A running call.
    Call(CallId),
    /// A user that may be forgotten.
    User(UserId),
    /// A session that was sent events a while ago.
    Replay(SessionId),
}

/// Sessions, users, rooms, timers and the outputs that wait for the shell.
pub(super) struct Switchboard {
    pub(super) config: Config,
    pub(super) sessions: HashMap<SessionId, Session>,
    /// The sessions by the name a client knows them by.
    pub(super) sids: HashMap<Arc<str>, SessionId>,
    /// Sessions without a transport, with the end of their patience.
    pub(super) detached: Deadlines<SessionId>,
    pub(super) users: HashMap<UserId, User>,
    pub(super) rooms: HashMap<Arc<str>, Room>,
    pub(super) timers: Deadlines<Timer>,
    pub(super) out: VecDeque<Output>,
    /// Calls that absent users have missed.
    pub(super) missed: Missed,
    /// Bytes of events kept for all sessions.
    replayed: usize,
    /// Time of the input that is handled.
    clock: Option<Instant>,
    ice: Box<dyn IceMint>,
    entropy: Entropy,
    last_session: u64,
}

/// State of a session with a transport, as a label.
const CONNECTED: &str = "connected";
/// State of one without.
const RESUMABLE: &str = "resumable";

/// Freshly minted ICE servers, as they go out.
pub(super) struct Ice {
    /// `iceServers`.
    pub(super) servers: Value,
    /// `ttl` in seconds.
    pub(super) ttl: u64,
    /// When they should be renewed: after 80 % of their life.
    pub(super) renew: Option<Instant>,
    /// Relayed addresses only.
    forced: bool,
}

impl Ice {
    /// Adds `iceServers`, `ttl` and, where it is not the default, `iceTransportPolicy`.
    pub(super) fn describe(&self, fields: &mut Map<String, Value>) {
        fields.insert("iceServers".into(), self.servers.clone());
        fields.insert("ttl".into(), json!(self.ttl));
        self.describe_policy(fields);
    }

    /// Adds `iceTransportPolicy` where it is not the default.
    pub(super) fn describe_policy(&self, fields: &mut Map<String, Value>) {
        if self.forced {
            fields.insert("iceTransportPolicy".into(), json!("relay"));
        }
    }

    /// The same with what is there.
    pub(super) fn described(&self, mut event: Value) -> Value {
        if let Some(fields) = event.as_object_mut() {
            self.describe(fields);
        }
        event
    }
}

/// ICE servers that live shorter than this are not renewed unasked.
const SHORT_LIVED: Duration = Duration::from_secs(5);

impl Switchboard {
    pub(super) fn new(config: Config, ice: Box<dyn IceMint>, entropy: Entropy) -> Self {
        Self {
            config,
            sessions: HashMap::new(),
            sids: HashMap::new(),
            detached: Deadlines::new(),
            users: HashMap::new(),
            rooms: HashMap::new(),
            timers: Deadlines::new(),
            out: VecDeque::new(),
            missed: Missed::default(),
            replayed: 0,
            clock: None,
            ice,
            entropy,
            last_session: 0,
        }
    }

    /// Notes the time of an input.
    pub(super) fn tick(&mut self, now: Now) {
        self.clock = Some(now.instant);
    }

    /// Adds a session of a user. There is room for it, or the caller has made some.
    pub(super) fn connect(&mut self, identity: Identity, now: Now) -> SessionId {
        let (id, sid) = (self.new_session(), self.random_id());
        self.users.entry(identity.user.clone()).or_default().sessions.push(id);
        let session = Session {
            sid: sid.clone(),
            identity: Arc::new(identity),
            opened: now.instant,
            attached: true,
            keys: Keys::new(self.random_bytes()),
            replay: super::replay::Replay::default(),
            answered: super::answered::Answered::default(),
            frames: super::limits::Bucket::default(),
            signals: super::limits::Bucket::default(),
            messages: super::limits::Bucket::default(),
            flooded: 0,
            rooms: BTreeSet::new(),
        };
        self.sessions.insert(id, session);
        self.sids.insert(sid, id);
        self.emit(Event::SessionState { from: None, to: Some(CONNECTED) });
        id
    }

    /// The transport of a session is gone: from now on it waits to be resumed. Whether it had one.
    pub(super) fn detach(&mut self, id: SessionId, now: Now) -> bool {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.attached) else {
            return false;
        };
        session.attached = false;
        self.detached.arm(&id, Some(after(now.instant, self.config.resume_window)));
        self.emit(Event::SessionState { from: Some(CONNECTED), to: Some(RESUMABLE) });
        true
    }

    /// Gives a session its next transport, and with it a new name that replaces the old one in every table here.
    pub(super) fn attach(&mut self, old: SessionId) -> Option<SessionId> {
        let mut session = self.sessions.remove(&old)?;
        let id = self.new_session();
        if !std::mem::replace(&mut session.attached, true) {
            self.detached.arm(&old, None);
            self.emit(Event::SessionState { from: Some(RESUMABLE), to: Some(CONNECTED) });
        }
        session.flooded = 0;
        self.sids.insert(session.sid.clone(), id);
        for name in &session.rooms {
            if let Some(room) = self.rooms.get_mut(name) {
                room.sessions.remove(&old);
                room.sessions.insert(id);
            }
        }
        if let Some(user) = self.users.get_mut(&session.identity.user) {
            user.sessions.iter_mut().filter(|session| **session == old).for_each(|session| *session = id);
        }
        self.sessions.insert(id, session);
        self.timers.arm(&Timer::Replay(old), None);
        self.age(id);
        Some(id)
    }

    /// Removes a session from every table.
    pub(super) fn disconnect(&mut self, id: SessionId, now: Now) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.sids.remove(&session.sid);
        self.detached.arm(&id, None);
        self.timers.arm(&Timer::Replay(id), None);
        self.replayed = self.replayed.saturating_sub(session.replay.bytes());
        for room in &session.rooms {
            self.vacate(room, id);
        }
        if let Some(user) = self.users.get_mut(&session.identity.user) {
            user.sessions.retain(|other| *other != id);
        }
        self.release(&session.identity.user, now);
        shrink(&mut self.sessions);
        shrink(&mut self.sids);
        let from = if session.attached { CONNECTED } else { RESUMABLE };
        self.emit(Event::SessionState { from: Some(from), to: None });
        Some(session)
    }

    #[cfg(test)]
    pub(super) fn check_replays(&self) {
        let limits = &self.config.limits;
        let kept: usize = self.sessions.values().map(|session| session.replay.bytes()).sum();
        assert_eq!(kept, self.replayed);
        assert!(kept <= limits.replay_total_bytes);
        for (id, session) in &self.sessions {
            assert!(
                session.replay.len() <= limits.replay_events && session.replay.bytes() <= limits.replay_bytes
            );
            assert!(
                session.replay.is_empty() || self.timers.is_armed(&Timer::Replay(*id)),
                "an event stays for ever"
            );
        }
    }

    fn new_session(&mut self) -> SessionId {
        self.last_session += 1;
        SessionId(self.last_session)
    }

    /// Whether a session has a transport.
    pub(super) fn is_attached(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.attached)
    }

    /// Whether a user has a session with a transport.
    pub(super) fn is_reachable(&self, user: &UserId) -> bool {
        self.users
            .get(user)
            .is_some_and(|user| user.sessions.iter().any(|session| self.is_attached(*session)))
    }

    /// The client of a session has everything up to this number.
    pub(super) fn acknowledge(&mut self, id: SessionId, seq: u64) {
        self.with_replay(id, |replay| replay.acknowledge(seq));
    }

    /// Forgets what a session was sent too long ago.
    pub(super) fn expire(&mut self, id: SessionId, now: Now) {
        let window = self.config.resume_window;
        // Later than it could: a busy session is looked after now and then, not once an event.
        let next = self.with_replay(id, |replay| replay.expire(window, now.instant)).flatten();
        self.timers.arm(&Timer::Replay(id), next.map(|at| after(at, window / 4)));
    }

    fn age(&mut self, id: SessionId) {
        let kept = self.sessions.get(&id).is_some_and(|session| !session.replay.is_empty());
        let (Some(clock), true) = (self.clock, kept) else { return };
        if !self.timers.is_armed(&Timer::Replay(id)) {
            self.timers.arm(&Timer::Replay(id), Some(after(clock, self.config.resume_window)));
        }
    }

    fn with_replay<T>(
        &mut self,
        id: SessionId,
        change: impl FnOnce(&mut super::replay::Replay) -> T,
    ) -> Option<T> {
        let replay = &mut self.sessions.get_mut(&id)?.replay;
        let before = replay.bytes();
        let value = change(replay);
        self.replayed = self.replayed.saturating_sub(before) + replay.bytes();
        Some(value)
    }

    /// Takes a session out of a room; the session's own list is the caller's.
    pub(super) fn vacate(&mut self, name: &Arc<str>, session: SessionId) {
        if let Some(room) = self.rooms.get_mut(name) {
            room.sessions.remove(&session);
            if room.is_empty() {
                self.rooms.remove(name);
            }
        }
    }

    /// Names the call that a room may join.
    pub(super) fn host(&mut self, name: &Arc<str>, call: CallId) {
        self.rooms.entry(name.clone()).or_default().call = Some(call);
    }

    /// A call is over: a room that may join it may join none. Where another one runs, that one stays.
    pub(super) fn unhost(&mut self, name: &Arc<str>, call: &CallId) {
        if let Some(room) = self.rooms.get_mut(name).filter(|room| room.call.as_ref() == Some(call)) {
            room.call = None;
            if room.is_empty() {
                self.rooms.remove(name);
            }
        }
    }

    /// Whether a session is in a room.
    pub(super) fn is_in_room(&self, session: SessionId, room: &str) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.rooms.contains(room))
    }

    /// Whether a session is in a room, or its user is a member of it.
    pub(super) fn may_enter(&self, session: SessionId, user: &UserId, name: &Arc<str>) -> bool {
        let members = self.rooms.get(name).and_then(|room| room.members.as_ref());
        self.is_in_room(session, name) || members.is_some_and(|members| members.contains(user))
    }

    /// The identity behind a session.
    pub(super) fn identity(&self, session: SessionId) -> Result<Arc<Identity>, Reject> {
        self.sessions.get(&session).map(|session| session.identity.clone()).ok_or(Reject::NotAuthenticated)
    }

    /// The sessions of a user, those that wait to be resumed included: what they are sent waits with them.
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
                shrink(&mut self.users);
                self.timers.arm(&Timer::User(id.clone()), None);
            }
        }
    }

    /// Sends an event that belongs to the sequence of the session. Without a transport it waits for the next one.
    pub(super) fn deliver(&mut self, to: SessionId, name: &'static str, payload: &Value) {
        self.deliver_text(to, name, &payload.to_string().into());
    }

    /// [`Switchboard::deliver`] of a payload that is written already.
    pub(super) fn deliver_text(&mut self, to: SessionId, name: &'static str, payload: &Arc<str>) {
        let limits = &self.config.limits;
        let (bounds, total) = ((limits.replay_events, limits.replay_bytes), limits.replay_total_bytes);
        let (clock, others) = (self.clock, self.replayed);
        let seq = self.with_replay(to, |replay| {
            let others = others.saturating_sub(replay.bytes());
            let seq = replay.push(name, payload, clock, bounds);
            // Whoever gets an event while all memory is taken pays with what it got earlier.
            while others + replay.bytes() > total && replay.forget_oldest() {}
            seq
        });
        let Some(seq) = seq else { return };
        self.age(to);
        if self.is_attached(to) {
            let event = ServerEvent { name, seq: Some(seq), payload: Arc::clone(payload) };
            self.out.push_back(Output::Deliver { session: to, event });
        }
    }

    /// Sends an event about the transport itself, which no later transport would need.
    pub(super) fn deliver_volatile(&mut self, to: SessionId, name: &'static str, payload: &Value) {
        if self.is_attached(to) {
            let event = ServerEvent { name, seq: None, payload: payload.to_string().into() };
            self.out.push_back(Output::Deliver { session: to, event });
        }
    }

    /// Sends one event to several sessions.
    pub(super) fn deliver_all(&mut self, to: &[SessionId], name: &'static str, payload: &Value) {
        if to.is_empty() {
            return;
        }
        let text: Arc<str> = payload.to_string().into();
        for session in to {
            self.deliver_text(*session, name, &text);
        }
    }

    /// Tells a user of a call it has missed: now, or when it is back.
    pub(super) fn tell_missed(&mut self, user: &UserId, event: &Value, now: Now) {
        if self.is_reachable(user) {
            self.emit(Event::MissedSeen { user: user.clone(), at: now.unix_ms });
        } else {
            self.missed.add(user, event, now.instant);
        }
        self.deliver_all(&self.devices(user), "call:missed", event);
    }

    /// Hands something to `observe`.
    pub(super) fn emit(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    /// Makes ICE servers for the owner of a session.
    pub(super) fn mint(&mut self, identity: &Identity, call: Option<&CallId>, now: Now) -> Ice {
        let minted = self.ice.mint(&identity.user, call, identity.grants.relay, now);
        self.emit(Event::IceMinted { kind: if call.is_some() { "call" } else { "session" } });
        let renew = (minted.ttl >= SHORT_LIVED).then(|| after(now.instant, minted.ttl / 5 * 4));
        let forced = self.config.force_relay && identity.grants.relay;
        Ice { servers: json!(minted.servers), ttl: minted.ttl.as_secs(), renew, forced }
    }

    /// 128 random bits.
    pub(super) fn random_bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        (self.entropy)(&mut bytes);
        bytes
    }

    /// 128 random bits as text.
    pub(super) fn random_id(&mut self) -> Arc<str> {
        hex(&self.random_bytes()).into()
    }

    /// A random number below `bound` (0 for a bound of 0).
    pub(super) fn random_below(&mut self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        (self.entropy)(&mut bytes);
        u64::from_le_bytes(bytes).checked_rem(bound).unwrap_or(0)
    }
}

/// Gives memory back after a peak, seldom enough to cost nothing.
fn shrink<K: Eq + std::hash::Hash, V>(table: &mut HashMap<K, V>) {
    const KEPT: usize = 1024;
    if table.capacity() > KEPT.max(table.len() * 8) {
        table.shrink_to(table.len() * 2);
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
