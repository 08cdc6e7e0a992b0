//! A server that dies with calls on it: the next process takes them up, and who was in them gets back in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::net::TcpStream;
use std::path::Path;

use serde_json::{Value, json};
use support::{PATIENCE, Server, eventually, http_get};
use tokio_tungstenite::tungstenite::client::{IntoClientRequest as _, client};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

/// An anonymous caller that keeps its secret.
struct Caller {
    socket: WebSocket<TcpStream>,
    ready: Value,
}

impl Caller {
    fn connect(server: &Server, key: &str) -> Self {
        let stream = TcpStream::connect(server.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("ws://{}/ws", server.http).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "passerelle.v1.json".parse().unwrap());
        let (socket, _) = client(request, stream).unwrap();
        let mut caller = Self { socket, ready: Value::Null };
        caller.send("hello", &json!({"anonymousKey": key.repeat(16)}));
        caller.ready = caller.next("session:ready");
        caller
    }

    fn user(&self) -> &str {
        self.ready["userId"].as_str().unwrap()
    }

    fn send(&mut self, event: &str, payload: &Value) {
        let frame = json!({"v": 1, "t": event, "id": event, "p": payload}).to_string();
        self.socket.send(Message::text(frame)).unwrap();
    }

    fn next(&mut self, name: &str) -> Value {
        loop {
            let Message::Text(text) = self.socket.read().unwrap_or_else(|error| panic!("no {name}: {error}"))
            else {
                continue;
            };
            let mut frame: Value = serde_json::from_str(&text).unwrap();
            if frame["re"] == name {
                assert_eq!(frame["ok"], true, "{frame}");
                return frame["p"].take();
            }
            if frame["t"] == name {
                return frame["p"].take();
            }
        }
    }

    fn request(&mut self, event: &str, payload: &Value) -> Value {
        self.send(event, payload);
        self.next(event)
    }
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
    let (mut alice, mut bob) = (Caller::connect(&server, "a"), Caller::connect(&server, "b"));
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
    let mut alice = Caller::connect(&server, "a");
    assert_eq!(alice.ready["activeCalls"][0]["callId"], call["callId"], "{}", alice.ready);
    let mut bob = Caller::connect(&server, "b");
    alice.request("call:join", &call);
    let joined = bob.request("call:join", &call);
    assert_eq!(joined["callSession"]["callId"], call["callId"]);
    alice.request("call:toggle-audio", &json!({"callId": call["callId"], "enabled": false}));
    assert_eq!(bob.next("call:media-toggled")["userId"], alice.user());
    alice.request("call:leave", &call);
    assert_eq!(bob.next("call:ended")["reason"], "completed");
}
