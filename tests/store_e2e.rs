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
use support::{Postgres, Server, eventually, http_get};

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

#[test]
fn what_was_missed_is_told_after_a_restart_and_listed_for_ever() {
    let database = Database::new();
    let server = Server::start(&database.config());
    let mut ana = Device::of(&server, "ana", Framing::WebSocket, true);
    let refused = ana.refused("call:initiate", &json!({ "to": "bruno", "type": "audio" }));
    assert_eq!(refused["code"], "USER_OFFLINE");
    database.row("SELECT 1 FROM missed_calls");
    server.signal("KILL");
    drop((ana, server));

    for told in [1, 0] {
        let server = Server::start(&database.config());
        let hello = json!({ "token": device::token("bruno") });
        let mut bruno = Device::dial(&server, Framing::WebSocket, &hello, None);
        let missed = bruno.next("session:ready")["missed"].clone();
        assert_eq!(missed.as_array().map(Vec::len), Some(told), "{missed}");
        if told == 1 {
            assert_eq!(missed[0]["initiator"]["displayName"], "ANA", "{missed}");
            database.row("SELECT 1 FROM missed_seen");
        }
        let (status, list) = rest(&server, "bruno", "calls/missed");
        assert_eq!((status, list["calls"].as_array().map(Vec::len)), (200, Some(1)), "{list}");
        assert_eq!((&list["calls"][0]["userId"], &list["next"]), (&json!("bruno"), &Value::Null));
        assert_eq!(rest(&server, "ana", "calls/missed").1["calls"], json!([]), "the caller missed nothing");
    }
}

#[test]
fn the_steps_of_a_call_are_there_for_those_who_were_in_it() {
    let database = Database::new();
    let server = Server::start(&database.config());
    let (mut ana, mut bruno) = pair(&server);
    let id = running_call(&mut ana, &mut bruno);
    let (status, running) = rest(&server, "ana", &format!("calls/{id}"));
    assert_eq!((status, &running["status"], &running["endedAt"]), (200, &json!("active"), &Value::Null));
    ana.ask("call:leave", &json!({ "callId": id }));
    bruno.next("call:ended");
    let over = ended(&server, "bruno", &id);
    let fields = |record: &Value| record.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&running), fields(&over), "one shape, whatever its state");
    database.row("SELECT 1 FROM call_events WHERE kind = 'call.ended'");
    let (_, steps) = rest(&server, "bruno", &format!("calls/{id}/events"));
    let kinds: Vec<&str> =
        steps["events"].as_array().unwrap().iter().map(|step| step["type"].as_str().unwrap()).collect();
    let expected = ["initiated", "ringing", "answered", "participant_joined", "participant_left", "ended"];
    assert_eq!(kinds, expected.map(|kind| format!("call.{kind}")), "{steps}");
    assert_eq!(rest(&server, "mallory", &format!("calls/{id}/events")).0, 404);
}

/// What `/readyz` says of the database.
fn store(server: &Server) -> String {
    let (status, body) = http_get::get(server.http, "/readyz").unwrap();
    assert_eq!(status, 200, "calls go on");
    let said: Value = serde_json::from_str(&body).unwrap();
    said["store"].as_str().unwrap().to_owned()
}

#[test]
fn a_database_that_comes_late_gets_what_waited_for_it() {
    let mut database = Postgres::new();
    let server = Server::start(&database.config());
    assert_eq!(store(&server), "away");
    let (mut ana, mut bruno) = pair(&server);
    let id = running_call(&mut ana, &mut bruno);
    assert_eq!(rest(&server, "ana", &format!("calls/{id}")).1["status"], "active");
    ana.ask("call:leave", &json!({ "callId": id }));
    bruno.next("call:ended");
    assert_eq!(rest(&server, "ana", "calls").0, 503);
    assert!(server.scrape().sum("passerelle_store_queue_length", &[]) >= 1.0);
    assert_eq!(server.scrape().sum("passerelle_store_up", &[]), 0.0);

    database.start();
    eventually("the database has the call", || {
        let (status, list) = rest(&server, "bruno", "calls");
        (status == 200 && ids(&list) == [id.clone()]).then_some(())
    });
    eventually("it is known to be there", || (store(&server) == "up").then_some(()));
    server.await_metric("passerelle_store_queue_length", &[], 0.0);
    assert_eq!(server.scrape().sum("passerelle_store_writes_total", &[("result", "dropped")]), 0.0);
    server.stop();
}

#[test]
fn calls_in_a_database_that_comes_late_go_on_when_it_is_there() {
    let mut database = Postgres::new();
    database.start();
    let server = Server::start(&database.config());
    eventually("the database is there", || (store(&server) == "up").then_some(()));
    let (mut ana, mut bruno) = pair(&server);
    let id = running_call(&mut ana, &mut bruno);
    eventually("the call is written", || {
        let (_, list) = rest(&server, "ana", "calls?status=active");
        list["calls"].as_array().is_some_and(|calls| calls.len() == 1).then_some(())
    });
    server.signal("KILL");
    drop((ana, bruno, server));
    database.stop();

    let server = Server::start(&database.config());
    let (mut ana, mut bruno) = pair(&server);
    let call = json!({ "callId": id });
    assert_eq!(ana.refused("call:join", &call)["code"], "CALL_NOT_FOUND");
    database.start();
    assert_eq!(ana.next("call:state")["call"]["status"], "reconnecting");
    for device in [&mut ana, &mut bruno] {
        device.ask("call:join", &call);
    }
    ana.ask("call:leave", &call);
    assert_eq!(bruno.next("call:ended")["reason"], "completed");
    eventually("the end is written", || {
        let (_, list) = rest(&server, "ana", "calls?status=completed");
        list["calls"].as_array().is_some_and(|calls| calls.len() == 1).then_some(())
    });
}

#[test]
fn a_database_that_refuses_or_cannot_be_made_is_an_error_at_the_start() {
    let said = Server::refused("[store]\nurl = \"sqlite:/no/such/folder/calls.db\"\n");
    assert!(said.contains("store.url"), "{said}");
    let said = Server::refused("[store]\nurl = \"mysql://localhost/calls\"\n");
    assert!(said.contains("is no database"), "{said}");
    let mut database = Postgres::new();
    database.start();
    let nowhere = database.config().replace("/postgres\"", "/nowhere\"");
    // One that still starts is away, not wrong.
    eventually("PostgreSQL accepts connections", || database.accepts().then_some(()));
    let said = Server::refused(&nowhere);
    assert!(said.contains("nowhere"), "{said}");
}
