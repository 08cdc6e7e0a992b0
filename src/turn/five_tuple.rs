//! The 5-tuple that identifies an allocation (RFC 8656 section 2.2).

use std::net::SocketAddr;

/// How a client reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A TCP connection.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl Transport {
    /// Every transport, in the order of `Transport::index`.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// Label of metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Whether ChannelData is padded to four bytes (RFC 8656 section 12.5).
    pub const fn is_stream(self) -> bool {
        !matches!(self, Self::Udp)
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// Client address, server address and the transport between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// The client as the server sees it: the mapped address.
    pub client: SocketAddr,
    /// The address the client sent to, so that answers leave from there.
    pub server: SocketAddr,
    /// Its transport.
    pub transport: Transport,
}
