//! Send indications (RFC 8656 section 11.2): what cannot be relayed is dropped in silence and counted.

use std::sync::Arc;

use crate::stun::attribute::{self, Family};
use crate::stun::{Message, Method};
use crate::turn::server::Server;
use crate::turn::{Direction, DropReason, FiveTuple, Now, RelayId, Verdict};

impl Server {
    /// Relays the DATA of a Send indication.
    pub(in crate::turn) fn send(&mut self, from: &FiveTuple, message: &Message<'_>, now: Now) -> Verdict {
        self.stats.request(Method::Send, from.transport);
        self.try_send(from, message, now).unwrap_or_else(|reason| self.drop(Direction::ToPeer, reason))
    }

    fn try_send(&mut self, from: &FiveTuple, message: &Message<'_>, now: Now) -> Result<Verdict, DropReason> {
        if !message.unknown_required(&mut [0]).is_empty() {
            return Err(DropReason::UnknownAttribute);
        }
        let peer =
            message.xor_address(attribute::XOR_PEER_ADDRESS).flatten().ok_or(DropReason::Incomplete)?;
        let payload = message.first_range(attribute::DATA).ok_or(DropReason::Incomplete)?;
        let shared = Arc::clone(&self.shared);
        let policy = Arc::clone(&self.settings.policy);
        let tick = self.deadlines.tick(now.instant);
        let (slot, allocation) = self.live_mut(from, tick).ok_or(DropReason::NoAllocation)?;
        if !allocation.permissions.allows(peer.ip(), tick) || !allocation.serves(peer.ip()) {
            return Err(DropReason::NoPermission);
        }
        if let Err(rule) = shared.check(&policy, peer.ip(), Some(peer.port())) {
            self.stats.peer_denied(rule);
            return Err(DropReason::PeerDenied);
        }
        if !allocation.relay(Direction::ToPeer, payload.len(), now.instant) {
            return Err(DropReason::Bandwidth);
        }
        self.stats.relayed(Direction::ToPeer, payload.len());
        Ok(Verdict::ToPeer {
            relay: RelayId { slot, family: Family::of(peer.ip()) },
            peer: self.looped(peer),
            payload,
            dont_fragment: message.first(attribute::DONT_FRAGMENT).is_some(),
        })
    }
}
