//! A server that dies with calls on it: the next process takes them up, and who was in them gets back in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;

use serde_json::json;
use support::{Caller, Server, eventually, http_get};

/// An anonymous caller that keeps its secret.
fn anonymous(server: &Server, key: &str) -> Caller {
    Caller::connect(server, &json!({ "anonymousKey": key.repeat(16) }))
}

fn start(database: &Path) -> Server {
    let url = database.display();
    Server::start(&format!("[auth]\nanonymous = \"loopback\"\n[store]\nurl = \"sqlite:{url}\"\n"))
}

#[test]
fn a_call_survives_the_death_of_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("calls.db");
    let server = start(&database);
    let (mut alice, mut bob) = (anonymous(&server, "a"), anonymous(&server, "b"));
    let call = alice.request("call:initiate", &json!({"to": bob.user(), "type": "audio"}));
    let call = json!({"callId": call["callId"]});
    bob.next("call:initiated");
    bob.request("call:join", &call);
    alice.next("call:participant-joined");
    let written = || {
        let (_, metrics) = http_get::get(server.metrics, "/metrics").unwrap();
        metrics.contains("passerelle_store_queue_length 0").then_some(())
    };
    eventually("the record is written", written);
    server.signal("KILL");
    drop(server);

    let server = start(&database);
    let mut alice = anonymous(&server, "a");
    assert_eq!(alice.ready["activeCalls"][0]["callId"], call["callId"], "{}", alice.ready);
    let mut bob = anonymous(&server, "b");
    alice.request("call:join", &call);
    let joined = bob.request("call:join", &call);
    assert_eq!(joined["callSession"]["callId"], call["callId"]);
    alice.request("call:toggle-audio", &json!({"callId": call["callId"], "enabled": false}));
    assert_eq!(bob.next("call:media-toggled")["userId"], alice.user());
    alice.request("call:leave", &call);
    assert_eq!(bob.next("call:ended")["reason"], "completed");
}
