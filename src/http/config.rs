//! Addresses and limits of everything HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

/// Configuration of signaling over HTTP, REST, pages and the scrape endpoint.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where signaling, REST and pages listen.
    pub http: Vec<SocketAddr>,
    /// Where metrics are scraped.
    pub metrics: Vec<SocketAddr>,
    /// Origins of pages that may talk to this server (`https://app.example.org`). Empty: any origin with a token, the
    /// server's own origin without one. `*`: any origin.
    pub origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Sizes and times.
    pub limits: Limits,
}

/// Sizes and times of transports. The defaults are the protocol's.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest frame or message of a client in bytes.
    pub frame: usize,
    /// Deepest nesting of a client's JSON.
    pub json_depth: usize,
    /// Time for a WebSocket to say hello, for a Socket.IO connection to join a namespace.
    pub hello: Duration,
    /// How often an idle transport is pinged.
    pub ping: Duration,
    /// How long the answer to a ping may take.
    pub pong: Duration,
    /// Unsent bytes a session may have for longer than `slow_after`.
    pub unsent_bytes: usize,
    /// Unsent frames a session may have for longer than `slow_after`.
    pub unsent_frames: usize,
    /// How long a session may have more unsent than that. Four times as much closes it at once.
    pub slow_after: Duration,
    /// Connections an address (IPv4, or IPv6 /64) may open in one second, sustained.
    pub connections_per_second: f64,
    /// Connections an address may open at once.
    pub connections_burst: f64,
    /// Transports that have not authenticated yet, of all addresses.
    pub unauthenticated: usize,
    /// Failed authentications an address may make in `failure_window` before each further attempt is delayed.
    pub failures: u32,
    /// How long a failed authentication counts.
    pub failure_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame: 128 * 1024,
            json_depth: 16,
            hello: Duration::from_secs(10),
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(20),
            unsent_bytes: 256 * 1024,
            unsent_frames: 512,
            slow_after: Duration::from_secs(10),
            connections_per_second: 10.0,
            connections_burst: 60.0,
            unauthenticated: 2_000,
            failures: 10,
            failure_window: Duration::from_mins(30),
        }
    }
}
