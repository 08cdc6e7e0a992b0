//! What the relay gives to one user, one address, one allocation and one network, and what an answer costs. A number
//! in a name is that of the row in docs/security.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stun::attributes::*;
use stun::message::*;
use support::server::{ALICE, BOB, LOOPBACK_PEERS, SECRET};
use support::stun_client::{rest_credential, rest_credential_until};
use support::{
    Client, EchoPeer, Everywhere, Line, PATIENCE, Request, Server, Transport, eventually, http_get, namespace,
};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::{IntoClientRequest as _, client};

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
fn d4_an_address_has_a_quota() {
    let server = Server::start("[limits]\nallocations_per_ip = 2");
    let users = [ALICE, BOB, BOB];
    let mut clients = users.map(|user| Client::new(server.turn()).with_user(user));
    assert_eq!(clients.each_mut().map(|client| client.ask_signed(Request::allocate()).code()), [0, 0, 486]);
}

#[test]
fn packets_and_bytes_are_counted_while_they_flow() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    for _ in 0..10 {
        client.send(Request::send(peer.address, &[1; 100]).bytes());
        client.receive();
        client.send_channel_data(0x4000, &[2; 50]);
        client.receive();
    }
    for direction in ["to_peer", "to_client"] {
        let labels = [("direction", direction)];
        server.await_metric("passerelle_relay_packets_total", &labels, 20.0);
        server.await_metric("passerelle_relay_bytes_total", &labels, 1500.0);
    }
    server.await_metric("passerelle_relay_dropped_total", &[], 0.0);
    // And the counters outlive the allocation.
    assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
    server.await_metric("passerelle_relay_bytes_total", &[], 3000.0);
}

#[test]
fn an_address_of_streams_has_the_same_quota() {
    let server = Everywhere::start("[limits]\nallocations_per_ip = 2");
    let mut clients =
        [Transport::Udp, Transport::Tcp, Transport::Tls].map(|transport| server.client(transport));
    assert_eq!(clients.each_mut().map(|client| client.ask_signed(Request::allocate()).code()), [0, 0, 486]);
    // A connection that ends gives its share back.
    let [_, tcp, mut tls] = clients;
    drop(tcp);
    server.await_metric("passerelle_turn_allocations", &[], 1.0);
    assert_eq!(tls.ask_signed(Request::allocate()).code(), 0);
}

#[test]
fn the_server_has_a_total() {
    let server = Server::start("[limits]\nallocations_total = 2");
    let mut clients = [ALICE, BOB, BOB].map(|user| Client::new(server.turn()).with_user(user));
    assert_eq!(clients.each_mut().map(|client| client.ask_signed(Request::allocate()).code()), [0, 0, 508]);
    assert_eq!(clients[0].ask_signed(Request::refresh(0)).code(), 0);
    assert_eq!(clients[2].ask_signed(Request::allocate()).code(), 0);
}

#[test]
fn an_allocation_relays_its_bandwidth_in_each_direction_and_no_more() {
    const RATE: usize = 100_000;
    const SIZE: usize = 1000;
    let server = Server::start(&format!("[limits]\nbandwidth = {RATE}\n{LOOPBACK_PEERS}"));
    let peer = UdpSocket::bind("127.0.0.2:0").unwrap();
    let (mut client, relayed) = Client::allocated(server.turn());
    let bind = Request::channel_bind(0x4000, peer.local_addr().unwrap());
    assert_eq!(client.ask_signed(bind).code(), 0);
    let dropped = |direction| {
        let labels = [("direction", direction), ("reason", "bandwidth")];
        server.scrape().sum("passerelle_relay_dropped_total", &labels) as usize
    };
    let relayed_bytes =
        |direction| server.scrape().sum("passerelle_relay_bytes_total", &[("direction", direction)]) as usize;
    for direction in ["to_peer", "to_client"] {
        let start = Instant::now();
        let mut sent = 0;
        while dropped(direction) < 50 {
            for _ in 0..50 {
                match direction {
                    "to_peer" => client.send_channel_data(0x4000, &[1; SIZE]),
                    _ => drop(peer.send_to(&[1; SIZE], relayed).unwrap()),
                }
                sent += SIZE;
            }
            assert!(start.elapsed() < PATIENCE, "nothing is dropped of {sent} bytes");
        }
        let passed = relayed_bytes(direction);
        // A second's worth at once, and the rate from then on; the clock of this test is the later one.
        let most = RATE + (RATE as f64 * start.elapsed().as_secs_f64()) as usize + SIZE;
        assert!((RATE - SIZE..=most).contains(&passed), "{passed} bytes {direction}, at most {most}");
    }
    // The other allocation of the user has a bandwidth of its own.
    let echo = EchoPeer::start();
    let (mut other, _) = Client::allocated(server.turn());
    assert_eq!(other.ask_signed(Request::permission(&[echo.address])).code(), 0);
    other.send(Request::send(echo.address, b"unhindered").bytes());
    assert_eq!(other.receive_data().1, b"unhindered");
}

/// Counts the answers to `count` requests of one socket, sent as fast as they go.
fn answers(server: &Server, client: &Client, count: usize, request: impl Fn() -> Request) -> usize {
    let read = || server.scrape().sum("passerelle_stun_requests_total", &[]) as usize;
    let before = read();
    let mut answered = 0;
    for number in 0..count {
        client.send(request().bytes());
        while number % 50 == 49 && client.receive_within(Duration::from_millis(1)).is_some() {
            answered += 1;
        }
    }
    eventually("the server has read them all", || (read() >= before + count).then_some(()));
    while client.receive_within(Duration::from_millis(500)).is_some() {
        answered += 1;
    }
    answered
}

#[test]
fn d3_a_network_that_proves_nothing_gets_few_answers_and_a_client_all_of_its_own() {
    let addresses = [
        "25.0.0.1/32",
        "25.1.0.1/32",
        "25.1.0.2/32",
        "25.2.0.1/32",
        "25.3.0.1/32",
        "2600::1/128",
        "2601:0:0:1::1/128",
        "2601:0:0:1:ffff::1/128",
        "2601:0:0:100::1/128",
    ];
    if !namespace::alone(
        "d3_a_network_that_proves_nothing_gets_few_answers_and_a_client_all_of_its_own",
        &addresses,
    ) {
        return;
    }
    const BURST: usize = 30;
    const RATE: usize = 10;
    let server = Server::start(&format!(
        "[listen]\nudp = [\"25.0.0.1:0\", \"[2600::1]:0\"]\n[relay]\naddresses = [\"25.0.0.1\"]\nworkers = 1\n\
         [limits]\nunauthenticated_burst = {BURST}\nunauthenticated_per_second = {RATE}\nbinding_per_second = 50\n\
         allocations_per_user = 1000\n"
    ));
    let at = |ip: &str| {
        let ip: std::net::IpAddr = ip.parse().unwrap();
        Client::on(Line::udp_from(ip, server.udp[usize::from(ip.is_ipv6())]))
    };
    for (flooding, neighbour, elsewhere) in
        [("25.1.0.1", "25.1.0.2", "25.2.0.1"), ("2601:0:0:1::1", "2601:0:0:1:ffff::1", "2601:0:0:100::1")]
    {
        let start = Instant::now();
        let flood = answers(&server, &at(flooding), 1000, Request::allocate);
        let regained = |since: Instant| (RATE as f64 * since.elapsed().as_secs_f64()) as usize + 1;
        assert!((BURST..=BURST + regained(start)).contains(&flood), "{flood} answers to {flooding}");
        let shared = answers(&server, &at(neighbour), 100, Request::allocate);
        assert!(flood + shared <= BURST + regained(start), "{shared} more to its neighbour {neighbour}");
        let other = Instant::now();
        let free = answers(&server, &at(elsewhere), 200, Request::allocate);
        assert!((BURST..=BURST + regained(other)).contains(&free), "{free} answers to {elsewhere}");
    }
    assert!(server.scrape().sum("passerelle_relay_dropped_total", &[("reason", "rate_limited")]) > 1500.0);
    // Every challenge that is followed up is given back: a hundred clients of one office.
    for _ in 0..100 {
        let mut client = at("25.3.0.1");
        client.allocate();
        assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
    }
    let bindings = answers(&server, &at("25.1.0.1"), 1000, || Request::new(METHOD_BINDING));
    assert!((50..1000).contains(&bindings), "{bindings} Binding answers of 1000");
}

#[test]
fn d3b_an_answer_to_a_stranger_is_small() {
    let server =
        Server::start("[listen]\nudp = [\"127.0.0.1:0\", \"[::1]:0\"]\n[turn]\nrealm = \"passerelle\"");
    for (index, most) in [(0, 32), (1, 44)] {
        let client = Client::new(server.udp[index]);
        assert_eq!(client.ask(&Request::new(METHOD_BINDING)).0.raw.len(), most);
        // A challenge with PASSWORD-ALGORITHMS; docs/security.md tells what it costs.
        let bare = Request::new(METHOD_ALLOCATE);
        assert_eq!(bare.bytes().len(), 20);
        let answer = client.ask(&bare);
        assert_eq!((answer.code(), answer.0.raw.len()), (401, 92));
        assert_eq!((answer.value(ATTR_SOFTWARE), answer.value(ATTR_FINGERPRINT)), (None, None));
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md")).unwrap();
    assert!(page.contains("92 bytes"), "docs/security.md tells another size");
}

#[test]
fn a1_ports_cannot_be_guessed() {
    let server = Server::start("[limits]\nallocations_per_user = 1000");
    let mut ports = Vec::new();
    for _ in 0..300 {
        let mut client = Client::new(server.turn());
        ports.push(client.allocate().port());
        assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
    }
    // Of sixteen equal parts of the range each gets its share; 300 draws miss one of them once in 10^7 runs.
    let parts: BTreeSet<u16> = ports.iter().map(|port| (port - 49152) / 1024).collect();
    assert_eq!(parts.len(), 16, "{ports:?}");
    // No port tells the next: neighbours in time are as far apart as any two.
    let near = ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 64).count();
    assert!(near < 30, "{near} of 299 ports are beside the one before");
}

#[test]
fn a5_no_answer_tells_who_exists() {
    let server = Everywhere::start("");
    let form = |user: &str, password: &str, transport: Transport| {
        let mut client = server.client(transport).with_user((user, password));
        let answer = client.ask_signed(Request::allocate());
        assert_eq!(answer.code(), 401, "{user}");
        let mut bytes = answer.0.raw;
        // Everything but the transaction id and the nonce.
        bytes[8..20].fill(0);
        let nonce = client.nonce().len();
        let at = bytes.windows(9).position(|window| window == b"obMatJos2").unwrap();
        bytes[at..at + nonce].fill(0);
        bytes
    };
    let expired = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(600);
    let (old, password) = rest_credential_until("carol", SECRET, expired);
    let (live, _) = rest_credential("carol", SECRET, Duration::from_secs(600));
    for transport in Transport::ALL {
        let expected = form("nobody", "a password", transport);
        for (user, password) in
            [(ALICE.0, "wrong"), (BOB.0, ""), (&old, &password), (&live, "wrong"), ("", ""), ("1:x", "y")]
        {
            assert_eq!(form(user, password, transport), expected, "{user} over {transport:?}");
        }
    }
}

/// Allocates with a credential that lives for `seconds`; waits until it is over.
fn outlived(server: &Server, seconds: u64) -> (Client, u32) {
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(seconds);
    let (name, password) = rest_credential_until("carol", SECRET, expiry);
    let mut client = Client::new(server.turn()).with_user((&name, &password));
    let lifetime = client.ask_signed(Request::allocate()).lifetime();
    eventually("the credential is over", || {
        let mut late = Client::new(server.turn()).with_user((&name, &password));
        let code = late.ask_signed(Request::allocate()).code();
        if code == 0 {
            assert_eq!(late.ask_signed(Request::refresh(0)).code(), 0);
        }
        (code == 401).then_some(())
    });
    (client, lifetime)
}

#[test]
fn a10_an_expired_credential_starts_nothing_and_the_policy_decides_about_what_lives() {
    let keep = Server::start("[turn]\nexpiry = \"keep\"");
    let cut = Server::start("[turn]\nexpiry = \"cut\"");
    let grace = Server::start("[turn]\nexpiry = \"grace\"\nexpiry_grace = \"100s\"");
    let (mut client, lifetime) = outlived(&keep, 3);
    assert_eq!((lifetime, client.ask_signed(Request::refresh(900)).lifetime()), (600, 900));
    let (mut client, lifetime) = outlived(&cut, 3);
    assert!(lifetime <= 3, "{lifetime} s of a credential of 3 s");
    assert_ne!(client.ask_signed(Request::refresh(900)).code(), 0);
    cut.await_metric("passerelle_turn_allocations", &[], 0.0);
    cut.await_metric("passerelle_turn_allocations_ended_total", &[("reason", "expired")], 1.0);
    let (mut client, lifetime) = outlived(&grace, 3);
    assert!(lifetime <= 103, "{lifetime} s with 100 s of grace");
    let answer = client.ask_signed(Request::refresh(900));
    assert!((1..=100).contains(&answer.lifetime()), "{} s left", answer.lifetime());
    assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
}

#[test]
fn the_tables_of_an_allocation_hold_what_is_configured() {
    let server = Server::start("[limits]\npermissions = 3\nchannels = 2");
    let (mut client, _) = Client::allocated(server.turn());
    let peer = |last: u8| SocketAddr::from(([1, 1, 1, last], 9999));
    assert_eq!(client.ask_signed(Request::permission(&[1, 2, 3, 4].map(peer))).code(), 508);
    server.await_metric("passerelle_turn_permissions", &[], 0.0);
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer(1))).code(), 0);
    assert_eq!(client.ask_signed(Request::channel_bind(0x4001, peer(2))).code(), 0);
    assert_eq!(client.ask_signed(Request::channel_bind(0x4002, peer(3))).code(), 508);
    // A channel that does not fit leaves no permission behind.
    server.await_metric("passerelle_turn_permissions", &[], 2.0);
    assert_eq!(client.ask_signed(Request::permission(&[peer(3)])).code(), 0);
    assert_eq!(client.ask_signed(Request::permission(&[peer(4)])).code(), 508);
    // Another allocation has tables of its own.
    let (mut other, _) = Client::allocated(server.turn());
    assert_eq!(other.ask_signed(Request::permission(&[peer(4)])).code(), 0);
}

/// Opens a signaling session.
fn says_hello(server: &Server) {
    let mut request = format!("ws://{}/ws", server.http).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "passerelle.v1.json".parse().unwrap());
    let stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut socket, _) = client(request, stream).unwrap();
    socket.send(Frame::text(r#"{"v":1,"t":"hello","id":"1","p":{}}"#)).unwrap();
    let said = [(); 2].map(|()| socket.read().unwrap().into_text().unwrap());
    assert!(said.iter().any(|frame| frame.contains("session:ready")), "{said:?}");
}

/// While one client sends as fast as it can, everybody else is answered: other clients of the same worker, HTTP, signaling. The
/// other clients come over TCP, since a flood of datagrams may well cost a datagram of somebody else.
#[test]
fn d9_requests_are_answered_while_the_relay_is_busy() {
    let server = Server::start_with(&[
        LOOPBACK_PEERS,
        "relay.workers = 1\nlisten.tcp = [\"127.0.0.1:0\"]\nauth.anonymous = \"loopback\"\n",
    ]);
    let peer = EchoPeer::start();
    let mut sender = Client::new(server.turn()).with_user(ALICE);
    sender.allocate();
    assert_eq!(sender.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    let busy = Arc::new(());
    let watched = Arc::downgrade(&busy);
    let flood = std::thread::spawn(move || {
        while watched.strong_count() > 0 {
            sender.send_channel_data(0x4000, &[7; 1000]);
        }
    });
    for _ in 0..20 {
        let mut other = Client::on(Line::tcp(server.tcp[0])).with_user(BOB);
        other.allocate();
        assert!(other.ask_signed(Request::refresh(0)).is_success());
        assert_eq!(http_get::get(server.http, "/healthz").unwrap().0, 200);
        says_hello(&server);
    }
    drop(busy);
    flood.join().unwrap();
    let packets = server.scrape().sum("passerelle_relay_packets_total", &[("direction", "to_peer")]);
    assert!(packets > 10_000.0, "{packets} packets are no load");
}
