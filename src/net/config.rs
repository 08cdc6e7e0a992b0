//! Configuration of the sockets and workers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// Configuration of the workers and their listeners.
#[derive(Debug, Clone)]
pub struct Config {
    /// UDP listeners; port 0 picks one (the same in every worker).
    pub udp: Vec<SocketAddr>,
    /// TCP listeners; port 0 picks one.
    pub tcp: Vec<SocketAddr>,
    /// TLS listeners; port 0 picks one. Needs [`Config::certificate`].
    pub tls: Vec<SocketAddr>,
    /// Networks whose TCP and TLS connections start with a PROXY header (v1 or v2): those of load balancers.
    pub proxies: Vec<IpNet>,
    /// Certificate of the TLS listeners.
    pub certificate: Option<Certificate>,
    /// Connections an address (IPv4 address or IPv6 /64) may hold before they are authenticated.
    pub connections_per_ip: usize,
    /// How long a connection may wait with its first byte, and with the whole of its TLS handshake.
    pub first_byte_timeout: Duration,
    /// How long a connection may stay without an allocation.
    pub unauthenticated_timeout: Duration,
    /// Bytes that wait for a slow client before media to it is dropped.
    pub stream_queue: usize,
    /// Worker threads; 0 is one per core.
    pub workers: usize,
    /// Receive buffer of listeners and relay sockets in bytes (SO_RCVBUF, forced where allowed).
    pub receive_buffer: usize,
    /// Whether the kernel joins and cuts runs of datagrams (UDP_GRO, UDP_SEGMENT), where it can.
    pub segmentation: bool,
}

impl Config {
    /// Every listener.
    pub fn listeners(&self) -> impl Iterator<Item = &SocketAddr> {
        self.udp.iter().chain(&self.tcp).chain(&self.tls)
    }

    /// Whether there is a listener at all.
    pub fn relays(&self) -> bool {
        self.listeners().next().is_some()
    }
}

/// A certificate in files, so that it can be renewed in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// PEM file with the chain, the server's own certificate first.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}
