//! A server on a free port, and clients of both framings.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, Response};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, handshake::client::Request};
use tokio_util::sync::CancellationToken;

use crate::auth::{self, Authenticator, Mode, Outbound, PinnedKey, TokenConfig};
use crate::http::{Access, AccessLists, Config, Engine, Parts, Ready, metrics_router, router, serve};
use crate::metrics::Metrics;
use crate::signaling::{
    CallId, CallRecord, Config as HubConfig, Hub, IceMint, IceServer, IceServers, Now, UserId,
};
use crate::store::{
    CallEvent, CallPage, CallQuery, CallStore, Delivery, Entry, Horizon, MissedCall, MissedPage, MissedQuery,
    StoreError, StoredCall,
};

pub(super) const SECRET: &str = "a secret of at least thirty-two bytes";
/// Key of the operator's own servers.
pub(super) const API_KEY: &str = "an api key of at least thirty-two bytes";
/// The longest a test waits for something that must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn token(user: &str) -> String {
    let claims = json!({"sub": user, "name": user, "exp": crate::http::engine::now().unix_ms / 1000 + 3600});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// A server; it stops when it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) engine: Arc<Engine>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ready: Arc<Ready>,
    pub(super) store: Arc<NoCalls>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// With tokens, and anonymous callers as the mode says.
    pub(super) async fn start(anonymous: Mode, adjust: impl FnOnce(&mut Config)) -> Self {
        let keys = vec![PinnedKey::secret(&SECRET.into(), None).unwrap()];
        let token = TokenConfig { keys, jwks: None, issuer: None, audience: None };
        let api_keys = vec![API_KEY.into()];
        let ways = auth::Config { anonymous, token: Some(token), api_keys, ..auth::Config::default() };
        Self::with(Authenticator::new(&ways, Outbound::new()), adjust).await
    }

    pub(super) async fn with(authenticator: Authenticator, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        adjust(&mut config);
        let metrics = Arc::new(Metrics::new().unwrap());
        let rules = HubConfig { ring_timeout_min: Duration::from_millis(100), ..HubConfig::default() };
        let hub = Hub::new(rules, Box::new(Ice), Box::new(|bytes| rand::fill(bytes)));
        let engine = Engine::new(hub, &config.limits, Arc::clone(&metrics), Arc::new(|_| {}));
        let (ready, store) = (Arc::new(Ready::default()), Arc::new(NoCalls::default()));
        let parts = Parts {
            engine: Arc::clone(&engine),
            access: Arc::new(Access::new(AccessLists::parse(&config, authenticator.anonymous()).unwrap())),
            authenticator: Arc::new(authenticator),
            store: Arc::clone(&store) as Arc<dyn CallStore>,
            ice: Box::new(Ice),
            ready: Arc::clone(&ready),
            metrics: Arc::clone(&metrics),
            operations: Arc::default(),
        };
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, router(&config.limits, parts), stop.clone()));
        let timers = Arc::clone(&engine);
        let stop_timers = stop.clone();
        tokio::spawn(async move { timers.run(stop_timers).await });
        Self { address, engine, metrics, ready, store, stop }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Starts the scrape listener beside it.
    pub(super) async fn scrape(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, metrics_router(Arc::clone(&self.metrics)), self.stop.clone()));
        format!("http://{address}/metrics")
    }
}

/// Polls until something holds.
pub(super) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Ice;

impl IceMint for Ice {
    fn mint(&mut self, user: &UserId, _: Option<&CallId>, relay: bool, _: Now) -> IceServers {
        let server = |url: &str, credential: Option<&str>| IceServer {
            urls: vec![url.to_owned()],
            username: credential.map(|_| user.0.to_string()),
            credential: credential.map(ToOwned::to_owned),
        };
        let mut servers = vec![server("stun:call.example", None)];
        servers.extend(relay.then(|| server("turn:call.example", Some("password"))));
        IceServers { servers, ttl: Duration::from_hours(12) }
    }
}

/// A store without calls that remembers what it was asked.
#[derive(Debug, Default)]
pub(super) struct NoCalls(pub(super) Mutex<Vec<CallQuery>>);

impl CallStore for NoCalls {
    fn write<'a>(&'a self, _: &'a [Arc<CallRecord>]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn list(&self, query: CallQuery) -> BoxFuture<'_, Result<CallPage, StoreError>> {
        let broken = query.cursor.as_deref() == Some("broken");
        self.0.lock().push(query);
        Box::pin(async move {
            if broken {
                return Err(StoreError::Cursor);
            }
            Ok(CallPage { calls: Vec::new(), next: Some("second".into()) })
        })
    }

    fn note<'a>(&'a self, _: &'a [Entry]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn running(&self, _: i64, _: u32) -> BoxFuture<'_, Result<Vec<CallRecord>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn ended(&self, _: i64, _: u32) -> BoxFuture<'_, Result<Vec<CallId>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn events(&self, _: Option<UserId>, _: CallId) -> BoxFuture<'_, Result<Vec<CallEvent>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn missed(&self, _: MissedQuery) -> BoxFuture<'_, Result<MissedPage, StoreError>> {
        Box::pin(async { Ok(MissedPage { calls: Vec::new(), next: None }) })
    }

    fn unseen(&self, _: i64, _: u32) -> BoxFuture<'_, Result<Vec<MissedCall>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn trim(&self, _: u32) -> BoxFuture<'_, Result<(u64, u64), StoreError>> {
        Box::pin(async { Ok((0, 0)) })
    }

    fn due(&self, _: i64, _: u32) -> BoxFuture<'_, Result<Vec<Delivery>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn delivered<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn postponed<'a>(&'a self, _: &'a str, _: i64) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn purge(&self, _: Horizon) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async { Ok(0) })
    }

    fn one(&self, _: Option<UserId>, _: CallId) -> BoxFuture<'_, Result<Option<StoredCall>, StoreError>> {
        Box::pin(async { Ok(None) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A WebSocket client of either framing.
pub(super) struct Client(pub(super) WebSocketStream<TcpStream>);

impl Client {
    /// Opens a handshake with these headers.
    pub(super) async fn handshake(
        server: &Server,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(Self, HeaderMap), Response<Option<Vec<u8>>>> {
        let mut request: Request = format!("ws://{}{path}", server.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let stream = TcpStream::connect(server.address).await.unwrap();
        let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, response)) => Ok((Self(socket), response.headers().clone())),
            Err(Error::Http(response)) => Err(*response),
            Err(error) => panic!("{error}"),
        }
    }

    /// A plain WebSocket before its hello.
    pub(super) async fn plain(server: &Server) -> Self {
        let protocol = [("sec-websocket-protocol", "passerelle.v1.json")];
        Self::handshake(server, "/ws", &protocol).await.map_err(|r| r.status()).unwrap().0
    }

    /// A plain WebSocket of a user, after `session:ready`.
    pub(super) async fn of(server: &Server, user: &str) -> Self {
        let mut client = Self::plain(server).await;
        client.send(&json!({"v": 1, "t": "hello", "id": "h", "p": {"token": token(user)}})).await;
        let ack = client.receive().await;
        assert_eq!((&ack["t"], &ack["re"], &ack["ok"]), (&json!("ack"), &json!("h"), &json!(true)), "{ack}");
        let ready = client.receive().await;
        assert_eq!(ready["t"], "session:ready", "{ready}");
        client
    }

    pub(super) async fn send(&mut self, frame: &Value) {
        self.text(frame.to_string()).await;
    }

    pub(super) async fn text(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }

    /// The next JSON frame of a plain WebSocket.
    pub(super) async fn receive(&mut self) -> Value {
        serde_json::from_str(&self.receive_text().await).unwrap()
    }

    /// The next text, whatever is in it.
    pub(super) async fn receive_text(&mut self) -> String {
        let text = async {
            loop {
                match self.0.next().await.expect("closed") {
                    Ok(Message::Text(text)) => return text.as_str().to_owned(),
                    Ok(Message::Ping(_) | Message::Pong(_)) => {}
                    other => panic!("not a text: {other:?}"),
                }
            }
        };
        timeout(PATIENCE, text).await.expect("nothing came")
    }

    /// The close code, after any texts that were still on their way.
    pub(super) async fn closed(&mut self) -> u16 {
        let code = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                    Some(Ok(Message::Close(None)) | Err(_)) | None => return 1006,
                    Some(Ok(_)) => {}
                }
            }
        };
        timeout(PATIENCE, code).await.expect("never closed")
    }
}
