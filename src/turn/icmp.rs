//! ICMP errors about what was relayed to a peer, told to the client (RFC 8656 sections 11.5 and 11.6).

use std::net::SocketAddr;

use super::{FiveTuple, Now, RelayId, Server};
use crate::stun::{Class, Method, TransactionId, Writer, attribute};

/// An ICMP error that clients are told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    kind: u8,
    code: u8,
    data: u32,
}

impl IcmpError {
    /// ICMPv4: destination unreachable (3) and time exceeded (11). `mtu` is what a router gave with code 4.
    pub const fn v4(kind: u8, code: u8, mtu: u32) -> Option<Self> {
        match kind {
            3 => Some(Self { kind, code, data: if code == 4 { mtu } else { 0 } }),
            11 => Some(Self { kind, code, data: 0 }),
            _ => None,
        }
    }

    /// ICMPv6: destination unreachable (1), packet too big (2), time exceeded (3).
    pub const fn v6(kind: u8, code: u8, mtu: u32) -> Option<Self> {
        match kind {
            2 => Some(Self { kind, code, data: mtu }),
            1 | 3 => Some(Self { kind, code, data: 0 }),
            _ => None,
        }
    }

    /// The value of the ICMP attribute: 16 bits reserved, 7 of type, 9 of code, 32 of data (RFC 8656 section 18.13).
    fn encode(self) -> [u8; 8] {
        let [t0, t1] = (u16::from(self.kind) << 9 | u16::from(self.code)).to_be_bytes();
        let [d0, d1, d2, d3] = self.data.to_be_bytes();
        [0, 0, t0, t1, d0, d1, d2, d3]
    }
}

impl Server {
    /// Handles an ICMP error about a datagram that left a relayed address. The reply buffer then holds a Data
    /// indication for the client that is returned; `None` when no client is to be told.
    pub fn on_icmp(
        &mut self,
        relay: RelayId,
        peer: SocketAddr,
        error: IcmpError,
        now: Now,
    ) -> Option<FiveTuple> {
        let tick = self.deadlines.tick(now.instant);
        let peer = self.seen_from_outside(peer);
        let allocation = self.allocations.get(relay.slot as usize).filter(|found| found.expires > tick)?;
        if !allocation.permissions.allows(peer.ip(), tick) {
            return None;
        }
        let client = allocation.five_tuple;
        let (high, low) = (self.random().to_be_bytes(), self.random().to_be_bytes());
        let mut id = [0; 12];
        id.iter_mut().zip(high.into_iter().chain(low)).for_each(|(byte, random)| *byte = random);
        let transaction = TransactionId(id);
        let mut writer = Writer::new(&mut self.reply, Class::Indication, Method::Data, transaction);
        writer.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        writer.attribute(attribute::ICMP, &error.encode());
        Some(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_types_of_section_11_5_are_passed_on() {
        let passed = |pick: fn(u8, u8, u32) -> Option<IcmpError>| -> Vec<u8> {
            (0..=255).filter(|kind| pick(*kind, 0, 9).is_some()).collect()
        };
        assert_eq!(passed(IcmpError::v4), [3, 11]);
        assert_eq!(passed(IcmpError::v6), [1, 2, 3]);
    }

    #[test]
    fn the_attribute_holds_type_code_and_the_mtu_where_there_is_one() {
        let encoded = |error: Option<IcmpError>| error.unwrap().encode();
        assert_eq!(encoded(IcmpError::v4(3, 3, 77)), [0, 0, 6, 3, 0, 0, 0, 0]);
        assert_eq!(encoded(IcmpError::v4(3, 4, 1280)), [0, 0, 6, 4, 0, 0, 5, 0]);
        assert_eq!(encoded(IcmpError::v6(2, 0, 1280)), [0, 0, 4, 0, 0, 0, 5, 0]);
        assert_eq!(encoded(IcmpError::v6(1, 4, 77)), [0, 0, 2, 4, 0, 0, 0, 0]);
    }
}
