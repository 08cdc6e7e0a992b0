//! What is measured.

use std::net::UdpSocket;
use std::time::Duration;

use super::Arguments;
use super::client::{self, Client};
use super::lab::{self, GENERATOR, Lab};
use super::report::Report;
use super::servers::Server;
use super::traffic::{self, Plan, Way};

/// Packets a second: about a quarter of what one core relays packet by packet.
const RATE: f64 = 40_000.0;
/// About half of it.
const HALF_LOAD: f64 = 80_000.0;

/// One kind of traffic.
struct Profile {
    name: &'static str,
    flows: usize,
    way: Way,
    size: usize,
    burst: usize,
    rate: f64,
}

const fn profile(name: &'static str, flows: usize, way: Way, size: usize, burst: usize) -> Profile {
    Profile { name, flows, way, size, burst, rate: RATE }
}

const PROFILES: [Profile; 10] = [
    profile("a32", 1, Way::Up, 1000, 32),
    profile("a16", 1, Way::Up, 1000, 16),
    profile("a8", 1, Way::Up, 1000, 8),
    profile("a1", 1, Way::Up, 1000, 1),
    profile("d32", 1, Way::Down, 1000, 32),
    profile("d8", 1, Way::Down, 1000, 8),
    profile("b64", 64, Way::Up, 160, 1),
    profile("e64", 64, Way::Down, 160, 1),
    Profile { name: "half", flows: 64, way: Way::Up, size: 160, burst: 1, rate: HALF_LOAD },
    profile("n100", 100, Way::Up, 160, 1),
];

/// Runs every profile that is wanted against a fresh server.
pub(crate) fn run_all(arguments: &Arguments, _lab: &Lab, server: &Server, report: &mut Report) {
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    let peer = UdpSocket::bind((GENERATOR, 0)).unwrap();
    let address = peer.local_addr().unwrap();
    traffic::widen(&peer, 32 << 20);
    // Nobody frees an allocation: its client's port must not be used again while the server lives.
    let mut kept = Vec::new();
    for profile in PROFILES.iter().filter(|profile| wanted(profile.name)) {
        let clients = client::allocate(client::sockets(server.address, profile.flows), address);
        relay(arguments, server, profile, &clients, &peer, report);
        kept.extend(clients);
    }
    if wanted("many") {
        many(arguments, server, &peer, report);
    }
}

fn relay(
    arguments: &Arguments,
    server: &Server,
    profile: &Profile,
    clients: &[Client],
    peer: &UdpSocket,
    report: &mut Report,
) {
    let plan = Plan {
        way: profile.way,
        size: profile.size,
        burst: profile.burst,
        rate: profile.rate * arguments.load,
        seconds: arguments.seconds,
    };
    for client in clients {
        client.socket.set_nonblocking(true).unwrap();
        traffic::widen(&client.socket, 4 << 20);
    }
    // What is on its way, and what the server keeps to itself, is not measured.
    traffic::run(clients, peer, Plan { seconds: 0.1, ..plan });
    let before = (server.run_time(), server.own_time());
    let outcome = traffic::run(clients, peer, plan);
    let packets = outcome.delivered.max(1) as f64;
    let spent = |now: u64, before: u64| (now - before) as f64 / packets / 1000.0;
    let mut record = |what: &str, value: f64| report.record(server.kind, profile.name, what, value);
    record("cpu_us_per_packet", spent(server.run_time(), before.0));
    record("own_us_per_packet", spent(server.own_time(), before.1));
    record("lost_percent", 100.0 * (1.0 - packets / outcome.sent.max(1) as f64));
    record("latency_p50_us", outcome.latency(50.0));
    record("latency_p99_us", outcome.latency(99.0));
}

/// Ten thousand allocations: what they cost, what they hold, and what a packet costs among them.
fn many(arguments: &Arguments, server: &Server, peer: &UdpSocket, report: &mut Report) {
    // The clients' own sockets are there before anything is measured.
    let sockets = client::sockets(server.address, arguments.many);
    let count = sockets.len() as f64;
    std::thread::sleep(Duration::from_millis(200));
    let (time, resident, kernel) = (server.own_time(), server.resident(), lab::kernel_sockets());
    let clients = client::allocate(sockets, peer.local_addr().unwrap());
    let spent = (server.own_time() - time) as f64;
    report.record(server.kind, "many", "allocate_bind_us", spent / count / 1000.0);
    let grown = |now: u64, before: u64| now.saturating_sub(before) as f64 / count;
    report.record(server.kind, "many", "process_bytes", grown(server.resident(), resident));
    report.record(server.kind, "many", "kernel_bytes", grown(lab::kernel_sockets(), kernel));
    let profile = Profile { flows: clients.len(), ..profile("many", 0, Way::Up, 160, 1) };
    relay(arguments, server, &profile, &clients, peer, report);
}
