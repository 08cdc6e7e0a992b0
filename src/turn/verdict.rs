//! What the shell does with an input.

use std::net::SocketAddr;
use std::ops::Range;

use smallvec::SmallVec;

use super::allocation::PendingAllocation;
use super::{Event, FiveTuple, PortLease};
use crate::stun::attribute::Family;

/// A relayed transport address of a worker: an allocation's slot and the family (an allocation has at most one each).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelayId {
    /// Slot of the allocation in its server.
    pub slot: u32,
    /// Family of the relayed address.
    pub family: Family,
}

/// The answer to an input, by value: nothing on the packet path goes through a queue.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing is sent; the reason is already counted.
    Drop(DropReason),
    /// The reply buffer goes back to where the input came from.
    Reply,
    /// Part of the input goes to a peer.
    ToPeer {
        /// The socket it leaves from.
        relay: RelayId,
        /// Where it goes.
        peer: SocketAddr,
        /// The application data inside the input.
        payload: Range<usize>,
        /// Whether it must not be fragmented (DONT-FRAGMENT, RFC 8656 section 15).
        dont_fragment: bool,
    },
    /// The whole input goes to a client behind a prefix.
    ToClient {
        /// Where it goes and from which address.
        client: FiveTuple,
        /// ChannelData header, or Data indication up to its payload.
        prefix: Prefix,
        /// Zero bytes that follow the payload.
        padding: u8,
    },
    /// Sockets are needed before there is an answer: bind them, then [`super::Server::on_bound`].
    Bind(Box<Bind>),
}

/// Sockets an Allocate asks for.
#[derive(Debug)]
pub struct Bind {
    /// Each relayed address and the local address its socket binds to.
    pub sockets: SmallVec<[(RelayId, SocketAddr); 2]>,
    pub(super) pending: PendingAllocation,
}

/// Why the shell could not bind the sockets of a [`Bind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindFailure {
    /// Another program has the port: another one may do.
    PortTaken,
    /// Nothing would help: no file descriptor, no such address.
    Impossible,
}

/// Bytes before a payload on its way to a client; no payload is copied for them.
#[derive(Debug, Clone, Copy)]
pub struct Prefix {
    bytes: [u8; Self::CAPACITY],
    length: u8,
}

impl Prefix {
    /// A Data indication from an IPv6 peer: header 20, XOR-PEER-ADDRESS 24, DATA 4.
    pub const CAPACITY: usize = 48;

    pub(super) fn from_slices(parts: &[&[u8]]) -> Self {
        let mut prefix = Self { bytes: [0; Self::CAPACITY], length: 0 };
        for part in parts {
            let start = usize::from(prefix.length);
            if let Some(room) = prefix.bytes.get_mut(start..start + part.len()) {
                room.copy_from_slice(part);
                prefix.length += part.len() as u8;
            }
        }
        prefix
    }

    /// The bytes to send before the payload.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// Rare things the shell has to do, drained after each input.
#[derive(Debug)]
pub enum Output {
    /// Close a relay socket, then drop the lease: the port is free from then on.
    Close {
        /// Which socket.
        relay: RelayId,
        /// Its port.
        lease: PortLease,
    },
    /// Something to count or log.
    Event(Event),
}

/// Why something was dropped in silence: the label of `passerelle_relay_dropped_total{reason}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Neither STUN nor ChannelData.
    NotStun,
    /// STUN whose frame is broken.
    Malformed,
    /// FINGERPRINT does not match.
    Fingerprint,
    /// A response or a Data indication: servers send those.
    Unexpected,
    /// A method this server does not know.
    UnknownMethod,
    /// Source port 0, which nobody could answer.
    SourcePort,
    /// An indication with an unknown comprehension-required attribute.
    UnknownAttribute,
    /// A Send indication without peer or DATA.
    Incomplete,
    /// No allocation on this 5-tuple.
    NoAllocation,
    /// ChannelData on a channel that is not bound.
    NoChannel,
    /// ChannelData whose LENGTH exceeds the datagram.
    ChannelLength,
    /// No permission for the peer.
    NoPermission,
    /// The peer policy denies the peer.
    PeerDenied,
    /// Over the bandwidth of the allocation.
    Bandwidth,
    /// An unauthenticated answer over the limit of its prefix.
    RateLimited,
    /// A datagram larger than what was read.
    Truncated,
    /// The send buffer was full.
    SendBuffer,
    /// The kernel refused to send.
    SendError,
    /// Longer than fits into a message to the client.
    TooLong,
    /// A Binding indication: a keep-alive that wants nothing.
    KeepAlive,
}

impl DropReason {
    /// Every reason, in the order of `DropReason::index`.
    pub const ALL: [Self; 20] = [
        Self::NotStun,
        Self::Malformed,
        Self::Fingerprint,
        Self::Unexpected,
        Self::UnknownMethod,
        Self::SourcePort,
        Self::UnknownAttribute,
        Self::Incomplete,
        Self::NoAllocation,
        Self::NoChannel,
        Self::ChannelLength,
        Self::NoPermission,
        Self::PeerDenied,
        Self::Bandwidth,
        Self::RateLimited,
        Self::Truncated,
        Self::SendBuffer,
        Self::SendError,
        Self::TooLong,
        Self::KeepAlive,
    ];

    /// Label of the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotStun => "not_stun",
            Self::Malformed => "malformed",
            Self::Fingerprint => "fingerprint",
            Self::Unexpected => "unexpected",
            Self::UnknownMethod => "unknown_method",
            Self::SourcePort => "source_port",
            Self::UnknownAttribute => "unknown_attribute",
            Self::Incomplete => "incomplete",
            Self::NoAllocation => "no_allocation",
            Self::NoChannel => "no_channel",
            Self::ChannelLength => "channel_length",
            Self::NoPermission => "no_permission",
            Self::PeerDenied => "peer_denied",
            Self::Bandwidth => "bandwidth",
            Self::RateLimited => "rate_limited",
            Self::Truncated => "truncated",
            Self::SendBuffer => "send_buffer",
            Self::SendError => "send_error",
            Self::TooLong => "too_long",
            Self::KeepAlive => "keep_alive",
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}
