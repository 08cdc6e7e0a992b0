//! CreatePermission (RFC 8656 section 10) and the peer policy, whose defaults are safe.

use std::net::SocketAddr;

use stun::attributes::*;
use stun::message::*;

use crate::support::server::LOOPBACK_PEERS;
use crate::support::stun_client::IPV6;
use crate::support::{Client, EchoPeer, Request, Server};

/// A peer of the open Internet. Nothing is ever sent to it: a permission is only noted.
const PUBLIC: &str = "1.1.1.1:9999";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_permission_without_an_allocation_is_a_mismatch() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[address(PUBLIC)])).code(), 437);
}

#[test]
fn a_permission_wants_a_peer_that_can_be_read() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[])).code(), 400);
    let short = Request::new(METHOD_CREATE_PERMISSION).with(ATTR_XOR_PEER_ADDRESS, &[0, 1, 0, 0]);
    assert_eq!(client.ask_signed(short).code(), 400);
}

#[test]
fn a_peer_of_the_other_family_is_refused() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[address("[2606:4700::1]:9")])).code(), 443);
}

#[test]
fn a_public_peer_is_permitted() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[address(PUBLIC)])).code(), 0);
    server.await_metric("passerelle_turn_permissions", &[], 1.0);
}

#[test]
fn special_ipv4_peers_are_denied_by_default() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    for ip in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
    ] {
        let peer = SocketAddr::new(ip.parse().unwrap(), 9999);
        assert_eq!(client.ask_signed(Request::permission(&[peer])).code(), 403, "CreatePermission for {ip}");
        assert_eq!(client.ask_signed(Request::channel_bind(0x4001, peer)).code(), 403, "ChannelBind to {ip}");
    }
    server.await_metric("passerelle_turn_permissions", &[], 0.0);
    server.await_metric("passerelle_peer_denied_total", &[], 2.0 * 19.0);
}

#[test]
fn a_relay_on_loopback_does_not_open_loopback() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    let (_other, relayed) = Client::allocated(server.turn());
    for own in [server.turn(), server.http, server.metrics, relayed] {
        assert_eq!(client.ask_signed(Request::channel_bind(0x4001, own)).code(), 403, "{own}");
    }
}

#[test]
fn no_list_opens_the_sockets_of_this_server() {
    let server = Server::start(LOOPBACK_PEERS);
    let (mut client, _) = Client::allocated(server.turn());
    for own in [server.turn(), server.http, server.metrics] {
        assert_eq!(client.ask_signed(Request::channel_bind(0x4001, own)).code(), 403, "{own}");
    }
    let (_other, relayed) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::channel_bind(0x4001, relayed)).code(), 0);
}

#[test]
fn special_ipv6_peers_and_embedded_ipv4_peers_are_denied_by_default() {
    let server = Server::start("[relay]\naddresses = [\"::1\"]");
    let mut client = Client::new(server.turn());
    assert!(client.ask_signed(Request::allocate().family(IPV6)).relayed().is_ipv6());
    for ip in [
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "100::1",
        // IPv4-mapped and IPv4-compatible.
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        // NAT64.
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        // 6to4 and Teredo (whose client address is stored inverted).
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
    ] {
        let peer = SocketAddr::new(ip.parse().unwrap(), 9999);
        assert_eq!(client.ask_signed(Request::permission(&[peer])).code(), 403, "CreatePermission for {ip}");
        assert_eq!(client.ask_signed(Request::channel_bind(0x4001, peer)).code(), 403, "ChannelBind to {ip}");
    }
    assert_eq!(client.ask_signed(Request::permission(&[address("[2606:4700::1]:9")])).code(), 0);
}

#[test]
fn low_ports_are_denied_to_channels_but_for_two() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    for (channel, (port, code)) in
        (0x4000..).zip([(0, 403), (53, 403), (123, 403), (161, 403), (1023, 403), (443, 0), (1024, 0)])
    {
        let peer = SocketAddr::new([1, 1, 1, 1].into(), port);
        assert_eq!(client.ask_signed(Request::channel_bind(channel, peer)).code(), code, "port {port}");
    }
}

#[test]
fn the_most_specific_network_of_the_lists_wins() {
    let server = Server::start(
        "[relay]\nallow_peers = [\"10.0.0.0/8\", \"10.1.2.3/32\"]\ndeny_peers = [\"10.1.0.0/16\", \"1.0.0.0/8\"]",
    );
    let (mut client, _) = Client::allocated(server.turn());
    for (ip, code) in
        [("10.2.0.1", 0), ("10.1.0.1", 403), ("10.1.2.3", 0), ("1.1.1.1", 403), ("192.168.1.1", 403)]
    {
        let peer = SocketAddr::new(ip.parse().unwrap(), 9999);
        assert_eq!(client.ask_signed(Request::permission(&[peer])).code(), code, "{ip}");
    }
}

#[test]
fn several_peers_are_permitted_together() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    let peers = [address(PUBLIC), address("8.8.8.8:1234")];
    assert_eq!(client.ask_signed(Request::permission(&peers)).code(), 0);
    server.await_metric("passerelle_turn_permissions", &[], 2.0);
}

#[test]
fn one_denied_peer_of_several_denies_all() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let (mut client, _) = Client::allocated(server.turn());
    let peers = [peer.address, address("10.0.0.1:9999")];
    assert_eq!(client.ask_signed(Request::permission(&peers)).code(), 403);
    client.send(Request::send(peer.address, b"not permitted").bytes());
    client.hears_nothing();
    server.await_metric("passerelle_relay_dropped_total", &[], 1.0);
    assert_eq!(peer.stop(), []);
}

#[test]
fn the_table_of_permissions_is_bounded() {
    let server = Server::start("[limits]\npermissions = 2");
    let (mut client, _) = Client::allocated(server.turn());
    let peers = ["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"].map(address);
    let codes = peers.map(|peer| client.ask_signed(Request::permission(&[peer])).code());
    assert_eq!(codes, [0, 0, 508]);
    // One that is there is only refreshed.
    assert_eq!(client.ask_signed(Request::permission(&peers[..1])).code(), 0);
}
