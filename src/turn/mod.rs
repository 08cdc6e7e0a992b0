//! The relay's state: allocations, permissions, channels, long-term credentials, peer policy (RFC 8489 section 9.2,
//! RFC 8656). Pure.
//!
//! Owns one worker's allocations ([`Server`]) and what all workers of the process share ([`Shared`]: ports, quotas,
//! reservations). Must not open a socket, read a clock or draw randomness: time comes in as [`Now`], randomness as
//! [`Entropy`]. Driven by `net`.
//!
//! **The law of a core**: one input ([`Server::on_client`], [`Server::on_peer`], [`Server::on_icmp`], [`Server::on_bound`],
//! [`Server::on_timeout`]), act on its [`Verdict`], drain [`Server::poll_output`] to `None`, sleep until
//! [`Server::poll_timeout`]. A [`Verdict::Bind`] is answered with [`Server::on_bound`] before the next input.

mod allocation;
mod answer;
mod channel;
mod channel_data;
pub mod config;
mod deadlines;
mod event;
mod five_tuple;
mod framing;
mod icmp;
mod keys;
mod long_term;
mod methods;
mod nonce;
mod permission;
mod policy;
mod ports;
mod prefix_limit;
mod quota;
mod reject;
mod reservations;
mod revocations;
mod server;
mod shared;
mod small_table;
mod stats;
#[cfg(test)]
mod tests;
mod verdict;

pub use channel::ChannelNumber;
pub use config::{Config, ExpiryPolicy, Limits, PeerRules, PortRange, RelayAddress};
pub use event::{EndReason, Event, Usage};
pub use five_tuple::{FiveTuple, Transport};
pub use framing::{Frame, MAX_FRAME, first_frame};
pub use icmp::IcmpError;
pub use keys::{Candidate, Grant, Keys, Name};
pub use long_term::is_hash_of;
pub use policy::{DenyRule, PeerPolicy, PermittedPeer};
pub use ports::PortLease;
pub use quota::one_address;
pub use reject::{AuthFailure, Reject};
pub use revocations::Departure;
pub use server::Server;
pub use shared::{Settings, Shared};
pub use stats::{Direction, Measure, Stats};
pub use verdict::{Bind, BindFailure, DropReason, Output, Prefix, RelayId, Verdict};

/// Fills a buffer with unpredictable bytes. The shell passes the system's generator, a simulation a seeded one.
pub type Entropy = Box<dyn FnMut(&mut [u8]) + Send>;

/// The two clocks of one input: a monotonic one for every lifetime, a wall clock for the expiry of credentials.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic time.
    pub instant: std::time::Instant,
    /// Seconds since the Unix epoch.
    pub unix: u64,
}
