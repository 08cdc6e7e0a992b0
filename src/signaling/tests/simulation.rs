//! Random users who do random things at random times. What must hold is checked after every input by the stage; here
//! is what must hold at the end: nothing is left.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::{Value, json};

use super::stage::{Stage, identity, sdp};
use crate::signaling::*;

const USERS: [&str; 6] = ["u0", "u1", "u2", "u3", "u4", "u5"];

#[derive(Debug, Clone)]
enum Step {
    Open(usize),
    Close(usize),
    Bye(usize),
    Room { session: usize, room: usize, join: bool },
    Call { session: usize, to: Vec<usize>, room: Option<usize> },
    Act { session: usize, call: usize, event: &'static str, user: usize, enabled: bool, ack: bool },
    Signal { session: usize, call: usize, to: Option<usize>, kind: &'static str, tag: u8 },
    Pass(f64),
}

const ACTS: [&str; 13] = [
    "call:join",
    "call:join",
    "call:join",
    "call:leave",
    "call:decline",
    "call:end",
    "call:toggle-audio",
    "call:invite",
    "call:kick",
    "call:mute",
    "call:lock",
    "call:message",
    "call:quality-report",
];

fn step() -> impl Strategy<Value = Step> {
    let user = 0..USERS.len();
    let session = 0..12_usize;
    prop_oneof![
        2 => user.clone().prop_map(Step::Open),
        2 => session.clone().prop_map(Step::Close),
        1 => session.clone().prop_map(Step::Bye),
        2 => (session.clone(), 0..2_usize, any::<bool>())
            .prop_map(|(session, room, join)| Step::Room { session, room, join }),
        4 => (session.clone(), prop::collection::vec(user.clone(), 0..3), prop::option::of(0..2_usize))
            .prop_map(|(session, to, room)| Step::Call { session, to, room }),
        12 => (
            session.clone(),
            0..4_usize,
            prop::sample::select(&ACTS[..]),
            user.clone(),
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(|(session, call, event, user, enabled, ack)| Step::Act {
                session,
                call,
                event,
                user,
                enabled,
                ack,
            }),
        6 => (
            session,
            0..4_usize,
            prop::option::of(user),
            prop::sample::select(&["offer", "answer", "ice-candidate", "bye"][..]),
            0..4_u8,
        )
            .prop_map(|(session, call, to, kind, tag)| Step::Signal { session, call, to, kind, tag }),
        3 => (0.0..40.0_f64).prop_map(Step::Pass),
    ]
}

/// A stage and the sessions and calls the random steps choose from, newest first.
struct Play {
    stage: Stage,
    open: Vec<SessionId>,
    calls: Vec<String>,
}

impl Play {
    fn new() -> Self {
        let generous = Rate { count: 0, per: std::time::Duration::from_secs(1), burst: 1 };
        let rates = Rates { initiate: generous, leave: generous, ..Rates::default() };
        let limits = Limits { ended_calls: 5, queued_signals: 3, ..Limits::default() };
        let stage = Stage::with(Config { rates, limits, ..Config::default() });
        let mut play = Self { stage, open: Vec::new(), calls: Vec::new() };
        (0..USERS.len()).for_each(|user| play.run(Step::Open(user)));
        play
    }

    fn session(&self, pick: usize) -> Option<SessionId> {
        self.open.get(pick % self.open.len().max(1)).copied()
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Open(user) => {
                if let Ok(session) = self.stage.open_as(identity(USERS[user])) {
                    self.open.insert(0, session);
                }
            }
            Step::Pass(seconds) => self.stage.pass(seconds),
            Step::Close(pick) | Step::Bye(pick) => {
                let Some(session) = self.session(pick) else { return };
                if matches!(step, Step::Bye(_)) {
                    let _ = self.stage.ask(session, "session:bye", json!({}));
                }
                self.stage.close(session);
                self.open.retain(|other| *other != session);
            }
            Step::Room { session, room, join } => {
                let event = if join { "room:join" } else { "room:leave" };
                self.ask(session, event, json!({ "roomId": format!("r{room}") }), true);
            }
            Step::Call { session, to, room } => {
                let to: Vec<&str> = to.into_iter().map(|user| USERS[user]).collect();
                let mut request = json!({ "type": "video", "roomId": room.map(|room| format!("r{room}")) });
                if !to.is_empty() {
                    request["to"] = json!(to);
                }
                let ack = self.ask(session, "call:initiate", request, true);
                if let Some(id) = ack.as_ref().and_then(|ack| ack["callId"].as_str()) {
                    self.calls.insert(0, id.to_owned());
                }
            }
            Step::Act { session, call, event, user, enabled, ack } => {
                let request = json!({
                    "callId": self.call(call),
                    "enabled": enabled,
                    // Seldom: a locked call is a dull one.
                    "locked": enabled && user == 0,
                    "to": USERS[user],
                    "data": user,
                    "stats": { "rtt": 500 * user },
                });
                self.ask(session, event, request, ack);
            }
            Step::Signal { session, call, to, kind, tag } => {
                let mut signal = json!({ "type": kind, "to": to.map(|user| USERS[user]) });
                match kind {
                    "ice-candidate" => signal["candidate"] = json!(""),
                    _ => signal["sdp"] = json!(sdp(&tag.to_string())),
                }
                self.ask(
                    session,
                    "call:signal",
                    json!({ "callId": self.call(call), "signal": signal }),
                    true,
                );
            }
        }
    }

    fn call(&self, pick: usize) -> &str {
        self.calls.get(pick).map_or("none", String::as_str)
    }

    fn ask(&mut self, pick: usize, event: &str, payload: Value, ack: bool) -> Option<Value> {
        let session = self.session(pick)?;
        if ack {
            return self.stage.ask(session, event, payload).ok();
        }
        self.stage.send(session, event, payload);
        None
    }

    /// Everybody goes; every timer runs out.
    fn end(mut self) {
        for session in std::mem::take(&mut self.open) {
            self.stage.close(session);
        }
        self.stage.pass(90_000.0);
        assert_eq!(self.stage.hub.running(), 0);
        assert!(self.stage.hub.is_empty(), "{:?}", self.stage.hub);
        assert_eq!(self.stage.hub.poll_timeout(), None);
        for record in self.stage.records.values() {
            assert!(record.ended_at.is_some() && record.end_reason.is_some());
            assert_eq!(record.duration_s.is_some(), record.answered_at.is_some());
        }
        let started = self.stage.count(|event| matches!(event, Event::CallStarted { .. }));
        let ended = self.stage.count(|event| matches!(event, Event::CallEnded { .. }));
        assert_eq!((started, ended), (self.stage.records.len(), started), "every call ends exactly once");
        let opened = self.stage.count(|event| matches!(event, Event::SessionState { from: None, .. }));
        assert_eq!(opened, self.stage.count(|event| matches!(event, Event::SessionState { to: None, .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_tables_agree_and_nothing_is_left(steps in prop::collection::vec(step(), 1..150)) {
        let mut play = Play::new();
        steps.into_iter().for_each(|step| play.run(step));
        play.end();
    }
}

#[test]
fn the_simulation_reaches_every_end_of_a_call() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(step(), 100..150);
    let mut reasons = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let steps = strategy.new_tree(&mut runner).unwrap().current();
        let mut play = Play::new();
        steps.into_iter().for_each(|step| play.run(step));
        reasons.extend(play.stage.events.iter().filter_map(|event| match event {
            Event::CallEnded { reason, .. } => Some(*reason),
            _ => None,
        }));
    }
    for reason in
        ["cancelled", "completed", "connectionLost", "missed", "negotiationTimeout", "offline", "rejected"]
    {
        assert!(reasons.contains(reason), "{reason} is not among {reasons:?}");
    }
}
