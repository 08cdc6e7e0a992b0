//! What is forwarded, what waits, what is refused.

use serde_json::{Value, json};

use super::stage::{Stage, code, sdp};

const CANDIDATE: &str = "candidate:1 1 udp 2122260223 192.0.2.1 54400 typ host";

fn candidate(port: u16) -> Value {
    json!({ "type": "ice-candidate", "candidate": format!("candidate:1 1 udp 1 192.0.2.1 {port} typ host") })
}

#[test]
fn every_shape_of_a_signal_arrives_in_one_shape() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    let shapes = [
        json!({ "callId": call, "signal": { "type": "offer", "to": "b", "from": "a", "sdp": sdp("1") } }),
        json!({ "callId": call, "type": "offer", "signal": { "type": "offer", "sdp": sdp("2") } }),
        json!({ "callId": call, "type": "offer", "to": "b", "signal": { "sdp": sdp("3"), "negotiationId": 7 } }),
    ];
    for (shape, tag) in shapes.into_iter().zip(["1", "2", "3"]) {
        let ack = stage.ask(a, "call:signal", shape).unwrap();
        assert_eq!(ack, json!({ "delivered": true, "queued": false }));
        let got = stage.expect(b, "call:signal");
        let (signal, call_id) = (&got["signal"], &got["callId"]);
        assert_eq!((call_id, &got["from"], &got["type"]), (&json!(call), &json!("a"), &json!("offer")));
        assert_eq!(
            (&signal["type"], &signal["from"], &signal["to"]),
            (&json!("offer"), &json!("a"), &json!("b"))
        );
        assert_eq!(signal["sdp"], sdp(tag), "never rewritten");
    }
}

#[test]
fn every_shape_of_a_candidate_arrives_as_it_was() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    let init = json!({ "candidate": CANDIDATE, "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "u" });
    let shapes = [
        (json!({ "candidate": CANDIDATE, "sdpMid": "0", "sdpMLineIndex": 0 }), json!(CANDIDATE)),
        (json!({ "candidate": init }), init.clone()),
        (json!({ "candidate": "" }), json!("")),
        (json!({ "candidate": null }), json!(null)),
    ];
    for (signal, expected) in shapes {
        stage
            .ask(a, "call:signal", json!({ "callId": call, "type": "ice-candidate", "signal": signal }))
            .unwrap();
        let got = stage.expect(b, "call:signal");
        assert_eq!(
            (&got["signal"]["candidate"], &got["signal"]["type"]),
            (&expected, &json!("ice-candidate"))
        );
        assert_eq!(got["signal"].get("sdpMid"), signal.get("sdpMid"));
    }
}

#[test]
fn unknown_fields_of_a_signal_go_no_further() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.signal(a, &call, json!({ "type": "bye", "html": "<svg onload=x>", "sdp": "junk" })).unwrap();
    let got = stage.expect(b, "call:signal");
    assert_eq!((got["signal"].get("html"), got["signal"].get("sdp")), (None, None));
}

#[test]
fn what_is_no_signal_is_refused() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    let wrong = [
        json!({ "sdp": sdp("1") }),
        json!({ "type": "poke" }),
        json!({ "type": "offer" }),
        json!({ "type": "offer", "sdp": "m=audio" }),
        json!({ "type": "answer", "sdp": "v=0\r\ns=-\r\n" }),
        json!({ "type": "offer", "sdp": 7 }),
        json!({ "type": "ice-candidate" }),
        json!({ "type": "ice-candidate", "candidate": 7 }),
        json!({ "type": "ice-candidate", "candidate": "<svg>" }),
        json!({ "type": "ice-candidate", "candidate": "candidate:1\r\nm=evil" }),
        json!({ "type": "ice-candidate", "candidate": CANDIDATE, "sdpMLineIndex": -1 }),
        json!({ "type": "ice-candidate", "candidate": CANDIDATE, "sdpMLineIndex": 65_536 }),
        json!({ "type": "ice-candidate", "candidate": { "candidate": CANDIDATE, "sdpMid": {} } }),
        json!({ "type": "offer", "sdp": sdp("1"), "negotiationId": [] }),
    ];
    for signal in wrong {
        assert_eq!(code(stage.signal(a, &call, signal.clone())), "INVALID_SIGNAL", "{signal}");
    }
    let twice = json!({ "callId": call, "type": "answer", "signal": { "type": "offer", "sdp": sdp("1") } });
    assert_eq!(code(stage.ask(a, "call:signal", twice)), "INVALID_SIGNAL");
    assert_eq!(
        code(stage.ask(a, "call:signal", json!({ "callId": call, "signal": "offer" }))),
        "VALIDATION_ERROR"
    );
    assert!(stage.names(b).is_empty());
}

#[test]
fn a_sender_cannot_claim_to_be_someone_else() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    assert_eq!(code(stage.signal(a, &call, json!({ "type": "bye", "from": "b" }))), "SIGNAL_SENDER_MISMATCH");
    assert!(stage.names(b).is_empty());
}

#[test]
fn a_signal_to_oneself_or_a_stranger_has_no_target() {
    let mut stage = Stage::new();
    let (a, _, call) = stage.active();
    for to in ["a", "stranger"] {
        assert_eq!(code(stage.signal(a, &call, json!({ "type": "bye", "to": to }))), "TARGET_NOT_FOUND");
    }
}

#[test]
fn signals_for_an_invited_callee_wait_for_its_join_in_order() {
    let mut stage = Stage::new();
    let (a, b1, b2) = (stage.open("a"), stage.open("b"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.clear();
    let ack = stage.signal(a, &call, json!({ "type": "offer", "sdp": sdp("1") })).unwrap();
    assert_eq!(ack, json!({ "delivered": false, "queued": true }));
    stage.signal(a, &call, candidate(1)).unwrap();
    stage.signal(a, &call, candidate(2)).unwrap();
    assert!(stage.names(b1).is_empty() && stage.names(b2).is_empty());
    stage.join(b1, &call);
    assert_eq!(stage.names(b1), ["call:signal"; 3]);
    let kinds: Vec<Value> = (0..3).map(|_| stage.expect(b1, "call:signal")["type"].take()).collect();
    assert_eq!(kinds, ["offer", "ice-candidate", "ice-candidate"]);
    assert_eq!(stage.names(b2), ["call:already-answered"]);
}

#[test]
fn a_newer_offer_replaces_the_waiting_one_with_its_candidates() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.signal(a, &call, json!({ "type": "offer", "sdp": sdp("old") })).unwrap();
    stage.signal(a, &call, candidate(1)).unwrap();
    stage.signal(a, &call, json!({ "type": "offer", "sdp": sdp("new") })).unwrap();
    stage.signal(a, &call, candidate(2)).unwrap();
    assert_eq!(stage.hub.queued(&call, "b"), 2);
    stage.join(b, &call);
    assert_eq!(stage.expect(b, "call:signal")["signal"]["sdp"], sdp("new"));
    assert!(stage.expect(b, "call:signal")["signal"]["candidate"].as_str().unwrap().contains(" 2 typ"));
    assert!(stage.take(b, "call:signal").is_none());
}

#[test]
fn replacing_one_waiting_offer_leaves_its_siblings_alone() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    stage.close(c);
    for (session, tag) in [(a, "a1"), (b, "b1")] {
        stage.signal(session, &call, json!({ "type": "offer", "to": "c", "sdp": sdp(tag) })).unwrap();
        let mut trickled = candidate(7);
        trickled["to"] = json!("c");
        stage.signal(session, &call, trickled).unwrap();
    }
    stage.signal(a, &call, json!({ "type": "offer", "to": "c", "sdp": sdp("a2") })).unwrap();
    assert_eq!(stage.hub.queued(&call, "c"), 3);
    let c = stage.open("c");
    stage.join(c, &call);
    let got: Vec<Value> = (0..3).map(|_| stage.expect(c, "call:signal")).collect();
    let from: Vec<&Value> = got.iter().map(|signal| &signal["from"]).collect();
    assert_eq!(from, ["b", "b", "a"]);
    assert_eq!((&got[0]["signal"]["sdp"], &got[2]["signal"]["sdp"]), (&json!(sdp("b1")), &json!(sdp("a2"))));
}

#[test]
fn what_waits_from_someone_who_left_is_never_delivered() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    stage.close(c);
    stage.signal(a, &call, json!({ "type": "offer", "to": "c", "sdp": sdp("stale") })).unwrap();
    stage.signal(b, &call, json!({ "type": "offer", "to": "c", "sdp": sdp("fresh") })).unwrap();
    stage.ask(a, "call:leave", json!({ "callId": call })).unwrap();
    let c = stage.open("c");
    stage.join(c, &call);
    assert_eq!(stage.expect(c, "call:signal")["from"], "b");
    assert!(stage.take(c, "call:signal").is_none());
}

#[test]
fn the_queue_has_a_bound_in_messages_and_in_bytes() {
    let mut stage = Stage::new();
    let (a, _b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    for port in 0..64 {
        stage.signal(a, &call, candidate(port)).unwrap();
    }
    assert_eq!(code(stage.signal(a, &call, candidate(64))), "CAPACITY_EXCEEDED");
    assert_eq!(stage.hub.queued(&call, "b"), 64);

    let c = stage.open("c");
    let call = stage.call(c, &["b"]);
    let large = |tag: &str| format!("{}{}", sdp(tag), "a=x\r\n".repeat(9_000));
    for tag in ["1", "2"] {
        let restart = json!({ "type": "answer", "sdp": large(tag) });
        stage.signal(c, &call, restart).unwrap();
    }
    assert_eq!(
        code(stage.signal(c, &call, json!({ "type": "answer", "sdp": large("3") }))),
        "CAPACITY_EXCEEDED"
    );
    assert_eq!(stage.hub.queued(&call, "b"), 2);
}

#[test]
fn a_repeated_description_is_forwarded_once_in_its_window() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    let offer = json!({ "type": "offer", "sdp": sdp("again") });
    for _ in 0..3 {
        let ack = stage.signal(a, &call, offer.clone()).unwrap();
        assert_eq!(ack, json!({ "delivered": true, "queued": false }));
    }
    assert_eq!(stage.names(b), ["call:signal"]);
    stage.signal(b, &call, json!({ "type": "answer", "sdp": sdp("yes") })).unwrap();
    stage.pass(29.9);
    stage.signal(a, &call, offer.clone()).unwrap();
    assert_eq!(stage.names(b), ["call:signal"]);
    stage.pass(0.2);
    stage.signal(a, &call, offer).unwrap();
    assert_eq!(stage.names(b), ["call:signal"; 2]);
}

#[test]
fn the_offer_of_the_impolite_side_comes_first() {
    let mut stage = Stage::new();
    // b joined later: it is the polite side.
    let (a, b, call) = stage.active();
    stage.signal(a, &call, json!({ "type": "offer", "sdp": sdp("a") })).unwrap();
    let polite = json!({ "type": "offer", "sdp": sdp("b") });
    stage.clear();
    assert_eq!(code(stage.signal(b, &call, polite.clone())), "OFFER_COLLISION");
    assert!(stage.names(a).is_empty());
    stage.signal(b, &call, json!({ "type": "answer", "sdp": sdp("answer") })).unwrap();
    stage.signal(b, &call, polite).unwrap();
    assert_eq!(stage.names(a), ["call:signal"; 2]);
    // The other way round the impolite offer passes and wins.
    stage.clear();
    stage.signal(a, &call, json!({ "type": "offer", "sdp": sdp("a2") })).unwrap();
    assert_eq!(stage.names(b), ["call:signal"]);
    assert_eq!(code(stage.signal(b, &call, json!({ "type": "offer", "sdp": sdp("b2") }))), "OFFER_COLLISION");
}

#[test]
fn a_glare_of_one_pair_does_not_stop_another() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    stage.signal(a, &call, json!({ "type": "offer", "to": "c", "sdp": sdp("ac") })).unwrap();
    stage.signal(c, &call, json!({ "type": "offer", "to": "b", "sdp": sdp("cb") })).unwrap();
    stage.expect(b, "call:signal");
}

#[test]
fn a_side_that_comes_back_is_not_held_to_an_offer_it_never_saw() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.signal(a, &call, json!({ "type": "offer", "sdp": sdp("a") })).unwrap();
    stage.close(b);
    let b = stage.open("b");
    stage.join(b, &call);
    stage.clear();
    stage.signal(b, &call, json!({ "type": "offer", "sdp": sdp("fresh page") })).unwrap();
    assert_eq!(stage.names(a), ["call:signal"]);
}

#[test]
fn an_answer_to_an_older_offer_is_refused() {
    let mut stage = Stage::new();
    let (a, b, call) = stage.active();
    stage.signal(a, &call, json!({ "type": "offer", "sdp": sdp("1"), "negotiationId": "n1" })).unwrap();
    stage.signal(a, &call, json!({ "type": "offer", "sdp": sdp("2"), "negotiationId": "n2" })).unwrap();
    let answer = |id: &str| json!({ "type": "answer", "sdp": sdp("yes"), "negotiationId": id });
    assert_eq!(code(stage.signal(b, &call, answer("n1"))), "CALL_STATE_CONFLICT");
    stage.signal(b, &call, answer("n2")).unwrap();
    assert_eq!(stage.expect(a, "call:signal")["signal"]["negotiationId"], "n2");
}

#[test]
fn an_answer_that_waited_connects_when_it_is_delivered() {
    let mut stage = Stage::new();
    let (a, b) = (stage.open("a"), stage.open("b"));
    let call = stage.call(a, &["b"]);
    stage.join(b, &call);
    stage.signal(a, &call, json!({ "type": "offer", "sdp": sdp("1") })).unwrap();
    stage.close(a);
    stage.signal(b, &call, json!({ "type": "answer", "sdp": sdp("2") })).unwrap();
    assert_eq!(stage.record(&call).status, "connecting");
    let a = stage.open("a");
    stage.join(a, &call);
    assert_eq!(stage.record(&call).status, "active");
    stage.pass(60.0);
    assert_eq!(stage.hub.running(), 1);
}

#[test]
fn the_same_description_to_another_target_is_no_repetition() {
    let mut stage = Stage::new();
    let (a, b, c, call) = stage.trio();
    for to in ["b", "c"] {
        stage.signal(a, &call, json!({ "type": "offer", "to": to, "sdp": sdp("same") })).unwrap();
    }
    assert_eq!((stage.names(b), stage.names(c)), (vec!["call:signal"], vec!["call:signal"]));
}
