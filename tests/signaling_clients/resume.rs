//! Sessions that outlive their connections: nothing is lost, nothing is done twice.

use serde_json::{Value, json};

use crate::device::{Device, Framing, POLLING_ONLY, UPGRADE, WEBSOCKET_ONLY, token};
use crate::golden::{ANSWER, OFFER, assert_candidate, candidate};
use crate::records::ended;
use crate::support::Server;

#[test]
fn a_session_goes_on_over_socket_io() {
    goes_on(WEBSOCKET_ONLY);
}

#[test]
fn a_session_goes_on_over_polling() {
    goes_on(POLLING_ONLY);
}

#[test]
fn a_session_goes_on_over_socket_io_that_upgrades() {
    goes_on(UPGRADE);
}

#[test]
fn a_session_goes_on_over_websocket() {
    goes_on(Framing::WebSocket);
}

/// A hello that resumes a session, of which everything up to `seq` has arrived.
fn hello(user: &str, ready: &Value, seq: u64) -> Value {
    json!({ "token": token(user), "resume": { "sid": ready["sid"], "key": ready["resume"]["key"], "seq": seq } })
}

/// Ana's network is gone with her old connection still open; her next one takes the session over.
fn goes_on(framing: Framing) {
    let server = Server::start("");
    let mut ana = Device::dial(&server, framing, &json!({ "token": token("ana") }), None);
    let ready = ana.next("session:ready");
    let mut bruno = Device::of(&server, "bruno", Framing::WebSocket, true);
    let call = ana.ask("call:initiate", &json!({ "to": "bruno", "type": "video" })).unwrap();
    let id = call["callId"].as_str().unwrap();
    bruno.ask("call:join", &json!({ "callId": id })).unwrap();
    bruno.ask("call:signal", &json!({ "callId": id, "signal": { "type": "offer", "sdp": OFFER } }));
    let seen = ana.next("call:signal")["seq"].as_u64().unwrap();
    let toggle = json!({ "callId": id, "enabled": false, "msgId": "t1" });
    let rev = ana.ask("call:toggle-audio", &toggle).unwrap();
    ana.ask("call:signal", &json!({ "callId": id, "signal": { "type": "answer", "sdp": ANSWER } }));
    bruno.ask("call:signal", &candidate(id, 300));
    bruno.ask("call:signal", &candidate(id, 301));

    let mut again = Device::dial(&server, framing, &hello("ana", &ready, seen), None);
    let resumed = again.next("session:ready");
    assert_eq!((&resumed["resumed"], &resumed["sid"]), (&json!(true), &ready["sid"]), "{resumed}");
    assert_ne!(resumed["resume"]["key"], ready["resume"]["key"], "a key is good once");
    assert_eq!(again.next("call:media-toggled")["seq"], seen + 1);
    for number in [300, 301] {
        assert_candidate(&again.next("call:signal"), "bruno", number);
    }
    again.has_not_heard("call:signal");
    let gapless: Vec<u64> = (seen + 1..).take(again.seqs.len()).collect();
    assert_eq!(again.seqs, gapless, "each event once and in order");
    ana.next("session:replaced");
    let reason = ana.closed();
    assert!(framing != Framing::WebSocket || reason == "4409", "{reason}");

    // The same request again is answered again, and not done again.
    assert_eq!(again.ask("call:toggle-audio", &toggle).unwrap(), rev);
    again.has_not_heard("call:media-toggled");
    again.ask("call:leave", &json!({ "callId": id }));
    assert_eq!(bruno.next("call:ended")["endedBy"], "ana");
    let record = ended(&server, "ana", id);
    assert_eq!(record["status"], "completed");
    let result = [("result", "resumed")];
    assert_eq!(server.scrape().sum("passerelle_signaling_session_resume_total", &result), 1.0);
}

/// Every way to connect.
const FRAMINGS: [Framing; 4] = [WEBSOCKET_ONLY, POLLING_ONLY, UPGRADE, Framing::WebSocket];

#[test]
fn a_request_whose_answer_was_lost_is_done_once() {
    let server = Server::start("");
    for framing in FRAMINGS {
        let user = format!("{framing:?}").replace(|letter: char| !letter.is_ascii_alphabetic(), "");
        let mut bruno = Device::of(&server, &format!("{user}-other"), Framing::WebSocket, true);
        let mut ana = Device::dial(&server, framing, &json!({ "token": token(&user) }), None);
        let mut ready = ana.next("session:ready");
        // The connection is lost right behind the request: it may have arrived or not.
        let start = json!({ "to": format!("{user}-other"), "type": "video", "msgId": "start" });
        ana.post("call:initiate", &start, Some(1));
        ana.cut();
        let mut again = |seq: u64| {
            let mut device = Device::dial(&server, framing, &hello(&user, &ready, seq), None);
            ready = device.next("session:ready");
            assert_eq!(ready["resumed"], true, "{framing:?}: {ready}");
            device
        };
        let mut ana = again(0);
        let call = ana.ask("call:initiate", &start).unwrap();
        let id = json!({ "callId": call["callId"] });
        assert_eq!(ana.ask("call:initiate", &start).unwrap(), call, "answered as before");
        assert_eq!(bruno.next("call:initiated")["callId"], call["callId"]);
        bruno.has_not_heard("call:initiated");
        bruno.ask("call:join", &id);
        let seen = ana.next("call:participant-joined")["seq"].as_u64().unwrap();
        let message = json!({ "callId": call["callId"], "data": "once", "msgId": "message" });
        ana.post("call:message", &message, Some(2));
        ana.cut();
        let mut ana = again(seen);
        ana.ask("call:message", &message);
        assert_eq!(bruno.next("call:message")["data"], "once");
        bruno.has_not_heard("call:message");
        ana.ask("call:leave", &id);
        bruno.next("call:ended");
    }
}

#[test]
fn a_session_moves_from_one_transport_to_another() {
    let server = Server::start("");
    let mut old = Device::dial(&server, POLLING_ONLY, &json!({ "token": token("ana") }), None);
    let mut ready = old.next("session:ready");
    let sid = ready["sid"].clone();
    let mut bruno = Device::of(&server, "bruno", Framing::WebSocket, true);
    let call = old.ask("call:initiate", &json!({ "to": "bruno", "type": "video" })).unwrap();
    let id = call["callId"].as_str().unwrap();
    bruno.ask("call:join", &json!({ "callId": id }));
    let mut seen = old.next("call:participant-joined")["seq"].as_u64().unwrap();
    for (number, framing) in
        [(300, UPGRADE), (301, Framing::WebSocket), (302, WEBSOCKET_ONLY), (303, POLLING_ONLY)]
    {
        // What was on its way to the old transport comes over the new one, which the old one is closed for.
        bruno.ask("call:signal", &candidate(id, number));
        let mut new = Device::dial(&server, framing, &hello("ana", &ready, seen), None);
        ready = new.next("session:ready");
        assert_eq!((&ready["resumed"], &ready["sid"]), (&json!(true), &sid), "{framing:?}: {ready}");
        let signal = new.next("call:signal");
        assert_candidate(&signal, "bruno", number);
        old.next("session:replaced");
        old.closed();
        seen = new.next("call:state")["seq"].as_u64().unwrap();
        assert!(new.seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{:?}", new.seqs);
        old = new;
    }
    old.ask("call:leave", &json!({ "callId": id }));
    bruno.next("call:ended");
}

#[test]
fn a_used_key_or_the_key_of_somebody_else_opens_a_session_of_its_own() {
    let server = Server::start("");
    for framing in FRAMINGS {
        let mut ana = Device::dial(&server, framing, &json!({ "token": token("ana") }), None);
        let ready = ana.next("session:ready");
        let mut again = Device::dial(&server, framing, &hello("ana", &ready, 0), None);
        assert_eq!(again.next("session:ready")["resumed"], true);
        again.acked("call:heartbeat", &json!({})).unwrap();
        for user in ["ana", "bruno"] {
            let mut late = Device::dial(&server, framing, &hello(user, &ready, 0), None);
            let fresh = late.next("session:ready");
            assert_eq!((&fresh["resumed"], &fresh["userId"]), (&json!(false), &json!(user)), "{fresh}");
            assert_ne!(fresh["sid"], ready["sid"]);
        }
        // The session itself does not mind.
        again.acked("call:heartbeat", &json!({})).unwrap();
    }
}
