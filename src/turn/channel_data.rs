//! ChannelData (RFC 8656 section 12.4) and the bytes that go before a payload on its way to a client.

use std::net::SocketAddr;

use super::{ChannelNumber, Prefix, Transport};
use crate::stun::address::{self, MAX_LENGTH};
use crate::stun::{HEADER_LENGTH as STUN_HEADER, MAGIC_COOKIE, TransactionId, attribute};

/// Bytes before the data.
pub(super) const HEADER_LENGTH: usize = 4;

/// The largest UDP payload over IPv4; a message to a client over UDP has to fit into it.
const MAX_DATAGRAM: usize = 65_507;

/// Reads the header: channel and length of the data. Padding behind the data is allowed and ignored.
pub(super) fn parse(bytes: &[u8]) -> Option<(u16, usize)> {
    let head: &[u8; HEADER_LENGTH] = bytes.first_chunk()?;
    let number = u16::from_be_bytes([head[0], head[1]]);
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    (HEADER_LENGTH + length <= bytes.len()).then_some((number, length))
}

/// What goes before and how many zeros go behind `length` bytes of a peer: ChannelData where a channel is bound, else
/// a Data indication. `None` when the message would be too long.
pub(super) fn frame(
    channel: Option<ChannelNumber>,
    peer: SocketAddr,
    length: usize,
    transport: Transport,
    random: u64,
) -> Option<(Prefix, u8)> {
    let padding = (length.next_multiple_of(4) - length) as u8;
    let size = u16::try_from(length).ok()?;
    let (prefix, padding) = match channel {
        Some(number) => {
            let padding = if transport.is_stream() { padding } else { 0 };
            (Prefix::from_slices(&[&number.get().to_be_bytes(), &size.to_be_bytes()]), padding)
        }
        None => (data_indication(peer, size, padding, random)?, padding),
    };
    let fits = prefix.as_slice().len() + length + usize::from(padding) <= MAX_DATAGRAM;
    (fits || transport.is_stream()).then_some((prefix, padding))
}

/// A Data indication (RFC 8656 section 11.5) up to its payload.
fn data_indication(peer: SocketAddr, size: u16, padding: u8, random: u64) -> Option<Prefix> {
    const DATA_INDICATION: u16 = 0x0017;
    let mixed = random ^ (random >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mut id = [0; 12];
    for (byte, value) in id.iter_mut().zip(mixed.to_be_bytes().into_iter().chain(random.to_le_bytes())) {
        *byte = value;
    }
    let transaction = TransactionId(id);
    let mut encoded = [0; MAX_LENGTH];
    let used = address::encode(peer, &transaction, &mut encoded);
    let message = 4 + used + 4 + usize::from(size) + usize::from(padding);
    let prefix = Prefix::from_slices(&[
        &DATA_INDICATION.to_be_bytes(),
        &u16::try_from(message).ok()?.to_be_bytes(),
        &MAGIC_COOKIE.to_be_bytes(),
        &id,
        &attribute::XOR_PEER_ADDRESS.to_be_bytes(),
        &(used as u16).to_be_bytes(),
        encoded.get(..used)?,
        &attribute::DATA.to_be_bytes(),
        &size.to_be_bytes(),
    ]);
    debug_assert_eq!(prefix.as_slice().len(), STUN_HEADER + 4 + used + 4);
    Some(prefix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stun::{Class, Message, Method};

    proptest! {
        #[test]
        fn a_data_indication_reads_back_as_what_the_peer_sent(peer: SocketAddr, payload in prop::collection::vec(any::<u8>(), 0..1500), random: u64) {
            let peer = SocketAddr::new(peer.ip(), peer.port());
            let (prefix, padding) = frame(None, peer, payload.len(), Transport::Udp, random).unwrap();
            let mut bytes = prefix.as_slice().to_vec();
            bytes.extend_from_slice(&payload);
            bytes.resize(bytes.len() + usize::from(padding), 0);
            let message = Message::parse(&bytes).unwrap();
            prop_assert_eq!((message.class(), message.method()), (Class::Indication, Method::Data));
            prop_assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some(Some(peer)));
            prop_assert_eq!(message.first(attribute::DATA), Some(payload.as_slice()));
        }

        #[test]
        fn channel_data_reads_back_and_is_padded_on_streams_only(length in 0..1500usize, stream: bool) {
            let number = ChannelNumber::bindable(0x4001, false);
            let transport = if stream { Transport::Tcp } else { Transport::Udp };
            let (prefix, padding) = frame(number, "9.9.9.9:9".parse().unwrap(), length, transport, 0).unwrap();
            let mut bytes = prefix.as_slice().to_vec();
            bytes.resize(bytes.len() + length + usize::from(padding), 0);
            prop_assert_eq!(parse(&bytes), Some((0x4001, length)));
            prop_assert_eq!(padding, if stream { (bytes.len() - 4 - length) as u8 } else { 0 });
            prop_assert!(!stream || bytes.len() % 4 == 0);
        }
    }

    #[test]
    fn a_message_that_no_datagram_can_hold_is_refused() {
        let peer: SocketAddr = "9.9.9.9:9".parse().unwrap();
        assert!(frame(None, peer, MAX_DATAGRAM, Transport::Udp, 0).is_none());
        assert!(
            frame(ChannelNumber::bindable(0x4000, false), peer, MAX_DATAGRAM - 4, Transport::Udp, 0)
                .is_some()
        );
        // A stream holds whatever LENGTH can say.
        let channel = ChannelNumber::bindable(0x4000, false);
        assert!(frame(channel, peer, MAX_DATAGRAM, Transport::Tcp, 0).is_some());
        assert!(frame(None, peer, 0xFFFF, Transport::Tcp, 0).is_none());
    }
}
