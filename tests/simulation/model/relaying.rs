//! Where data has to go.

use std::net::SocketAddr;

use passerelle::stun::attribute::Family;
use passerelle::turn::{Direction, DropReason, Measure};

use super::{Expected, Id, Model};
use crate::simulation::clock::Clock;
use crate::simulation::wire::{Datagram, Noise, Send};

/// What fits into a datagram.
const MAX_DATAGRAM: usize = 65_507;

impl Model {
    /// Anything a client sends.
    pub fn on_client(&mut self, id: Id, datagram: &Datagram, clock: &Clock) -> Expected {
        if id.1.client.port() == 0 {
            return self.drop(id.0, Direction::ToPeer, DropReason::SourcePort);
        }
        let relayed = match datagram {
            Datagram::Request(request) => return self.on_request(id, request, clock),
            Datagram::Send(send) => self.on_send(id, send, clock),
            Datagram::ChannelData { number, length, claimed } => {
                self.on_channel_data(id, *number, *length, *claimed, clock)
            }
            Datagram::Noise(noise) => Err(match noise {
                Noise::NotStun => DropReason::NotStun,
                Noise::Truncated => DropReason::Malformed,
                Noise::BadFingerprint => DropReason::Fingerprint,
                Noise::Response => DropReason::Unexpected,
                Noise::UnknownMethod => DropReason::UnknownMethod,
                Noise::KeepAlive => DropReason::KeepAlive,
            }),
        };
        relayed.unwrap_or_else(|reason| self.drop(id.0, Direction::ToPeer, reason))
    }

    fn on_send(&mut self, id: Id, send: &Send, clock: &Clock) -> Result<Expected, DropReason> {
        self.count(id.0, Measure::Requests("send", id.1.transport), 1);
        if send.unknown_attribute {
            return Err(DropReason::UnknownAttribute);
        }
        let peer = send.peer.ok_or(DropReason::Incomplete)?;
        let length = send.length.ok_or(DropReason::Incomplete)?;
        let found = self.live(id, clock.second()).ok_or(DropReason::NoAllocation)?;
        if !found.permits(peer.ip(), clock.second()) {
            return Err(DropReason::NoPermission);
        }
        if let Some(rule) = self.denied(peer.ip(), Some(peer.port())) {
            self.count(id.0, Measure::PeerDenied(rule), 1);
            return Err(DropReason::PeerDenied);
        }
        self.relay_to_peer(id, peer, length, send.dont_fragment, clock)
    }

    fn on_channel_data(
        &mut self,
        id: Id,
        number: u16,
        length: usize,
        claimed: usize,
        clock: &Clock,
    ) -> Result<Expected, DropReason> {
        if !(0x4000..0x8000).contains(&number) {
            // Its first bits are those of another protocol.
            return Err(DropReason::NotStun);
        }
        if claimed > length {
            return Err(DropReason::ChannelLength);
        }
        let found = self.live(id, clock.second()).ok_or(DropReason::NoAllocation)?;
        let bound = found.channels.get(&number).filter(|channel| channel.ends > clock.second());
        let peer = bound.ok_or(DropReason::NoChannel)?.peer;
        self.relay_to_peer(id, peer, claimed, false, clock)
    }

    fn relay_to_peer(
        &mut self,
        id: Id,
        peer: SocketAddr,
        length: usize,
        dont_fragment: bool,
        clock: &Clock,
    ) -> Result<Expected, DropReason> {
        let found = self.live(id, clock.second()).ok_or(DropReason::NoAllocation)?;
        let relayed = *found.relayed(Family::of(peer.ip())).ok_or(DropReason::NoPermission)?;
        if !found.relay(Direction::ToPeer, length, clock.millis) {
            return Err(DropReason::Bandwidth);
        }
        self.relayed(id.0, Direction::ToPeer, length);
        Ok(Expected::ToPeer { local: relayed.local, peer: self.looped(peer), length, dont_fragment })
    }

    /// A datagram from outside to the relayed address of an allocation, or to one that is gone.
    pub fn on_peer(
        &mut self,
        worker: usize,
        owner: Option<Id>,
        source: SocketAddr,
        length: usize,
        clock: &Clock,
    ) -> Expected {
        let relayed = self.relay_to_client(owner, source, length, clock);
        relayed.unwrap_or_else(|reason| self.drop(worker, Direction::ToClient, reason))
    }

    fn relay_to_client(
        &mut self,
        owner: Option<Id>,
        source: SocketAddr,
        length: usize,
        clock: &Clock,
    ) -> Result<Expected, DropReason> {
        let second = clock.second();
        let peer = self.external(source);
        let id = owner.ok_or(DropReason::NoAllocation)?;
        let found = self.live(id, second).ok_or(DropReason::NoAllocation)?;
        if !found.permits(peer.ip(), second) {
            return Err(DropReason::NoPermission);
        }
        let channel = found.channel_of(peer, second);
        let padded = length.next_multiple_of(4);
        let size = match channel {
            Some(_) if id.1.transport.is_stream() => 4 + padded,
            Some(_) => 4 + length,
            None if peer.is_ipv4() => 36 + padded,
            None => 48 + padded,
        };
        // A stream carries what LENGTH can say; a datagram has less room.
        let stream = id.1.transport.is_stream();
        let longest = if stream { 20 + usize::from(u16::MAX) } else { MAX_DATAGRAM };
        if size > longest && !(stream && channel.is_some()) {
            return Err(DropReason::TooLong);
        }
        if !found.relay(Direction::ToClient, length, clock.millis) {
            return Err(DropReason::Bandwidth);
        }
        let credential = found.credential;
        if found.begins_to_carry() {
            self.carrying.push(credential);
        }
        self.relayed(id.0, Direction::ToClient, length);
        Ok(Expected::ToClient { channel, peer })
    }

    fn relayed(&mut self, worker: usize, direction: Direction, length: usize) {
        self.count(worker, Measure::Packets(direction), 1);
        self.count(worker, Measure::Bytes(direction), length as u64);
    }
}
