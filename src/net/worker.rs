//! One worker: waits, reads a batch, asks the server about each datagram, sends what follows from it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGaugeVec};

use super::beat::Beat;
use super::command::Command;
use super::sockets::{Owner, Socket, Sockets, WAKER};
use super::streams::Streams;
use super::udp::{self, IcmpErrors, Message, Offload, Options, Payload, Receiver, Role, Sender, Unsent};
use crate::metrics::Metrics;
use crate::turn::{
    Bind, BindFailure, Direction, DropReason, Event, FiveTuple, Now, Output, RelayId, Server, Transport,
    Verdict,
};

/// Reads one socket may have before the others get their turn.
const READS_PER_TURN: usize = 8;
/// Datagrams after which a turn is over as well: the kernel joins up to 64 of them into one run.
const DATAGRAMS_PER_TURN: usize = 1024;
/// Rounds in which one socket may report ICMP errors before data gets its turn.
const ERROR_ROUNDS: usize = 4;

/// What a worker counts beside its server.
#[derive(Clone)]
pub(super) struct Gauges {
    pub(super) received: Histogram,
    pub(super) sent: Histogram,
    pub(super) overflow: IntCounter,
    pub(super) connections: IntGaugeVec,
    pub(super) refused: IntCounterVec,
}

impl Gauges {
    /// Finds the worker's metrics.
    pub(super) fn new(metrics: &Metrics) -> prometheus::Result<Self> {
        Ok(Self {
            received: metrics.relay_batch_size.get_metric_with_label_values(&["receive"])?,
            sent: metrics.relay_batch_size.get_metric_with_label_values(&["send"])?,
            overflow: metrics.socket_receive_overflow.clone(),
            connections: metrics.turn_connections.clone(),
            refused: metrics.turn_connections_refused.clone(),
        })
    }
}

/// What a queued message is worth, should it not be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stake {
    pub(super) direction: Direction,
    /// Relayed bytes; `None` for an answer of our own.
    pub(super) relayed: Option<usize>,
}

/// A worker, ready to run.
pub(super) struct Worker {
    pub(super) poll: Poll,
    /// The clocks as of the last wake-up or full batch: what is handled together happens at one time.
    pub(super) now: Now,
    /// Wakes it for what has a deadline.
    pub(super) beat: Beat,
    pub(super) sockets: Sockets,
    pub(super) streams: Streams,
    pub(super) server: Server,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) relay_options: Options,
    pub(super) gauges: Gauges,
    pub(super) on_event: Arc<dyn Fn(&Event) + Send + Sync>,
    pub(super) receiver: Receiver,
    pub(super) sender: Outbox,
    /// Where each run of the receiver's batch came from.
    pub(super) origins: Vec<Origin>,
    /// Sockets that had more to read when their turn was over.
    pub(super) unfinished: Vec<Owner>,
    pub(super) errors: IcmpErrors,
}

/// Where a run came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    owner: Owner,
    /// The socket's own number: a slot may have another one by the time its run is handled.
    serial: u32,
}

/// The messages of a batch and their stakes.
pub(super) struct Outbox {
    sender: Sender,
    stakes: Vec<Stake>,
}

impl Outbox {
    pub(super) fn new(offload: Offload) -> Self {
        Self { sender: Sender::new(offload), stakes: Vec::new() }
    }

    pub(super) fn push(&mut self, message: Message, head: &[u8], stake: Stake) {
        self.sender.push(message, head);
        self.stakes.push(stake);
    }
}

/// Reads both clocks.
pub(super) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { instant: Instant::now(), unix }
}

impl Worker {
    /// Runs until it is told to stop.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        let mut ready: Vec<Owner> = Vec::new();
        loop {
            self.wait(&mut events)?;
            ready.append(&mut self.unfinished);
            let mut woken = false;
            for event in &events {
                if event.token() == WAKER {
                    woken = true;
                    continue;
                }
                let owner = self.sockets.owner(event.token());
                if let (Owner::Relay(id), true) = (owner, event.is_error()) {
                    self.report_errors(id);
                }
                ready.push(owner);
            }
            if woken && self.obey() {
                return Ok(());
            }
            // Requests come to listeners: they are read before any peer's data.
            ready.sort_by_key(|owner| !matches!(owner, Owner::Listener(_)));
            for owner in ready.drain(..) {
                match owner {
                    Owner::Stream(index) => {
                        self.settle();
                        self.stream_turn(index);
                    }
                    Owner::Listener(_) | Owner::Relay(_) => self.turn(owner),
                }
            }
            self.settle();
            self.on_timeout();
        }
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        self.beat.want(self.server.poll_timeout().is_some() || self.streams.next_deadline().is_some());
        let timeout = (!self.unfinished.is_empty()).then_some(Duration::ZERO);
        let polled = self.poll.poll(events, timeout);
        self.now = now();
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Carries out what was asked; true when that is to stop.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Adopt(connection) => self.adopt(*connection),
                Command::RevokeCalls(calls) => {
                    calls.iter().for_each(|call| self.server.revoke_call(call, self.now));
                }
                Command::RevokeDeparted(departure) => self.server.revoke_departed(&departure, self.now),
                Command::Reconfigure(settings, keys) => self.server.reconfigure(settings, keys),
                Command::Stop => {
                    self.close_streams(self.now);
                    self.server.shut_down(self.now);
                    self.drain_outputs();
                    return true;
                }
            }
            self.drain_outputs();
        }
        false
    }

    fn on_timeout(&mut self) {
        let now = self.now;
        if self.server.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.server.on_timeout(now);
            self.drain_outputs();
        }
        if self.streams.next_deadline().is_some_and(|at| at <= now.instant) {
            self.close_idle_streams(now);
        }
    }

    /// Reads one socket into the batch until it is empty or its turn is over. A full batch is settled at once; what is
    /// left of it waits for the other sockets.
    fn turn(&mut self, owner: Owner) {
        let mut handled = 0;
        for _ in 0..READS_PER_TURN {
            let Some(socket) = self.sockets.find_mut(owner) else { return };
            let (descriptor, serial) = (socket.descriptor(), socket.serial);
            let room = self.receiver.room();
            match self.receiver.receive(descriptor, room) {
                Ok(count) => {
                    self.origins.extend(std::iter::repeat_n(Origin { owner, serial }, count));
                    if count < room {
                        return;
                    }
                }
                Err(error) => return self.receive_failed(owner, &error),
            }
            handled += self.settle();
            self.now = now();
            if handled >= DATAGRAMS_PER_TURN {
                break;
            }
        }
        self.unfinished.push(owner);
    }

    /// Goes on after a failed read, without the socket if it is beyond use.
    fn receive_failed(&mut self, owner: Owner, error: &io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            return;
        }
        let broken = matches!(
            error.raw_os_error(),
            Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL | libc::EOPNOTSUPP)
        );
        match owner {
            Owner::Relay(id) if broken => {
                tracing::warn!(%error, "a relay socket failed: its allocation ends");
                self.settle();
                self.server.relay_failed(id, self.now);
                self.drain_outputs();
            }
            _ if broken => tracing::error!(%error, "a listener failed and is not read any more"),
            // An ICMP error of an earlier datagram, or memory pressure: the socket itself is fine.
            Owner::Relay(id) => {
                self.report_errors(id);
                self.unfinished.push(owner);
            }
            Owner::Listener(_) | Owner::Stream(_) => self.unfinished.push(owner),
        }
    }

    /// Tells clients of the ICMP errors that a relay socket has met.
    fn report_errors(&mut self, id: RelayId) {
        let now = self.now;
        let mut errors = std::mem::take(&mut self.errors);
        for _ in 0..ERROR_ROUNDS {
            let Some(descriptor) = self.sockets.relay(id) else { break };
            let more = udp::drain_errors(descriptor, &mut errors);
            for (peer, error) in errors.drain(..) {
                let Some(client) = self.server.on_icmp(id, peer, error, now) else { continue };
                tracing::trace!(?error, "ICMP error passed on");
                if client.transport.is_stream() {
                    self.streams.relay(&client, self.server.reply(), &[], 0);
                } else if let Some((descriptor, wildcard)) = self.sockets.listener(client.server) {
                    let source = wildcard.then(|| client.server.ip());
                    let stake = Stake { direction: Direction::ToClient, relayed: None };
                    self.sender.push(to((descriptor, source), client.client), self.server.reply(), stake);
                }
            }
            if !more {
                break;
            }
        }
        self.errors = errors;
    }

    /// Decides on the batch, then sends everything that follows from it. Gives the number of datagrams.
    fn settle(&mut self) -> usize {
        let mut handled = 0;
        let now = self.now;
        let origins = std::mem::take(&mut self.origins);
        for (index, origin) in origins.iter().enumerate() {
            handled += match origin.owner {
                Owner::Relay(id) => self.relay_peer(id, origin.serial, index, now),
                Owner::Listener(_) | Owner::Stream(_) => self.relay_client(origin.owner, index, now),
            };
        }
        self.origins = origins;
        self.flush();
        if !self.origins.is_empty() {
            self.gauges.received.observe(handled as f64);
            self.origins.clear();
            self.receiver.clear();
        }
        self.flush_streams(now);
        self.drain_outputs();
        handled
    }

    fn relay_client(&mut self, owner: Owner, index: usize, now: Now) -> usize {
        let Self { receiver, server, sockets, gauges, .. } = self;
        let Some(socket) = sockets.find_mut(owner) else { return 0 };
        let Some(run) = receiver.run(index) else {
            server.stats().dropped(Direction::ToPeer, DropReason::Truncated, 1);
            return 1;
        };
        socket.count_lost(run.overflow, &gauges.overflow);
        let ip = run.destination.unwrap_or_else(|| socket.local.ip());
        let from = FiveTuple {
            client: run.source,
            server: SocketAddr::new(ip, socket.local.port()),
            transport: Transport::Udp,
        };
        let listener = (socket.descriptor(), run.destination);
        let (count, mut at) = (run.len(), 0);
        while at < count {
            let Some((stopped, bind)) = self.relay_datagrams(&from, listener, index, at, now) else { break };
            // Binding may close sockets, and give their numbers to others: what is queued goes first.
            let verdict = self.bound(Verdict::Bind(bind), now);
            self.decided(&verdict, &from, listener);
            at = stopped + 1;
        }
        count
    }

    /// Handles the datagrams of a run from `start` on; stops at one that needs sockets.
    fn relay_datagrams(
        &mut self,
        from: &FiveTuple,
        listener: (RawFd, Option<IpAddr>),
        index: usize,
        start: usize,
        now: Now,
    ) -> Option<(usize, Box<Bind>)> {
        let Self { receiver, server, sockets, sender, .. } = self;
        let run = receiver.run(index)?;
        for at in start..run.len() {
            match server.on_client(from, run.datagram(at), now) {
                Verdict::ToPeer { relay, peer, payload, dont_fragment } => {
                    let Some(descriptor) = sockets.relay(relay) else { continue };
                    let stake = Stake { direction: Direction::ToPeer, relayed: Some(payload.len()) };
                    let first = run.range(at).start;
                    let range = first + payload.start..first + payload.end;
                    let message = Message {
                        payload: Some(Payload { run: index, range }),
                        dont_fragment,
                        traffic_class: run.traffic_class,
                        ..to((descriptor, None), peer)
                    };
                    sender.push(message, &[], stake);
                }
                Verdict::Reply => {
                    let stake = Stake { direction: Direction::ToClient, relayed: None };
                    sender.push(to(listener, from.client), server.reply(), stake);
                }
                Verdict::Bind(bind) => return Some((at, bind)),
                Verdict::Drop(_) | Verdict::ToClient { .. } => {}
            }
        }
        None
    }

    /// Queues the answer to a request that needed sockets.
    fn decided(&mut self, verdict: &Verdict, from: &FiveTuple, listener: (RawFd, Option<IpAddr>)) {
        if let Verdict::Reply = verdict {
            let stake = Stake { direction: Direction::ToClient, relayed: None };
            self.sender.push(to(listener, from.client), self.server.reply(), stake);
        }
    }

    fn relay_peer(&mut self, id: RelayId, serial: u32, index: usize, now: Now) -> usize {
        let Self { receiver, server, sockets, gauges, sender, streams, .. } = self;
        let owner = Owner::Relay(id);
        let Some(socket) = sockets.find_mut(owner).filter(|socket| socket.serial == serial) else { return 0 };
        let Some(run) = receiver.run(index) else {
            server.stats().dropped(Direction::ToClient, DropReason::Truncated, 1);
            return 1;
        };
        socket.count_lost(run.overflow, &gauges.overflow);
        let mut route = None;
        for at in 0..run.len() {
            let range = run.range(at);
            let length = range.len();
            let verdict = server.on_peer(id, run.source, length, now);
            let Verdict::ToClient { client, prefix, padding } = verdict else { continue };
            if client.transport.is_stream() {
                if !streams.relay(&client, prefix.as_slice(), run.datagram(at), padding) {
                    server.stats().unsent(Direction::ToClient, DropReason::SendBuffer, length);
                }
                continue;
            }
            // One allocation, one client: the way is the same for the whole run.
            let listener = match route {
                Some(listener) => listener,
                None => match sockets.listener(client.server) {
                    Some((descriptor, wildcard)) => {
                        *route.insert((descriptor, wildcard.then(|| client.server.ip())))
                    }
                    None => continue,
                },
            };
            let message = Message {
                payload: Some(Payload { run: index, range }),
                padding,
                traffic_class: run.traffic_class,
                ..to(listener, client.client)
            };
            let stake = Stake { direction: Direction::ToClient, relayed: Some(length) };
            sender.push(message, prefix.as_slice(), stake);
        }
        run.len()
    }

    /// Carries out what a verdict asks for until it asks for no more sockets.
    pub(super) fn bound(&mut self, mut verdict: Verdict, now: Now) -> Verdict {
        if let Verdict::Bind(_) = verdict {
            // A socket that is to be closed may have the very slot that gets a new one now.
            self.flush();
            self.drain_outputs();
        }
        while let Verdict::Bind(bind) = verdict {
            verdict = self.bind(bind, now);
        }
        verdict
    }

    /// Binds the sockets of an allocation, all or none, and goes on with its answer.
    fn bind(&mut self, bind: Box<Bind>, now: Now) -> Verdict {
        let mut made = Vec::with_capacity(bind.sockets.len());
        let mut result = Ok(());
        for (id, local) in &bind.sockets {
            match udp::bind(*local, Role::Relay, self.relay_options) {
                Ok(socket) => made.push((*id, Socket::new(socket, *local))),
                Err(error) => {
                    let taken = error.kind() == io::ErrorKind::AddrInUse;
                    if !taken {
                        tracing::warn!(%error, address = %local, "a relay socket could not be bound");
                    }
                    result = Err(if taken { BindFailure::PortTaken } else { BindFailure::Impossible });
                    break;
                }
            }
        }
        if result.is_ok() {
            for (id, socket) in made {
                if let Err(error) = self.sockets.add_relay(self.poll.registry(), id, socket) {
                    tracing::warn!(%error, "a relay socket could not be watched");
                    result = Err(BindFailure::Impossible);
                }
            }
            if result.is_err() {
                bind.sockets.iter().for_each(|(id, _)| self.sockets.close_relay(*id));
            }
        }
        self.server.on_bound(bind, result, now)
    }

    pub(super) fn flush(&mut self) {
        let Self { sender: Outbox { sender, stakes }, receiver, server, gauges, now, .. } = self;
        if stakes.is_empty() {
            return;
        }
        gauges.sent.observe(stakes.len() as f64);
        let stats = server.stats();
        sender.flush(receiver, now.instant, |Unsent { index, code }| {
            let Some(stake) = stakes.get(index) else { return };
            let reason = match code {
                libc::EAGAIN | libc::ENOBUFS => DropReason::SendBuffer,
                _ => DropReason::SendError,
            };
            match stake.relayed {
                Some(bytes) => stats.unsent(stake.direction, reason, bytes),
                None => stats.dropped(stake.direction, reason, 1),
            }
            tracing::trace!(code, reason = reason.label(), "not sent");
        });
        stakes.clear();
    }

    pub(super) fn drain_outputs(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Close { relay, lease } => {
                    self.sockets.close_relay(relay);
                    drop(lease);
                }
                Output::Event(event) => (self.on_event)(&event),
            }
        }
    }
}

/// A message without content from a socket to an address.
pub(super) const fn to((socket, source): (RawFd, Option<IpAddr>), destination: SocketAddr) -> Message {
    Message { socket, destination, source, payload: None, padding: 0, traffic_class: 0, dont_fragment: false }
}
