//! How many allocations a user, a client address and the process hold. Claimed before an allocation exists, given back
//! when it is gone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ahash::RandomState;
use parking_lot::Mutex;

use super::{Limits, Reject};

/// The counts of the process.
#[derive(Debug, Default)]
pub(super) struct Quota {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    users: HashMap<Arc<str>, usize, RandomState>,
    addresses: HashMap<IpAddr, usize, RandomState>,
    total: usize,
}

impl Quota {
    /// Claims one allocation.
    pub(super) fn claim(
        self: &Arc<Self>,
        user: &Arc<str>,
        client: IpAddr,
        limits: &Limits,
    ) -> Result<QuotaClaim, Reject> {
        let address = one_address(client);
        let counts = &mut *self.counts.lock();
        let of = |held: Option<&usize>| held.copied().unwrap_or_default();
        if of(counts.users.get(user)) >= limits.allocations_per_user {
            return Err(Reject::UserQuota);
        }
        if of(counts.addresses.get(&address)) >= limits.allocations_per_ip {
            return Err(Reject::AddressQuota);
        }
        if counts.total >= limits.allocations_total {
            return Err(Reject::ServerFull);
        }
        *counts.users.entry(Arc::clone(user)).or_default() += 1;
        *counts.addresses.entry(address).or_default() += 1;
        counts.total += 1;
        Ok(QuotaClaim { quota: Arc::clone(self), user: Arc::clone(user), address })
    }
}

/// One allocation's share of the quotas until this is dropped.
#[derive(Debug)]
pub(super) struct QuotaClaim {
    quota: Arc<Quota>,
    user: Arc<str>,
    address: IpAddr,
}

impl Drop for QuotaClaim {
    fn drop(&mut self) {
        let counts = &mut *self.quota.counts.lock();
        give_back(&mut counts.users, Arc::clone(&self.user));
        give_back(&mut counts.addresses, self.address);
        counts.total = counts.total.saturating_sub(1);
    }
}

fn give_back<K: Eq + Hash>(counts: &mut HashMap<K, usize, RandomState>, key: K) {
    if let Entry::Occupied(mut held) = counts.entry(key) {
        *held.get_mut() -= 1;
        if *held.get() == 0 {
            held.remove();
        }
    }
}

/// What every limit counts as one address: an IPv4 address, an IPv6 /64.
pub fn one_address(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_refuses_at_its_boundary_and_gives_back_what_is_dropped() {
        let limits = Limits {
            allocations_per_user: 2,
            allocations_per_ip: 3,
            allocations_total: 4,
            ..Limits::default()
        };
        let quota = Arc::new(Quota::default());
        let claim = |user: &str, ip: &str| quota.claim(&user.into(), ip.parse().unwrap(), &limits);
        let held = [claim("a", "2600::1").unwrap(), claim("a", "2600::2").unwrap()];
        assert_eq!(claim("a", "9.9.9.9").unwrap_err(), Reject::UserQuota);
        let third = claim("b", "2600::3").unwrap();
        assert_eq!(claim("b", "2600::4").unwrap_err(), Reject::AddressQuota, "a /64 is one address");
        let fourth = claim("b", "2600:0:0:1::1").unwrap();
        assert_eq!(claim("c", "9.9.9.9").unwrap_err(), Reject::ServerFull);
        drop((held, third, fourth));
        let counts = quota.counts.lock();
        assert_eq!((counts.users.len(), counts.addresses.len(), counts.total), (0, 0, 0));
    }
}
