//! Configuration of the relay core: plain values, validated by `config` before they get here.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// Configuration of [`super::Server`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Realm of the long-term credentials (RFC 8489 section 9.2).
    pub realm: String,
    /// Value of SOFTWARE in authenticated answers; `None` (the default) sends none.
    pub software: Option<String>,
    /// Addresses relayed transport addresses are allocated on.
    pub relay_addresses: Vec<RelayAddress>,
    /// Ports relayed transport addresses are allocated from, both ends included.
    pub ports: PortRange,
    /// Lifetime granted when the client asks for none or less (RFC 8656 section 7.2: 600 s).
    pub lifetime_default: Duration,
    /// Longest lifetime granted.
    pub lifetime_max: Duration,
    /// How long a nonce is accepted.
    pub nonce_lifetime: Duration,
    /// What happens to an allocation whose credential has expired.
    pub expiry: ExpiryPolicy,
    /// How long past the expiry of its credential an allocation may be refreshed under [`ExpiryPolicy::Grace`].
    pub expiry_grace: Duration,
    /// Quotas and table sizes.
    pub limits: Limits,
    /// Which peers may be reached.
    pub peers: PeerRules,
    /// Whether ChannelBind also takes RFC 5766's numbers 0x5000 to 0x7FFF, for old clients.
    pub wide_channel_range: bool,
    /// Where Allocate requests are sent while draining (ALTERNATE-SERVER).
    pub alternate_server: Option<std::net::SocketAddr>,
}

/// An address of this host that relays, and what clients and peers see of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayAddress {
    /// The address sockets are bound to.
    pub local: IpAddr,
    /// The address written into XOR-RELAYED-ADDRESS; differs behind a one-to-one NAT.
    pub external: IpAddr,
}

/// A non-empty range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// What happens to an allocation whose REST credential has expired (the credential itself starts no new one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpiryPolicy {
    /// Refreshed for as long as the client likes.
    #[default]
    Keep,
    /// Ends with the credential.
    Cut,
    /// Refreshed until the grace is over.
    Grace,
}

/// Quotas of the process and table sizes of an allocation.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Allocations a user (the user part of the name) may hold; a reserved port counts as one until it is used.
    pub allocations_per_user: usize,
    /// Allocations a client address (IPv4 address or IPv6 /64) may hold.
    pub allocations_per_ip: usize,
    /// Allocations of the process.
    pub allocations_total: usize,
    /// Permissions an allocation may hold.
    pub permissions: usize,
    /// Channels an allocation may hold.
    pub channels: usize,
    /// Bytes a second an allocation may relay in each direction; `None` is unlimited.
    pub bandwidth: Option<u64>,
    /// Error answers a second to requests of one prefix (/24, /56) that have not proved their source address,
    /// sustained; 0 turns the limit off. A follow-up with the nonce gives its answer back.
    pub unauthenticated_per_second: u32,
    /// Burst of the same.
    pub unauthenticated_burst: u32,
    /// Binding answers a second to one prefix, sustained and as a burst; 0 turns the limit off.
    pub binding_per_second: u32,
}

/// Which peers may be reached (the file's `allow_peers`, `deny_peers`, `peer_ports`).
#[derive(Debug, Clone, Default)]
pub struct PeerRules {
    /// Networks allowed beyond the defaults.
    pub allow: Vec<IpNet>,
    /// Networks denied beyond the defaults.
    pub deny: Vec<IpNet>,
    /// Ports below 1024 that may be reached all the same.
    pub low_ports: Vec<u16>,
    /// Sockets of this process that are never a peer (listeners, metrics, database).
    pub own_listeners: Vec<std::net::SocketAddr>,
    /// Own addresses, denied but for live relayed ports.
    pub own_addresses: Vec<IpAddr>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations_per_user: 10,
            allocations_per_ip: 1000,
            allocations_total: usize::MAX,
            permissions: 64,
            channels: 64,
            bandwidth: None,
            unauthenticated_per_second: 100,
            unauthenticated_burst: 1000,
            binding_per_second: 20_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            realm: "passerelle".into(),
            software: None,
            relay_addresses: Vec::new(),
            ports: PortRange { first: 49152, last: 65535 },
            lifetime_default: Duration::from_secs(600),
            lifetime_max: Duration::from_secs(3600),
            nonce_lifetime: Duration::from_secs(600),
            expiry: ExpiryPolicy::default(),
            expiry_grace: Duration::from_secs(3600),
            limits: Limits::default(),
            peers: PeerRules::default(),
            wide_channel_range: false,
            alternate_server: None,
        }
    }
}
