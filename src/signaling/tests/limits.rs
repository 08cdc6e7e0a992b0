//! Every limit, at its boundary.

use std::time::Duration;

use serde_json::{Value, json};

use super::stage::{Stage, code, identity, sdp};
use crate::signaling::*;

fn padded(bytes: usize) -> String {
    let start = sdp("");
    format!("{start}{}", "x".repeat(bytes - start.len()))
}

#[test]
fn sizes_hold_to_the_byte() {
    let mut stage = Stage::new();
    let (a, _, call) = stage.active();
    stage.signal(a, &call, json!({ "type": "offer", "sdp": padded(64 * 1024) })).unwrap();
    let large = stage.signal(a, &call, json!({ "type": "offer", "sdp": padded(64 * 1024 + 1) }));
    assert_eq!(code(large), "SIGNAL_TOO_LARGE");
    let line = |bytes: usize| format!("candidate:{}", "1".repeat(bytes - 10));
    stage.signal(a, &call, json!({ "type": "ice-candidate", "candidate": line(2048) })).unwrap();
    let large = stage.signal(a, &call, json!({ "type": "ice-candidate", "candidate": line(2049) }));
    assert_eq!(code(large), "SIGNAL_TOO_LARGE");
    let large =
        stage.signal(a, &call, json!({ "type": "ice-candidate", "candidate": { "candidate": line(2049) } }));
    assert_eq!(code(large), "SIGNAL_TOO_LARGE");
}

#[test]
fn ids_and_metadata_hold_to_the_byte() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    let id = |bytes: usize| "u".repeat(bytes);
    for event in ["room:join", "room:leave"] {
        stage.ask(a, event, json!({ "roomId": id(128) })).unwrap();
        assert_eq!(code(stage.ask(a, event, json!({ "roomId": id(129) }))), "VALIDATION_ERROR");
    }
    let call = |to: String, metadata: usize| json!({ "to": to, "type": "audio", "metadata": id(metadata) });
    // As JSON the text has two quotes more.
    assert_eq!(code(stage.ask(a, "call:initiate", call(id(128), 8190))), "USER_OFFLINE");
    assert_eq!(code(stage.ask(a, "call:initiate", call(id(129), 1))), "VALIDATION_ERROR");
    assert_eq!(code(stage.ask(a, "call:initiate", call(id(1), 8191))), "VALIDATION_ERROR");
    stage.ask(a, "call:heartbeat", json!({ "msgId": id(64) })).unwrap();
    assert_eq!(code(stage.ask(a, "call:heartbeat", json!({ "msgId": id(65) }))), "VALIDATION_ERROR");
}

#[test]
fn a_frame_over_its_limit_is_refused_whatever_it_says() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    for (size, fits) in [(128 * 1024, true), (128 * 1024 + 1, false)] {
        let request = Request {
            event: "call:heartbeat".into(),
            payload: json!({}),
            wants_ack: true,
            size,
            last_seen: None,
        };
        assert_eq!(stage.hub.handle(a, request, stage.now).is_ok(), fits);
    }
}

#[test]
fn json_nests_sixteen_levels() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    let nested = |levels: usize| (0..levels - 2).fold(json!([]), |inner, _| json!([inner]));
    stage.ask(a, "call:heartbeat", json!({ "x": nested(16) })).unwrap();
    assert_eq!(code(stage.ask(a, "call:heartbeat", json!({ "x": nested(17) }))), "VALIDATION_ERROR");
}

/// Sends until refused; how many passed, and the refusal.
fn exhaust(
    stage: &mut Stage,
    session: SessionId,
    event: &str,
    payload: impl Fn(usize) -> Value,
) -> (usize, Reject) {
    for sent in 0..1000 {
        if let Err(reject @ Reject::RateLimited { .. }) = stage.ask(session, event, payload(sent)) {
            return (sent, reject);
        }
    }
    panic!("no limit on {event}");
}

#[test]
fn users_have_rates() {
    let cases = [
        ("call:initiate", "initiate", 5, json!({ "to": "nobody", "type": "audio" })),
        ("call:join", "join", 20, json!({ "callId": "none" })),
        ("call:leave", "leave", 20, json!({ "callId": "none" })),
        ("call:toggle-audio", "toggle", 50, json!({ "callId": "none", "enabled": true })),
    ];
    for (event, limit, burst, payload) in cases {
        let mut stage = Stage::new();
        let (a, other) = (stage.open("a"), stage.open("a"));
        let (passed, reject) = exhaust(&mut stage, a, event, |_| payload.clone());
        assert_eq!((passed, reject.code()), (burst, "RATE_LIMIT_EXCEEDED"), "{event}");
        // The bucket is the user's: neither another session nor a reconnect has a fresh one.
        assert_eq!(code(stage.ask(other, event, payload.clone())), "RATE_LIMIT_EXCEEDED");
        stage.close(a);
        stage.close(other);
        let a = stage.open("a");
        assert_eq!(code(stage.ask(a, event, payload.clone())), "RATE_LIMIT_EXCEEDED");
        let wait = reject.to_json()["retryAfterMs"].as_u64().unwrap();
        assert_eq!(wait, 60_000 / burst as u64);
        stage.pass(wait as f64 / 1000.0);
        assert_ne!(code(stage.ask(a, event, payload)), "RATE_LIMIT_EXCEEDED", "{event}");
        assert_eq!(stage.count(|event| matches!(event, Event::RateLimited { limit: l } if *l == limit)), 3);
    }
}

#[test]
fn signals_have_a_rate_and_candidates_their_own() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    let signal = |signal: Value| json!({ "callId": call, "signal": signal });
    let (passed, reject) = exhaust(&mut stage, a, "call:signal", |_| signal(json!({ "type": "bye" })));
    assert_eq!((passed + 1, reject.retry_after()), (100, Some(Duration::from_millis(100))));
    stage.pass(60.0);
    let (passed, _) = exhaust(&mut stage, a, "call:signal", |_| {
        signal(json!({ "type": "ice-candidate", "candidate": "" }))
    });
    assert_eq!(passed, 150);
    // Candidates are limited by call, other signals by session.
    let candidate = json!({ "type": "ice-candidate", "candidate": "" });
    assert_eq!(code(stage.signal(b, &call, candidate)), "RATE_LIMIT_EXCEEDED");
    stage.signal(b, &call, json!({ "type": "bye" })).unwrap();
}

#[test]
fn frames_have_a_rate_and_a_flood_is_cut_off() {
    let mut stage = Stage::new();
    let (a, b, _) = stage.active();
    let (passed, _) = exhaust(&mut stage, a, "no:such-event", |_| json!({}));
    assert_eq!(passed, 200 - 2, "two were spent on the call");
    for _ in 0..199 {
        assert_eq!(code(stage.ask(a, "call:heartbeat", json!({}))), "RATE_LIMIT_EXCEEDED");
    }
    assert!(stage.closed.is_empty());
    assert_eq!(code(stage.ask(a, "call:heartbeat", json!({}))), "RATE_LIMIT_EXCEEDED");
    assert_eq!(stage.closed, [(a, Close::Rate)]);
    // For the call that is a lost connection like any other.
    stage.pass(3.1);
    assert_eq!(stage.expect(b, "call:participant-state")["state"], "reconnecting");
}

#[test]
fn sessions_are_limited_by_user_and_in_all() {
    let limits = Limits { sessions: 12, ..Limits::default() };
    let mut stage = Stage::with(Config { limits, ..Config::default() });
    let first = stage.open("a");
    for _ in 1..10 {
        stage.open("a");
    }
    assert_eq!(stage.open_as(identity("a")).unwrap_err().code(), "CAPACITY_EXCEEDED");
    stage.open("b");
    stage.open("b");
    assert_eq!(stage.open_as(identity("c")).unwrap_err().code(), "CAPACITY_EXCEEDED");
    stage.close(first);
    stage.open("a");
}

#[test]
fn a_user_starts_two_calls_at_once() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    for user in ["b", "c", "d"] {
        stage.open(user);
    }
    let first = stage.call(a, &["b"]);
    stage.call(a, &["c"]);
    assert_eq!(
        code(stage.ask(a, "call:initiate", json!({ "to": "d", "type": "audio" }))),
        "CAPACITY_EXCEEDED"
    );
    stage.ask(a, "call:leave", json!({ "callId": first })).unwrap();
    stage.call(a, &["d"]);
}

#[test]
fn a_call_has_as_many_callees_as_it_has_seats() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    for user in ["b", "c", "d", "e"] {
        stage.open(user);
    }
    let call = |to: &[&str]| json!({ "to": to, "type": "audio" });
    assert_eq!(code(stage.ask(a, "call:initiate", call(&["b", "c", "d", "e"]))), "MAX_PARTICIPANTS_REACHED");
    let ack = stage.ask(a, "call:initiate", call(&["b", "c", "d", "b"])).unwrap();
    assert_eq!(ack["ringing"], json!(["b", "c", "d"]));
}

#[test]
fn nobody_is_rung_by_more_calls_than_a_user_may_have() {
    let limits = Limits { calls_per_user: 2, ..Limits::default() };
    let mut stage = Stage::with(Config { limits, ..Config::default() });
    stage.open("victim");
    for user in ["a", "b"] {
        let session = stage.open(user);
        stage.call(session, &["victim"]);
    }
    let c = stage.open("c");
    assert_eq!(code(stage.ask(c, "call:initiate", json!({ "to": "victim", "type": "audio" }))), "USER_BUSY");
}

#[test]
fn running_calls_rooms_and_ended_calls_are_bounded() {
    let limits =
        Limits { calls: 1, rooms_per_session: 2, sessions_per_room: 1, ended_calls: 1, ..Limits::default() };
    let mut stage = Stage::with(Config { limits, ..Config::default() });
    let (a, b) = (stage.open("a"), stage.open("b"));
    let (c, _d) = (stage.open("c"), stage.open("d"));
    for (call, next) in [("b", "d"), ("d", "b"), ("b", "d")] {
        let id = stage.call(a, &[call]);
        let refused = stage.ask(c, "call:initiate", json!({ "to": next, "type": "audio" }));
        assert_eq!(code(refused), "CAPACITY_EXCEEDED");
        stage.ask(a, "call:leave", json!({ "callId": id })).unwrap();
    }
    for (session, room, fits) in
        [(a, "1", true), (a, "2", true), (a, "3", false), (b, "1", false), (a, "2", true)]
    {
        assert_eq!(stage.ask(session, "room:join", json!({ "roomId": room })).is_ok(), fits, "{room}");
    }
    stage.ask(a, "room:leave", json!({ "roomId": "1" })).unwrap();
    stage.ask(b, "room:join", json!({ "roomId": "1" })).unwrap();
}

#[test]
fn a_busy_client_that_heeds_its_limit_now_and_then_is_not_cut_off() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    for _ in 0..5 {
        exhaust(&mut stage, a, "call:heartbeat", |_| json!({}));
        for _ in 0..100 {
            assert_eq!(code(stage.ask(a, "call:heartbeat", json!({}))), "RATE_LIMIT_EXCEEDED");
        }
        stage.pass(0.1);
    }
    assert!(stage.closed.is_empty());
}

#[test]
fn who_has_not_joined_does_not_spend_the_candidates_of_those_who_have() {
    let mut stage = Stage::new();
    let (a, b, c) = (stage.open("a"), stage.open("b"), stage.open("c"));
    let call = stage.call(a, &["b", "c"]);
    stage.join(b, &call);
    let candidate = json!({ "type": "ice-candidate", "to": "a", "candidate": "" });
    for _ in 0..150 {
        assert_eq!(code(stage.signal(c, &call, candidate.clone())), "NOT_IN_CALL");
    }
    stage.signal(b, &call, candidate).unwrap();
}

#[test]
fn five_hundred_and_twelve_events_wait_for_a_resume_and_one_more_is_too_many() {
    let off = Rate { count: 0, per: Duration::from_secs(1), burst: 1 };
    let rates = Rates { toggle: off, frames: off, ..Rates::default() };
    for (events, outcome) in [(512, Resumption::Resumed), (513, Resumption::Beyond)] {
        let mut stage = Stage::with(Config { rates: rates.clone(), ..Config::default() });
        let (a, b) = (stage.open("a"), stage.open("b"));
        let ready = stage.expect(a, "session:ready");
        let call = stage.call(a, &["b"]);
        stage.join(b, &call);
        let seen = stage.last_seq(a);
        stage.clear();
        stage.close(a);
        for n in 0..events {
            let toggle = json!({ "callId": call, "enabled": n % 2 == 1 });
            stage.ask(b, "call:toggle-audio", toggle).unwrap();
        }
        let opened = stage.resume("a", &ready, seen);
        assert_eq!(opened.resumption, Some(outcome), "{events}");
        let missed = stage.names(opened.session);
        let toggled = missed.iter().filter(|name| **name == "call:media-toggled").count();
        assert_eq!(toggled, if outcome == Resumption::Resumed { events } else { 0 });
    }
}

#[test]
fn fifty_thousand_sessions_are_open_at_once_and_no_more() {
    let mut stage = Stage::new();
    let now = stage.now;
    // Past the stage, which looks at everything after each of them.
    let mut open = |user: usize| {
        let opened = stage.hub.open(identity(&format!("u{user}")), None, now);
        while stage.hub.poll_output().is_some() {}
        opened.map(|opened| opened.session)
    };
    let sessions: Vec<SessionId> = (0..50_000).map(|n| open(n / 10).unwrap()).collect();
    assert_eq!(open(5_000).unwrap_err().code(), "CAPACITY_EXCEEDED");
    stage.hub.close(sessions[0], now);
    assert!(stage.hub.open(identity("u5000"), None, now).is_ok());
}

#[test]
fn thirty_two_users_are_rung_and_listed_at_once() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    stage.ask(a, "room:join", json!({ "roomId": "r" })).unwrap();
    for n in 0..40 {
        let user = stage.open(&format!("u{n}"));
        stage.ask(user, "room:join", json!({ "roomId": "r" })).unwrap();
    }
    let ack = stage.ask(a, "call:initiate", json!({ "roomId": "r", "type": "audio" })).unwrap();
    assert_eq!(ack["ringing"].as_array().map(Vec::len), Some(32));
    // A list may name somebody twice, but not without end.
    let list = |length: usize| json!({ "to": vec!["u1"; length], "type": "audio" });
    assert_eq!(stage.ask(a, "call:initiate", list(32)).unwrap()["ringing"], json!(["u1"]));
    assert_eq!(code(stage.ask(a, "call:initiate", list(33))), "MAX_PARTICIPANTS_REACHED");
}

#[test]
fn sixty_four_people_have_ever_been_in_a_call() {
    let off = Rate { count: 0, per: Duration::from_secs(1), burst: 1 };
    let rates = Rates { frames: off, messages: off, ..Rates::default() };
    let mut stage = Stage::with(Config { rates, ..Config::default() });
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.join(b, &call);
    let invite = |user: &str| json!({ "callId": call, "to": user });
    for n in 2..64 {
        let user = format!("u{n}");
        let session = stage.open(&user);
        stage.ask(a, "call:invite", invite(&user)).unwrap();
        stage.ask(session, "call:decline", json!({ "callId": call })).unwrap();
    }
    stage.open("late");
    assert_eq!(code(stage.ask(a, "call:invite", invite("late"))), "MAX_PARTICIPANTS_REACHED");
    // Who was there before may be asked again.
    stage.ask(a, "call:invite", invite("u2")).unwrap();
}

#[test]
fn rooms_with_members_and_their_members_are_bounded() {
    let limits = Limits { member_rooms: 2, ..Limits::default() };
    let mut stage = Stage::with(Config { limits, ..Config::default() });
    let a = stage.open("a");
    stage.ask(a, "room:join", json!({ "roomId": "there already" })).unwrap();
    let mut name = |room: &str, members: usize| {
        let members = Some((0..members).map(|n| UserId(format!("u{n}").into())).collect());
        stage.admin(&Authority::Operator, AdminCommand::SetMembers { room: room.into(), members })
    };
    assert!(name("one", 1_000).is_ok());
    assert_eq!(code(name("one", 1_001)), "VALIDATION_ERROR");
    assert!(name("two", 1).is_ok());
    for third in ["three", "there already"] {
        assert_eq!(code(name(third, 1)), "CAPACITY_EXCEEDED", "{third}");
    }
    assert!(name("two", 2).is_ok());
}

#[test]
fn messages_have_a_rate() {
    let mut stage = Stage::new();
    let (a, _, call) = stage.active();
    let message = |n: usize| json!({ "callId": call, "data": n });
    let (passed, reject) = exhaust(&mut stage, a, "call:message", message);
    assert_eq!((passed, reject.retry_after()), (50, Some(Duration::from_millis(100))));
}
