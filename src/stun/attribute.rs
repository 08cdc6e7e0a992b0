//! Attribute types and the values of the small ones.

use ::stun::attributes as registry;

/// USERNAME.
pub const USERNAME: u16 = registry::ATTR_USERNAME.0;
/// MESSAGE-INTEGRITY (HMAC-SHA1).
pub const MESSAGE_INTEGRITY: u16 = registry::ATTR_MESSAGE_INTEGRITY.0;
/// ERROR-CODE.
pub const ERROR_CODE: u16 = registry::ATTR_ERROR_CODE.0;
/// UNKNOWN-ATTRIBUTES.
pub const UNKNOWN_ATTRIBUTES: u16 = registry::ATTR_UNKNOWN_ATTRIBUTES.0;
/// CHANNEL-NUMBER.
pub const CHANNEL_NUMBER: u16 = registry::ATTR_CHANNEL_NUMBER.0;
/// LIFETIME.
pub const LIFETIME: u16 = registry::ATTR_LIFETIME.0;
/// XOR-PEER-ADDRESS.
pub const XOR_PEER_ADDRESS: u16 = registry::ATTR_XOR_PEER_ADDRESS.0;
/// DATA.
pub const DATA: u16 = registry::ATTR_DATA.0;
/// REALM.
pub const REALM: u16 = registry::ATTR_REALM.0;
/// NONCE.
pub const NONCE: u16 = registry::ATTR_NONCE.0;
/// XOR-RELAYED-ADDRESS.
pub const XOR_RELAYED_ADDRESS: u16 = registry::ATTR_XOR_RELAYED_ADDRESS.0;
/// REQUESTED-ADDRESS-FAMILY.
pub const REQUESTED_ADDRESS_FAMILY: u16 = registry::ATTR_REQUESTED_ADDRESS_FAMILY.0;
/// EVEN-PORT.
pub const EVEN_PORT: u16 = registry::ATTR_EVEN_PORT.0;
/// REQUESTED-TRANSPORT.
pub const REQUESTED_TRANSPORT: u16 = registry::ATTR_REQUESTED_TRANSPORT.0;
/// DONT-FRAGMENT.
pub const DONT_FRAGMENT: u16 = registry::ATTR_DONT_FRAGMENT.0;
/// MESSAGE-INTEGRITY-SHA256.
pub const MESSAGE_INTEGRITY_SHA256: u16 = registry::ATTR_MESSAGE_INTEGRITY_SHA256.0;
/// PASSWORD-ALGORITHM.
pub const PASSWORD_ALGORITHM: u16 = registry::ATTR_PASSWORD_ALGORITHM.0;
/// USERHASH.
pub const USERHASH: u16 = registry::ATTR_USER_HASH.0;
/// XOR-MAPPED-ADDRESS.
pub const XOR_MAPPED_ADDRESS: u16 = registry::ATTR_XORMAPPED_ADDRESS.0;
/// RESERVATION-TOKEN.
pub const RESERVATION_TOKEN: u16 = registry::ATTR_RESERVATION_TOKEN.0;
/// ADDITIONAL-ADDRESS-FAMILY (RFC 8656 section 18.11).
pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
/// ADDRESS-ERROR-CODE (RFC 8656 section 18.12).
pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
/// PASSWORD-ALGORITHMS.
pub const PASSWORD_ALGORITHMS: u16 = registry::ATTR_PASSWORD_ALGORITHMS.0;
/// ICMP (RFC 8656 section 18.13).
pub const ICMP: u16 = 0x8004;
/// SOFTWARE.
pub const SOFTWARE: u16 = registry::ATTR_SOFTWARE.0;
/// ALTERNATE-SERVER.
pub const ALTERNATE_SERVER: u16 = registry::ATTR_ALTERNATE_SERVER.0;
/// FINGERPRINT.
pub const FINGERPRINT: u16 = registry::ATTR_FINGERPRINT.0;

/// Whether a receiver that does not know the type must refuse the message (RFC 8489 section 14).
pub const fn comprehension_required(kind: u16) -> bool {
    kind < 0x8000
}

/// Whether this server understands a comprehension-required type. ICE's own attributes count: agents send Binding
/// requests with them to the same port.
pub const fn understood(kind: u16) -> bool {
    const PRIORITY: u16 = registry::ATTR_PRIORITY.0;
    const USE_CANDIDATE: u16 = registry::ATTR_USE_CANDIDATE.0;
    matches!(
        kind,
        USERNAME
            | MESSAGE_INTEGRITY
            | ERROR_CODE
            | UNKNOWN_ATTRIBUTES
            | CHANNEL_NUMBER
            | LIFETIME
            | XOR_PEER_ADDRESS
            | DATA
            | REALM
            | NONCE
            | XOR_RELAYED_ADDRESS
            | REQUESTED_ADDRESS_FAMILY
            | EVEN_PORT
            | REQUESTED_TRANSPORT
            | DONT_FRAGMENT
            | MESSAGE_INTEGRITY_SHA256
            | PASSWORD_ALGORITHM
            | USERHASH
            | XOR_MAPPED_ADDRESS
            | RESERVATION_TOKEN
            | PRIORITY
            | USE_CANDIDATE
    )
}

/// An address family as REQUESTED-ADDRESS-FAMILY writes it (RFC 8656 section 18.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// 0x01.
    V4,
    /// 0x02.
    V6,
}

impl Family {
    /// The family of an IP address.
    pub const fn of(ip: std::net::IpAddr) -> Self {
        match ip {
            std::net::IpAddr::V4(_) => Self::V4,
            std::net::IpAddr::V6(_) => Self::V6,
        }
    }

    /// The byte on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    /// Reads the first byte of a REQUESTED- or ADDITIONAL-ADDRESS-FAMILY of four bytes; the other three are reserved.
    /// `Err` carries what is no family.
    ///
    /// # Errors
    /// The value, when its length is not 4 or its first byte names no family.
    pub fn from_value(value: &[u8]) -> Result<Self, &[u8]> {
        match value {
            [1, _, _, _] => Ok(Self::V4),
            [2, _, _, _] => Ok(Self::V6),
            other => Err(other),
        }
    }
}

/// Reads a value of exactly four bytes (LIFETIME and others) in network order.
pub fn read_u32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}
