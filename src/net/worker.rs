//! One worker: waits, reads a batch, asks the server about each datagram, sends what follows from it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGaugeVec};

use super::sockets::{Owner, Socket, Sockets, WAKER};
use super::stream::Connection;
use super::streams::Streams;
use super::udp::{self, BATCH, Message, Options, Payload, Receiver, Sender, Unsent};
use crate::metrics::Metrics;
use crate::turn::{
    Bind, BindFailure, Direction, DropReason, Event, FiveTuple, Keys, Now, Output, RelayId, Server, Settings,
    Transport, Verdict,
};

/// Batches one socket may have before the others get their turn.
const BATCHES_PER_TURN: usize = 8;

/// What the rest of the process asks of a worker.
pub(super) enum Command {
    /// Serve a connection from now on.
    Adopt(Box<Connection>),
    /// End the allocations of a call.
    RevokeCall(Arc<str>),
    /// Go on with a changed configuration.
    Reconfigure(Settings, Arc<dyn Keys>),
    /// End every allocation and return.
    Stop,
}

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
    pub(super) sockets: Sockets,
    pub(super) streams: Streams,
    pub(super) server: Server,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) relay_options: Options,
    pub(super) gauges: Gauges,
    pub(super) on_event: Arc<dyn Fn(&Event) + Send + Sync>,
    pub(super) receiver: Receiver,
    pub(super) sender: Outbox,
    /// Sockets that had more to read when their turn was over.
    pub(super) unfinished: Vec<Owner>,
}

/// The messages of a batch and their stakes.
pub(super) struct Outbox {
    sender: Sender,
    stakes: Vec<Stake>,
}

impl Outbox {
    pub(super) const fn new() -> Self {
        Self { sender: Sender::new(), stakes: Vec::new() }
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
                } else {
                    ready.push(self.sockets.owner(event.token()));
                }
            }
            if woken && self.obey() {
                return Ok(());
            }
            for owner in ready.drain(..) {
                match owner {
                    Owner::Stream(index) => self.stream_turn(index),
                    Owner::Listener(_) | Owner::Relay(_) => self.turn(owner),
                }
            }
            self.on_timeout();
        }
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = if self.unfinished.is_empty() {
            let next = self.server.poll_timeout().into_iter().chain(self.streams.next_deadline()).min();
            next.map(|at| at.saturating_duration_since(Instant::now()))
        } else {
            Some(Duration::ZERO)
        };
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Carries out what was asked; true when that is to stop.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Adopt(connection) => self.adopt(*connection),
                Command::RevokeCall(call) => self.server.revoke_call(&call, now()),
                Command::Reconfigure(settings, keys) => self.server.reconfigure(settings, keys),
                Command::Stop => {
                    self.close_streams(now());
                    self.server.shut_down(now());
                    self.drain_outputs();
                    return true;
                }
            }
            self.drain_outputs();
        }
        false
    }

    fn on_timeout(&mut self) {
        if self.server.poll_timeout().is_some_and(|at| at <= Instant::now()) {
            self.server.on_timeout(now());
            self.drain_outputs();
        }
        if self.streams.next_deadline().is_some_and(|at| at <= Instant::now()) {
            self.close_idle_streams(now());
        }
    }

    /// Reads one socket until it is empty or its turn is over.
    fn turn(&mut self, owner: Owner) {
        for _ in 0..BATCHES_PER_TURN {
            let Some(socket) = self.sockets.find_mut(owner) else { return };
            let count = match self.receiver.receive(socket.descriptor()) {
                Ok(count) => count,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        // An ICMP error of an earlier datagram, or memory pressure: the socket itself is fine.
                        tracing::trace!(%error, "receive");
                        self.unfinished.push(owner);
                    }
                    return;
                }
            };
            self.gauges.received.observe(count as f64);
            self.handle(owner, count);
            if count < BATCH {
                return;
            }
        }
        self.unfinished.push(owner);
    }

    /// Decides on a batch, then sends everything that follows from it.
    fn handle(&mut self, owner: Owner, count: usize) {
        let now = now();
        for index in 0..count {
            match owner {
                Owner::Relay(id) => self.relay_peer(id, index, now),
                Owner::Listener(_) | Owner::Stream(_) => self.relay_client(owner, index, now),
            }
        }
        self.flush();
        self.flush_streams(now);
        self.drain_outputs();
    }

    fn relay_client(&mut self, owner: Owner, index: usize, now: Now) {
        let Self { receiver, server, sockets, gauges, .. } = self;
        let Some(socket) = sockets.find_mut(owner) else { return };
        let Some(datagram) = receiver.datagram(index) else {
            server.stats().dropped(Direction::ToPeer, DropReason::Truncated, 1);
            return;
        };
        gauges.overflow.inc_by(socket.lost(datagram.overflow));
        let ip = datagram.destination.unwrap_or_else(|| socket.local.ip());
        let from = FiveTuple {
            client: datagram.source,
            server: SocketAddr::new(ip, socket.local.port()),
            transport: Transport::Udp,
        };
        let listener = (socket.descriptor(), datagram.destination);
        let verdict = server.on_client(&from, datagram.bytes, now);
        match self.bound(verdict, now) {
            Verdict::Reply => {
                let message = to(listener, from.client);
                self.sender.push(
                    message,
                    self.server.reply(),
                    Stake { direction: Direction::ToClient, relayed: None },
                );
            }
            Verdict::ToPeer { relay, peer, payload, dont_fragment } => {
                let Some(descriptor) = self.sockets.relay(relay) else { return };
                let stake = Stake { direction: Direction::ToPeer, relayed: Some(payload.len()) };
                let payload = Some(Payload { datagram: index, range: payload });
                let message = Message { payload, dont_fragment, ..to((descriptor, None), peer) };
                self.sender.push(message, &[], stake);
            }
            Verdict::Drop(_) | Verdict::ToClient { .. } | Verdict::Bind(_) => {}
        }
    }

    fn relay_peer(&mut self, id: RelayId, index: usize, now: Now) {
        let Self { receiver, server, sockets, gauges, sender, streams, .. } = self;
        let Some(socket) = sockets.find_mut(Owner::Relay(id)) else { return };
        let Some(datagram) = receiver.datagram(index) else {
            server.stats().dropped(Direction::ToClient, DropReason::Truncated, 1);
            return;
        };
        gauges.overflow.inc_by(socket.lost(datagram.overflow));
        let length = datagram.bytes.len();
        let Verdict::ToClient { client, prefix, padding } = server.on_peer(id, datagram.source, length, now)
        else {
            return;
        };
        if client.transport.is_stream() {
            if !streams.relay(&client, prefix.as_slice(), datagram.bytes, padding) {
                server.stats().unsent(Direction::ToClient, DropReason::SendBuffer, length);
            }
            return;
        }
        let Some((descriptor, wildcard)) = sockets.listener(client.server) else { return };
        let source = wildcard.then(|| client.server.ip());
        let payload = Some(Payload { datagram: index, range: 0..length });
        let message = Message { payload, padding, ..to((descriptor, source), client.client) };
        sender.push(
            message,
            prefix.as_slice(),
            Stake { direction: Direction::ToClient, relayed: Some(length) },
        );
    }

    /// Carries out what a verdict asks for until it asks for no more sockets.
    pub(super) fn bound(&mut self, mut verdict: Verdict, now: Now) -> Verdict {
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
            match udp::bind(*local, self.relay_options) {
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
        let Self { sender: Outbox { sender, stakes }, receiver, server, gauges, .. } = self;
        if stakes.is_empty() {
            return;
        }
        gauges.sent.observe(stakes.len() as f64);
        let stats = server.stats();
        sender.flush(receiver, |Unsent { index, error }| {
            let Some(stake) = stakes.get(index) else { return };
            let reason = match error.kind() {
                io::ErrorKind::WouldBlock => DropReason::SendBuffer,
                _ if error.raw_os_error() == Some(libc::ENOBUFS) => DropReason::SendBuffer,
                _ => DropReason::SendError,
            };
            match stake.relayed {
                Some(bytes) => stats.unsent(stake.direction, reason, bytes),
                None => stats.dropped(stake.direction, reason, 1),
            }
            tracing::trace!(%error, reason = reason.label(), "not sent");
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
pub(super) const fn to(
    (socket, source): (std::os::fd::RawFd, Option<IpAddr>),
    destination: SocketAddr,
) -> Message {
    Message { socket, destination, source, payload: None, padding: 0, dont_fragment: false }
}
