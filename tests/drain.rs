//! The end of the server, with a call that runs: it is served until it ends, recorded, and only then the process ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;

use serde_json::json;
use sqlx::Row as _;
use stun::attributes::ATTR_ALTERNATE_SERVER;
use support::server::LOOPBACK_PEERS;
use support::{Caller, Client, EchoPeer, Request, Server, eventually, http_get};

/// Starts a server and a call on it: both sides and the id.
fn running_call(config: &str) -> (Server, Caller, Caller, String) {
    let server = Server::start(config);
    let (mut alice, mut bob) = (Caller::of(&server, "alice"), Caller::of(&server, "bob"));
    let call = alice.request("call:initiate", &json!({"to": "bob", "type": "video", "roomId": "tea"}));
    let id = call["callId"].as_str().unwrap().to_owned();
    bob.next("call:initiated");
    bob.request("call:join", &json!({"callId": id}));
    alice.next("call:participant-joined");
    (server, alice, bob, id)
}

#[tokio::main(flavor = "current_thread")]
async fn records(path: &Path) -> Vec<(String, String, Option<i64>)> {
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let rows = sqlx::query("SELECT id, status, ended_at FROM calls").fetch_all(&pool).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[test]
fn a_call_that_runs_is_served_until_it_ends_and_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("calls.db");
    let store = format!("[store]\nurl = \"sqlite:{}\"\n[drain]\ntimeout = \"10m\"\n", database.display());
    let (server, mut alice, mut bob, id) = running_call(&store);
    server.signal("TERM");
    let readyz = || http_get::get(server.http, "/readyz").unwrap().0;
    eventually("/readyz says 503", || (readyz() == 503).then_some(()));
    server.await_metric("passerelle_draining", &[], 1.0);
    alice.request("call:toggle-audio", &json!({"callId": id, "enabled": false}));
    bob.next("call:media-toggled");
    alice.request("call:leave", &json!({"callId": id}));
    bob.next("call:ended");
    server.stopped();
    let records = records(&database);
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].0, id);
    assert!(records[0].2.is_some(), "{records:?}");
}

#[test]
fn the_deadline_ends_a_drain() {
    let (server, ..) = running_call("[drain]\ntimeout = \"100ms\"\n");
    let log = server.stop();
    assert!(log.contains("drain.timeout is over"), "{log}");
}

#[test]
fn a_second_signal_ends_a_drain() {
    let (server, ..) = running_call("[drain]\ntimeout = \"10m\"\n");
    server.signal("TERM");
    eventually("the drain starts", || server.log().contains("draining").then_some(()));
    server.signal("INT");
    let log = server.stopped();
    assert!(log.contains("a second signal"), "{log}");
}

/// Starts a server and an allocation on it that relays to an echoing peer.
fn running_relay(config: &str) -> (Server, Client, EchoPeer) {
    let server = Server::start(&format!("{LOOPBACK_PEERS}{config}"));
    let peer = EchoPeer::start();
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    (server, client, peer)
}

fn relays(client: &Client) {
    client.send_channel_data(0x4000, b"still here");
    assert_eq!(client.receive().get(4..14), Some(&b"still here"[..]));
}

#[test]
fn an_allocation_that_runs_is_served_until_it_is_given_up() {
    let (server, mut client, peer) = running_relay("[drain]\ntimeout = \"10m\"\n");
    relays(&client);
    server.signal("TERM");
    let readyz = || http_get::get(server.http, "/readyz").unwrap().0;
    eventually("/readyz says 503", || (readyz() == 503).then_some(()));
    server.await_metric("passerelle_draining", &[], 1.0);
    let mut late = Client::new(server.turn());
    assert_eq!(late.ask_signed(Request::allocate()).code(), 508, "nothing new");
    assert_eq!(client.ask_signed(Request::refresh(600)).lifetime(), 600, "a refresh is honoured");
    assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
    relays(&client);
    assert_eq!(readyz(), 503);
    assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
    let log = server.stopped();
    assert!(log.contains("no call and no allocation is left"), "{log}");
}

#[test]
fn a_drain_sends_new_clients_to_the_alternate_server() {
    let (server, mut client, _peer) =
        running_relay("[turn]\nalternate_server = \"192.0.2.8:3478\"\n[drain]\ntimeout = \"10m\"\n");
    server.signal("TERM");
    eventually("the drain starts", || server.log().contains("draining").then_some(()));
    let mut late = Client::new(server.turn());
    let answer = eventually("it is sent elsewhere", || {
        let answer = late.ask_signed(Request::allocate());
        (answer.code() == 300).then_some(answer)
    });
    let (family, [high, low]) = (1, 3478_u16.to_be_bytes());
    assert_eq!(answer.value(ATTR_ALTERNATE_SERVER).unwrap(), [0, family, high, low, 192, 0, 2, 8]);
    relays(&client);
    assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
    server.stopped();
}

#[test]
fn the_deadline_ends_what_is_still_relayed() {
    let (server, client, _peer) = running_relay("[drain]\ntimeout = \"1s\"\n");
    relays(&client);
    let log = server.stop();
    assert!(log.contains("drain.timeout is over"), "{log}");
    assert!(log.contains("\"allocations\":1"), "{log}");
}
