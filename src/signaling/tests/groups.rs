//! Calls of three and more, and calls to a room.

use serde_json::json;

use super::stage::{Stage, code, identity, sdp};
use crate::signaling::*;

#[test]
fn a_decline_by_one_does_not_end_the_ring_for_all() {
    let mut stage = Stage::new();
    let (a, b, c) = (stage.open("a"), stage.open("b"), stage.open("c"));
    let call = stage.call(a, &["b", "c"]);
    stage.clear();
    stage.ask(b, "call:decline", json!({ "callId": call })).unwrap();
    assert_eq!(stage.names(a), ["call:declined"]);
    assert_eq!(stage.names(c), Vec::<&str>::new());
    stage.join(c, &call);
    assert_eq!(stage.expect(a, "call:participant-joined")["mode"], "p2p");
    assert_eq!(stage.record(&call).status, "connecting");
}

#[test]
fn a_call_that_everybody_declines_is_rejected() {
    let mut stage = Stage::new();
    let (a, b, c) = (stage.open("a"), stage.open("b"), stage.open("c"));
    let call = stage.call(a, &["b", "c"]);
    stage.ask(b, "call:decline", json!({ "callId": call })).unwrap();
    stage.ask(c, "call:decline", json!({ "callId": call })).unwrap();
    assert_eq!(stage.expect(a, "call:ended")["reason"], "rejected");
}

#[test]
fn the_first_answer_does_not_silence_the_missed_call_of_others() {
    let mut stage = Stage::new();
    let (a, b, c) = (stage.open("a"), stage.open("b"), stage.open("c"));
    let call = stage.call(a, &["b", "c"]);
    stage.join(b, &call);
    stage.negotiate(&call, (b, "b"), (a, "a"));
    stage.clear();
    stage.pass(61.0);
    assert_eq!(stage.names(c), ["call:missed"]);
    for session in [a, b] {
        let left = stage.expect(session, "call:participant-left");
        assert_eq!((&left["userId"], &left["reason"]), (&json!("c"), &json!("missed")));
        assert_eq!(left["mode"], "p2p");
    }
    assert_eq!(stage.hub.running(), 1);
    assert_eq!(stage.record(&call).participants[2].state, "missed");
}

#[test]
fn a_newcomer_meets_everybody_and_is_the_polite_side() {
    let mut stage = Stage::new();
    let (a, b, c) = (stage.open("a"), stage.open("b"), stage.open("c"));
    let call = stage.call(a, &["b", "c"]);
    stage.join(b, &call);
    stage.clear();
    let session = stage.join(c, &call)["callSession"].clone();
    let there: Vec<_> =
        session["participants"].as_array().unwrap().iter().filter(|who| who["state"] == "joined").collect();
    assert_eq!((there.len(), &session["mode"]), (3, &json!("mesh")));
    for session in [a, b] {
        let joined = stage.expect(session, "call:participant-joined");
        assert_eq!(
            (&joined["userId"], &joined["mode"], &joined["polite"]),
            (&json!("c"), &json!("mesh"), &json!(false))
        );
    }
    // Not a star: the newcomer offers to both.
    for (user, session) in [("a", a), ("b", b)] {
        stage.signal(c, &call, json!({ "type": "offer", "to": user, "sdp": sdp(user) })).unwrap();
        assert_eq!(stage.expect(session, "call:signal")["signal"]["sdp"], sdp(user));
    }
    assert_eq!(stage.record(&call).participants_peak, 3);
}

#[test]
fn a_hang_up_in_a_group_ends_it_for_nobody_else() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    stage.ask(a, "call:leave", json!({ "callId": call })).unwrap();
    assert!(stage.names(a).is_empty());
    for session in [b, c] {
        assert_eq!(stage.names(session), ["call:participant-left"]);
        assert_eq!(stage.expect(session, "call:participant-left")["mode"], "p2p");
    }
    stage.send(b, "call:leave", json!({ "callId": call }));
    assert_eq!(stage.names(b), ["call:participant-left"], "without an ack, the event is the outcome");
    assert_eq!(stage.hub.running(), 1);
}

#[test]
fn the_last_of_a_group_waits_a_minute() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    stage.ask(a, "call:leave", json!({ "callId": call })).unwrap();
    stage.ask(b, "call:leave", json!({ "callId": call })).unwrap();
    stage.pass(59.0);
    stage.join(b, &call);
    stage.pass(120.0);
    assert_eq!(stage.hub.running(), 1, "someone came back");
    stage.ask(b, "call:leave", json!({ "callId": call })).unwrap();
    stage.pass(61.0);
    let ended = stage.expect(c, "call:ended");
    assert_eq!((&ended["reason"], &ended["endedBy"]), (&json!("completed"), &json!(null)));
    let record = stage.record(&call);
    assert_eq!((record.mode, record.participants_peak), ("mesh", 3));
}

#[test]
fn only_the_initiator_or_a_moderator_ends_a_group() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    assert_eq!(code(stage.ask(b, "call:end", json!({ "callId": call }))), "PERMISSION_DENIED");
    stage.ask(a, "call:end", json!({ "callId": call })).unwrap();
    for session in [a, b, c] {
        assert_eq!(stage.expect(session, "call:ended")["endedBy"], "a");
    }
    let mut moderator = identity("m");
    moderator.grants.moderate = true;
    let m = stage.open_as(moderator).unwrap();
    let call = stage.call(b, &["m", "c"]);
    stage.join(m, &call);
    stage.join(c, &call);
    stage.ask(m, "call:end", json!({ "callId": call })).unwrap();
    assert_eq!(stage.record(&call).ended_by, Some(UserId("m".into())));
}

#[test]
fn everybody_in_the_room_is_rung_once_a_device() {
    let mut stage = Stage::new();
    let (a1, a2, b1, b2, c) =
        (stage.open("a"), stage.open("a"), stage.open("b"), stage.open("b"), stage.open("c"));
    for session in [a1, a2, b1, c] {
        stage.ask(session, "room:join", json!({ "roomId": "r" })).unwrap();
    }
    let outsider = stage.open("d");
    stage.clear();
    let ack = stage.ask(a1, "call:initiate", json!({ "roomId": "r", "type": "video" })).unwrap();
    assert_eq!((&ack["ringing"], &ack["mode"]), (&json!(["b", "c"]), &json!("mesh")));
    for session in [b1, b2, c] {
        assert_eq!(stage.names(session), ["call:initiated"]);
    }
    assert!(stage.names(a2).is_empty() && stage.names(outsider).is_empty());
}

#[test]
fn a_room_has_one_running_call_and_its_members_may_join() {
    let mut stage = Stage::new();
    let (a, b, c) = (stage.open("a"), stage.open("b"), stage.open("c"));
    for session in [a, b] {
        stage.ask(session, "room:join", json!({ "roomId": "r" })).unwrap();
    }
    let ack = stage.ask(a, "call:initiate", json!({ "conversationId": "r", "type": "video" })).unwrap();
    let call = ack["callId"].as_str().unwrap().to_owned();
    stage.join(b, &call);
    assert_eq!(code(stage.ask(c, "call:join", json!({ "callId": call }))), "CALL_NOT_FOUND");
    let room = stage.ask(c, "room:join", json!({ "roomId": "r" })).unwrap();
    assert_eq!(room["activeCall"]["callId"], call);
    assert_eq!(room["members"].as_array().unwrap().len(), 3);
    let refused = stage.ask(c, "call:initiate", json!({ "roomId": "r", "type": "video" })).unwrap_err();
    assert_eq!((refused.code(), &refused.to_json()["callId"]), ("CALL_ALREADY_ACTIVE", &json!(call)));
    stage.clear();
    let joined = stage.join(c, &call);
    assert_eq!(joined["callSession"]["mode"], "mesh");
    for session in [a, b] {
        assert_eq!(stage.names(session), ["call:participant-joined"]);
    }
    stage.ask(a, "call:end", json!({ "callId": call })).unwrap();
    let again = stage.ask(c, "call:initiate", json!({ "roomId": "r", "type": "video" })).unwrap();
    assert_ne!(again["callId"], call);
}

#[test]
fn a_call_to_somebody_is_closed_to_the_rest_of_the_room() {
    let mut stage = Stage::new();
    let (a, b, c) = (stage.open("a"), stage.open("b"), stage.open("c"));
    for session in [a, b, c] {
        stage.ask(session, "room:join", json!({ "roomId": "r" })).unwrap();
    }
    let ack = stage.ask(a, "call:initiate", json!({ "roomId": "r", "to": "b", "type": "video" })).unwrap();
    assert_eq!(code(stage.ask(c, "call:join", json!({ "callId": ack["callId"] }))), "CALL_NOT_FOUND");
    stage.join(b, ack["callId"].as_str().unwrap());
}

#[test]
fn two_in_a_room_who_call_at_once_are_in_one_call() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    for session in [a, b] {
        stage.ask(session, "room:join", json!({ "roomId": "r" })).unwrap();
    }
    let request = json!({ "roomId": "r", "type": "video" });
    let first = stage.ask(a, "call:initiate", request.clone()).unwrap();
    let second = stage.ask(b, "call:initiate", request).unwrap();
    assert_eq!((&first["callId"], &second["existing"]), (&second["callId"], &json!(true)));
}

#[test]
fn a_full_call_admits_nobody_until_someone_leaves() {
    let mut stage = Stage::new();
    let sessions: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().map(|user| stage.open(user)).collect();
    for session in &sessions {
        stage.ask(*session, "room:join", json!({ "roomId": "r" })).unwrap();
    }
    let ack = stage.ask(sessions[0], "call:initiate", json!({ "roomId": "r", "type": "audio" })).unwrap();
    let call = ack["callId"].as_str().unwrap();
    for session in &sessions[1..4] {
        stage.join(*session, call);
    }
    let refused = stage.ask(sessions[4], "call:join", json!({ "callId": call }));
    assert_eq!(code(refused), "MAX_PARTICIPANTS_REACHED");
    // Those who are gone do not count.
    stage.ask(sessions[1], "call:leave", json!({ "callId": call })).unwrap();
    stage.join(sessions[4], call);
    assert_eq!(stage.record(call).participants_peak, 4);
    let refused = stage.ask(sessions[1], "call:join", json!({ "callId": call }));
    assert_eq!(code(refused), "MAX_PARTICIPANTS_REACHED");
}

#[test]
fn who_is_left_ringing_when_the_others_go_has_missed_the_call() {
    let mut stage = Stage::new();
    let (a, b, c) = (stage.open("a"), stage.open("b"), stage.open("c"));
    let call = stage.call(a, &["b", "c"]);
    stage.join(b, &call);
    stage.ask(b, "call:leave", json!({ "callId": call })).unwrap();
    assert_eq!(stage.hub.running(), 1, "c may still answer");
    stage.pass(50.0);
    assert_eq!(stage.hub.running(), 1, "b's missing answer is no failure of a and c");
    stage.clear();
    stage.ask(a, "call:leave", json!({ "callId": call })).unwrap();
    assert_eq!(stage.names(c), ["call:missed", "call:ended"]);
    assert_eq!(stage.record(&call).status, "completed");
}

#[test]
fn an_offline_callee_of_a_group_rings_when_it_comes() {
    let mut stage = Stage::new();
    let (a, _b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b", "c"]);
    let c = stage.open("c");
    assert_eq!(stage.expect(c, "call:initiated")["callId"], call);
    assert_eq!(stage.record(&call).participants[2].state, "ringing");
    assert_eq!(stage.record(&call).participants[2].invited_at, stage.record(&call).created_at);
}

#[test]
fn a_signal_without_a_target_needs_a_call_of_two() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    assert_eq!(code(stage.signal(a, &call, json!({ "type": "renegotiate" }))), "TARGET_REQUIRED");
    stage.ask(c, "call:leave", json!({ "callId": call })).unwrap();
    stage.clear();
    stage.signal(a, &call, json!({ "type": "renegotiate" })).unwrap();
    assert_eq!(stage.names(b), ["call:signal"]);
    assert_eq!(code(stage.signal(a, &call, json!({ "type": "bye", "to": "c" }))), "TARGET_NOT_FOUND");
}

#[test]
fn a_strangers_call_in_a_conversation_keeps_nobody_from_calling() {
    let mut stage = Stage::new();
    let (a, _b, x, y) = (stage.open("a"), stage.open("b"), stage.open("x"), stage.open("y"));
    stage.ask(y, "room:join", json!({ "roomId": "a-b" })).unwrap();
    stage.ask(x, "call:initiate", json!({ "roomId": "a-b", "type": "audio" })).unwrap();
    let z = stage.open("z");
    stage.ask(z, "call:initiate", json!({ "roomId": "a-b", "to": "a", "type": "audio" })).unwrap();
    stage.ask(a, "call:initiate", json!({ "roomId": "a-b", "to": "b", "type": "audio" })).unwrap();
}

#[test]
fn somebody_called_in_a_conversation_who_calls_the_same_people_is_pointed_to_that_call() {
    let mut stage = Stage::new();
    let (a, b, _c) = (stage.open("a"), stage.open("b"), stage.open("c"));
    let request = |to: &[&str]| json!({ "conversationId": "x", "to": to, "type": "audio" });
    let ack = stage.ask(a, "call:initiate", request(&["b", "c"])).unwrap();
    let refused = stage.ask(b, "call:initiate", request(&["c"])).unwrap_err().to_json();
    assert_eq!((&refused["code"], &refused["callId"]), (&json!("CALL_ALREADY_ACTIVE"), &ack["callId"]));
}

#[test]
fn one_of_several_who_are_rung_cannot_end_the_call_for_all() {
    let mut stage = Stage::new();
    let (a, b, c) = (stage.open("a"), stage.open("b"), stage.open("c"));
    let call = stage.call(a, &["b", "c"]);
    assert_eq!(code(stage.ask(b, "call:end", json!({ "callId": call }))), "PERMISSION_DENIED");
    stage.join(b, &call);
    assert_eq!(code(stage.ask(b, "call:end", json!({ "callId": call }))), "PERMISSION_DENIED");
    stage.ask(c, "call:decline", json!({ "callId": call })).unwrap();
    assert_eq!(code(stage.ask(c, "call:end", json!({ "callId": call }))), "NOT_IN_CALL");
    // Two are left: now it is theirs alone.
    stage.ask(b, "call:end", json!({ "callId": call })).unwrap();
}

#[test]
fn whose_connection_is_lost_for_a_moment_stays_in_its_room_and_rings_when_it_is_back() {
    let mut stage = Stage::new();
    let (a, b, c) = (stage.open("a"), stage.open("b"), stage.open("c"));
    for session in [a, b, c] {
        stage.ask(session, "room:join", json!({ "roomId": "r" })).unwrap();
    }
    let (ready, seen) = (stage.expect(b, "session:ready"), stage.last_seq(b));
    stage.close(b);
    let ack = stage.ask(a, "call:initiate", json!({ "roomId": "r", "type": "audio" })).unwrap();
    assert_eq!(ack["ringing"], json!(["c"]));
    assert_eq!(ack["call"]["participants"].as_array().map(Vec::len), Some(3));
    let b = stage.resume("b", &ready, seen).session;
    stage.expect(b, "call:initiated");
    assert_eq!(stage.expect(a, "call:ringing")["userId"], "c");
    assert_eq!(stage.expect(a, "call:ringing")["userId"], "b");
}

#[test]
fn a_call_into_a_room_whose_others_are_all_away_reaches_nobody() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    for session in [a, b] {
        stage.ask(session, "room:join", json!({ "roomId": "r" })).unwrap();
    }
    stage.close(b);
    let refused = stage.ask(a, "call:initiate", json!({ "roomId": "r", "type": "audio" }));
    assert_eq!(code(refused), "USER_OFFLINE");
    let started = stage.events.iter().filter(|event| matches!(event, Event::CallStarted { .. })).count();
    let ended = stage.events.iter().filter(|event| matches!(event, Event::CallEnded { .. })).count();
    assert_eq!((started, ended), (1, 1), "it counts as started and as ended");
}
