//! The relay under clients that nobody here wrote: coturn's `turnutils_uclient`, the `turn` crate's client, aioice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use support::server::{ALICE, LOOPBACK_PEERS, REALM, SECRET};
use support::{EchoPeer, PATIENCE, Server, program};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn as _;

/// Loopback peers; channels from all of RFC 5766's range, as `turnutils_uclient` 4.6 picks them; and room for the
/// allocations it now and then makes anew without freeing the old one.
const UCLIENT: &str = "[relay]\nallow_peers = [\"127.0.0.0/8\"]\n[turn]\nwide_channel_range = true\n\
                       [limits]\nallocations_per_user = 1000\n";

/// Runs `turnutils_uclient`: `sessions` clients send `messages` each, and every one of them must come back.
#[track_caller]
fn uclient(server: &Server, peer: Option<&EchoPeer>, sessions: u32, messages: u32, flags: &[&str]) {
    let address = server.turn();
    let mut command = Command::new("turnutils_uclient");
    // -c: one session a client, no second one with a reserved port for RTCP.
    command.args(["-c", "-z", "5", "-m", &sessions.to_string(), "-n", &messages.to_string()]).args(flags);
    if let Some(peer) = peer {
        command.args(["-e", &peer.address.ip().to_string(), "-r", &peer.address.port().to_string()]);
    }
    command.args(["-p", &address.port().to_string(), &address.ip().to_string()]);
    let (_, output) = program::output(&mut command);
    let total = sessions * messages;
    for expected in [
        format!("tot_send_msgs={total}, tot_recv_msgs={total}\n"),
        "Total lost packets 0 (0.000000%), total send dropped 0 (0.000000%)".to_owned(),
    ] {
        assert!(output.contains(&expected), "turnutils_uclient did not say {expected:?}:\n{output}");
    }
    let packets = server.scrape().sum("passerelle_relay_packets_total", &[("direction", "to_peer")]);
    assert!(packets >= f64::from(total), "{packets} packets went to peers, not {total}");
}

/// The arguments for a static user.
const AS_ALICE: [&str; 4] = ["-u", ALICE.0, "-w", ALICE.1];

#[test]
fn turnutils_uclient_loses_nothing_over_channels() {
    let server = Server::start(UCLIENT);
    uclient(&server, Some(&EchoPeer::start()), 1, 100, &AS_ALICE);
    server.stop();
}

#[test]
fn turnutils_uclient_loses_nothing_over_send_indications() {
    let server = Server::start(UCLIENT);
    uclient(&server, Some(&EchoPeer::start()), 1, 100, &[&["-s"], &AS_ALICE[..]].concat());
    server.stop();
}

#[test]
fn several_sessions_of_turnutils_uclient_lose_nothing() {
    let server = Server::start(UCLIENT);
    let peer = EchoPeer::start();
    uclient(&server, Some(&peer), 8, 50, &AS_ALICE);
    uclient(&server, Some(&peer), 2, 50, &[&["-l", "1200"], &AS_ALICE[..]].concat());
}

#[test]
fn clients_of_turnutils_uclient_reach_each_other_through_their_relayed_addresses() {
    let server = Server::start(UCLIENT);
    uclient(&server, None, 4, 50, &[&["-y"], &AS_ALICE[..]].concat());
    uclient(&server, None, 4, 50, &[&["-y", "-s"], &AS_ALICE[..]].concat());
}

#[test]
fn turnutils_uclient_makes_its_own_rest_credential() {
    let server = Server::start(UCLIENT);
    uclient(&server, Some(&EchoPeer::start()), 1, 20, &["-u", "carol", "-W", SECRET]);
}

#[test]
fn turnutils_uclient_with_a_wrong_password_gets_nothing() {
    let server = Server::start(LOOPBACK_PEERS);
    let address = server.turn();
    let mut command = Command::new("turnutils_uclient");
    command.args(["-c", "-y", "-n", "1", "-u", ALICE.0, "-w", "wrong"]);
    command.args(["-p", &address.port().to_string(), &address.ip().to_string()]);
    let (_, output) = program::output(&mut command);
    assert!(output.contains("Cannot complete Allocation"), "{output}");
    assert_eq!(server.scrape().sum("passerelle_turn_allocations_created_total", &[]), 0.0);
}

/// A client of the `turn` crate on a socket of its own.
async fn turn_client(server: SocketAddr, password: &str) -> Client {
    let client = Client::new(ClientConfig {
        stun_serv_addr: server.to_string(),
        turn_serv_addr: server.to_string(),
        username: ALICE.0.to_owned(),
        password: password.to_owned(),
        realm: REALM.to_owned(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap()),
        vnet: None,
    })
    .await
    .unwrap();
    client.listen().await.unwrap();
    client
}

#[tokio::test]
async fn the_turn_crate_learns_its_address() {
    let server = Server::start("");
    let client = turn_client(server.turn(), ALICE.1).await;
    let mapped = timeout(PATIENCE, client.send_binding_request()).await.unwrap().unwrap();
    assert_eq!(mapped.ip(), server.turn().ip());
    client.close().await.unwrap();
}

#[tokio::test]
async fn the_turn_crate_relays_first_by_indication_and_then_by_channel() {
    let server = Server::start(LOOPBACK_PEERS);
    let peer = EchoPeer::start();
    let client = turn_client(server.turn(), ALICE.1).await;
    let relay = timeout(PATIENCE, client.allocate()).await.unwrap().unwrap();
    assert_eq!(relay.local_addr().unwrap().ip(), server.turn().ip());
    let mut buffer = [0; 2048];
    // The first packets go as Send indications; behind them the client binds a channel, and then uses it.
    let deadline = std::time::Instant::now() + PATIENCE;
    for number in 0u32.. {
        let data = format!("packet {number}");
        timeout(PATIENCE, relay.send_to(data.as_bytes(), peer.address)).await.unwrap().unwrap();
        let (length, source) = timeout(PATIENCE, relay.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!((&buffer[..length], source), (data.as_bytes(), peer.address));
        if number >= 20 && server.scrape().sum("passerelle_turn_channels", &[]) == 1.0 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "no channel was bound");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    timeout(PATIENCE, relay.close()).await.unwrap().unwrap();
    client.close().await.unwrap();
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
    assert!(peer.stop().iter().all(|source| source.ip() == server.turn().ip()));
}

#[tokio::test]
async fn the_turn_crate_with_a_wrong_password_gets_nothing() {
    let server = Server::start("");
    let client = turn_client(server.turn(), "wrong").await;
    assert!(timeout(PATIENCE, client.allocate()).await.unwrap().is_err());
    client.close().await.unwrap();
    assert_eq!(server.scrape().sum("passerelle_turn_allocations_created_total", &[]), 0.0);
}

#[test]
fn two_agents_of_aioice_talk_over_relayed_candidates_alone() {
    let server = Server::start(LOOPBACK_PEERS);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/py");
    let mut command = Command::new(tests.join(".venv/bin/python"));
    let address = server.turn();
    command.arg(tests.join("aioice_turn.py")).args([&address.ip().to_string(), &address.port().to_string()]);
    let (success, output) = program::output(command.args([ALICE.0, ALICE.1]));
    assert!(success, "{output}");
    for line in ["binding: ok", "relayed: ok", "refused: ok"] {
        assert!(output.lines().any(|found| found == line), "{output}");
    }
    // Its agents free what they allocated.
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
    server.stop();
}
