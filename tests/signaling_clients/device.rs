//! A device of a user: the stock Socket.IO client, or a plain WebSocket. The flows of the tests do not know which.

#![allow(dead_code, reason = "each test takes its part")]

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::{IntoClientRequest as _, client};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

pub(crate) use crate::support::caller::token;
use crate::support::{PATIENCE, Server, eventually};

/// How a device talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `socket.io-client` with these transports.
    SocketIo(&'static [&'static str]),
    /// `passerelle.v1.json`.
    WebSocket,
}

/// Socket.IO that never polls.
pub(crate) const WEBSOCKET_ONLY: Framing = Framing::SocketIo(&["websocket"]);
/// Socket.IO that never leaves polling.
pub(crate) const POLLING_ONLY: Framing = Framing::SocketIo(&["polling"]);
/// Socket.IO as it comes: polling first, then a websocket.
pub(crate) const UPGRADE: Framing = Framing::SocketIo(&["polling", "websocket"]);

/// What a device hears.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    /// An event.
    Event(String, Value),
    /// The outcome of a request.
    Ack(u64, Result<Value, Value>),
    /// It was not let in: the message of Socket.IO's `connect_error`, the status of a WebSocket's handshake.
    Refused(String),
    /// The connection is gone: Socket.IO's reason, or a WebSocket's close code.
    Closed(String),
    /// Socket.IO changed its transport.
    Upgraded,
}

/// One connected device.
pub(crate) struct Device {
    link: Link,
    /// Whether it asks for acks.
    acks: bool,
    inbox: VecDeque<Heard>,
    last_id: u64,
    /// Numbers of the events it has heard.
    pub(crate) seqs: Vec<u64>,
}

enum Link {
    SocketIo { program: Child, commands: ChildStdin, heard: Receiver<Value> },
    WebSocket(Box<WebSocket<TcpStream>>),
    Gone,
}

impl Device {
    /// A device of a user with a token, and its `session:ready`.
    #[track_caller]
    pub(crate) fn of(server: &Server, user: &str, framing: Framing, acks: bool) -> Self {
        let mut device = Self::dial(server, framing, &json!({ "token": token(user) }), None);
        device.acks = acks;
        let ready = device.next("session:ready");
        assert_eq!((&ready["userId"], &ready["resumed"]), (&json!(user), &json!(false)), "{ready}");
        assert!(ready["sid"].is_string() && ready["serverTime"].is_string(), "{ready}");
        if framing == UPGRADE {
            device.hear("the upgrade", |heard| (*heard == Heard::Upgraded).then_some(()));
        }
        device
    }

    /// A device that has no token, and the id it was given.
    #[track_caller]
    pub(crate) fn anonymous(server: &Server, framing: Framing, acks: bool) -> (Self, String) {
        let mut device = Self::dial(server, framing, &json!({ "name": "Somebody" }), None);
        device.acks = acks;
        let ready = device.next("session:ready");
        (device, ready["userId"].as_str().unwrap().to_owned())
    }

    /// Dials, whatever comes of it. `hello` holds token and name.
    #[track_caller]
    pub(crate) fn dial(server: &Server, framing: Framing, hello: &Value, origin: Option<&str>) -> Self {
        let mut device =
            Self { link: Link::Gone, acks: true, inbox: VecDeque::new(), last_id: 0, seqs: Vec::new() };
        match framing {
            Framing::SocketIo(transports) => {
                let mut options = json!({ "transports": transports, "auth": hello });
                if let Some(origin) = origin {
                    options["extraHeaders"] = json!({ "origin": origin });
                }
                device.link = socket_io(&format!("http://{}", server.http), &options);
            }
            Framing::WebSocket => match websocket(server, origin) {
                Ok(socket) => {
                    device.link = Link::WebSocket(socket);
                    device.post("hello", hello, Some(0));
                }
                Err(status) => device.inbox.push_back(Heard::Refused(status)),
            },
        }
        device
    }

    /// Sends a request. With acks, waits for its success and gives the data; without, gives nothing.
    #[track_caller]
    pub(crate) fn ask(&mut self, event: &str, payload: &Value) -> Option<Value> {
        if !self.acks {
            self.post(event, payload, None);
            return None;
        }
        let data = self.acked(event, payload);
        Some(data.unwrap_or_else(|error| panic!("{event} was refused: {error}")))
    }

    /// Sends a request that must be refused, and gives its error: from the ack, or from `call:error`.
    #[track_caller]
    pub(crate) fn refused(&mut self, event: &str, payload: &Value) -> Value {
        if !self.acks {
            self.post(event, payload, None);
            return self.next("call:error");
        }
        let outcome = self.acked(event, payload);
        let error = outcome.expect_err("a refusal");
        self.has_not_heard("call:error");
        error
    }

    /// Sends a request with an ack, whether or not this device asks for acks otherwise.
    #[track_caller]
    pub(crate) fn acked(&mut self, event: &str, payload: &Value) -> Result<Value, Value> {
        self.last_id += 1;
        let id = self.last_id;
        self.post(event, payload, Some(id));
        self.hear(event, |heard| match heard {
            Heard::Ack(found, outcome) if *found == id => Some(outcome.clone()),
            _ => None,
        })
    }

    /// Waits for an event of this name; others stay in the inbox.
    #[track_caller]
    pub(crate) fn next(&mut self, name: &str) -> Value {
        self.hear(name, |heard| match heard {
            Heard::Event(found, payload) if found == name => Some(payload.clone()),
            _ => None,
        })
    }

    /// Waits until the connection is gone; gives why.
    #[track_caller]
    pub(crate) fn closed(&mut self) -> String {
        self.hear("the end of the connection", |heard| match heard {
            Heard::Closed(reason) => Some(reason.clone()),
            _ => None,
        })
    }

    /// Waits until it is not let in; gives the reason.
    #[track_caller]
    pub(crate) fn not_let_in(&mut self) -> String {
        self.hear("the refusal", |heard| match heard {
            Heard::Refused(reason) => Some(reason.clone()),
            _ => None,
        })
    }

    /// Asserts that an event was not sent before now: what is sent later is answered later.
    #[track_caller]
    pub(crate) fn has_not_heard(&mut self, name: &str) {
        self.acked("call:heartbeat", &json!({})).unwrap();
        let unexpected =
            self.inbox.iter().find(|heard| matches!(heard, Heard::Event(found, _) if found == name));
        assert_eq!(unexpected, None, "{name} was not to be sent");
    }

    /// Cuts the connection without saying good-bye.
    pub(crate) fn cut(&mut self) {
        match std::mem::replace(&mut self.link, Link::Gone) {
            Link::SocketIo { mut program, mut commands, .. } => {
                writeln!(commands, "{}", json!({ "cut": true })).unwrap();
                drop(commands);
                eventually("the client has ended", || program.try_wait().unwrap());
            }
            Link::WebSocket(socket) => socket.get_ref().shutdown(std::net::Shutdown::Both).unwrap(),
            Link::Gone => {}
        }
    }

    /// Sends bytes where text belongs.
    pub(crate) fn send_binary(&mut self, event: &str, bytes: usize) {
        match &mut self.link {
            Link::SocketIo { commands, .. } => {
                self.last_id += 1;
                let command = json!({ "emit": event, "binary": bytes, "ack": self.last_id });
                writeln!(commands, "{command}").unwrap();
            }
            Link::WebSocket(socket) => socket.send(Message::binary(vec![0; bytes])).unwrap(),
            Link::Gone => panic!("not connected"),
        }
    }

    /// Sends a request; with an id, asks for its ack.
    pub(crate) fn post(&mut self, event: &str, payload: &Value, id: Option<u64>) {
        match &mut self.link {
            Link::SocketIo { commands, .. } => {
                let mut command = json!({ "emit": event, "payload": payload });
                if let Some(id) = id {
                    command["ack"] = json!(id);
                }
                writeln!(commands, "{command}").unwrap();
            }
            Link::WebSocket(socket) => {
                let mut frame = json!({ "v": 1, "t": event, "p": payload });
                if let Some(id) = id {
                    frame["id"] = json!(id.to_string());
                }
                // A server that closes while a large frame is under way is what some tests are about.
                let _ = socket.send(Message::text(frame.to_string()));
            }
            Link::Gone => panic!("not connected"),
        }
    }

    /// Waits for the outcome of the last request that was posted with an id.
    #[track_caller]
    pub(crate) fn last_ack(&mut self) -> Result<Value, Value> {
        let id = self.last_id;
        self.hear("an ack", |heard| match heard {
            Heard::Ack(found, outcome) if *found == id => Some(outcome.clone()),
            _ => None,
        })
    }

    #[track_caller]
    fn hear<T>(&mut self, what: &str, mut wanted: impl FnMut(&Heard) -> Option<T>) -> T {
        let mut at = 0;
        loop {
            while let Some(heard) = self.inbox.get(at) {
                if let Some(found) = wanted(heard) {
                    self.inbox.remove(at);
                    return found;
                }
                at += 1;
            }
            let Some(heard) = self.receive() else {
                panic!("waited {PATIENCE:?} for {what} and heard {:#?}", self.inbox)
            };
            if let Heard::Event(_, payload) = &heard {
                self.seqs.extend(payload["seq"].as_u64());
            }
            self.inbox.push_back(heard);
        }
    }

    fn receive(&mut self) -> Option<Heard> {
        match &mut self.link {
            Link::SocketIo { heard, .. } => heard.recv_timeout(PATIENCE).ok().map(|line| from_driver(&line)),
            Link::WebSocket(socket) => from_socket(socket),
            Link::Gone => None,
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Link::SocketIo { program, .. } = &mut self.link {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

fn socket_io(url: &str, options: &Value) -> Link {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js/golden-socketio.mjs");
    assert!(script.with_file_name("node_modules").exists(), "run tests/install.sh first");
    let mut program = Command::new("node")
        .arg(script)
        .args([url, &options.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let commands = program.stdin.take().unwrap();
    let output = BufReader::new(program.stdout.take().unwrap());
    let (sender, heard) = channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Link::SocketIo { program, commands, heard }
}

fn from_driver(line: &Value) -> Heard {
    let text = |name: &str| line[name].as_str().map(ToOwned::to_owned);
    if let Some(name) = text("event") {
        return Heard::Event(name, line["payload"].clone());
    }
    if let Some(id) = line["ack"].as_u64() {
        let answer = &line["answer"];
        let outcome = match answer["success"].as_bool() {
            Some(true) => Ok(answer["data"].clone()),
            _ => Err(answer["error"].clone()),
        };
        return Heard::Ack(id, outcome);
    }
    match (text("refused"), text("closed")) {
        (Some(message), _) => Heard::Refused(message),
        (_, Some(reason)) => Heard::Closed(reason),
        _ => Heard::Upgraded,
    }
}

fn websocket(server: &Server, origin: Option<&str>) -> Result<Box<WebSocket<TcpStream>>, String> {
    let stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut request = format!("ws://{}/ws", server.http).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "passerelle.v1.json".parse().unwrap());
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    match client(request, stream) {
        Ok((socket, _)) => Ok(Box::new(socket)),
        Err(tokio_tungstenite::tungstenite::HandshakeError::Failure(Error::Http(response))) => {
            Err(response.status().as_u16().to_string())
        }
        Err(error) => panic!("{error}"),
    }
}

fn from_socket(socket: &mut WebSocket<TcpStream>) -> Option<Heard> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return Some(from_frame(serde_json::from_str(&text).unwrap())),
            Ok(Message::Close(frame)) => {
                let code = frame.map_or(1005, |frame| frame.code.into());
                return Some(Heard::Closed(code.to_string()));
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return None,
            // Nothing came in time.
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(error) => panic!("the WebSocket broke: {error}"),
        }
    }
}

/// The sequence number of an event is put where Socket.IO has it, so that tests read it in one place.
fn from_frame(mut frame: Value) -> Heard {
    assert_eq!(frame["v"], 1);
    if frame["t"] == "ack" {
        let id = frame["re"].as_str().unwrap().parse().unwrap();
        let outcome = if frame["ok"] == true { Ok(frame["p"].take()) } else { Err(frame["error"].take()) };
        return Heard::Ack(id, outcome);
    }
    let (name, mut payload, seq) = (frame["t"].take(), frame["p"].take(), frame["seq"].take());
    if !seq.is_null() {
        payload["seq"] = seq;
    }
    Heard::Event(name.as_str().unwrap().to_owned(), payload)
}
