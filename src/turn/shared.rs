//! What the workers of a process share. Touched on the control path only: no packet waits for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::nonce::NonceKey;
use super::ports::Ports;
use super::quota::Quota;
use super::reservations::Reservations;
use super::revocations::Revocations;
use super::{Config, Departure, PeerPolicy, PortRange, RelayAddress};

/// Ports, quotas, reservations, the nonce key and the drain flag of the process.
#[derive(Debug)]
pub struct Shared {
    pub(super) ports: Arc<Ports>,
    pub(super) quota: Arc<Quota>,
    pub(super) reservations: Reservations,
    pub(super) revocations: Revocations,
    pub(super) nonces: NonceKey,
    draining: AtomicBool,
}

impl Shared {
    /// Makes the shared state. `nonce_key` comes from the configuration of a fleet, else from the system's generator.
    pub fn new(addresses: &[RelayAddress], ports: PortRange, nonce_key: [u8; 32]) -> Arc<Self> {
        Arc::new(Self {
            ports: Ports::new(addresses, ports),
            quota: Arc::new(Quota::default()),
            reservations: Reservations::default(),
            revocations: Revocations::default(),
            nonces: NonceKey::new(nonce_key),
            draining: AtomicBool::new(false),
        })
    }

    /// Answers new Allocate requests with 300 or 508 from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Credentials of this call start no allocation from now on.
    pub fn revoke_call(&self, call: &Arc<str>) {
        self.revocations.add(call);
    }

    /// Credentials that somebody had for a call it has left start no allocation from now on.
    pub fn revoke_departed(&self, departure: &Departure) {
        self.revocations.depart(departure);
    }

    /// Whether a call is known to be over.
    pub fn is_over(&self, call: &str) -> bool {
        self.revocations.contains(call)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Relay ports in use.
    pub fn ports_used(&self) -> usize {
        self.ports.used()
    }

    /// Relay ports there are.
    pub fn ports_capacity(&self) -> usize {
        self.ports.capacity()
    }

    /// Asks the policy about a peer, with this process's live relayed ports.
    pub(super) fn check(
        &self,
        policy: &PeerPolicy,
        ip: IpAddr,
        port: Option<u16>,
    ) -> Result<super::PermittedPeer, super::DenyRule> {
        policy.check(ip, port, |address: SocketAddr| self.ports.is_leased(address))
    }
}

/// What a reload replaces in a running server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The relay's configuration; relay addresses and ports of a running process stay what they were.
    pub config: Arc<Config>,
    /// The filter made from its peer rules.
    pub policy: Arc<PeerPolicy>,
}

impl Settings {
    /// Builds the peer filter of a configuration.
    pub fn new(config: Config) -> Self {
        let policy = Arc::new(PeerPolicy::new(&config.peers));
        Self { config: Arc::new(config), policy }
    }
}
