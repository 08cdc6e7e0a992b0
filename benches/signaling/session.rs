//! The two framings as a client speaks them: plain WebSocket (`passerelle.v1.json`), and Socket.IO 5 over Engine.IO 4 on a
//! WebSocket, to either server.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::servers::{Kind, TOKEN_SECRET};

/// What a client remembers between its connections.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) kind: Kind,
    pub(crate) user: String,
    pub(crate) address: Ipv4Addr,
    token: String,
    /// `sid` and key of passerelle, or the `pid` of Socket.IO's own recovery.
    resume: Option<(String, String)>,
    /// Number of the last event, or Socket.IO's offset.
    seq: u64,
    offset: String,
}

/// What a text message says.
#[derive(Debug)]
pub(crate) enum Heard {
    Nothing,
    /// To be sent back at once.
    Reply(String),
    /// The session is there.
    Ready {
        resumed: bool,
    },
    Ack {
        id: u64,
        outcome: Result<Value, Value>,
    },
    /// A signal with the mark of its sender.
    Signal(u64),
    /// Any other event.
    Event(String, Value),
    /// Not let in.
    Refused(String),
    /// The connection is gone: the status of its handshake, the code of its close frame, or 0.
    Gone(u16),
}

fn token(user: &str) -> String {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
    let claims = json!({ "sub": user, "name": format!("Name of {user}"), "exp": expires });
    let key = jsonwebtoken::EncodingKey::from_secret(TOKEN_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

impl Session {
    /// The client of this number. Ten share an address, so that the limits per address may stay as they are.
    pub(crate) fn new(kind: Kind, number: usize) -> Self {
        let user = format!("user-{number}");
        let address = Ipv4Addr::from_bits(0x7f01_0001 + u32::try_from(number / 10).unwrap());
        Self { kind, token: token(&user), user, address, resume: None, seq: 0, offset: String::new() }
    }

    /// The opening handshake.
    pub(crate) fn handshake(&self) -> String {
        let (path, protocol) = match self.kind {
            Kind::WebSocket => ("/ws", "Sec-WebSocket-Protocol: passerelle.v1.json\r\n"),
            Kind::SocketIo | Kind::Node => ("/socket.io/?EIO=4&transport=websocket", ""),
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
        )
    }

    /// What to say as soon as the handshake is done.
    pub(crate) fn greeting(&self) -> Option<String> {
        let hello = json!({ "token": self.token, "resume": self.wish() });
        (self.kind == Kind::WebSocket)
            .then(|| json!({ "v": 1, "t": "hello", "id": "hello", "p": hello }).to_string())
    }

    fn wish(&self) -> Value {
        self.resume
            .as_ref()
            .map_or(Value::Null, |(sid, key)| json!({ "sid": sid, "key": key, "seq": self.seq }))
    }

    fn connect_packet(&self) -> String {
        let auth = match (self.kind, &self.resume) {
            (Kind::Node, Some((pid, _))) => {
                json!({ "token": self.token, "pid": pid, "offset": self.offset })
            }
            (Kind::Node, None) => json!({ "token": self.token }),
            _ => json!({ "token": self.token, "resume": self.wish() }),
        };
        format!("40{auth}")
    }

    /// A request. `payload` is JSON. On a plain WebSocket it says as well what has arrived, as clients do.
    pub(crate) fn request(&self, event: &str, payload: &str, ack: Option<u64>) -> String {
        let mut text = String::with_capacity(payload.len() + 80);
        let _ = match (self.kind, ack) {
            (Kind::WebSocket, None) => {
                write!(text, r#"{{"v":1,"t":"{event}","p":{payload},"ls":{}}}"#, self.seq)
            }
            (Kind::WebSocket, Some(id)) => {
                write!(text, r#"{{"v":1,"t":"{event}","id":"{id}","p":{payload},"ls":{}}}"#, self.seq)
            }
            (_, None) => write!(text, r#"42["{event}",{payload}]"#),
            (_, Some(id)) => write!(text, r#"42{id}["{event}",{payload}]"#),
        };
        text
    }

    /// Reads a text message.
    pub(crate) fn hear(&mut self, text: &str) -> Heard {
        match self.kind {
            Kind::WebSocket => self.hear_websocket(text),
            Kind::SocketIo | Kind::Node => self.hear_socketio(text),
        }
    }

    fn hear_websocket(&mut self, text: &str) -> Heard {
        // The one frame that comes by the hundred thousand is not parsed.
        if let Some(rest) = text.strip_prefix(r#"{"v":1,"t":"call:signal","seq":"#) {
            self.seq = number(rest);
            return Heard::Signal(mark(rest));
        }
        let mut frame: Value = serde_json::from_str(text).unwrap();
        if let Some(seq) = frame["seq"].as_u64() {
            self.seq = seq;
        }
        let payload = frame["p"].take();
        match frame["t"].as_str().unwrap() {
            "ack" if frame["re"] == "hello" && frame["ok"] == false => {
                Heard::Refused(frame["error"].to_string())
            }
            "ack" => {
                let id = frame["re"].as_str().unwrap().parse().unwrap_or(0);
                let outcome = if frame["ok"] == true { Ok(payload) } else { Err(frame["error"].take()) };
                Heard::Ack { id, outcome }
            }
            name => self.event(name, payload),
        }
    }

    fn hear_socketio(&mut self, text: &str) -> Heard {
        let (packet, rest) = text.split_at(text.len().min(2));
        match packet {
            "2" => return Heard::Reply("3".into()),
            "42" => {}
            "43" => {
                let id = number(rest);
                let from = rest.find('[').unwrap();
                let mut outcome: Value = serde_json::from_str(&rest[from..]).unwrap();
                let outcome = match outcome[0]["success"] == true {
                    true => Ok(outcome[0]["data"].take()),
                    false => Err(outcome[0]["error"].take()),
                };
                return Heard::Ack { id, outcome };
            }
            "40" if self.kind == Kind::Node => {
                let opened: Value = serde_json::from_str(rest).unwrap();
                let pid = opened["pid"].as_str().unwrap_or_default().to_owned();
                let resumed = self.resume.as_ref().is_some_and(|(before, _)| *before == pid);
                self.resume = Some((pid, String::new()));
                return Heard::Ready { resumed };
            }
            "44" => return Heard::Refused(rest.to_owned()),
            _ if packet.starts_with('0') => return Heard::Reply(self.connect_packet()),
            _ => return Heard::Nothing,
        }
        if self.kind == Kind::Node {
            // The stock server appends its offset to what it can replay.
            if let Some(offset) = rest.strip_suffix("\"]").and_then(|rest| rest.rsplit_once("},\"")) {
                offset.1.clone_into(&mut self.offset);
            }
            if rest.starts_with(r#"["call:signal","#) {
                return Heard::Signal(mark(rest));
            }
        } else if rest.starts_with(r#"["call:signal","#) {
            if let Some(at) = rest.rfind(r#""seq":"#) {
                self.seq = number(&rest[at + 6..]);
            }
            return Heard::Signal(mark(rest));
        }
        let mut parts: Vec<Value> = serde_json::from_str(rest).unwrap();
        let payload = parts.get_mut(1).map_or(Value::Null, Value::take);
        if let Some(seq) = payload["seq"].as_u64() {
            self.seq = seq;
        }
        self.event(parts[0].as_str().unwrap(), payload)
    }

    fn event(&mut self, name: &str, payload: Value) -> Heard {
        if name != "session:ready" {
            return Heard::Event(name.to_owned(), payload);
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let resumed = payload["resumed"] == true;
        if !resumed {
            self.seq = 0;
        }
        self.resume = Some((text(&payload["sid"]), text(&payload["resume"]["key"])));
        Heard::Ready { resumed }
    }
}

/// The digits that a text starts with.
fn number(text: &str) -> u64 {
    let digits = text.bytes().take_while(u8::is_ascii_digit);
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// What the sender wrote behind `@` into a signal; 0 for nothing.
fn mark(text: &str) -> u64 {
    text.bytes().position(|byte| byte == b'@').map_or(0, |at| number(&text[at + 1..]))
}
