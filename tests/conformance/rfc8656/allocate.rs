//! Allocate (RFC 8656 section 7).

use std::net::UdpSocket;
use std::time::Duration;

use stun::attributes::*;
use stun::message::*;

use crate::support::server::{BOB, SECRET};
use crate::support::stun_client::{ATTR_ADDITIONAL_ADDRESS_FAMILY, IPV4, IPV6, rest_credential};
use crate::support::{Client, Request, Server, eventually};

#[test]
fn an_allocation_names_its_relayed_address_lifetime_and_mapped_address() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let answer = client.ask_signed(Request::allocate());
    let relayed = answer.relayed();
    assert_eq!(relayed.ip(), server.turn().ip());
    assert!(relayed.port() >= 49152, "{relayed}");
    assert_eq!(answer.lifetime(), 600);
    assert_eq!(answer.address(ATTR_XORMAPPED_ADDRESS), Some(client.local()));
    server.await_metric("passerelle_turn_allocations", &[("transport", "udp")], 1.0);
    server.await_metric("passerelle_turn_allocations_created_total", &[], 1.0);
    server.await_metric("passerelle_relay_ports_used", &[], 1.0);
}

#[test]
fn the_transport_must_be_asked_for_and_be_udp() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    assert_eq!(client.ask_signed(Request::new(METHOD_ALLOCATE)).code(), 400);
    let tcp = Request::new(METHOD_ALLOCATE).with(ATTR_REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
    assert_eq!(client.ask_signed(tcp).code(), 442);
}

#[test]
fn an_unknown_required_attribute_is_named_in_a_420() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let answer = client.ask_signed(Request::allocate().with(AttrType(0x7F01), b"what"));
    assert_eq!(answer.code(), 420);
    assert_eq!(answer.unknown(), [0x7F01]);
}

#[test]
fn the_lifetime_is_at_least_the_default_and_at_most_the_maximum() {
    let server = Server::start("");
    for (asked, granted) in [(5, 600), (600, 600), (1200, 1200), (3600, 3600), (u32::MAX, 3600)] {
        let mut client = Client::new(server.turn());
        assert_eq!(
            client.ask_signed(Request::allocate().lifetime(asked)).lifetime(),
            granted,
            "asked {asked}"
        );
    }
}

#[test]
fn a_retransmitted_allocate_gets_the_same_success_again() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let request = client.signed(Request::allocate());
    let first = client.ask(&request);
    let again = client.ask(&request);
    assert_eq!(first.relayed(), again.relayed());
    assert_eq!(first.lifetime(), again.lifetime());
    server.await_metric("passerelle_turn_allocations_created_total", &[], 1.0);
}

#[test]
fn a_second_allocate_on_the_same_five_tuple_is_a_mismatch() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::allocate()).code(), 437);
}

#[test]
fn a_family_that_is_not_offered_is_refused() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    assert_eq!(client.ask_signed(Request::allocate().family(IPV6)).code(), 440);
    assert_eq!(client.ask_signed(Request::allocate().family(9)).code(), 440);
    assert!(client.ask_signed(Request::allocate().family(IPV4)).relayed().is_ipv4());
}

#[test]
fn a_client_may_ask_for_either_family() {
    let server = Server::start("[relay]\naddresses = [\"127.0.0.1\", \"::1\"]");
    for (family, is_ipv6) in [(IPV4, false), (IPV6, true)] {
        let mut client = Client::new(server.turn());
        assert_eq!(client.ask_signed(Request::allocate().family(family)).relayed().is_ipv6(), is_ipv6);
    }
    server.await_metric("passerelle_turn_allocations", &[("family", "ipv4")], 1.0);
    server.await_metric("passerelle_turn_allocations", &[("family", "ipv6")], 1.0);
}

#[test]
fn two_ways_of_asking_for_a_family_exclude_each_other() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let both = Request::allocate().family(IPV4).with(ATTR_ADDITIONAL_ADDRESS_FAMILY, &[IPV6, 0, 0, 0]);
    assert_eq!(client.ask_signed(both).code(), 400);
    let not_ipv6 = Request::allocate().with(ATTR_ADDITIONAL_ADDRESS_FAMILY, &[IPV4, 0, 0, 0]);
    assert_eq!(client.ask_signed(not_ipv6).code(), 400);
}

#[test]
fn an_even_port_and_a_token_exclude_each_other() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let both = Request::allocate().with(ATTR_EVEN_PORT, &[0x80]).with(ATTR_RESERVATION_TOKEN, &[1; 8]);
    assert_eq!(client.ask_signed(both).code(), 400);
    let unknown = Request::allocate().with(ATTR_RESERVATION_TOKEN, &[1; 8]);
    assert_eq!(client.ask_signed(unknown).code(), 508);
}

#[test]
fn an_even_port_is_even() {
    let server = Server::start("");
    for _ in 0..8 {
        let mut client = Client::new(server.turn());
        let relayed = client.ask_signed(Request::allocate().with(ATTR_EVEN_PORT, &[0])).relayed();
        assert_eq!(relayed.port() % 2, 0, "{relayed}");
    }
}

#[test]
fn a_user_has_a_quota_that_others_do_not_share() {
    let server = Server::start("[limits]\nallocations_per_user = 2");
    let mut clients: Vec<Client> = (0..3).map(|_| Client::new(server.turn())).collect();
    let codes = clients.iter_mut().map(|client| client.ask_signed(Request::allocate()).code());
    assert_eq!(codes.collect::<Vec<_>>(), [0, 0, 486]);
    assert_eq!(Client::new(server.turn()).with_user(BOB).ask_signed(Request::allocate()).code(), 0);
    assert_eq!(clients[0].ask_signed(Request::refresh(0)).code(), 0);
    assert_eq!(clients[2].ask_signed(Request::allocate()).code(), 0);
}

#[test]
fn the_quota_counts_the_user_and_not_the_timestamped_name() {
    let server = Server::start("[limits]\nallocations_per_user = 2");
    let codes = (1..=3).map(|hours| {
        let (name, password) = rest_credential("carol", SECRET, Duration::from_secs(3600 * hours));
        Client::new(server.turn()).with_user((&name, &password)).ask_signed(Request::allocate()).code()
    });
    assert_eq!(codes.collect::<Vec<_>>(), [0, 0, 486]);
}

#[test]
fn an_address_has_a_quota() {
    let server = Server::start("[limits]\nallocations_per_ip = 2");
    let users = [crate::support::server::ALICE, BOB, BOB];
    let mut clients = users.map(|user| Client::new(server.turn()).with_user(user));
    assert_eq!(clients.each_mut().map(|client| client.ask_signed(Request::allocate()).code()), [0, 0, 486]);
}

/// An address of its own and two neighbouring ports on it that nobody uses: other tests cannot take them.
fn two_free_ports(host: &str) -> (u16, u16) {
    eventually("two free ports side by side", || {
        let first = UdpSocket::bind((host, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        UdpSocket::bind((host, port.checked_add(1)?)).ok()?;
        Some((port, port + 1))
    })
}

#[test]
fn an_empty_port_pool_is_a_508_and_a_freed_port_is_used_again() {
    let (first, last) = two_free_ports("127.0.0.77");
    let server = Server::start(&format!(
        "[relay]\naddresses = [\"127.0.0.77\"]\nports = \"{first}-{last}\"\nworkers = 1"
    ));
    let mut clients: Vec<Client> = (0..3).map(|_| Client::new(server.turn())).collect();
    let codes = clients.iter_mut().map(|client| client.ask_signed(Request::allocate()).code());
    assert_eq!(codes.collect::<Vec<_>>(), [0, 0, 508]);
    server.await_metric("passerelle_relay_ports_used", &[], 2.0);
    server.await_metric("passerelle_relay_ports_capacity", &[], 2.0);
    assert_eq!(clients[1].ask_signed(Request::refresh(0)).code(), 0);
    let relayed = clients[2].ask_signed(Request::allocate()).relayed();
    assert!((first..=last).contains(&relayed.port()));
}

#[test]
fn a_draining_server_serves_what_it_has_and_takes_nothing_new() {
    let server = Server::start("[drain]\ntimeout = \"60s\"");
    let (mut client, _) = Client::allocated(server.turn());
    server.signal("TERM");
    eventually("new allocations are refused", || {
        let mut late = Client::new(server.turn()).with_user(BOB);
        let code = late.ask_signed(Request::allocate()).code();
        if code == 0 {
            late.ask_signed(Request::refresh(0));
            return None;
        }
        assert_eq!(code, 508);
        Some(())
    });
    assert_eq!(client.ask_signed(Request::refresh(600)).code(), 0);
    assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
    server.stopped();
}
