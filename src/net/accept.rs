//! Connections on their way in: accepted, bounded, identified, decrypted, and handed to a worker for good. Everything
//! here happens before a client has authenticated, so everything has a limit of time and size.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::command::{Command, Link};
use super::proxy;
use super::strangers::Strangers;
use super::stream::Connection;
use crate::metrics::Metrics;
use crate::turn::{FiveTuple, Transport};

/// How long accepting rests when the process is out of file descriptors.
const REST: Duration = Duration::from_millis(100);
/// Bytes read before the hand-over: the first messages of a client that has not authenticated.
const FIRST_READ: usize = 2048;

/// What all listeners share.
pub(super) struct Acceptor {
    pub(super) links: Arc<[Link]>,
    pub(super) next: AtomicUsize,
    pub(super) proxies: Vec<IpNet>,
    pub(super) first_byte_timeout: Duration,
    pub(super) strangers: Strangers,
    pub(super) metrics: Arc<Metrics>,
    pub(super) http: Option<HttpService>,
}

/// What serves HTTP on the TLS listeners: called with the connection, nothing of it read, and the client's address.
pub type HttpService = Arc<dyn Fn(TlsStream<TcpStream>, SocketAddr) + Send + Sync>;

/// Why a connection was given up before a worker had it: the label of `passerelle_turn_connections_refused_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// Its address has too many that have not authenticated.
    TooMany,
    /// Its PROXY header is missing or malformed.
    Proxy,
    /// The TLS handshake failed.
    Handshake,
    /// Nothing came in time.
    Timeout,
    /// It ended before its first byte.
    Closed,
}

impl Refused {
    const fn label(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::Proxy => "proxy",
            Self::Handshake => "handshake",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

impl Acceptor {
    /// Accepts until the task is aborted. An error never ends it: a listener that stopped would be silent.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener, tls: Option<Arc<ServerConfig>>) {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => {
                    let (acceptor, tls) = (Arc::clone(&self), tls.clone());
                    tokio::spawn(async move {
                        if let Err(refused) = acceptor.admit(socket, peer, tls).await {
                            let label = refused.label();
                            acceptor.metrics.turn_connections_refused.with_label_values(&[label]).inc();
                            tracing::debug!(reason = label, "connection refused");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "accept");
                    if !is_of_one_connection(&error) {
                        tokio::time::sleep(REST).await;
                    }
                }
            }
        }
    }

    async fn admit(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<(), Refused> {
        let server = socket.local_addr().map_err(|_| Refused::Closed)?;
        let _ = socket.set_nodelay(true);
        let mut socket = socket;
        let mut client = canonical(peer);
        if self.proxies.iter().any(|network| network.contains(&client.ip())) {
            let header = self.in_time(proxy::read_header(&mut socket)).await?;
            client = header.map_err(|_| Refused::Proxy)?.map_or(client, canonical);
        }
        let admission = self.strangers.admit(client.ip()).ok_or(Refused::TooMany)?;
        let transport = if tls.is_some() { Transport::Tls } else { Transport::Tcp };
        let (socket, tls, unread) = match tls {
            None => {
                let unread = self.first_bytes(&mut socket).await?;
                (socket, None, unread)
            }
            Some(config) => {
                let handshake = TlsAcceptor::from(config).accept(socket);
                let mut stream = self.in_time(handshake).await?.map_err(|_| Refused::Handshake)?;
                // What is looked at here stays in the connection's own buffer.
                let first = self.in_time(stream.fill_buf()).await?.map_err(|_| Refused::Closed)?;
                let first = *first.first().ok_or(Refused::Closed)?;
                if let Some(http) = self.http.as_ref().filter(|_| first.is_ascii_uppercase()) {
                    http(stream, client);
                    return Ok(());
                }
                let (socket, mut tls) = stream.into_inner();
                tls.set_buffer_limit(None);
                (socket, Some(Box::new(tls)), Vec::new())
            }
        };
        let five_tuple = FiveTuple { client, server: canonical(server), transport };
        let socket = socket.into_std().map_err(|_| Refused::Closed)?;
        let connection = Connection { socket, tls, five_tuple, unread, admission };
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(link) = self.links.get(turn % self.links.len().max(1)) {
            link.send(Command::Adopt(Box::new(connection)));
        }
        Ok(())
    }

    async fn first_bytes(&self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Refused> {
        let mut bytes = Vec::with_capacity(FIRST_READ);
        match self.in_time(stream.read_buf(&mut bytes)).await? {
            Ok(1..) => Ok(bytes),
            Ok(0) | Err(_) => Err(Refused::Closed),
        }
    }

    async fn in_time<T>(&self, what: impl Future<Output = T>) -> Result<T, Refused> {
        timeout(self.first_byte_timeout, what).await.map_err(|_| Refused::Timeout)
    }
}

/// Whether an error of accept concerns the connection alone, so that the next one may be accepted at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
