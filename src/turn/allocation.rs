//! One allocation (RFC 8656 section 3.2).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::channel::Channels;
use super::deadlines::Tick;
use super::long_term::Integrity;
use super::permission::Permissions;
use super::quota::QuotaClaim;
use super::{Direction, FiveTuple, Grant, PortLease, Stats, Usage};
use crate::stun::attribute::Family;
use crate::stun::{Key, TransactionId};

/// Bytes that an allocation may relay for the connectivity checks of ICE alone.
const CHECKS: u64 = 32 * 1024;

/// A relayed transport address.
#[derive(Debug)]
pub(super) struct Relayed {
    pub(super) family: Family,
    pub(super) lease: PortLease,
    /// Of two families each has its own time (RFC 8656 section 8.1).
    pub(super) expires: Tick,
}

/// The relayed addresses of an allocation: at most one a family.
pub(super) type RelayedList = SmallVec<[Relayed; 1]>;

/// An allocation and everything that ends with it.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) five_tuple: FiveTuple,
    pub(super) grant: Arc<Grant>,
    pub(super) relayed: RelayedList,
    pub(super) created: Instant,
    /// When the last of its relayed addresses expires.
    pub(super) expires: Tick,
    /// The deadline this allocation is armed for; older entries of the wheel are stale.
    pub(super) armed: Tick,
    /// The request that made it: retransmissions get the same answer (RFC 8656 section 7.2).
    pub(super) made_by: Made,
    pub(super) permissions: Permissions,
    pub(super) channels: Channels,
    pub(super) usage: Usage,
    /// Whether it has been reported to carry media.
    carries: bool,
    pub(super) bandwidth: Option<Box<[Bucket; 2]>>,
    pub(super) _quota: QuotaClaim,
}

/// What the success answer of an Allocate says beyond the allocation's own state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) transaction: TransactionId,
    pub(super) lifetime: Duration,
    pub(super) token: Option<[u8; 8]>,
    /// The additional family that could not be served, with its code (ADDRESS-ERROR-CODE).
    pub(super) family_error: Option<(Family, u16)>,
}

impl Allocation {
    /// The relayed address of a family.
    pub(super) fn relayed(&self, family: Family) -> Option<&Relayed> {
        self.relayed.iter().find(|relayed| relayed.family == family)
    }

    /// Whether a peer's family is one of the relayed addresses'.
    pub(super) fn serves(&self, peer: IpAddr) -> bool {
        self.relayed(Family::of(peer)).is_some()
    }

    /// The next moment at which something of it ends.
    pub(super) fn next_deadline(&self) -> Tick {
        let tables = self.permissions.next_deadline().into_iter().chain(self.channels.next_deadline());
        tables.chain(self.relayed.iter().map(|relayed| relayed.expires)).fold(self.expires, Tick::min)
    }

    /// Gives the relayed addresses of a family, or all of them, until `expires`.
    pub(super) fn extend(&mut self, family: Option<Family>, expires: Tick) {
        let extended = |relayed: &&mut Relayed| family.is_none_or(|family| family == relayed.family);
        self.relayed.iter_mut().filter(extended).for_each(|relayed| relayed.expires = expires);
        self.expires = self.relayed.iter().map(|relayed| relayed.expires).max().unwrap_or(expires);
    }

    /// Gives up relayed addresses with the permissions and channels of their family; those of the other family are not
    /// touched (RFC 8656 section 8.1).
    pub(super) fn release(&mut self, stats: &Stats, gone: impl Fn(&Relayed) -> bool) -> RelayedList {
        let all = std::mem::take(&mut self.relayed);
        let (released, kept): (RelayedList, RelayedList) = all.into_iter().partition(|relayed| gone(relayed));
        self.relayed = kept;
        for relayed in &released {
            stats.allocations(self.five_tuple.transport, relayed.family, -1);
            self.change(stats, |found| {
                found.permissions.retain_peers(|ip| Family::of(ip) != relayed.family);
                found.channels.retain_peers(|peer| Family::of(peer.ip()) != relayed.family);
            });
        }
        self.expires = self.relayed.iter().map(|relayed| relayed.expires).max().unwrap_or(self.expires);
        released
    }

    /// Changes permissions and channels, and keeps the gauges of both true.
    pub(super) fn change<R>(&mut self, stats: &Stats, change: impl FnOnce(&mut Self) -> R) -> R {
        let held = |found: &Self| (found.permissions.len() as i64, found.channels.live() as i64);
        let before = held(self);
        let result = change(self);
        let after = held(self);
        stats.held(after.0 - before.0, after.1 - before.1);
        result
    }

    /// Counts data, unless it exceeds the bandwidth.
    pub(super) fn relay(&mut self, direction: Direction, bytes: usize, now: Instant) -> bool {
        let within = self.bandwidth.as_deref_mut().is_none_or(|buckets| match direction {
            Direction::ToPeer => buckets[0].take(bytes, now),
            Direction::ToClient => buckets[1].take(bytes, now),
        });
        if within {
            let usage = &mut self.usage;
            let (packets, total) = match direction {
                Direction::ToPeer => (&mut usage.packets_to_peer, &mut usage.bytes_to_peer),
                Direction::ToClient => (&mut usage.packets_to_client, &mut usage.bytes_to_client),
            };
            *packets += 1;
            *total += bytes as u64;
        }
        within
    }

    /// Whether it has begun to carry media since this was asked last.
    pub(super) fn began_to_carry(&mut self) -> bool {
        let carries = self.usage.bytes_to_peer + self.usage.bytes_to_client > CHECKS;
        carries && !std::mem::replace(&mut self.carries, true)
    }
}

/// A token bucket over bytes; its burst is one second's worth, and never less than one datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    rate: u64,
    /// Nanobytes: bytes scaled by a second's nanoseconds, so that no fraction is lost between packets.
    level: u128,
    at: Instant,
}

impl Bucket {
    const SECOND: u128 = 1_000_000_000;

    pub(super) fn new(rate: u64, now: Instant) -> Self {
        let mut bucket = Self { rate, level: 0, at: now };
        bucket.level = bucket.burst();
        bucket
    }

    fn burst(&self) -> u128 {
        u128::from(self.rate.max(65_535)) * Self::SECOND
    }

    fn take(&mut self, bytes: usize, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        self.at = self.at.max(now);
        self.level = self.burst().min(self.level + elapsed * u128::from(self.rate));
        let cost = bytes as u128 * Self::SECOND;
        let within = cost <= self.level;
        if within {
            self.level -= cost;
        }
        within
    }
}

/// An Allocate that waits for its sockets.
#[derive(Debug)]
pub(super) struct PendingAllocation {
    pub(super) five_tuple: FiveTuple,
    pub(super) grant: Arc<Grant>,
    pub(super) key: Key,
    pub(super) integrity: Integrity,
    pub(super) made_by: Made,
    pub(super) relayed: RelayedList,
    /// The odd port of a pair, to be reserved.
    pub(super) reserve: Option<PortLease>,
    /// Its share of the quotas.
    pub(super) reserve_quota: Option<QuotaClaim>,
    pub(super) wants: Wants,
    pub(super) quota: QuotaClaim,
    /// How often a port turned out to be taken by another program.
    pub(super) attempts: u8,
    pub(super) fingerprint: bool,
}

/// What an Allocate asked for, to lease other ports when some cannot be bound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wants {
    pub(super) family: Family,
    pub(super) additional: bool,
    pub(super) parity: super::ports::Parity,
    pub(super) reserved: bool,
}

impl PendingAllocation {
    /// The allocation, once its sockets are there.
    pub(super) fn into_allocation(self, now: Instant, expires: Tick, bandwidth: Option<u64>) -> Allocation {
        let mut allocation = Allocation {
            five_tuple: self.five_tuple,
            grant: self.grant,
            relayed: self.relayed,
            created: now,
            expires,
            armed: Tick::default(),
            made_by: self.made_by,
            permissions: Permissions::default(),
            channels: Channels::default(),
            usage: Usage::default(),
            carries: false,
            bandwidth: bandwidth.map(|rate| Box::new([Bucket::new(rate, now); 2])),
            _quota: self.quota,
        };
        allocation.extend(None, expires);
        allocation
    }

    /// Where its sockets bind.
    pub(super) fn local_addresses(&self) -> impl Iterator<Item = (Family, SocketAddr)> + '_ {
        self.relayed.iter().map(|relayed| (relayed.family, relayed.lease.local()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_its_rate_pass_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100_000, start);
        let mut passed = 0;
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            passed += if bucket.take(1000, now) { 1000 } else { 0 };
        }
        assert!((1_090_000..=1_100_000).contains(&passed), "{passed}: ten seconds and one of burst");
    }
}
