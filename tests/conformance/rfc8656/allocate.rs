//! Allocate (RFC 8656 section 7).

use std::net::UdpSocket;

use stun::attributes::*;
use stun::message::*;

use crate::support::server::BOB;
use crate::support::stun_client::{ATTR_ADDITIONAL_ADDRESS_FAMILY, IPV4, IPV6};
use crate::support::{Client, Everywhere, Request, Server, Transport, eventually};

/// Section 7.2: A success carries XOR-RELAYED-ADDRESS, LIFETIME and XOR-MAPPED-ADDRESS; ports come from 49152 to
/// 65535.
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

/// Section 7.2: A missing REQUESTED-TRANSPORT is answered with 400, another transport than UDP with 442.
#[test]
fn the_transport_must_be_asked_for_and_be_udp() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    assert_eq!(client.ask_signed(Request::new(METHOD_ALLOCATE)).code(), 400);
    let tcp = Request::new(METHOD_ALLOCATE).with(ATTR_REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
    assert_eq!(client.ask_signed(tcp).code(), 442);
}

/// Section 7.2: An attribute that is not understood is answered with 420 as by STUN.
#[test]
fn an_unknown_required_attribute_is_named_in_a_420() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let answer = client.ask_signed(Request::allocate().with(AttrType(0x7F01), b"what"));
    assert_eq!(answer.code(), 420);
    assert_eq!(answer.unknown(), [0x7F01]);
}

/// Section 7.2: The lifetime is the larger of the default and the smaller of what was asked and the maximum.
#[test]
fn l6_the_lifetime_is_at_least_the_default_and_at_most_the_maximum() {
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

/// Section 7.2: A retransmission of the request that made an allocation gets the same success response.
#[test]
fn l4_a_retransmitted_allocate_gets_the_same_success_again() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let request = client.signed(Request::allocate());
    let first = client.ask(&request);
    let again = client.ask(&request);
    assert_eq!(first.relayed(), again.relayed());
    assert_eq!(first.lifetime(), again.lifetime());
    server.await_metric("passerelle_turn_allocations_created_total", &[], 1.0);
}

/// Section 7.2: An Allocate on a 5-tuple that has an allocation is answered with 437.
#[test]
fn l4_a_second_allocate_on_the_same_five_tuple_is_a_mismatch() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::allocate()).code(), 437);
}

/// Section 7.2: An address family that the server does not offer is answered with 440.
#[test]
fn a_family_that_is_not_offered_is_refused() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    assert_eq!(client.ask_signed(Request::allocate().family(IPV6)).code(), 440);
    assert_eq!(client.ask_signed(Request::allocate().family(9)).code(), 440);
    assert!(client.ask_signed(Request::allocate().family(IPV4)).relayed().is_ipv4());
}

/// Section 7.2: REQUESTED-ADDRESS-FAMILY chooses the family of the relayed address.
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

/// Section 7.2: REQUESTED- together with ADDITIONAL-ADDRESS-FAMILY, and an ADDITIONAL-ADDRESS-FAMILY other than IPv6,
/// are answered with 400.
#[test]
fn two_ways_of_asking_for_a_family_exclude_each_other() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let both = Request::allocate().family(IPV4).with(ATTR_ADDITIONAL_ADDRESS_FAMILY, &[IPV6, 0, 0, 0]);
    assert_eq!(client.ask_signed(both).code(), 400);
    let not_ipv6 = Request::allocate().with(ATTR_ADDITIONAL_ADDRESS_FAMILY, &[IPV4, 0, 0, 0]);
    assert_eq!(client.ask_signed(not_ipv6).code(), 400);
}

/// Section 7.2: EVEN-PORT together with RESERVATION-TOKEN is answered with 400, an unknown token with 508.
#[test]
fn an_even_port_and_a_token_exclude_each_other() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let both = Request::allocate().with(ATTR_EVEN_PORT, &[0x80]).with(ATTR_RESERVATION_TOKEN, &[1; 8]);
    assert_eq!(client.ask_signed(both).code(), 400);
    let unknown = Request::allocate().with(ATTR_RESERVATION_TOKEN, &[1; 8]);
    assert_eq!(client.ask_signed(unknown).code(), 508);
}

/// Section 7.2: EVEN-PORT gives a relayed address with an even port.
#[test]
fn an_even_port_is_even() {
    let server = Server::start("");
    for _ in 0..8 {
        let mut client = Client::new(server.turn());
        let relayed = client.ask_signed(Request::allocate().with(ATTR_EVEN_PORT, &[0])).relayed();
        assert_eq!(relayed.port() % 2, 0, "{relayed}");
    }
}

/// Section 7.2: A client that has reached its quota is answered with 486.
#[test]
fn d4_a_user_has_a_quota_that_others_do_not_share() {
    let server = Server::start("[limits]\nallocations_per_user = 2");
    let mut clients: Vec<Client> = (0..3).map(|_| Client::new(server.turn())).collect();
    let codes = clients.iter_mut().map(|client| client.ask_signed(Request::allocate()).code());
    assert_eq!(codes.collect::<Vec<_>>(), [0, 0, 486]);
    assert_eq!(Client::new(server.turn()).with_user(BOB).ask_signed(Request::allocate()).code(), 0);
    assert_eq!(clients[0].ask_signed(Request::refresh(0)).code(), 0);
    assert_eq!(clients[2].ask_signed(Request::allocate()).code(), 0);
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

/// Section 7.2: When no relayed address can be had, the answer is 508.
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

/// Section 7.2: A server that wants no new allocation refuses it and goes on to serve those it has.
#[test]
fn l2_a_draining_server_serves_what_it_has_and_takes_nothing_new() {
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

/// Section 7.2: DONT-FRAGMENT is accepted where the platform can set the bit, and it can here.
#[test]
fn dont_fragment_is_accepted() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    assert_eq!(client.ask_signed(Request::allocate().with(ATTR_DONT_FRAGMENT, &[])).code(), 0);
}

/// Section 7.2: A server may redirect a client with 300 and ALTERNATE-SERVER, which the integrity protects.
#[test]
fn a_draining_server_names_its_alternate() {
    let server =
        Server::start("[turn]\nalternate_server = \"198.51.100.8:3478\"\n[drain]\ntimeout = \"60s\"");
    let (mut client, _) = Client::allocated(server.turn());
    server.signal("TERM");
    eventually("new allocations are sent elsewhere", || {
        let mut late = Client::new(server.turn()).with_user(BOB);
        let answer = late.ask_signed(Request::allocate());
        if answer.code() == 0 {
            late.ask_signed(Request::refresh(0));
            return None;
        }
        assert_eq!(answer.code(), 300);
        // Not XORed (RFC 8489 section 14.15): reserved, family, port, address.
        assert_eq!(answer.value(ATTR_ALTERNATE_SERVER), Some(vec![0, 1, 13, 150, 198, 51, 100, 8]));
        assert!(answer.is_signed_by(BOB.0, BOB.1));
        Some(())
    });
    assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
    server.stopped();
}

/// Section 7.2: A LIFETIME that is absent means the default.
#[test]
fn every_transport_gets_an_allocation_of_ten_minutes() {
    let server = Everywhere::start("");
    for transport in Transport::ALL {
        let mut client = server.client(transport);
        let request = client.signed(Request::allocate());
        let first = client.ask(&request);
        assert_eq!(first.lifetime(), 600);
        assert_eq!(client.ask(&request).0.raw, first.0.raw, "a retransmission over {transport:?}");
        assert_eq!(client.ask_signed(Request::allocate()).code(), 437);
        server.await_metric("passerelle_turn_allocations", &[("transport", transport.label())], 1.0);
    }
}
