//! The reference model: what the relay has to hold and answer, written down plainly and without regard to speed.
//!
//! It knows every allocation of every worker, decides what each input must lead to, and counts what has to be counted.

mod allocation;
mod methods;
mod relaying;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use passerelle::stun::attribute::Family;
use passerelle::turn::{
    AuthFailure, Config, DenyRule, Direction, DropReason, EndReason, FiveTuple, Measure, Transport, Usage,
};

pub use allocation::{Allocation, Bucket, Channel, Relayed, Wants};
pub use methods::Pending;

use super::cast::{CREDENTIALS, LISTENER, SPECIAL, TIGHTENED, address};
use super::clock::Clock;
use super::wire::Proof;

/// A worker and a 5-tuple: what an allocation is known by.
pub type Id = (usize, FiveTuple);

/// Lifetimes in seconds. What is given in one second lasts through the last second of its lifetime.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub permission: u64,
    pub channel: u64,
    pub quarantine: u64,
    pub reservation: u64,
    /// How many more allocations than configured a user may hold.
    pub generosity: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { permission: 300, channel: 600, quarantine: 300, reservation: 30, generosity: 0 }
    }
}

/// What an input must lead to.
#[derive(Debug)]
pub enum Expected {
    Dropped(DropReason),
    Answer(Answer),
    /// Sockets first.
    Sockets(Box<Pending>),
    /// The payload leaves from a relayed address.
    ToPeer {
        local: SocketAddr,
        peer: SocketAddr,
        length: usize,
        dont_fragment: bool,
    },
    /// The payload goes to the client, on a channel or in a Data indication.
    ToClient {
        channel: Option<u16>,
        peer: SocketAddr,
    },
}

/// An answer and everything in it.
#[derive(Debug)]
pub struct Answer {
    pub transaction: [u8; 12],
    /// 0 is success.
    pub code: u16,
    /// What it is protected with, if it is.
    pub proof: Option<Proof>,
    pub fingerprint: bool,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Nothing,
    Mapped(SocketAddr),
    Allocated {
        relayed: Vec<SocketAddr>,
        mapped: SocketAddr,
        lifetime: u64,
        token: Token,
        family_error: Option<(u8, u16)>,
    },
    Lifetime(u64),
    Challenge,
    UnknownAttributes,
    Alternate(SocketAddr),
}

/// A RESERVATION-TOKEN in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    No,
    /// Any: the server draws it.
    Fresh,
    Known([u8; 8]),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    pub code: u16,
    pub failure: Option<AuthFailure>,
    pub rule: Option<DenyRule>,
}

impl From<u16> for Refusal {
    fn from(code: u16) -> Self {
        Self { code, failure: None, rule: None }
    }
}

impl Refusal {
    const fn of(code: u16, failure: AuthFailure) -> Self {
        Self { code, failure: Some(failure), rule: None }
    }
}

/// An allocation that ended, until the server says so too.
#[derive(Debug)]
pub struct Ended {
    pub id: Id,
    pub credential: usize,
    pub reason: EndReason,
    pub usage: Usage,
    pub relayed: Vec<Relayed>,
}

/// A port that waits for its token.
#[derive(Debug, Clone, Copy)]
pub struct Reservation {
    pub local: SocketAddr,
    /// The first millisecond at which it is free again.
    pub ends: u64,
    /// Whose quotas it counts in.
    pub user: &'static str,
    pub client: IpAddr,
}

/// What the relay has to be.
#[derive(Debug)]
pub struct Model {
    pub rules: Rules,
    pub config: Config,
    pub tightened: bool,
    pub draining: bool,
    pub allocations: BTreeMap<IdKey, Allocation>,
    /// Reserved ports by token.
    pub reservations: BTreeMap<[u8; 8], Reservation>,
    /// Ports of an Allocate that waits for its sockets.
    pub pending: Vec<SocketAddr>,
    /// Allocations the server has to report as created, ended, carrying media.
    pub created: Vec<Id>,
    pub ended: Vec<Ended>,
    pub carrying: Vec<usize>,
    counts: Vec<HashMap<Measure, u64>>,
}

/// [`Id`], in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdKey(usize, u8, SocketAddr, SocketAddr);

pub const fn key(id: Id) -> IdKey {
    IdKey(id.0, id.1.transport as u8, id.1.client, id.1.server)
}

impl Model {
    pub fn new(config: Config, rules: Rules, workers: usize) -> Self {
        Self {
            rules,
            config,
            tightened: false,
            draining: false,
            allocations: BTreeMap::new(),
            reservations: BTreeMap::new(),
            pending: Vec::new(),
            created: Vec::new(),
            ended: Vec::new(),
            carrying: Vec::new(),
            counts: vec![HashMap::new(); workers],
        }
    }

    pub fn count(&mut self, worker: usize, measure: Measure, by: u64) {
        *self.counts[worker].entry(measure).or_default() += by;
    }

    /// What a counter of a worker must read.
    pub fn counted(&self, worker: usize, measure: Measure) -> u64 {
        self.counts[worker].get(&measure).copied().unwrap_or_default()
    }

    fn drop(&mut self, worker: usize, direction: Direction, reason: DropReason) -> Expected {
        self.count(worker, Measure::Dropped(direction, reason), 1);
        Expected::Dropped(reason)
    }

    /// The allocation of a 5-tuple, unless its time is over.
    pub fn live(&mut self, id: Id, second: u64) -> Option<&mut Allocation> {
        self.allocations.get_mut(&key(id)).filter(|found| found.ends > second)
    }

    /// Gauges that do not depend on when timers ran.
    pub fn allocation_gauge(&self, worker: usize, transport: Transport, family: Family) -> u64 {
        let of_worker = self.allocations.values().filter(|found| found.id.0 == worker);
        let matching = of_worker.filter(|found| found.id.1.transport == transport);
        matching.flat_map(|found| &found.relayed).filter(|relayed| relayed.family == family).count() as u64
    }

    /// Live permissions and channels of a worker.
    pub fn held(&self, worker: usize, second: u64) -> (u64, u64) {
        let of_worker = || self.allocations.values().filter(|found| found.id.0 == worker);
        let permissions = of_worker().flat_map(|found| found.permissions.values());
        let channels = of_worker().flat_map(|found| found.channels.values());
        (
            permissions.filter(|ends| **ends > second).count() as u64,
            channels.filter(|channel| channel.ends > second).count() as u64,
        )
    }

    /// Every leased local transport address.
    pub fn leased(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let live = self.allocations.values().flat_map(|found| &found.relayed).map(|relayed| relayed.local);
        let closing = self.ended.iter().flat_map(|ended| &ended.relayed).map(|relayed| relayed.local);
        let reserved = self.reservations.values().map(|reserved| reserved.local);
        live.chain(closing).chain(reserved).chain(self.pending.iter().copied())
    }

    /// The address clients and peers see for a local one.
    pub fn external(&self, local: SocketAddr) -> SocketAddr {
        let found = self.config.relay_addresses.iter().find(|relay| relay.local == local.ip());
        SocketAddr::new(found.map_or(local.ip(), |relay| relay.external), local.port())
    }

    /// Where packets to an address really go: to the local side of a one-to-one NAT of this host.
    fn looped(&self, peer: SocketAddr) -> SocketAddr {
        let found = self.config.relay_addresses.iter().find(|relay| relay.external == peer.ip());
        SocketAddr::new(found.map_or(peer.ip(), |relay| relay.local), peer.port())
    }

    /// Why a peer may not be reached.
    fn denied(&self, peer: IpAddr, port: Option<u16>) -> Option<DenyRule> {
        if port.is_some_and(|port| port < 1024) {
            return Some(DenyRule::Port);
        }
        if self.config.peers.own_addresses.contains(&peer) {
            let address = SocketAddr::new(peer, port?);
            let is_relayed = self.leased().any(|local| local == address || self.external(local) == address);
            return match () {
                () if address == self::address(LISTENER) => Some(DenyRule::OwnListener),
                () => (!is_relayed).then_some(DenyRule::OwnAddress),
            };
        }
        let special =
            SPECIAL.iter().find(|(special, _)| address(special).ip() == peer).map(|(_, rule)| *rule);
        let listed = self.tightened && in_tightened(peer);
        special.or(listed.then_some(DenyRule::DenyList))
    }

    /// Ends an allocation.
    pub fn end(&mut self, id: Id, reason: EndReason) {
        if let Some(gone) = self.allocations.remove(&key(id)) {
            self.ended.push(Ended {
                id,
                credential: gone.credential,
                reason,
                usage: gone.usage,
                relayed: gone.relayed,
            });
        }
    }

    fn end_all(&mut self, reason: EndReason, which: impl Fn(&Allocation) -> bool) {
        let ids: Vec<Id> =
            self.allocations.values().filter(|found| which(found)).map(|found| found.id).collect();
        ids.into_iter().for_each(|id| self.end(id, reason));
    }

    /// Runs the timers of a worker.
    pub fn on_timeout(&mut self, worker: usize, clock: &Clock) {
        let second = clock.second();
        self.end_all(EndReason::Expired, |found| found.id.0 == worker && found.ends <= second);
        for found in self.allocations.values_mut().filter(|found| found.id.0 == worker) {
            found.release(|relayed| relayed.ends <= second);
        }
        self.reservations.retain(|_, reserved| reserved.ends > clock.millis);
    }

    pub fn revoke(&mut self, worker: usize, call: &str) {
        self.end_all(EndReason::Revoked, |found| {
            found.id.0 == worker && CREDENTIALS[found.credential].call == Some(call)
        });
    }

    pub fn shut_down(&mut self, worker: usize) {
        self.end_all(EndReason::Shutdown, |found| found.id.0 == worker);
    }

    /// Denies a network from now on, or no longer.
    pub fn tighten(&mut self, tightened: bool) {
        self.tightened = tightened;
        let ids: Vec<Id> = self.allocations.values().map(|found| found.id).collect();
        for id in ids {
            let found = &self.allocations[&key(id)];
            let permissions = found.permissions.clone();
            let channels = found.channels.clone();
            let permissions =
                permissions.into_iter().filter(|(ip, _)| self.denied(*ip, None).is_none()).collect();
            let channels = channels
                .into_iter()
                .filter(|(_, bound)| self.denied(bound.peer.ip(), Some(bound.peer.port())).is_none())
                .collect();
            if let Some(found) = self.allocations.get_mut(&key(id)) {
                found.permissions = permissions;
                found.channels = channels;
            }
        }
    }
}

fn in_tightened(peer: IpAddr) -> bool {
    let network: ipnet::IpNet = TIGHTENED.parse().unwrap();
    network.contains(&peer)
}
