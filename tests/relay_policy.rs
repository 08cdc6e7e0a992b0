//! Whom the relay lets its clients reach: the defaults, the operator's lists, and this server's own sockets, each asked
//! of the program itself. A number in a name is that of the row in docs/security.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use stun::attributes::*;
use stun::message::*;
use support::server::{ALICE, BOB, LOOPBACK_PEERS};
use support::stun_client::IPV6;
use support::{Client, EchoPeer, Everywhere, Line, Request, Server, Transport, namespace};

/// A peer of the open Internet. Nothing is ever sent to it: a permission is only noted.
const PUBLIC: &str = "1.1.1.1:9999";
/// The server's address in a network of its own: nothing but the policy itself speaks for or against it.
const OWN: &str = "25.0.0.1";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn r1_special_ipv4_peers_are_denied_by_default() {
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
fn r6_no_list_opens_the_sockets_of_this_server() {
    let server = Everywhere::start(LOOPBACK_PEERS);
    let (mut client, relayed) = server.allocated(Transport::Udp);
    let own = [server.turn(), server.tcp[0], server.tls[0], server.http, server.metrics];
    for own in own {
        assert_eq!(client.ask_signed(Request::channel_bind(0x4001, own)).code(), 403, "{own}");
        // In disguise, too.
        let IpAddr::V4(v4) = own.ip() else { panic!() };
        let mapped = SocketAddr::new(v4.to_ipv6_mapped().into(), own.port());
        assert_ne!(client.ask_signed(Request::channel_bind(0x4001, mapped)).code(), 0, "{mapped}");
    }
    // A permission is for the address; the data still does not get to these ports.
    assert_eq!(client.ask_signed(Request::permission(&[server.turn()])).code(), 0);
    for own in own {
        client.send(Request::send(own, b"knock").bytes());
    }
    client.hears_nothing();
    let denied = [("direction", "to_peer"), ("reason", "peer_denied")];
    server.await_metric("passerelle_relay_dropped_total", &denied, 5.0);
    server.await_metric("passerelle_relay_packets_total", &[], 0.0);
    let (_other, other) = server.allocated(Transport::Udp);
    assert_ne!(relayed, other);
    assert_eq!(client.ask_signed(Request::channel_bind(0x4001, other)).code(), 0);
}

#[test]
fn r6_listeners_on_every_address_are_denied_on_every_address() {
    let server = Server::start(&format!(
        "[listen]\nudp = [\"0.0.0.0:0\"]\nmetrics = [\"0.0.0.0:0\"]\n{LOOPBACK_PEERS}"
    ));
    let (mut client, _) = Client::allocated(([127, 0, 0, 1], server.turn().port()).into());
    for port in [server.turn().port(), server.metrics.port()] {
        for ip in [[127, 0, 0, 1], [127, 0, 0, 7]] {
            let own = SocketAddr::from((ip, port));
            assert_eq!(client.ask_signed(Request::channel_bind(0x4001, own)).code(), 403, "{own}");
        }
    }
}

#[test]
fn r1_special_ipv6_peers_are_denied_by_default() {
    let server = Server::start("[relay]\naddresses = [\"::1\"]");
    let mut client = Client::new(server.turn());
    assert!(client.ask_signed(Request::allocate().family(IPV6)).relayed().is_ipv6());
    for ip in
        ["::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "100::1"]
    {
        let peer = SocketAddr::new(ip.parse().unwrap(), 9999);
        assert_eq!(client.ask_signed(Request::permission(&[peer])).code(), 403, "CreatePermission for {ip}");
        assert_eq!(client.ask_signed(Request::channel_bind(0x4001, peer)).code(), 403, "ChannelBind to {ip}");
    }
    assert_eq!(client.ask_signed(Request::permission(&[address("[2606:4700::1]:9")])).code(), 0);
}

#[test]
fn r11_low_ports_are_denied_to_channels_but_for_two() {
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

/// Every form in which an IPv6 address may carry an IPv4 one.
fn embeddings(v4: Ipv4Addr) -> Vec<Ipv6Addr> {
    let [a, b] = [(u32::from(v4) >> 16) as u16, u32::from(v4) as u16];
    let public = 0x0808;
    vec![
        v4.to_ipv6_mapped(),
        // IPv4-compatible; ::0 and ::1 are themselves.
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, a, b),
        // NAT64, well-known and local-use.
        Ipv6Addr::new(0x64, 0xFF9B, 0, 0, 0, 0, a, b),
        Ipv6Addr::new(0x64, 0xFF9B, 1, 0, 0, 0, a, b),
        // 6to4.
        Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1),
        // Teredo: its server, and its client, stored inverted.
        Ipv6Addr::new(0x2001, 0, a, b, 0, 0, !public, !public),
        Ipv6Addr::new(0x2001, 0, public, public, 0, 0, !a, !b),
        // ISATAP.
        Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0x5EFE, a, b),
        Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0x0200, 0x5EFE, a, b),
    ]
}

#[test]
fn r2_every_embedding_of_a_denied_ipv4_address_is_denied() {
    let server = Server::start("[relay]\naddresses = [\"::1\"]");
    let mut client = Client::new(server.turn());
    assert!(client.ask_signed(Request::allocate().family(IPV6)).relayed().is_ipv6());
    for v4 in [
        [127, 0, 0, 1],
        [10, 0, 0, 1],
        [169, 254, 169, 254],
        [192, 168, 1, 1],
        [100, 64, 0, 1],
        [224, 0, 0, 1],
    ] {
        for v6 in embeddings(v4.into()) {
            let peer = SocketAddr::new(v6.into(), 9999);
            assert_eq!(
                client.ask_signed(Request::permission(&[peer])).code(),
                403,
                "CreatePermission for {v6}"
            );
            assert_eq!(
                client.ask_signed(Request::channel_bind(0x4001, peer)).code(),
                403,
                "ChannelBind to {v6}"
            );
        }
    }
    server.await_metric("passerelle_turn_permissions", &[], 0.0);
    // Public addresses may be reached through NAT64.
    assert_eq!(client.ask_signed(Request::permission(&[address("[64:ff9b::808:808]:9")])).code(), 0);
}

#[test]
fn r4_a_network_that_cannot_be_read_stops_the_start() {
    for key in ["allow_peers", "deny_peers"] {
        for bad in [
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0-10.0.0.9",
            "10.0.0.0/8/8",
            "::1/129",
            "fe80::%eth0/64",
            "*",
            "",
            "10.0.0.0 /8",
            "localhost",
            "0x7f000001",
            "10.*",
            "256.0.0.1",
            "10.0.0.0/-1",
            "/8",
            "[::1]/128",
        ] {
            let told = Server::refused(&format!("[relay]\n{key} = [{bad:?}]"));
            assert!(told.contains(&format!("relay.{key}")), "{bad:?}: {told}");
        }
    }
}

#[test]
fn r5_cloud_metadata_is_opened_by_nothing_but_its_own_network() {
    let metadata = address("169.254.169.254:8000");
    for (list, code) in [("0.0.0.0/0", 403), ("128.0.0.0/1", 403), ("169.254.0.0/16", 0)] {
        let server = Server::start(&format!("[relay]\nallow_peers = [{list:?}]"));
        let (mut client, _) = Client::allocated(server.turn());
        assert_eq!(client.ask_signed(Request::channel_bind(0x4000, metadata)).code(), code, "{list}");
    }
}

/// A client at an address of this network.
fn client_at(ip: &str, server: SocketAddr) -> Client {
    Client::on(Line::udp_from(ip.parse().unwrap(), server))
}

/// A server that listens and relays at [`OWN`].
fn own(config: &str) -> Server {
    let own = format!(
        "[listen]\nudp = [\"{OWN}:0\"]\nhttp = [\"{OWN}:0\"]\nmetrics = [\"{OWN}:0\"]\n[relay]\naddresses = [\"{OWN}\"]\n"
    );
    Server::start_with(&[&own, config])
}

#[test]
fn r7_own_addresses_are_reached_at_live_relayed_ports_and_nowhere_else() {
    if !namespace::alone(
        "r7_own_addresses_are_reached_at_live_relayed_ports_and_nowhere_else",
        &["25.0.0.1/32", "25.1.0.1/32"],
    ) {
        return;
    }
    let server = own("");
    let mut one = client_at("25.1.0.1", server.turn());
    let mut two = client_at("25.1.0.1", server.turn()).with_user(BOB);
    let (here, there) = (one.allocate(), two.allocate());
    assert_eq!(one.ask_signed(Request::permission(&[there])).code(), 0);
    assert_eq!(two.ask_signed(Request::channel_bind(0x4000, here)).code(), 0);
    one.send(Request::send(there, b"hello").bytes());
    assert_eq!(two.receive_channel_data(), (0x4000, b"hello".to_vec()));
    two.send_channel_data(0x4000, b"and back");
    assert_eq!(one.receive_data(), (there, b"and back".to_vec()));
    // Its listeners, a port that no allocation has, and one that none has any more.
    assert_eq!(two.ask_signed(Request::refresh(0)).code(), 0);
    server.await_metric("passerelle_relay_ports_used", &[], 1.0);
    let secret = UdpSocket::bind((OWN, 0)).unwrap();
    for own in [server.turn(), server.http, server.metrics, secret.local_addr().unwrap(), there] {
        assert_eq!(one.ask_signed(Request::channel_bind(0x4001, own)).code(), 403, "{own}");
        one.send(Request::send(own, b"knock").bytes());
    }
    one.hears_nothing();
    secret.set_nonblocking(true).unwrap();
    assert!(secret.recv_from(&mut [0; 8]).is_err(), "a program on the server's own address was reached");
}

#[test]
fn one_to_one_nat_is_what_the_world_sees_of_the_relay() {
    if !namespace::alone(
        "one_to_one_nat_is_what_the_world_sees_of_the_relay",
        &["25.0.0.1/32", "25.1.0.1/32"],
    ) {
        return;
    }
    let server =
        own("[public.external_ips]\n\"25.0.0.1\" = \"26.0.0.7\"\n[relay]\nallow_peers = [\"25.1.0.0/16\"]");
    let mut one = client_at("25.1.0.1", server.turn());
    let mut two = client_at("25.1.0.1", server.turn());
    let (here, there) = (one.allocate(), two.allocate());
    for relayed in [here, there] {
        assert_eq!(relayed.ip(), IpAddr::from([26, 0, 0, 7]));
    }
    // A peer sees what this host sends from: the address in front of it is another box's matter.
    let peer = EchoPeer::start_on("25.1.0.1");
    assert_eq!(one.ask_signed(Request::permission(&[peer.address])).code(), 0);
    one.send(Request::send(peer.address, b"hello").bytes());
    assert_eq!(one.receive_data(), (peer.address, b"hello".to_vec()));
    assert_eq!(peer.stop(), [SocketAddr::new(OWN.parse().unwrap(), here.port())]);
    // Two clients behind the same box reach each other without leaving the host.
    assert_eq!(one.ask_signed(Request::permission(&[there])).code(), 0);
    assert_eq!(two.ask_signed(Request::channel_bind(0x4000, here)).code(), 0);
    one.send(Request::send(there, b"there").bytes());
    assert_eq!(two.receive_channel_data(), (0x4000, b"there".to_vec()));
    two.send_channel_data(0x4000, b"back");
    assert_eq!(one.receive_data(), (there, b"back".to_vec()));
    for own in ["26.0.0.7", OWN] {
        let listener = SocketAddr::new(own.parse().unwrap(), server.turn().port());
        assert_eq!(one.ask_signed(Request::channel_bind(0x4001, listener)).code(), 403, "{listener}");
    }
}

#[test]
fn several_relay_addresses_are_all_used() {
    let server = Server::start(
        "[relay]\naddresses = [\"127.0.0.1\", \"127.0.0.5\", \"127.0.0.6\"]\nallow_peers = [\"127.0.0.0/8\"]",
    );
    let peer = EchoPeer::start();
    let mut seen = std::collections::BTreeSet::new();
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = Client::new(server.turn());
        let relayed = client.allocate();
        assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
        client.send(Request::send(peer.address, b"from").bytes());
        assert_eq!(client.receive_data().1, b"from");
        seen.insert(relayed.ip());
        clients.push(client);
        if seen.len() == 3 {
            break;
        }
        // Ten allocations are what a user may have.
        if clients.len() == 10 {
            clients
                .drain(..)
                .for_each(|mut client| assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0));
        }
    }
    assert_eq!(seen.len(), 3, "only {seen:?} of three addresses were used");
    assert!(peer.stop().iter().all(|source| seen.contains(&source.ip())));
}

#[test]
fn r8_there_is_no_relay_over_tcp() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let tcp = Request::new(METHOD_ALLOCATE).with(ATTR_REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
    assert_eq!(client.ask_signed(tcp).code(), 442);
    client.allocate();
    // Connect of RFC 6062 is a method this server does not know.
    let connect = client.signed(Request::new(METHOD_CONNECT).peer(address(PUBLIC)));
    client.send(connect.bytes());
    client.hears_nothing();
}

#[test]
fn r9_every_way_to_a_peer_asks_the_policy() {
    let server = Server::start("[relay]\nallow_peers = [\"127.0.0.2/32\"]");
    let allowed = EchoPeer::start();
    let denied = UdpSocket::bind("127.0.0.3:0").unwrap();
    denied.set_nonblocking(true).unwrap();
    let peer = denied.local_addr().unwrap();
    let (mut client, relayed) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[peer])).code(), 403);
    assert_eq!(client.ask_signed(Request::permission(&[allowed.address, peer])).code(), 403);
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer)).code(), 403);
    client.send(Request::send(peer, b"by Send").bytes());
    client.send_channel_data(0x4000, b"by channel");
    // A port that is denied at an address that is permitted.
    assert_eq!(client.ask_signed(Request::permission(&[allowed.address])).code(), 0);
    for port in [0, 53, 1023] {
        client.send(Request::send(SocketAddr::new(allowed.address.ip(), port), b"to a low port").bytes());
    }
    client.hears_nothing();
    let labels = [("direction", "to_peer"), ("reason", "peer_denied")];
    server.await_metric("passerelle_relay_dropped_total", &labels, 3.0);
    assert!(denied.recv_from(&mut [0; 16]).is_err(), "a denied peer was reached");
    // And from it nothing comes back.
    denied.send_to(b"hello", relayed).unwrap();
    client.hears_nothing();
    assert_eq!(allowed.stop(), []);
}

#[test]
fn r10_credentials_are_given_to_nobody_without_a_token() {
    let server = Server::start("");
    let (status, body) = support::http_get::get(server.http, "/api/v1/ice-servers").unwrap();
    assert_eq!(status, 401, "{body}");
    assert!(!body.contains("credential\":"), "{body}");
}

#[test]
fn r11_reflectors_are_reached_neither_by_channel_nor_by_send() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[address(PUBLIC)])).code(), 0);
    let ports = [0, 1, 19, 53, 69, 123, 161, 389, 442, 444, 1023];
    for port in ports {
        let peer = SocketAddr::new(address(PUBLIC).ip(), port);
        assert_eq!(client.ask_signed(Request::channel_bind(0x4001, peer)).code(), 403, "port {port}");
        client.send(Request::send(peer, b"?").bytes());
    }
    client.hears_nothing();
    server.await_metric("passerelle_peer_denied_total", &[("rule", "port")], 2.0 * ports.len() as f64);
    server.await_metric("passerelle_relay_packets_total", &[], 0.0);
}

#[test]
fn r11_the_operator_names_the_low_ports() {
    let server = Server::start("[relay]\npeer_ports = [80]");
    let (mut client, _) = Client::allocated(server.turn());
    for (channel, (port, code)) in (0x4000..).zip([(443, 403), (3478, 0), (80, 0), (79, 403)]) {
        let peer = SocketAddr::new([1, 1, 1, 1].into(), port);
        assert_eq!(client.ask_signed(Request::channel_bind(channel, peer)).code(), code, "port {port}");
    }
}

#[test]
fn r12_a_private_network_is_opened_by_name_and_alone() {
    let server = Server::start("[relay]\nallow_peers = [\"192.168.7.0/24\"]");
    let (mut client, _) = Client::allocated(server.turn());
    for (ip, code) in [("192.168.7.1", 0), ("192.168.8.1", 403), ("10.0.0.1", 403), ("8.8.8.8", 0)] {
        let peer = SocketAddr::new(ip.parse().unwrap(), 9999);
        assert_eq!(client.ask_signed(Request::permission(&[peer])).code(), code, "{ip}");
    }
}

#[test]
fn a4_nothing_behind_the_integrity_is_obeyed() {
    let server = Server::start(LOOPBACK_PEERS);
    let (first, second) = (EchoPeer::start(), EchoPeer::start_on("127.0.0.3"));
    let (mut client, relayed) = Client::allocated(server.turn());
    let request = client.signed(Request::permission(&[first.address])).peer(second.address);
    assert_eq!(client.ask(&request).code(), 0);
    server.await_metric("passerelle_turn_permissions", &[], 1.0);
    client.send(Request::send(second.address, b"not permitted").bytes());
    client.hears_nothing();
    assert_eq!(second.stop(), []);
    // LIFETIME=0 that somebody appended does not end an allocation.
    let request = client.signed(Request::new(METHOD_REFRESH)).lifetime(0);
    assert_eq!(client.ask(&request).lifetime(), 600);
    client.send(Request::send(first.address, b"still there").bytes());
    assert_eq!(client.receive_data(), (first.address, b"still there".to_vec()));
    assert_eq!(first.stop(), [relayed]);
}

#[test]
fn a8_an_origin_chooses_nothing() {
    const ORIGIN: AttrType = AttrType(0x802F);
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let challenge = client.ask(&Request::allocate().with(ORIGIN, b"https://elsewhere.example"));
    assert_eq!(challenge.value(ATTR_REALM).as_deref(), Some(support::server::REALM.as_bytes()));
    let request = Request::allocate().with(ORIGIN, b"https://elsewhere.example");
    let answer = client.ask_signed(request);
    assert_eq!(answer.code(), 0);
    assert!(answer.is_signed_by(ALICE.0, ALICE.1));
}

#[test]
fn a9_an_access_token_is_an_unknown_attribute() {
    const ACCESS_TOKEN: AttrType = AttrType(0x001B);
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    for size in [0, 1, 100, 1200] {
        let token = vec![0xFF; size];
        assert_eq!(client.ask(&Request::allocate().with(ACCESS_TOKEN, &token)).code(), 401);
        let answer = client.ask_signed(Request::allocate().with(ACCESS_TOKEN, &token));
        assert_eq!((answer.code(), answer.unknown()), (420, vec![0x001B]));
    }
}

#[test]
fn f6_every_peer_of_a_permission_is_permitted_and_of_a_send_the_first_is_meant() {
    let server = Server::start(LOOPBACK_PEERS);
    let (first, second) = (EchoPeer::start(), EchoPeer::start_on("127.0.0.3"));
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[first.address, second.address])).code(), 0);
    for peer in [&first, &second] {
        client.send(Request::send(peer.address, b"to each").bytes());
        assert_eq!(client.receive_data(), (peer.address, b"to each".to_vec()));
    }
    client.send(Request::send(first.address, b"data").peer(second.address).bytes());
    assert_eq!(client.receive_data(), (first.address, b"data".to_vec()));
    assert_eq!((first.stop().len(), second.stop().len()), (2, 1));
}

#[test]
fn l7_a_peer_that_refuses_ends_no_reading() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let closed = UdpSocket::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
    let (mut client, relayed) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
    for _ in 0..50 {
        client.send(Request::send(closed, b"refused").bytes());
        client.send(Request::send(peer.address, b"heard").bytes());
        assert_eq!(client.receive_data_between_errors(), (peer.address, b"heard".to_vec()));
    }
    // A client that is gone refuses, too; its allocation and everybody else's go on.
    let late = UdpSocket::bind("127.0.0.2:0").unwrap();
    let (mut gone, its) = Client::allocated(server.turn());
    assert_eq!(gone.ask_signed(Request::permission(&[late.local_addr().unwrap()])).code(), 0);
    drop(gone);
    for _ in 0..50 {
        late.send_to(b"to nobody", its).unwrap();
        late.send_to(b"to somebody", relayed).unwrap();
        assert_eq!(
            client.receive_data_between_errors(),
            (late.local_addr().unwrap(), b"to somebody".to_vec())
        );
    }
}
