//! Commands of REST, webhook notices, and a restart of the process.

use std::sync::Arc;

use serde_json::{Value, json};

use super::stage::{Stage, code, identity, sdp};
use crate::signaling::*;

fn command(stage: &mut Stage, command: AdminCommand) -> Result<Value, Reject> {
    stage.admin(&Authority::Operator, command)
}

#[test]
fn an_end_by_the_operator_reaches_everyone() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    command(&mut stage, AdminCommand::End(CallId(call.as_str().into()))).unwrap();
    for session in [a, b] {
        let ended = stage.expect(session, "call:ended");
        assert_eq!(
            (&ended["reason"], &ended["status"], &ended["endedBy"]),
            (&json!("admin"), &json!("completed"), &json!(null))
        );
    }
    command(&mut stage, AdminCommand::End(CallId(call.into()))).unwrap();
}

#[test]
fn a_kick_and_a_mute_through_rest_are_broadcast() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    let (id, user) = (CallId(call.as_str().into()), UserId("b".into()));
    let mute = AdminCommand::Mute { call: id.clone(), user: user.clone(), media: Media::Video };
    command(&mut stage, mute).unwrap();
    assert_eq!(stage.expect(a, "call:media-toggled")["mediaType"], "video");
    command(&mut stage, AdminCommand::Kick { call: id, user, ban: false }).unwrap();
    stage.expect(b, "call:kicked");
    assert_eq!(stage.expect(a, "call:participant-left")["reason"], "kicked");
    stage.expect(c, "call:participant-left");
}

#[test]
fn a_user_commands_through_rest_what_it_could_through_its_session() {
    let mut stage = Stage::new();
    let (_, _, _, call) = stage.trio();
    let id = CallId(call.as_str().into());
    let by = |user: &str| Authority::User(identity(user));
    let kick = |user: &str| AdminCommand::Kick { call: id.clone(), user: UserId(user.into()), ban: false };
    assert_eq!(code(stage.admin(&by("b"), kick("c"))), "PERMISSION_DENIED");
    assert_eq!(code(stage.admin(&by("b"), AdminCommand::End(id.clone()))), "PERMISSION_DENIED");
    assert_eq!(code(stage.admin(&by("stranger"), kick("c"))), "CALL_NOT_FOUND");
    assert_eq!(stage.hub.record(&by("stranger"), &id), Err(Reject::CallNotFound));
    assert_eq!(stage.hub.record(&by("b"), &id).map(|record| record.status), Ok("active"));
    assert_eq!(code(stage.admin(&by("b"), AdminCommand::Stats)), "PERMISSION_DENIED");
    let all = AdminCommand::ActiveCalls { user: Some(UserId("a".into())), limit: 10 };
    assert_eq!(stage.admin(&by("stranger"), all).unwrap()["calls"], json!([]));
    stage.admin(&by("a"), kick("c")).unwrap();
    stage.admin(&by("a"), AdminCommand::End(id)).unwrap();
    assert_eq!(stage.hub.running(), 0);
}

#[test]
fn a_server_rings_on_behalf_of_a_user_who_takes_the_seat_later() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let request = json!({ "to": "b", "type": "audio" });
    let ring = AdminCommand::Ring { from: identity("a"), request: request.clone() };
    let ack = command(&mut stage, ring.clone()).unwrap();
    let call = ack["callId"].as_str().unwrap().to_owned();
    assert_eq!(stage.expect(a, "call:initiated")["self"], true);
    stage.expect(b, "call:initiated");
    assert_eq!(code(command(&mut stage, ring.clone())), "CALL_ALREADY_ACTIVE");
    let other = Authority::User(identity("mallory"));
    assert_eq!(code(stage.admin(&other, ring)), "PERMISSION_DENIED");
    stage.join(b, &call);
    stage.join(a, &call);
    stage.negotiate(&call, (b, "b"), (a, "a"));
    assert_eq!(stage.record(&call).status, "active");
    assert_eq!(stage.record(&call).participants[0].reconnects, 0);
    // Nobody takes the seat.
    stage.ask(a, "call:leave", json!({ "callId": call })).unwrap();
    command(&mut stage, AdminCommand::Ring { from: identity("a"), request }).unwrap();
    stage.pass(61.0);
    assert_eq!(stage.hub.running(), 0);
}

#[test]
fn named_members_are_rung_and_nobody_else_may_enter() {
    let mut stage = Stage::new();
    let sessions = ["a", "b", "c", "x"].map(|user| stage.open(user));
    let [a, b, c, x] = sessions;
    stage.ask(x, "room:join", json!({ "roomId": "r" })).unwrap();
    let users = |names: &[&str]| Some(names.iter().map(|name| UserId((*name).into())).collect());
    let named = AdminCommand::SetMembers { room: "r".into(), members: users(&["a", "b", "c"]) };
    command(&mut stage, named).unwrap();
    for (session, event) in [(x, "room:join"), (x, "call:initiate")] {
        let payload = json!({ "roomId": "r", "type": "audio" });
        assert_eq!(code(stage.ask(session, event, payload)), "CONVERSATION_NOT_FOUND");
    }
    stage.ask(a, "room:join", json!({ "roomId": "r" })).unwrap();
    let ack = stage.ask(a, "call:initiate", json!({ "roomId": "r", "type": "audio" })).unwrap();
    assert_eq!(ack["ringing"], json!(["b", "c"]));
    let call = ack["callId"].as_str().unwrap();
    stage.join(b, call);
    stage.ask(c, "call:decline", json!({ "callId": call })).unwrap();
    stage.join(c, call);
    assert_eq!(code(stage.ask(x, "call:join", json!({ "callId": call }))), "CALL_NOT_FOUND");
    let room = command(&mut stage, AdminCommand::SetMembers { room: "r".into(), members: None }).unwrap();
    assert_eq!(room["activeCall"]["id"], call);
}

#[test]
fn what_is_running_can_be_listed() {
    let mut stage = Stage::new();
    let (a, _, call) = stage.active();
    stage.close(a);
    let calls = command(&mut stage, AdminCommand::ActiveCalls { user: None, limit: 9 }).unwrap();
    assert_eq!((calls["calls"].as_array().map(Vec::len), &calls["calls"][0]["id"]), (Some(1), &json!(call)));
    let stats = command(&mut stage, AdminCommand::Stats).unwrap();
    assert_eq!(stats["sessions"], json!({ "connected": 1, "resumable": 1 }));
    assert_eq!((&stats["calls"], &stats["usersInCalls"]), (&json!(1), &json!(2)));
    let sessions = command(&mut stage, AdminCommand::Sessions { user: None, limit: 1 }).unwrap();
    assert_eq!(
        (sessions["sessions"].as_array().map(Vec::len), &sessions["sessions"][0]["state"]),
        (Some(1), &json!("resumable"))
    );
    let users = vec![UserId("b".into()), UserId("nobody".into())];
    let presence = command(&mut stage, AdminCommand::Presence(users)).unwrap();
    assert_eq!(
        (&presence["presence"][0]["status"], &presence["presence"][1]["status"]),
        (&json!("online"), &json!("offline"))
    );
    let room = command(&mut stage, AdminCommand::Room("nowhere".into())).unwrap();
    assert_eq!(room["roomId"], "nowhere");
}

#[test]
fn relayed_bytes_reach_the_record_even_after_the_end() {
    let mut stage = Stage::new();
    let (a, _, call) = stage.active();
    stage.relay_usage(&call, "a", (100, 200));
    stage.ask(a, "call:leave", json!({ "callId": call })).unwrap();
    assert!(stage.record(&call).ended_at.is_some());
    stage.relay_usage(&call, "b", (10, 20));
    let record = stage.record(&call);
    assert_eq!((record.relay_bytes_up, record.relay_bytes_down, record.relay_used()), (110, 220, true));
    assert_eq!(
        (record.participants[1].relay_bytes, record.participants[1].relay_transport),
        (30, Some("udp"))
    );
    stage.relay_usage(&call, "b", (1, 1));
    assert_eq!(stage.record(&call).participants[1].relay_peers, ["198.51.100.0/24".into()], "each once");
    stage.relay_usage("unknown", "b", (1, 1));
}

fn notices(stage: &Stage, call: &str) -> Vec<(NoticeKind, Option<String>)> {
    let of_call = stage.events.iter().filter_map(|event| match event {
        Event::Notice(notice) if &*notice.call.0 == call => Some(notice),
        _ => None,
    });
    of_call.map(|notice| (notice.kind, notice.user.as_ref().map(|user| user.0.to_string()))).collect()
}

#[test]
fn a_webhook_hears_of_every_step_in_order() {
    use NoticeKind::*;
    let mut stage = Stage::new();
    let (a, b, c) = (stage.open("a"), stage.open("b"), stage.open("c"));
    let call = stage.call(a, &["b", "c"]);
    stage.join(b, &call);
    stage.negotiate(&call, (b, "b"), (a, "a"));
    stage.pass(61.0);
    stage.ask(b, "call:leave", json!({ "callId": call })).unwrap();
    stage.pass(61.0);
    let user = |name: &str| Some(name.to_owned());
    assert_eq!(
        notices(&stage, &call),
        [
            (Initiated, user("a")),
            (Ringing, user("b")),
            (Ringing, user("c")),
            (Answered, user("b")),
            (ParticipantJoined, user("b")),
            (Missed, user("c")),
            (ParticipantLeft, user("b")),
            (Ended, user("b")),
        ]
    );
    let _ = c;
    assert!(code(stage.ask(a, "call:initiate", json!({ "to": "gone", "type": "audio" }))) == "USER_OFFLINE");
    let last = stage.records.keys().find(|id| *id.0 != *call).unwrap().0.to_string();
    assert_eq!(notices(&stage, &last), [(Initiated, user("a")), (Missed, user("gone")), (Ended, None)]);
}

/// What the store holds: every call that is not over, as it would be read back.
fn survivors(stage: &Stage) -> Vec<CallRecord> {
    stage
        .records
        .values()
        .filter(|record| record.ended_at.is_none())
        .map(|record| (**record).clone())
        .collect()
}

/// The next process, in which nobody is connected.
fn restart(old: &Stage) -> Stage {
    let mut stage = Stage::new();
    stage.now = old.now;
    let restored = stage.restore(survivors(old));
    assert_eq!(restored, survivors(old).len());
    stage
}

#[test]
fn a_call_that_is_taken_up_late_leaves_its_room_to_the_one_that_runs_there() {
    let in_room = |stage: &mut Stage| {
        let (a, b) = (stage.open("a"), stage.open("b"));
        for session in [a, b] {
            stage.ask(session, "room:join", json!({ "roomId": "r" })).unwrap();
        }
        let ack = stage.ask(a, "call:initiate", json!({ "roomId": "r", "type": "video" })).unwrap();
        let call = ack["callId"].as_str().unwrap().to_owned();
        stage.join(b, &call);
        stage.negotiate(&call, (b, "b"), (a, "a"));
        call
    };
    let (mut old, mut stage) = (Stage::new(), Stage::new());
    // The two processes draw the same ids, so that the first call of one is not that of the other.
    let (d, _) = (old.open("d"), old.open("e"));
    old.call(d, &["e"]);
    let first = in_room(&mut old);
    stage.now = old.now;
    let second = in_room(&mut stage);
    assert_eq!(stage.restore(survivors(&old)), 1);
    let c = stage.open("c");
    stage.pass(120.0);
    assert!(stage.record(&first).ended_at.is_some() && stage.record(&second).ended_at.is_none());
    let room = stage.ask(c, "room:join", json!({ "roomId": "r" })).unwrap();
    assert_eq!(room["activeCall"]["callId"], second);
}

#[test]
fn a_running_call_survives_a_restart() {
    let mut old = Stage::new();
    let (a, _, call) = old.active();
    old.ask(a, "call:toggle-audio", json!({ "callId": call, "enabled": false })).unwrap();
    old.pass(100.0);
    let before = Arc::clone(&old.records[&CallId(call.as_str().into())]);
    let mut stage = restart(&old);
    assert_eq!(stage.record(&call).status, "reconnecting");
    assert!(stage.record(&call).rev > before.rev);
    stage.pass(5.0);
    let (a, b) = (stage.open("a"), stage.open("b"));
    let ready = stage.expect(a, "session:ready");
    assert_eq!(ready["activeCalls"][0]["participants"][0]["isAudioEnabled"], false);
    let joined = stage.join(a, &call);
    assert_eq!(joined["callSession"]["participants"][0]["displayName"], "Display a");
    // Media was never touched: both may negotiate, or not.
    stage.join(b, &call);
    assert_eq!(stage.record(&call).status, "active");
    stage.negotiate(&call, (b, "b"), (a, "a"));
    stage.ask(b, "call:leave", json!({ "callId": call })).unwrap();
    let record = stage.record(&call);
    assert_eq!((record.duration_s, record.created_at), (Some(105), before.created_at));
    let orders: Vec<u64> = [&old, &stage]
        .iter()
        .flat_map(|stage| &stage.events)
        .filter_map(|event| match event {
            Event::Notice(notice) => Some(notice.order),
            _ => None,
        })
        .collect();
    assert!(orders.is_sorted_by(|a, b| a < b), "{orders:?}");
}

#[test]
fn whoever_does_not_come_back_after_a_restart_is_lost() {
    let mut old = Stage::new();
    let (_, _, call) = old.active();
    let mut stage = restart(&old);
    let a = stage.open("a");
    stage.join(a, &call);
    stage.pass(31.0);
    assert_eq!(stage.expect(a, "call:ended")["reason"], "connectionLost");
    stage.pass(600.0);
    assert_eq!(stage.hub.running(), 0);
}

#[test]
fn a_ringing_call_rings_again_after_a_restart_and_no_longer_than_before() {
    let mut old = Stage::new();
    let (a, _b) = (old.open("a"), old.open("b"));
    let call = old.call(a, &["b"]);
    old.pass(30.0);
    let mut stage = restart(&old);
    let (a, b) = (stage.open("a"), stage.open("b"));
    stage.expect(b, "call:initiated");
    stage.join(a, &call);
    stage.pass(29.0);
    assert_eq!(stage.hub.running(), 1);
    stage.pass(2.0);
    stage.expect(b, "call:missed");
    assert_eq!(stage.record(&call).end_reason, Some("missed"));
}

#[test]
fn a_call_that_should_have_ended_while_there_was_no_server_ends() {
    let mut old = Stage::new();
    let (_, _, call) = old.active();
    old.now.unix_ms += 13 * 3_600_000;
    let mut stage = restart(&old);
    stage.pass(0.1);
    assert_eq!(stage.record(&call).end_reason, Some("maxDuration"));
}

#[test]
fn a_group_keeps_its_seats_its_lock_and_its_room_over_a_restart() {
    let mut old = Stage::new();
    let sessions = ["a", "b", "c"].map(|user| old.open(user));
    sessions
        .iter()
        .for_each(|session| drop(old.ask(*session, "room:join", json!({ "roomId": "r" })).unwrap()));
    let [a, b, c] = sessions;
    let ack = old.ask(a, "call:initiate", json!({ "roomId": "r", "type": "audio" })).unwrap();
    let call = ack["callId"].as_str().unwrap().to_owned();
    old.join(b, &call);
    old.negotiate(&call, (b, "b"), (a, "a"));
    old.ask(c, "call:decline", json!({ "callId": call })).unwrap();
    old.ask(a, "call:lock", json!({ "callId": call })).unwrap();
    let mut stage = restart(&old);
    let [a, b, c] = ["a", "b", "c"].map(|user| stage.open(user));
    assert_eq!(code(stage.ask(c, "call:join", json!({ "callId": call }))), "CALL_LOCKED");
    let joined = stage.join(a, &call);
    assert_eq!(joined["callSession"]["conversationId"], "r");
    stage.ask(a, "call:lock", json!({ "callId": call, "locked": false })).unwrap();
    stage.join(c, &call);
    stage.join(b, &call);
    // The later joiner is polite, as before: the offer of the other side wins.
    stage.signal(a, &call, json!({ "type": "offer", "to": "b", "sdp": sdp("1") })).unwrap();
    let collision = stage.signal(b, &call, json!({ "type": "offer", "to": "a", "sdp": sdp("2") }));
    assert_eq!(code(collision), "OFFER_COLLISION");
}

#[test]
fn a_restart_never_trips_over_what_the_store_holds() {
    let mut old = Stage::new();
    let (_, _, call) = old.active();
    let good = survivors(&old).remove(0);
    let broken: [fn(&mut CallRecord); 5] = [
        |record| record.kind = "telepathy",
        |record| record.ended_at = Some(1),
        |record| record.participants.clear(),
        |record| record.initiator = UserId("someone".into()),
        |record| record.participants.iter_mut().for_each(|who| who.state = "left"),
    ];
    for spoil in broken {
        let mut record = good.clone();
        spoil(&mut record);
        assert_eq!(Stage::new().restore(vec![record]), 0);
    }
    let mut strange = good.clone();
    (strange.created_at, strange.answered_at, strange.expires_at) = (i64::MIN, Some(i64::MAX), i64::MAX);
    strange.rev = u64::MAX - 1_000_000;
    let mut stage = Stage::new();
    assert_eq!(stage.restore(vec![strange.clone(), strange]), 1);
    stage.pass(100_000.0);
    assert_eq!((stage.hub.running(), !call.is_empty()), (0, true));
    for text in ["completed", "grace", "relay", "maxDuration"] {
        assert_eq!(word(text), Some(text));
    }
    assert_eq!(word("telepathy"), None);
}
