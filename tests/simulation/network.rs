//! The network between everyone: it loses, doubles, delays and reorders datagrams; streams it only delays.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use passerelle::turn::FiveTuple;

use super::chance::Chance;
use super::wire::{Datagram, Nonce};

/// Something on its way.
#[derive(Debug, Clone)]
pub enum Packet {
    FromClient { from: FiveTuple, datagram: Rc<Datagram> },
    FromPeer { local: SocketAddr, source: SocketAddr, length: usize },
    Answer { device: usize, news: News },
}

/// What a client learns from an answer.
#[derive(Debug, Clone)]
pub enum News {
    Nonce(Nonce),
    Token([u8; 8]),
}

/// Packets by the millisecond of their arrival.
#[derive(Debug, Default)]
pub struct Network {
    on_their_way: BTreeMap<(u64, u64), Packet>,
    sent: u64,
}

impl Network {
    /// Sends a packet, which arrives once, twice or never.
    pub fn send(&mut self, packet: Packet, millis: u64, chance: &mut Chance) {
        let reliable = matches!(&packet, Packet::FromClient { from, .. } if from.transport.is_stream());
        if reliable {
            self.arrive(packet, millis + 20);
            return;
        }
        let copies = [1, 1, 1, 1, 1, 1, 1, 1, 0, 2][chance.below(10)];
        for _ in 0..copies {
            let delay = if chance.percent(5) { 40_000 } else { 1 + chance.below(200) as u64 };
            self.arrive(packet.clone(), millis + delay);
        }
    }

    fn arrive(&mut self, packet: Packet, millis: u64) {
        self.sent += 1;
        self.on_their_way.insert((millis, self.sent), packet);
    }

    /// The next packet that arrives until `millis`, and when.
    pub fn next(&mut self, millis: u64) -> Option<(u64, Packet)> {
        let entry = self.on_their_way.first_entry().filter(|entry| entry.key().0 <= millis)?;
        let at = entry.key().0;
        Some((at, entry.remove()))
    }
}
