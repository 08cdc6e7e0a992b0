//! Strangers, grants and what a session may see.

use serde_json::json;

use super::stage::{Stage, code, identity, sdp};
use crate::signaling::*;

#[test]
fn to_a_stranger_a_call_does_not_exist() {
    let mut stage = Stage::new();
    let (_, _, call) = stage.active();
    let x = stage.open("x");
    let requests = [
        ("call:join", json!({ "callId": call })),
        ("call:leave", json!({ "callId": call })),
        ("call:decline", json!({ "callId": call })),
        ("call:end", json!({ "callId": call })),
        ("call:toggle-audio", json!({ "callId": call, "enabled": true })),
        ("call:request-ice-servers", json!({ "callId": call })),
        ("call:signal", json!({ "callId": call, "signal": { "type": "offer", "to": "a", "sdp": sdp("1") } })),
        ("call:signal", json!({ "callId": call, "signal": { "type": "ice-candidate", "candidate": "" } })),
    ];
    for (event, payload) in requests {
        let real = stage.ask(x, event, payload.clone()).unwrap_err();
        let mut absent = payload;
        absent["callId"] = json!("0123456789abcdef0123456789abcdef");
        assert_eq!(real, stage.ask(x, event, absent).unwrap_err(), "{event}");
        assert_eq!(real.code(), "CALL_NOT_FOUND", "{event}");
    }
    assert_eq!(stage.hub.running(), 1);
}

#[test]
fn to_a_stranger_an_ended_call_does_not_exist_either() {
    let mut stage = Stage::new();
    let (a, _, call) = stage.active();
    stage.ask(a, "call:leave", json!({ "callId": call })).unwrap();
    let x = stage.open("x");
    assert_eq!(code(stage.ask(x, "call:join", json!({ "callId": call }))), "CALL_NOT_FOUND");
    assert_eq!(code(stage.ask(x, "call:leave", json!({ "callId": call }))), "CALL_NOT_FOUND");
}

#[test]
fn an_invitee_takes_part_only_after_its_join() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    assert_eq!(code(stage.signal(b, &call, json!({ "type": "bye" }))), "NOT_IN_CALL");
    let toggle = json!({ "callId": call, "enabled": false });
    assert_eq!(code(stage.ask(b, "call:toggle-audio", toggle)), "NOT_IN_CALL");
    assert_eq!(code(stage.ask(b, "call:request-ice-servers", json!({ "callId": call }))), "NOT_IN_CALL");
}

type Revoke = fn(&mut Grants);

#[test]
fn every_grant_is_needed_for_what_it_grants() {
    let cases: [(Revoke, &str, bool); 6] = [
        (|grants| grants.initiate = false, "video", false),
        (|grants| grants.initiate = false, "audio", false),
        (|grants| grants.video = false, "video", false),
        (|grants| grants.video = false, "audio", true),
        (|grants| grants.join = false, "video", true),
        (|grants| grants.rooms = Some(vec!["r".into()]), "video", false),
    ];
    for (at, (revoke, kind, allowed)) in cases.into_iter().enumerate() {
        let mut stage = Stage::new();
        let mut limited = identity("a");
        revoke(&mut limited.grants);
        let (a, _b) = (stage.open_as(limited).unwrap(), stage.open("b"));
        let outcome = stage.ask(a, "call:initiate", json!({ "to": "b", "type": kind }));
        match allowed {
            true => assert!(outcome.is_ok(), "case {at}"),
            false => assert_eq!(code(outcome), "PERMISSION_DENIED", "case {at}"),
        }
    }
}

#[test]
fn a_join_needs_the_grants_of_a_join() {
    let cases: [(Revoke, &str, bool); 4] = [
        (|grants| grants.join = false, "audio", false),
        (|grants| grants.video = false, "video", false),
        (|grants| grants.video = false, "audio", true),
        (|grants| grants.rooms = Some(vec!["other".into()]), "audio", false),
    ];
    for (at, (revoke, kind, allowed)) in cases.into_iter().enumerate() {
        let mut stage = Stage::new();
        let mut limited = identity("b");
        revoke(&mut limited.grants);
        let (a, b) = (stage.open("a"), stage.open_as(limited).unwrap());
        let ack = stage.ask(a, "call:initiate", json!({ "roomId": "r", "to": "b", "type": kind })).unwrap();
        let outcome = stage.ask(b, "call:join", json!({ "callId": ack["callId"] }));
        match allowed {
            true => assert!(outcome.is_ok(), "case {at}"),
            false => assert_eq!(code(outcome), "PERMISSION_DENIED", "case {at}"),
        }
    }
}

#[test]
fn a_token_for_one_room_opens_that_room_only() {
    let mut stage = Stage::new();
    let mut limited = identity("a");
    limited.grants.rooms = Some(vec!["r".into()]);
    let (a, b) = (stage.open_as(limited).unwrap(), stage.open("b"));
    stage.ask(a, "room:join", json!({ "roomId": "r" })).unwrap();
    assert_eq!(code(stage.ask(a, "room:join", json!({ "roomId": "other" }))), "PERMISSION_DENIED");
    stage.ask(b, "room:join", json!({ "roomId": "r" })).unwrap();
    stage.ask(a, "call:initiate", json!({ "roomId": "r", "type": "video" })).unwrap();
    let outside = json!({ "roomId": "other", "to": "b", "type": "video" });
    assert_eq!(code(stage.ask(a, "call:initiate", outside)), "PERMISSION_DENIED");
}

#[test]
fn without_the_video_grant_a_camera_stays_off() {
    let mut stage = Stage::new();
    let mut limited = identity("a");
    limited.grants.video = false;
    let (a, _b) = (stage.open_as(limited).unwrap(), stage.open("b"));
    let ack = stage.ask(a, "call:initiate", json!({ "to": "b", "type": "audio" })).unwrap();
    let on = json!({ "callId": ack["callId"], "enabled": true });
    assert_eq!(code(stage.ask(a, "call:toggle-video", on.clone())), "PERMISSION_DENIED");
    stage.ask(a, "call:toggle-audio", on).unwrap();
}

#[test]
fn without_the_relay_grant_there_is_no_turn_server() {
    let mut stage = Stage::new();
    let mut limited = identity("a");
    limited.grants.relay = false;
    let a = stage.open_as(limited).unwrap();
    assert_eq!(stage.expect(a, "session:ready")["iceServers"], json!([{ "urls": ["stun:test"] }]));
    let fresh = stage.ask(a, "call:request-ice-servers", json!({})).unwrap();
    assert_eq!(fresh["iceServers"].as_array().unwrap().len(), 1);
}

#[test]
fn fresh_ice_servers_are_bound_to_the_call_they_are_for() {
    let mut stage = Stage::new();
    let (a, _, call) = stage.active();
    let fresh = stage.ask(a, "call:request-ice-servers", json!({ "callId": call })).unwrap();
    assert_eq!(fresh["iceServers"][1]["username"], format!("a/{call}"));
    stage.send(a, "call:request-ice-servers", json!({}));
    assert_eq!(stage.expect(a, "call:ice-servers-refreshed")["iceServers"][1]["username"], "a/-");
    assert!(stage.count(|event| matches!(event, Event::IceMinted { kind: "session" })) > 0);
}

#[test]
fn a_caller_cannot_call_itself() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    for to in [json!("a"), json!(["b", "a"])] {
        let outcome = stage.ask(a, "call:initiate", json!({ "to": to, "type": "audio" }));
        assert_eq!(code(outcome), "VALIDATION_ERROR");
    }
}

#[test]
fn a_request_of_a_session_that_is_gone_is_not_authenticated() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    stage.close(a);
    assert_eq!(code(stage.ask(a, "room:join", json!({ "roomId": "r" }))), "NOT_AUTHENTICATED");
    stage.send(a, "room:join", json!({ "roomId": "r" }));
    stage.close(a);
}

#[test]
fn where_the_relay_is_forced_every_list_of_servers_says_so() {
    let mut stage = Stage::with(Config { force_relay: true, ..Config::default() });
    let mut limited = identity("d");
    limited.grants.relay = false;
    let (a, b, c, d) = (stage.open("a"), stage.open("b"), stage.open("c"), stage.open_as(limited).unwrap());
    assert_eq!(stage.expect(a, "session:ready")["iceTransportPolicy"], "relay");
    assert_eq!(
        stage.expect(d, "session:ready").get("iceTransportPolicy"),
        None,
        "it would have nothing left"
    );
    let ack = stage.ask(a, "call:initiate", json!({ "to": "b", "type": "audio" })).unwrap();
    assert_eq!(ack["iceTransportPolicy"], "relay");
    assert_eq!(stage.expect(a, "call:initiated")["iceTransportPolicy"], "relay");
    let call = json!({ "callId": ack["callId"] });
    let joined = stage.ask(b, "call:join", call.clone()).unwrap();
    assert_eq!(joined["iceTransportPolicy"], "relay");
    let fresh = stage.ask(b, "call:request-ice-servers", call).unwrap();
    assert_eq!(fresh["iceTransportPolicy"], "relay");
    stage.pass(9.0 * 3600.0);
    // Two who call each other: the second call is the answer.
    stage.ask(c, "call:initiate", json!({ "to": "d", "type": "audio" })).unwrap();
    let answer = stage.ask(d, "call:initiate", json!({ "to": "c", "type": "audio" })).unwrap();
    assert_eq!((&answer["existing"], answer.get("iceTransportPolicy")), (&json!(true), None));
    assert_eq!(answer["call"]["participants"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_client_is_told_how_much_it_may_send() {
    let mut stage = Stage::new();
    let mut slow = identity("slow");
    slow.grants.max_kbps = Some(300);
    let (slow, free) = (stage.open_as(slow).unwrap(), stage.open("free"));
    assert_eq!(stage.expect(slow, "session:ready")["limits"]["maxKbps"], 300);
    assert_eq!(stage.expect(free, "session:ready")["limits"].get("maxKbps"), None);
}
