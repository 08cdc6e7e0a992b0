//! One call from ring to hang-up, the caller on one framing and the callee on the other.

use serde_json::{Value, json};

use super::socketio::{connected, event};
use super::support::{Client, Server};
use crate::auth::Mode;

/// Frames of a plain WebSocket until the event of this name.
async fn until(client: &mut Client, name: &str) -> Value {
    loop {
        let frame = client.receive().await;
        if frame["t"] == name {
            return frame["p"].clone();
        }
    }
}

/// Events of a Socket.IO client until the one of this name.
async fn until_event(client: &mut Client, name: &str) -> Value {
    loop {
        let (found, payload) = event(client).await;
        if found == name {
            return payload;
        }
    }
}

fn sdp(kind: &str) -> Value {
    json!({"type": kind, "sdp": "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"})
}

#[tokio::test]
async fn a_call_crosses_the_framings() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut ada = Client::of(&server, "ada").await;
    let mut bob = connected(&server, "bob").await;

    let request = json!({"conversationId": "room", "to": "bob", "type": "video"});
    ada.send(&json!({"v": 1, "t": "call:initiate", "id": "1", "p": request})).await;
    let ack = ada.receive().await;
    assert_eq!((&ack["re"], &ack["ok"]), (&json!("1"), &json!(true)), "{ack}");
    let call = ack["p"]["callId"].as_str().unwrap().to_owned();
    assert_eq!(ack["p"]["iceServers"][1]["username"], "ada");

    let ring = until_event(&mut bob, "call:initiated").await;
    assert_eq!((&ring["callId"], &ring["initiator"]["userId"]), (&json!(call), &json!("ada")));
    // Without an ack, as the seed's clients do: the echo carries the session.
    bob.text(format!("42{}", json!(["call:join", {"callId": call}]))).await;
    let echo = until_event(&mut bob, "call:join").await;
    assert_eq!((&echo["success"], &echo["callSession"]["id"]), (&json!(true), &json!(call)), "{echo}");
    let joined = until(&mut ada, "call:participant-joined").await;
    assert_eq!(joined["participant"]["userId"], "bob");

    ada.send(&json!({"v": 1, "t": "call:signal", "id": "2", "p": {"callId": call, "signal": sdp("offer")}}))
        .await;
    let offer = until_event(&mut bob, "call:signal").await;
    assert_eq!(
        (&offer["signal"]["type"], &offer["signal"]["from"]),
        (&json!("offer"), &json!("ada")),
        "{offer}"
    );
    bob.text(format!("42{}", json!(["call:signal", {"callId": call, "signal": sdp("answer")}]))).await;
    let answer = until(&mut ada, "call:signal").await;
    assert_eq!(answer["signal"]["type"], "answer");

    bob.text(format!("42{}", json!(["call:toggle-audio", {"callId": call, "enabled": false}]))).await;
    for toggled in
        [until(&mut ada, "call:media-toggled").await, until_event(&mut bob, "call:media-toggled").await]
    {
        assert_eq!((&toggled["userId"], &toggled["enabled"]), (&json!("bob"), &json!(false)));
    }

    ada.send(&json!({"v": 1, "t": "call:leave", "id": "3", "p": {"callId": call}})).await;
    for ended in [until(&mut ada, "call:ended").await, until_event(&mut bob, "call:ended").await] {
        assert_eq!((&ended["callId"], &ended["reason"]), (&json!(call), &json!("completed")), "{ended}");
    }
    let delivered = server.metrics.signaling_events.with_label_values(&["call:ended", "out"]);
    assert_eq!(delivered.get(), 2);
}

#[tokio::test]
async fn a_ring_nobody_answers_ends_by_the_clock_of_the_engine() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (mut ada, mut bob) = (Client::of(&server, "ada").await, Client::of(&server, "bob").await);
    let request = json!({"conversationId": "room", "to": "bob", "type": "audio", "ringTimeoutMs": 500});
    ada.send(&json!({"v": 1, "t": "call:initiate", "p": request})).await;
    until(&mut bob, "call:initiated").await;
    let ended = until(&mut ada, "call:ended").await;
    assert_eq!(ended["status"], "missed", "{ended}");
}

#[tokio::test]
async fn a_flood_of_frames_closes_its_session_with_4429() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let mut ada = Client::of(&server, "ada").await;
    for _ in 0..5_000 {
        let frame = json!({"v": 1, "t": "call:leave", "p": {"callId": "x"}}).to_string();
        if futures_util::SinkExt::send(&mut ada.0, tokio_tungstenite::tungstenite::Message::text(frame))
            .await
            .is_err()
        {
            break;
        }
    }
    assert_eq!(ada.closed().await, 4429);
}
