//! CreatePermission (RFC 8656 section 10): every peer of the request, or none.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::stun::{Message, address, attribute};
use crate::turn::answer::Success;
use crate::turn::long_term::Authenticated;
use crate::turn::server::Server;
use crate::turn::{FiveTuple, Now, PermittedPeer, Reject};

impl Server {
    /// Installs or refreshes permissions.
    pub(in crate::turn) fn create_permission(
        &mut self,
        from: &FiveTuple,
        message: &Message<'_>,
        by: &Authenticated,
        now: Now,
    ) -> Result<Success, Reject> {
        let (shared, settings, stats) =
            (Arc::clone(&self.shared), self.settings.clone(), Arc::clone(&self.stats));
        let tick = self.deadlines.tick(now.instant);
        let (slot, allocation) = self.owned_mut(from, by, tick)?;
        let capacity = settings.config.limits.permissions;
        let mut peers: SmallVec<[PermittedPeer; 4]> = SmallVec::new();
        for (_, value) in message.attributes().filter(|(kind, _)| *kind == attribute::XOR_PEER_ADDRESS) {
            let peer = address::decode(value, &message.transaction())
                .ok_or(Reject::Attribute("XOR-PEER-ADDRESS"))?;
            if !allocation.serves(peer.ip()) {
                return Err(Reject::FamilyMismatch);
            }
            let permitted = shared.check(&settings.policy, peer.ip(), None).map_err(Reject::PeerDenied)?;
            if peers.len() == capacity {
                return Err(Reject::TableFull);
            }
            peers.push(permitted);
        }
        if peers.is_empty() {
            return Err(Reject::Attribute("XOR-PEER-ADDRESS"));
        }
        let fits = allocation.change(&stats, |found| {
            let fits = found.permissions.fit(&peers, tick, capacity);
            if fits {
                peers.iter().for_each(|peer| found.permissions.install(*peer, tick));
            }
            fits
        });
        if !fits {
            return Err(Reject::TableFull);
        }
        self.arm(slot);
        Ok(Success::CreatePermission)
    }
}
