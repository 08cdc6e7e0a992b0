//! Binds the listeners, starts the workers, and is how the rest of the process reaches them.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;

use mio::{Poll, Waker};
use parking_lot::Mutex;

use super::sockets::{Socket, Sockets, WAKER};
use super::udp::{self, Options, Receiver};
use super::worker::{Command, Gauges, Outbox, Worker, now};
use super::{Config, collector, descriptors};
use crate::metrics::Metrics;
use crate::turn::{self, Event, Keys, Server, Settings, Shared, Stats};

/// Why the relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A listener could not be bound.
    #[error("listen.udp: {address} cannot be bound: {error}")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
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
    /// Called when a worker ends that was not told to.
    pub on_failure: Failure,
}

/// A bound UDP listener address, one socket a worker.
#[derive(Debug)]
pub struct Bound {
    /// The address with its real port.
    pub address: SocketAddr,
    sockets: Vec<std::net::UdpSocket>,
}

/// The relay with every listener bound and nothing running yet.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    workers: usize,
    listeners: Vec<Bound>,
}

impl Relay {
    /// Binds every listener, once for each worker.
    ///
    /// # Errors
    /// [`NetError::Listen`] names the address that cannot be bound.
    pub fn bind(config: Config) -> Result<Self, NetError> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers = if config.workers == 0 { cores } else { config.workers };
        let bind = |address: &SocketAddr| {
            bind_for_each(*address, workers, config.receive_buffer)
                .map_err(|error| NetError::Listen { address: *address, error })
        };
        let listeners = config.udp.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Self { config, workers, listeners })
    }

    /// The bound listeners.
    pub fn listeners(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.iter().map(|bound| bound.address)
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// A worker's poll, waker or thread cannot be made.
    pub fn start(mut self, parts: Parts) -> Result<Handle, NetError> {
        let Parts { mut turn, keys, metrics, on_event, on_failure } = parts;
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
        let mut handle = Handle { shared: Arc::clone(&shared), links: Vec::new(), stats: Vec::new() };
        for index in 0..self.workers {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKER)?;
            let (commands, inbox) = mpsc::channel();
            let mut sockets = Sockets::default();
            for bound in &mut self.listeners {
                if let Some(socket) = bound.sockets.pop() {
                    sockets.add_listener(poll.registry(), Socket::new(socket, bound.address))?;
                }
            }
            let entropy: turn::Entropy = Box::new(|bytes| rand::fill(bytes));
            let server =
                Server::new(Arc::clone(&shared), settings.clone(), Arc::clone(&keys), entropy, now());
            handle.stats.push(Arc::clone(server.stats()));
            let worker = Worker {
                poll,
                sockets,
                server,
                commands: inbox,
                relay_options: Options { receive_buffer: self.config.receive_buffer, reuse_port: false },
                gauges: Gauges {
                    received: metrics.relay_batch_size.get_metric_with_label_values(&["receive"])?,
                    sent: metrics.relay_batch_size.get_metric_with_label_values(&["send"])?,
                    overflow: metrics.socket_receive_overflow.clone(),
                },
                on_event: Arc::clone(&on_event),
                receiver: Receiver::new(),
                sender: Outbox::new(),
                unfinished: Vec::new(),
            };
            let thread = spawn(index, worker, Arc::clone(&on_failure))?;
            handle.links.push(Link { commands, waker, thread: Mutex::new(Some(thread)) });
        }
        collector::register(&metrics, handle.stats.clone(), shared);
        Ok(handle)
    }
}

/// Binds an address once a worker. The first bind is exclusive: the kernel would let a second server of the same user
/// share the port and take half of the packets.
fn bind_for_each(address: SocketAddr, workers: usize, receive_buffer: usize) -> io::Result<Bound> {
    let options = |reuse_port| Options { receive_buffer, reuse_port };
    let first = udp::bind(address, options(workers > 1 && address.port() == 0))?;
    let address = first.local_addr()?;
    if workers == 1 {
        return Ok(Bound { address, sockets: vec![first] });
    }
    drop(first);
    let sockets = (0..workers).map(|_| udp::bind(address, options(true))).collect::<io::Result<_>>()?;
    Ok(Bound { address, sockets })
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

/// How a worker is reached.
struct Link {
    commands: mpsc::Sender<Command>,
    waker: Waker,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Link {
    fn send(&self, command: Command) {
        // A worker that is gone has reported why; there is nobody left to obey.
        if self.commands.send(command).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

/// The running relay.
pub struct Handle {
    shared: Arc<Shared>,
    links: Vec<Link>,
    stats: Vec<Arc<Stats>>,
}

impl Handle {
    /// Ends every allocation made with credentials of a call.
    pub fn revoke_call(&self, call: &Arc<str>) {
        self.links.iter().for_each(|link| link.send(Command::RevokeCall(Arc::clone(call))));
    }

    /// Replaces configuration, peer policy and keys of every worker.
    pub fn reconfigure(&self, config: turn::Config, keys: &Arc<dyn Keys>) {
        let settings = Settings::new(config);
        self.links
            .iter()
            .for_each(|link| link.send(Command::Reconfigure(settings.clone(), Arc::clone(keys))));
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
        for thread in self.links.iter().filter_map(|link| link.thread.lock().take()) {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("workers", &self.links.len()).finish_non_exhaustive()
    }
}
