//! The service: from a checked configuration to every socket bound, the parts started, and the end. Owns the order of
//! these steps and nothing of what the parts do. Driven by `cli`.
//!
//! Every socket is bound before anything starts, so that a taken port is an error and not half a server.

mod records;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;

use records::{Reach, Unfinished};

use crate::auth::{Authenticator, Credentials, Outbound, SharedSecrets, Users};
use crate::config::{Config, Mode, Sources};
use crate::http::{self, Access, AccessLists, Engine, Operations, Ready, Sink, Webhooks};
use crate::link::Link;
use crate::logging::{self, Log};
use crate::metrics::Metrics;
use crate::net::{self, NetError, Relay};
use crate::observe::Observe;
use crate::reload::{self, Hangup, Reload};
use crate::shutdown::{Drained, Shutdown};
use crate::signaling::{self, CallId, Entropy, Hub, RelayUsage, UserId};
use crate::store::{self, CallStore, Late, Queue, StoreError};
use crate::supervisor;
use crate::turn;

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit it was built from, where the build said so (`PASSERELLE_COMMIT`).
pub const COMMIT: &str = match option_env!("PASSERELLE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// How long sessions are closed for, a slice at a time, so that clients do not come back all at once.
const CLOSING: Duration = Duration::from_secs(2);
/// How often a drain looks whether something still runs.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// Longest wait for tasks and for records once everything has to stop.
const LAST_WAIT: Duration = Duration::from_secs(10);
/// The same for records after a second signal.
const HURRIED_WAIT: Duration = Duration::from_secs(1);

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
    /// An origin is none.
    #[error("http.origins: {0}")]
    Origin(#[from] http::BadOrigin),
    /// The relay does not start.
    #[error("{0}")]
    Relay(#[from] NetError),
    /// A part of the running service is broken.
    #[error("{0}")]
    Broken(String),
    /// A metric is defined wrong.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs the service until a signal ends it. `sources` are where `config` came from, to be read again on a reload.
///
/// # Errors
/// It cannot start.
pub fn run(config: Config, sources: Sources) -> Result<(), AppError> {
    let log = logging::init(&config.logging)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config, sources, log))
}

async fn serve(mut config: Config, sources: Sources, log: Log) -> Result<(), AppError> {
    let hangup = Hangup::hear()?;
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    let listeners = Listeners::bind(&config)?;
    let relay = Relay::bind(config.net.clone())?;
    let mut bound = listeners.addresses();
    bound.extend(relay.listeners());
    let mut never_peers: Vec<SocketAddr> = bound.iter().map(|(_, address)| *address).collect();
    never_peers.extend(config.store.addresses());
    config.turn.peers.own_listeners.extend(&never_peers);

    let secrets = SharedSecrets::new(config.turn_secrets.clone());
    let of = |wanted| -> Vec<SocketAddr> {
        bound.iter().filter(|(name, _)| *name == wanted).map(|(_, address)| *address).collect()
    };
    let urls = config.ice_urls(&of("udp"), &of("tcp"), &of("tls"));
    let link = Link::new(secrets.clone(), urls, config.credential_ttl);
    let base = Base::start(&config, link).await?;
    let writer = tokio::spawn(base.records.clone().run(base.store.clone()));
    let unfinished = unfinished(&config, &base).await;
    let web = Web::start(&config, &base, listeners, unfinished)?;
    let background = background(&config, &base, &web.engine);
    let relay = Arc::new(relay.start(relay_parts(&config, &base, &web, secrets))?);
    base.link.connect(&relay);

    announce(&config, &bound);
    web.ready.set_ready();
    supervisor::ready();
    let alive = tokio::spawn(supervisor::keep_alive());
    let reload = Arc::new(Reload::new(sources, config, reload_parts(&base, &web, &relay, log, never_peers)));
    let reloads = tokio::spawn(hangup.drive(reload.clone()));
    operate(&web, &base, reload);
    base.shutdown.draining().await;
    reloads.abort();
    supervisor::stopping(base.shutdown.timeout().saturating_add(CLOSING + LAST_WAIT * 2));
    drain(&base, &web, &relay).await;
    relay.stop();
    finish(&base).await;
    writer.abort();
    background.iter().for_each(JoinHandle::abort);
    alive.abort();
    base.failure.get().map_or(Ok(()), |failure| Err(AppError::Broken(failure.clone())))
}

/// What an earlier process left unfinished. Without it the service starts all the same.
async fn unfinished(config: &Config, base: &Base) -> Unfinished {
    match Unfinished::read(&Reach::of(config), &*base.store).await {
        Ok(unfinished) => return unfinished,
        // It is read when the database is there.
        Err(StoreError::Away) => {}
        Err(error) => {
            tracing::error!(%error, "calls that were running cannot be read: they are not taken up again");
        }
    }
    Unfinished::default()
}

/// What runs beside everything else, until the last record is written.
fn background(config: &Config, base: &Base, engine: &Arc<Engine>) -> Vec<JoinHandle<()>> {
    let mut tasks = vec![tokio::spawn(store::purge(base.store.clone(), config.retention))];
    if let Some(target) = &config.webhooks {
        let webhooks = Webhooks {
            target: target.clone(),
            store: base.store.clone(),
            outbound: Outbound::new(),
            metrics: base.metrics.clone(),
            most: config.webhook_events,
        };
        tasks.push(tokio::spawn(webhooks.run()));
    }
    if let Some(late) = &base.late {
        let arrival = records::arrival(
            config.store.clone(),
            Reach::of(config),
            late.clone(),
            engine.clone(),
            base.link.clone(),
            base.metrics.clone(),
        );
        tasks.push(tokio::spawn(arrival));
    }
    tasks
}

/// What an operator may tell the process through REST.
fn operate(web: &Web, base: &Base, reload: Arc<Reload>) {
    let shutdown = base.shutdown.clone();
    let reload: http::Reload = Box::new(move || {
        let reload = reload.clone();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || reload.reload()).await;
            match done {
                Ok(Ok(changes)) => Ok(changes.into_iter().map(|change| change.key).collect()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the reload did not finish".into()),
            }
        })
    });
    web.operations.set(move || shutdown.drain(), reload);
}

/// What the relay is started with.
fn relay_parts(config: &Config, base: &Base, web: &Web, secrets: SharedSecrets) -> net::Parts {
    let users = Users::new(&config.turn.realm, &config.turn_users);
    let (observe, link) = (base.observe.clone(), base.link.clone());
    let (shutdown, failure) = (base.shutdown.clone(), base.failure.clone());
    let (server, engine) = (web.server.clone(), web.engine.clone());
    let networks = config.peer_networks;
    net::Parts {
        turn: config.turn.clone(),
        keys: Arc::new(Credentials::new(users, secrets)),
        metrics: base.metrics.clone(),
        on_event: Arc::new(move |event| {
            observe.turn(event);
            link.turn(event);
            note_usage(&engine, event, networks);
        }),
        http: Some(Arc::new(move |connection, peer| server.take(connection, peer))),
        // Half a relay is worse than none: the supervisor starts a whole one again.
        on_failure: Box::new(move |what| {
            tracing::error!("{what}");
            let _ = failure.set(what);
            shutdown.hurry();
        }),
    }
}

/// Puts what an allocation relayed into the record of its call.
fn note_usage(engine: &Engine, event: &turn::Event, networks: bool) {
    if let turn::Event::AllocationEnded { five_tuple, grant, usage, peers, .. } = event
        && let Some(call) = &grant.call
    {
        let (call, user) = (CallId(call.clone()), UserId(grant.user.clone()));
        let network = |peer: &IpAddr| logging::network(*peer).to_string().into();
        // A peer it may have reached says nothing where nothing was relayed.
        let named = networks && *usage != turn::Usage::default();
        let usage = RelayUsage {
            up: usage.bytes_to_peer,
            down: usage.bytes_to_client,
            transport: five_tuple.transport.label(),
            peers: if named { peers.iter().map(network).collect() } else { Vec::new() },
        };
        engine.relay_usage(&call, &user, usage);
    }
}

/// What takes another configuration.
fn reload_parts(
    base: &Base,
    web: &Web,
    relay: &Arc<net::Handle>,
    log: Log,
    bound: Vec<SocketAddr>,
) -> reload::Parts {
    reload::Parts {
        relay: relay.clone(),
        link: base.link.clone(),
        authenticator: web.authenticator.clone(),
        access: web.access.clone(),
        engine: web.engine.clone(),
        log,
        shutdown: base.shutdown.clone(),
        certificate: Box::new({
            let certificates = relay.certificates().cloned();
            move || {
                certificates.iter().try_for_each(|found| found.reload().map_err(|error| error.to_string()))
            }
        }),
        on_outcome: Box::new({
            let reloads = base.metrics.config_reloads.clone();
            move |result| reloads.with_label_values(&[result]).inc()
        }),
        bound,
    }
}

/// Every TCP socket.
struct Listeners {
    http: Vec<TcpListener>,
    metrics: Vec<TcpListener>,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Self, AppError> {
        Ok(Self {
            http: bind_all("listen.http", &config.http.http)?,
            metrics: bind_all("listen.metrics", &config.http.metrics)?,
        })
    }

    /// Name and bound address of each.
    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let http = self.http.iter().map(|socket| ("http", socket));
        let metrics = self.metrics.iter().map(|socket| ("metrics", socket));
        http.chain(metrics).filter_map(|(name, socket)| Some((name, socket.local_addr().ok()?))).collect()
    }
}

/// What every part may use.
struct Base {
    metrics: Arc<Metrics>,
    store: Arc<dyn CallStore>,
    /// Where the store goes if it was away at the start.
    late: Option<Arc<Late>>,
    records: Queue,
    observe: Observe,
    link: Link,
    shutdown: Shutdown,
    /// What broke while the service ran.
    failure: Arc<OnceLock<String>>,
}

impl Base {
    async fn start(config: &Config, link: Link) -> Result<Self, AppError> {
        let metrics = Arc::new(Metrics::new()?);
        metrics.build_info.with_label_values(&[VERSION, COMMIT]).set(1);
        let (store, late) = records::open(&config.store, &metrics).await?;
        let records = Queue::new(metrics.clone());
        records.tell_webhook(config.webhooks.is_some());
        records.keep_steps(!config.retention.events.is_zero());
        let relayed = link.clone();
        let observe =
            Observe::new(metrics.clone(), records.clone(), Arc::new(move |call| relayed.has_relayed(call)));
        let shutdown = Shutdown::new(config.shutdown);
        shutdown.hear_signals()?;
        Ok(Self { metrics, store, late, records, observe, link, shutdown, failure: Arc::default() })
    }
}

/// Signaling, REST, pages and metrics.
struct Web {
    engine: Arc<Engine>,
    authenticator: Arc<Authenticator>,
    access: Arc<Access>,
    ready: Arc<Ready>,
    server: Arc<http::Server>,
    operations: Arc<Operations>,
}

impl Web {
    fn start(
        config: &Config,
        base: &Base,
        listeners: Listeners,
        unfinished: Unfinished,
    ) -> Result<Self, AppError> {
        let ice = || Box::new(base.link.clone());
        let (observe, link) = (base.observe.clone(), base.link.clone());
        let sink: Sink = Arc::new(move |event| {
            use signaling::Event::{CallEnded, Departed};
            let over = matches!(event, CallEnded { .. } | Departed { .. }).then(|| event.clone());
            observe.signaling(event);
            // Only now: the observer asks the link which way the media went.
            over.iter().for_each(|event| link.signaling(event));
        });

        let entropy: Entropy = Box::new(|bytes| rand::fill(bytes));
        let hub = Hub::new(config.signaling.clone(), ice(), entropy);
        let engine = Engine::new(hub, &config.http.limits, base.metrics.clone(), sink);
        unfinished.take_up(&engine, &base.link);
        let ready = Arc::new(Ready::default());
        let operations = Arc::<Operations>::default();
        let authenticator = Arc::new(Authenticator::new(&config.auth, Outbound::new()));
        let access = Arc::new(Access::new(AccessLists::parse(&config.http, config.auth.anonymous)?));
        let parts = http::Parts {
            engine: engine.clone(),
            authenticator: authenticator.clone(),
            access: access.clone(),
            store: base.store.clone(),
            ice: ice(),
            ready: ready.clone(),
            metrics: base.metrics.clone(),
            operations: operations.clone(),
        };
        let router = http::router(&config.http.limits, parts);
        let scrape = http::metrics_router(base.metrics.clone());
        let shutdown = &base.shutdown;
        let server = http::Server::new(router, shutdown.stop_token());
        let scrape = http::Server::new(scrape, shutdown.stop_token());
        for (sockets, server) in [(listeners.http, &server), (listeners.metrics, &scrape)] {
            for socket in sockets {
                let socket = tokio::net::TcpListener::from_std(socket)?;
                shutdown.spawn(Arc::clone(server).listen(socket));
            }
        }
        let (timers, stop) = (engine.clone(), shutdown.stop_token());
        shutdown.spawn(async move { timers.run(stop).await });
        Ok(Self { engine, authenticator, access, ready, server, operations })
    }
}

/// Says where the service is, once all of it listens.
fn announce(config: &Config, bound: &[(&'static str, SocketAddr)]) {
    for (listener, address) in bound {
        tracing::info!(listener, %address, "listening");
    }
    tracing::info!(version = VERSION, "ready");
    if config.mode == Mode::Development {
        let first = |name| bound.iter().find(|(listener, _)| *listener == name);
        if let Some((_, address)) = first("http") {
            tracing::info!("open http://{address}/ in two browser tabs and call");
        }
        if let Some((_, address)) = first("metrics") {
            tracing::info!("metrics are at http://{address}/metrics");
        }
    }
}

/// Serves what runs and takes nothing new, then closes what is left.
async fn drain(base: &Base, web: &Web, relay: &net::Handle) {
    tracing::info!("draining: nothing new is accepted, a second signal stops at once");
    web.ready.set_draining();
    web.engine.drain();
    relay.drain();
    let idle = async {
        while base.observe.calls() > 0 || relay.allocations() > 0 {
            tokio::time::sleep(IDLE_POLL).await;
        }
    };
    let why = base.shutdown.drained(idle).await;
    let (calls, allocations) = (base.observe.calls(), relay.allocations());
    match why {
        Drained::Idle => tracing::info!("no call and no allocation is left"),
        Drained::Deadline => tracing::warn!(calls, allocations, "drain.timeout is over: what is left is cut"),
        Drained::Hurried => tracing::warn!(calls, allocations, "a second signal: what is left is cut"),
    }
    tokio::select! {
        () = web.engine.close_all(CLOSING) => {}
        () = base.shutdown.hurrying() => {}
    }
    base.shutdown.stop();
}

/// Waits for the last tasks and writes the last records.
async fn finish(base: &Base) {
    if let Err(tasks) = base.shutdown.finished(LAST_WAIT).await {
        tracing::warn!(tasks, "tasks did not end in time");
    }
    let limit = if base.shutdown.is_hurrying() { HURRIED_WAIT } else { LAST_WAIT };
    if let Err(records) = base.records.flushed(limit).await {
        tracing::error!(records, "call records are lost: the database did not take them in time");
    }
    base.store.close().await;
    tracing::info!("stopped");
}

fn bind_all(key: &'static str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, AppError> {
    let bind = |address: &SocketAddr| {
        net::bind_tcp(*address).map_err(|error| AppError::Bind {
            key,
            address: *address,
            hint: hint(&error),
            error,
        })
    };
    addresses.iter().map(bind).collect()
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
