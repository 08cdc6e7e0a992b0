//! CreatePermission (RFC 8656 section 10) and the peer policy, whose defaults are safe.

use std::net::SocketAddr;

use stun::attributes::*;
use stun::message::*;

use crate::support::server::LOOPBACK_PEERS;
use crate::support::{Client, EchoPeer, Request, Server};

/// A peer of the open Internet. Nothing is ever sent to it: a permission is only noted.
const PUBLIC: &str = "1.1.1.1:9999";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Section 5: A CreatePermission on a 5-tuple without an allocation is answered with 437.
#[test]
fn l5_a_permission_without_an_allocation_is_a_mismatch() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[address(PUBLIC)])).code(), 437);
}

/// Section 10.2: A CreatePermission without XOR-PEER-ADDRESS, or with one that cannot be read, is answered with 400.
#[test]
fn a_permission_wants_a_peer_that_can_be_read() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[])).code(), 400);
    let short = Request::new(METHOD_CREATE_PERMISSION).with(ATTR_XOR_PEER_ADDRESS, &[0, 1, 0, 0]);
    assert_eq!(client.ask_signed(short).code(), 400);
}

/// Section 10.2: A peer whose family is not that of the relayed address is answered with 443.
#[test]
fn a_peer_of_the_other_family_is_refused() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[address("[2606:4700::1]:9")])).code(), 443);
}

/// Section 10.2: A valid CreatePermission installs or refreshes the permission of each peer, and succeeds.
#[test]
fn a_public_peer_is_permitted() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[address(PUBLIC)])).code(), 0);
    server.await_metric("passerelle_turn_permissions", &[], 1.0);
}

/// Section 10.2: A CreatePermission may name several peers.
#[test]
fn several_peers_are_permitted_together() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    let peers = [address(PUBLIC), address("8.8.8.8:1234")];
    assert_eq!(client.ask_signed(Request::permission(&peers)).code(), 0);
    server.await_metric("passerelle_turn_permissions", &[], 2.0);
}

/// Section 10.2: When one peer of several is refused, none is permitted; a peer denied by policy is answered with
/// 403.
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

/// Section 10.2: A permission for which there is no room is answered with 508.
#[test]
fn d6_the_table_of_permissions_is_bounded() {
    let server = Server::start("[limits]\npermissions = 2");
    let (mut client, _) = Client::allocated(server.turn());
    let peers = ["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"].map(address);
    let codes = peers.map(|peer| client.ask_signed(Request::permission(&[peer])).code());
    assert_eq!(codes, [0, 0, 508]);
    // One that is there is only refreshed.
    assert_eq!(client.ask_signed(Request::permission(&peers[..1])).code(), 0);
}
