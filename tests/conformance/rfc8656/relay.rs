//! Send and Data indications, and what is counted (RFC 8656 sections 11.1 to 11.4).

use std::net::UdpSocket;

use stun::attributes::*;
use stun::message::*;

use crate::support::server::LOOPBACK_PEERS;
use crate::support::stun_client::receive_from;
use crate::support::{Client, EchoPeer, Request, Server};

/// Section 11.3: A Send indication with a permission becomes one datagram to its peer, from the relayed address.
#[test]
fn data_goes_to_a_permitted_peer_and_back() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let (mut client, relayed) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
    for size in [0, 1, 3, 1000, 1472, 9000, 60_000] {
        let data: Vec<u8> = (0..size).map(|at| at as u8).collect();
        client.send(Request::send(peer.address, &data).bytes());
        assert_eq!(client.receive_data(), (peer.address, data), "{size} bytes");
    }
    assert!(peer.stop().iter().all(|source| *source == relayed), "the peer sees the relayed address");
}

/// Section 11.5: Data of a peer without a permission is discarded in silence.
#[test]
fn a_peer_without_permission_is_dropped() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = UdpSocket::bind("127.0.0.2:0").unwrap();
    let (mut client, relayed) = Client::allocated(server.turn());
    peer.send_to(b"knock", relayed).unwrap();
    server.await_metric("passerelle_relay_dropped_total", &[], 1.0);
    client.hears_nothing();
    let address = peer.local_addr().unwrap();
    assert_eq!(client.ask_signed(Request::permission(&[address])).code(), 0);
    peer.send_to(b"knock", relayed).unwrap();
    assert_eq!(client.receive_data(), (address, b"knock".to_vec()));
}

/// Section 11.3: A Send indication to a peer without a permission is discarded in silence.
#[test]
fn data_to_a_peer_without_permission_is_dropped() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let (client, _) = Client::allocated(server.turn());
    client.send(Request::send(peer.address, b"data").bytes());
    client.hears_nothing();
    server.await_metric("passerelle_relay_dropped_total", &[], 1.0);
    assert_eq!(peer.stop(), []);
}

/// Section 11.3: A Send indication without an allocation, without DATA or without XOR-PEER-ADDRESS is discarded in
/// silence.
#[test]
fn a_send_without_an_allocation_without_data_or_without_peer_is_dropped() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let stranger = Client::new(server.turn());
    stranger.send(Request::send(peer.address, b"data").bytes());
    stranger.hears_nothing();
    server.await_metric("passerelle_relay_dropped_total", &[], 1.0);
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
    client.send(Request::indication(METHOD_SEND).peer(peer.address).bytes());
    client.send(Request::indication(METHOD_SEND).with(ATTR_DATA, b"data").bytes());
    client.hears_nothing();
    server.await_metric("passerelle_relay_dropped_total", &[], 3.0);
    assert_eq!(peer.stop(), []);
}

/// Section 9: A permission is for an IP address; ports do not matter.
#[test]
fn a_permission_is_for_an_address_and_not_for_a_port() {
    let server = Server::start(LOOPBACK_PEERS);
    let neighbour = UdpSocket::bind("127.0.0.2:0").unwrap();
    let (mut client, relayed) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&["127.0.0.2:9999".parse().unwrap()])).code(), 0);
    neighbour.send_to(b"from another port", relayed).unwrap();
    assert_eq!(client.receive_data(), (neighbour.local_addr().unwrap(), b"from another port".to_vec()));
}

/// Section 3.2: Each allocation has a relayed address of its own, so that several clients reach one peer.
#[test]
fn two_clients_reach_the_same_peer() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let mut clients = [(); 2].map(|()| Client::allocated(server.turn()).0);
    for client in &mut clients {
        assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    }
    for (client, data) in clients.iter().zip([b"one", b"two"]) {
        client.send_channel_data(0x4000, data);
        assert_eq!(client.receive()[4..7], *data);
    }
}

/// Section 3.4: A peer may be the relayed address of another client of the same server.
#[test]
fn two_clients_of_the_server_reach_each_other_through_it() {
    let server = Server::start(LOOPBACK_PEERS);
    let (mut one, one_relayed) = Client::allocated(server.turn());
    let (mut two, two_relayed) = Client::allocated(server.turn());
    assert_eq!(one.ask_signed(Request::permission(&[two_relayed])).code(), 0);
    assert_eq!(two.ask_signed(Request::channel_bind(0x4000, one_relayed)).code(), 0);
    one.send(Request::send(two_relayed, b"there").bytes());
    assert_eq!(two.receive()[..9], *b"\x40\x00\x00\x05there");
    two.send_channel_data(0x4000, b"and back");
    assert_eq!(one.receive_data(), (two_relayed, b"and back".to_vec()));
}

/// Section 8.2: When an allocation is deleted, its permissions and channels go with it and its relayed address is
/// closed.
#[test]
fn a_freed_allocation_relays_no_more() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = UdpSocket::bind("127.0.0.2:0").unwrap();
    let (mut client, relayed) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.local_addr().unwrap())).code(), 0);
    client.send_channel_data(0x4000, b"alive");
    assert_eq!(receive_from(&peer), Some((b"alive".to_vec(), relayed)));
    assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
    client.send_channel_data(0x4000, b"too late");
    client.hears_nothing();
    peer.set_nonblocking(true).unwrap();
    assert!(peer.recv_from(&mut [0; 16]).is_err(), "data was relayed after the end");
}

/// Section 11.5: An ICMP error about relayed data reaches the client as a Data indication with the ICMP attribute.
#[test]
fn the_client_of_a_peer_that_is_not_there_is_told() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let (mut client, _) = Client::allocated(server.turn());
    let nobody = UdpSocket::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
    assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    for _ in 0..5 {
        client.send(Request::send(nobody, b"anyone?").bytes());
        // Type 3, code 3: port unreachable (RFC 8656 section 18.13).
        assert_eq!(client.receive_icmp(), (nobody, vec![0, 0, 3 << 1, 3, 0, 0, 0, 0]));
        // And the error of one peer costs no datagram of another.
        client.send_channel_data(0x4000, b"data");
        assert_eq!(client.receive()[4..8], *b"data");
    }
    server.await_metric("passerelle_relay_dropped_total", &[], 0.0);
}

/// Section 12.6: ChannelData is relayed whole and in order, also in bursts.
#[test]
fn a_burst_is_relayed_whole_and_in_order_both_ways() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    for (burst, size) in [(1, 0), (50, 1000), (3, 160), (64, 1200), (20, 1)] {
        let data = |at: u8| vec![at; size];
        (0..burst).for_each(|at| client.send_channel_data(0x4000, &data(at)));
        for at in 0..burst {
            assert_eq!(client.receive()[4..], data(at), "{at} of {burst}");
        }
    }
    server.await_metric("passerelle_relay_packets_total", &[("direction", "to_client")], 138.0);
}
