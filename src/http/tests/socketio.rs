//! Socket.IO 5 packets on a real socket, as the stock client sends them.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::support::{Client, Server, eventually, token};
use crate::auth::Mode;

const PATH: &str = "/socket.io/?EIO=4&transport=websocket";

/// An Engine.IO connection over WebSocket, after its open packet.
async fn open(server: &Server) -> Client {
    let mut client = Client::handshake(server, PATH, &[]).await.map_err(|r| r.status()).unwrap().0;
    let packet = client.receive_text().await;
    let opened: Value = serde_json::from_str(packet.strip_prefix('0').unwrap()).unwrap();
    assert_eq!((&opened["maxPayload"], &opened["pingInterval"]), (&json!(131_072), &json!(25_000)));
    client
}

/// The next packet that is no ping.
pub(super) async fn packet(client: &mut Client) -> String {
    loop {
        match client.receive_text().await.as_str() {
            "2" => client.text("3").await,
            packet => return packet.to_owned(),
        }
    }
}

/// The next event: name and payload.
pub(super) async fn event(client: &mut Client) -> (String, Value) {
    let packet = packet(client).await;
    let json = packet.strip_prefix("42").unwrap_or_else(|| panic!("not an event: {packet}"));
    serde_json::from_str(&json[json.find('[').unwrap()..]).unwrap()
}

/// A connection that asked for its namespace with this `auth`.
pub(super) async fn attempt(server: &Server, auth: &Value) -> Client {
    let mut client = open(server).await;
    client.text(format!("40{auth}")).await;
    client
}

pub(super) async fn connected(server: &Server, user: &str) -> Client {
    let mut client = open(server).await;
    client.text(format!("40{}", json!({"token": token(user)}))).await;
    assert!(packet(&mut client).await.starts_with("40{\"sid\""));
    let (name, ready) = event(&mut client).await;
    assert_eq!((name.as_str(), &ready["userId"]), ("session:ready", &json!(user)));
    client
}

#[tokio::test]
async fn both_namespaces_and_both_names_of_the_token_open_a_session() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = open(&server).await;
    client.text(format!("40/calls,{}", json!({"authToken": token("ada")}))).await;
    assert!(packet(&mut client).await.starts_with("40/calls,{\"sid\""));
    assert_eq!(event(&mut client).await.1["userId"], "ada");
    client.text(format!("40{}", json!({"token": token("ada")}))).await;
    assert!(packet(&mut client).await.starts_with("40{\"sid\""));
    assert_eq!(event(&mut client).await.0, "session:ready");
    assert_eq!(server.metrics.signaling_connections.with_label_values(&["socketio"]).get(), 2);
    // Leaving one namespace ends one session, losing the connection the other.
    client.text("41/calls,").await;
    eventually("one session is left", || server.engine.sessions() == 1).await;
    drop(client);
    eventually("no session is left", || server.engine.sessions() == 0).await;
    assert_eq!(server.metrics.signaling_connections.with_label_values(&["socketio"]).get(), 0);
}

#[tokio::test]
async fn a_refused_connect_names_its_code() {
    let server = Server::start(Mode::Off, |_| {}).await;
    for auth in ["", "{}", r#"{"token":"a.b.c"}"#, r#"{"token":7}"#, "[]"] {
        let mut client = open(&server).await;
        client.text(format!("40{auth}")).await;
        assert_eq!(packet(&mut client).await, r#"44{"message":"NOT_AUTHENTICATED"}"#, "{auth}");
    }
    assert_eq!(server.engine.sessions(), 0);
}

#[tokio::test]
async fn a_token_may_come_with_the_request() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let path = format!("{PATH}&access_token={}", token("ada"));
    let mut client = Client::handshake(&server, &path, &[]).await.map_err(|r| r.status()).unwrap().0;
    packet(&mut client).await;
    client.text("40").await;
    packet(&mut client).await;
    assert_eq!(event(&mut client).await.1["userId"], "ada");
}

#[tokio::test]
async fn an_ack_says_success_or_carries_the_error() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = connected(&server, "ada").await;
    client.text(r#"427["no:such-event",{}]"#).await;
    let packet = packet(&mut client).await;
    let ack: Value = serde_json::from_str(packet.strip_prefix("437").unwrap()).unwrap();
    assert_eq!((&ack[0]["success"], &ack[0]["error"]["code"]), (&json!(false), &json!("UNKNOWN_EVENT")));
}

#[tokio::test]
async fn without_an_ack_the_error_is_an_event() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = connected(&server, "ada").await;
    client.text(r#"42["no:such-event",{}]"#).await;
    let (name, payload) = event(&mut client).await;
    assert_eq!((name.as_str(), &payload["code"]), ("call:error", &json!("UNKNOWN_EVENT")));
}

#[tokio::test]
async fn events_sent_in_one_burst_are_handled_in_order() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = connected(&server, "ada").await;
    for n in 0..100 {
        client.0.feed(Message::text(format!(r#"42{n}["no:such-event",{{}}]"#))).await.unwrap();
    }
    client.0.flush().await.unwrap();
    for n in 0..100 {
        let packet = packet(&mut client).await;
        assert!(packet.starts_with(&format!("43{n}[")), "{n}: {packet}");
    }
}

#[tokio::test]
async fn payloads_that_are_none_are_refused_and_the_connection_lives() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = connected(&server, "ada").await;
    let deep = format!(r#"["room:join",{}{}]"#, "[".repeat(17), "]".repeat(17));
    for (n, event) in [r#"["room:join",{},{}]"#, deep.as_str()].into_iter().enumerate() {
        client.text(format!("42{n}{event}")).await;
        let packet = packet(&mut client).await;
        assert!(packet.starts_with(&format!("43{n}")) && packet.contains("VALIDATION_ERROR"), "{packet}");
    }
}

#[tokio::test]
async fn a_binary_payload_is_refused() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = connected(&server, "ada").await;
    client.text(r#"451-9["call:message",{"data":{"_placeholder":true,"num":0}}]"#).await;
    client.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    let packet = packet(&mut client).await;
    assert!(packet.contains("BINARY_UNSUPPORTED"), "{packet}");
    // Whoever announces a million attachments is not read to the end.
    client.text(r#"451000000-["call:message",{"data":{"_placeholder":true,"num":0}}]"#).await;
    eventually("the connection is closed", || server.engine.sessions() == 0).await;
}

#[tokio::test]
async fn a_message_beyond_128_kib_ends_the_connection() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = connected(&server, "ada").await;
    let event = |padding: usize| format!(r#"421["no:such-event",{{"x":"{}"}}]"#, "x".repeat(padding));
    let frame = event(0).len();
    client.text(event(128 * 1024 - frame)).await;
    assert!(packet(&mut client).await.starts_with("431["));
    client.text(event(128 * 1024 - frame + 1)).await;
    eventually("the connection is closed", || server.engine.sessions() == 0).await;
}

#[tokio::test]
async fn polling_carries_a_session_and_upgrades_to_websocket() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let base = server.url("/socket.io/?EIO=4&transport=polling");
    let http = reqwest::Client::new();
    let opened = reqwest::get(&base).await.unwrap().text().await.unwrap();
    let opened: Value = serde_json::from_str(opened.strip_prefix('0').unwrap()).unwrap();
    let sid = opened["sid"].as_str().unwrap().to_owned();
    let session = format!("{base}&sid={sid}");
    let connect = format!("40{}", json!({"token": token("ada")}));
    assert_eq!(http.post(&session).body(connect).send().await.unwrap().status().as_u16(), 200);
    let mut polled = String::new();
    while !polled.contains("session:ready") {
        let packets = http.get(&session).send().await.unwrap().text().await.unwrap();
        polled.push_str(&packets);
    }
    assert!(polled.contains("40{\"sid\""), "{polled}");
    let too_large = "4".repeat(128 * 1024 + 1);
    assert_eq!(server.engine.sessions(), 1);
    let path = format!("{PATH}&sid={sid}");
    let mut client = Client::handshake(&server, &path, &[]).await.map_err(|r| r.status()).unwrap().0;
    client.text("2probe").await;
    assert_eq!(client.receive_text().await, "3probe");
    client.text("5").await;
    client.text(r#"421["no:such-event",{}]"#).await;
    assert!(packet(&mut client).await.starts_with("431["));
    assert_eq!(server.engine.sessions(), 1);
    let refused = http.post(&base).body(too_large).send().await.unwrap();
    assert!(refused.status().is_client_error(), "{}", refused.status());
}

#[tokio::test]
async fn whoever_does_not_read_is_closed() {
    let server = Server::start(Mode::Off, |config| {
        config.limits.slow_after = Duration::from_millis(200);
        config.limits.unsent_bytes = 8 * 1024;
        config.limits.unsent_frames = 64;
    })
    .await;
    let client = connected(&server, "ada").await;
    let (mut sink, _unread) = client.0.split();
    let flood = async {
        let event = format!(r#"421["{}",{{}}]"#, "x".repeat(60));
        while sink.send(Message::text(event.clone())).await.is_ok() {}
    };
    let slow = eventually("the slow consumer is closed", || {
        server.metrics.signaling_slow_consumers.get() == 1 && server.engine.sessions() == 0
    });
    tokio::select! { () = flood => {}, () = slow => {} }
    eventually("the queue is freed", || server.metrics.signaling_send_queue_bytes.get() == 0).await;
}

#[tokio::test]
async fn a_connection_that_joins_no_namespace_is_closed_and_gives_its_place_back() {
    let server = Server::start(Mode::Any, |config| {
        config.limits.hello = Duration::from_secs(2);
        config.limits.unauthenticated = 1;
    })
    .await;
    let mut idle = open(&server).await;
    assert!(Client::handshake(&server, PATH, &[]).await.is_err());
    idle.closed().await;
    let deadline = tokio::time::Instant::now() + super::support::PATIENCE;
    while Client::handshake(&server, PATH, &[]).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the place never came back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_drain_closes_every_connection() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = connected(&server, "ada").await;
    server.engine.drain();
    let closed = async { client.closed().await };
    tokio::join!(server.engine.close_all(Duration::from_millis(200)), closed);
    assert_eq!(server.engine.sessions(), 0);
}

#[tokio::test]
async fn one_connection_cannot_open_and_close_sessions_without_end() {
    let server = Server::start(Mode::Any, |config| {
        config.limits.connections_burst = 4.0;
        config.limits.connections_per_second = 0.0;
    })
    .await;
    let mut client = open(&server).await;
    // The connection itself took one; its first session is free, three more are not.
    for _ in 0..4 {
        client.text("40").await;
        assert!(packet(&mut client).await.starts_with("40{"));
        event(&mut client).await;
        client.text("41").await;
    }
    client.text("40").await;
    assert_eq!(packet(&mut client).await, r#"44{"message":"RATE_LIMIT_EXCEEDED"}"#);
}
