//! Sessions that go on: resume, take-over, exactly once, another token; over both framings.

use serde_json::{Value, json};

use super::socketio::{attempt, connected, event, packet};
use super::support::{Client, Server, eventually, token};
use crate::auth::Mode;

/// A plain WebSocket that says hello with these fields besides its token; it and its `session:ready`.
async fn hello(server: &Server, user: &str, more: Value) -> (Client, Value) {
    let mut client = Client::plain(server).await;
    let mut payload = more;
    payload["token"] = json!(token(user));
    client.send(&json!({"v": 1, "t": "hello", "p": payload})).await;
    let ready = client.receive().await;
    assert_eq!(ready["t"], "session:ready", "{ready}");
    (client, ready["p"].clone())
}

/// The wish to go on with the session of a `session:ready`.
fn wish(ready: &Value, seq: u64) -> Value {
    json!({"sid": ready["sid"], "key": ready["resume"]["key"], "seq": seq})
}

/// Ada rings Bob; the call.
async fn ring(server: &Server, caller: &mut Client) -> String {
    let request = json!({"to": "bob", "type": "audio"});
    caller.send(&json!({"v": 1, "t": "call:initiate", "id": "1", "p": request})).await;
    let ack = caller.receive().await;
    assert_eq!(ack["ok"], true, "{ack}");
    eventually("the call runs", || server.engine.sessions() > 0).await;
    ack["p"]["callId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_websocket_that_comes_back_gets_exactly_what_it_missed() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (mut bob, ready) = hello(&server, "bob", json!({})).await;
    let (mut ada, _) = hello(&server, "ada", json!({})).await;
    let first = ring(&server, &mut ada).await;
    let seen = bob.receive().await;
    assert_eq!((&seen["t"], &seen["p"]["callId"]), (&json!("call:initiated"), &json!(first)));
    drop(bob);
    eventually("the transport is gone", || server.engine.sessions() == 1).await;
    ada.send(&json!({"v": 1, "t": "call:leave", "id": "2", "p": {"callId": first}})).await;

    let resume = wish(&ready, seen["seq"].as_u64().unwrap());
    let (mut bob, again) = hello(&server, "bob", json!({"resume": resume})).await;
    assert_eq!((&again["resumed"], &again["sid"]), (&json!(true), &ready["sid"]));
    assert_ne!(again["resume"]["key"], ready["resume"]["key"]);
    let mut last = seen["seq"].as_u64().unwrap();
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "call:ended") {
        let event = bob.receive().await;
        last += 1;
        assert_eq!(event["seq"], last, "{event}");
        names.push(event["t"].as_str().unwrap().to_owned());
    }
    assert!(!names.contains(&"call:initiated".to_owned()), "doubled: {names:?}");
}

#[tokio::test]
async fn a_socketio_client_that_comes_back_gets_what_it_missed_with_its_numbers() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut bob = attempt(&server, &json!({"token": token("bob")})).await;
    assert!(packet(&mut bob).await.starts_with("40{"));
    let (_, ready) = event(&mut bob).await;
    drop(bob);
    eventually("the transport is gone", || server.engine.sessions() == 0).await;
    let (mut ada, _) = hello(&server, "ada", json!({})).await;
    let (mut other, _) = hello(&server, "bob", json!({})).await;
    let call = ring(&server, &mut ada).await;
    assert_eq!(other.receive().await["t"], "call:initiated");

    let auth = json!({"token": token("bob"), "resume": wish(&ready, 0)});
    let mut bob = attempt(&server, &auth).await;
    assert!(packet(&mut bob).await.starts_with("40{"));
    let (name, again) = event(&mut bob).await;
    assert_eq!((name.as_str(), &again["resumed"]), ("session:ready", &json!(true)), "{again}");
    let (name, initiated) = event(&mut bob).await;
    assert_eq!((name.as_str(), &initiated["callId"]), ("call:initiated", &json!(call)));
    assert_eq!(initiated["seq"], 1);
}

#[tokio::test]
async fn the_newest_transport_takes_the_session_over_from_a_half_open_one() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (mut old, ready) = hello(&server, "bob", json!({})).await;
    let (_new, again) = hello(&server, "bob", json!({"resume": wish(&ready, 0)})).await;
    assert_eq!(again["resumed"], true);
    assert_eq!(old.receive().await["t"], "session:replaced");
    assert_eq!(old.closed().await, 4409);
    eventually("one transport is left", || server.engine.sessions() == 1).await;
}

#[tokio::test]
async fn a_socketio_session_moves_to_a_websocket() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut old = attempt(&server, &json!({"token": token("bob")})).await;
    assert!(packet(&mut old).await.starts_with("40{"));
    let (_, ready) = event(&mut old).await;
    let (_new, again) = hello(&server, "bob", json!({"resume": wish(&ready, 0)})).await;
    assert_eq!(again["resumed"], true);
    assert_eq!(event(&mut old).await.0, "session:replaced");
    assert!(packet(&mut old).await.starts_with("41"));
}

#[tokio::test]
async fn a_key_is_good_once_and_for_its_owner_only() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (_bob, ready) = hello(&server, "bob", json!({})).await;
    let mut forged = wish(&ready, 0);
    forged["key"] = json!("0".repeat(32));
    for (user, wish) in [
        ("mallory", wish(&ready, 0)),
        ("bob", forged),
        ("bob", json!({"sid": 1})),
        ("bob", json!("x")),
        ("bob", json!({"sid": "unknown", "key": "k", "seq": 3})),
    ] {
        let (_, other) = hello(&server, user, json!({"resume": wish})).await;
        assert_eq!(other["resumed"], false, "{wish}");
        assert_ne!(other["sid"], ready["sid"]);
    }
}

#[tokio::test]
async fn a_request_that_is_sent_again_after_a_loss_has_one_effect_and_its_first_outcome() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (mut ada, ready) = hello(&server, "ada", json!({})).await;
    let _bob = connected(&server, "bob").await;
    let request = json!({"to": "bob", "type": "audio", "msgId": "m1"});
    let frame = json!({"v": 1, "t": "call:initiate", "id": "1", "p": request});
    ada.send(&frame).await;
    let first = ada.receive().await;
    drop(ada);
    eventually("the transport is gone", || server.engine.sessions() == 1).await;
    let (mut ada, again) = hello(&server, "ada", json!({"resume": wish(&ready, 0)})).await;
    assert_eq!(again["activeCalls"].as_array().unwrap().len(), 1);
    ada.send(&frame).await;
    loop {
        let frame = ada.receive().await;
        if frame["t"] == "ack" {
            assert_eq!(frame["p"]["callId"], first["p"]["callId"], "{frame}");
            break;
        }
    }
}

#[tokio::test]
async fn a_session_takes_another_token_of_its_user_and_of_nobody_else() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (mut ada, _) = hello(&server, "ada", json!({})).await;
    let mut bob = connected(&server, "bob").await;
    for (sent, code) in [
        (json!({"token": token("ada")}), None),
        (json!({"token": token("bob")}), Some("PERMISSION_DENIED")),
        (json!({"token": "a.b.c"}), Some("NOT_AUTHENTICATED")),
        (json!({}), Some("VALIDATION_ERROR")),
    ] {
        ada.send(&json!({"v": 1, "t": "session:refresh", "id": "7", "p": sent})).await;
        let ack = ada.receive().await;
        assert_eq!(ack["ok"], code.is_none(), "{ack}");
        assert_eq!(ack["error"]["code"].as_str(), code, "{ack}");
    }
    bob.text(format!("421{}", json!(["session:refresh", {"token": token("bob")}]))).await;
    assert!(packet(&mut bob).await.starts_with(r#"431[{"data":{"expiresAt""#));
    bob.text(format!("42{}", json!(["session:refresh", {"token": token("ada")}]))).await;
    let (name, error) = event(&mut bob).await;
    assert_eq!((name.as_str(), &error["code"]), ("call:error", &json!("PERMISSION_DENIED")));
}
