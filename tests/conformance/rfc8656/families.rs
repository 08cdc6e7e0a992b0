//! Address families, even ports and their reservations.

use std::net::SocketAddr;

use stun::attributes::*;

use crate::support::stun_client::{ATTR_ADDITIONAL_ADDRESS_FAMILY, IPV4, IPV6};
use crate::support::{Answer, Client, EchoPeer, Everywhere, Line, Request, Server, Transport};

/// ADDRESS-ERROR-CODE, which the codec does not know.
const ATTR_ADDRESS_ERROR_CODE: AttrType = AttrType(0x8001);

/// Both families, on the UDP listener and for the peers.
const DUAL: &str = "[listen]\nudp = [\"127.0.0.1:0\", \"[::1]:0\"]\n[relay]\naddresses = [\"127.0.0.1\", \"::1\"]\n\
                    allow_peers = [\"127.0.0.0/8\", \"::1/128\"]\n";

fn both_families() -> Request {
    Request::allocate().with(ATTR_ADDITIONAL_ADDRESS_FAMILY, &[IPV6, 0, 0, 0])
}

/// Every XOR-RELAYED-ADDRESS of a success.
fn relayed(answer: &Answer) -> Vec<SocketAddr> {
    assert_eq!(answer.code(), 0);
    let first = answer.relayed();
    let mut rest = answer.clone();
    let at = rest.0.attributes.0.iter().position(|found| found.typ == ATTR_XOR_RELAYED_ADDRESS).unwrap();
    rest.0.attributes.0.remove(at);
    std::iter::once(first).chain(rest.address(ATTR_XOR_RELAYED_ADDRESS)).collect()
}

/// A client that holds both families, and its two relayed addresses.
fn dual(server: &Server) -> (Client, [SocketAddr; 2]) {
    let mut client = Client::new(server.udp[0]);
    let addresses = relayed(&client.ask_signed(both_families()));
    (client, addresses.try_into().expect("two relayed addresses"))
}

/// Section 7.2: With ADDITIONAL-ADDRESS-FAMILY an IPv4 and an IPv6 address are allocated, and both are told.
#[test]
fn both_families_are_allocated_together_and_relay_both() {
    let server = Server::start(DUAL);
    let (mut client, [v4, v6]) = dual(&server);
    assert!(v4.is_ipv4() && v6.is_ipv6());
    server.await_metric("passerelle_turn_allocations_created_total", &[], 1.0);
    server.await_metric("passerelle_relay_ports_used", &[], 2.0);
    for (ip, relayed) in [("127.0.0.2", v4), ("::1", v6)] {
        let peer = EchoPeer::start_on(ip);
        assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
        client.send(Request::send(peer.address, b"hello").bytes());
        assert_eq!(client.receive_data(), (peer.address, b"hello".to_vec()));
        assert_eq!(peer.stop(), [relayed]);
    }
}

/// Section 7.2: When one family of two cannot be served, the request succeeds with the other one, and
/// ADDRESS-ERROR-CODE tells which failed and why.
#[test]
fn a_family_that_is_missing_is_told_in_a_success() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let answer = client.ask_signed(both_families());
    assert_eq!(relayed(&answer).len(), 1);
    let value = answer.value(ATTR_ADDRESS_ERROR_CODE).expect("ADDRESS-ERROR-CODE");
    assert_eq!(value[..4], [IPV6, 0, 4, 40]);
    // Nothing of the kind where nothing was asked.
    assert_eq!(
        Client::new(server.turn()).ask_signed(Request::allocate()).value(ATTR_ADDRESS_ERROR_CODE),
        None
    );
}

/// Section 7.2: Without an attribute about families the relayed address is an IPv4 one, whatever the client's is.
#[test]
fn the_default_family_is_ipv4() {
    let server = Server::start(DUAL);
    for listener in &server.udp {
        let relayed = Client::new(*listener).ask_signed(Request::allocate()).relayed();
        assert!(relayed.is_ipv4(), "{relayed} for {listener}");
    }
}

/// Section 7.2: EVEN-PORT that reserves the next port, together with ADDITIONAL-ADDRESS-FAMILY, is answered with 400.
#[test]
fn a_reservation_and_an_additional_family_exclude_each_other() {
    let server = Server::start(DUAL);
    let mut client = Client::new(server.udp[0]);
    assert_eq!(client.ask_signed(both_families().with(ATTR_EVEN_PORT, &[0x80])).code(), 400);
    assert_eq!(relayed(&client.ask_signed(both_families().with(ATTR_EVEN_PORT, &[0]))).len(), 2);
}

/// Section 7.2: A value of the wrong length is a bad request.
#[test]
fn families_and_ports_that_cannot_be_read_are_bad_requests() {
    let server = Server::start(DUAL);
    let mut client = Client::new(server.udp[0]);
    for (kind, value) in [
        (ATTR_REQUESTED_ADDRESS_FAMILY, &[IPV4][..]),
        (ATTR_ADDITIONAL_ADDRESS_FAMILY, &[IPV6]),
        (ATTR_EVEN_PORT, &[]),
        (ATTR_RESERVATION_TOKEN, &[1; 7]),
        (ATTR_LIFETIME, &[0, 0]),
    ] {
        assert_eq!(
            client.ask_signed(Request::allocate().with(kind, value)).code(),
            400,
            "{kind} {value:02x?}"
        );
    }
}

/// Section 7.2: EVEN-PORT with its R bit reserves the next port, and RESERVATION-TOKEN gives it to whoever brings it,
/// once.
#[test]
fn a_token_gives_the_port_beside_the_even_one_once() {
    let server = Everywhere::start("");
    // Both transports and workers: the reservation is the process's.
    for transport in Transport::ALL {
        for _ in 0..4 {
            let mut first = server.client(transport);
            let answer = first.ask_signed(Request::allocate().with(ATTR_EVEN_PORT, &[0x80]));
            let rtp = answer.relayed();
            assert_eq!(rtp.port() % 2, 0);
            let token = answer.value(ATTR_RESERVATION_TOKEN).expect("RESERVATION-TOKEN");
            assert_eq!(token.len(), 8);
            let with_token = || Request::allocate().with(ATTR_RESERVATION_TOKEN, &token);
            let mut second = server.client(transport);
            assert_eq!(second.ask_signed(with_token().family(IPV4)).code(), 400);
            let answer = second.ask_signed(with_token());
            assert_eq!(answer.relayed(), SocketAddr::new(rtp.ip(), rtp.port() + 1));
            assert_eq!(server.client(transport).ask_signed(with_token()).code(), 508);
            for client in [&mut first, &mut second] {
                assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
            }
        }
    }
    server.await_metric("passerelle_relay_ports_used", &[], 0.0);
}

/// Section 8.1: Of two families one may be deleted alone; permissions and channels of the other are not affected.
#[test]
fn one_family_of_two_is_deleted_alone() {
    let server = Server::start(DUAL);
    for (gone, kept_ip, gone_ip) in [(IPV6, "127.0.0.2", "::1"), (IPV4, "::1", "127.0.0.2")] {
        let (mut client, _) = dual(&server);
        let (kept, lost) = (EchoPeer::start_on(kept_ip), EchoPeer::start_on(gone_ip));
        for (channel, peer) in [(0x4000, &kept), (0x4001, &lost)] {
            assert_eq!(client.ask_signed(Request::channel_bind(channel, peer.address)).code(), 0);
        }
        let answer = client.ask_signed(Request::refresh(0).family(gone));
        assert_eq!((answer.code(), answer.lifetime()), (0, 0));
        server.await_metric("passerelle_turn_channels", &[], 1.0);
        server.await_metric("passerelle_turn_permissions", &[], 1.0);
        server.await_metric("passerelle_relay_ports_used", &[], 1.0);
        client.send_channel_data(0x4001, b"nowhere");
        client.send_channel_data(0x4000, b"still there");
        assert_eq!(client.receive_channel_data(), (0x4000, b"still there".to_vec()));
        assert_eq!(lost.stop(), []);
        // The family is gone for whatever comes next.
        assert_eq!(client.ask_signed(Request::refresh(600).family(gone)).code(), 443);
        assert_eq!(client.ask_signed(Request::refresh(600)).code(), 0);
        assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
        server.await_metric("passerelle_turn_allocations", &[], 0.0);
        server.await_metric("passerelle_relay_ports_used", &[], 0.0);
    }
}

/// Section 8.1: A Refresh that names no family is about both of them.
#[test]
fn a_refresh_without_a_family_is_about_both() {
    let server = Server::start(DUAL);
    let (mut client, _) = dual(&server);
    assert_eq!(client.ask_signed(Request::refresh(1200)).lifetime(), 1200);
    for family in [IPV4, IPV6] {
        assert_eq!(client.ask_signed(Request::refresh(900).family(family)).lifetime(), 900);
    }
    assert_eq!(client.ask_signed(Request::refresh(0)).lifetime(), 0);
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
    server.await_metric("passerelle_relay_ports_used", &[], 0.0);
}

/// Section 2.1: The family of the client's transport and that of its relayed address do not depend on each other.
#[test]
fn every_family_and_transport_of_a_client_reaches_peers_of_every_family() {
    let listen = "[\"127.0.0.1:0\", \"[::1]:0\"]";
    let server = Everywhere::start(&DUAL.replacen("\n", &format!("\ntcp = {listen}\ntls = {listen}\n"), 1));
    for index in [0, 1] {
        for transport in Transport::ALL {
            for (family, ip) in [(IPV4, "127.0.0.2"), (IPV6, "::1")] {
                let line = match transport {
                    Transport::Udp => Line::udp(server.udp[index]),
                    Transport::Tcp => Line::tcp(server.tcp[index]),
                    Transport::Tls => Line::tls(server.tls[index], server.certificate.client(&[])),
                };
                let mut client = Client::on(line);
                let answer = client.ask_signed(Request::allocate().family(family));
                assert_eq!(answer.relayed().is_ipv6(), family == IPV6);
                assert_eq!(answer.address(ATTR_XORMAPPED_ADDRESS), Some(client.local()));
                let peer = EchoPeer::start_on(ip);
                assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
                client.send(Request::send(peer.address, b"by indication").bytes());
                assert_eq!(client.receive_data(), (peer.address, b"by indication".to_vec()));
                assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
                client.send_channel_data(0x4000, b"by channel");
                assert_eq!(client.receive_channel_data(), (0x4000, b"by channel".to_vec()));
                assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
            }
        }
    }
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
}
