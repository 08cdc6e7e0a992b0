//! Sessions that go on over another transport: nothing lost, nothing twice.

use serde_json::{Value, json};

use super::stage::{Stage, code, sdp};
use crate::signaling::*;

const CANDIDATE: &str = "candidate:1 1 udp 2122260223 192.0.2.1 54400 typ host";

fn candidate() -> Value {
    json!({ "type": "ice-candidate", "candidate": CANDIDATE })
}

/// A call between two who know their resume keys: sessions, call, and what the first one needs to resume.
fn call(stage: &mut Stage) -> (SessionId, SessionId, String, Value) {
    let a = stage.open("a");
    let ready = stage.expect(a, "session:ready");
    let b = stage.open("b");
    let call = stage.call(a, &["b"]);
    stage.join(b, &call);
    stage.negotiate(&call, (b, "b"), (a, "a"));
    stage.clear();
    (a, b, call, ready)
}

#[test]
fn a_resume_brings_exactly_what_was_missed_and_then_the_state() {
    let mut stage = Stage::new();
    let (a, b, call, ready) = call(&mut stage);
    assert_eq!(ready["resume"]["key"].as_str().map(str::len), Some(32));
    let seen = stage.last_seq(a);
    // The connection is dead, and nobody knows yet.
    stage.signal(b, &call, candidate()).unwrap();
    stage.ask(b, "call:toggle-audio", json!({ "callId": call, "enabled": false })).unwrap();
    stage.clear();
    let opened = stage.resume("a", &ready, seen);
    assert_eq!(opened.resumption, Some(Resumption::Resumed));
    let again = opened.session;
    assert_eq!(stage.names(again), ["session:ready", "call:signal", "call:media-toggled", "call:state"]);
    let ready = stage.expect(again, "session:ready");
    assert_eq!((&ready["resumed"], &ready["activeCalls"][0]["id"]), (&json!(true), &json!(call)));
    assert_eq!(stage.expect(again, "call:signal")["seq"], seen + 1);
    // The call never noticed, and goes on over the new transport.
    stage.signal(again, &call, candidate()).unwrap();
    assert_eq!(stage.names(b), ["call:signal"]);
    assert_eq!(code(stage.signal(a, &call, candidate())), "NOT_AUTHENTICATED");
}

#[test]
fn a_take_over_closes_the_old_transport_and_the_newest_wins() {
    let mut stage = Stage::new();
    let (first, _, call, ready) = call(&mut stage);
    let seen = stage.last_seq(first);
    let second = stage.resume("a", &ready, seen).session;
    assert_eq!(stage.names(first), ["session:replaced"]);
    assert_eq!(stage.closed, [(first, Close::Replaced)]);
    let ready = stage.expect(second, "session:ready");
    let third = stage.resume("a", &ready, stage.last_seq(second)).session;
    assert_eq!(stage.closed, [(first, Close::Replaced), (second, Close::Replaced)]);
    // The old transports come to their end late, and it is nobody's.
    stage.close(first);
    stage.close(second);
    stage.pass(60.0);
    stage.ask(third, "call:toggle-audio", json!({ "callId": call, "enabled": false })).unwrap();
    assert_eq!(stage.hub.running(), 1);
}

#[test]
fn a_session_without_a_transport_keeps_what_it_is_sent() {
    let mut stage = Stage::new();
    let (a, b, call, ready) = call(&mut stage);
    let seen = stage.last_seq(a);
    stage.close(a);
    stage.signal(b, &call, candidate()).unwrap();
    stage.ask(b, "call:toggle-video", json!({ "callId": call, "enabled": false })).unwrap();
    stage.pass(20.0);
    stage.clear();
    let a = stage.resume("a", &ready, seen).session;
    // The signal waited in the call, where another device of the user could have had it as well.
    assert_eq!(stage.names(a), ["session:ready", "call:media-toggled", "call:signal", "call:state"]);
    assert_eq!(stage.names(b), ["call:participant-state"]);
    assert_eq!(stage.record(&call).participants[0].reconnects, 1);
}

#[test]
fn an_end_that_was_missed_is_in_the_replay() {
    let mut stage = Stage::new();
    let (a, b, call, ready) = call(&mut stage);
    let seen = stage.last_seq(a);
    stage.close(a);
    stage.ask(b, "call:leave", json!({ "callId": call })).unwrap();
    stage.pass(100.0);
    let a = stage.resume("a", &ready, seen).session;
    assert_eq!(stage.names(a)[1..], ["call:participant-left", "call:ended"]);
    assert_eq!(stage.expect(a, "session:ready")["activeCalls"], json!([]));
}

#[test]
fn a_call_that_came_while_the_transport_was_gone_rings_after_a_resume() {
    let mut stage = Stage::new();
    let (a, b, b2) = (stage.open("a"), stage.open("b"), stage.open("b"));
    let ready = stage.expect(b, "session:ready");
    stage.close(b);
    stage.close(b2);
    let c = stage.open("c");
    assert_eq!(code(stage.ask(a, "call:initiate", json!({ "to": "b", "type": "audio" }))), "USER_OFFLINE");
    let call = stage.call(a, &["b", "c"]);
    stage.clear();
    let b = stage.resume("b", &ready, 0).session;
    assert_eq!(stage.names(b), ["session:ready", "call:missed", "call:initiated"], "each once");
    assert_eq!(stage.expect(a, "call:ringing")["userId"], "b");
    stage.join(b, &call);
    assert_eq!(stage.names(c), Vec::<&str>::new());
}

#[test]
fn beyond_the_window_loss_is_not_silent() {
    let limits = Limits { replay_events: 4, ..Limits::default() };
    let mut stage = Stage::with(Config { limits, ..Config::default() });
    let (a, b, call, ready) = call(&mut stage);
    let seen = stage.last_seq(a);
    for n in 0..5 {
        let toggle = json!({ "callId": call, "enabled": n % 2 == 1 });
        stage.ask(b, "call:toggle-audio", toggle).unwrap();
    }
    let opened = stage.resume("a", &ready, seen);
    assert_eq!(opened.resumption, Some(Resumption::Beyond));
    assert_eq!(stage.closed, [(a, Close::Replaced)]);
    let new = stage.expect(opened.session, "session:ready");
    assert_eq!((&new["resumed"], &new["activeCalls"][0]["id"]), (&json!(false), &json!(call)));
    assert_ne!(new["sid"], ready["sid"]);
    stage.join(opened.session, &call);
    assert_eq!(stage.names(opened.session), ["call:state"]);
    assert_eq!(stage.hub.running(), 1);
}

#[test]
fn a_client_that_claims_events_from_the_future_starts_anew() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    let ready = stage.expect(a, "session:ready");
    for seq in [1, u64::MAX] {
        assert_eq!(
            stage.resume("a", &ready, seq).resumption,
            Some(if seq == 1 { Resumption::Beyond } else { Resumption::Expired })
        );
    }
}

#[test]
fn what_is_acknowledged_is_not_kept() {
    let limits = Limits { replay_events: 8, ..Limits::default() };
    let mut stage = Stage::with(Config { limits, ..Config::default() });
    let (a, b, call, ready) = call(&mut stage);
    for n in 0..20 {
        let toggle = json!({ "callId": call, "enabled": n % 2 == 1 });
        stage.ask(b, "call:toggle-audio", toggle).unwrap();
        let seen = stage.last_seq(a);
        match n % 3 {
            0 => stage.hub.acknowledge(a, seen),
            1 => drop(stage.ask(a, "seq", json!({ "ls": seen })).unwrap()),
            _ => drop(stage.ask(a, "call:heartbeat", json!({ "ls": seen })).unwrap()),
        }
    }
    let seen = stage.last_seq(a);
    let a = stage.resume("a", &ready, seen).session;
    assert_eq!(stage.names(a), ["session:ready", "call:state"]);
}

#[test]
fn an_event_is_kept_for_the_window_and_no_longer() {
    let mut stage = Stage::new();
    let (a, b, call, ready) = call(&mut stage);
    let seen = stage.last_seq(a);
    stage.ask(b, "call:toggle-audio", json!({ "callId": call, "enabled": false })).unwrap();
    stage.pass(119.0);
    let opened = stage.resume("a", &ready, seen);
    assert_eq!(opened.resumption, Some(Resumption::Resumed));
    let ready = stage.expect(opened.session, "session:ready");
    stage.pass(300.0);
    assert_eq!(stage.resume("a", &ready, seen).resumption, Some(Resumption::Beyond));
}

#[test]
fn an_expired_but_genuine_key_is_not_brute_force() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    let first = stage.expect(a, "session:ready");
    // Used already.
    let b = stage.resume("a", &first, 0).session;
    let second = stage.expect(b, "session:ready");
    stage.ask(b, "call:heartbeat", json!({})).unwrap();
    assert_eq!(stage.resume("a", &first, 0).resumption, Some(Resumption::Expired));
    // Too late.
    stage.close(b);
    stage.pass(121.0);
    assert_eq!(stage.resume("a", &second, 0).resumption, Some(Resumption::Expired));
    // From before a restart.
    let mut other = Stage::new();
    assert_eq!(other.resume("a", &second, 0).resumption, Some(Resumption::Expired));
    assert_eq!(stage.count(|event| matches!(event, Event::Resume { result: Resumption::Wrong })), 0);
}

#[test]
fn a_wrong_key_is_told_apart_and_harms_nobody() {
    let mut stage = Stage::new();
    let (a, b, call, ready) = call(&mut stage);
    let mut guess = ready.clone();
    guess["resume"]["key"] = json!("0".repeat(32));
    assert_eq!(stage.resume("a", &guess, 0).resumption, Some(Resumption::Wrong));
    // The key of someone else is a wrong one too.
    assert_eq!(stage.resume("mallory", &ready, 0).resumption, Some(Resumption::Wrong));
    assert_eq!(stage.closed, []);
    stage.signal(a, &call, candidate()).unwrap();
    stage.expect(b, "call:signal");
    assert_eq!(stage.resume("a", &ready, stage.last_seq(a)).resumption, Some(Resumption::Resumed));
}

#[test]
fn a_ready_that_never_arrives_does_not_lock_the_client_out() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    let ready = stage.expect(a, "session:ready");
    for _ in 0..5 {
        let opened = stage.resume("a", &ready, 0);
        assert_eq!(opened.resumption, Some(Resumption::Resumed));
        stage.close(opened.session);
    }
}

#[test]
fn a_request_that_comes_twice_has_one_effect_and_two_acks() {
    let mut stage = Stage::new();
    let (a, b, call, ready) = call(&mut stage);
    let request = json!({ "callId": call, "signal": candidate(), "msgId": "m1" });
    let first = stage.ask(a, "call:signal", request.clone()).unwrap();
    let seen = stage.last_seq(a);
    // The ack was lost with the connection.
    let a = stage.resume("a", &ready, seen).session;
    assert_eq!(stage.ask(a, "call:signal", request).unwrap(), first);
    assert_eq!(stage.names(b), ["call:signal"]);
    assert_eq!(stage.count(|event| matches!(event, Event::Duplicate)), 1);
}

#[test]
fn a_call_that_is_started_twice_with_one_id_is_one_call() {
    let mut stage = Stage::new();
    let (a, _b) = (stage.open("a"), stage.open("b"));
    let request = json!({ "to": "b", "type": "audio", "msgId": "m1" });
    let first = stage.ask(a, "call:initiate", request.clone()).unwrap();
    assert_eq!(stage.ask(a, "call:initiate", request).unwrap(), first);
    assert_eq!(stage.hub.running(), 1);
    // A refusal is an outcome as well, and told once.
    stage.clear();
    let wrong = json!({ "callId": "none", "msgId": "m2" });
    stage.send(a, "call:join", wrong.clone());
    stage.send(a, "call:join", wrong);
    assert_eq!(stage.names(a), ["call:error"]);
}

#[test]
fn a_session_that_starts_anew_knows_no_old_requests() {
    let mut stage = Stage::new();
    let (a, _b, call, ready) = call(&mut stage);
    let mute = json!({ "callId": call, "enabled": false, "msgId": "1" });
    stage.ask(a, "call:toggle-audio", mute).unwrap();
    let seen = stage.last_seq(a);
    stage.close(a);
    stage.pass(10.0);
    let opened = stage.resume("a", &ready, seen + 7);
    assert_eq!(opened.resumption, Some(Resumption::Beyond));
    // A client counts from one again.
    let joined = stage.ask(opened.session, "call:join", json!({ "callId": call, "msgId": "1" })).unwrap();
    assert_eq!(joined["callSession"]["id"], call);
}

#[test]
fn signals_keep_their_order_through_ring_queue_and_replay() {
    let mut stage = Stage::new();
    let (a, b, call, ready) = call(&mut stage);
    let seen = stage.last_seq(a);
    let offer = |tag: &str| json!({ "type": "renegotiate", "negotiationId": tag });
    stage.signal(b, &call, offer("1")).unwrap();
    stage.close(a);
    stage.signal(b, &call, offer("2")).unwrap();
    stage.signal(b, &call, offer("3")).unwrap();
    let a = stage.resume("a", &ready, seen).session;
    stage.signal(b, &call, offer("4")).unwrap();
    for tag in ["1", "2", "3", "4"] {
        assert_eq!(stage.expect(a, "call:signal")["signal"]["negotiationId"], tag);
    }
}

#[test]
fn a_resumed_peer_connection_goes_on_where_it_was() {
    let mut stage = Stage::new();
    let (a, b, call, ready) = call(&mut stage);
    let seen = stage.last_seq(a);
    let offer = json!({ "type": "offer", "sdp": sdp("new") });
    stage.signal(a, &call, offer.clone()).unwrap();
    stage.close(a);
    let a = stage.resume("a", &ready, seen).session;
    stage.clear();
    // The client repeats what it is not sure of.
    stage.signal(a, &call, offer).unwrap();
    assert!(stage.names(b).is_empty(), "not forwarded twice");
    let answer = json!({ "type": "answer", "sdp": sdp("new answer") });
    stage.signal(b, &call, answer).unwrap();
    assert_eq!(stage.names(a), ["call:signal"]);
}

#[test]
fn waiting_sessions_never_keep_a_user_out() {
    let mut stage = Stage::new();
    for _ in 0..30 {
        let a = stage.open("a");
        stage.close(a);
    }
    let open: Vec<SessionId> = (0..10).map(|_| stage.open("a")).collect();
    assert_eq!(stage.open_as(super::stage::identity("a")), Err(Reject::Capacity("sessions of this user")));
    stage.close(open[3]);
    stage.open("a");
}

#[test]
fn a_session_that_said_good_bye_is_not_resumed() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    let ready = stage.expect(a, "session:ready");
    stage.ask(a, "session:bye", json!({})).unwrap();
    assert_eq!(stage.resume("a", &ready, 0).resumption, Some(Resumption::Expired));
}

#[test]
fn a_drain_still_lets_sessions_with_calls_go_on() {
    let mut stage = Stage::new();
    let (a, _, call, ready) = call(&mut stage);
    stage.drain();
    let seen = stage.last_seq(a);
    let a = stage.resume("a", &ready, seen).session;
    assert_eq!(stage.open_as(super::stage::identity("c")), Err(Reject::Draining));
    stage.ask(a, "call:leave", json!({ "callId": call })).unwrap();
}

#[test]
fn all_sessions_together_are_bounded() {
    let limits = Limits { replay_total_bytes: 8_000, ..Limits::default() };
    let mut stage = Stage::with(Config { limits, ..Config::default() });
    let (a, b, call, ready) = call(&mut stage);
    let seen = stage.last_seq(a);
    // The stage checks the bound after every input.
    for n in 0..60 {
        let toggle = json!({ "callId": call, "enabled": n % 2 == 1 });
        let _ = stage.ask(b, "call:toggle-audio", toggle);
    }
    assert_eq!(stage.resume("a", &ready, seen).resumption, Some(Resumption::Beyond));
}
