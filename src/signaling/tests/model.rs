//! Clients on bad networks against a model: cuts that are noticed late or never, acks that are lost, requests that come
//! twice or in another order, transports that take over from live ones, pages that are reloaded, processes that die and
//! take up what was written. What must hold is that nothing is lost, nothing happens twice, everything comes in order,
//! `rev` never goes back, and a call ends once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stage::{Stage, identity, sdp};
use crate::signaling::*;

const USERS: [&str; 4] = ["u0", "u1", "u2", "u3"];
/// Requests of a client that may be repeated.
const HISTORY: usize = 100;
/// As long as a client is away for no longer than this, its session must go on.
const SURELY_RESUMABLE: Duration = Duration::from_secs(100);

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Acked,
    /// It is handled; its ack and the transport are lost.
    AckLost,
    /// The transport is lost before.
    NeverArrives,
}

/// What a hub could do wrong. Planted between the hub and the model, to show that the model finds it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    LosesAnEvent,
    DoublesAnEvent,
    LosesASignal,
    LetsASignalOvertake,
    TurnsRevBack,
    EndsACallTwice,
    DoesARequestTwice,
    ForgetsACallAtItsRestart,
}

const FLAWS: [Flaw; 8] = [
    Flaw::LosesAnEvent,
    Flaw::DoublesAnEvent,
    Flaw::LosesASignal,
    Flaw::LetsASignalOvertake,
    Flaw::TurnsRevBack,
    Flaw::EndsACallTwice,
    Flaw::DoesARequestTwice,
    Flaw::ForgetsACallAtItsRestart,
];

#[derive(Clone)]
struct Sent {
    id: String,
    event: &'static str,
    payload: Value,
}

/// A client, and what it knows.
struct Client {
    user: &'static str,
    transport: Option<SessionId>,
    /// Transports the server does not know to be dead.
    ghosts: Vec<SessionId>,
    /// Those of them whose session nobody will resume: the page that had it is gone.
    abandoned: Vec<SessionId>,
    ready: Value,
    /// The process that its session is of.
    process: u64,
    seq: u64,
    /// When it received something last, at the latest.
    heard: Instant,
    incoming: VecDeque<(&'static str, Value)>,
    unacked: Vec<Sent>,
    history: VecDeque<Sent>,
    next_id: u64,
    calls: Vec<String>,
    ended: BTreeSet<String>,
    revs: BTreeMap<String, u64>,
    messages: BTreeMap<String, u64>,
}

/// A signal on its way.
struct Expected {
    tag: u64,
    /// It may be lost for a good reason.
    excused: bool,
}

type Route = (String, String, String);

struct Play {
    stage: Stage,
    clients: Vec<Client>,
    /// Signals that are on their way, by call, sender and recipient.
    expected: BTreeMap<Route, VecDeque<Expected>>,
    /// First outcome of each request, by `sid` and `msgId`.
    outcomes: BTreeMap<(String, String), Result<Value, Reject>>,
    states: BTreeMap<(String, String), &'static str>,
    ended: BTreeSet<String>,
    process: u64,
    flaw: Option<Flaw>,
    random: u64,
    tag: u64,
    counts: BTreeMap<&'static str, u64>,
}

/// Without limits of rates, and with few ended calls to remember.
fn rules() -> Config {
    let off = Rate { count: 0, per: Duration::from_secs(1), burst: 1 };
    let rates = Rates {
        frames: off,
        signals: off,
        candidates: off,
        initiate: off,
        join: off,
        leave: off,
        toggle: off,
        messages: off,
    };
    let limits = Limits { ended_calls: 20, replay_events: 4096, replay_bytes: 1 << 24, ..Limits::default() };
    Config { rates, limits, ..Config::default() }
}

impl Play {
    fn new(seed: u64, flaw: Option<Flaw>) -> Self {
        let stage = Stage::with(rules());
        let mut play = Self {
            stage,
            clients: Vec::new(),
            expected: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            states: BTreeMap::new(),
            ended: BTreeSet::new(),
            process: 1,
            flaw,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            tag: 0,
            counts: BTreeMap::new(),
        };
        for user in USERS {
            let heard = play.stage.now.instant;
            play.clients.push(Client {
                user,
                transport: None,
                ghosts: Vec::new(),
                abandoned: Vec::new(),
                ready: Value::Null,
                process: 0,
                seq: 0,
                heard,
                incoming: VecDeque::new(),
                unacked: Vec::new(),
                history: VecDeque::new(),
                next_id: 0,
                calls: Vec::new(),
                ended: BTreeSet::new(),
                revs: BTreeMap::new(),
                messages: BTreeMap::new(),
            });
            play.reload(USERS.iter().position(|other| *other == user).unwrap());
        }
        play
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as usize % bound.max(1)
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Takes what the hub has said: events to the networks of the clients, facts to the model.
    fn collect(&mut self) {
        for event in std::mem::take(&mut self.stage.events) {
            match event {
                Event::Record(record) => self.learn(&record),
                Event::CallEnded { call, .. } => {
                    assert!(self.ended.insert(call.0.to_string()), "a call ends once");
                    let twice = self.flaws(Flaw::EndsACallTwice);
                    assert!(!twice || self.ended.insert(call.0.to_string()), "a call ends once");
                    self.count("ends");
                }
                _ => {}
            }
        }
        for at in 0..self.clients.len() {
            if let Some(transport) = self.clients[at].transport {
                let events = self.stage.read(transport);
                self.clients[at].incoming.extend(events);
                self.tamper(at);
            }
            // What goes to a dead transport is lost.
            let Client { ghosts, abandoned, .. } = &self.clients[at];
            ghosts.iter().chain(abandoned).for_each(|ghost| drop(self.stage.read(*ghost)));
        }
        let closed = std::mem::take(&mut self.stage.closed);
        for (session, close) in closed {
            assert_eq!(close, Close::Replaced);
            let given_up = self.clients.iter_mut().find_map(|client| {
                let lists = [&mut client.ghosts, &mut client.abandoned];
                lists.into_iter().find(|list| list.contains(&session))
            });
            let given_up = given_up.expect("only a transport its client has given up is replaced");
            given_up.retain(|ghost| *ghost != session);
        }
    }

    /// Whether the planted flaw is this one, and shows itself now.
    fn flaws(&mut self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw) && self.chance(10)
    }

    /// Spoils what is on its way to a client, as a hub with the planted flaw would.
    fn tamper(&mut self, at: usize) {
        let numbered = |(_, payload): &(&str, Value)| payload["seq"].is_u64();
        let is_candidate =
            |(name, payload): &(&str, Value)| *name == "call:signal" && payload["type"] == "ice-candidate";
        if self.flaw.is_none() || self.clients[at].incoming.is_empty() || !self.chance(10) {
            return;
        }
        let incoming = self.clients[at].incoming.make_contiguous();
        let last = incoming.len() - 1;
        let candidates: Vec<usize> = (0..=last).filter(|at| is_candidate(&incoming[*at])).collect();
        match (self.flaw, &candidates[..]) {
            (Some(Flaw::LosesAnEvent), _) if numbered(&incoming[last]) => {
                self.clients[at].incoming.pop_back();
            }
            (Some(Flaw::DoublesAnEvent), _) if numbered(&incoming[last]) => {
                let again = incoming[last].clone();
                self.clients[at].incoming.push_back(again);
            }
            (Some(Flaw::LosesASignal), [.., one]) => incoming[*one].1["type"] = json!("nothing"),
            (Some(Flaw::LetsASignalOvertake), [.., one, other])
                if incoming[*one].1["from"] == incoming[*other].1["from"]
                    && incoming[*one].1["callId"] == incoming[*other].1["callId"] =>
            {
                let signal = incoming[*one].1["signal"].take();
                incoming[*one].1["signal"] = std::mem::replace(&mut incoming[*other].1["signal"], signal);
            }
            (Some(Flaw::TurnsRevBack), _) if incoming[last].1["rev"].is_u64() => {
                incoming[last].1["rev"] = json!(0);
            }
            _ => {}
        }
    }

    /// Whoever is not in a call any more gets nothing that waited in it.
    fn learn(&mut self, record: &CallRecord) {
        let call = record.id.0.to_string();
        for who in &record.participants {
            let user = who.user.0.to_string();
            let live = matches!(who.state, "invited" | "ringing" | "joined" | "connected" | "grace");
            if !live {
                self.excuse(|(of, from, to)| *of == call && (*from == user || *to == user));
            }
            self.states.insert((call.clone(), user), who.state);
        }
    }

    fn excuse(&mut self, concerned: impl Fn(&Route) -> bool) {
        let routes = self.expected.iter_mut().filter(|(route, _)| concerned(route));
        routes.for_each(|(_, waiting)| waiting.iter_mut().for_each(|signal| signal.excused = true));
    }

    // What clients do.

    fn request(&mut self, at: usize, event: &'static str, mut payload: Value, fate: Fate) -> Option<Value> {
        let client = &mut self.clients[at];
        client.transport?;
        client.next_id += 1;
        let id = client.next_id.to_string();
        payload["msgId"] = json!(id);
        let sent = Sent { id, event, payload };
        client.unacked.push(sent.clone());
        client.history.push_back(sent.clone());
        if client.history.len() > HISTORY {
            client.history.pop_front();
        }
        if fate == Fate::NeverArrives {
            self.cut(at);
            return None;
        }
        let outcome = self.arrive(at, &sent);
        if fate == Fate::AckLost {
            self.cut(at);
            return None;
        }
        self.clients[at].unacked.retain(|other| other.id != sent.id);
        outcome.ok()
    }

    /// A request reaches the hub, for the first time or again.
    fn arrive(&mut self, at: usize, sent: &Sent) -> Result<Value, Reject> {
        let transport = self.clients[at].transport.unwrap();
        let sid = self.clients[at].ready["sid"].to_string();
        self.collect();
        let mut payload = sent.payload.clone();
        if self.flaw == Some(Flaw::DoesARequestTwice) {
            payload["msgId"] = Value::Null;
        }
        let outcome = self.stage.ask(transport, sent.event, payload);
        match self.outcomes.get(&(sid.clone(), sent.id.clone())) {
            Some(first) => {
                assert_eq!(&outcome, first, "the first ack again");
                let effects = self
                    .stage
                    .events
                    .iter()
                    .filter(|event| !matches!(event, Event::EventIn { .. } | Event::Duplicate));
                assert_eq!(effects.count(), 0, "a request that comes again has no effect");
                assert!(self.stage.is_quiet(), "and is told to nobody");
                self.count("repeats");
            }
            None => {
                self.outcomes.insert((sid, sent.id.clone()), outcome.clone());
                self.expect(at, sent, &outcome);
            }
        }
        self.collect();
        outcome
    }

    /// What the model makes of a request that was handled for the first time.
    fn expect(&mut self, at: usize, sent: &Sent, outcome: &Result<Value, Reject>) {
        let Ok(ack) = outcome else { return };
        if sent.event != "call:signal" {
            return;
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (call, to) = (text(&sent.payload["callId"]), text(&sent.payload["signal"]["to"]));
        let route = (call, self.clients[at].user.to_owned(), to.clone());
        if sent.payload["signal"]["type"] != "ice-candidate" {
            // A newer offer takes the place of what waits.
            if ack["queued"] == true {
                self.excuse(|other| *other == route);
            }
            return;
        }
        let tag = sent.payload["signal"]["usernameFragment"].as_str().unwrap().parse().unwrap();
        let recipient = self.clients.iter().find(|client| client.user == to).unwrap();
        // Into the void of a connection that a page left behind, and that nobody knows to be dead.
        let excused = !recipient.abandoned.is_empty();
        self.expected.entry(route).or_default().push_back(Expected { tag, excused });
        self.count("signals");
    }

    /// The network takes some of what is on its way, and the rest is lost. The server may notice.
    fn cut(&mut self, at: usize) {
        self.collect();
        let Some(transport) = self.clients[at].transport else { return };
        let arrives = self.below(self.clients[at].incoming.len() + 1);
        self.receive(at, arrives);
        let client = &mut self.clients[at];
        client.transport = None;
        client.incoming.clear();
        if self.chance(50) {
            self.stage.close(transport);
            self.collect();
        } else {
            self.clients[at].ghosts.push(transport);
        }
        self.count("cuts");
    }

    /// The server notices at last.
    fn notice(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if let Some(ghost) = client.abandoned.pop().or_else(|| client.ghosts.pop()) {
            self.stage.close(ghost);
            self.stage.read(ghost);
            self.collect();
        }
    }

    /// A page comes anew and knows nothing of its session.
    fn reload(&mut self, at: usize) {
        self.cut(at);
        self.clients[at].revs.clear();
        self.clients[at].ended.clear();
        let user = self.clients[at].user;
        let Ok(session) = self.stage.open_as(identity(user)) else { return };
        self.begin(at, session);
    }

    fn begin(&mut self, at: usize, session: SessionId) {
        let user = self.clients[at].user;
        self.excuse(|(_, _, to)| to == user);
        let now = self.stage.now.instant;
        let process = self.process;
        let client = &mut self.clients[at];
        client.transport = Some(session);
        client.abandoned.append(&mut client.ghosts);
        client.process = process;
        client.seq = 0;
        client.heard = now;
        client.incoming.clear();
        client.unacked.clear();
        client.history.clear();
        client.next_id = 0;
        client.messages.clear();
        self.collect();
        // A new page reads its greeting, or it is no page.
        self.receive(at, 1);
        self.is_shown_its_calls(at);
    }

    /// A new session is told of every call its user is in or is rung by, and of no other.
    fn is_shown_its_calls(&self, at: usize) {
        let Client { user, ready, .. } = &self.clients[at];
        let shown: BTreeSet<&str> = ready["activeCalls"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|call| call["callId"].as_str())
            .collect();
        let live = |state| matches!(state, "invited" | "ringing" | "joined" | "connected" | "grace");
        for record in self.stage.records.values().filter(|record| record.ended_at.is_none()) {
            let takes_part = record.participants.iter().any(|who| *who.user.0 == **user && live(who.state));
            assert_eq!(shown.contains(&*record.id.0), takes_part, "{user}: {record:?} in {ready}");
        }
        assert!(
            shown.iter().all(|call| !self.ended.contains(*call)),
            "{user} is shown what is over: {ready}"
        );
    }

    /// The process dies. Sessions and what was on its way are gone; the next one takes up the calls as they are written.
    fn restart(&mut self) {
        self.collect();
        for at in 0..self.clients.len() {
            let arrives = self.below(self.clients[at].incoming.len() + 1);
            self.receive(at, arrives);
            let client = &mut self.clients[at];
            client.transport = None;
            client.incoming.clear();
            client.ghosts.clear();
            client.abandoned.clear();
        }
        self.excuse(|_| true);
        self.process += 1;
        let mut stage = Stage::seeded(rules(), self.process);
        stage.now = self.stage.now;
        // The next process has the time of the world, and the records of all.
        stage.records = std::mem::take(&mut self.stage.records);
        self.stage = stage;
        let downtime = self.below(20);
        self.stage.pass(downtime as f64);
        let mut running: Vec<CallRecord> = self
            .stage
            .records
            .values()
            .filter(|record| record.ended_at.is_none())
            .map(|record| (**record).clone())
            .collect();
        if self.flaw == Some(Flaw::ForgetsACallAtItsRestart) {
            running.pop();
        }
        let restored = self.stage.restore(running.clone());
        assert_eq!(restored, running.len(), "every call is taken up");
        running.iter().for_each(|_| self.count("restored"));
        self.count("restarts");
        self.collect();
    }

    fn resume(&mut self, at: usize) {
        let client = &mut self.clients[at];
        // Over a live transport it is a take-over.
        if let Some(transport) = client.transport.take() {
            client.ghosts.push(transport);
            client.incoming.clear();
        }
        let (user, ready, seq) = (client.user, client.ready.clone(), client.seq);
        let away = self.stage.now.instant.saturating_duration_since(client.heard);
        let opened = self.stage.resume(user, &ready, seq);
        match opened.resumption {
            Some(Resumption::Resumed) => {
                self.count("resumes");
                self.clients[at].transport = Some(opened.session);
                self.collect();
                // The greeting may be lost with the transport: the key it came with is good once more.
                if self.chance(20) {
                    self.clients[at].incoming.clear();
                    self.cut(at);
                } else {
                    self.receive(at, 1);
                    self.repeat_unacked(at);
                }
            }
            other => {
                let reborn = self.clients[at].process != self.process;
                assert!(reborn || away >= SURELY_RESUMABLE, "{other:?} after {away:?}");
                self.count(if reborn { "reborn" } else { "anew" });
                self.begin(at, opened.session);
            }
        }
    }

    /// What was not acknowledged is sent again, in whatever order.
    fn repeat_unacked(&mut self, at: usize) {
        let mut unacked = std::mem::take(&mut self.clients[at].unacked);
        while !unacked.is_empty() {
            let sent = unacked.swap_remove(self.below(unacked.len()));
            let _ = self.arrive(at, &sent);
        }
    }

    /// A client repeats something it has sent a while ago.
    fn repeat(&mut self, at: usize) {
        let pick = self.below(self.clients[at].history.len());
        let client = &self.clients[at];
        if client.transport.is_none() {
            return;
        }
        if let Some(sent) =
            client.history.get(pick).filter(|sent| client.unacked.iter().all(|u| u.id != sent.id))
        {
            let sent = sent.clone();
            let _ = self.arrive(at, &sent);
        }
    }

    /// A client reads some of what has arrived.
    fn receive(&mut self, at: usize, events: usize) {
        for _ in 0..events {
            let Some((name, payload)) = self.clients[at].incoming.pop_front() else { break };
            self.read(at, name, &payload);
        }
        if self.clients[at].incoming.is_empty() && self.clients[at].transport.is_some() {
            self.clients[at].heard = self.stage.now.instant;
        }
    }

    fn read(&mut self, at: usize, name: &'static str, payload: &Value) {
        let client = &mut self.clients[at];
        if name == "session:ready" {
            client.ready = payload.clone();
            return;
        }
        let Some(seq) = payload["seq"].as_u64() else { return };
        assert_eq!(seq, client.seq + 1, "{name}: nothing is lost and nothing comes twice");
        client.seq = seq;
        let Some(call) = payload["callId"].as_str() else { return };
        if let Some(rev) = payload["rev"].as_u64() {
            let last = client.revs.insert(call.to_owned(), rev).unwrap_or_default();
            assert!(rev >= last, "{name}: rev goes back");
        }
        match name {
            "call:initiated" => client.calls.push(call.to_owned()),
            "call:ended" => assert!(client.ended.insert(call.to_owned()), "one end"),
            "call:message" => {
                let from = payload["from"].as_str().unwrap();
                let last = client.messages.insert(from.to_owned(), payload["data"].as_u64().unwrap());
                assert!(last < payload["data"].as_u64(), "messages keep their order");
            }
            "call:signal" if payload["type"] == "ice-candidate" => {
                let tag = payload["signal"]["usernameFragment"].as_str().unwrap().parse().unwrap();
                let (from, to) = (payload["from"].as_str().unwrap().to_owned(), client.user.to_owned());
                self.arrived(&(call.to_owned(), from, to), tag);
            }
            _ => {}
        }
    }

    fn arrived(&mut self, route: &Route, tag: u64) {
        let waiting = self.expected.entry(route.clone()).or_default();
        while let Some(next) = waiting.pop_front() {
            if next.tag == tag {
                return;
            }
            assert!(next.excused, "{route:?}: signal {} was lost or overtaken by {tag}", next.tag);
        }
        panic!("{route:?}: signal {tag} comes twice, or too late");
    }

    // The steps.

    /// A call that a client knows of: one of the latest, and mostly one that runs.
    fn call_of(&mut self, at: usize) -> Option<String> {
        let known = &self.clients[at].calls;
        let latest = known[known.len().saturating_sub(6)..].to_vec();
        let running: Vec<String> =
            latest.iter().filter(|call| !self.ended.contains(*call)).cloned().collect();
        let among = if running.is_empty() || self.chance(10) { latest } else { running };
        let pick = self.below(among.len());
        among.get(pick).cloned()
    }

    /// Somebody: mostly another one who is in the call.
    fn other_in(&mut self, call: &str, at: usize) -> &'static str {
        let user = self.clients[at].user;
        let states = &self.states;
        let joined: Vec<&str> = USERS
            .into_iter()
            .filter(|other| *other != user)
            .filter(|other| {
                let state = states.get(&(call.to_owned(), (*other).to_owned()));
                state.is_some_and(|state| matches!(*state, "ringing" | "joined" | "connected" | "grace"))
            })
            .collect();
        let others = if joined.is_empty() || self.chance(10) { &USERS[..] } else { &joined[..] };
        let pick = self.below(others.len());
        USERS.into_iter().find(|user| *user == others[pick]).unwrap_or(user)
    }

    fn step(&mut self) {
        let at = self.below(USERS.len());
        let fate = match self.below(100) {
            0..4 => Fate::AckLost,
            4..7 => Fate::NeverArrives,
            _ => Fate::Acked,
        };
        let wait = self.below(600) as f64 / 1000.0;
        match self.below(100) {
            0..4 => self.initiate(at, fate),
            4..50 => self.act(at, fate),
            50..75 => {
                self.collect();
                let events = self.below(6);
                self.receive(at, events);
            }
            75..82 => self.repeat(at),
            82..85 => self.cut(at),
            85..87 => self.notice(at),
            87..97 if self.clients[at].transport.is_none() => self.resume(at),
            87..90 => self.resume(at),
            90..94 => {
                let seq = self.clients[at].seq;
                if let Some(transport) = self.clients[at].transport {
                    self.stage.hub.acknowledge(transport, seq);
                }
            }
            97 if self.chance(5) => self.restart(),
            98 if self.chance(20) => self.reload(at),
            99 if self.chance(5) => {
                let seconds = self.below(200);
                self.pass(seconds as f64);
            }
            _ => {}
        }
        self.pass(wait);
    }

    fn pass(&mut self, seconds: f64) {
        self.stage.pass(seconds);
        self.collect();
    }

    fn initiate(&mut self, at: usize, fate: Fate) {
        let others: Vec<&str> = USERS.iter().copied().filter(|user| *user != self.clients[at].user).collect();
        let first = self.below(3);
        let mut to = vec![others[first]];
        if self.chance(50) {
            to.push(others[(first + 1) % 3]);
        }
        let ack = self.request(at, "call:initiate", json!({ "to": to, "type": "video" }), fate);
        if let Some(call) = ack.as_ref().and_then(|ack| ack["callId"].as_str()) {
            self.clients[at].calls.push(call.to_owned());
            self.count("calls");
        }
    }

    fn act(&mut self, at: usize, fate: Fate) {
        let Some(call) = self.call_of(at) else { return };
        self.tag += 1;
        let tag = self.tag;
        let to = self.other_in(&call, at);
        let (event, payload) = match self.below(40) {
            0..8 => ("call:join", json!({ "callId": call })),
            8..26 => {
                let signal = json!({
                    "type": "ice-candidate",
                    "to": to,
                    "candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host",
                    "usernameFragment": tag.to_string(),
                });
                ("call:signal", json!({ "callId": call, "signal": signal }))
            }
            26..32 => {
                let kind = if self.chance(50) { "offer" } else { "answer" };
                let signal = json!({ "type": kind, "to": to, "sdp": sdp(&tag.to_string()) });
                ("call:signal", json!({ "callId": call, "signal": signal }))
            }
            32..36 => ("call:message", json!({ "callId": call, "data": tag })),
            36..38 => ("call:toggle-audio", json!({ "callId": call, "enabled": self.chance(50) })),
            38 if self.chance(30) => ("call:leave", json!({ "callId": call })),
            38 if self.chance(20) => ("call:end", json!({ "callId": call })),
            38 if self.chance(20) => ("call:decline", json!({ "callId": call })),
            _ => ("call:join", json!({ "callId": call })),
        };
        self.request(at, event, payload, fate);
    }

    /// Every client comes back and reads all there is: what was sent to someone who is in the call has arrived.
    fn finish(mut self) -> BTreeMap<&'static str, u64> {
        for at in 0..USERS.len() {
            while self.clients[at].transport.is_none() {
                self.resume(at);
            }
            self.collect();
            let events = self.clients[at].incoming.len();
            self.receive(at, events);
        }
        for at in 0..USERS.len() {
            self.collect();
            let events = self.clients[at].incoming.len();
            self.receive(at, events);
        }
        for ((call, from, to), waiting) in &self.expected {
            let state = self.states.get(&(call.clone(), to.clone())).copied().unwrap_or("gone");
            let reading = matches!(state, "joined" | "connected");
            let lost = waiting.iter().filter(|signal| !signal.excused).count();
            assert!(lost == 0 || !reading, "{lost} signals from {from} to {to}, who is {state}, are lost");
        }
        self.counts
    }
}

/// Steps of all plays together: `PASSERELLE_MODEL_EVENTS` for more than what every run does.
fn steps() -> u64 {
    let asked = std::env::var("PASSERELLE_MODEL_EVENTS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(100_000)
}

/// Steps of one play.
const STEPS: u64 = 5_000;

/// A whole play; what happened in it how often, or what was wrong and when.
fn play(seed: u64, flaw: Option<Flaw>) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut step = 0;
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut play = Play::new(seed, flaw);
        while step < STEPS {
            play.step();
            step += 1;
        }
        play.finish()
    }));
    played.map_err(|why| {
        let why = why.downcast_ref::<String>().map(String::as_str).or(why.downcast_ref::<&str>().copied());
        format!("seed {seed}, step {step}: {}", why.unwrap_or_default())
    })
}

#[test]
fn on_bad_networks_nothing_is_lost_nothing_doubled_and_everything_in_order() {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 1..=steps().div_ceil(STEPS) {
        for (what, count) in play(seed, None).unwrap_or_else(|wrong| panic!("{wrong}")) {
            *counts.entry(what).or_default() += count;
        }
    }
    for what in
        ["anew", "calls", "cuts", "ends", "repeats", "reborn", "restarts", "restored", "resumes", "signals"]
    {
        assert!(counts.get(what).is_some_and(|count| *count >= 20), "too few {what}: {counts:?}");
    }
}

#[test]
fn a_hub_that_did_anything_wrong_would_be_found_out() {
    for flaw in FLAWS {
        // A flaw shows itself now and then.
        assert!((1..=10).any(|seed| play(seed, Some(flaw)).is_err()), "{flaw:?} goes unnoticed");
    }
}
