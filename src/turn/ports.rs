//! The relay ports of the process: a bitmap an address, claimed at random, given back when a lease is dropped.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{PortRange, RelayAddress};

const WORDS: usize = 1024;

/// The ports of one relay address, one bit each: set while leased.
#[derive(Debug)]
struct Pool {
    address: RelayAddress,
    leased: Box<[AtomicU64; WORDS]>,
}

/// Every pool of the process, shared by its workers.
#[derive(Debug)]
pub(super) struct Ports {
    pools: Vec<Pool>,
    range: PortRange,
}

/// What kind of port is wanted (EVEN-PORT, RFC 8656 section 18.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parity {
    Any,
    Even,
    /// An even port whose successor is leased as well.
    EvenPair,
}

impl Ports {
    pub(super) fn new(addresses: &[RelayAddress], range: PortRange) -> Arc<Self> {
        let leased = || Box::new([const { AtomicU64::new(0) }; WORDS]);
        let pools = addresses.iter().map(|address| Pool { address: *address, leased: leased() }).collect();
        Arc::new(Self { pools, range })
    }

    /// Leases a random free port on an address of the family; the second lease is the pair's odd port.
    pub(super) fn lease(
        self: &Arc<Self>,
        ipv6: bool,
        parity: Parity,
        random: u64,
    ) -> Option<(PortLease, Option<PortLease>)> {
        let matching =
            || self.pools.iter().enumerate().filter(|(_, pool)| pool.address.local.is_ipv6() == ipv6);
        let count = matching().count();
        let first = (random >> 32) as usize % count.max(1);
        matching().cycle().skip(first).take(count).find_map(|(index, pool)| {
            let port = self.claim(pool, parity, random as u32)?;
            let lease = |port| PortLease { ports: Arc::clone(self), pool: index, port };
            Some((lease(port), (parity == Parity::EvenPair).then(|| lease(port + 1))))
        })
    }

    /// Whether a transport address is a leased relayed one, by its local or external address.
    pub(super) fn is_leased(&self, address: SocketAddr) -> bool {
        self.pools
            .iter()
            .filter(|pool| pool.address.local == address.ip() || pool.address.external == address.ip())
            .any(|pool| {
                let (word, bit) = position(address.port());
                pool.leased.get(word).is_some_and(|bits| bits.load(Ordering::Relaxed) & bit != 0)
            })
    }

    /// The relay address whose external side is `ip`, if packets to it have to be looped inside this host.
    pub(super) fn local_of(&self, ip: IpAddr) -> Option<IpAddr> {
        self.translate(|address| (address.external == ip).then_some(address.local))
    }

    /// The external side of a local relay address.
    pub(super) fn external_of(&self, ip: IpAddr) -> Option<IpAddr> {
        self.translate(|address| (address.local == ip).then_some(address.external))
    }

    fn translate(&self, pick: impl Fn(&RelayAddress) -> Option<IpAddr>) -> Option<IpAddr> {
        self.pools
            .iter()
            .filter(|pool| pool.address.local != pool.address.external)
            .find_map(|pool| pick(&pool.address))
    }

    pub(super) fn supports(&self, ipv6: bool) -> bool {
        self.pools.iter().any(|pool| pool.address.local.is_ipv6() == ipv6)
    }

    /// Ports in use.
    pub(super) fn used(&self) -> usize {
        let words = self.pools.iter().flat_map(|pool| pool.leased.iter());
        words.map(|bits| bits.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// Ports there are.
    pub(super) fn capacity(&self) -> usize {
        self.pools.len() * (usize::from(self.range.last - self.range.first) + 1)
    }

    /// Claims a port from a random start on, every free port being equally near.
    fn claim(&self, pool: &Pool, parity: Parity, random: u32) -> Option<u16> {
        let size = u32::from(self.range.last - self.range.first) + 1;
        let start = random % size;
        // Word by word, so that a nearly full pool costs microseconds; the last step covers what the first left out.
        let mut offset = 0;
        while offset < size {
            let port = self.range.first + ((start + offset) % size) as u16;
            let (word, bit) = position(port);
            let bits = pool.leased.get(word)?;
            let in_word = 64 - bit.trailing_zeros();
            let until_end = u32::from(self.range.last - port) + 1;
            let span = in_word.min(until_end);
            if let Some(found) = claim_in_word(bits, bit.trailing_zeros(), span, parity) {
                return Some((word * 64) as u16 + found as u16);
            }
            offset += span;
        }
        None
    }

    fn release(&self, pool: usize, port: u16) {
        let (word, bit) = position(port);
        if let Some(bits) = self.pools.get(pool).and_then(|pool| pool.leased.get(word)) {
            bits.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

const fn position(port: u16) -> (usize, u64) {
    ((port / 64) as usize, 1 << (port % 64))
}

/// Claims the first fitting free bit of a word among `span` bits from `first` on.
fn claim_in_word(bits: &AtomicU64, first: u32, span: u32, parity: Parity) -> Option<u32> {
    let window = (u64::MAX >> (64 - span)) << first;
    let mut taken = bits.load(Ordering::Relaxed);
    loop {
        let free = !taken & window;
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let fitting = match parity {
            Parity::Any => free,
            Parity::Even => free & EVEN,
            Parity::EvenPair => free & EVEN & (free >> 1),
        };
        if fitting == 0 {
            return None;
        }
        let bit = fitting.trailing_zeros();
        let claim = if parity == Parity::EvenPair { 0b11 << bit } else { 1 << bit };
        match bits.compare_exchange_weak(taken, taken | claim, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(bit),
            Err(now) => taken = now,
        }
    }
}

/// A relay port that is ours until this is dropped.
#[derive(Debug)]
pub struct PortLease {
    ports: Arc<Ports>,
    pool: usize,
    port: u16,
}

impl PortLease {
    /// The address the socket binds to.
    pub fn local(&self) -> SocketAddr {
        self.side(|address| address.local)
    }

    /// The relayed transport address as clients and peers see it.
    pub fn external(&self) -> SocketAddr {
        self.side(|address| address.external)
    }

    fn side(&self, pick: impl Fn(&RelayAddress) -> IpAddr) -> SocketAddr {
        let ip = self.ports.pools.get(self.pool).map(|pool| pick(&pool.address));
        SocketAddr::new(ip.unwrap_or(IpAddr::from([0, 0, 0, 0])), self.port)
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        self.ports.release(self.pool, self.port);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn ports(first: u16, last: u16) -> Arc<Ports> {
        let ip = IpAddr::from([9, 9, 9, 9]);
        Ports::new(&[RelayAddress { local: ip, external: ip }], PortRange { first, last })
    }

    #[test]
    fn every_port_of_the_range_is_leased_once_and_none_beside_it() {
        for (first, last) in [(50_000, 50_000), (49_152, 49_251), (50_001, 50_064), (65_500, 65_535)] {
            let ports = ports(first, last);
            let leases: Vec<_> = (0..)
                .map(|at: u64| ports.lease(false, Parity::Any, at.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
                .take_while(Option::is_some)
                .flatten()
                .collect();
            let seen: HashSet<u16> = leases.iter().map(|(lease, _)| lease.local().port()).collect();
            assert_eq!(seen, (first..=last).collect::<HashSet<_>>());
            assert_eq!((ports.used(), leases.len()), (ports.capacity(), ports.capacity()));
            drop(leases);
            assert_eq!(ports.used(), 0);
        }
    }

    #[test]
    fn a_family_without_an_address_has_no_ports() {
        assert!(ports(50_000, 50_010).lease(true, Parity::Any, 1).is_none());
    }

    proptest! {
        #[test]
        fn d5_leases_are_conserved_and_pairs_are_even_and_odd(
            first in 49_152..49_400u16, size in 1..200u16, steps: Vec<(u64, u8)>
        ) {
            let ports = ports(first, first + size - 1);
            let mut held = Vec::new();
            for (random, kind) in steps {
                let parity = match kind % 4 { 0 => Parity::Any, 1 => Parity::Even, 2 => Parity::EvenPair, _ => {
                    held.pop();
                    continue;
                }};
                if let Some((lease, pair)) = ports.lease(false, parity, random) {
                    let port = lease.local().port();
                    prop_assert!((first..first + size).contains(&port));
                    prop_assert!(parity == Parity::Any || port % 2 == 0);
                    prop_assert_eq!(pair.as_ref().map(|pair| pair.local().port()), (parity == Parity::EvenPair).then_some(port + 1));
                    prop_assert!(ports.is_leased(lease.external()));
                    held.push((lease, pair));
                }
            }
            let leased: usize = held.iter().map(|(_, pair)| 1 + usize::from(pair.is_some())).sum();
            prop_assert_eq!(ports.used(), leased);
        }
    }
}
