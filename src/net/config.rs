//! Configuration of the sockets and workers.

use std::net::SocketAddr;

/// Configuration of the workers and their listeners.
#[derive(Debug, Clone)]
pub struct Config {
    /// UDP listeners; port 0 picks one (the same in every worker).
    pub udp: Vec<SocketAddr>,
    /// Worker threads; 0 is one per core.
    pub workers: usize,
    /// Receive buffer of listeners and relay sockets in bytes (SO_RCVBUF, forced where allowed).
    pub receive_buffer: usize,
}
