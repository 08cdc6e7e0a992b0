//! What the model knows of one allocation.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use passerelle::stun::attribute::Family;
use passerelle::turn::{Direction, Usage};

use super::Id;

/// Bytes that count as connectivity checks and not as media.
const CHECKS: u64 = 32 * 1024;

#[derive(Debug, Clone, Copy)]
pub struct Relayed {
    pub family: Family,
    pub local: SocketAddr,
    pub external: SocketAddr,
    /// First second in which it does not exist.
    pub ends: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Channel {
    pub peer: SocketAddr,
    /// First second in which it is not bound.
    pub ends: u64,
}

/// What an Allocate wants of the ports.
#[derive(Debug, Clone, Copy)]
pub struct Wants {
    pub first: Family,
    pub additional: bool,
    /// EVEN-PORT, with the reservation of the next port or without.
    pub even: Option<bool>,
}

#[derive(Debug)]
pub struct Allocation {
    pub id: Id,
    pub credential: usize,
    pub relayed: Vec<Relayed>,
    /// When the last of them ends.
    pub ends: u64,
    /// The request that made it and what it was told.
    pub transaction: [u8; 12],
    pub granted: u64,
    pub token: Option<[u8; 8]>,
    pub family_error: Option<(u8, u16)>,
    /// First second in which each is gone.
    pub permissions: BTreeMap<IpAddr, u64>,
    pub channels: BTreeMap<u16, Channel>,
    pub usage: Usage,
    pub carries: bool,
    pub buckets: Option<[Bucket; 2]>,
}

impl Allocation {
    pub fn relayed(&self, family: Family) -> Option<&Relayed> {
        self.relayed.iter().find(|relayed| relayed.family == family)
    }

    pub fn serves(&self, peer: IpAddr) -> bool {
        self.relayed(Family::of(peer)).is_some()
    }

    /// Gives the relayed addresses of a family, or all, another end.
    pub fn extend(&mut self, family: Option<Family>, ends: u64) {
        let of_family = |relayed: &&mut Relayed| family.is_none_or(|family| family == relayed.family);
        self.relayed.iter_mut().filter(of_family).for_each(|relayed| relayed.ends = ends);
        self.ends = self.relayed.iter().map(|relayed| relayed.ends).max().unwrap_or(self.ends);
    }

    /// Gives up relayed addresses, and what belongs to their families.
    pub fn release(&mut self, gone: impl Fn(&Relayed) -> bool) {
        self.relayed.retain(|relayed| !gone(relayed));
        let kept: Vec<Family> = self.relayed.iter().map(|relayed| relayed.family).collect();
        self.permissions.retain(|ip, _| kept.contains(&Family::of(*ip)));
        self.channels.retain(|_, channel| kept.contains(&Family::of(channel.peer.ip())));
        self.ends = self.relayed.iter().map(|relayed| relayed.ends).max().unwrap_or(self.ends);
    }

    pub fn permits(&self, peer: IpAddr, second: u64) -> bool {
        self.permissions.get(&peer).is_some_and(|ends| *ends > second)
    }

    pub fn channel_of(&self, peer: SocketAddr, second: u64) -> Option<u16> {
        let mut bound = self.channels.iter().filter(|(_, channel)| channel.ends > second);
        bound.find(|(_, channel)| channel.peer == peer).map(|(number, _)| *number)
    }

    /// Counts data, unless there is too much of it.
    pub fn relay(&mut self, direction: Direction, bytes: usize, millis: u64) -> bool {
        let to_peer = direction == Direction::ToPeer;
        let passes =
            self.buckets.as_mut().is_none_or(|buckets| buckets[usize::from(!to_peer)].take(bytes, millis));
        if passes {
            let usage = &mut self.usage;
            let (packets, total) = if to_peer {
                (&mut usage.packets_to_peer, &mut usage.bytes_to_peer)
            } else {
                (&mut usage.packets_to_client, &mut usage.bytes_to_client)
            };
            *packets += 1;
            *total += bytes as u64;
        }
        passes
    }

    /// Whether it is seen to carry media for the first time.
    pub fn begins_to_carry(&mut self) -> bool {
        let begins = !self.carries && self.usage.bytes_to_peer + self.usage.bytes_to_client > CHECKS;
        self.carries |= begins;
        begins
    }
}

/// A bandwidth limit: a second's worth may come at once, and one datagram always.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    rate: u64,
    /// Bytes times a thousand.
    level: u64,
    at: u64,
}

impl Bucket {
    pub fn new(rate: u64, millis: u64) -> Self {
        Self { rate, level: rate.max(65_535) * 1000, at: millis }
    }

    fn take(&mut self, bytes: usize, millis: u64) -> bool {
        let burst = self.rate.max(65_535) * 1000;
        self.level = burst.min(self.level + (millis - self.at) * self.rate);
        self.at = millis;
        let cost = bytes as u64 * 1000;
        let passes = cost <= self.level;
        self.level -= if passes { cost } else { 0 };
        passes
    }
}
