//! Plain WebSocket: `GET /ws`, subprotocol `passerelle.v1.json` (RFC 6455).

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::Shared;
use super::admission::{Credential, NotAdmitted, Place, Visitor, credential};
use super::engine::{Opened, WEBSOCKET};
use super::frame;
use super::inbound::{self, ClientFrame, FrameError};
use super::refusal::{Refusal, error_json};
use super::resume::{refresh, wish};
use super::session::{AckId, Frame, Next, Queue};
use crate::auth::Denied;
use crate::signaling::{Close, Reject, Request as SignalRequest, SessionId};

/// The subprotocol.
const PROTOCOL: &str = "passerelle.v1.json";
/// Read and write buffers. The library's defaults cost thirty times as much per connection.
const BUFFER: usize = 4 * 1024;
/// Most bytes the library holds for writing.
const MAX_WRITE: usize = 256 * 1024;
/// Frames are written together up to about this many bytes.
const BATCH: usize = 16 * 1024;
/// How long the closing handshake may take.
const CLOSING: Duration = Duration::from_secs(2);
/// Most bytes that are read and thrown away while closing.
const MAX_LINGER: u64 = 1024 * 1024;

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// How a transport ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    code: u16,
    reason: &'static str,
}

/// The peer closed, or its connection broke.
pub(super) const GONE: End = End { code: 1000, reason: "" };
const TOO_BIG: End = End { code: 1009, reason: "frame too large" };
const NOT_TEXT: End = End { code: 4400, reason: "BINARY_UNSUPPORTED" };
const NO_HELLO: End = End { code: 4401, reason: "no hello in time" };
/// Nobody can say who the caller is: worth trying again.
const UNAVAILABLE: End = End { code: 1013, reason: "authentication is not available" };
const IDLE: End = End { code: 4408, reason: "idle" };

impl End {
    fn protocol(reason: &'static str) -> Self {
        Self { code: 4400, reason }
    }
}

impl From<Close> for End {
    fn from(close: Close) -> Self {
        let (code, reason) = match close {
            Close::Restart => (1012, "restart"),
            Close::Protocol => (4400, "protocol error"),
            Close::Auth => (4401, "not authenticated"),
            Close::Slow => (4408, "slow or idle"),
            Close::Replaced => (4409, "replaced"),
            Close::Capacity => (4413, "capacity"),
            Close::Rate => (4429, "rate"),
        };
        Self { code, reason }
    }
}

/// The payload of `hello`.
#[derive(Debug, Deserialize)]
struct Hello {
    token: Option<String>,
    name: Option<String>,
    #[serde(rename = "anonymousKey")]
    anonymous_key: Option<String>,
    resume: Option<serde_json::Value>,
}

/// Answers the handshake.
pub(crate) async fn upgrade(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
    mut request: Request,
) -> Response {
    let key = match handshake(request.method(), request.headers()) {
        Ok(key) => key,
        Err(refusal) => return refusal.into_response(),
    };
    // A credential in the handshake is the one a hello without any means.
    let handed = match credential(request.headers(), request.uri().query()) {
        Ok(handed) => handed,
        Err(denied) => return Refusal::from(NotAdmitted::from(denied)).into_response(),
    };
    let place = match shared.admission.connect(visitor.peer) {
        Ok(place) => place,
        Err(refusal) => return refusal.into_response(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let transport = Arc::clone(&shared);
    shared.engine.spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket = accepted(upgraded, transport.limits.frame).await;
        run(&transport, socket, visitor, handed, place).await;
    });
    switching(&key)
}

/// The answer to a handshake with this key.
pub(super) fn switching(key: &[u8]) -> Response {
    let accept = HeaderValue::try_from(derive_accept_key(key));
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    if let Ok(accept) = accept {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// A connection that speaks WebSocket from now on, in messages of at most `largest` bytes.
pub(super) async fn accepted(upgraded: Upgraded, largest: usize) -> Socket {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(MAX_WRITE.max(largest.saturating_mul(2)))
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

/// Checks the opening handshake (RFC 6455 section 4.2.1) and returns its key.
pub(super) fn handshake(method: &Method, headers: &HeaderMap) -> Result<Vec<u8>, Refusal> {
    let lists = |name: header::HeaderName, wanted: &str| {
        let values = headers.get_all(name);
        let mut items =
            values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        items.any(|item| item.trim().eq_ignore_ascii_case(wanted))
    };
    if method != Method::GET || !lists(header::CONNECTION, "upgrade") || !lists(header::UPGRADE, "websocket")
    {
        let message = "this is a WebSocket: GET with Upgrade: websocket";
        return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "VALIDATION_ERROR", message));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let message = "Sec-WebSocket-Version must be 13";
        return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "UNSUPPORTED_VERSION", message));
    }
    if !lists(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
        let message = format!("the only subprotocol is {PROTOCOL}");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED_VERSION", message));
    }
    match headers.get(header::SEC_WEBSOCKET_KEY) {
        // Sixteen bytes in base64.
        Some(key) if key.len() == 24 => Ok(key.as_bytes().to_vec()),
        _ => Err(Refusal::validation("Sec-WebSocket-Key is missing or malformed")),
    }
}

/// The life of a transport: hello, then frames both ways, then the close.
async fn run(shared: &Shared, socket: Socket, visitor: Visitor, handed: Credential, place: Place) {
    let (mut sink, mut stream) = socket.split();
    // In boxes: what a greeting needs is not kept for as long as the transport lives.
    let greeting = Box::pin(greet(shared, &mut stream, visitor, handed));
    let greeted = timeout(shared.limits.hello, greeting).await;
    place.leave();
    let end = match greeted.unwrap_or(Err((NO_HELLO, None))) {
        Ok(opened) => {
            let end = tokio::select! {
                // What a request is answered with is written at once.
                biased;
                end = read(shared, &mut stream, opened.session, visitor) => end,
                end = write(shared, &mut sink, &opened.queue) => end,
            };
            if end == Close::Slow.into() {
                shared.engine.close_slow(opened.session);
            } else {
                shared.engine.close(opened.session);
            }
            end
        }
        Err((end, None)) => end,
        Err((end, Some(ack))) => {
            // Whether or not it arrives, the transport closes.
            let _ = timeout(CLOSING, sink.send(Message::text(frame::encode(&ack)))).await;
            end
        }
    };
    let _ = timeout(CLOSING, Box::pin(close(sink, stream, &end))).await;
}

/// Waits for `hello` and opens the session. An error carries the ack to send before the close.
async fn greet(
    shared: &Shared,
    stream: &mut SplitStream<Socket>,
    visitor: Visitor,
    handed: Credential,
) -> Result<Opened, (End, Option<Frame>)> {
    // The caller limits the whole greeting.
    let text = next_text(stream, &mut Instant::now()).await.map_err(|end| (end, None))?;
    let ClientFrame { event, id, payload, .. } =
        inbound::parse(&text, shared.limits.json_depth).map_err(|error| (malformed(error), None))?;
    if event != "hello" {
        return Err((End { code: 4401, reason: "say hello first" }, None));
    }
    let ack = id.map(AckId::Text);
    let refused = |end: End, error: serde_json::Value| {
        (end, ack.clone().map(|id| Frame::Ack { id, outcome: Err(error) }))
    };
    let hello: Hello = serde_json::from_value(payload).map_err(|_| {
        refused(
            End::protocol("hello"),
            error_json("VALIDATION_ERROR", "token, name and anonymousKey are texts"),
        )
    })?;
    let shown = Credential {
        token: hello.token.or(handed.token),
        anonymous_key: hello.anonymous_key.or(handed.anonymous_key),
    };
    let presented = shown.presented(hello.name.as_deref());
    let admitted = shared.admission.authenticate(presented, visitor).await.map_err(|reason| {
        let end = match reason {
            NotAdmitted::Origin => End { code: 4403, reason: "origin" },
            NotAdmitted::Denied(Denied::Unavailable) => UNAVAILABLE,
            NotAdmitted::Denied(_) => Close::Auth.into(),
        };
        refused(end, error_json(reason.code(), &reason.to_string()))
    })?;
    shared
        .open(admitted, visitor, WEBSOCKET, ack.clone(), wish(hello.resume.as_ref()))
        .map_err(|reject| refused(rejected(&reject), reject.to_json()))
}

/// How a transport ends that the hub did not want.
fn rejected(reject: &Reject) -> End {
    match reject.code() {
        "CAPACITY_EXCEEDED" => Close::Capacity.into(),
        "DRAINING" => Close::Restart.into(),
        "RATE_LIMIT_EXCEEDED" => Close::Rate.into(),
        _ => Close::Auth.into(),
    }
}

fn malformed(error: FrameError) -> End {
    End::protocol(match error {
        FrameError::Malformed => "malformed frame",
        FrameError::Version => "UNSUPPORTED_VERSION",
        FrameError::Depth => "nested too deep",
    })
}

/// The next text message. Pings and pongs are the library's; here they show that the peer lives.
pub(super) async fn next_text(
    stream: &mut SplitStream<Socket>,
    heard: &mut Instant,
) -> Result<Utf8Bytes, End> {
    loop {
        let message = stream.next().await;
        *heard = Instant::now();
        match message {
            Some(Ok(Message::Text(text))) => return Ok(text),
            Some(Ok(Message::Binary(_))) => return Err(NOT_TEXT),
            Some(Ok(Message::Close(_))) | None => return Err(GONE),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => return Err(TOO_BIG),
            Some(Err(Error::Utf8(_))) => return Err(End { code: 1007, reason: "not UTF-8" }),
            Some(Err(Error::Protocol(_))) => return Err(End { code: 1002, reason: "" }),
            Some(Err(_)) => return Err(GONE),
        }
    }
}

async fn read(
    shared: &Shared,
    stream: &mut SplitStream<Socket>,
    session: SessionId,
    visitor: Visitor,
) -> End {
    let idle = shared.limits.ping + shared.limits.pong;
    let mut heard = Instant::now();
    // One timer that is moved when it is due, instead of one for each message.
    let mut silence = std::pin::pin!(tokio::time::sleep_until(heard + idle));
    loop {
        let text = loop {
            tokio::select! {
                biased;
                text = next_text(stream, &mut heard) => match text {
                    Ok(text) => break text,
                    Err(end) => return end,
                },
                () = silence.as_mut() => {}
            }
            if heard + idle <= Instant::now() {
                return IDLE;
            }
            silence.as_mut().reset(heard + idle);
        };
        let ClientFrame { event, id, payload, last_seen } =
            match inbound::parse(&text, shared.limits.json_depth) {
                Ok(frame) => frame,
                Err(error) => return malformed(error),
            };
        if event == "session:refresh" {
            Box::pin(refresh(shared, session, visitor, &payload, id.map(AckId::Text))).await;
            continue;
        }
        let request = SignalRequest { event, payload, wants_ack: id.is_some(), size: text.len(), last_seen };
        shared.engine.handle(session, request, id.map(AckId::Text));
    }
}

async fn write(shared: &Shared, sink: &mut SplitSink<Socket, Message>, queue: &Queue) -> End {
    let mut ping = tokio::time::interval(shared.limits.ping);
    ping.tick().await;
    loop {
        let (mut frames, mut bytes) = (0, 0);
        let message = tokio::select! {
            biased;
            _ = ping.tick() => Message::Ping(bytes::Bytes::new()),
            next = queue.next() => match next {
                Next::Send(frame, weight) => {
                    (frames, bytes) = (1, weight);
                    Message::text(frame::encode(&frame))
                }
                Next::Close(close) => return close.into(),
            },
        };
        // What waits already goes along: one write to the network for all of it.
        let sending = async {
            sink.feed(message).await?;
            while bytes < BATCH
                && let Some((frame, weight)) = queue.take()
            {
                (frames, bytes) = (frames + 1, bytes + weight);
                sink.feed(Message::text(frame::encode(&frame))).await?;
            }
            sink.flush().await
        };
        tokio::select! {
            biased;
            result = sending => match result {
                Ok(()) => queue.sent(frames, bytes),
                Err(_) => return GONE,
            },
            () = queue.overdue() => return Close::Slow.into(),
        }
    }
}

/// Sends the close frame and reads until the peer is done: closing a socket with unread bytes resets it, and the reset
/// may overtake the close frame.
pub(super) async fn close(sink: SplitSink<Socket, Message>, stream: SplitStream<Socket>, end: &End) {
    let Ok(mut socket) = sink.reunite(stream) else { return };
    let frame = CloseFrame { code: CloseCode::from(end.code), reason: end.reason.into() };
    if socket.close(Some(frame)).await.is_err() {
        // The peer closed first: the library has the answer to that ready, and nothing but this sends it.
        let _ = socket.flush().await;
    }
    let connection = socket.get_mut();
    if connection.shutdown().await.is_ok() {
        let _ = tokio::io::copy(&mut connection.take(MAX_LINGER), &mut tokio::io::sink()).await;
    }
}
