//! The relay under clients that nobody here wrote, over UDP, TCP and TLS: coturn's `turnutils_uclient`, the `turn`
//! crate's client, `turn-client-proto`, aioice, werift.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "turn_clients/bridge.rs"]
mod bridge;
#[path = "turn_clients/sans_io.rs"]
mod sans_io;
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use support::server::{ALICE, LOOPBACK_PEERS, REALM, SECRET};
use support::{EchoPeer, Everywhere, PATIENCE, Server, Transport, program};
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
    uclient_at(server.turn(), server, peer, sessions, messages, flags);
}

/// [`uclient`] at another listener than that of UDP.
#[track_caller]
fn uclient_at(
    address: SocketAddr,
    server: &Server,
    peer: Option<&EchoPeer>,
    sessions: u32,
    messages: u32,
    flags: &[&str],
) {
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
fn turnutils_uclient_loses_nothing_over_tcp_and_tls() {
    let server = Everywhere::start(UCLIENT);
    let peer = EchoPeer::start();
    for (address, transport) in [(server.tcp[0], &["-t"][..]), (server.tls[0], &["-t", "-S"])] {
        for way in [&[][..], &["-s"], &["-D"], &["-l", "1201"]] {
            let flags = [transport, way, &AS_ALICE].concat();
            uclient_at(address, &server, Some(&peer), 2, 50, &flags);
        }
        let flags = [transport, &["-y"], &AS_ALICE].concat();
        uclient_at(address, &server, None, 4, 50, &flags);
    }
    let created = |transport| {
        let labels = [("transport", transport), ("method", "allocate")];
        server.scrape().sum("passerelle_stun_requests_total", &labels)
    };
    assert!(created("tcp") > 10.0 && created("tls") > 10.0);
    server.await_metric("passerelle_turn_connections", &[], 0.0);
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
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
    relays_first_by_indication_and_then_by_channel(server.turn(), &server).await;
}

#[tokio::test]
async fn the_turn_crate_relays_over_tcp_and_tls_as_well() {
    let server = Everywhere::start(LOOPBACK_PEERS);
    for transport in Transport::STREAMS {
        let bridge = bridge::Bridge::start(server.line(transport));
        relays_first_by_indication_and_then_by_channel(bridge.address, &server).await;
    }
}

async fn relays_first_by_indication_and_then_by_channel(address: SocketAddr, server: &Server) {
    let peer = EchoPeer::start();
    let client = turn_client(address, ALICE.1).await;
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

/// Where a client in another language finds the server over a transport, and what it has to trust for that.
fn meeting(server: &Everywhere, transport: Transport) -> (SocketAddr, std::path::PathBuf) {
    let address = match transport {
        Transport::Udp => server.turn(),
        Transport::Tcp => server.tcp[0],
        Transport::Tls => server.tls[0],
    };
    (address, server.certificate.cert())
}

#[test]
fn two_agents_of_aioice_talk_over_relayed_candidates_alone() {
    let server = Everywhere::start(LOOPBACK_PEERS);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/py");
    for transport in Transport::ALL {
        let (address, certificate) = meeting(&server, transport);
        let mut command = Command::new(tests.join(".venv/bin/python"));
        command.env("SSL_CERT_FILE", certificate).arg(tests.join("aioice_turn.py"));
        command.args([&address.ip().to_string(), &address.port().to_string(), ALICE.0, ALICE.1]);
        let (success, output) = program::output(command.arg(transport.label()));
        assert!(success, "{transport:?}: {output}");
        let lines: &[&str] = if transport == Transport::Udp {
            &["binding", "relayed", "refused"]
        } else {
            &["relayed", "refused"]
        };
        for line in lines {
            assert!(output.contains(&format!("{line}: ok\n")), "{transport:?}: {output}");
        }
        // Its agents free what they allocated.
        server.await_metric("passerelle_turn_allocations", &[], 0.0);
    }
    server.stop();
}

#[test]
fn two_peers_of_werift_open_a_data_channel_over_relayed_candidates_alone() {
    let server = Everywhere::start(LOOPBACK_PEERS);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js/werift-relay.mjs");
    for transport in Transport::ALL {
        let (address, certificate) = meeting(&server, transport);
        let url = match transport {
            Transport::Udp => format!("turn:{address}?transport=udp"),
            Transport::Tcp => format!("turn:{address}?transport=tcp"),
            Transport::Tls => format!("turns:{address}?transport=tcp"),
        };
        let mut command = Command::new("node");
        command.env("NODE_EXTRA_CA_CERTS", certificate).arg(&script);
        let (success, output) = program::output(command.args([&url, ALICE.0, ALICE.1]));
        assert!(success && output.contains("relayed: ok"), "{url}: {output}");
        let labels = [("method", "allocate"), ("transport", transport.label())];
        assert!(
            server.scrape().sum("passerelle_stun_requests_total", &labels) >= 2.0,
            "not over {transport:?}"
        );
    }
    assert!(server.scrape().sum("passerelle_relay_packets_total", &[]) > 0.0);
}
