//! Permissions of an allocation (RFC 8656 section 9): peer addresses, without their ports.

use std::net::IpAddr;
use std::time::Duration;

use super::deadlines::Tick;
use super::policy::PermittedPeer;
use super::small_table::SmallTable;

/// Life of a permission (RFC 8656 section 9).
const LIFETIME: Duration = Duration::from_secs(300);

/// The permissions of one allocation.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    expiry: SmallTable<IpAddr, Tick>,
}

impl Permissions {
    /// Whether all of `peers` fit beside what is there.
    pub(super) fn fit(&mut self, peers: &[PermittedPeer], now: Tick, capacity: usize) -> bool {
        let fresh = |table: &SmallTable<IpAddr, Tick>| {
            let unknown = |at: usize, ip: IpAddr| {
                table.find(&ip).is_none() && !peers.iter().take(at).any(|earlier| earlier.ip() == ip)
            };
            peers.iter().enumerate().filter(|(at, peer)| unknown(*at, peer.ip())).count()
        };
        if self.expiry.len() + fresh(&self.expiry) > capacity {
            self.sweep(now);
        }
        self.expiry.len() + fresh(&self.expiry) <= capacity
    }

    /// Installs or refreshes a permission.
    pub(super) fn install(&mut self, peer: PermittedPeer, now: Tick) {
        self.expiry.insert(peer.ip(), now.after(LIFETIME));
    }

    /// Whether data may pass between the allocation and the address.
    pub(super) fn allows(&self, peer: IpAddr, now: Tick) -> bool {
        self.expiry.find(&peer).is_some_and(|expires| *expires > now)
    }

    /// Ends every permission whose address is no longer allowed.
    pub(super) fn retain_peers(&mut self, allowed: impl Fn(IpAddr) -> bool) {
        self.expiry.retain(|ip, _| allowed(*ip));
    }

    /// Forgets what expired.
    pub(super) fn sweep(&mut self, now: Tick) {
        self.expiry.retain(|_, expires| *expires > now);
    }

    /// When [`Permissions::sweep`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.expiry.iter().map(|(_, expires)| *expires).min()
    }

    /// The addresses that permissions are held for.
    pub(super) fn peers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.expiry.iter().map(|(ip, _)| *ip)
    }

    /// Permissions held.
    pub(super) fn len(&self) -> usize {
        self.expiry.len()
    }
}
