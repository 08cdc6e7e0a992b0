//! ChannelBind and ChannelData (RFC 8656 sections 11 and 12).

use std::net::SocketAddr;

use stun::message::*;

use crate::support::server::LOOPBACK_PEERS;
use crate::support::stun_client::channel_data;
use crate::support::{Client, EchoPeer, Request, Server};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Section 5: A ChannelBind on a 5-tuple without an allocation is answered with 437.
#[test]
fn l5_a_channel_without_an_allocation_is_a_mismatch() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, address("1.1.1.1:9999"))).code(), 437);
}

/// Section 12.2: A ChannelBind without CHANNEL-NUMBER or without XOR-PEER-ADDRESS is answered with 400.
#[test]
fn a_channel_wants_a_number_and_a_peer() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    let peer = address("1.1.1.1:9999");
    assert_eq!(client.ask_signed(Request::new(METHOD_CHANNEL_BIND).peer(peer)).code(), 400);
    assert_eq!(client.ask_signed(Request::new(METHOD_CHANNEL_BIND).channel(0x4000)).code(), 400);
}

/// Section 12.2: A channel number outside 0x4000 to 0x4FFF is answered with 400.
#[test]
fn f5_a_channel_number_lies_between_4000_and_4fff() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    for (number, code) in
        [(0, 400), (0x3FFF, 400), (0x5000, 400), (0x7FFF, 400), (0xFFFF, 400), (0x4000, 0), (0x4FFF, 0)]
    {
        let peer = SocketAddr::new([1, 1, 1, 1].into(), 9999 ^ (number & 1));
        assert_eq!(client.ask_signed(Request::channel_bind(number, peer)).code(), code, "{number:#x}");
    }
}

/// Section 12: 0x5000 and above are reserved; a switch opens them to clients of RFC 5766.
#[test]
fn f5_the_numbers_of_rfc_5766_are_a_switch() {
    let server = Server::start("[turn]\nwide_channel_range = true");
    let (mut client, _) = Client::allocated(server.turn());
    for (number, code) in [(0x3FFF, 400), (0x5000, 0), (0x7FFF, 0), (0x8000, 400)] {
        let peer = SocketAddr::new([1, 1, 1, 1].into(), 9999 ^ (number & 1));
        assert_eq!(client.ask_signed(Request::channel_bind(number, peer)).code(), code, "{number:#x}");
    }
}

/// Section 12.2: A number bound to another peer, or a peer bound to another number, is answered with 400; the same
/// pair is refreshed.
#[test]
fn a_number_and_a_peer_belong_together() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    let (one, other) = (address("1.1.1.1:9999"), address("1.1.1.1:8888"));
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, one)).code(), 0);
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, other)).code(), 400);
    assert_eq!(client.ask_signed(Request::channel_bind(0x4001, one)).code(), 400);
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, one)).code(), 0);
    server.await_metric("passerelle_turn_channels", &[], 1.0);
}

/// Section 12.2: A peer whose family is not that of the relayed address is answered with 443.
#[test]
fn a_peer_of_the_other_family_is_refused() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, address("[2606:4700::1]:9999"))).code(), 443);
}

/// Section 12.2: A channel for which there is no room is answered with 508.
#[test]
fn d6_the_table_of_channels_is_bounded() {
    let server = Server::start("[limits]\nchannels = 2");
    let (mut client, _) = Client::allocated(server.turn());
    let codes = [0x4000, 0x4001, 0x4002].map(|number| {
        let peer = SocketAddr::new([1, 1, 1, 1].into(), 2000 + (number & 0xF));
        client.ask_signed(Request::channel_bind(number, peer)).code()
    });
    assert_eq!(codes, [0, 0, 508]);
}

/// Section 12.6: ChannelData on a bound channel goes to its peer; data of a bound peer goes to the client as
/// ChannelData.
#[test]
fn f8_channel_data_goes_both_ways_in_every_size() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    for size in [0, 1, 2, 3, 4, 5, 1000, 1472, 1500, 9000, 60_000] {
        let data: Vec<u8> = (0..size).map(|at| at as u8).collect();
        client.send_channel_data(0x4000, &data);
        let received = client.receive();
        // Over UDP the padding is optional (RFC 8656 section 12.5).
        let expected = channel_data(0x4000, &data);
        assert_eq!(received.get(..expected.len()), Some(&expected[..]), "{size} bytes");
        assert!(received.len() < expected.len() + 4, "{size} bytes");
    }
}

/// Section 12.5: The length of ChannelData does not count padding, and padding is not relayed.
#[test]
fn padding_is_not_sent_to_the_peer() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    client.send(&[&channel_data(0x4000, b"short")[..], &[0; 3]].concat());
    let received = client.receive();
    assert_eq!(received[..4], [0x40, 0, 0, 5]);
    assert_eq!(received[4..9], *b"short");
}

/// Section 12.2: A ChannelBind installs or refreshes the permission of the address of its peer.
#[test]
fn a_channel_installs_a_permission_for_the_address() {
    let server = Server::start(LOOPBACK_PEERS);
    let (bound, neighbour) = (EchoPeer::start(), EchoPeer::start());
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, bound.address)).code(), 0);
    client.send(Request::send(neighbour.address, b"same address").bytes());
    assert_eq!(client.receive_data(), (neighbour.address, b"same address".to_vec()));
}

/// Section 11.5: Data of a peer that has a channel goes to the client as ChannelData, else as a Data indication.
#[test]
fn data_of_a_bound_peer_comes_as_channel_data_even_when_it_went_by_send() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::channel_bind(0x4ABC, peer.address)).code(), 0);
    client.send(Request::send(peer.address, b"data").bytes());
    assert_eq!(client.receive()[..8], *b"\x4A\xBC\x00\x04data");
}

/// Section 12.6: ChannelData on a channel that is not bound, or longer than the datagram, is discarded in silence.
#[test]
fn f4_channel_data_on_an_unbound_channel_or_cut_short_is_dropped() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    client.send_channel_data(0x4001, b"unbound");
    client.send(&channel_data(0x4000, b"cut short")[..10]);
    client.send(&[0x40, 0]);
    client.hears_nothing();
    server.await_metric("passerelle_relay_dropped_total", &[], 3.0);
    assert_eq!(peer.stop(), []);
}
