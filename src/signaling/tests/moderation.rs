//! Acting on others: ranks on both sides.

use std::time::Duration;

use serde_json::{Value, json};

use super::stage::{Stage, code, identity};
use crate::signaling::*;

fn moderator(user: &str) -> Identity {
    let mut identity = identity(user);
    identity.grants.moderate = true;
    identity
}

fn kick(stage: &mut Stage, by: SessionId, call: &str, user: &str) -> Result<Value, Reject> {
    stage.ask(by, "call:kick", json!({ "callId": call, "participantId": user }))
}

#[test]
fn a_kick_is_broadcast_and_ends_only_the_part_of_the_one_who_was_kicked() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    kick(&mut stage, a, &call, "b").unwrap();
    assert_eq!(stage.expect(b, "call:kicked")["by"], "a");
    for session in [a, c] {
        let left = stage.expect(session, "call:participant-left");
        assert_eq!((&left["userId"], &left["reason"]), (&json!("b"), &json!("kicked")));
    }
    assert_eq!(stage.record(&call).participants[1].state, "kicked");
    assert_eq!(code(stage.signal(b, &call, json!({ "type": "bye", "to": "a" }))), "NOT_IN_CALL");
    assert_eq!(code(stage.ask(b, "call:join", json!({ "callId": call }))), "PERMISSION_DENIED");
    assert_eq!(stage.hub.running(), 1);
    // Unless invited again.
    stage.ask(a, "call:invite", json!({ "callId": call, "to": ["b"] })).unwrap();
    stage.expect(b, "call:initiated");
    stage.join(b, &call);
}

#[test]
fn a_ban_is_for_good() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    let ban = json!({ "callId": call, "participantId": "b", "ban": true });
    assert_eq!(code(stage.ask(c, "call:kick", ban.clone())), "PERMISSION_DENIED");
    stage.ask(a, "call:kick", ban).unwrap();
    assert_eq!(stage.expect(b, "call:kicked")["reason"], "banned");
    assert_eq!(stage.expect(c, "call:participant-left")["reason"], "banned");
    assert_eq!(stage.record(&call).participants[1].leave_reason, Some("banned"));
    let invite = json!({ "callId": call, "to": ["b"] });
    assert_eq!(code(stage.ask(a, "call:invite", invite)), "PERMISSION_DENIED");
    assert_eq!(code(stage.ask(b, "call:join", json!({ "callId": call }))), "PERMISSION_DENIED");
}

#[test]
fn a_ban_reaches_who_has_left_already() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    stage.ask(b, "call:leave", json!({ "callId": call })).unwrap();
    assert_eq!(code(kick(&mut stage, a, &call, "b")), "TARGET_NOT_FOUND");
    let ban = |user: &str| json!({ "callId": call, "participantId": user, "ban": true });
    assert_eq!(code(stage.ask(c, "call:kick", ban("b"))), "PERMISSION_DENIED");
    assert_eq!(code(stage.ask(a, "call:kick", ban("nobody"))), "TARGET_NOT_FOUND");
    stage.ask(a, "call:kick", ban("b")).unwrap();
    assert_eq!(code(stage.ask(b, "call:join", json!({ "callId": call }))), "PERMISSION_DENIED");
    assert_eq!(stage.record(&call).participants[1].leave_reason, Some("banned"));
    assert_eq!(stage.hub.running(), 1, "and the others go on");
}

#[test]
fn whoever_is_gone_from_a_call_loses_its_credentials_and_nobody_else_does() {
    let mut stage = Stage::with(Config { grace_with_session: Duration::from_secs(30), ..Config::default() });
    let (a, b, c, call) = stage.trio();
    stage.ask(b, "call:leave", json!({ "callId": call })).unwrap();
    assert_eq!(stage.departed(), ["b"]);
    stage.join(b, &call);
    kick(&mut stage, a, &call, "b").unwrap();
    assert_eq!(stage.departed(), ["b"]);
    stage.close(c);
    stage.pass(29.0);
    assert!(stage.departed().is_empty(), "it may come back");
    stage.pass(2.0);
    assert_eq!(stage.departed(), ["c"]);
}

#[test]
fn ranks_count_on_both_sides() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open_as(moderator("b")).unwrap());
    let (c, d) = (stage.open("c"), stage.open_as(moderator("d")).unwrap());
    let call = stage.call(a, &["b", "c", "d"]);
    [b, c, d].into_iter().for_each(|session| drop(stage.join(session, &call)));
    for (by, user) in [(c, "a"), (c, "b"), (a, "b"), (b, "d")] {
        assert_eq!(code(kick(&mut stage, by, &call, user)), "PERMISSION_DENIED");
        let mute = json!({ "callId": call, "participantId": user });
        assert_eq!(code(stage.ask(by, "call:mute", mute)), "PERMISSION_DENIED");
    }
    assert_eq!(code(stage.ask(c, "call:lock", json!({ "callId": call }))), "PERMISSION_DENIED");
    assert_eq!(code(stage.ask(c, "call:invite", json!({ "callId": call, "to": "x" }))), "PERMISSION_DENIED");
    assert_eq!(code(kick(&mut stage, a, &call, "a")), "VALIDATION_ERROR");
    assert_eq!(code(kick(&mut stage, a, &call, "nobody")), "TARGET_NOT_FOUND");
    // A token that allows less counts from now on.
    stage.hub.refresh(d, identity("d"), stage.now).unwrap();
    kick(&mut stage, b, &call, "d").unwrap();
    kick(&mut stage, b, &call, "a").unwrap();
    kick(&mut stage, b, &call, "c").unwrap();
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let mut stage = Stage::new();
    let (a, _, call) = stage.active();
    for (event, payload, named) in [
        ("call:kick", json!({ "callId": call }), "participantId"),
        ("call:kick", json!({ "participantId": "b" }), "callId"),
        ("call:mute", json!({ "callId": call, "participantId": "b", "mediaType": "smell" }), "mediaType"),
        ("call:lock", json!({ "callId": call, "locked": "yes" }), "locked"),
        ("call:invite", json!({ "callId": call }), "to"),
        ("call:invite", json!({ "callId": call, "to": [] }), "to"),
        ("call:quality-report", json!({ "callId": call, "stats": [] }), "stats"),
        ("call:quality-report", json!({ "callId": call, "stats": { "rtt": -1 } }), "stats"),
        ("presence:get", json!({ "userIds": [1] }), "userIds"),
        ("presence:get", json!({}), "userIds"),
    ] {
        let refused = stage.ask(a, event, payload).unwrap_err();
        assert_eq!(refused.code(), "VALIDATION_ERROR");
        assert!(refused.to_string().starts_with(named), "{event}: {refused}");
    }
    assert_eq!(code(stage.ask(a, "session:refresh", json!({ "token": "x" }))), "UNKNOWN_EVENT");
}

#[test]
fn a_kick_in_a_call_of_two_ends_it() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    kick(&mut stage, a, &call, "b").unwrap();
    assert_eq!(stage.names(b), ["call:kicked", "call:ended"]);
    assert_eq!(stage.expect(a, "call:ended")["endedBy"], "a");
    assert_eq!(stage.record(&call).end_reason, Some("completed"));
}

#[test]
fn a_mute_reaches_everyone_and_only_the_owner_takes_it_back() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    let mute = json!({ "callId": call, "participantId": "b", "mediaType": "audio" });
    stage.ask(a, "call:mute", mute.clone()).unwrap();
    let toggled = stage.expect(a, "call:media-toggled");
    assert_eq!(
        (&toggled["userId"], &toggled["by"], &toggled["enabled"]),
        (&json!("b"), &json!("a"), &json!(false))
    );
    assert_eq!(stage.names(b), ["call:muted", "call:media-toggled"]);
    stage.clear();
    stage.ask(a, "call:mute", mute).unwrap();
    assert!(stage.names(b).is_empty(), "muted already");
    stage.ask(b, "call:toggle-audio", json!({ "callId": call, "enabled": true })).unwrap();
    assert_eq!(stage.expect(a, "call:media-toggled")["enabled"], true);
}

#[test]
fn a_locked_call_admits_nobody_new_and_lets_those_in_it_come_back() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.ask(a, "call:invite", json!({ "callId": call, "to": "b" })).unwrap();
    let c = stage.open("c");
    stage.ask(a, "call:lock", json!({ "callId": call })).unwrap();
    assert_eq!(stage.expect(b, "call:state")["call"]["locked"], true);
    assert!(stage.record(&call).locked);
    stage.close(b);
    let b = stage.open("b");
    stage.join(b, &call);
    stage.ask(a, "call:invite", json!({ "callId": call, "to": "c" })).unwrap();
    stage.join(c, &call);
    stage.ask(c, "call:leave", json!({ "callId": call })).unwrap();
    assert_eq!(code(stage.ask(c, "call:join", json!({ "callId": call }))), "CALL_LOCKED");
    stage.ask(a, "call:lock", json!({ "callId": call, "locked": false })).unwrap();
    stage.join(c, &call);
}

#[test]
fn an_invitation_turns_a_call_of_two_into_a_mesh() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    let (c, d) = (stage.open("c"), stage.open("d"));
    let ack = stage.ask(a, "call:invite", json!({ "callId": call, "to": ["c", "d", "gone", "b"] }));
    assert_eq!(code(ack), "MAX_PARTICIPANTS_REACHED");
    let ack = stage.ask(a, "call:invite", json!({ "callId": call, "to": ["c", "gone"] })).unwrap();
    assert_eq!(ack, json!({ "ringing": ["c"], "offline": ["gone"], "busy": [] }));
    assert_eq!(stage.expect(c, "call:initiated")["participants"].as_array().map(Vec::len), Some(3));
    assert_eq!(stage.expect(b, "call:state")["call"]["mode"], "mesh");
    assert_eq!(code(stage.ask(a, "call:invite", json!({ "callId": call, "to": "gone" }))), "USER_OFFLINE");
    stage.join(c, &call);
    assert_eq!(stage.expect(b, "call:participant-joined")["polite"], false);
    stage.ask(c, "call:leave", json!({ "callId": call })).unwrap();
    assert_eq!(stage.hub.running(), 1, "a group, from now on");
    // Whoever does not pick up has missed it, and the call goes on.
    stage.ask(a, "call:invite", json!({ "callId": call, "to": "d" })).unwrap();
    stage.pass(61.0);
    stage.expect(d, "call:missed");
    assert_eq!(stage.hub.running(), 1);
}

#[test]
fn a_message_reaches_one_or_all_and_waits_for_whoever_reconnects() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    let sent = stage.ask(a, "call:message", json!({ "callId": call, "data": { "text": "hi" } })).unwrap();
    assert_eq!(sent["delivered"], 2);
    let message = stage.expect(c, "call:message");
    assert_eq!((&message["from"], &message["data"]["text"]), (&json!("a"), &json!("hi")));
    stage.expect(b, "call:message");
    stage.ask(a, "call:message", json!({ "callId": call, "to": "b", "data": 1 })).unwrap();
    assert_eq!((stage.names(b), stage.names(c)), (vec!["call:message"], vec![]));
    for (payload, refusal) in [
        (json!({ "callId": call, "to": "x", "data": 1 }), "TARGET_NOT_FOUND"),
        (json!({ "callId": call, "to": "a", "data": 1 }), "TARGET_NOT_FOUND"),
        (json!({ "callId": call }), "VALIDATION_ERROR"),
        (json!({ "callId": call, "data": "x".repeat(8191) }), "SIGNAL_TOO_LARGE"),
    ] {
        assert_eq!(code(stage.ask(a, "call:message", payload)), refusal);
    }
    stage.ask(a, "call:message", json!({ "callId": call, "data": "x".repeat(8190) })).unwrap();
    let stranger = stage.open("s");
    assert_eq!(
        code(stage.ask(stranger, "call:message", json!({ "callId": call, "data": 1 }))),
        "CALL_NOT_FOUND"
    );
}

#[test]
fn a_poor_connection_is_shown_to_all_and_summed_up_in_the_record() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    for (rtt, loss) in [(100, 0.0), (500, 2.0)] {
        let stats = json!({ "rtt": rtt, "packetLoss": loss, "jitter": 10, "candidateType": "relay" });
        stage.ask(a, "call:quality-report", json!({ "callId": call, "stats": stats })).unwrap();
        stage.pass(5.0);
    }
    let alert = stage.expect(b, "call:quality-alert");
    assert_eq!((&alert["userId"], &alert["rtt"]), (&json!("a"), &json!(500.0)));
    stage.ask(b, "call:leave", json!({ "callId": call })).unwrap();
    let record = stage.record(&call);
    let who = &record.participants[0];
    assert_eq!((who.rtt_avg_ms, who.rtt_max_ms, who.loss_avg), (Some(300.0), Some(500.0), Some(1.0)));
    assert_eq!(
        (who.jitter_avg_ms, who.ice_method, record.quality),
        (Some(10.0), Some("relay"), Some("fair"))
    );
    assert_eq!(record.participants[1].rtt_avg_ms, None);
}

#[test]
fn presence_is_told_and_limited_to_the_rooms_one_is_limited_to() {
    let mut stage = Stage::new();
    let (a, b, _) = stage.active();
    let ask = json!({ "userIds": ["a", "b", "c"] });
    let c = stage.open("c");
    let presence = stage.ask(c, "presence:get", ask.clone()).unwrap();
    assert_eq!(presence["presence"][0], json!({ "userId": "a", "status": "online", "inCall": true }));
    stage.close(a);
    let presence = stage.ask(c, "presence:get", ask.clone()).unwrap();
    assert_eq!(presence["presence"][0]["status"], "reconnecting");
    let mut guest = identity("guest");
    guest.grants.rooms = Some(vec!["r".into()]);
    let guest = stage.open_as(guest).unwrap();
    stage.ask(b, "room:join", json!({ "roomId": "r" })).unwrap();
    let presence = stage.ask(guest, "presence:get", ask).unwrap();
    let statuses: Vec<&Value> = (0..3).map(|n| &presence["presence"][n]["status"]).collect();
    assert_eq!(statuses, ["offline", "online", "offline"]);
}

#[test]
fn turn_credentials_are_renewed_before_they_run_out() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    // The stage's servers live for twelve hours, as long as the longest call.
    stage.pass(0.79 * 43_200.0);
    assert!(stage.names(a).is_empty());
    stage.pass(0.02 * 43_200.0);
    for (session, user) in [(a, "a"), (b, "b")] {
        let event = stage.expect(session, "call:ice-servers-refreshed");
        assert_eq!(event["iceServers"][1]["username"], format!("{user}/{call}"));
    }
    stage.pass(3_600.0);
    assert!(stage.names(a).is_empty(), "once a life");
}

#[test]
fn a_new_token_takes_the_place_of_the_old_one() {
    let mut stage = Stage::new();
    let mut short = identity("a");
    short.expires_unix_ms = Some(stage.now.unix_ms + 10_000);
    let (a, _b) = (stage.open_as(short).unwrap(), stage.open("b"));
    stage.pass(11.0);
    let initiate = json!({ "to": "b", "type": "audio" });
    assert_eq!(code(stage.ask(a, "call:initiate", initiate.clone())), "TOKEN_EXPIRED");
    assert_eq!(
        stage.hub.refresh(a, identity("b"), stage.now).map_err(|r| r.code()),
        Err("PERMISSION_DENIED")
    );
    stage.hub.refresh(a, identity("a"), stage.now).unwrap();
    stage.ask(a, "call:initiate", initiate).unwrap();
}

#[test]
fn missed_calls_wait_for_a_user_who_was_away() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    for _ in 0..3 {
        assert_eq!(
            code(stage.ask(a, "call:initiate", json!({ "to": "b", "type": "audio" }))),
            "USER_OFFLINE"
        );
        stage.pass(20.0);
    }
    let b = stage.open("b");
    let missed = stage.expect(b, "session:ready")["missed"].clone();
    assert_eq!((missed.as_array().map(Vec::len), &missed[0]["initiator"]["userId"]), (Some(3), &json!("a")));
    stage.close(b);
    let b = stage.open("b");
    assert_eq!(stage.expect(b, "session:ready")["missed"], json!([]));
    let seen = stage.events.iter().filter(|event| matches!(event, Event::MissedSeen { .. })).count();
    assert_eq!(seen, 1, "an empty list needs no note");
}

#[test]
fn what_was_missed_before_a_restart_is_told_after_it() {
    let mut stage = Stage::new();
    let here = stage.open("here");
    let missed = ["here", "away", "away"].map(|user| (UserId(user.into()), json!({ "callId": user })));
    stage.restore_missed(missed.into());
    assert_eq!(stage.expect(here, "call:missed")["callId"], "here");
    let away = stage.open("away");
    assert_eq!(stage.expect(away, "session:ready")["missed"].as_array().map(Vec::len), Some(2));
    let seen = stage.events.iter().filter_map(|event| match event {
        Event::MissedSeen { user, .. } => Some(user.0.to_string()),
        _ => None,
    });
    assert_eq!(seen.collect::<Vec<_>>(), ["here", "away"]);
}

#[test]
fn with_a_push_service_a_call_rings_on_for_whoever_is_not_connected() {
    let mut stage = Stage::with(Config { ring_offline: true, ..Config::default() });
    let a = stage.open("a");
    let call = stage.call(a, &["b"]);
    assert_eq!(stage.record(&call).status, "initiated");
    stage.pass(20.0);
    let b = stage.open("b");
    stage.expect(b, "call:initiated");
    stage.expect(a, "call:ringing");
    stage.join(b, &call);
}
