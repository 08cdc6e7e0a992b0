//! Binds the listeners, starts the workers, and is how the rest of the process reaches them.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, mpsc};
use std::thread;

use mio::{Poll, Waker};
use tokio::task::AbortHandle;

use super::accept::{Acceptor, HttpService};
use super::beat::Beats;
use super::command::{Command, Link};
use super::listen::{Bound, bind_tcp, bind_udp};
use super::sockets::{Socket, Sockets, WAKER};
use super::strangers::Strangers;
use super::streams::Streams;
use super::tls::{self, CertificateError, Certificates};
use super::udp::{Offload, Options, Receiver};
use super::worker::{Gauges, Outbox, Worker, now};
use super::{Config, collector, descriptors};
use crate::metrics::Metrics;
use crate::turn::{self, Departure, Event, Keys, Server, Settings, Shared, Stats};

/// Why the relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A listener could not be bound.
    #[error("{key}: {address} cannot be bound: {error}")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The certificate of the TLS listeners cannot be used.
    #[error("tls: {0}")]
    Certificate(#[from] CertificateError),
    /// There are TLS listeners and no certificate.
    #[error("listen.tls needs tls.cert and tls.key")]
    NoCertificate,
    /// TLS cannot be set up: a defect of the build.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// A worker could not be made.
    #[error("a relay worker cannot be started: {0}")]
    Worker(#[from] io::Error),
    /// A histogram cannot be made: a defect of `metrics`.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What a worker died of.
pub type Failure = Box<dyn Fn(String) + Send + Sync>;

/// What the relay needs of the rest of the process.
pub struct Parts {
    /// The relay core's configuration.
    pub turn: turn::Config,
    /// Keys of the long-term credentials.
    pub keys: Arc<dyn Keys>,
    /// Where counters go.
    pub metrics: Arc<Metrics>,
    /// Called for every allocation made or ended; must not block.
    pub on_event: Arc<dyn Fn(&Event) + Send + Sync>,
    /// What serves HTTP on the TLS listeners, so that one port and one certificate are enough.
    pub http: Option<HttpService>,
    /// Called when a worker ends that was not told to.
    pub on_failure: Failure,
}

/// The relay with every listener bound and nothing running yet.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    workers: usize,
    udp: Vec<Bound>,
    tcp: Vec<std::net::TcpListener>,
    tls: Vec<std::net::TcpListener>,
    certificates: Option<Arc<Certificates>>,
}

impl Relay {
    /// Binds every listener, once for each worker.
    ///
    /// # Errors
    /// [`NetError::Listen`] names the address that cannot be bound.
    pub fn bind(config: Config) -> Result<Self, NetError> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers = if config.workers == 0 { cores } else { config.workers };
        let failed = |key, address: &SocketAddr| {
            let address = *address;
            move |error| NetError::Listen { key, address, error }
        };
        let udp = |address: &SocketAddr| {
            bind_udp(*address, workers, options(&config)).map_err(failed("listen.udp", address))
        };
        let stream = |key| move |address: &SocketAddr| bind_tcp(*address).map_err(failed(key, address));
        let certificates = match &config.certificate {
            Some(files) => Some(Certificates::load(files.clone())?),
            None if config.tls.is_empty() => None,
            None => return Err(NetError::NoCertificate),
        };
        Ok(Self {
            udp: config.udp.iter().map(udp).collect::<Result<_, _>>()?,
            tcp: config.tcp.iter().map(stream("listen.tcp")).collect::<Result<_, _>>()?,
            tls: config.tls.iter().map(stream("listen.tls")).collect::<Result<_, _>>()?,
            certificates,
            config,
            workers,
        })
    }

    /// The bound listeners, each with its key.
    pub fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let udp = self.udp.iter().map(|bound| ("udp", bound.address));
        let stream = |name, listeners: &[std::net::TcpListener]| {
            let addresses: Vec<_> =
                listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
            addresses.into_iter().map(move |address| (name, address))
        };
        udp.chain(stream("tcp", &self.tcp)).chain(stream("tls", &self.tls)).collect()
    }

    /// Starts the workers and the listeners of connections. Needs a tokio runtime.
    ///
    /// # Errors
    /// A worker's poll, waker or thread cannot be made.
    pub fn start(mut self, parts: Parts) -> Result<Handle, NetError> {
        let Parts { mut turn, keys, metrics, on_event, http, on_failure } = parts;
        let sockets = descriptors::raise_limit();
        turn.limits.allocations_total = turn.limits.allocations_total.min(sockets);
        let mut nonce_key = [0; 32];
        rand::fill(&mut nonce_key);
        let shared = Shared::new(&turn.relay_addresses, turn.ports, nonce_key);
        tracing::info!(
            workers = self.workers,
            allocations = turn.limits.allocations_total.min(shared.ports_capacity()),
            "relay ready"
        );
        let settings = Settings::new(turn);
        let on_failure = Arc::new(on_failure);
        let (mut links, mut stats) = (Vec::new(), Vec::new());
        let Options { offload, .. } = options(&self.config);
        let polls = (0..self.workers).map(|_| {
            let poll = Poll::new()?;
            let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
            Ok((poll, waker))
        });
        let polls: Vec<(Poll, Arc<Waker>)> = polls.collect::<io::Result<_>>()?;
        let (beats, workers) = Beats::start(polls.iter().map(|(_, waker)| Arc::clone(waker)).collect())?;
        for (index, ((poll, waker), beat)) in polls.into_iter().zip(workers).enumerate() {
            let (commands, inbox) = mpsc::channel();
            let mut sockets = Sockets::default();
            for bound in &mut self.udp {
                if let Some(socket) = bound.sockets.pop() {
                    sockets.add_listener(poll.registry(), Socket::new(socket, bound.address))?;
                }
            }
            let entropy: turn::Entropy = Box::new(|bytes| rand::fill(bytes));
            let server =
                Server::new(Arc::clone(&shared), settings.clone(), Arc::clone(&keys), entropy, now());
            stats.push(Arc::clone(server.stats()));
            let worker = Worker {
                poll,
                now: now(),
                beat,
                sockets,
                streams: Streams::new(self.config.stream_queue, self.config.unauthenticated_timeout),
                server,
                commands: inbox,
                relay_options: options(&self.config),
                gauges: Gauges::new(&metrics)?,
                on_event: Arc::clone(&on_event),
                receiver: Receiver::new(offload),
                sender: Outbox::new(offload),
                origins: Vec::new(),
                unfinished: Vec::new(),
                errors: Vec::new(),
            };
            let thread = spawn(index, worker, Arc::clone(&on_failure))?;
            links.push(Link::new(commands, waker, thread));
        }
        collector::register(&metrics, stats.clone(), Arc::clone(&shared));
        let links: Arc<[Link]> = links.into();
        let tasks = self.accept(&links, &metrics, http)?;
        Ok(Handle { shared, links, stats, certificates: self.certificates, tasks, beats })
    }

    /// Starts accepting connections, and watching the certificate of those that are encrypted.
    fn accept(
        &mut self,
        links: &Arc<[Link]>,
        metrics: &Arc<Metrics>,
        http: Option<HttpService>,
    ) -> Result<Vec<AbortHandle>, NetError> {
        let acceptor = Arc::new(Acceptor {
            links: Arc::clone(links),
            next: AtomicUsize::new(0),
            proxies: self.config.proxies.clone(),
            first_byte_timeout: self.config.first_byte_timeout,
            strangers: Strangers::new(self.config.connections_per_ip),
            metrics: Arc::clone(metrics),
            http,
        });
        let mut tasks = Vec::new();
        for listener in self.tcp.drain(..) {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.push(tokio::spawn(Arc::clone(&acceptor).run(listener, None)).abort_handle());
        }
        if let Some(certificates) = &self.certificates {
            let config = certificates.server_config()?;
            for listener in self.tls.drain(..) {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tasks.push(
                    tokio::spawn(Arc::clone(&acceptor).run(listener, Some(Arc::clone(&config))))
                        .abort_handle(),
                );
            }
            let watch = tls::watch(Arc::clone(certificates), metrics.tls_certificate_expiry.clone());
            tasks.push(tokio::spawn(watch).abort_handle());
        }
        Ok(tasks)
    }
}

/// How the UDP sockets are made.
const fn options(config: &Config) -> Options {
    Options { receive_buffer: config.receive_buffer, offload: Offload::available(config.segmentation) }
}

fn spawn(index: usize, worker: Worker, on_failure: Arc<Failure>) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(format!("relay-{index}")).spawn(move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run()));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => on_failure(format!("relay worker {index} stopped: {error}")),
            Err(_) => on_failure(format!("relay worker {index} panicked")),
        }
    })
}

/// The running relay.
pub struct Handle {
    shared: Arc<Shared>,
    links: Arc<[Link]>,
    stats: Vec<Arc<Stats>>,
    certificates: Option<Arc<Certificates>>,
    tasks: Vec<AbortHandle>,
    beats: Beats,
}

impl Handle {
    /// Ends every allocation made with credentials of a call, and lets them start no other.
    pub fn revoke_calls(&self, calls: &Arc<[Arc<str>]>) {
        calls.iter().for_each(|call| self.shared.revoke_call(call));
        self.links.iter().for_each(|link| link.send(Command::RevokeCalls(Arc::clone(calls))));
    }

    /// Ends every allocation that somebody made for a call it has left, and lets what it had there start no other.
    pub fn revoke_departed(&self, departure: Departure) {
        self.shared.revoke_departed(&departure);
        let departure = Arc::new(departure);
        self.links.iter().for_each(|link| link.send(Command::RevokeDeparted(Arc::clone(&departure))));
    }

    /// Whether [`Self::revoke_calls`] was told of a call.
    pub fn is_over(&self, call: &str) -> bool {
        self.shared.is_over(call)
    }

    /// Replaces configuration, peer policy and keys of every worker.
    pub fn reconfigure(&self, config: turn::Config, keys: &Arc<dyn Keys>) {
        let settings = Settings::new(config);
        self.links
            .iter()
            .for_each(|link| link.send(Command::Reconfigure(settings.clone(), Arc::clone(keys))));
    }

    /// The certificate of the TLS listeners, to load it again.
    pub const fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.certificates.as_ref()
    }

    /// Answers new Allocate requests with 300 or 508; what is allocated goes on.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Relayed transport addresses in use.
    pub fn allocations(&self) -> u64 {
        let mut total = 0u64;
        for stats in &self.stats {
            stats.each(|measure, value| {
                if matches!(measure, turn::Measure::Allocations(..)) {
                    total = total.wrapping_add(value);
                }
            });
        }
        total
    }

    /// Ends every allocation and waits for the workers, which is a matter of milliseconds.
    pub fn stop(&self) {
        self.links.iter().for_each(|link| link.send(Command::Stop));
        self.tasks.iter().for_each(AbortHandle::abort);
        self.links.iter().for_each(Link::join);
        self.beats.stop();
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("workers", &self.links.len()).finish_non_exhaustive()
    }
}
