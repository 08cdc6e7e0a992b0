//! Callers without a token.

use serde_json::{Value, json};

use super::socketio::{attempt, event, packet};
use super::support::{Client, Server};
use crate::auth::Mode;

const KEY: &str = "0123456789abcdef";

/// A plain WebSocket of an anonymous caller, and its `session:ready`.
async fn open(server: &Server, key: Option<&str>) -> (Client, Value) {
    let mut client = Client::plain(server).await;
    client.send(&json!({"v": 1, "t": "hello", "p": {"anonymousKey": key}})).await;
    let ready = client.receive().await;
    assert_eq!(ready["t"], "session:ready", "{ready}");
    (client, ready["p"].clone())
}

#[tokio::test]
async fn an_anonymous_caller_that_comes_back_is_the_same_user_on_both_framings_and_in_rest() {
    let server = Server::start(Mode::Loopback, |_| {}).await;
    let (_, first) = open(&server, Some(KEY)).await;
    let (_, second) = open(&server, Some(KEY)).await;
    let (_, stranger) = open(&server, None).await;
    assert_eq!(first["userId"], second["userId"]);
    assert_ne!(first["userId"], stranger["userId"]);
    let mut socket = attempt(&server, &json!({"anonymousKey": KEY})).await;
    assert!(packet(&mut socket).await.starts_with("40{"));
    let (name, ready) = event(&mut socket).await;
    assert_eq!((name.as_str(), &ready["userId"]), ("session:ready", &first["userId"]));

    let answer = reqwest::Client::new()
        .get(server.url("/api/v1/calls"))
        .header("authorization", format!("Anonymous {KEY}"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let asked = server.store.0.lock().pop().unwrap();
    assert_eq!(Some(&*asked.user.unwrap().0), first["userId"].as_str());
}

#[tokio::test]
async fn an_anonymous_caller_that_comes_back_finds_its_call() {
    let server = Server::start(Mode::Loopback, |_| {}).await;
    let (mut caller, _) = open(&server, Some(KEY)).await;
    let (_callee, callee) = open(&server, None).await;
    let request = json!({"to": callee["userId"], "type": "audio"});
    caller.send(&json!({"v": 1, "t": "call:initiate", "id": "1", "p": request})).await;
    let ack = caller.receive().await;
    drop(caller);
    let (_, ready) = open(&server, Some(KEY)).await;
    assert_eq!(ready["activeCalls"][0]["callId"], ack["p"]["callId"], "{ready}");
}

#[tokio::test]
async fn a_secret_that_could_be_guessed_is_refused() {
    let server = Server::start(Mode::Loopback, |_| {}).await;
    let mut client = Client::plain(&server).await;
    client.send(&json!({"v": 1, "t": "hello", "id": "h", "p": {"anonymousKey": "short"}})).await;
    assert_eq!(client.receive().await["error"]["code"], "VALIDATION_ERROR");
    assert_eq!(client.closed().await, 4401);
}
