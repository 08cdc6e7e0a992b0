//! `passerelle.v1.json` on a real socket.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::support::{Client, PATIENCE, Server, eventually, token};
use crate::auth::Mode;

const PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "passerelle.v1.json");

#[tokio::test]
async fn a_hello_with_a_token_opens_the_session_of_its_user() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = Client::plain(&server).await;
    client.send(&json!({"v": 1, "t": "hello", "id": "1", "p": {"token": token("ada")}})).await;
    assert_eq!(client.receive().await, json!({"v": 1, "t": "ack", "re": "1", "ok": true, "p": {}}));
    let ready = client.receive().await;
    assert_eq!((&ready["t"], &ready["p"]["userId"]), (&json!("session:ready"), &json!("ada")));
    let gauge = server.metrics.signaling_connections.with_label_values(&["websocket"]);
    assert_eq!(gauge.get(), 1);
    client.0.close(None).await.unwrap();
    eventually("the session is forgotten", || server.engine.sessions() == 0 && gauge.get() == 0).await;
}

#[tokio::test]
async fn a_token_may_come_with_the_handshake() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let bearer = format!("Bearer {}", token("ada"));
    let by_query = format!("/ws?access_token={}", token("ada"));
    for (path, headers) in
        [("/ws", vec![PROTOCOL, ("authorization", bearer.as_str())]), (by_query.as_str(), vec![PROTOCOL])]
    {
        let (mut client, answer) = Client::handshake(&server, path, &headers).await.map_err(|_| ()).unwrap();
        assert_eq!(answer["sec-websocket-protocol"], "passerelle.v1.json");
        client.send(&json!({"v": 1, "t": "hello"})).await;
        assert_eq!(client.receive().await["p"]["userId"], "ada");
    }
}

#[tokio::test]
async fn an_anonymous_caller_brings_a_name() {
    let server = Server::start(Mode::Loopback, |_| {}).await;
    let mut client = Client::plain(&server).await;
    client.send(&json!({"v": 1, "t": "hello", "p": {"name": "Ada"}})).await;
    let ready = client.receive().await;
    assert!(ready["p"]["userId"].as_str().unwrap().starts_with("anon:"), "{ready}");
}

#[tokio::test]
async fn a_refused_hello_is_answered_and_closed_with_4401() {
    let server = Server::start(Mode::Off, |_| {}).await;
    for payload in [json!({}), json!({"token": "a.b.c"}), json!({"token": ""})] {
        let mut client = Client::plain(&server).await;
        client.send(&json!({"v": 1, "t": "hello", "id": "1", "p": payload})).await;
        let ack = client.receive().await;
        assert_eq!(
            (&ack["ok"], &ack["error"]["code"]),
            (&json!(false), &json!("NOT_AUTHENTICATED")),
            "{ack}"
        );
        assert_eq!(client.closed().await, 4401);
    }
    assert_eq!(server.engine.sessions(), 0);
}

#[tokio::test]
async fn whoever_says_nothing_is_closed() {
    let server = Server::start(Mode::Any, |config| config.limits.hello = Duration::from_millis(50)).await;
    assert_eq!(Client::plain(&server).await.closed().await, 4401);
}

#[tokio::test]
async fn whoever_speaks_before_hello_is_closed() {
    let server = Server::start(Mode::Any, |_| {}).await;
    let mut client = Client::plain(&server).await;
    client.send(&json!({"v": 1, "t": "call:join", "p": {}})).await;
    assert_eq!(client.closed().await, 4401);
}

#[tokio::test]
async fn frames_that_are_none_close_with_4400() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let deep = format!(r#"{{"v":1,"t":"x","p":{}{}}}"#, "[".repeat(16), "]".repeat(16));
    for text in ["{", "[]", r#"{"v":2,"t":"call:join"}"#, r#"{"t":"call:join"}"#, deep.as_str()] {
        let mut client = Client::of(&server, "ada").await;
        client.text(text).await;
        assert_eq!(client.closed().await, 4400, "{text}");
    }
    let mut client = Client::of(&server, "ada").await;
    client.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(client.closed().await, 4400);
}

/// A frame of exactly this size.
fn padded(size: usize) -> String {
    let empty = json!({"v": 1, "t": "room:join", "id": "1", "p": {"x": ""}}).to_string();
    json!({"v": 1, "t": "room:join", "id": "1", "p": {"x": "x".repeat(size - empty.len())}}).to_string()
}

#[tokio::test]
async fn a_frame_of_128_kib_is_taken_and_one_byte_more_closes_with_1009() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = Client::of(&server, "ada").await;
    client.text(padded(128 * 1024)).await;
    assert_eq!(client.receive().await["re"], "1");
    client.text(padded(128 * 1024 + 1)).await;
    assert_eq!(client.closed().await, 1009);
}

#[tokio::test]
async fn a_message_of_many_fragments_is_bounded_as_a_whole() {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = Client::of(&server, "ada").await;
    for n in 0..3 {
        let code = if n == 0 { Data::Text } else { Data::Continue };
        let fragment = Frame::message(vec![b' '; 60 * 1024], OpCode::Data(code), false);
        if client.0.send(Message::Frame(fragment)).await.is_err() {
            break;
        }
    }
    assert_eq!(client.closed().await, 1009);
}

#[tokio::test]
async fn a_request_without_an_id_gets_no_ack() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = Client::of(&server, "ada").await;
    client.send(&json!({"v": 1, "t": "seq", "ls": 1})).await;
    client.send(&json!({"v": 1, "t": "no:such-event", "p": {}})).await;
    client.send(&json!({"v": 1, "t": "no:such-event", "id": "2", "p": {}})).await;
    let (error, ack) = (client.receive().await, client.receive().await);
    assert_eq!((&error["t"], &error["p"]["code"]), (&json!("call:error"), &json!("UNKNOWN_EVENT")));
    assert_eq!((&ack["re"], &ack["ok"]), (&json!("2"), &json!(false)));
    assert_eq!(ack["error"]["code"], "UNKNOWN_EVENT");
}

#[tokio::test]
async fn acks_come_in_the_order_of_their_requests() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut client = Client::of(&server, "ada").await;
    for n in 0..50 {
        client.send(&json!({"v": 1, "t": "no:such-event", "id": n.to_string()})).await;
    }
    for n in 0..50 {
        assert_eq!(client.receive().await["re"], n.to_string());
    }
}

#[tokio::test]
async fn handshakes_that_are_none_are_answered_with_what_is_wrong() {
    let server = Server::start(Mode::Any, |_| {}).await;
    for (headers, status) in [
        (vec![], 400),
        (vec![("sec-websocket-protocol", "graphql-ws")], 400),
        (vec![("sec-websocket-protocol", "passerelle.v1.jsonx")], 400),
        (vec![PROTOCOL, ("sec-websocket-version", "8")], 426),
        (vec![PROTOCOL, ("sec-websocket-key", "short")], 400),
        (vec![PROTOCOL, ("upgrade", "h2c")], 426),
        (vec![PROTOCOL, ("authorization", "Basic dTpw")], 401),
    ] {
        let refused = Client::handshake(&server, "/ws", &headers).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.status().as_u16(), status, "{headers:?}");
    }
    let plain = reqwest::get(server.url("/ws")).await.unwrap();
    assert_eq!(plain.status().as_u16(), 426);
    let offered = [("sec-websocket-protocol", "other, passerelle.v1.json")];
    assert!(Client::handshake(&server, "/ws", &offered).await.is_ok());
}

#[tokio::test]
async fn whoever_does_not_read_is_closed_and_its_queue_is_freed() {
    let server = Server::start(Mode::Off, |config| {
        config.limits.slow_after = Duration::from_millis(200);
        config.limits.unsent_bytes = 8 * 1024;
        config.limits.unsent_frames = 64;
    })
    .await;
    let client = Client::of(&server, "ada").await;
    let (mut sink, _unread) = client.0.split();
    // Answers nobody reads: first the sockets fill, then the queue.
    let flood = async {
        loop {
            let name = "x".repeat(60);
            if sink.send(Message::text(json!({"v": 1, "t": name, "id": "1"}).to_string())).await.is_err() {
                return;
            }
        }
    };
    let slow = eventually("the slow consumer is closed", || {
        server.metrics.signaling_slow_consumers.get() == 1 && server.engine.sessions() == 0
    });
    tokio::select! { () = flood => {}, () = slow => {} }
    eventually("the queue is freed", || server.metrics.signaling_send_queue_bytes.get() == 0).await;
}

#[tokio::test]
async fn a_silent_peer_is_pinged_and_closed_when_it_does_not_answer() {
    let server = Server::start(Mode::Off, |config| {
        config.limits.ping = Duration::from_secs(1);
        config.limits.pong = Duration::from_secs(1);
    })
    .await;
    // This client answers pings only while it is polled, and it is not.
    let mut dead = Client::of(&server, "ada").await;
    let mut alive = Client::of(&server, "bob").await;
    let pinged = tokio::time::timeout(PATIENCE, alive.0.next()).await.unwrap();
    assert!(matches!(pinged, Some(Ok(Message::Ping(_)))), "{pinged:?}");
    eventually("the dead peer is closed", || server.engine.sessions() < 2).await;
    assert_eq!(dead.closed().await, 4408);
}

#[tokio::test]
async fn a_drain_ends_with_1012_for_everyone() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut clients = Vec::new();
    for n in 0..5 {
        clients.push(Client::of(&server, &format!("user-{n}")).await);
    }
    server.engine.drain();
    assert_eq!(server.metrics.draining.get(), 1);
    let closing = server.engine.close_all(Duration::from_millis(200));
    let closes = async {
        for client in &mut clients {
            assert_eq!(client.closed().await, 1012);
        }
    };
    tokio::join!(closing, closes);
    assert_eq!(server.engine.sessions(), 0);
}

#[tokio::test]
async fn an_address_opens_only_so_many_connections_at_once() {
    let server = Server::start(Mode::Any, |config| {
        config.limits.connections_burst = 3.0;
        config.limits.connections_per_second = 0.0;
    })
    .await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.push(Client::plain(&server).await);
    }
    let refused = Client::handshake(&server, "/ws", &[PROTOCOL]).await.map(|_| ()).unwrap_err();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    let polling = reqwest::get(server.url("/socket.io/?EIO=4&transport=polling")).await.unwrap();
    assert_eq!(polling.status().as_u16(), 429);
}

#[tokio::test]
async fn places_for_the_unauthenticated_are_given_back_by_a_hello_and_by_a_close() {
    let server = Server::start(Mode::Any, |config| config.limits.unauthenticated = 1).await;
    let mut first = Client::plain(&server).await;
    let refused = Client::handshake(&server, "/ws", &[PROTOCOL]).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.status().as_u16(), 503);
    first.send(&json!({"v": 1, "t": "hello"})).await;
    first.receive().await;
    let mut second = Client::plain(&server).await;
    second.0.close(None).await.unwrap();
    second.closed().await;
    let mut third = Client::handshake(&server, "/ws", &[PROTOCOL]).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while third.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the place never came back");
        tokio::time::sleep(Duration::from_millis(10)).await;
        third = Client::handshake(&server, "/ws", &[PROTOCOL]).await;
    }
}
