//! Calls between two people.

use serde_json::json;

use super::stage::{Stage, code, identity, sdp};
use crate::signaling::*;

#[test]
fn the_golden_flow_without_acks() {
    let mut stage = Stage::new();
    let (a, b1, b2) = (stage.open("a"), stage.open("b"), stage.open("b"));
    for session in [a, b1, b2] {
        let ready = stage.expect(session, "session:ready");
        assert_eq!((&ready["resumed"], &ready["protocol"]), (&json!(false), &json!(1)));
        assert_eq!(ready["iceTtl"], 43_200);
    }
    stage.send(a, "call:initiate", json!({ "conversationId": "x", "to": "b", "type": "video" }));
    let own = stage.expect(a, "call:initiated");
    assert_eq!(
        (&own["self"], &own["conversationId"], &own["mode"]),
        (&json!(true), &json!("x"), &json!("p2p"))
    );
    let call = own["callId"].as_str().unwrap().to_owned();
    assert_eq!(own["iceServers"][1]["username"], format!("a/{call}"));
    assert_eq!(stage.expect(a, "call:ringing")["userId"], "b");
    for session in [b1, b2] {
        let ring = stage.expect(session, "call:initiated");
        assert_eq!(ring["initiator"]["displayName"], "Display a");
        assert_eq!((ring.get("self"), ring.get("iceServers"), ring.get("busy")), (None, None, None));
        assert_eq!(ring["expiresAt"], "2023-11-14T22:14:20.000Z");
    }
    stage.send(b1, "call:join", json!({ "callId": call }));
    let echo = stage.expect(b1, "call:join");
    assert_eq!((&echo["success"], &echo["callSession"]["status"]), (&json!(true), &json!("connecting")));
    assert_eq!(echo["iceServers"][1]["username"], format!("b/{call}"));
    let joined = stage.expect(a, "call:participant-joined");
    assert_eq!((&joined["participant"]["userId"], &joined["polite"]), (&json!("b"), &json!(false)));
    assert_eq!(stage.expect(b2, "call:already-answered")["by"], "b");

    stage.send(a, "call:signal", json!({ "callId": call, "signal": { "type": "offer", "sdp": sdp("1") } }));
    let offer = stage.expect(b1, "call:signal");
    assert_eq!((&offer["from"], &offer["signal"]["from"]), (&json!("a"), &json!("a")));
    assert_eq!(offer["signal"]["sdp"], sdp("1"));
    stage.send(
        b1,
        "call:signal",
        json!({ "callId": call, "type": "answer", "signal": { "type": "answer", "sdp": sdp("2") } }),
    );
    assert_eq!(stage.expect(a, "call:signal")["signal"]["type"], "answer");
    let candidate = json!({ "callId": call, "type": "ice-candidate", "signal": { "candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host" } });
    stage.send(b1, "call:signal", candidate);
    assert_eq!(stage.expect(a, "call:signal")["type"], "ice-candidate");
    assert_eq!(stage.expect(a, "call:state")["call"]["status"], "active");

    stage.send(a, "call:toggle-audio", json!({ "callId": call, "enabled": false }));
    for session in [a, b1] {
        let toggled = stage.expect(session, "call:media-toggled");
        assert_eq!((&toggled["participantId"], &toggled["mediaType"]), (&json!("a"), &json!("audio")));
        assert_eq!(toggled["enabled"], false);
    }
    stage.pass(5.9);
    stage.send(a, "call:leave", json!({ "callId": call }));
    for session in [a, b1] {
        let ended = stage.expect(session, "call:ended");
        assert_eq!((&ended["duration"], &ended["endedBy"]), (&json!(5), &json!("a")));
        assert_eq!((&ended["reason"], &ended["status"]), (&json!("completed"), &json!("completed")));
    }
    assert!(stage.names(b2).is_empty());
    let record = stage.record(&call);
    assert_eq!((record.duration_s, record.end_reason), (Some(5), Some("completed")));
    assert!(record.ended_at.is_some() && record.answered_at.is_some() && record.ringing_at.is_some());
    assert!(!record.participants[0].audio && record.participants[0].connected_at.is_some());
    assert_eq!(
        stage.count(|event| matches!(event, Event::CallConnected { .. } | Event::CallAnswered { .. })),
        2
    );
}

#[test]
fn with_acks_the_join_is_not_echoed_and_the_initiator_still_hears_of_its_call() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    stage.clear();
    let ack = stage.ask(a, "call:initiate", json!({ "to": ["b"], "type": "audio", "msgId": "1" })).unwrap();
    assert_eq!((&ack["mode"], &ack["ringing"]), (&json!("p2p"), &json!(["b"])));
    assert_eq!((&ack["call"]["status"], ack.get("existing")), (&json!("ringing"), None));
    assert!(ack["ttl"].as_u64().unwrap() > 0 && ack["iceServers"].is_array());
    assert_eq!(stage.names(a), ["call:initiated", "call:ringing"]);
    let call = ack["callId"].as_str().unwrap();
    let ack = stage.join(b, call);
    assert_eq!(ack["callSession"]["callId"], call);
    assert!(ack.get("success").is_none());
    assert_eq!(stage.names(b), ["call:initiated"]);
}

#[test]
fn a_session_that_opens_while_its_user_is_rung_rings() {
    let mut stage = Stage::new();
    let (a, _b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.clear();
    let late = stage.open("b");
    assert_eq!(stage.names(late), ["session:ready", "call:initiated"]);
    let ready = stage.expect(late, "session:ready");
    assert_eq!(ready["activeCalls"][0]["callId"], call);
    assert!(stage.names(a).is_empty(), "the initiator hears of the first device only");
}

#[test]
fn a_joined_user_does_not_ring_on_a_new_session() {
    let mut stage = Stage::new();
    let (_, _, _) = stage.active();
    let late = stage.open("b");
    assert_eq!(stage.names(late), ["session:ready"]);
}

#[test]
fn a_decline_ends_the_ring_on_every_device() {
    let mut stage = Stage::new();
    let (a, b1, b2) = (stage.open("a"), stage.open("b"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.ask(b1, "call:decline", json!({ "callId": call, "reason": "completed" })).unwrap();
    for session in [a, b1, b2] {
        assert_eq!(stage.expect(session, "call:declined")["userId"], "b");
        let ended = stage.expect(session, "call:ended");
        assert_eq!((&ended["status"], &ended["reason"]), (&json!("rejected"), &json!("rejected")));
        assert_eq!(ended["duration"], 0);
        assert!(stage.take(session, "call:missed").is_none());
    }
    let callee = &stage.record(&call).participants[1];
    assert_eq!((callee.state, callee.joined_at, callee.left_at), ("declined", None, None));
    assert_eq!(stage.record(&call).duration_s, None);
}

#[test]
fn a_leave_of_an_invitee_is_a_decline() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.ask(b, "call:leave", json!({ "callId": call })).unwrap();
    assert_eq!(stage.expect(a, "call:ended")["reason"], "rejected");
}

#[test]
fn a_caller_who_gives_up_leaves_a_missed_call() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.clear();
    // A client does not choose how a call ended.
    stage.ask(a, "call:leave", json!({ "callId": call, "reason": "completed" })).unwrap();
    assert_eq!(stage.names(b), ["call:missed", "call:ended"]);
    assert_eq!(stage.expect(b, "call:missed")["initiator"]["userId"], "a");
    assert_eq!(stage.expect(a, "call:ended")["reason"], "cancelled");
    let record = stage.record(&call);
    assert_eq!((record.status, record.participants[1].state), ("cancelled", "missed"));
}

#[test]
fn a_ring_ends_by_itself() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.clear();
    stage.pass(59.9);
    assert!(stage.names(b).is_empty());
    stage.pass(0.2);
    assert_eq!(stage.names(b), ["call:missed", "call:ended"]);
    let ended = stage.expect(a, "call:ended");
    assert_eq!((&ended["reason"], &ended["endedBy"]), (&json!("missed"), &json!(null)));
    assert_eq!(stage.record(&call).status, "missed");
}

#[test]
fn a_callers_ring_timeout_is_kept_within_its_bounds() {
    for (asked, rings) in [(1, 10.0), (20_000, 20.0), (3_600_000, 120.0)] {
        let mut stage = Stage::new();
        let (a, _b) = (stage.open("a"), stage.open("b"));
        stage.ask(a, "call:initiate", json!({ "to": "b", "type": "audio", "ringTimeoutMs": asked })).unwrap();
        stage.pass(rings - 0.1);
        assert_eq!(stage.hub.running(), 1, "{asked}");
        stage.pass(0.2);
        assert_eq!(stage.hub.running(), 0, "{asked}");
    }
}

#[test]
fn an_accepted_call_without_an_answer_fails() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.join(b, &call);
    stage.signal(b, &call, json!({ "type": "offer", "sdp": sdp("1") })).unwrap();
    stage.pass(44.9);
    assert_eq!(stage.hub.running(), 1);
    stage.pass(0.2);
    let ended = stage.expect(a, "call:ended");
    assert_eq!((&ended["status"], &ended["reason"]), (&json!("failed"), &json!("negotiationTimeout")));
    assert_eq!(stage.record(&call).duration_s, Some(45));
}

#[test]
fn two_who_call_each_other_are_in_one_call() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.clear();
    let ack = stage.ask(b, "call:initiate", json!({ "to": "a", "type": "video" })).unwrap();
    assert_eq!((&ack["callId"], &ack["existing"]), (&json!(call), &json!(true)));
    assert_eq!(ack["call"]["status"], "connecting");
    assert_eq!(stage.names(a), ["call:participant-joined"]);
    assert_eq!(stage.hub.running(), 1);
    assert_eq!(stage.count(|event| matches!(event, Event::CallStarted { .. })), 1);
}

#[test]
fn a_second_call_of_a_pair_is_refused_with_the_id_of_the_first() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    for (session, to) in [(a, "b"), (b, "a")] {
        let refused = stage.ask(session, "call:initiate", json!({ "to": to, "type": "video" })).unwrap_err();
        assert_eq!(
            (refused.code(), refused.call_id()),
            ("CALL_ALREADY_ACTIVE", Some(&CallId(call.as_str().into())))
        );
        assert_eq!(refused.to_json()["callId"], call);
    }
}

#[test]
fn nobody_reachable_is_said_and_recorded() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    assert_eq!(code(stage.ask(a, "call:initiate", json!({ "to": "b", "type": "video" }))), "USER_OFFLINE");
    let record = stage.records.values().next().unwrap();
    assert_eq!((record.status, record.end_reason), ("missed", Some("offline")));
    assert_eq!(record.participants[1].state, "missed");
    assert_eq!(stage.count(|event| matches!(event, Event::CallEnded { answered: false, .. })), 1);
    assert_eq!(
        code(stage.ask(a, "call:initiate", json!({ "roomId": "r", "type": "video" }))),
        "USER_OFFLINE"
    );
    stage.close(a);
    stage.pass(90_000.0);
    assert!(stage.hub.is_empty());
}

#[test]
fn a_busy_callee_is_rung_and_everybody_knows() {
    let mut stage = Stage::new();
    let (_, b, _) = stage.active();
    let c = stage.open("c");
    let call = stage.call(c, &["b"]);
    assert_eq!(stage.expect(b, "call:initiated")["busy"], true);
    assert_eq!(stage.expect(c, "call:ringing")["busy"], true);
    stage.join(b, &call);
    assert_eq!(stage.hub.running(), 2);
}

#[test]
fn a_busy_callee_is_left_alone_where_the_policy_says_so() {
    let mut stage = Stage::with(Config { busy: BusyPolicy::Reject, ..Config::default() });
    let (_, b, first) = stage.active();
    let (c, _d) = (stage.open("c"), stage.open("d"));
    assert_eq!(code(stage.ask(c, "call:initiate", json!({ "to": "b", "type": "video" }))), "USER_BUSY");
    assert!(stage.names(b).is_empty());
    let busy = stage.records.values().find(|record| record.id.0.as_ref() != first).unwrap();
    assert_eq!((busy.status, busy.participants[1].state), ("busy", "busy"));
    let ack = stage.ask(c, "call:initiate", json!({ "to": ["b", "d"], "type": "video" })).unwrap();
    assert_eq!(ack["ringing"], json!(["d"]));
}

#[test]
fn either_side_ends_a_call_of_two() {
    for ender in [0, 1] {
        let mut stage = Stage::new();
        let (a, b, call) = stage.active();
        stage.ask([a, b][ender], "call:end", json!({ "callId": call })).unwrap();
        for session in [a, b] {
            let ended = stage.expect(session, "call:ended");
            assert_eq!(
                (&ended["reason"], &ended["endedBy"]),
                (&json!("completed"), &json!(["a", "b"][ender]))
            );
        }
    }
}

#[test]
fn an_end_before_the_answer_is_a_cancel_or_a_decline() {
    for (ender, status) in [(0, "cancelled"), (1, "rejected")] {
        let mut stage = Stage::new();
        let (a, b) = (stage.open("a"), stage.open("b"));
        let call = stage.call(a, &["b"]);
        stage.ask([a, b][ender], "call:end", json!({ "callId": call })).unwrap();
        assert_eq!(stage.record(&call).status, status);
    }
}

#[test]
fn what_comes_after_the_end_changes_nothing() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.ask(a, "call:leave", json!({ "callId": call })).unwrap();
    let rev = stage.record(&call).rev;
    stage.clear();
    for event in ["call:leave", "call:decline", "call:end"] {
        for session in [a, b] {
            assert_eq!(stage.ask(session, event, json!({ "callId": call })), Ok(json!({})));
        }
    }
    let refused = stage.ask(b, "call:join", json!({ "callId": call })).unwrap_err();
    assert_eq!((refused.code(), refused.call_id().is_some()), ("CALL_ENDED", true));
    assert_eq!(code(stage.signal(b, &call, json!({ "type": "bye" }))), "CALL_ENDED");
    assert_eq!(
        code(stage.ask(b, "call:toggle-audio", json!({ "callId": call, "enabled": true }))),
        "CALL_ENDED"
    );
    assert_eq!(stage.record(&call).rev, rev);
    assert!(stage.names(a).is_empty() && stage.names(b).is_empty());
    stage.pass(61.0);
    assert_eq!(code(stage.ask(a, "call:leave", json!({ "callId": call }))), "CALL_NOT_FOUND");
}

#[test]
fn a_call_does_not_outlive_the_longest_call() {
    let mut stage = Stage::new();
    let (a, _, call) = stage.active();
    stage.pass(12.0 * 3600.0 + 1.0);
    let ended = stage.expect(a, "call:ended");
    assert_eq!((&ended["reason"], &ended["status"]), (&json!("maxDuration"), &json!("completed")));
    assert_eq!(stage.record(&call).duration_s, Some(12 * 3600));
}

#[test]
fn only_one_device_of_a_user_joins() {
    let mut stage = Stage::new();
    let (a, b1, b2) = (stage.open("a"), stage.open("b"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.pass(1.0);
    stage.join(b1, &call);
    stage.clear();
    assert_eq!(code(stage.ask(b2, "call:join", json!({ "callId": call }))), "ALREADY_IN_CALL");
    // The second device says no, too late: the call of the first goes on.
    for event in ["call:decline", "call:leave"] {
        assert_eq!(stage.ask(b2, event, json!({ "callId": call })), Ok(json!({})));
    }
    assert_eq!(code(stage.signal(b2, &call, json!({ "type": "bye" }))), "NOT_IN_CALL");
    assert_eq!(
        code(stage.ask(b2, "call:toggle-video", json!({ "callId": call, "enabled": true }))),
        "NOT_IN_CALL"
    );
    stage.signal(a, &call, json!({ "type": "offer", "sdp": sdp("1") })).unwrap();
    assert_eq!((stage.names(b1), stage.names(b2)), (vec!["call:signal"], vec![]));
    assert_eq!(stage.hub.running(), 1);
}

#[test]
fn a_join_twice_is_a_join_once() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    let first = stage.join(b, &call);
    stage.clear();
    let second = stage.join(b, &call);
    assert_eq!(first["callSession"], second["callSession"]);
    assert!(stage.names(a).is_empty() && stage.names(b).is_empty());
    assert_eq!(stage.record(&call).participants[1].reconnects, 0);
}

#[test]
fn a_decline_after_the_join_is_a_conflict() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    for session in [a, b] {
        assert_eq!(
            code(stage.ask(session, "call:decline", json!({ "callId": call }))),
            "CALL_STATE_CONFLICT"
        );
    }
    assert_eq!(stage.hub.running(), 1);
}

#[test]
fn a_switch_sets_and_never_flips() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    let rev = |ack: serde_json::Value| ack["rev"].as_u64().unwrap();
    let first = rev(stage.ask(a, "call:toggle-video", json!({ "callId": call, "enabled": false })).unwrap());
    let second = rev(stage.ask(a, "call:toggle-video", json!({ "callId": call, "enabled": false })).unwrap());
    assert_eq!(first, second);
    assert_eq!(stage.names(b), ["call:media-toggled"]);
    stage.clear();
    stage.send(a, "call:toggle-video", json!({ "callId": call, "enabled": false }));
    assert_eq!((stage.names(a), stage.names(b)), (vec!["call:media-toggled"], vec![]));
}

#[test]
fn the_initial_media_are_what_the_settings_say() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let request = json!({ "to": "b", "type": "video", "settings": { "videoEnabled": false } });
    let call = stage.ask(a, "call:initiate", request).unwrap()["callId"].as_str().unwrap().to_owned();
    let settings = json!({ "callId": call, "settings": { "audioEnabled": false } });
    let session = stage.ask(b, "call:join", settings).unwrap()["callSession"].clone();
    let media = |i: usize| {
        let who = &session["participants"][i];
        (who["isAudioEnabled"].clone(), who["isVideoEnabled"].clone())
    };
    assert_eq!(media(0), (json!(true), json!(false)));
    assert_eq!(media(1), (json!(false), json!(true)));
}

#[test]
fn a_good_bye_hangs_up_and_frees_the_session() {
    let mut stage = Stage::new();
    let (a, b, _) = stage.active();
    assert_eq!(stage.ask(a, "session:bye", json!({})), Ok(json!({})));
    assert_eq!(stage.expect(b, "call:ended")["reason"], "completed");
    assert_eq!(code(stage.ask(a, "call:heartbeat", json!({}))), "NOT_AUTHENTICATED");
    stage.close(a);
    assert_eq!(stage.count(|event| matches!(event, Event::SessionState { to: None, .. })), 1);
}

#[test]
fn metadata_reach_the_callee_and_the_record() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let request = json!({ "to": "b", "type": "audio", "metadata": { "ticket": 7 } });
    let ack = stage.ask(a, "call:initiate", request).unwrap();
    assert_eq!(stage.expect(b, "call:initiated")["metadata"], json!({ "ticket": 7 }));
    let record = stage.record(ack["callId"].as_str().unwrap());
    assert_eq!(record.metadata.as_deref(), Some(r#"{"ticket":7}"#));
}

#[test]
fn a_drain_refuses_what_is_new_and_keeps_what_runs() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.drain();
    stage.drain();
    for session in [a, b] {
        let wait = stage.expect(session, "session:draining")["reconnectInMs"].as_u64().unwrap();
        assert!(wait < 10_000);
        assert!(stage.names(session).is_empty(), "told once");
    }
    assert_eq!(code(stage.ask(a, "call:initiate", json!({ "to": "c", "type": "audio" }))), "DRAINING");
    assert_eq!(stage.open_as(identity("c")).unwrap_err().code(), "DRAINING");
    stage.signal(a, &call, json!({ "type": "renegotiate" })).unwrap();
    assert_eq!(stage.names(b), ["call:signal"]);
}
