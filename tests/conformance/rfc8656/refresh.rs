//! Refresh (RFC 8656 section 8).

use crate::support::stun_client::{IPV4, IPV6};
use crate::support::{Client, Request, Server};

/// Section 5: A request on a 5-tuple without an allocation is answered with 437.
#[test]
fn l5_a_refresh_without_an_allocation_is_a_mismatch() {
    let server = Server::start("");
    assert_eq!(Client::new(server.turn()).ask_signed(Request::refresh(600)).code(), 437);
}

/// Section 8.2: The lifetime of a Refresh is computed as that of an Allocate.
#[test]
fn a_refresh_grants_as_allocate_does() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    for (asked, granted) in [(5, 600), (1200, 1200), (u32::MAX, 3600)] {
        assert_eq!(client.ask_signed(Request::refresh(asked)).lifetime(), granted, "asked {asked}");
    }
}

/// Section 8.2: A lifetime of zero deletes the allocation, and succeeds.
#[test]
fn a_refresh_with_lifetime_zero_frees_at_once() {
    let server = Server::start("");
    let (mut client, first) = Client::allocated(server.turn());
    let answer = client.ask_signed(Request::refresh(0));
    assert_eq!(answer.code(), 0);
    assert_eq!(answer.lifetime(), 0);
    assert_eq!(client.ask_signed(Request::refresh(600)).code(), 437);
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
    server.await_metric("passerelle_turn_allocations_ended_total", &[], 1.0);
    server.await_metric("passerelle_relay_ports_used", &[], 0.0);
    // The socket is gone too: its port can be bound again.
    crate::support::eventually("the relayed port is free", || std::net::UdpSocket::bind(first).ok());
    client.ask_signed(Request::allocate()).relayed();
}

/// Section 8.2: A REQUESTED-ADDRESS-FAMILY that the allocation does not have is answered with 443.
#[test]
fn a_refresh_of_another_family_is_refused() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::refresh(600).family(IPV6)).code(), 443);
    assert_eq!(client.ask_signed(Request::refresh(0).family(IPV6)).code(), 443);
    assert_eq!(client.ask_signed(Request::refresh(600).family(IPV4)).code(), 0);
}
