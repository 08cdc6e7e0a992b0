//! A caller over plain WebSocket, and the tokens of [`super::Server`].

use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::{IntoClientRequest as _, client};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::server::TOKEN_SECRET;
use super::{PATIENCE, Server};

/// A token that the server accepts, for an hour.
pub fn token(user: &str) -> String {
    token_with(user, &json!({}))
}

/// A token of somebody with these grants.
pub fn token_with(user: &str, grants: &Value) -> String {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600);
    let claims = json!({ "sub": user, "name": user.to_uppercase(), "exp": expires.as_secs(), "psr": grants });
    let key = jsonwebtoken::EncodingKey::from_secret(TOKEN_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// A caller with a session.
pub struct Caller {
    socket: WebSocket<TcpStream>,
    /// The server's greeting.
    pub ready: Value,
}

impl Caller {
    /// Connects with the payload of a hello.
    #[track_caller]
    pub fn connect(server: &Server, hello: &Value) -> Self {
        let stream = TcpStream::connect(server.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("ws://{}/ws", server.http).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "passerelle.v1.json".parse().unwrap());
        let (socket, _) = client(request, stream).unwrap();
        let mut caller = Self { socket, ready: Value::Null };
        caller.send("hello", hello);
        caller.ready = caller.next("session:ready");
        caller
    }

    /// Connects as a user with a token.
    #[track_caller]
    pub fn of(server: &Server, user: &str) -> Self {
        Self::connect(server, &json!({ "token": token(user) }))
    }

    /// Its user's id.
    pub fn user(&self) -> &str {
        self.ready["userId"].as_str().unwrap()
    }

    /// Sends a request with its own name as the id.
    #[track_caller]
    pub fn send(&mut self, event: &str, payload: &Value) {
        let frame = json!({ "v": 1, "t": event, "id": event, "p": payload }).to_string();
        self.socket.send(Message::text(frame)).unwrap();
    }

    /// Waits for an event of the server, or for the ack of the request of that name.
    #[track_caller]
    pub fn next(&mut self, name: &str) -> Value {
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

    /// Sends a request and waits for its success.
    #[track_caller]
    pub fn request(&mut self, event: &str, payload: &Value) -> Value {
        self.send(event, payload);
        self.next(event)
    }
}
