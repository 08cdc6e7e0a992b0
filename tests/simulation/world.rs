//! Servers, clients, clocks and the network between them; every input goes to the server and to the model, and what
//! comes out has to be the same.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use passerelle::turn::{
    Bind, BindFailure, Config, Direction, DropReason, Event, FiveTuple, IcmpError, Limits, Output, PeerRules,
    PortLease, PortRange, RelayAddress, RelayId, Server, Settings, Shared, Transport, Verdict,
};

use super::cast::{CREDENTIALS, Directory, LISTENER, REALM, TIGHTENED, address, ip};
use super::chance::Chance;
use super::check::{self, Wrong, ensure};
use super::clock::Clock;
use super::model::{Content, Expected, Id, Model, Pending, Token};
use super::network::{Network, News, Packet};
use super::wire::{Datagram, Nonce};
use super::{Flaw, Summary};

/// Inputs that a failure shows.
const TRAIL: usize = 24;

/// A client's machine.
#[derive(Debug)]
pub struct Device {
    pub five_tuple: FiveTuple,
    pub credential: usize,
    pub nonce: Option<Nonce>,
    pub tokens: Vec<[u8; 8]>,
    /// What it sent last, for retransmissions.
    pub last: Option<Rc<Datagram>>,
}

/// A server and the second its timers ran last.
pub struct Worker {
    pub server: Server,
    pub timed: Option<u64>,
}

/// Everything there is.
pub struct World {
    pub chance: Chance,
    pub clock: Clock,
    pub network: Network,
    pub devices: Vec<Device>,
    pub workers: Vec<Worker>,
    pub model: Model,
    pub shared: Arc<Shared>,
    /// Open sockets by local address, and the worker that reads them.
    pub sockets: BTreeMap<SocketAddr, (usize, RelayId)>,
    /// Sockets that were closed, for datagrams that were read before.
    pub closed: Vec<(usize, RelayId)>,
    pub directory: Arc<Directory>,
    pub summary: Summary,
    flaw: Flaw,
    leaked: Vec<PortLease>,
    trail: VecDeque<(u64, String)>,
}

impl World {
    pub fn new(mut chance: Chance, flaw: Flaw) -> Self {
        let clock = Clock::new();
        let config = config(&mut chance);
        let shared = Shared::new(&config.relay_addresses, config.ports, [7; 32]);
        let directory = Arc::new(Directory::new());
        let count = 1 + chance.below(3);
        let workers = (0..count)
            .map(|worker| {
                let mut entropy = Chance::Seeded(chance.bits() ^ worker as u64);
                let entropy = Box::new(move |bytes: &mut [u8]| {
                    for chunk in bytes.chunks_mut(8) {
                        let bits = entropy.bits().to_le_bytes();
                        chunk.copy_from_slice(&bits[..chunk.len()]);
                    }
                });
                let (shared, keys) = (Arc::clone(&shared), Arc::clone(&directory));
                let server = Server::new(shared, Settings::new(config.clone()), keys, entropy, clock.now());
                Worker { server, timed: None }
            })
            .collect();
        let devices = (0..8).map(|_| Device::new(&mut chance)).collect();
        let model = Model::new(config, flaw.rules(), count);
        Self {
            chance,
            clock,
            network: Network::default(),
            devices,
            workers,
            model,
            shared,
            sockets: BTreeMap::new(),
            closed: Vec::new(),
            directory,
            summary: Summary::default(),
            flaw,
            leaked: Vec::new(),
            trail: VecDeque::new(),
        }
    }

    /// The inputs before a failure, oldest first.
    pub fn trail(&self) -> String {
        self.trail.iter().map(|(millis, what)| format!("\n  {millis:>9} ms: {what}")).collect()
    }

    pub fn note(&mut self, what: String) {
        if self.trail.len() == TRAIL {
            self.trail.pop_front();
        }
        self.trail.push_back((self.clock.millis, what));
    }

    /// The worker that a client's datagrams reach.
    pub fn worker_of(&self, from: &FiveTuple) -> usize {
        let last = match from.client.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(ip) => ip.octets()[15],
        };
        (usize::from(last) + usize::from(from.client.port())) % self.workers.len()
    }

    /// Lets time pass, and everything happen that happens until then.
    pub fn pass(&mut self, millis: u64) -> Result<(), Wrong> {
        let until = self.clock.millis + millis;
        while let Some((at, packet)) = self.network.next(until) {
            self.clock.millis = self.clock.millis.max(at);
            self.run_timers()?;
            self.deliver(packet)?;
        }
        self.clock.millis = until;
        self.run_timers()
    }

    /// Runs the timers that are due, most of the time: a worker that reads a batch is late.
    fn run_timers(&mut self) -> Result<(), Wrong> {
        for worker in 0..self.workers.len() {
            let due = self.workers[worker].server.poll_timeout();
            let due = due.is_some_and(|at| self.clock.millis_of(at) <= self.clock.millis);
            if due && !self.chance.percent(15) {
                self.run_timer(worker)?;
            }
        }
        Ok(())
    }

    fn run_timer(&mut self, worker: usize) -> Result<(), Wrong> {
        self.workers[worker].server.on_timeout(self.clock.now());
        self.workers[worker].timed = Some(self.clock.second());
        self.model.on_timeout(worker, &self.clock);
        self.settle(worker)
    }

    /// Runs every timer at once.
    pub fn run_every_timer(&mut self) -> Result<(), Wrong> {
        (0..self.workers.len()).try_for_each(|worker| self.run_timer(worker))
    }

    fn deliver(&mut self, packet: Packet) -> Result<(), Wrong> {
        match packet {
            Packet::FromClient { from, datagram } => self.on_client(from, &datagram).map(drop),
            Packet::FromPeer { local, source, length } => {
                let Some((worker, relay)) = self.sockets.get(&local).copied() else { return Ok(()) };
                self.on_peer(worker, relay, Some(local), source, length)
            }
            Packet::Answer { device, news: News::Nonce(nonce) } => {
                self.devices[device].nonce = Some(nonce);
                Ok(())
            }
            Packet::Answer { device, news: News::Token(token) } => {
                self.devices[device].tokens.push(token);
                Ok(())
            }
        }
    }

    /// A client's datagram arrives. Returns what its answer tells.
    pub fn on_client(&mut self, from: FiveTuple, datagram: &Datagram) -> Result<Option<News>, Wrong> {
        let worker = self.worker_of(&from);
        let bytes = datagram.encode(&self.directory);
        self.note(format!("worker {worker}, {} {}: {datagram:?}", from.transport.label(), from.client));
        let mut expected = self.model.on_client((worker, from), datagram, &self.clock);
        let mut verdict = self.workers[worker].server.on_client(&from, &bytes, self.clock.now());
        while let Verdict::Bind(bind) = verdict {
            let Expected::Sockets(pending) = expected else {
                return Err(format!("asks for sockets instead of {expected:?}"));
            };
            (verdict, expected) = self.bind(worker, bind, pending)?;
        }
        let news = self.compare(worker, from, &bytes, &verdict, &expected)?;
        self.settle(worker)?;
        Ok(news)
    }

    /// Binds the sockets of an Allocate, or finds the ports taken by others.
    fn bind(
        &mut self,
        worker: usize,
        bind: Box<Bind>,
        pending: Box<Pending>,
    ) -> Result<(Verdict, Expected), Wrong> {
        let sockets = bind.sockets.clone();
        let locals: Vec<SocketAddr> = sockets.iter().map(|(_, local)| *local).collect();
        check::sockets(&self.model, &pending, &locals)?;
        self.model.pending = locals.clone();
        if pending.wants.even == Some(true) {
            self.model.pending.push(SocketAddr::new(locals[0].ip(), locals[0].port() + 1));
        }
        let failure = match self.chance.below(40) {
            1..=3 => Some(BindFailure::PortTaken),
            4 => Some(BindFailure::Impossible),
            _ => None,
        };
        if failure.is_none() {
            self.sockets.extend(sockets.iter().map(|(relay, local)| (*local, (worker, *relay))));
        }
        self.note(format!("binding {locals:?}: {failure:?}"));
        let expected = self.model.on_bound(pending, &locals, failure, &self.clock);
        let verdict =
            self.workers[worker].server.on_bound(bind, failure.map_or(Ok(()), Err), self.clock.now());
        Ok((verdict, expected))
    }

    fn compare(
        &mut self,
        worker: usize,
        from: FiveTuple,
        bytes: &[u8],
        verdict: &Verdict,
        expected: &Expected,
    ) -> Result<Option<News>, Wrong> {
        match (verdict, expected) {
            (Verdict::Drop(reason), Expected::Dropped(wanted)) if reason == wanted => {
                self.summary.dropped(*reason);
                Ok(None)
            }
            (Verdict::Reply, Expected::Answer(wanted)) => {
                self.summary.answered(wanted.code);
                let reply = self.workers[worker].server.reply();
                let seen = check::answer(reply, wanted, &self.directory, &self.model.config)?;
                let news = match (&wanted.content, seen) {
                    (Content::Challenge, Some(nonce)) => {
                        let expires = self.clock.unix() + self.model.config.nonce_lifetime.as_secs();
                        Some(News::Nonce(Nonce { bytes: nonce, client: from.client, expires }))
                    }
                    (Content::Allocated { token: Token::Fresh, .. }, Some(token)) => {
                        let token = token.try_into().map_err(|_| "a token of another length".to_owned())?;
                        self.model.on_reserved((worker, from), token, &self.clock);
                        Some(News::Token(token))
                    }
                    _ => None,
                };
                self.tell(from, news.clone());
                Ok(news)
            }
            (
                Verdict::ToPeer { relay, peer, payload, dont_fragment },
                Expected::ToPeer { local, peer: wanted, length, dont_fragment: whole },
            ) => {
                ensure(self.sockets.get(local) == Some(&(worker, *relay)), || {
                    format!("{relay:?} is no open {local}")
                })?;
                ensure((peer, payload.len(), dont_fragment) == (wanted, *length, whole), || {
                    format!("{} bytes to {peer} instead of {length} to {wanted}", payload.len())
                })?;
                ensure(payload.end <= bytes.len(), || format!("{payload:?} of {} bytes", bytes.len()))?;
                self.summary.relayed += 1;
                let packet = Packet::FromPeer { local: *peer, source: *local, length: *length };
                if self.sockets.contains_key(peer) {
                    self.summary.hairpins += 1;
                    self.network.send(packet, self.clock.millis, &mut self.chance);
                }
                Ok(None)
            }
            _ => Err(format!("{verdict:?} instead of {expected:?}")),
        }
    }

    /// Carries an answer's news to whoever has the address now.
    fn tell(&mut self, from: FiveTuple, news: Option<News>) {
        let device = self.devices.iter().position(|device| device.five_tuple == from);
        if let (Some(device), Some(news)) = (device, news) {
            self.network.send(Packet::Answer { device, news }, self.clock.millis, &mut self.chance);
        }
    }

    /// A datagram arrives at a relayed address; `local` is `None` when its socket is closed by now.
    pub fn on_peer(
        &mut self,
        worker: usize,
        relay: RelayId,
        local: Option<SocketAddr>,
        source: SocketAddr,
        length: usize,
    ) -> Result<(), Wrong> {
        self.note(format!("worker {worker}, {relay:?}: {length} bytes from peer {source}"));
        let owner = local.and_then(|local| self.owner(local));
        let expected = self.model.on_peer(worker, owner, source, length, &self.clock);
        let verdict = self.workers[worker].server.on_peer(relay, source, length, self.clock.now());
        match (&verdict, &expected) {
            (Verdict::Drop(reason), Expected::Dropped(wanted)) if reason == wanted => {
                self.summary.dropped(*reason);
            }
            (Verdict::ToClient { client, prefix, padding }, Expected::ToClient { channel, peer }) => {
                ensure(owner == Some((worker, *client)), || format!("{client:?} instead of {owner:?}"))?;
                check::frame(prefix.as_slice(), *padding, length, client.transport, *channel, *peer)?;
                self.summary.relayed += 1;
            }
            _ => return Err(format!("{verdict:?} instead of {expected:?}")),
        }
        self.settle(worker)
    }

    /// An ICMP error about something an allocation sent to a peer: its client is told, if the peer is permitted.
    pub fn on_icmp(&mut self, local: SocketAddr, peer: SocketAddr) -> Result<(), Wrong> {
        let Some((worker, relay)) = self.sockets.get(&local).copied() else { return Ok(()) };
        let (error, now) = (IcmpError::v4(3, 4, 1280).ok_or("an error that is none")?, self.clock.now());
        self.note(format!("worker {worker}, {relay:?}: an ICMP error about {peer}"));
        let (second, seen) = (self.clock.second(), self.model.external(peer));
        let owner = self.owner(local);
        let told = owner
            .filter(|id| self.model.live(*id, second).is_some_and(|found| found.permits(seen.ip(), second)));
        let client = self.workers[worker].server.on_icmp(relay, peer, error, now);
        ensure(client == told.map(|(_, from)| from), || format!("tells {client:?} instead of {told:?}"))?;
        if client.is_some() {
            check::icmp(self.workers[worker].server.reply(), seen)?;
        }
        self.settle(worker)
    }

    pub fn owner(&self, local: SocketAddr) -> Option<Id> {
        let mut all = self.model.allocations.values();
        all.find(|found| found.relayed.iter().any(|relayed| relayed.local == local)).map(|found| found.id)
    }

    /// Drains a server's outputs and compares everything that can be seen of it.
    pub fn settle(&mut self, worker: usize) -> Result<(), Wrong> {
        while let Some(output) = self.workers[worker].server.poll_output() {
            match output {
                Output::Close { relay, lease } => self.close(worker, relay, lease)?,
                Output::Event(event) => self.happened(worker, &event)?,
            }
        }
        let model = &mut self.model;
        ensure(model.created.is_empty(), || format!("did not say it created {:?}", model.created))?;
        ensure(model.ended.is_empty(), || format!("did not end {:?}", model.ended))?;
        ensure(model.carrying.is_empty(), || "did not say it carries media".into())?;
        if self.flaw == Flaw::AMiscountedDrop && self.clock.second() > 60 {
            self.workers[worker].server.stats().dropped(Direction::ToPeer, DropReason::NotStun, 1);
            self.flaw = Flaw::None;
        }
        self.check(worker)
    }

    fn close(&mut self, worker: usize, relay: RelayId, lease: PortLease) -> Result<(), Wrong> {
        let removed = self.sockets.remove(&lease.local());
        ensure(removed == Some((worker, relay)), || {
            format!("closes {relay:?} at {}: {removed:?}", lease.local())
        })?;
        ensure(lease.external() == self.model.external(lease.local()), || {
            format!("{} outside", lease.external())
        })?;
        self.closed.push((worker, relay));
        if self.flaw == Flaw::ALeakedPort {
            self.leaked.push(lease);
        }
        Ok(())
    }

    fn happened(&mut self, worker: usize, event: &Event) -> Result<(), Wrong> {
        match event {
            Event::AllocationCreated { five_tuple, grant, lifetime } => {
                let at = self.model.created.iter().position(|id| *id == (worker, *five_tuple));
                let at = at.ok_or_else(|| format!("created {five_tuple:?} out of nothing"))?;
                self.model.created.swap_remove(at);
                let made = self.model.live((worker, *five_tuple), self.clock.second());
                let right = made.is_some_and(|made| {
                    CREDENTIALS[made.credential].username == &*grant.username
                        && made.granted == lifetime.as_secs()
                });
                ensure(right, || format!("created for {grant:?} for {lifetime:?}"))
            }
            Event::CarriesMedia { grant } => {
                let names = |credential: &usize| CREDENTIALS[*credential].username == &*grant.username;
                let at = self.model.carrying.iter().position(names);
                let at = at.ok_or_else(|| format!("says that {grant:?} carries media"))?;
                self.model.carrying.swap_remove(at);
                self.summary.carrying += 1;
                Ok(())
            }
            Event::AllocationEnded { five_tuple, grant, reason, usage, .. } => {
                let at = self.model.ended.iter().position(|ended| ended.id == (worker, *five_tuple));
                let at = at.ok_or_else(|| format!("ended {five_tuple:?}: {reason:?}"))?;
                let ended = self.model.ended.swap_remove(at);
                let right = ended.reason == *reason && ended.usage == *usage;
                ensure(right && CREDENTIALS[ended.credential].username == &*grant.username, || {
                    format!("ended with {reason:?} and {usage:?} instead of {ended:?}")
                })?;
                self.summary.ended(*reason);
                Ok(())
            }
        }
    }

    /// What has to hold after every input.
    fn check(&self, worker: usize) -> Result<(), Wrong> {
        let leased = self.sockets.len() + self.model.reservations.len();
        ensure(self.shared.ports_used() == leased, || {
            format!("{} ports in use, {leased} sockets and reservations", self.shared.ports_used())
        })?;
        let live: usize = self.workers.iter().map(|worker| worker.server.len()).sum();
        let relayed: usize = self.model.allocations.values().map(|found| found.relayed.len()).sum();
        ensure((live, self.sockets.len()) == (self.model.allocations.len(), relayed), || {
            format!("{live} allocations, {} sockets", self.sockets.len())
        })?;
        let current = self.workers[worker].timed == Some(self.clock.second());
        let held = current.then(|| self.model.held(worker, self.clock.second()));
        check::counters(&self.model, worker, self.workers[worker].server.stats(), held)
    }

    /// Takes over a changed policy.
    pub fn reconfigure(&mut self, tightened: bool) -> Result<(), Wrong> {
        self.note(format!("reconfigured, tightened: {tightened}"));
        let mut config = self.model.config.clone();
        config.peers.deny = if tightened { vec![TIGHTENED.parse().unwrap()] } else { Vec::new() };
        self.model.tighten(tightened);
        for worker in &mut self.workers {
            let keys = Arc::clone(&self.directory);
            worker.server.reconfigure(Settings::new(config.clone()), keys);
        }
        (0..self.workers.len()).try_for_each(|worker| self.settle(worker))
    }
}

impl Device {
    fn new(chance: &mut Chance) -> Self {
        let mut device = Self {
            five_tuple: FiveTuple {
                client: address("5.5.5.1:4000"),
                server: address("9.9.9.9:3478"),
                transport: Transport::Udp,
            },
            credential: chance.below(CREDENTIALS.len()),
            nonce: None,
            tokens: Vec::new(),
            last: None,
        };
        device.rebind(chance);
        device
    }

    /// Gets another address of its NAT, perhaps one that another device had before.
    pub fn rebind(&mut self, chance: &mut Chance) {
        let ip = chance.pick(&[ip("5.5.5.1"), ip("5.5.5.2"), ip("2600:5::1"), ip("2600:5::2")]);
        let port = if chance.below(200) == 199 { 0 } else { 4000 + chance.below(4) as u16 };
        self.five_tuple.client = SocketAddr::new(ip, port);
        self.five_tuple.transport =
            chance.pick(&[Transport::Udp, Transport::Udp, Transport::Udp, Transport::Tcp, Transport::Tls]);
    }
}

/// A configuration in which every limit can be met.
fn config(chance: &mut Chance) -> Config {
    let relay = |local: &str, external: &str| RelayAddress { local: ip(local), external: ip(external) };
    let mut relay_addresses = vec![relay("9.9.9.9", "9.9.9.9")];
    if chance.percent(40) {
        relay_addresses.push(relay("10.0.9.9", "9.9.9.8"));
    }
    if chance.percent(70) {
        relay_addresses.push(relay("2600::9", "2600::9"));
    }
    let first = 50_000 + chance.below(4) as u16;
    let own = relay_addresses.iter().flat_map(|relay| [relay.local, relay.external]).collect();
    Config {
        realm: REALM.into(),
        software: chance.pick(&[None, Some("passerelle".into())]),
        ports: PortRange { first, last: first + chance.pick(&[1, 4, 11, 40]) },
        expiry: chance.pick(&[
            passerelle::turn::ExpiryPolicy::Keep,
            passerelle::turn::ExpiryPolicy::Cut,
            passerelle::turn::ExpiryPolicy::Grace,
        ]),
        expiry_grace: std::time::Duration::from_secs(300),
        limits: Limits {
            allocations_per_user: chance.pick(&[1, 2, 4, 8]),
            allocations_per_ip: chance.pick(&[2, 5, 50]),
            allocations_total: chance.pick(&[3, 8, 1000]),
            permissions: chance.pick(&[1, 2, 4, 16]),
            channels: chance.pick(&[1, 2, 4]),
            bandwidth: chance.pick(&[None, None, Some(20_000)]),
            // Which prefix shares a bucket with which one is drawn at random; their tests stand beside them.
            unauthenticated_per_second: 0,
            unauthenticated_burst: 0,
            binding_per_second: 0,
        },
        peers: PeerRules {
            own_listeners: vec![address(LISTENER)],
            own_addresses: own,
            ..PeerRules::default()
        },
        wide_channel_range: chance.percent(30),
        alternate_server: chance.pick(&[None, Some(address("7.7.7.7:3478"))]),
        relay_addresses,
        ..Config::default()
    }
}
