//! `turn-client-proto`, a client without input and output of its own, driven over a line.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use turn_client_proto::api::{BindChannelError, Transmit, TurnConfig, TurnEvent, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::stun::Instant as Moment;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::{AddressFamily, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

use crate::support::server::{ALICE, LOOPBACK_PEERS};
use crate::support::{EchoPeer, Everywhere, Line, PATIENCE, Transport};

/// The client, its line, and what it has told.
struct Driven<C> {
    client: C,
    line: Line,
    start: Instant,
    received: Vec<(SocketAddr, Vec<u8>)>,
}

impl<C: TurnClientApi> Driven<C> {
    fn new(client: C, line: Line) -> Self {
        Self { client, line, start: Instant::now(), received: Vec::new() }
    }

    fn now(&self) -> Moment {
        Moment::from_nanos(self.start.elapsed().as_nanos() as i64)
    }

    /// Sends what the client wants to send, and gives it what came.
    fn step(&mut self) {
        let now = self.now();
        let _ = self.client.poll(now);
        while let Some(transmit) = self.client.poll_transmit(now) {
            self.line.send(&transmit.data);
        }
        if let Some(mut bytes) = self.line.receive_within(Duration::from_millis(10)) {
            if bytes[0] & 0xC0 == 0x40 {
                // And it takes padding for the next message.
                bytes.truncate(4 + usize::from(u16::from_be_bytes([bytes[2], bytes[3]])));
            }
            let transmit = Transmit::new(
                bytes,
                self.client.transport(),
                self.client.remote_addr(),
                self.client.local_addr(),
            );
            match self.client.recv(transmit, self.now()) {
                TurnRecvRet::PeerData(data) => self.received.push((data.peer, data.data().to_vec())),
                // A challenge that did not help is ignored, and the client waits for a better answer.
                TurnRecvRet::Handled | TurnRecvRet::Ignored(_) => {}
                TurnRecvRet::PeerIcmp { .. } => panic!("nobody is at the peer's address"),
            }
        }
        while let Some(data) = self.client.poll_recv(self.now()) {
            self.received.push((data.peer, data.data().to_vec()));
        }
    }

    /// Goes on until the client tells what is wanted.
    #[track_caller]
    fn until<T>(&mut self, what: &str, wanted: impl Fn(&TurnEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.step();
            while let Some(event) = self.client.poll_event() {
                if let Some(found) = wanted(&event) {
                    return found;
                }
                let failed = matches!(
                    event,
                    TurnEvent::AllocationCreateFailed(_)
                        | TurnEvent::PermissionCreateFailed(..)
                        | TurnEvent::ChannelCreateFailed(..)
                );
                assert!(!failed, "{what}: {event:?}");
            }
        }
        panic!("waited in vain: {what}");
    }

    #[track_caller]
    fn echoes(&mut self, peer: SocketAddr, data: &[u8]) {
        let now = self.now();
        let transmit = self.client.send_to(TransportType::Udp, peer, data, now).unwrap();
        let mut bytes = transmit.expect("something to send").data.build();
        if self.line.is_stream() {
            // Version 0.7.3 forgets the padding of ChannelData in a stream (RFC 8656 section 12.5).
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        self.line.send(&bytes);
        let deadline = Instant::now() + PATIENCE;
        while self.received.is_empty() {
            assert!(Instant::now() < deadline, "no echo of {} bytes", data.len());
            self.step();
        }
        assert_eq!(self.received.remove(0), (peer, data.to_vec()));
    }
}

/// Allocates, permits, binds a channel, sends and receives both ways, and frees.
fn whole_life(client: impl TurnClientApi, line: Line, server: &Everywhere) {
    let peer = EchoPeer::start();
    let mut driven = Driven::new(client, line);
    let relayed = driven.until("an allocation", |event| match event {
        TurnEvent::AllocationCreated(TransportType::Udp, relayed) => Some(*relayed),
        _ => None,
    });
    assert_eq!(relayed.ip(), server.turn().ip());
    let now = driven.now();
    driven.client.create_permission(TransportType::Udp, peer.address.ip(), now).unwrap();
    driven.until("a permission", |event| matches!(event, TurnEvent::PermissionCreated(..)).then_some(()));
    let sizes = [1, 2, 3, 4, 160, 1199, 1200];
    for size in sizes {
        driven.echoes(peer.address, &vec![size as u8; size]);
    }
    let now = driven.now();
    let bound: Result<(), BindChannelError> =
        driven.client.bind_channel(TransportType::Udp, peer.address, now);
    bound.unwrap();
    driven.until("a channel", |event| matches!(event, TurnEvent::ChannelCreated(..)).then_some(()));
    server.await_metric("passerelle_turn_channels", &[], 1.0);
    for size in sizes {
        driven.echoes(peer.address, &vec![size as u8; size]);
    }
    let now = driven.now();
    driven.client.delete(now).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while server.scrape().sum("passerelle_turn_allocations", &[]) > 0.0 {
        assert!(Instant::now() < deadline, "the allocation is not freed");
        driven.step();
    }
    assert!(peer.stop().iter().all(|source| *source == relayed));
}

fn config(password: &str) -> TurnConfig {
    let mut config = TurnConfig::new(TurnCredentials::new(ALICE.0, password));
    config.set_address_family(AddressFamily::IPV4);
    config
}

#[test]
fn turn_client_proto_lives_its_whole_life_over_every_transport() {
    let server = Everywhere::start(LOOPBACK_PEERS);
    for transport in Transport::ALL {
        let line = server.line(transport);
        let local = line.local();
        match transport {
            Transport::Udp => {
                whole_life(TurnClientUdp::allocate(local, server.turn(), config(ALICE.1)), line, &server);
            }
            Transport::Tcp => {
                whole_life(TurnClientTcp::allocate(local, server.tcp[0], config(ALICE.1)), line, &server);
            }
            Transport::Tls => {
                whole_life(TurnClientTcp::allocate(local, server.tls[0], config(ALICE.1)), line, &server);
            }
        }
    }
}

#[test]
fn turn_client_proto_authenticates_with_sha_256() {
    use turn_client_proto::stun::types::message::IntegrityAlgorithm;
    let server = Everywhere::start(LOOPBACK_PEERS);
    for transport in [Transport::Udp, Transport::Tls] {
        let line = server.line(transport);
        let mut config = config(ALICE.1);
        config.set_supported_integrity(IntegrityAlgorithm::Sha256);
        if transport == Transport::Udp {
            whole_life(TurnClientUdp::allocate(line.local(), server.turn(), config), line, &server);
        } else {
            whole_life(TurnClientTcp::allocate(line.local(), server.tls[0], config), line, &server);
        }
    }
}

#[test]
fn turn_client_proto_with_a_wrong_password_gets_nothing() {
    let server = Everywhere::start("");
    let line = server.line(Transport::Tcp);
    let client = TurnClientTcp::allocate(line.local(), server.tcp[0], config("wrong"));
    let mut driven = Driven::new(client, line);
    let deadline = Instant::now() + PATIENCE;
    while server.scrape().sum("passerelle_turn_auth_failures_total", &[("reason", "wrong_password")]) == 0.0 {
        assert!(Instant::now() < deadline, "it does not even try");
        driven.step();
    }
    assert!(driven.client.relayed_addresses().next().is_none());
    assert_eq!(server.scrape().sum("passerelle_turn_allocations_created_total", &[]), 0.0);
}
