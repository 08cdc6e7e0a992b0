//! Bugs that others have shipped: one test for each, named after what must hold instead. Those about a decline, a hang-up
//! in a group, a swept buffer, the missed call of others, REST, resume keys and credentials stand with their subject.

use serde_json::{Value, json};

use super::stage::{Stage, code, sdp};
use crate::signaling::*;

#[test]
fn everybody_in_a_group_negotiates_with_everybody_and_not_only_with_the_initiator() {
    let mut stage = Stage::new();
    let (_, b, c, call) = stage.trio();
    let offer = json!({ "type": "offer", "to": "c", "sdp": sdp("again") });
    stage.signal(b, &call, offer).unwrap();
    let arrived = stage.expect(c, "call:signal");
    assert_eq!((&arrived["from"], &arrived["signal"]["to"]), (&json!("b"), &json!("c")));
}

#[test]
fn a_replayed_offer_is_not_accepted_twice_and_a_stale_one_never_arrives() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    let offer = |tag: &str| json!({ "type": "offer", "sdp": sdp(tag) });
    stage.signal(a, &call, offer("old")).unwrap();
    stage.signal(a, &call, offer("new")).unwrap();
    stage.signal(a, &call, offer("new")).unwrap();
    stage.clear();
    stage.join(b, &call);
    let arrived = stage.expect(b, "call:signal");
    assert_eq!(arrived["signal"]["sdp"], sdp("new"));
    stage.signal(a, &call, offer("new")).unwrap();
    assert!(stage.names(b).is_empty());
    // The answer to an offer of a call that is over goes nowhere.
    stage.ask(a, "call:leave", json!({ "callId": call })).unwrap();
    let answer = json!({ "type": "answer", "sdp": sdp("late") });
    assert_eq!(code(stage.signal(b, &call, answer)), "CALL_ENDED");
}

#[test]
fn a_decline_before_any_join_is_a_decline() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.ask(b, "call:decline", json!({ "callId": call })).unwrap();
    stage.expect(a, "call:declined");
    assert_eq!(stage.expect(a, "call:ended")["status"], "rejected");
    let who = &stage.record(&call).participants[1];
    assert_eq!((who.state, who.joined_at, who.left_at), ("declined", None, None));
}

#[test]
fn those_gone_do_not_count_as_participants() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    let (d, e) = (stage.open("d"), stage.open("e"));
    for (session, user) in [(b, "d"), (c, "e")] {
        stage.ask(session, "call:leave", json!({ "callId": call })).unwrap();
        stage.ask(a, "call:invite", json!({ "callId": call, "to": user })).unwrap();
    }
    // Five have been in it, three at once; four is the limit.
    stage.join(d, &call);
    let joined = stage.join(e, &call);
    assert_eq!(joined["callSession"]["mode"], "mesh");
    assert_eq!(stage.record(&call).participants_peak, 3);
    stage.ask(d, "call:leave", json!({ "callId": call })).unwrap();
    let left: Vec<Value> = std::iter::from_fn(|| stage.take(a, "call:participant-left")).collect();
    assert_eq!(left.last().map(|event| &event["mode"]), Some(&json!("p2p")));
}

#[test]
fn a_switch_is_told_with_the_id_of_the_roster() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage
        .ask(
            a,
            "call:toggle-video",
            json!({ "callId": call, "enabled": false, "participantId": "b", "userId": "x" }),
        )
        .unwrap();
    let toggled = stage.expect(b, "call:media-toggled");
    let running = AdminCommand::ActiveCalls { user: None, limit: 1 };
    let shown = stage.admin(&Authority::Operator, running).unwrap();
    let roster = &shown["calls"][0]["participants"][0];
    assert_eq!((&toggled["participantId"], &toggled["userId"]), (&roster["id"], &roster["userId"]));
    assert_eq!(roster["isVideoEnabled"], false);
}

#[test]
fn no_client_chooses_how_a_call_has_ended() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    let leave = json!({ "callId": call, "reason": "completed", "status": "completed", "duration": 3600 });
    stage.ask(a, "call:leave", leave).unwrap();
    let ended = stage.expect(b, "call:ended");
    assert_eq!(
        (&ended["reason"], &ended["status"], &ended["duration"]),
        (&json!("cancelled"), &json!("cancelled"), &json!(0))
    );
    assert_eq!(stage.record(&call).end_reason, Some("cancelled"));
}

#[test]
fn an_error_is_an_object_with_a_code_and_a_message() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    stage.send(a, "call:join", json!({ "callId": "none" }));
    let error = stage.expect(a, "call:error");
    assert_eq!((&error["code"], &error["callId"]), (&json!("CALL_NOT_FOUND"), &json!("none")));
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    let refused = stage.ask(a, "call:join", json!({ "callId": "none" })).unwrap_err();
    assert_eq!(refused.to_json()["code"], "CALL_NOT_FOUND");
}
