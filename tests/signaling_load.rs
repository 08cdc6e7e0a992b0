//! Many sessions of one server, with the default limits: what an idle one costs, and a storm. A thousand connections
//! break in the same moment and come back in the same moment: every session goes on, and what it was sent meanwhile is
//! there, once and in order.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use support::Server;
use support::server::TOKEN_SECRET;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// Calls of four: one stays, three are cut.
const CALLS: usize = 334;
const MEMBERS: usize = 4;
/// Far more than it takes: the machine may be busy with other tests.
const DEADLINE: Duration = Duration::from_secs(120);

struct Client {
    user: String,
    token: String,
    address: Ipv4Addr,
    socket: Option<WebSocketStream<TcpStream>>,
    resume: Value,
    seq: u64,
    asked: u64,
}

impl Client {
    fn new(number: usize) -> Self {
        let user = format!("user-{number}");
        let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
        let key = jsonwebtoken::EncodingKey::from_secret(TOKEN_SECRET.as_bytes());
        let claims = json!({ "sub": user, "exp": expires });
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        // Ten share an address, as behind a router.
        let address = Ipv4Addr::from_bits(0x7f02_0001 + u32::try_from(number / 10).unwrap());
        Self { user, token, address, socket: None, resume: Value::Null, seq: 0, asked: 0 }
    }

    /// Connects, again and again while there is no room, and gives `session:ready`.
    async fn connect(&mut self, server: SocketAddr) -> Value {
        let socket = loop {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind((self.address, 0).into()).unwrap();
            let mut request = format!("ws://{server}/ws").into_client_request().unwrap();
            request.headers_mut().insert("sec-websocket-protocol", "passerelle.v1.json".parse().unwrap());
            match client_async(request, socket.connect(server).await.unwrap()).await {
                Ok((socket, _)) => break socket,
                Err(Error::Http(answer)) => {
                    assert!([429, 503].contains(&answer.status().as_u16()), "{answer:?}");
                }
                Err(error) => panic!("{error}"),
            }
            sleep(Duration::from_millis(500)).await;
        };
        self.socket = Some(socket);
        let mut wish = self.resume.clone();
        if wish.is_object() {
            wish["seq"] = json!(self.seq);
        }
        self.send(&json!({ "v": 1, "t": "hello", "p": { "token": self.token, "resume": wish } })).await;
        let ready = self.event("session:ready").await;
        self.resume = json!({ "sid": ready["sid"], "key": ready["resume"]["key"] });
        ready
    }

    async fn send(&mut self, frame: &Value) {
        self.socket.as_mut().unwrap().send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Value {
        loop {
            let message = self.socket.as_mut().unwrap().next().await.expect("an open connection").unwrap();
            if let Message::Text(text) = message {
                let frame: Value = serde_json::from_str(&text).unwrap();
                if let Some(seq) = frame["seq"].as_u64() {
                    assert_eq!(seq, self.seq + 1, "{} has a gap before {frame}", self.user);
                    self.seq = seq;
                }
                return frame;
            }
        }
    }

    async fn event(&mut self, name: &str) -> Value {
        loop {
            let mut frame = self.next().await;
            if frame["t"] == name {
                return frame["p"].take();
            }
        }
    }

    /// Sends a request and gives the data of its ack.
    async fn ask(&mut self, event: &str, payload: Value) -> Value {
        self.asked += 1;
        let id = self.asked.to_string();
        self.send(&json!({ "v": 1, "t": event, "id": id, "p": payload, "ls": self.seq })).await;
        loop {
            let mut frame = self.next().await;
            if frame["re"] == id {
                assert_eq!(frame["ok"], true, "{event} of {}: {frame}", self.user);
                return frame["p"].take();
            }
        }
    }

    /// The marks of the signals that come before the state of the call.
    async fn signals_until_state(&mut self) -> Vec<u64> {
        let mut marks = Vec::new();
        loop {
            let frame = self.next().await;
            match frame["t"].as_str().unwrap() {
                "call:signal" => marks.push(mark(&frame["p"])),
                "call:state" => return marks,
                _ => {}
            }
        }
    }

    /// Breaks the connection without a word.
    fn cut(&mut self) {
        let stream = self.socket.take().unwrap().into_inner();
        stream.set_zero_linger().unwrap();
    }
}

fn mark(payload: &Value) -> u64 {
    payload["signal"]["sdpMLineIndex"].as_u64().unwrap()
}

/// One stays, the others are cut.
struct Call {
    id: String,
    stays: Client,
    others: Vec<Client>,
}

impl Call {
    async fn start(number: usize, server: SocketAddr) -> Self {
        let mut clients: Vec<Client> = (0..MEMBERS).map(|at| Client::new(number * MEMBERS + at)).collect();
        for client in &mut clients {
            assert_eq!(client.connect(server).await["resumed"], false);
        }
        let mut stays = clients.remove(0);
        let to: Vec<&str> = clients.iter().map(|client| client.user.as_str()).collect();
        let call = stays.ask("call:initiate", json!({ "to": to, "type": "audio" })).await;
        let id = call["callId"].as_str().unwrap().to_owned();
        for client in &mut clients {
            client.ask("call:join", json!({ "callId": id })).await;
            let answer = json!({ "type": "answer", "to": stays.user, "sdp": "v=0\r\nm=audio 9" });
            client.ask("call:signal", json!({ "callId": id, "signal": answer })).await;
        }
        let mut call = Self { id, stays, others: clients };
        call.tell(1).await;
        for client in &mut call.others {
            assert_eq!(mark(&client.event("call:signal").await), 1);
        }
        call
    }

    /// The one who stays sends a signal to each of the others.
    async fn tell(&mut self, mark: u64) {
        for client in &self.others {
            let signal =
                json!({ "type": "ice-candidate", "to": client.user, "candidate": "", "sdpMLineIndex": mark });
            self.stays.ask("call:signal", json!({ "callId": self.id, "signal": signal })).await;
        }
    }
}

/// The clients and the server need a file for each session.
fn allow_files(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: limit.maximum.map(|most| most.min(wanted)), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).unwrap();
    }
}

async fn storm(http: SocketAddr) {
    let mut calls = Vec::new();
    // A few at a time: only the way back is a storm.
    for first in (0..CALLS).step_by(20) {
        calls.extend(join_all((first..CALLS.min(first + 20)).map(|number| Call::start(number, http))).await);
    }
    calls.iter_mut().for_each(|call| call.others.iter_mut().for_each(Client::cut));
    // The first of these may meet the cut on its way, the second finds nobody there.
    join_all(calls.iter_mut().map(async |call| {
        call.tell(2).await;
        call.tell(3).await;
    }))
    .await;
    let cut = calls.iter_mut().flat_map(|call| call.others.iter_mut());
    let back = join_all(cut.map(async |client| {
        let ready = client.connect(http).await;
        assert_eq!(ready["resumed"], true, "{}: {ready}", client.user);
        client.signals_until_state().await
    }))
    .await;
    assert_eq!(back.len(), CALLS * (MEMBERS - 1));
    assert!(back.iter().all(|marks| *marks == [2, 3]), "{:?}", back.iter().find(|marks| **marks != [2, 3]));
    // Everybody is in the call as before.
    for call in &mut calls {
        call.tell(4).await;
    }
    let all = calls.iter_mut().flat_map(|call| call.others.iter_mut());
    let marks = join_all(all.map(async |client| mark(&client.event("call:signal").await))).await;
    assert!(marks.iter().all(|mark| *mark == 4), "{marks:?}");
}

fn runtime() -> tokio::runtime::Runtime {
    allow_files(8 * 1024);
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Sessions with these numbers that do nothing.
async fn idle(numbers: std::ops::Range<usize>, http: SocketAddr) -> Vec<Client> {
    let mut clients: Vec<Client> = numbers.map(Client::new).collect();
    for some in clients.chunks_mut(50) {
        join_all(some.iter_mut().map(|client| client.connect(http))).await;
    }
    clients
}

/// The release build is measured by `make bench-signaling`; this build may need a little more for the same.
#[test]
fn an_idle_session_costs_twelve_kilobytes_of_the_process_at_most() {
    const SESSIONS: usize = 2_000;
    let runtime = runtime();
    let server = Server::start("[log]\nlevel = \"warn,passerelle::app=info\"");
    // What is allocated once is not a session's.
    let _first = runtime.block_on(idle(0..200, server.http));
    let before = server.resident_kib();
    let _others = runtime.block_on(idle(200..200 + SESSIONS, server.http));
    let each = server.resident_kib().saturating_sub(before) as f64 / SESSIONS as f64;
    assert!(each <= 12.0, "{each} KiB");
}

#[test]
fn a_thousand_sessions_that_are_cut_at_once_all_resume_and_lose_nothing() {
    let runtime = runtime();
    let server = Server::start("[log]\nlevel = \"warn,passerelle::app=info\"");
    runtime
        .block_on(async { timeout(DEADLINE, storm(server.http)).await })
        .expect("the storm is over in time");
    let cut = (CALLS * (MEMBERS - 1)) as f64;
    server.await_metric("passerelle_signaling_session_resume_total", &[("result", "resumed")], cut);
    let scrape = server.scrape();
    assert_eq!(scrape.sum("passerelle_signaling_session_resume_total", &[]), cut, "no wish was refused");
    assert_eq!(scrape.sum("passerelle_signaling_slow_consumers_total", &[]), 0.0);
}
