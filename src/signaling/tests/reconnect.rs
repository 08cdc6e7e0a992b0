//! Lost connections: a drop is not a hang-up.

use serde_json::json;

use super::stage::{Stage, code, sdp};
use crate::signaling::*;

const CANDIDATE: &str = "candidate:1 1 udp 2122260223 192.0.2.1 54400 typ host";

#[test]
fn a_reconnect_within_the_grace_takes_the_call_up_again() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.close(a);
    let sent = stage.signal(b, &call, json!({ "type": "ice-candidate", "candidate": CANDIDATE })).unwrap();
    assert_eq!(sent, json!({ "delivered": false, "queued": true }));
    stage.pass(20.0);
    let a = stage.open("a");
    let ready = stage.expect(a, "session:ready");
    assert_eq!(ready["activeCalls"][0]["participants"][0]["state"], "grace");
    let ack = stage.join(a, &call);
    assert_eq!(
        (&ack["callSession"]["status"], &ack["callSession"]["mode"]),
        (&json!("active"), &json!("p2p"))
    );
    assert_eq!(stage.names(a), ["call:signal", "call:state"], "exactly what was missed, then the state");
    assert_eq!(stage.record(&call).participants[0].reconnects, 1);
    stage.pass(60.0);
    assert_eq!(stage.hub.running(), 1);
    stage.clear();
    stage.signal(b, &call, json!({ "type": "renegotiate" })).unwrap();
    assert_eq!(stage.names(a), ["call:signal"]);
}

#[test]
fn without_an_ack_the_join_comes_before_what_waited() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.close(a);
    stage.signal(b, &call, json!({ "type": "ice-candidate", "candidate": CANDIDATE })).unwrap();
    let a = stage.open("a");
    stage.clear();
    stage.send(a, "call:join", json!({ "callId": call }));
    assert_eq!(stage.names(a), ["call:join", "call:signal", "call:state"]);
}

#[test]
fn a_short_loss_is_nobody_elses_business() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.close(a);
    stage.pass(2.9);
    let a = stage.open("a");
    stage.join(a, &call);
    stage.pass(10.0);
    assert!(stage.names(b).is_empty());
}

#[test]
fn a_longer_loss_is_shown_and_its_end_too() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.close(a);
    stage.pass(3.1);
    let lost = stage.expect(b, "call:participant-state");
    assert_eq!((&lost["userId"], &lost["state"]), (&json!("a"), &json!("reconnecting")));
    let a = stage.open("a");
    stage.join(a, &call);
    assert_eq!(stage.expect(b, "call:participant-state")["state"], "connected");
    assert!(stage.names(b).is_empty());
}

#[test]
fn a_spent_grace_ends_a_call_of_two() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.close(a);
    stage.pass(29.9);
    assert_eq!(stage.hub.running(), 1);
    stage.pass(0.2);
    assert_eq!(stage.expect(b, "call:participant-left")["reason"], "connectionLost");
    let ended = stage.expect(b, "call:ended");
    assert_eq!((&ended["reason"], &ended["endedBy"]), (&json!("connectionLost"), &json!(null)));
    let record = stage.record(&call);
    assert_eq!((record.participants[0].state, record.duration_s), ("lost", Some(30)));
    let a = stage.open("a");
    assert_eq!(code(stage.ask(a, "call:join", json!({ "callId": call }))), "CALL_ENDED");
}

#[test]
fn the_grace_is_longer_for_a_user_who_is_there_with_another_session() {
    let mut stage = Stage::new();
    let (a, _b, call) = stage.active();
    stage.close(a);
    stage.pass(10.0);
    let a = stage.open("a");
    stage.pass(75.0);
    assert_eq!(stage.hub.running(), 1);
    stage.join(a, &call);
    stage.close(a);
    stage.pass(31.0);
    assert_eq!(stage.hub.running(), 0);
}

#[test]
fn the_longer_grace_ends_too() {
    let mut stage = Stage::new();
    let (a, b, _) = stage.active();
    let idle = stage.open("a");
    stage.close(a);
    stage.clear();
    stage.pass(91.0);
    assert_eq!(stage.expect(b, "call:ended")["reason"], "connectionLost");
    assert_eq!(stage.names(idle), ["call:ended"], "the user learns of it where it can");
}

#[test]
fn a_call_whose_connections_are_all_lost_is_reconnecting() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.close(a);
    assert_eq!(stage.record(&call).status, "active");
    stage.close(b);
    assert_eq!(stage.record(&call).status, "reconnecting");
    let b = stage.open("b");
    stage.join(b, &call);
    assert_eq!(stage.record(&call).status, "active");
    stage.pass(31.0);
    assert_eq!(stage.record(&call).end_reason, Some("connectionLost"));
}

#[test]
fn a_grace_spent_in_a_group_is_the_loss_of_one() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    stage.close(a);
    stage.pass(31.0);
    for session in [b, c] {
        assert_eq!(stage.names(session), ["call:participant-state", "call:participant-left"]);
    }
    assert_eq!(stage.hub.running(), 1);
    let a = stage.open("a");
    stage.join(a, &call);
    assert_eq!(stage.record(&call).participants[0].left_at, None);
}

#[test]
fn a_caller_who_is_gone_while_it_rings_cancels() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.clear();
    stage.close(a);
    stage.pass(9.9);
    assert!(stage.names(b).is_empty());
    stage.pass(0.2);
    assert_eq!(stage.names(b), ["call:missed", "call:ended"]);
    assert_eq!(stage.record(&call).status, "cancelled");
}

#[test]
fn a_caller_who_comes_back_in_time_still_calls() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.close(a);
    stage.pass(8.0);
    let a = stage.open("a");
    assert_eq!(stage.join(a, &call)["callSession"]["status"], "ringing");
    stage.pass(20.0);
    stage.clear();
    stage.join(b, &call);
    assert_eq!(stage.names(a), ["call:participant-joined"]);
}

#[test]
fn a_caller_who_is_away_at_the_answer_gets_the_full_grace() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.close(a);
    stage.pass(8.0);
    stage.join(b, &call);
    stage.signal(b, &call, json!({ "type": "offer", "sdp": sdp("1") })).unwrap();
    stage.pass(20.0);
    let a = stage.open("a");
    stage.clear();
    stage.join(a, &call);
    assert_eq!(stage.names(a), ["call:signal", "call:state"]);
}

#[test]
fn a_callee_who_reconnects_while_it_rings_rings_again() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.close(b);
    let b = stage.open("b");
    assert_eq!(stage.expect(b, "call:initiated")["callId"], call);
    stage.join(b, &call);
    stage.expect(a, "call:participant-joined");
}

#[test]
fn a_new_connection_takes_over_from_one_that_is_dead_but_open() {
    let mut stage = Stage::new();
    let (a_old, b, call) = stage.active();
    stage.pass(5.0);
    let a = stage.open("a");
    assert_eq!(code(stage.signal(a, &call, json!({ "type": "bye" }))), "NOT_IN_CALL");
    stage.clear();
    stage.join(a, &call);
    assert_eq!(stage.names(a_old), ["call:already-answered"]);
    assert_eq!(stage.names(a), ["call:state"]);
    assert!(stage.names(b).is_empty());
    stage.clear();
    stage.signal(b, &call, json!({ "type": "renegotiate" })).unwrap();
    assert_eq!((stage.names(a), stage.names(a_old)), (vec!["call:signal"], vec![]));
    // What becomes of the old connection is of no consequence.
    stage.close(a_old);
    stage.pass(60.0);
    assert_eq!(stage.hub.running(), 1);
}

#[test]
fn a_new_connection_may_hang_up_for_a_dead_one() {
    let mut stage = Stage::new();
    let (_, b, call) = stage.active();
    stage.pass(5.0);
    let a = stage.open("a");
    stage.ask(a, "call:leave", json!({ "callId": call })).unwrap();
    assert_eq!(stage.expect(b, "call:ended")["endedBy"], "a");
    assert_eq!(stage.expect(a, "call:ended")["reason"], "completed");
}

#[test]
fn another_device_may_take_up_a_call_whose_device_is_lost() {
    let mut stage = Stage::new();
    let (a, b1) = (stage.open("a"), stage.open("b"));
    let b2 = stage.open("b");
    let call = stage.call(a, &["b"]);
    stage.join(b1, &call);
    stage.close(b1);
    stage.join(b2, &call);
    stage.negotiate(&call, (b2, "b"), (a, "a"));
    assert_eq!(stage.record(&call).status, "active");
}

#[test]
fn a_lost_participant_hears_of_the_end_on_its_other_sessions() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.close(a);
    let a = stage.open("a");
    stage.ask(b, "call:leave", json!({ "callId": call })).unwrap();
    assert_eq!(stage.expect(a, "call:ended")["endedBy"], "b");
}

#[test]
fn an_expired_token_starts_and_joins_nothing_but_keeps_its_call() {
    let mut stage = Stage::new();
    let mut short = super::stage::identity("a");
    short.expires_unix_ms = Some(stage.now.unix_ms + 10_000);
    let (a, b) = (stage.open_as(short.clone()).unwrap(), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.join(b, &call);
    stage.negotiate(&call, (b, "b"), (a, "a"));
    stage.pass(9.999);
    stage.ask(a, "call:toggle-audio", json!({ "callId": call, "enabled": false })).unwrap();
    stage.pass(0.001);
    assert_eq!(code(stage.ask(a, "call:initiate", json!({ "to": "c", "type": "audio" }))), "TOKEN_EXPIRED");
    stage.signal(a, &call, json!({ "type": "renegotiate" })).unwrap();
    stage.close(a);
    let a = stage.open_as(short).unwrap();
    stage.join(a, &call);
    let c = stage.open("c");
    let other = stage.call(c, &["a"]);
    assert_eq!(code(stage.ask(a, "call:join", json!({ "callId": other }))), "TOKEN_EXPIRED");
    assert_eq!(stage.count(|event| matches!(event, Event::Rejected { code: "TOKEN_EXPIRED" })), 2);
}

#[test]
fn timers_that_come_late_all_count_and_say_only_what_still_matters() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.close(a);
    stage.oversleep(40.0);
    assert_eq!(stage.names(b), ["call:participant-left", "call:ended"]);
    assert_eq!(stage.record(&call).end_reason, Some("connectionLost"));
}
