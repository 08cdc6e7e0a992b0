//! Socket.IO 5 over Engine.IO 4: `/socket.io/`, namespaces `/` and `/calls`, websocket, polling and upgrade.
//!
//! The library spawns a task for each event; every handler here does its work before it returns its future, so that
//! events of one socket stay in order. A refused CONNECT is answered with `connect_error` whose `message` is the wire
//! code (`NOT_AUTHENTICATED`): the library has no way to send more.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::middleware::Next as Then;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any_service};
use serde_json::{Value as Json, json};
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::{AckSender, SocketRef, TryData};
use socketioxide::handler::{ConnectHandler, FromConnectParts, FromMessageParts, Value};
use socketioxide::socket::Socket;
use socketioxide::{ParserConfig, SendError, SocketError, SocketIo};

use super::Shared;
use super::admission::{Admitted, Credential, NotAdmitted, Place, Visitor, credential};
use super::engine::{Opened, SOCKETIO};
use super::inbound;
use super::resume::{refresh, wish};
use super::session::{AckId, Frame, Next, Queue};
use crate::auth::{self, Presented};
use crate::signaling::{Close, Reject, Request as SignalRequest, SessionId};

/// Packets the library holds for one connection. Small, because it counts packets and not bytes: the queue of the
/// session, which counts both, is in front of it.
const LIBRARY_PACKETS: usize = 32;
/// How long the writer waits before it tries a full connection again, and the longest it waits.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// What is read of a request behind [`gate`].
const KEPT_HEADERS: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::ORIGIN,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::UPGRADE,
];
/// Where clients connect; both are the same to the engine.
const NAMESPACES: [&str; 2] = ["/", "/calls"];

/// The service behind `/socket.io/`.
pub(crate) fn service(shared: &Arc<Shared>) -> MethodRouter<Arc<Shared>> {
    let limits = &shared.limits;
    let (service, io) = SocketIo::builder()
        .req_path("/socket.io")
        .ping_interval(limits.ping)
        .ping_timeout(limits.pong)
        .connect_timeout(limits.hello)
        .max_payload(limits.frame as u64)
        .ws_max_message_size(limits.frame)
        .ws_max_frame_size(limits.frame)
        .max_buffer_size(LIBRARY_PACKETS)
        .with_parser(
            // Binary is refused, but by an answer: a small packet is read to its end for that.
            ParserConfig::common()
                .max_incoming_binaries(4)
                .max_incoming_binary_buf_size(limits.frame)
                .packet_completion_timeout(limits.hello),
        )
        .build_svc();
    for namespace in NAMESPACES {
        let shared = Arc::clone(shared);
        let connect = move |socket: Connected| {
            socket.start();
            ready(())
        };
        io.ns(
            namespace,
            connect.with(move |socket: Whole, auth: TryData<Json>| {
                admit(Arc::clone(&shared), socket, auth.0.ok())
            }),
        );
    }
    shared.engine.on_close_all(move || {
        let io = io.clone();
        Box::pin(async move { io.close().await })
    });
    any_service(service)
}

/// Middleware in front of the service: the first request of a connection takes a place among those that have not
/// authenticated. The library keeps the request's extensions as long as the connection, and the place with them.
pub(crate) async fn gate(State(shared): State<Arc<Shared>>, mut request: Request, then: Then) -> Response {
    let is_new = !request.uri().query().unwrap_or_default().split('&').any(|pair| pair.starts_with("sid="));
    if is_new {
        let Some(visitor) = request.extensions().get::<Visitor>().copied() else {
            return super::refusal::Refusal::origin().into_response();
        };
        match shared.admission.connect(visitor.peer) {
            Ok(place) => request.extensions_mut().insert(place),
            Err(refusal) => return refusal.into_response(),
        };
        detach(&mut request);
    }
    then.run(request).await
}

/// Gives a request a head of its own. As it comes, every part of it is a piece of the buffer it was read into, and the
/// library keeps the head as long as the connection: eight kilobytes for a few dozen bytes.
fn detach(request: &mut Request) {
    if let Ok(uri) = Uri::try_from(request.uri().to_string()) {
        *request.uri_mut() = uri;
    }
    let mut headers = HeaderMap::with_capacity(KEPT_HEADERS.len() / 2);
    for name in KEPT_HEADERS {
        for value in request.headers().get_all(&name) {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.append(name.clone(), value);
            }
        }
    }
    *request.headers_mut() = headers;
}

/// A socket as the handlers need it: shared, because acks are sent long after their handler returned.
#[derive(Clone)]
struct Whole(Arc<Socket<LocalAdapter>>);

impl FromConnectParts<LocalAdapter> for Whole {
    type Error = Infallible;
    fn from_connect_parts(socket: &Arc<Socket<LocalAdapter>>, _: &Option<Value>) -> Result<Self, Infallible> {
        Ok(Self(Arc::clone(socket)))
    }
}

/// An admitted socket with its session.
struct Connected {
    socket: Whole,
    transport: Option<Arc<Transport>>,
}

impl FromConnectParts<LocalAdapter> for Connected {
    type Error = Infallible;
    fn from_connect_parts(socket: &Arc<Socket<LocalAdapter>>, _: &Option<Value>) -> Result<Self, Infallible> {
        Ok(Self { socket: Whole(Arc::clone(socket)), transport: socket.extensions.get() })
    }
}

/// A session on this framing. Its end closes the session, however the library lets go of the socket.
struct Transport {
    shared: Arc<Shared>,
    session: SessionId,
    queue: Arc<Queue>,
    visitor: Visitor,
    /// A token is being looked at.
    refreshing: AtomicBool,
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.shared.engine.close(self.session);
    }
}

/// Lets a CONNECT in or not. The handlers are set here and not after it: the client may send its first event as soon as
/// it has the answer.
async fn admit(shared: Arc<Shared>, socket: Whole, auth: Option<Json>) -> Result<(), &'static str> {
    let Whole(socket) = socket;
    let parts = socket.req_parts();
    let Some(visitor) = parts.extensions.get::<Visitor>().copied() else { return Err("INTERNAL") };
    let admitted = authenticate(&shared, visitor, parts, auth.as_ref()).await?;
    // A connection may open its first session; more of them count like connections.
    if !parts.extensions.get::<Place>().is_some_and(Place::leave) {
        shared.admission.count(visitor.peer).map_err(|refusal| refusal.code)?;
    }
    let resume = wish(auth.as_ref().and_then(|auth| auth.get("resume")));
    let opened = shared.open(admitted, visitor, SOCKETIO, None, resume).map_err(|reject| reject.code())?;
    let Opened { session, queue, .. } = opened;
    let transport =
        Arc::new(Transport { shared, session, queue, visitor, refreshing: AtomicBool::new(false) });
    let on_event = Arc::clone(&transport);
    socket.on_fallback(move |event: Inbound| {
        Transport::receive(&on_event, &event);
        ready(())
    });
    let on_disconnect = Arc::clone(&transport);
    socket.on_disconnect(move || {
        on_disconnect.shared.engine.close(on_disconnect.session);
        on_disconnect.queue.abort(Close::Restart);
        ready(())
    });
    socket.extensions.insert(transport);
    Ok(())
}

async fn authenticate(
    shared: &Shared,
    visitor: Visitor,
    parts: &axum::http::request::Parts,
    auth: Option<&Json>,
) -> Result<Admitted, &'static str> {
    let text = |name: &str| auth.and_then(|auth| auth.get(name)).and_then(Json::as_str);
    let token = text("token").or_else(|| text("authToken"));
    let handed = match token {
        Some(_) => Credential::default(),
        None => credential(&parts.headers, parts.uri.query()).map_err(auth::Denied::code)?,
    };
    let presented = Presented {
        token: token.or(handed.token.as_deref()),
        name: text("name"),
        anonymous_key: text("anonymousKey").or(handed.anonymous_key.as_deref()),
    };
    let admitted = shared.admission.authenticate(presented, visitor).await;
    admitted.map_err(NotAdmitted::code)
}

/// An event as it came: its JSON text is parsed here, where its depth is limited.
struct Inbound {
    text: String,
    binary: bool,
    ack: Option<i64>,
}

impl FromMessageParts<LocalAdapter> for Inbound {
    type Error = Infallible;
    fn from_message_parts(
        _: &Arc<Socket<LocalAdapter>>,
        value: &mut Value,
        ack: &Option<i64>,
    ) -> Result<Self, Infallible> {
        let (text, binary) = match value {
            Value::Str(text, attachments) => (text.as_str().to_owned(), attachments.is_some()),
            Value::Bytes(_) => (String::new(), true),
        };
        Ok(Self { text, binary, ack: *ack })
    }
}

impl Inbound {
    /// Name and payload of the event; an event without a payload has an empty one.
    fn parse(&self, max_depth: usize) -> Result<(String, Json), Reject> {
        if self.binary {
            return Err(Reject::BinaryUnsupported);
        }
        inbound::event(&self.text, max_depth)
    }
}

impl Transport {
    fn receive(self: &Arc<Self>, inbound: &Inbound) {
        let ack = inbound.ack.map(AckId::Number);
        match inbound.parse(self.shared.limits.json_depth) {
            Ok((event, payload)) if event == "session:refresh" => self.refresh(payload, ack),
            Ok((event, payload)) => {
                let request = SignalRequest {
                    event,
                    payload,
                    wants_ack: ack.is_some(),
                    size: inbound.text.len(),
                    last_seen: None,
                };
                self.shared.engine.handle(self.session, request, ack);
            }
            Err(reject) => self.shared.engine.refuse(self.session, &reject, ack),
        }
    }
}

impl Transport {
    /// Looks at another token without holding other events up; one at a time.
    fn refresh(self: &Arc<Self>, payload: Json, ack: Option<AckId>) {
        if self.refreshing.swap(true, Ordering::AcqRel) {
            let reject = Reject::RateLimited { limit: "refresh", retry_after: Duration::from_secs(1) };
            return self.shared.engine.refuse(self.session, &reject, ack);
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            refresh(&this.shared, this.session, this.visitor, &payload, ack).await;
            this.refreshing.store(false, Ordering::Release);
        });
    }
}

impl Connected {
    /// Starts the writer. It ends with the socket or with the session, whichever is first.
    fn start(self) {
        let Self { socket: Whole(socket), transport } = self;
        let Some(transport) = transport else { return };
        let (shared, queue) = (Arc::clone(&transport.shared), Arc::clone(&transport.queue));
        let session = transport.session;
        // The writer must not keep the session open.
        drop(transport);
        let engine = Arc::clone(&shared.engine);
        engine.spawn(async move {
            let end = write(&socket, &queue).await;
            match end {
                Close::Slow => shared.engine.close_slow(session),
                _ => shared.engine.close(session),
            }
            disconnect(&socket).await;
        });
    }
}

async fn write(socket: &Arc<Socket<LocalAdapter>>, queue: &Queue) -> Close {
    loop {
        let (frame, weight) = match queue.next().await {
            Next::Send(frame, weight) => (frame, weight),
            Next::Close(close) => return close,
        };
        let mut wait = RETRY.0;
        while let Err(error) = send(socket, &frame) {
            match error {
                SendError::Socket(SocketError::InternalChannelFull) => {}
                _ => return Close::Restart,
            }
            if queue.is_overdue() {
                return Close::Slow;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
        }
        queue.sent(1, weight);
    }
}

fn send(socket: &Arc<Socket<LocalAdapter>>, frame: &Frame) -> Result<(), SendError> {
    match frame {
        Frame::Event(event) => socket.emit(event.name, &event.to_value()),
        Frame::Ack { id: AckId::Number(id), outcome } => {
            let body = match outcome {
                Ok(data) => json!({"success": true, "data": data}),
                Err(error) => json!({"success": false, "error": error}),
            };
            let mut no_value = Value::Bytes(bytes::Bytes::new());
            let Ok(ack) = AckSender::from_message_parts(socket, &mut no_value, &Some(*id));
            ack.send(&body)
        }
        // An id of the other framing cannot come here.
        Frame::Ack { id: AckId::Text(_), .. } => Ok(()),
    }
}

/// Disconnects from the namespace. A connection that is full takes no packet: then its next ping, which cannot be
/// queued either, ends it.
async fn disconnect(socket: &Arc<Socket<LocalAdapter>>) {
    let mut wait = RETRY.0;
    while socket.connected() {
        match SocketRef::from(Arc::clone(socket)).disconnect() {
            Err(SocketError::InternalChannelFull) => tokio::time::sleep(wait).await,
            _ => return,
        }
        wait = (wait * 2).min(RETRY.1);
    }
}
