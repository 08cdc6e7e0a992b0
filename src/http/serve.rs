//! Serves a router on a bound socket: HTTP/1.1 only, bounded heads, the peer's address, a graceful end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Time for a request's head, and for the next one of an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of a request in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Connections at once, a listener: 50,000 sessions and room for requests.
const MAX_CONNECTIONS: usize = 60_000;
/// How long requests have to finish after `shutdown`.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after an error of accept: the process is out of file descriptors, trying at once helps nobody.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves one router, on listeners of its own and on connections that others have accepted.
#[derive(Debug)]
pub struct Server {
    router: Router,
    shutdown: CancellationToken,
    abort: CancellationToken,
    places: Arc<Semaphore>,
    connections: TaskTracker,
}

impl Server {
    /// Serves the router until `shutdown`.
    #[must_use]
    pub fn new(router: Router, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            router,
            shutdown,
            abort: CancellationToken::new(),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            connections: TaskTracker::new(),
        })
    }

    /// Serves a connection that somebody else has accepted and decrypted. One too many is dropped.
    pub fn take(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr) {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            self.spawn(io, peer, place);
        }
    }

    fn spawn(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        place: OwnedSemaphorePermit,
    ) {
        let connection = connection(io, peer, self.router.clone(), self.shutdown.clone());
        let abort = self.abort.clone();
        self.connections.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = abort.cancelled() => {}
            }
            drop(place);
        });
    }

    /// Accepts until the shutdown, then lets running requests finish for at most five seconds. Connections that became
    /// WebSockets are not waited for: see [`super::Engine::close_all`].
    pub async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { break };
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Signaling is many small messages: none of them waits for the next.
                    let _ = stream.set_nodelay(true);
                    self.spawn(stream, peer, place);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        self.connections.close();
        if tokio::time::timeout(GRACE, self.connections.wait()).await.is_err() {
            self.abort.cancel();
            self.connections.wait().await;
        }
    }
}

/// Serves a router on one listener: see [`Server::listen`].
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    Server::new(router, shutdown).listen(listener).await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::trace!(%error, "connection ended");
    }
}
