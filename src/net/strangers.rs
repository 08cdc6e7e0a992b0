//! How many connections one address holds before they have authenticated.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::turn::one_address;

/// Connections that have not authenticated, by address. Bounded by the connections there are.
#[derive(Debug, Clone)]
pub(super) struct Strangers {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_address: usize,
}

impl Strangers {
    pub(super) fn new(per_address: usize) -> Self {
        Self { counts: Arc::default(), per_address }
    }

    /// Counts one more connection of an address; `None` when it has too many.
    pub(super) fn admit(&self, ip: IpAddr) -> Option<Admission> {
        let address = one_address(ip);
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Admission { strangers: self.clone(), address })
    }
}

/// One connection's share of its address until this is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    strangers: Strangers,
    address: IpAddr,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.strangers.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_so_many_strangers_and_no_more() {
        let strangers = Strangers::new(2);
        let admit = |ip: &str| strangers.admit(ip.parse().unwrap());
        let held = (admit("2600::1"), admit("2600::2"));
        assert!(held.0.is_some() && held.1.is_some());
        assert!(admit("2600::3").is_none(), "a /64 is one address");
        assert!(admit("2600:0:0:1::1").is_some());
        drop(held);
        assert!(strangers.counts.lock().is_empty());
    }
}
