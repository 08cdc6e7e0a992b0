//! Clients over TCP and TLS: who is let in and for how long, load balancers in front, certificates that change, and
//! clients that do not read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use proxy_header::{ProxiedAddress, ProxyHeader};
use stun::attributes::*;
use stun::message::*;
use support::server::LOOPBACK_PEERS;
use support::{Client, EchoPeer, Everywhere, Line, PATIENCE, Request, Transport, eventually};

const REFUSED: &str = "passerelle_turn_connections_refused_total";
const CONNECTIONS: &str = "passerelle_turn_connections";

/// A TCP connection from an address of this host: loopback has many.
fn connect_from(ip: [u8; 4], server: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    socket.into()
}

/// Asserts that the server closes a connection.
#[track_caller]
fn is_closed(mut socket: TcpStream) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    let end = socket.read_to_end(&mut rest);
    let timed_out = end.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "the connection is still open after {PATIENCE:?}");
}

#[test]
fn every_listener_of_both_families_serves_its_transport() {
    let listen = "[\"127.0.0.1:0\", \"[::1]:0\"]";
    let server = Everywhere::start(&format!("[listen]\ntcp = {listen}\ntls = {listen}\n{LOOPBACK_PEERS}"));
    for index in [0, 1] {
        let lines = [
            Line::tcp(server.tcp[index]),
            Line::tls(server.tls[index], server.certificate.client(&[b"stun.turn"])),
        ];
        for line in lines {
            let mut client = Client::on(line);
            let peer = EchoPeer::start();
            client.allocate();
            assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
            client.send_channel_data(0x4000, b"hello");
            assert_eq!(client.receive_channel_data(), (0x4000, b"hello".to_vec()));
        }
    }
    server.await_metric("passerelle_turn_allocations_created_total", &[], 4.0);
    // The connections are gone by now, and with each its allocation.
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
    server.await_metric("passerelle_turn_allocations_ended_total", &[("reason", "disconnected")], 4.0);
    server.await_metric(CONNECTIONS, &[], 0.0);
    server.stop();
}

/// What a load balancer at 127.0.0.9 says before anything else.
fn header(version: u8, client: &str) -> Vec<u8> {
    let server = if client.starts_with('[') { "[2600::2]:3478" } else { "8.8.8.8:3478" };
    let addresses = ProxiedAddress::stream(client.parse().unwrap(), server.parse().unwrap());
    let header = ProxyHeader::with_address(addresses);
    let mut bytes = Vec::new();
    match version {
        1 => header.encode_v1(&mut bytes).unwrap(),
        _ => header.encode_v2(&mut bytes).unwrap(),
    };
    bytes
}

const PROXIED: &str = "[listen]\nproxy_protocol_from = [\"127.0.0.9/32\"]\n";
const BALANCER: [u8; 4] = [127, 0, 0, 9];

/// Connects as the load balancer, sends `header`, and goes on as its client.
fn through_balancer(server: &Everywhere, transport: Transport, header: &[u8]) -> Client {
    let address = if transport == Transport::Tls { server.tls[0] } else { server.tcp[0] };
    let mut socket = connect_from(BALANCER, address);
    socket.write_all(header).unwrap();
    Client::on(match transport {
        Transport::Tls => Line::encrypted(socket, server.certificate.client(&[b"stun.turn"])),
        _ => Line::over(socket),
    })
}

#[test]
fn a_load_balancer_tells_who_the_client_is_also_in_front_of_tls() {
    let server = Everywhere::start(PROXIED);
    for transport in Transport::STREAMS {
        for version in [1, 2] {
            for told in ["9.9.9.9:1234", "[2600::1]:1234"] {
                let mut client = through_balancer(&server, transport, &header(version, told));
                let answer = client.ask(&Request::new(METHOD_BINDING));
                assert_eq!(answer.address(ATTR_XORMAPPED_ADDRESS), Some(told.parse().unwrap()));
                client.allocate();
            }
        }
        // A health check of its own.
        let client = through_balancer(&server, transport, b"PROXY UNKNOWN\r\n");
        let answer = client.ask(&Request::new(METHOD_BINDING));
        assert_eq!(answer.address(ATTR_XORMAPPED_ADDRESS), Some(client.local()));
    }
}

#[test]
fn a_header_in_pieces_is_read_and_what_follows_it_is_the_client_s() {
    let server = Everywhere::start(PROXIED);
    for version in [1, 2] {
        let request = Request::new(METHOD_BINDING);
        let bytes = [&header(version, "9.9.9.9:1234")[..], request.bytes()].concat();
        let mut socket = connect_from(BALANCER, server.tcp[0]);
        socket.set_nodelay(true).unwrap();
        for byte in &bytes {
            socket.write_all(&[*byte]).unwrap();
        }
        let client = Client::on(Line::over(socket));
        assert_eq!(client.receive()[8..20], request.transaction());
    }
}

#[test]
fn a_missing_or_malformed_header_of_a_load_balancer_is_refused() {
    let server = Everywhere::start(PROXIED);
    let mut too_long = header(2, "9.9.9.9:1234");
    too_long[14..16].copy_from_slice(&[0xFF, 0xFF]);
    let mut unknown_version = header(2, "9.9.9.9:1234");
    unknown_version[12] = 0x31;
    let cases = [
        Request::new(METHOD_BINDING).bytes().to_vec(),
        b"PROXY TCP4 9.9.9.9 8.8.8.8 70000 1\r\n".to_vec(),
        b"PROXY TCP4 nonsense\r\n".to_vec(),
        format!("PROXY TCP4 {}\r\n", "9".repeat(200)).into_bytes(),
        too_long,
        unknown_version,
    ];
    let mut refused = 0.0;
    for address in [server.tcp[0], server.tls[0]] {
        for bytes in &cases {
            let mut socket = connect_from(BALANCER, address);
            socket.write_all(bytes).unwrap();
            is_closed(socket);
            refused += 1.0;
            server.await_metric(REFUSED, &[("reason", "proxy")], refused);
        }
    }
}

#[test]
fn a_header_of_anybody_else_is_no_header() {
    let server = Everywhere::start(PROXIED);
    for version in [1, 2] {
        let mut socket = connect_from([127, 0, 0, 8], server.tcp[0]);
        let bytes = [&header(version, "9.9.9.9:1234")[..], Request::new(METHOD_BINDING).bytes()].concat();
        socket.write_all(&bytes).unwrap();
        // Version 2 cannot be a message; version 1 is one that never ends before the patience with strangers does.
        if version == 2 {
            is_closed(socket);
        } else {
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            assert!(!matches!(socket.read(&mut [0; 64]), Ok(1..)), "a header of a stranger was believed");
        }
    }
    let client = server.client(Transport::Tcp);
    let answer = client.ask(&Request::new(METHOD_BINDING));
    assert_eq!(answer.address(ATTR_XORMAPPED_ADDRESS), Some(client.local()));
}

#[test]
fn quotas_count_the_client_behind_the_load_balancer() {
    let server = Everywhere::start(&format!("{PROXIED}[limits]\nallocations_per_ip = 1\n"));
    let mut first = through_balancer(&server, Transport::Tcp, &header(2, "9.9.9.9:1"));
    let mut same = through_balancer(&server, Transport::Tcp, &header(2, "9.9.9.9:2"));
    let mut other = through_balancer(&server, Transport::Tls, &header(1, "9.9.9.8:1"));
    let codes =
        [&mut first, &mut same, &mut other].map(|client| client.ask_signed(Request::allocate()).code());
    assert_eq!(codes, [0, 486, 0]);
}

/// Limits short enough for a test.
const HASTY: &str = "[limits]\nfirst_byte_timeout = \"1s\"\nunauthenticated_timeout = \"2s\"\n";

#[test]
fn d8_whoever_is_silent_or_slow_before_a_first_message_is_closed() {
    let server = Everywhere::start(HASTY);
    for (address, start) in
        [(server.tcp[0], &b""[..]), (server.tls[0], b""), (server.tls[0], b"\x16\x03\x01")]
    {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(start).unwrap();
        is_closed(socket);
    }
    server.await_metric(REFUSED, &[("reason", "timeout")], 3.0);
}

#[test]
fn d8_whoever_has_no_allocation_in_time_is_closed_and_those_who_have_one_are_not() {
    let server = Everywhere::start(HASTY);
    let mut kept: Vec<Client> = Transport::STREAMS.map(|transport| server.client(transport)).into();
    kept.iter_mut().for_each(|client| {
        client.allocate();
    });
    for transport in Transport::STREAMS {
        let talker = server.client(transport);
        // Half a message, and then a byte now and then: drips do not buy time.
        let dripping = server.client(transport);
        let request = Request::new(METHOD_BINDING).with(ATTR_SOFTWARE, &[b'x'; 400]);
        let deadline = Instant::now() + PATIENCE;
        for byte in request.bytes() {
            let open = talker.line().try_send(Request::new(METHOD_BINDING).bytes());
            let dripped = dripping.line().try_send(&[*byte]);
            if !open && !dripped {
                break;
            }
            assert!(Instant::now() < deadline, "still open");
            std::thread::sleep(Duration::from_millis(50));
        }
        talker.line().is_closed();
        dripping.line().is_closed();
    }
    server.await_metric(REFUSED, &[("reason", "unauthenticated")], 4.0);
    for client in &mut kept {
        assert_eq!(client.ask_signed(Request::refresh(600)).code(), 0);
    }
    // Whoever gives its allocation up is a stranger again.
    for client in &mut kept {
        assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
        client.line().is_closed();
    }
}

#[test]
fn d8_a_stranger_cannot_make_the_server_keep_what_it_sends() {
    let server = Everywhere::start("");
    for transport in Transport::STREAMS {
        let client = server.client(transport);
        // ChannelData of 65,535 bytes that nobody without an allocation may send.
        client.send(&[0x40, 0, 0xFF, 0xFF]);
        let piece = [0; 1024];
        let sent = (0..64).take_while(|_| client.line().try_send(&piece)).count();
        client.line().is_closed();
        assert!(sent <= 64);
    }
    server.await_metric(REFUSED, &[("reason", "framing")], 2.0);
}

#[test]
fn d8_an_address_may_hold_so_many_strangers_and_as_many_clients_as_it_likes() {
    let server = Everywhere::start("[limits]\nconnections_per_ip = 3\n");
    // Clients with an allocation do not count.
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = server.client(Transport::Tcp);
        client.allocate();
        clients.push(client);
    }
    let strangers: Vec<Client> = (0..3).map(|_| server.client(Transport::Tcp)).collect();
    for stranger in &strangers {
        assert_eq!(stranger.ask(&Request::new(METHOD_BINDING)).code(), 0);
    }
    is_closed(TcpStream::connect(server.tcp[0]).unwrap());
    is_closed(TcpStream::connect(server.tls[0]).unwrap());
    server.await_metric(REFUSED, &[("reason", "too_many")], 2.0);
    // Another address is not concerned, and room is made by those who leave.
    let elsewhere = Client::on(Line::over(connect_from([127, 0, 0, 8], server.tcp[0])));
    assert_eq!(elsewhere.ask(&Request::new(METHOD_BINDING)).code(), 0);
    drop(strangers);
    eventually("room for a stranger", || {
        let socket = TcpStream::connect(server.tcp[0]).unwrap();
        let line = Line::over(socket);
        line.try_send(Request::new(METHOD_BINDING).bytes());
        line.receive_within(Duration::from_secs(1))
    });
}

#[test]
fn d8_a_client_that_does_not_read_loses_media_and_keeps_its_answers() {
    let server = Everywhere::start(&format!("[limits]\nstream_queue = 65536\n{LOOPBACK_PEERS}"));
    for transport in Transport::STREAMS {
        let peer = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
        let (mut client, relayed) = server.allocated(transport);
        let bind = Request::channel_bind(0x4000, peer.local_addr().unwrap());
        assert_eq!(client.ask_signed(bind).code(), 0);
        let before = server.resident_kib();
        let dropped = |server: &Everywhere| {
            let labels = [("direction", "to_client"), ("reason", "send_buffer")];
            server.scrape().sum("passerelle_relay_dropped_total", &labels)
        };
        let (start, deadline) = (dropped(&server), Instant::now() + PATIENCE);
        // More than all buffers between here and there can hold.
        let mut sent = 0u64;
        while dropped(&server) < start + 5000.0 {
            for _ in 0..500 {
                peer.send_to(&[7; 1200], relayed).unwrap();
                sent += 1;
            }
            assert!(Instant::now() < deadline, "nothing is dropped after {sent} datagrams");
        }
        let grown = server.resident_kib().saturating_sub(before);
        assert!(grown < 4096, "{grown} KiB more for one slow client");
        // An answer that is asked for now stands behind the media, and comes.
        let refresh = client.signed(Request::refresh(600));
        client.send(refresh.bytes());
        let mut media = 0;
        loop {
            let message = client.receive();
            if message[0] != 0x40 {
                assert_eq!(message[8..20], refresh.transaction());
                break;
            }
            media += 1;
        }
        assert!(media < sent);
        // And what comes from now on is relayed again.
        peer.send_to(b"again", relayed).unwrap();
        assert_eq!(client.receive_channel_data(), (0x4000, b"again".to_vec()));
    }
}

#[test]
fn a_new_certificate_is_used_and_connections_stay() {
    let server = Everywhere::start("");
    let (mut old, _) = server.allocated(Transport::Tls);
    let first = server.certificate.der();
    let expiry = || server.scrape().sum("passerelle_tls_certificate_expiry_timestamp_seconds", &[]);
    assert!(expiry() > 1.0e9);
    for _ in 0..3 {
        server.certificate.renew();
        assert_ne!(server.certificate.der(), first);
        // A client that trusts the new one alone.
        eventually("the new certificate is shown", || {
            let mut client = server.certificate.client(&[b"stun.turn"]);
            let mut socket = TcpStream::connect(server.tls[0]).unwrap();
            while client.is_handshaking() {
                client.complete_io(&mut socket).ok()?;
            }
            Some(())
        });
        assert_eq!(old.ask_signed(Request::refresh(600)).code(), 0);
    }
    // The expiry follows the certificate.
    let names = vec!["localhost".to_owned()];
    let mut parameters = rcgen::CertificateParams::new(names).unwrap();
    parameters.not_after = rcgen::date_time_ymd(2099, 1, 2);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = parameters.self_signed(&key).unwrap();
    server.certificate.write(&cert.pem(), &key.serialize_pem());
    server.await_metric("passerelle_tls_certificate_expiry_timestamp_seconds", &[], 4_070_995_200.0);
}

#[test]
fn a_broken_or_mismatched_certificate_leaves_the_old_one_in_use() {
    let server = Everywhere::start("");
    let (good, key) = (server.certificate.cert(), server.certificate.key());
    let (good, key) = (std::fs::read_to_string(good).unwrap(), std::fs::read_to_string(key).unwrap());
    let trusting = server.certificate.client(&[b"stun.turn"]);
    let mut clients = vec![trusting];
    clients.extend((0..3).map(|_| server.certificate.client(&[b"stun.turn"])));
    let foreign = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cases = [
        (String::new(), key.clone()),
        ("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n".to_owned(), key.clone()),
        (foreign.cert.pem(), key.clone()),
    ];
    let complaints = |server: &Everywhere| server.log().matches("the old one stays in use").count();
    for ((cert, key), client) in cases.iter().zip(clients) {
        let before = complaints(&server);
        server.certificate.write(cert, key);
        eventually("the server complains", || (complaints(&server) > before).then_some(()));
        // A client that trusts the old one alone.
        let line = Line::tls(server.tls[0], client);
        assert_eq!(Client::on(line).ask(&Request::new(METHOD_BINDING)).code(), 0);
    }
    server.certificate.write(&good, &key);
    assert_eq!(server.client(Transport::Tls).ask(&Request::new(METHOD_BINDING)).code(), 0);
}
