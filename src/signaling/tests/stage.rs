//! A stage: a hub, a clock that moves by hand, and what every session has received.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::signaling::*;

/// ICE servers that name whom they are for.
struct NamedIce;

impl IceMint for NamedIce {
    fn mint(&mut self, user: &UserId, call: Option<&CallId>, relay: bool, _: Now) -> IceServers {
        let username = format!("{}/{}", user.0, call.map_or("-", |call| call.0.as_ref()));
        let turn = IceServer {
            urls: vec!["turn:test".into()],
            username: Some(username),
            credential: Some("secret".into()),
        };
        let stun = IceServer { urls: vec!["stun:test".into()], username: None, credential: None };
        let servers = if relay { vec![stun, turn] } else { vec![stun] };
        IceServers { servers, ttl: Duration::from_secs(43_200) }
    }
}

pub(super) struct Stage {
    pub(super) hub: Hub,
    pub(super) now: Now,
    /// Unread events of each session, with the name inserted as `_name`.
    inbox: HashMap<SessionId, Vec<(&'static str, Value)>>,
    seqs: HashMap<SessionId, u64>,
    pub(super) closed: Vec<(SessionId, Close)>,
    pub(super) events: Vec<Event>,
    pub(super) records: BTreeMap<CallId, Arc<CallRecord>>,
    running: BTreeMap<&'static str, i64>,
}

pub(super) fn identity(user: &str) -> Identity {
    Identity {
        user: UserId(user.into()),
        display_name: Some(format!("Display {user}").into()),
        username: None,
        avatar: None,
        grants: Grants::default(),
        expires_unix_ms: None,
    }
}

pub(super) fn sdp(tag: &str) -> String {
    format!("v=0\r\no=- {tag} 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n")
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(super) fn with(config: Config) -> Self {
        Self::seeded(config, 1)
    }

    /// Another seed gives other ids and keys.
    pub(super) fn seeded(config: Config, seed: u64) -> Self {
        let mut state = seed;
        let entropy = Box::new(move |bytes: &mut [u8]| {
            for byte in bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 56) as u8;
            }
        });
        Self {
            hub: Hub::new(config, Box::new(NamedIce), entropy),
            now: Now { instant: Instant::now(), unix_ms: 1_700_000_000_000 },
            inbox: HashMap::new(),
            seqs: HashMap::new(),
            closed: Vec::new(),
            events: Vec::new(),
            records: BTreeMap::new(),
            running: BTreeMap::new(),
        }
    }

    /// Takes every output and checks what must hold at any time.
    fn settle(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Deliver { session, event } => {
                    if let Some(seq) = event.seq {
                        let last = self.seqs.insert(session, seq).unwrap_or(seq - 1);
                        assert_eq!(seq, last + 1, "the sequence has no gap");
                    }
                    self.inbox.entry(session).or_default().push((event.name, event.to_value()));
                }
                Output::Close { session, close } => self.closed.push((session, close)),
                Output::Event(event) => self.note(event),
            }
        }
        self.hub.check_invariants();
        assert_eq!(
            self.running.values().sum::<i64>(),
            self.hub.running() as i64,
            "the gauge by status is true"
        );
        assert!(self.running.values().all(|count| *count >= 0));
    }

    fn note(&mut self, event: Event) {
        match &event {
            Event::Record(record) => {
                let old = self.records.insert(record.id.clone(), record.clone());
                if let Some(old) = old {
                    assert!(record.rev > old.rev, "rev goes up");
                    let same = (&old.status, &old.ended_at) == (&record.status, &record.ended_at);
                    assert!(old.ended_at.is_none() || same, "a call that is over does not change");
                }
            }
            Event::CallStatus { from, to } => {
                from.iter().for_each(|status| *self.running.entry(status).or_default() -= 1);
                to.iter().for_each(|status| *self.running.entry(status).or_default() += 1);
            }
            _ => {}
        }
        self.events.push(event);
    }

    pub(super) fn open(&mut self, user: &str) -> SessionId {
        self.open_as(identity(user)).unwrap()
    }

    pub(super) fn open_as(&mut self, identity: Identity) -> Result<SessionId, Reject> {
        let opened = self.hub.open(identity, None, self.now);
        self.settle();
        Ok(opened?.session)
    }

    /// Opens a session that goes on with the one of this `session:ready`.
    pub(super) fn resume(&mut self, user: &str, ready: &Value, seq: u64) -> Opened {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let resume = Resume { sid: text(&ready["sid"]), key: ResumeKey(text(&ready["resume"]["key"])), seq };
        let opened = self.hub.open(identity(user), Some(resume), self.now).unwrap();
        self.settle();
        opened
    }

    /// Number of the last event a session has received.
    pub(super) fn last_seq(&self, session: SessionId) -> u64 {
        self.seqs.get(&session).copied().unwrap_or_default()
    }

    pub(super) fn close(&mut self, session: SessionId) {
        self.hub.close(session, self.now);
        self.settle();
    }

    pub(super) fn drain(&mut self) {
        self.hub.drain(self.now);
        self.settle();
    }

    pub(super) fn admin(&mut self, by: &Authority, command: AdminCommand) -> Result<Value, Reject> {
        let outcome = self.hub.admin(by, command, self.now);
        self.settle();
        outcome
    }

    pub(super) fn relay_usage(&mut self, call: &str, user: &str, (up, down): (u64, u64)) {
        let usage = RelayUsage { up, down, transport: "udp", peers: vec!["198.51.100.0/24".into()] };
        self.hub.relay_usage(&CallId(call.into()), &UserId(user.into()), usage, self.now);
        self.settle();
    }

    pub(super) fn restore(&mut self, records: Vec<CallRecord>) -> usize {
        let restored = self.hub.restore(records, self.now);
        self.settle();
        restored
    }

    /// Sends a request that wants an ack.
    pub(super) fn ask(&mut self, session: SessionId, event: &str, payload: Value) -> Result<Value, Reject> {
        self.request(session, event, payload, true)
    }

    /// Sends a request that wants none.
    pub(super) fn send(&mut self, session: SessionId, event: &str, payload: Value) {
        let _ = self.request(session, event, payload, false);
    }

    fn request(
        &mut self,
        session: SessionId,
        event: &str,
        payload: Value,
        wants_ack: bool,
    ) -> Result<Value, Reject> {
        let size = payload.to_string().len();
        let request = Request { event: event.into(), payload, wants_ack, size, last_seen: None };
        let outcome = self.hub.handle(session, request, self.now);
        self.settle();
        outcome
    }

    /// Moves the clock, stopping at every deadline on the way.
    pub(super) fn pass(&mut self, seconds: f64) {
        let end = self.now.instant + Duration::from_secs_f64(seconds);
        while let Some(at) = self.hub.poll_timeout().filter(|at| *at <= end) {
            self.move_to(at.max(self.now.instant));
            self.hub.on_timeout(self.now);
            self.settle();
            assert!(self.hub.poll_timeout().is_none_or(|next| next > at), "a timer that is run is gone");
        }
        self.move_to(end);
    }

    /// Moves the clock as if the process had slept through every deadline on the way.
    pub(super) fn oversleep(&mut self, seconds: f64) {
        self.move_to(self.now.instant + Duration::from_secs_f64(seconds));
        self.hub.on_timeout(self.now);
        self.settle();
    }

    fn move_to(&mut self, instant: Instant) {
        self.now.unix_ms += (instant - self.now.instant).as_millis() as i64;
        self.now.instant = instant;
    }

    /// Who has lost its credentials for a call since this was asked last.
    pub(super) fn departed(&mut self) -> Vec<String> {
        let gone = self.events.iter().filter_map(|event| match event {
            Event::Departed { user, .. } => Some(user.0.to_string()),
            _ => None,
        });
        let gone = gone.collect();
        self.events.clear();
        gone
    }

    pub(super) fn restore_missed(&mut self, missed: Vec<(UserId, Value)>) {
        self.hub.restore_missed(missed, self.now);
        self.settle();
    }

    /// The names of the unread events of a session.
    pub(super) fn names(&self, session: SessionId) -> Vec<&'static str> {
        self.inbox
            .get(&session)
            .map(|events| events.iter().map(|(name, _)| *name).collect())
            .unwrap_or_default()
    }

    /// Takes every unread event of a session.
    pub(super) fn read(&mut self, session: SessionId) -> Vec<(&'static str, Value)> {
        self.inbox.remove(&session).unwrap_or_default()
    }

    /// Whether nobody has unread events.
    pub(super) fn is_quiet(&self) -> bool {
        self.inbox.values().all(Vec::is_empty)
    }

    /// Forgets every unread event.
    pub(super) fn clear(&mut self) {
        self.inbox.clear();
    }

    /// Takes the first unread event of a name, and nothing else.
    pub(super) fn take(&mut self, session: SessionId, name: &str) -> Option<Value> {
        let events = self.inbox.get_mut(&session)?;
        let at = events.iter().position(|(known, _)| *known == name)?;
        Some(events.remove(at).1)
    }

    #[track_caller]
    pub(super) fn expect(&mut self, session: SessionId, name: &str) -> Value {
        let unread = self.names(session);
        self.take(session, name).unwrap_or_else(|| panic!("no {name} among {unread:?}"))
    }

    pub(super) fn record(&self, call: &str) -> &CallRecord {
        &self.records[&CallId(call.into())]
    }

    pub(super) fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| matches(event)).count()
    }

    // What most tests start from.

    /// A call from `a` to users, ringing.
    pub(super) fn call(&mut self, a: SessionId, to: &[&str]) -> String {
        let ack = self.ask(a, "call:initiate", json!({ "to": to, "type": "video" })).unwrap();
        ack["callId"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(super) fn join(&mut self, session: SessionId, call: &str) -> Value {
        self.ask(session, "call:join", json!({ "callId": call })).unwrap()
    }

    pub(super) fn signal(
        &mut self,
        from: SessionId,
        call: &str,
        signal: impl Into<Value>,
    ) -> Result<Value, Reject> {
        self.ask(from, "call:signal", json!({ "callId": call, "signal": signal.into() }))
    }

    /// Offer from `a`, answer from `b`.
    pub(super) fn negotiate(&mut self, call: &str, (a, ua): (SessionId, &str), (b, ub): (SessionId, &str)) {
        let tag = format!("{}", self.now.unix_ms);
        self.signal(a, call, json!({ "type": "offer", "to": ub, "sdp": sdp(&format!("{ua}{tag}")) }))
            .unwrap();
        self.signal(b, call, json!({ "type": "answer", "to": ua, "sdp": sdp(&format!("{ub}{tag}")) }))
            .unwrap();
    }

    /// A 1:1 call that is active: `a` and `b` have joined, an answer was relayed.
    pub(super) fn active(&mut self) -> (SessionId, SessionId, String) {
        let (a, b) = (self.open("a"), self.open("b"));
        let call = self.call(a, &["b"]);
        self.join(b, &call);
        self.negotiate(&call, (b, "b"), (a, "a"));
        self.clear();
        (a, b, call)
    }

    /// A call of three that is active.
    pub(super) fn trio(&mut self) -> (SessionId, SessionId, SessionId, String) {
        let (a, b, c) = (self.open("a"), self.open("b"), self.open("c"));
        let call = self.call(a, &["b", "c"]);
        self.join(b, &call);
        self.join(c, &call);
        self.negotiate(&call, (b, "b"), (a, "a"));
        self.negotiate(&call, (c, "c"), (a, "a"));
        self.negotiate(&call, (c, "c"), (b, "b"));
        self.clear();
        (a, b, c, call)
    }
}

/// The code of a refusal.
#[track_caller]
pub(super) fn code(outcome: Result<Value, Reject>) -> &'static str {
    outcome.expect_err("a refusal").code()
}
