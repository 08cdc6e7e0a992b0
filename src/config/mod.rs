//! Configuration. Owns the way from defaults, file, environment and flags to the parts' own `Config`s, and every
//! cross-check between them. Must not open a listener or a database: what is loaded here may only be checked. Driven by
//! `cli`, and handed to `app`.
//!
//! Order: defaults < file < `PASSERELLE__SECTION__KEY` < flags. Without a file, development values. A value that is
//! wrong, unknown or does nothing is a start-up error that names key, line and the way out.

mod callers;
mod change;
mod check;
mod environment;
mod file;
mod host;
mod listen;
mod load;
mod origin;
mod reference;
mod relay;
mod secret;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use secrecy::SecretString;

pub use change::{Change, Values};
pub use file::File;
pub use host::Host;
pub use load::{Flag, Sources, load};
pub use origin::{ConfigError, Problem};
pub use reference::reference;
pub use secret::Secret;

use crate::{auth, http, link, logging, net, shutdown, signaling, store, turn};

/// Everything the parts need, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether a file was given.
    pub mode: Mode,
    /// Sockets and workers of the relay.
    pub net: net::Config,
    /// The relay core.
    pub turn: turn::Config,
    /// Shared secrets of TURN REST credentials: the first signs, all verify. Never empty in development mode.
    pub turn_secrets: Vec<SecretString>,
    /// Static TURN users: name and password.
    pub turn_users: Vec<(String, SecretString)>,
    /// How long the credentials in `iceServers` may start allocations.
    pub credential_ttl: Duration,
    /// Hosts that go into `iceServers`: names or bare IP literals, never empty while the relay listens.
    pub public_hosts: Vec<String>,
    /// Other servers that go into `iceServers`.
    pub ice_servers: Vec<signaling::IceServer>,
    /// One-to-one NAT: relay address to what the world sees of it.
    pub external_ips: BTreeMap<IpAddr, IpAddr>,
    /// Web clients.
    pub http: http::Config,
    /// The call engine.
    pub signaling: signaling::Config,
    /// Who may open a signaling session.
    pub auth: auth::Config,
    /// Call records.
    pub store: store::Config,
    /// How long they are kept.
    pub retention: store::Retention,
    /// Whether the networks of relayed peers are part of them.
    pub peer_networks: bool,
    /// Who is told what happens to calls.
    pub webhooks: Option<auth::WebhookConfig>,
    /// Events that may wait for it.
    pub webhook_events: u32,
    /// Log lines.
    pub logging: logging::Config,
    /// How the server stops.
    pub shutdown: shutdown::Config,
    /// Every key as it stands, for [`Config::changes`].
    pub values: Values,
    /// What the operator should know about these values, to be said once at start.
    pub notices: Vec<String>,
}

/// Where the values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No file: values to try it out on one machine.
    Development,
    /// Only what the file says.
    File,
}

impl Config {
    /// The URIs that clients use, for listeners bound to these addresses (port 0 is resolved by then): what is fastest
    /// comes first.
    pub fn ice_urls(&self, udp: &[SocketAddr], tcp: &[SocketAddr], tls: &[SocketAddr]) -> link::IceUrls {
        let uris = |scheme: &str, bound: &[SocketAddr], query: &str| {
            let mut ports: Vec<u16> = bound.iter().map(SocketAddr::port).collect();
            ports.sort_unstable();
            ports.dedup();
            let uri = |port: u16, host: &String| match host.contains(':') {
                true => format!("{scheme}:[{host}]:{port}{query}"),
                false => format!("{scheme}:{host}:{port}{query}"),
            };
            ports.iter().flat_map(|port| self.public_hosts.iter().map(|host| uri(*port, host))).collect()
        };
        let turn: [Vec<String>; 3] = [
            uris("turn", udp, "?transport=udp"),
            uris("turn", tcp, "?transport=tcp"),
            uris("turns", tls, "?transport=tcp"),
        ];
        link::IceUrls { stun: uris("stun", udp, ""), turn: turn.concat(), others: self.ice_servers.clone() }
    }
}
