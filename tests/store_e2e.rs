//! What calls leave behind, by real clients and the real binary: over a restart, page by page, with their quality.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "signaling_clients/device.rs"]
mod device;
#[path = "signaling_clients/records.rs"]
mod records;
mod support;

use device::{Device, Framing};
use records::{Database, ended, rest};
use serde_json::{Value, json};
use support::Server;

const DESCRIPTION: &str =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";

/// A call that Ana starts and Bruno takes; both are left in it.
fn running_call(ana: &mut Device, bruno: &mut Device) -> String {
    let call = ana.ask("call:initiate", &json!({ "to": "bruno", "type": "audio" })).unwrap();
    let id = call["callId"].as_str().unwrap().to_owned();
    bruno.ask("call:join", &json!({ "callId": id }));
    for (device, kind) in [(&mut *bruno, "offer"), (ana, "answer")] {
        let signal = json!({ "type": kind, "sdp": DESCRIPTION });
        device.ask("call:signal", &json!({ "callId": id, "signal": signal }));
    }
    id
}

fn pair(server: &Server) -> (Device, Device) {
    let device = |user| Device::of(server, user, Framing::WebSocket, true);
    (device("ana"), device("bruno"))
}

fn ids(list: &Value) -> Vec<String> {
    let calls = list["calls"].as_array().unwrap_or_else(|| panic!("no calls: {list}"));
    calls.iter().map(|call| call["callId"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn records_outlive_the_server_and_are_read_page_by_page() {
    let database = Database::new();
    let server = Server::start(&database.config());
    let (mut ana, mut bruno) = pair(&server);
    let mut calls = Vec::new();
    for _ in 0..3 {
        let id = running_call(&mut ana, &mut bruno);
        bruno.ask("call:leave", &json!({ "callId": id }));
        ana.next("call:ended");
        ended(&server, "ana", &id);
        calls.insert(0, id);
    }
    drop((ana, bruno));
    server.stop();

    let server = Server::start(&database.config());
    let (status, first) = rest(&server, "bruno", "calls?limit=2");
    assert_eq!((status, ids(&first)), (200, calls[..2].to_vec()));
    let next = first["next"].as_str().expect("a cursor");
    let (_, last) = rest(&server, "bruno", &format!("calls?limit=2&cursor={next}"));
    assert_eq!((ids(&last), &last["next"]), (calls[2..].to_vec(), &Value::Null));
    for (direction, count) in [("incoming", 3), ("outgoing", 0)] {
        let (_, list) = rest(&server, "bruno", &format!("calls?direction={direction}"));
        assert_eq!(ids(&list).len(), count, "{direction}");
    }
    assert_eq!(rest(&server, "bruno", "calls?cursor=rubbish").0, 400);
}

#[test]
fn a_call_that_runs_while_the_server_is_killed_goes_on_and_is_recorded_once() {
    let database = Database::new();
    let server = Server::start(&database.config());
    let (mut ana, mut bruno) = pair(&server);
    let id = running_call(&mut ana, &mut bruno);
    database.row("SELECT 1 FROM calls WHERE status = 'active'");
    server.signal("KILL");
    drop((ana, bruno, server));

    let server = Server::start(&database.config());
    let (mut ana, mut bruno) = pair(&server);
    for device in [&mut ana, &mut bruno] {
        let joined = device.ask("call:join", &json!({ "callId": id })).unwrap();
        assert_eq!(joined["callSession"]["callId"], *id);
    }
    // Both are back where they were: whoever says something is heard.
    let toggle = json!({ "callId": id, "enabled": false });
    ana.ask("call:toggle-audio", &toggle);
    assert_eq!(bruno.next("call:media-toggled")["userId"], "ana");
    ana.ask("call:leave", &json!({ "callId": id }));
    assert_eq!(bruno.next("call:ended")["reason"], "completed");
    let record = ended(&server, "bruno", &id);
    assert!(record["duration"].is_u64(), "{record}");
    assert_eq!(ids(&rest(&server, "ana", "calls").1), [id]);
}

#[test]
fn a_record_knows_how_good_the_call_was() {
    let database = Database::new();
    let server = Server::start(&database.config());
    let (mut ana, mut bruno) = pair(&server);
    let id = running_call(&mut ana, &mut bruno);
    let stats = json!({ "rtt": 42, "packetLoss": 0.5, "jitter": 7, "candidateType": "relay" });
    ana.ask("call:quality-report", &json!({ "callId": id, "stats": stats }));
    ana.ask("call:leave", &json!({ "callId": id }));
    bruno.next("call:ended");
    let record = ended(&server, "ana", &id);
    assert_eq!(record["quality"], "good", "{record}");
    let ana = record["participants"].as_array().unwrap().iter().find(|who| who["userId"] == "ana").unwrap();
    assert_eq!(ana["iceMethod"], "relay", "{record}");
    assert_eq!(ana["rttAvgMs"].as_f64(), Some(42.0), "{record}");
}
