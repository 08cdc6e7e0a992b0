//! The whole process gives everything back: descriptors, ports, memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::process::Command;
use std::thread;

use support::{Client, EchoPeer, Request, Server};

/// Allocations that live at the same time.
const COUNT: usize = 10_000;
const CYCLES: usize = 3;
/// Clients that are busy at the same time.
const THREADS: usize = 4;
/// What the allocator may keep or move between two equal cycles.
const TOLERANCE_KIB: u64 = 2048;

const CONFIG: &str = r#"
[relay]
addresses = ["127.0.0.9"]
ports = "20000-60000"
allow_peers = ["127.0.0.0/8"]
[limits]
allocations_per_user = 20000
allocations_per_ip = 20000
unauthenticated_per_second = 0
"#;

/// Connections that scrape it come and go.
const VISITORS: usize = 4;

fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

/// Every client has its own socket, and as many descriptors as the system gives out at most.
fn allow_many_sockets() {
    let of = std::process::id().to_string();
    let limit = Command::new("prlimit").args(["--pid", &of, "--nofile=16384:16384"]).status().unwrap();
    assert!(limit.success(), "a limit of 16384 open files (needs root)");
}

/// Makes allocations, sends data through each in both directions.
fn used(server: &Server, peer: &EchoPeer, count: usize) -> Vec<Client> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let (mut client, _) = Client::allocated(server.turn());
        assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
        client.send_channel_data(0x4000, b"there and back");
        assert_eq!(client.receive_channel_data(), (0x4000, b"there and back".to_vec()));
        clients.push(client);
    }
    clients
}

#[test]
fn ten_thousand_allocations_made_used_and_freed_three_times_leave_nothing_behind() {
    allow_many_sockets();
    let server = Server::start(CONFIG);
    let at_start = descriptors(&server);
    let mut levels = Vec::new();
    for _ in 0..CYCLES {
        let mut clients: Vec<Client> = thread::scope(|scope| {
            let threads =
                [(); THREADS].map(|()| scope.spawn(|| used(&server, &EchoPeer::start(), COUNT / THREADS)));
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert!(descriptors(&server) >= at_start + COUNT - VISITORS);
        server.await_metric("passerelle_turn_allocations", &[], COUNT as f64);
        server.await_metric("passerelle_relay_ports_used", &[], COUNT as f64);
        clients.iter_mut().for_each(|client| assert!(client.ask_signed(Request::refresh(0)).is_success()));
        server.await_metric("passerelle_turn_allocations", &[], 0.0);
        server.await_metric("passerelle_relay_ports_used", &[], 0.0);
        let left = descriptors(&server);
        assert!(left <= at_start + VISITORS, "{left} descriptors, {at_start} at the start");
        levels.push(server.resident_kib());
    }
    // Tables keep the size they have once had; from then on nothing is added.
    let [first, .., last] = levels.as_slice() else { panic!("{CYCLES} cycles") };
    assert!(*last <= first + TOLERANCE_KIB, "{levels:?} KiB after each cycle");
    server.await_metric("passerelle_relay_dropped_total", &[], 0.0);
}

/// Both requests may be in one batch: the old socket has to be gone before the new one is watched in its place.
#[test]
fn an_allocation_that_follows_a_deletion_at_once_relays() {
    let server = Server::start(CONFIG);
    let peer = EchoPeer::start();
    let (mut client, _) = Client::allocated(server.turn());
    for round in 0..200u32 {
        let end = client.signed(Request::refresh(0));
        let again = client.signed(Request::allocate());
        client.send(end.bytes());
        client.send(again.bytes());
        let answers = [client.receive(), client.receive()];
        assert_eq!(
            answers.map(|answer| answer[..2] == [0x01, 0x04] || answer[..2] == [0x01, 0x03]),
            [true; 2]
        );
        assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
        client.send_channel_data(0x4000, &round.to_be_bytes());
        assert_eq!(client.receive_channel_data().1, round.to_be_bytes());
    }
}
