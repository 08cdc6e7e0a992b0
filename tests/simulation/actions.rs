//! What happens next: requests, data, sleeps to the edge of a lifetime, and what operators do.

use std::net::SocketAddr;
use std::rc::Rc;

use passerelle::stun::Algorithm;
use passerelle::turn::{EndReason, FiveTuple, RelayId};

use super::cast::{LISTENER, LOW_PORTS, PEERS, SPECIAL, address};
use super::check::{Wrong, ensure};
use super::model::Id;
use super::network::{News, Packet};
use super::wire::{Allocate, Ask, Datagram, Honesty, Noise, Nonce, PLAIN, Proof, Request, Send};
use super::world::World;

/// A moment at which something ends.
#[derive(Debug, Clone, Copy)]
enum Edge {
    Allocation,
    Permission(SocketAddr),
    Channel(u16, SocketAddr),
    /// Number and peer become free for others.
    Quarantine(u16, SocketAddr),
}

impl World {
    /// Does one thing and lets a little time pass.
    pub fn step(&mut self) -> Result<(), Wrong> {
        match self.chance.below(100) {
            0..=45 => self.request(),
            46..=56 => self.data_of_client(),
            57..=66 => self.data_of_peer()?,
            67 => self.burst_of_media()?,
            68..=73 => self.retransmit(),
            74..=85 => self.go_to_an_edge()?,
            86..=87 => self.nap()?,
            88..=89 => self.noise(),
            90..=91 => self.move_a_device(),
            92 if self.chance.percent(50) => self.late_datagram()?,
            92 => self.icmp_error()?,
            93 => self.burst_of_media()?,
            94 => self.jump_of_the_wall_clock(),
            95 => self.revoke()?,
            96..=97 => {
                let tightened = self.chance.percent(50);
                self.reconfigure(tightened)?;
            }
            98 if self.chance.percent(60) => self.disconnect()?,
            98 => self.broken_socket()?,
            _ => self.drain_or_stop()?,
        }
        let pause = self.chance.below(800) as u64;
        self.pass(pause)
    }

    fn send(&mut self, device: usize, datagram: Datagram) {
        let datagram = Rc::new(datagram);
        self.devices[device].last = Some(Rc::clone(&datagram));
        let packet = Packet::FromClient { from: self.devices[device].five_tuple, datagram };
        self.network.send(packet, self.clock.millis, &mut self.chance);
    }

    fn request(&mut self) {
        let device = self.chance.below(self.devices.len());
        let from = self.devices[device].five_tuple;
        let second = self.clock.second();
        let allocated = self.model.live((self.worker_of(&from), from), second).is_some();
        let ask = match self.chance.below(20) {
            0 => Ask::Binding,
            1..=2 => Ask::Allocate(self.allocate(device)),
            3..=12 if !allocated => Ask::Allocate(self.allocate(device)),
            3..=5 => self.refresh(),
            6..=13 => self.create_permission(),
            _ => self.channel_bind(),
        };
        let proof = self.proof(device);
        let datagram = Datagram::Request(Request {
            transaction: self.transaction(),
            proof: if ask == Ask::Binding { None } else { proof },
            ask,
            unknown_attribute: self.chance.below(50) == 49,
            fingerprint: self.chance.percent(30),
        });
        self.send(device, datagram);
    }

    fn transaction(&mut self) -> [u8; 12] {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.summary.inputs.to_be_bytes());
        self.summary.inputs += 1;
        id
    }

    /// The credentials a device sends: none before it knows a nonce, mostly its own and right ones after.
    fn proof(&mut self, device: usize) -> Option<Proof> {
        let nonce = self.devices[device].nonce.clone();
        let kind = self.chance.below(60);
        if nonce.is_none() && kind != 1 {
            return None;
        }
        let borrowed = self.chance.below(30) == 29;
        let credential = if borrowed {
            self.chance.below(super::cast::CREDENTIALS.len())
        } else {
            self.devices[device].credential
        };
        Some(Proof {
            credential,
            honesty: match kind {
                2 => Honesty::WrongPassword,
                3 => Honesty::UnknownUser,
                _ => Honesty::Honest,
            },
            nonce: match kind {
                1 => None,
                4 => Some(Nonce {
                    bytes: b"obMatJos2gAAAinvented".to_vec(),
                    client: address("0.0.0.0:0"),
                    expires: 0,
                }),
                5 => return None,
                _ => nonce,
            },
            algorithm: self.chance.pick(&[Algorithm::Md5, Algorithm::Sha256]),
            sha256: self.chance.percent(40),
            hashed: self.chance.percent(20),
        })
    }

    fn allocate(&mut self, device: usize) -> Allocate {
        let mut asked = PLAIN;
        asked.lifetime = self.lifetime();
        match self.chance.below(16) {
            0 => asked.transport = self.chance.pick(&[None, Some(6)]),
            1 => asked.family = self.chance.pick(&[Some(1), Some(9)]),
            2 | 3 => asked.family = Some(2),
            4 | 5 => asked.additional = Some(2),
            6 => asked.additional = Some(1),
            7 => (asked.family, asked.additional) = (Some(1), Some(2)),
            8 => asked.even_port = Some(false),
            9..=11 => asked.even_port = Some(true),
            12 => (asked.even_port, asked.additional) = (Some(self.chance.percent(50)), Some(2)),
            13 => (asked.even_port, asked.token) = (Some(true), Some([1; 8])),
            _ => {}
        }
        if self.chance.percent(25) {
            // Tokens work for whoever shows them: a reservation is no secret between a user's devices.
            let other = self.chance.below(self.devices.len());
            let token =
                self.devices[device].tokens.pop().or_else(|| self.devices[other].tokens.last().copied());
            asked.token = token.or(asked.token);
        }
        asked
    }

    fn lifetime(&mut self) -> Option<u32> {
        self.chance.pick(&[None, None, Some(1), Some(600), Some(777), Some(3600), Some(u32::MAX)])
    }

    fn refresh(&mut self) -> Ask {
        let lifetime = if self.chance.percent(25) { Some(0) } else { self.lifetime() };
        let family = if self.chance.percent(15) { Some(1 + self.chance.below(3) as u8) } else { None };
        Ask::Refresh { lifetime, family }
    }

    fn create_permission(&mut self) -> Ask {
        let count = self.chance.pick(&[0, 1, 1, 1, 1, 1, 2, 2, 3, 5]);
        Ask::CreatePermission { peers: (0..count).map(|_| self.peer()).collect() }
    }

    fn channel_bind(&mut self) -> Ask {
        let missing = self.chance.below(40);
        let number = self.channel_number();
        let peer = self.peer();
        Ask::ChannelBind { number: (missing != 1).then_some(number), peer: (missing != 2).then_some(peer) }
    }

    fn channel_number(&mut self) -> u16 {
        match self.chance.below(20) {
            0 => self.chance.pick(&[0x3FFF, 0x5000, 0x7FFF, 0x8000]),
            _ => 0x4000 + self.chance.below(4) as u16,
        }
    }

    /// Any peer: mostly one that may be reached.
    fn peer(&mut self) -> SocketAddr {
        match self.chance.below(20) {
            0 => address(self.chance.pick(&SPECIAL).0),
            1 => address(self.chance.pick(&LOW_PORTS)),
            2 => self.chance.pick(&[address(LISTENER), address("9.9.9.9:50001"), address("10.0.9.9:50002")]),
            3..=6 => self.relayed().map_or(address(PEERS[0]), |local| self.model.external(local)),
            _ => address(self.chance.pick(&PEERS)),
        }
    }

    /// The local side of some open relayed address.
    fn relayed(&mut self) -> Option<SocketAddr> {
        let open: Vec<SocketAddr> = self.sockets.keys().copied().collect();
        (!open.is_empty()).then(|| self.chance.pick(&open))
    }

    fn payload(&mut self) -> usize {
        match self.chance.below(30) {
            0 => 0,
            1 => 20_000,
            2 => self.chance.pick(&[65_503, 65_507, 65_472]),
            _ => self.chance.below(200),
        }
    }

    fn data_of_client(&mut self) {
        let device = self.chance.below(self.devices.len());
        let length = self.payload().min(65_000);
        let paths = self.paths();
        if !paths.is_empty() && self.chance.percent(60) {
            let (id, channel, peer) = self.chance.pick(&paths);
            let datagram = Rc::new(data(channel, peer, length));
            self.network.send(
                Packet::FromClient { from: id.1, datagram },
                self.clock.millis,
                &mut self.chance,
            );
            return;
        }
        let datagram = if self.chance.percent(50) {
            let peer = self.peer();
            let missing = self.chance.below(20);
            Datagram::Send(Send {
                peer: (missing != 1).then_some(peer),
                length: (missing != 2).then_some(length),
                unknown_attribute: missing == 3,
                dont_fragment: self.chance.percent(20),
            })
        } else {
            let claimed = if self.chance.below(20) == 19 { length + 1 } else { length };
            Datagram::ChannelData { number: self.channel_number(), length, claimed }
        };
        self.send(device, datagram);
    }

    fn data_of_peer(&mut self) -> Result<(), Wrong> {
        let length = self.payload();
        let paths = self.paths();
        if !paths.is_empty() && self.chance.percent(60) {
            let (id, _, peer) = self.chance.pick(&paths);
            return self.data_from(id, peer, length);
        }
        let Some(local) = self.relayed() else { return Ok(()) };
        let source = self.peer();
        self.network.send(Packet::FromPeer { local, source, length }, self.clock.millis, &mut self.chance);
        Ok(())
    }

    /// Every path that was opened: by a permission, or by a channel and its number.
    fn paths(&self) -> Vec<(Id, Option<u16>, SocketAddr)> {
        let mut paths = Vec::new();
        for found in self.model.allocations.values() {
            let ips = found.permissions.keys();
            paths.extend(ips.map(|ip| (found.id, None, SocketAddr::new(*ip, 5000))));
            paths.extend(found.channels.iter().map(|(number, bound)| (found.id, Some(*number), bound.peer)));
        }
        paths
    }

    /// Both sides of an established path send more than checks.
    fn burst_of_media(&mut self) -> Result<(), Wrong> {
        let paths = self.paths();
        if paths.is_empty() {
            return Ok(());
        }
        let (id, channel, peer) = self.chance.pick(&paths);
        for _ in 0..self.chance.below(8) {
            let length = self.chance.pick(&[200, 1200, 20_000, 20_001, 65_503]);
            self.data_from(id, peer, length)?;
            let length = length.min(20_001);
            let datagram = data(channel, peer, length);
            self.on_client(id.1, &datagram)?;
        }
        Ok(())
    }

    fn retransmit(&mut self) {
        let device = self.chance.below(self.devices.len());
        if let Some(datagram) = self.devices[device].last.clone() {
            let packet = Packet::FromClient { from: self.devices[device].five_tuple, datagram };
            self.network.send(packet, self.clock.millis, &mut self.chance);
        }
    }

    fn noise(&mut self) {
        let device = self.chance.below(self.devices.len());
        let noise = self.chance.pick(&[
            Noise::NotStun,
            Noise::Truncated,
            Noise::BadFingerprint,
            Noise::Response,
            Noise::UnknownMethod,
            Noise::KeepAlive,
        ]);
        self.send(device, Datagram::Noise(noise));
    }

    fn nap(&mut self) -> Result<(), Wrong> {
        let seconds = self.chance.pick(&[10, 31, 120, 301, 700, 4000]);
        self.note(format!("a nap of {seconds} s"));
        self.pass(seconds * 1000)
    }

    fn jump_of_the_wall_clock(&mut self) {
        self.clock.skew = self.chance.pick(&[0, 0, -60, 60, -3600, 3600, -86_400, 86_400]);
        self.note(format!("the wall clock is {} s ahead", self.clock.skew));
    }

    fn move_a_device(&mut self) {
        let device = self.chance.below(self.devices.len());
        self.devices[device].rebind(&mut self.chance);
        self.note(format!("device {device} is at {}", self.devices[device].five_tuple.client));
    }

    /// A datagram that was read before its socket was closed.
    fn late_datagram(&mut self) -> Result<(), Wrong> {
        let Some((worker, relay)) = self.closed.last().copied() else { return Ok(()) };
        let slot_in_use = |(other, found): &(usize, RelayId)| *other == worker && found.slot == relay.slot;
        if self.sockets.values().any(slot_in_use) {
            return Ok(());
        }
        self.on_peer(worker, relay, None, address(PEERS[0]), 100)
    }

    /// A router tells that what an allocation sent did not arrive.
    fn icmp_error(&mut self) -> Result<(), Wrong> {
        let Some(local) = self.relayed() else { return Ok(()) };
        let peer = self.peer();
        self.on_icmp(local, peer)
    }

    fn broken_socket(&mut self) -> Result<(), Wrong> {
        let Some(local) = self.relayed() else { return Ok(()) };
        let Some((worker, relay)) = self.sockets.get(&local).copied() else { return Ok(()) };
        self.note(format!("the socket at {local} broke"));
        if let Some(id) = self.owner(local) {
            self.model.end(id, EndReason::SocketFailed);
        }
        self.workers[worker].server.relay_failed(relay, self.clock.now());
        self.settle(worker)
    }

    fn revoke(&mut self) -> Result<(), Wrong> {
        let call = self.chance.pick(&["call-1", "call-2", "no such call"]);
        self.note(format!("revoked {call}"));
        for worker in 0..self.workers.len() {
            self.model.revoke(worker, call);
            self.workers[worker].server.revoke_call(call, self.clock.now());
            self.settle(worker)?;
        }
        Ok(())
    }

    fn disconnect(&mut self) -> Result<(), Wrong> {
        let device = self.chance.below(self.devices.len());
        let from = self.devices[device].five_tuple;
        let worker = self.worker_of(&from);
        self.note(format!("disconnected {}", from.client));
        self.model.end((worker, from), EndReason::Disconnected);
        self.workers[worker].server.disconnect(&from, self.clock.now());
        self.settle(worker)
    }

    fn drain_or_stop(&mut self) -> Result<(), Wrong> {
        if self.chance.percent(30) {
            self.note("draining".into());
            self.shared.drain();
            self.model.draining = true;
        } else if self.chance.percent(30) {
            self.note("shut down".into());
            for worker in 0..self.workers.len() {
                self.model.shut_down(worker);
                self.workers[worker].server.shut_down(self.clock.now());
                self.settle(worker)?;
            }
        }
        Ok(())
    }

    /// Sleeps until just before, at or just after the end of something, and tries it.
    fn go_to_an_edge(&mut self) -> Result<(), Wrong> {
        let mut edges = self.edges();
        if self.chance.percent(30) && edges.iter().any(|(.., edge)| matches!(edge, Edge::Quarantine(..))) {
            edges.retain(|(.., edge)| matches!(edge, Edge::Quarantine(..)));
        }
        if edges.is_empty() {
            return Ok(());
        }
        let (at, id, edge) = self.chance.pick(&edges);
        if !matches!(edge, Edge::Allocation) && self.chance.percent(70) {
            self.ask(id, Ask::Refresh { lifetime: Some(3600), family: None })?;
        }
        let second = (at + self.chance.below(3) as u64).saturating_sub(1);
        self.pass((second * 1000).saturating_sub(self.clock.millis))?;
        self.note(format!("at the edge of {edge:?} of {}", id.1.client));
        match edge {
            Edge::Allocation => {
                let again = Ask::Allocate(PLAIN);
                let refresh = Ask::Refresh { lifetime: None, family: None };
                let ask = if self.chance.percent(50) { again } else { refresh };
                self.ask(id, ask)
            }
            Edge::Permission(peer) => {
                self.data_from(id, peer, 11)?;
                self.on_client(id.1, &data(None, peer, 9)).map(drop)
            }
            Edge::Channel(number, peer) => {
                self.on_client(id.1, &data(Some(number), peer, 7))?;
                self.data_from(id, peer, 11)
            }
            Edge::Quarantine(number, peer) => {
                let other_number =
                    Ask::ChannelBind { number: Some(0x4000 + (number + 1) % 4), peer: Some(peer) };
                let other_peer = SocketAddr::new(peer.ip(), peer.port() ^ 1);
                let other_peer = Ask::ChannelBind { number: Some(number), peer: Some(other_peer) };
                let ask = if self.chance.percent(50) { other_number } else { other_peer };
                self.ask(id, ask)
            }
        }
    }

    fn edges(&self) -> Vec<(u64, Id, Edge)> {
        let rules = self.model.rules;
        let mut edges = Vec::new();
        for found in self.model.allocations.values() {
            let mut edge = |at, edge| edges.push((at, found.id, edge));
            edge(found.ends, Edge::Allocation);
            for (peer, ends) in &found.permissions {
                edge(*ends, Edge::Permission(SocketAddr::new(*peer, 5000)));
            }
            for (number, channel) in &found.channels {
                edge(channel.ends, Edge::Channel(*number, channel.peer));
                edge(channel.ends + rules.quarantine + 1, Edge::Quarantine(*number, channel.peer));
            }
        }
        edges.retain(|(at, ..)| *at >= self.clock.second());
        edges
    }

    /// A peer's datagram arrives now.
    fn data_from(&mut self, id: Id, peer: SocketAddr, length: usize) -> Result<(), Wrong> {
        let open = self.sockets.iter().map(|(local, (worker, relay))| (*local, *worker, *relay));
        let of_id = |local: &SocketAddr| {
            let found = self.model.allocations.values().find(|found| found.id == id);
            found.is_some_and(|found| found.relayed.iter().any(|relayed| relayed.local == *local))
        };
        match open.into_iter().find(|(local, ..)| of_id(local) && local.is_ipv4() == peer.is_ipv4()) {
            Some((local, worker, relay)) => self.on_peer(worker, relay, Some(local), peer, length),
            None => Ok(()),
        }
    }

    /// A client that loses no time: challenge and request arrive now.
    fn ask(&mut self, id: Id, ask: Ask) -> Result<(), Wrong> {
        let owner =
            self.model.allocations.values().find(|found| found.id == id).map(|found| found.credential);
        let Some(credential) = owner else { return Ok(()) };
        let nonce = self.challenge(id.1)?;
        let proof = Proof {
            credential,
            honesty: Honesty::Honest,
            nonce: Some(nonce),
            algorithm: Algorithm::Md5,
            sha256: false,
            hashed: false,
        };
        let transaction = self.transaction();
        let request =
            Request { ask, transaction, proof: Some(proof), unknown_attribute: false, fingerprint: false };
        self.on_client(id.1, &Datagram::Request(request)).map(drop)
    }

    fn challenge(&mut self, from: FiveTuple) -> Result<Nonce, Wrong> {
        let request = Request {
            ask: Ask::Allocate(PLAIN),
            transaction: self.transaction(),
            proof: None,
            unknown_attribute: false,
            fingerprint: false,
        };
        match self.on_client(from, &Datagram::Request(request))? {
            Some(News::Nonce(nonce)) => Ok(nonce),
            other => Err(format!("a challenge brought {other:?}")),
        }
    }

    /// Everything that is left runs out: nothing may remain.
    pub fn finish(&mut self) -> Result<(), Wrong> {
        self.pass(4_000_000)?;
        self.run_every_timer()?;
        ensure(self.model.allocations.is_empty(), || "an allocation outlived its longest lifetime".into())?;
        ensure(self.shared.ports_used() == 0, || "a port is never free again".into())
    }
}

/// Data from a client, on its channel or in a Send indication.
const fn data(channel: Option<u16>, peer: SocketAddr, length: usize) -> Datagram {
    match channel {
        Some(number) => Datagram::ChannelData { number, length, claimed: length },
        None => Datagram::Send(Send {
            peer: Some(peer),
            length: Some(length),
            unknown_attribute: false,
            dont_fragment: false,
        }),
    }
}
