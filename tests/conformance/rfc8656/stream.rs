//! What is relayed for clients over TCP and TLS.

use stun::attributes::*;
use stun::message::*;

use crate::support::server::LOOPBACK_PEERS;
use crate::support::stun_client::channel_data;
use crate::support::{Client, EchoPeer, Everywhere, Request, Transport};

/// A client over a stream with a channel to an echo.
fn with_channel(server: &Everywhere, transport: Transport, peer: &EchoPeer) -> Client {
    let (mut client, _) = server.allocated(transport);
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    client
}

/// Bytes of which no two neighbours are alike, so that a shift is seen.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + 1) as u8).collect()
}

/// Section 12.5: Over TCP and TLS ChannelData is padded to a multiple of four bytes, with zeros that LENGTH does not
/// count and that are not relayed.
#[test]
fn f2_channel_data_is_padded_in_a_stream_and_its_length_is_what_counts() {
    let server = Everywhere::start(LOOPBACK_PEERS);
    for transport in Transport::STREAMS {
        let peer = EchoPeer::start();
        let client = with_channel(&server, transport, &peer);
        for size in (0..=64).chain([100, 999, 1471, 1472, 1473, 1500]) {
            let data = pattern(size);
            client.send_channel_data(0x4000, &data);
            // Checks the padding, too.
            assert_eq!(client.receive_channel_data(), (0x4000, data), "{transport:?}, {size} bytes");
        }
    }
}

/// Section 12.5: Padding is whatever the client made it; only LENGTH bytes go to the peer.
#[test]
fn f2_padding_that_is_not_zero_is_not_relayed() {
    let server = Everywhere::start(LOOPBACK_PEERS);
    for transport in Transport::STREAMS {
        let peer = EchoPeer::start();
        let client = with_channel(&server, transport, &peer);
        client.send(&[&channel_data(0x4000, b"short")[..], b"!!!"].concat());
        assert_eq!(client.receive_channel_data(), (0x4000, b"short".to_vec()));
    }
}

/// Section 12.5: LENGTH may say anything up to 65,535; whatever it says, the next message is found behind it.
#[test]
fn f1_the_longest_lengths_keep_the_frame() {
    let server = Everywhere::start(LOOPBACK_PEERS);
    for transport in Transport::STREAMS {
        let peer = EchoPeer::start();
        let client = with_channel(&server, transport, &peer);
        // As much as one datagram to a peer can hold, and back.
        for size in [9000, 60_000, 65_500, 65_507] {
            let data = pattern(size);
            client.send_channel_data(0x4000, &data);
            assert_eq!(client.receive_channel_data(), (0x4000, data), "{transport:?}, {size} bytes");
        }
        // More than that: it goes nowhere, and nothing behind it is lost.
        for size in 65_532..=65_535 {
            client.send_channel_data(0x4000, &pattern(size));
            client.hears_nothing();
        }
        client.send_channel_data(0x4000, b"still in step");
        assert_eq!(client.receive_channel_data(), (0x4000, b"still in step".to_vec()));
    }
}

/// Section 12.5: STUN messages and ChannelData follow each other in a stream in any split.
#[test]
fn channel_data_and_requests_share_a_stream_in_any_split() {
    let server = Everywhere::start(LOOPBACK_PEERS);
    for transport in Transport::STREAMS {
        let peer = EchoPeer::start();
        let client = with_channel(&server, transport, &peer);
        let binding = Request::new(METHOD_BINDING);
        let padded = |data: &[u8]| {
            let mut bytes = channel_data(0x4000, data);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let stream = [&padded(b"a")[..], &padded(b""), binding.bytes(), &padded(b"bc")].concat();
        for split in 0..=stream.len() {
            client.send(&stream[..split]);
            client.send(&stream[split..]);
            let mut expected = vec![b"a".to_vec(), Vec::new(), b"bc".to_vec()];
            for _ in 0..4 {
                let message = client.receive();
                if message[0] == 1 {
                    assert_eq!(message[8..20], binding.transaction());
                } else {
                    let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
                    assert_eq!(message[4..4 + length], expected.remove(0), "split at {split}");
                }
            }
            assert!(expected.is_empty());
        }
    }
}

/// Section 11.5: Data indications in a stream carry DATA whose padding is zeros.
#[test]
fn f3_data_indications_come_through_a_stream() {
    let server = Everywhere::start(LOOPBACK_PEERS);
    for transport in Transport::STREAMS {
        let peer = EchoPeer::start();
        let (mut client, _) = server.allocated(transport);
        assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
        for size in [0, 1, 2, 3, 4, 5, 1001, 65_000] {
            client.send(Request::send(peer.address, &pattern(size)).bytes());
            let message = client.receive();
            let padding = size.next_multiple_of(4) - size;
            assert!(message[message.len() - padding..].iter().all(|byte| *byte == 0));
            let at = message.len() - padding - size;
            assert_eq!(message[at..at + size], pattern(size), "{transport:?}, {size} bytes");
        }
    }
}

/// Section 3.1: Data between client and server may go over UDP, TCP or TLS; between server and peer it is UDP.
#[test]
fn clients_over_different_transports_reach_each_other() {
    let server = Everywhere::start(LOOPBACK_PEERS);
    for (here, there) in
        [(Transport::Udp, Transport::Tcp), (Transport::Tcp, Transport::Tls), (Transport::Tls, Transport::Udp)]
    {
        let (mut one, one_relayed) = server.allocated(here);
        let (mut two, two_relayed) = server.allocated(there);
        assert_eq!(one.ask_signed(Request::channel_bind(0x4001, two_relayed)).code(), 0);
        assert_eq!(two.ask_signed(Request::permission(&[one_relayed])).code(), 0);
        one.send_channel_data(0x4001, b"there");
        assert_eq!(two.receive_data(), (one_relayed, b"there".to_vec()));
        two.send(Request::send(two_relayed, b"to itself").bytes());
        two.send(Request::send(one_relayed, b"and back").bytes());
        assert_eq!(one.receive_channel_data(), (0x4001, b"and back".to_vec()));
    }
}

/// Section 3.2: The transport is part of the 5-tuple: the same port over UDP and over TCP are two clients.
#[test]
fn the_transport_is_part_of_the_five_tuple() {
    let server = Everywhere::start("");
    let (mut tcp, _) = server.allocated(Transport::Tcp);
    let port = tcp.local().port();
    let socket = std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
    socket.connect(server.turn()).unwrap();
    socket.send(Request::new(METHOD_BINDING).bytes()).unwrap();
    let mut answer = [0; 64];
    socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    assert_eq!(socket.recv(&mut answer).unwrap(), 32);
    assert_eq!(tcp.ask_signed(Request::allocate()).code(), 437);
    let answer = tcp.ask_signed(Request::refresh(600));
    assert_eq!(answer.code(), 0);
    assert_eq!(answer.value(ATTR_SOFTWARE), None);
}
