//! The service: from a checked configuration to every socket bound, the parts started, and the end. Owns the order of
//! these steps and nothing of what the parts do. Driven by `cli`.
//!
//! Every socket is bound before anything starts, so that a taken port is an error and not half a server.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, Mode};
use crate::logging;
use crate::metrics::Metrics;
use crate::observe::Observe;
use crate::shutdown::{Drained, Shutdown};
use crate::store::{CallStore, Queue, StoreError};

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit it was built from, where the build said so (`PASSERELLE_COMMIT`).
pub const COMMIT: &str = match option_env!("PASSERELLE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Longest wait for tasks and for records once everything has to stop.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A socket cannot be bound.
    #[error("{key}: cannot listen on {address}: {error}{hint}")]
    Bind {
        /// Key of the listener.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
        /// The way out, where it is known.
        hint: &'static str,
    },
    /// The runtime or the signal handlers cannot be made.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    /// The database cannot be opened.
    #[error("store.url: {0}: check the path and its permissions")]
    Store(#[from] StoreError),
    /// The log cannot be started.
    #[error("log: {0}")]
    Log(#[from] logging::LogError),
    /// A metric is defined wrong.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs the service until a signal ends it.
///
/// # Errors
/// It cannot start.
pub fn run(config: Config) -> Result<(), AppError> {
    logging::init(&config.logging)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config)).inspect_err(|error| tracing::error!("{error}"))
}

/// Every socket but the relay's own.
struct Listeners {
    http: Vec<TcpListener>,
    metrics: Vec<TcpListener>,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Self, AppError> {
        Ok(Self {
            http: bind_all("listen.http", &config.http.listen)?,
            metrics: bind_all("listen.metrics", &config.http.metrics)?,
        })
    }

    fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let http = self.http.iter().map(|socket| ("http", socket));
        let metrics = self.metrics.iter().map(|socket| ("metrics", socket));
        http.chain(metrics).filter_map(|(name, socket)| Some((name, socket.local_addr().ok()?)))
    }
}

/// What every part may use.
struct Base {
    metrics: Arc<Metrics>,
    store: Arc<dyn CallStore>,
    records: Queue,
    observe: Observe,
    shutdown: Shutdown,
}

impl Base {
    async fn start(config: &Config) -> Result<Self, AppError> {
        let metrics = Arc::new(Metrics::new()?);
        metrics.build_info.with_label_values(&[VERSION, COMMIT]).set(1);
        let store = config.store.open().await?;
        let records = Queue::new(metrics.clone());
        let observe = Observe::new(metrics.clone(), records.clone());
        let shutdown = Shutdown::new(config.shutdown);
        shutdown.hear_signals()?;
        Ok(Self { metrics, store, records, observe, shutdown })
    }
}

async fn serve(mut config: Config) -> Result<(), AppError> {
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    let listeners = Listeners::bind(&config)?;
    let bound: Vec<(&'static str, SocketAddr)> = listeners.addresses().collect();
    config.turn.peers.own_listeners.extend(bound.iter().map(|(_, address)| *address));
    // relay: bind its sockets here, and add them to `bound` as ("udp", address).

    let base = Base::start(&config).await?;
    let writer = tokio::spawn(base.records.clone().run(base.store.clone()));

    // relay: start its workers here, with base.metrics, base.observe and base.shutdown.

    // http: start it here on `listeners`, with base.metrics, base.store, base.observe and base.shutdown.
    let _ = (&base.observe, &listeners);

    announce(&config, &bound);
    base.shutdown.draining().await;
    drain(&base).await;
    finish(&base).await;
    writer.abort();
    Ok(())
}

/// Says where the service is, once all of it listens.
fn announce(config: &Config, bound: &[(&'static str, SocketAddr)]) {
    for (listener, address) in bound {
        tracing::info!(listener, %address, "listening");
    }
    tracing::info!(version = VERSION, allocations = config.turn.limits.allocations_total, "ready");
    let page = |name| bound.iter().find(|(listener, _)| *listener == name).map(|(_, address)| address);
    if config.mode == Mode::Development {
        if let Some(address) = page("http") {
            tracing::info!("open http://{address}/ in two browser tabs and call");
        }
        if let Some(address) = page("metrics") {
            tracing::info!("metrics are at http://{address}/metrics");
        }
    }
}

/// Serves what runs, takes nothing new.
async fn drain(base: &Base) {
    base.metrics.draining.set(1);
    tracing::info!("draining: nothing new is accepted, a second signal stops at once");
    // relay, http: say when the last allocation and the last call are gone; then this is done before the deadline.
    let idle = std::future::ready(());
    match base.shutdown.drained(idle).await {
        Drained::Idle => tracing::info!("drained"),
        Drained::Deadline => tracing::warn!("drain.timeout is over: what still runs is cut"),
        Drained::Stopped => tracing::warn!("stopped by a second signal: what still runs is cut"),
    }
}

/// Waits for the last tasks and writes the last records.
async fn finish(base: &Base) {
    if let Err(tasks) = base.shutdown.finished(LAST_WAIT).await {
        tracing::warn!(tasks, "tasks did not end in time");
    }
    if let Err(records) = base.records.flushed(LAST_WAIT).await {
        tracing::error!(records, "call records are lost: the database did not take them in time");
    }
    base.store.close().await;
    tracing::info!("stopped");
}

fn bind_all(key: &'static str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, AppError> {
    let bind = |address: &SocketAddr| {
        bind_tcp(*address).map_err(|error| AppError::Bind {
            key,
            address: *address,
            hint: hint(&error),
            error,
        })
    };
    addresses.iter().map(bind).collect()
}

/// Binds a non-blocking listener. An IPv6 one takes IPv6 only, so that `0.0.0.0` and `[::]` can stand side by side.
fn bind_tcp(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn hint(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::AddrInUse => " (another process has it: stop it, or choose another port)",
        ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
        ErrorKind::AddrNotAvailable => " (this host has no such address)",
        _ => "",
    }
}
