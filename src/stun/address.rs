//! XOR-MAPPED-ADDRESS and its kin (RFC 8489 section 14.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{MAGIC_COOKIE, TransactionId};

/// Longest encoded address: family, port and an IPv6 address.
pub const MAX_LENGTH: usize = 20;

/// Encodes `address`, XORed with the magic cookie and the transaction id, into `out`; returns the bytes used.
pub fn encode(address: SocketAddr, transaction: &TransactionId, out: &mut [u8; MAX_LENGTH]) -> usize {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let [_, family, port_high, port_low, body @ ..] = out;
    let port = (address.port() ^ (MAGIC_COOKIE >> 16) as u16).to_be_bytes();
    (*port_high, *port_low) = (port[0], port[1]);
    match address.ip() {
        IpAddr::V4(ip) => {
            *family = 1;
            for (byte, (octet, mask)) in body.iter_mut().zip(ip.octets().iter().zip(cookie)) {
                *byte = octet ^ mask;
            }
            8
        }
        IpAddr::V6(ip) => {
            *family = 2;
            let mask = cookie.iter().chain(&transaction.0);
            for (byte, (octet, mask)) in body.iter_mut().zip(ip.octets().iter().zip(mask)) {
                *byte = octet ^ mask;
            }
            20
        }
    }
}

/// Decodes a XORed address; `None` when its length does not fit its family.
pub fn decode(value: &[u8], transaction: &TransactionId) -> Option<SocketAddr> {
    let (head, body) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([head[2], head[3]]) ^ (MAGIC_COOKIE >> 16) as u16;
    let ip: IpAddr = match head[1] {
        1 => {
            let octets: [u8; 4] = body.try_into().ok()?;
            Ipv4Addr::from(u32::from_be_bytes(octets) ^ MAGIC_COOKIE).into()
        }
        2 => {
            let mut octets: [u8; 16] = body.try_into().ok()?;
            let mask = MAGIC_COOKIE.to_be_bytes();
            for (octet, mask) in octets.iter_mut().zip(mask.iter().chain(&transaction.0)) {
                *octet ^= mask;
            }
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_encoded_address_decodes_to_itself(ip: IpAddr, port: u16, id: [u8; 12]) {
            let (address, id) = (SocketAddr::new(ip, port), TransactionId(id));
            let mut buffer = [0; MAX_LENGTH];
            let length = encode(address, &id, &mut buffer);
            prop_assert_eq!(decode(&buffer[..length], &id), Some(address));
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes: Vec<u8>, id: [u8; 12]) {
            let _ = decode(&bytes, &TransactionId(id));
        }
    }
}
