//! The running program under floods while it relays: spoofed sources, mutated messages, no file descriptors left.
//! A number in a name is that of the row in docs/security.md.
//!
//! Each test has a network of its own, where it may send from any address. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use stun::attributes::*;
use stun::message::*;
use support::server::BOB;
use support::stun_client::channel_data;
use support::{Client, EchoPeer, Line, PATIENCE, Request, Server, namespace};

/// Where the server is; where its peers are; where its clients are.
const SERVER: Ipv4Addr = Ipv4Addr::new(25, 0, 0, 1);
const PEER: &str = "25.1.0.1";
const CLIENT: &str = "25.2.0.1";
const ADDRESSES: [&str; 3] = ["25.0.0.1/32", "25.1.0.1/32", "25.2.0.1/32"];

/// A server in a network of its own; answers to addresses that nobody has lead nowhere.
fn server(config: &str) -> Server {
    namespace::ip("link add void type veth peer name nowhere");
    namespace::ip("link set nowhere up");
    namespace::ip("link set void up");
    namespace::ip("address add 26.255.0.1/30 dev void");
    namespace::ip("neighbour add 26.255.0.2 lladdr 02:00:00:00:00:02 dev void nud permanent");
    namespace::ip("route add default via 26.255.0.2");
    let base = format!(
        "[listen]\nudp = [\"{SERVER}:0\"]\ntcp = [\"{SERVER}:0\"]\n[relay]\naddresses = [\"{SERVER}\"]\n\
         allow_peers = [\"25.1.0.0/16\"]\n[log]\nlevel = \"info\"\n"
    );
    Server::start_with(&[&base, config])
}

fn client(server: &Server) -> Client {
    Client::on(Line::udp_from(CLIENT.parse().unwrap(), server.turn()))
}

/// A call: a client that sends to an echo over and over, and counts what comes back.
struct Call<'a> {
    stop: &'a AtomicBool,
    echoed: &'a AtomicU64,
}

impl Call<'_> {
    /// Goes on until it is stopped; what is lost on the way is sent again, as media would go on.
    fn run(&self, client: &Client) {
        let mut number = 0u32;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            client.send(&channel_data(0x4000, &number.to_be_bytes()));
            if client.receive_within(Duration::from_millis(200)).is_some() {
                self.echoed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Runs `flood` while a call goes on, and asserts that it does so also afterwards, on the same allocation.
fn under_flood(server: &Server, flood: impl FnOnce()) {
    let peer = EchoPeer::start_on(PEER);
    let mut caller = client(server);
    caller.allocate();
    assert_eq!(caller.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    let (stop, echoed) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let call = Call { stop: &stop, echoed: &echoed };
        let caller = &mut caller;
        let running = scope.spawn(move || {
            call.run(caller);
        });
        flood();
        let after = echoed.load(Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while echoed.load(Ordering::Relaxed) < after + 100 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        running.join().unwrap();
        assert!(echoed.load(Ordering::Relaxed) >= after + 100, "the call does not go on");
        assert!(after > 0, "nothing was relayed during the flood");
    });
    // Late echoes first.
    while caller.receive_within(Duration::from_millis(200)).is_some() {}
    assert_eq!(caller.ask_signed(Request::refresh(600)).code(), 0, "the allocation is lost");
    metrics_are_consistent(server, 1.0);
    assert_eq!(caller.ask_signed(Request::refresh(0)).code(), 0);
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
    server.await_metric("passerelle_relay_ports_used", &[], 0.0);
}

/// What was made and has not ended is what there is.
fn metrics_are_consistent(server: &Server, allocations: f64) {
    server.await_metric("passerelle_turn_allocations", &[], allocations);
    let scrape = server.scrape();
    let sum = |name: &str| scrape.sum(name, &[]);
    let made =
        sum("passerelle_turn_allocations_created_total") - sum("passerelle_turn_allocations_ended_total");
    assert_eq!(made, allocations);
    assert_eq!(sum("passerelle_relay_ports_used"), allocations);
    assert_eq!(sum("passerelle_turn_channels"), allocations, "the call's channel");
}

/// Asserts that the process stops as it should and has not panicked.
fn is_healthy(server: Server) {
    let (status, _) = support::http_get::get(server.http, "/readyz").unwrap();
    assert_eq!(status, 200);
    let log = server.stop();
    assert!(!log.contains("panicked"), "{log}");
}

/// An IPv4 packet with a UDP datagram in it; the kernel fills in the checksum of the header.
fn packet(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let length = (28 + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend_from_slice(&source.ip().octets());
    packet.extend_from_slice(&destination.ip().octets());
    packet.extend_from_slice(&source.port().to_be_bytes());
    packet.extend_from_slice(&destination.port().to_be_bytes());
    packet.extend_from_slice(&(length - 20).to_be_bytes());
    // Over IPv4 a checksum of zero is none.
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(payload);
    packet
}

/// A socket that sends whole packets.
fn raw() -> socket2::Socket {
    const IPPROTO_RAW: i32 = 255;
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(IPPROTO_RAW.into())).unwrap()
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(v4) => v4,
        SocketAddr::V6(v6) => panic!("{v6} is no IPv4 address"),
    }
}

/// Waits until the server has read what was sent: it answers a request that came later.
fn is_caught_up(server: &Server) {
    let probe = client(server);
    support::eventually("the server answers again", || {
        probe.send(Request::new(METHOD_BINDING).bytes());
        probe.receive_within(Duration::from_secs(1))
    });
    while probe.receive_within(Duration::from_millis(50)).is_some() {}
}

#[test]
fn d1_challenges_to_spoofed_sources_cost_no_memory_and_no_call() {
    if !namespace::alone("d1_challenges_to_spoofed_sources_cost_no_memory_and_no_call", &ADDRESSES) {
        return;
    }
    const COUNT: usize = 200_000;
    let server = server("");
    let destination = v4(server.turn());
    let socket = raw();
    let mut random = StdRng::seed_from_u64(1);
    let mut send = |count: usize| {
        for _ in 0..count {
            // From all over the Internet, but for what this network itself uses.
            let source =
                Ipv4Addr::new(random.random_range(40..90), random.random(), random.random(), random.random());
            let request = Request::new(METHOD_ALLOCATE).with(ATTR_REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            let packet = packet(
                SocketAddrV4::new(source, random.random_range(1024..=65535)),
                destination,
                request.bytes(),
            );
            let _ = socket.send_to(&packet, &SocketAddr::V4(destination).into());
        }
        is_caught_up(&server);
    };
    under_flood(&server, || {
        send(20_000);
        let (before, challenges) = (server.resident_kib(), challenges(&server));
        send(COUNT);
        let grown = server.resident_kib().saturating_sub(before);
        assert!(grown <= 1024, "{grown} KiB more after {COUNT} spoofed requests");
        let read = challenges_since(&server, challenges);
        assert!(read > 1000.0, "only {read} of them were read at all");
    });
    is_healthy(server);
}

fn challenges(server: &Server) -> f64 {
    server.scrape().sum("passerelle_stun_requests_total", &[("method", "allocate")])
}

fn challenges_since(server: &Server, before: f64) -> f64 {
    challenges(server) - before
}

#[test]
fn d3_a_victim_whose_address_is_spoofed_is_not_flooded() {
    if !namespace::alone(
        "d3_a_victim_whose_address_is_spoofed_is_not_flooded",
        &[&ADDRESSES[..], &["25.3.0.1/32"]].concat(),
    ) {
        return;
    }
    let server = server("[relay]\nworkers = 1\n");
    let victim = std::net::UdpSocket::bind("25.3.0.1:0").unwrap();
    victim.set_nonblocking(true).unwrap();
    let socket = raw();
    let (source, destination) = (v4(victim.local_addr().unwrap()), v4(server.turn()));
    let start = Instant::now();
    let mut heard = 0usize;
    for _ in 0..20_000 {
        let packet = packet(source, destination, Request::new(METHOD_ALLOCATE).bytes());
        let _ = socket.send_to(&packet, &SocketAddr::V4(destination).into());
        while victim.recv(&mut [0; 256]).is_ok() {
            heard += 1;
        }
    }
    is_caught_up(&server);
    while victim.recv(&mut [0; 256]).is_ok() {
        heard += 1;
    }
    // The defaults: a burst of 1000, then 100 a second.
    let most = 1000 + (100.0 * start.elapsed().as_secs_f64()) as usize + 1;
    assert!((1..=most).contains(&heard), "{heard} answers, at most {most}");
    is_healthy(server);
}

#[test]
fn f7_a_source_port_of_zero_is_dropped_and_counted() {
    if !namespace::alone("f7_a_source_port_of_zero_is_dropped_and_counted", &ADDRESSES) {
        return;
    }
    let server = server("");
    let (source, destination) = (SocketAddrV4::new(CLIENT.parse().unwrap(), 0), v4(server.turn()));
    let socket = raw();
    for request in [Request::new(METHOD_BINDING), Request::allocate()] {
        socket
            .send_to(&packet(source, destination, request.bytes()), &SocketAddr::V4(destination).into())
            .unwrap();
    }
    server.await_metric("passerelle_relay_dropped_total", &[("reason", "source_port")], 2.0);
    is_healthy(server);
}

/// Valid messages of every kind; those that are signed are so by the client.
fn templates(client: &mut Client, peer: SocketAddr) -> Vec<Vec<u8>> {
    let requests = [
        Request::new(METHOD_BINDING).with(ATTR_SOFTWARE, b"a client").fingerprint(),
        Request::allocate(),
        // Without a reservation, which would hold a port for half a minute.
        client.signed(Request::allocate().lifetime(1200).with(ATTR_EVEN_PORT, &[0])),
        client.signed(Request::allocate().family(2).with(ATTR_DONT_FRAGMENT, &[])),
        client.signed(Request::refresh(600)).fingerprint(),
        client.signed(Request::permission(&[
            peer,
            "1.1.1.1:9".parse().unwrap(),
            "[2600::1]:9".parse().unwrap(),
        ])),
        client.signed(Request::channel_bind(0x4001, peer)),
        Request::send(peer, b"some data that is sent").with(ATTR_DONT_FRAGMENT, &[]),
        Request::indication(METHOD_BINDING),
    ];
    let mut templates: Vec<Vec<u8>> = requests.iter().map(|request| request.bytes().to_vec()).collect();
    templates.push(channel_data(0x4000, b"some data on a channel"));
    templates.push(channel_data(0x4001, b""));
    templates
}

/// Changes a message: bits, lengths, ends, order, repetition.
fn mutated(message: &[u8], others: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for _ in 0..random.random_range(1..=4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..8) {
            0 | 1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes[at] = [0, 1, 3, 4, 0x7F, 0x80, 0xFF][random.random_range(0..7)],
            3 => bytes.truncate(at),
            4 => bytes.extend((0..random.random_range(1..64)).map(|_| random.random::<u8>())),
            5 => {
                // A piece of another message in place of the rest, the length set right.
                let other = &others[random.random_range(0..others.len())];
                bytes.truncate(at & !3);
                bytes.extend_from_slice(&other[random.random_range(0..other.len()) & !3..]);
            }
            6 => {
                let piece = bytes[at & !3..].to_vec();
                bytes.extend_from_slice(&piece);
            }
            _ => bytes.resize(random.random_range(0..2000), 0),
        }
    }
    // Half of them get past the first check.
    if bytes.len() >= 20 && random.random() {
        let length = (bytes.len() - 20) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
    bytes
}

#[test]
fn t3_mutated_messages_hurt_nobody() {
    if !namespace::alone("t3_mutated_messages_hurt_nobody", &ADDRESSES) {
        return;
    }
    const COUNT: usize = 100_000;
    const SEED: u64 = 7;
    let server = server("[limits]\nunauthenticated_per_second = 0\n");
    let peer = EchoPeer::start_on(PEER);
    let mut random = StdRng::seed_from_u64(SEED);
    // Some senders have an allocation, a permission and a channel of their own to be wrong about.
    let mut senders: Vec<Client> = (0..4).map(|_| client(&server).with_user(BOB)).collect();
    for sender in &mut senders[..2] {
        sender.allocate();
        assert_eq!(sender.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    }
    let templates: Vec<Vec<Vec<u8>>> =
        senders.iter_mut().map(|sender| templates(sender, peer.address)).collect();
    let mut flood = |count: usize| {
        for number in 0..count {
            let from = number % senders.len();
            let message = &templates[from][random.random_range(0..templates[from].len())];
            senders[from].line().try_send(&mutated(message, &templates[from], &mut random));
            if number % 64 == 0 {
                // Answers are read now and then, and the server is let run: this is about content, not about load.
                while senders[from].receive_within(Duration::from_millis(1)).is_some() {}
            }
        }
        is_caught_up(&server);
    };
    flood(10_000);
    let before = server.resident_kib();
    flood(COUNT);
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown <= 1024, "{grown} KiB more after {COUNT} mutated messages");
    for sender in &mut senders {
        while sender.receive_within(Duration::from_millis(100)).is_some() {}
        sender.ask_signed(Request::refresh(0));
    }
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
    for name in ["passerelle_turn_channels", "passerelle_turn_permissions", "passerelle_relay_ports_used"] {
        assert_eq!(server.scrape().sum(name, &[]), 0.0, "{name}");
    }
    let mut again = StdRng::seed_from_u64(SEED + 1);
    under_flood(&server, || {
        for number in 0..20_000 {
            let from = number % senders.len();
            let message = &templates[from][again.random_range(0..templates[from].len())];
            senders[from].line().try_send(&mutated(message, &templates[from], &mut again));
        }
        is_caught_up(&server);
        for sender in &mut senders {
            while sender.receive_within(Duration::from_millis(100)).is_some() {}
            sender.ask_signed(Request::refresh(0));
        }
    });
    let scrape = server.scrape();
    for reason in ["not_stun", "malformed", "fingerprint", "no_channel", "channel_length"] {
        assert!(scrape.sum("passerelle_relay_dropped_total", &[("reason", reason)]) > 0.0, "{reason}");
    }
    is_healthy(server);
}

#[test]
fn t9_without_file_descriptors_new_clients_are_refused_and_later_served_again() {
    if !namespace::alone(
        "t9_without_file_descriptors_new_clients_are_refused_and_later_served_again",
        &ADDRESSES,
    ) {
        return;
    }
    // More allocations are allowed than files: the limit of the process is what is met.
    let limits =
        "[limits]\nallocations_total = 1000\nallocations_per_user = 1000\nallocations_per_ip = 1000\n";
    let base = format!("[listen]\nudp = [\"{SERVER}:0\"]\n[relay]\naddresses = [\"{SERVER}\"]\n{limits}");
    let server = Server::start_under(&["prlimit", "--nofile=96"], &[&base]);
    for _ in 0..2 {
        let mut clients = Vec::new();
        let refused = loop {
            let mut client = client(&server);
            let code = client.ask_signed(Request::allocate()).code();
            clients.push(client);
            if code != 0 {
                break code;
            }
            assert!(clients.len() < 96, "more sockets than files");
        };
        assert_eq!(refused, 508);
        assert!(clients.len() > 10);
        // Those that are there are served on.
        let served = clients.len() - 1;
        for client in &mut clients[..served] {
            assert_eq!(client.ask_signed(Request::refresh(600)).code(), 0);
        }
        assert_eq!(client(&server).ask(&Request::new(METHOD_BINDING)).code(), 0);
        let busy = cpu_seconds(&server);
        std::thread::sleep(Duration::from_secs(1));
        let busy = cpu_seconds(&server) - busy;
        assert!(busy < 0.5, "{busy} s of a second's CPU while nothing happens");
        for client in &mut clients[..served] {
            assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
        }
        let code = clients[served].ask_signed(Request::allocate()).code();
        assert_eq!(code, 0, "no recovery");
        assert_eq!(clients[served].ask_signed(Request::refresh(0)).code(), 0);
        server.await_metric("passerelle_turn_allocations", &[], 0.0);
    }
    is_healthy(server);
}

/// What the process has computed so far.
fn cpu_seconds(server: &Server) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

#[test]
fn t9_the_quota_derived_from_the_files_leaves_room_for_everything_else() {
    if !namespace::alone("t9_the_quota_derived_from_the_files_leaves_room_for_everything_else", &ADDRESSES) {
        return;
    }
    let limits = "[limits]\nallocations_per_user = 1000\n";
    let base = format!("[listen]\nudp = [\"{SERVER}:0\"]\n[relay]\naddresses = [\"{SERVER}\"]\n{limits}");
    let server = Server::start_under(&["prlimit", "--nofile=128"], &[&base]);
    let mut clients: Vec<Client> = (0..100).map(|_| client(&server)).collect();
    let codes: Vec<u16> =
        clients.iter_mut().map(|client| client.ask_signed(Request::allocate()).code()).collect();
    let served = codes.iter().filter(|code| **code == 0).count();
    assert!((32..=64).contains(&served), "{served} allocations with 128 files");
    assert!(codes[served..].iter().all(|code| *code == 508));
    let (status, _) = support::http_get::get(server.http, "/healthz").unwrap();
    assert_eq!(status, 200);
    server.await_metric("passerelle_turn_allocations", &[], served as f64);
}

#[test]
fn dont_fragment_is_honoured() {
    if !namespace::alone("dont_fragment_is_honoured", &ADDRESSES) {
        return;
    }
    let server = server("");
    namespace::ip("link set lo mtu 1400");
    let peer = EchoPeer::start_on(PEER);
    let mut client = client(&server);
    client.allocate();
    assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
    let whole = vec![7; 1300];
    let too_long = vec![8; 1500];
    client.send(Request::send(peer.address, &whole).with(ATTR_DONT_FRAGMENT, &[]).bytes());
    assert_eq!(client.receive_data(), (peer.address, whole.clone()));
    // Without the attribute it is fragmented; with it, it is not sent.
    client.send(Request::send(peer.address, &too_long).bytes());
    assert_eq!(client.receive_data(), (peer.address, too_long.clone()));
    client.send(Request::send(peer.address, &too_long).with(ATTR_DONT_FRAGMENT, &[]).bytes());
    client.hears_nothing();
    let labels = [("direction", "to_peer"), ("reason", "send_error")];
    server.await_metric("passerelle_relay_dropped_total", &labels, 1.0);
    // One that must not be fragmented spoils nothing for those that may.
    client.send(Request::send(peer.address, &too_long).bytes());
    assert_eq!(client.receive_data(), (peer.address, too_long));
    assert_eq!(peer.stop().len(), 3);
}

/// The IP header of the first UDP packet between two addresses that a raw socket sees.
fn ip_header(raw: &socket2::Socket, from: SocketAddr, to: SocketAddr) -> [u8; 20] {
    use std::io::Read as _;
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        let mut reader = raw;
        let Ok(length) = reader.read(&mut buffer) else { continue };
        let packet = &buffer[..length];
        let addresses = [v4(from).ip().octets(), v4(to).ip().octets()].concat();
        let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        if packet.len() >= 28 && packet[12..20] == addresses[..] && packet[20..24] == ports[..] {
            return *packet.first_chunk().unwrap();
        }
    }
    panic!("no packet from {from} to {to}");
}

#[test]
fn packets_leave_with_a_full_ttl_and_no_marks() {
    if !namespace::alone("packets_leave_with_a_full_ttl_and_no_marks", &ADDRESSES) {
        return;
    }
    let server = server("");
    let raw = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::UDP))
        .unwrap();
    raw.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let peer = EchoPeer::start_on(PEER);
    let mut client = client(&server);
    let relayed = client.allocate();
    assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
    let (time_to_live, service) = (8, 1);
    let answer = ip_header(&raw, server.turn(), client.local());
    assert_eq!((answer[time_to_live], answer[service]), (64, 0), "an answer to a client");
    for (dont_fragment, flags) in [(true, 0x40), (false, 0)] {
        let send = Request::send(peer.address, b"hello");
        let send = if dont_fragment { send.with(ATTR_DONT_FRAGMENT, &[]) } else { send };
        client.send(send.bytes());
        let to_peer = ip_header(&raw, relayed, peer.address);
        assert_eq!((to_peer[time_to_live], to_peer[service]), (64, 0), "data to a peer");
        assert_eq!(to_peer[6] & 0x40, flags, "the DF bit");
        let to_client = ip_header(&raw, server.turn(), client.local());
        assert_eq!((to_client[time_to_live], to_client[service]), (64, 0), "data to a client");
        client.receive_data();
    }
}
