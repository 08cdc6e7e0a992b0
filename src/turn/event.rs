//! What happened to an allocation, for `observe` and `link`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::{FiveTuple, Grant};

/// Why an allocation ended: the label of `passerelle_turn_allocations_ended_total{reason}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Refresh with lifetime 0.
    Deleted,
    /// Its lifetime ran out.
    Expired,
    /// Its call ended or its credential was revoked.
    Revoked,
    /// The connection of its client closed.
    Disconnected,
    /// Its socket broke.
    SocketFailed,
    /// The server stops.
    Shutdown,
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Deleted, Self::Expired, Self::Revoked, Self::Disconnected, Self::SocketFailed, Self::Shutdown];

    /// Label of the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Disconnected => "disconnected",
            Self::SocketFailed => "socket_failed",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What an allocation relayed: application data without headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packets to peers.
    pub packets_to_peer: u64,
    /// Bytes to peers.
    pub bytes_to_peer: u64,
    /// Packets to the client.
    pub packets_to_client: u64,
    /// Bytes to the client.
    pub bytes_to_client: u64,
}

/// Something to count, log or record.
#[derive(Debug, Clone)]
pub enum Event {
    /// An allocation was made.
    AllocationCreated {
        /// Its 5-tuple.
        five_tuple: FiveTuple,
        /// Whose it is.
        grant: Arc<Grant>,
        /// Granted lifetime.
        lifetime: Duration,
    },
    /// An allocation has relayed more than the checks of ICE: it carries media.
    CarriesMedia {
        /// Whose it is.
        grant: Arc<Grant>,
    },
    /// An allocation is gone.
    AllocationEnded {
        /// Its 5-tuple.
        five_tuple: FiveTuple,
        /// Whose it was.
        grant: Arc<Grant>,
        /// Why.
        reason: EndReason,
        /// How long it lived.
        duration: Duration,
        /// What it relayed.
        usage: Usage,
        /// The peers it had permissions for at its end.
        peers: SmallVec<[IpAddr; 2]>,
    },
}
