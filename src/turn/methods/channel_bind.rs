//! ChannelBind (RFC 8656 section 12).

use std::sync::Arc;

use crate::stun::{Message, attribute};
use crate::turn::answer::Success;
use crate::turn::channel::Refused;
use crate::turn::long_term::Authenticated;
use crate::turn::server::Server;
use crate::turn::{ChannelNumber, FiveTuple, Now, Reject};

use super::peer_address;

impl Server {
    /// Binds or refreshes a channel and its permission.
    pub(in crate::turn) fn channel_bind(
        &mut self,
        from: &FiveTuple,
        message: &Message<'_>,
        by: &Authenticated,
        now: Now,
    ) -> Result<Success, Reject> {
        let (shared, settings, stats) =
            (Arc::clone(&self.shared), self.settings.clone(), Arc::clone(&self.stats));
        let config = &settings.config;
        let tick = self.deadlines.tick(now.instant);
        let (slot, allocation) = self.owned_mut(from, by, tick)?;
        let number = match message.first(attribute::CHANNEL_NUMBER) {
            Some([high, low, _, _]) => u16::from_be_bytes([*high, *low]),
            _ => return Err(Reject::Attribute("CHANNEL-NUMBER")),
        };
        let number =
            ChannelNumber::bindable(number, config.wide_channel_range).ok_or(Reject::ChannelNumber)?;
        let peer = peer_address(message)?;
        if !allocation.serves(peer.ip()) {
            return Err(Reject::FamilyMismatch);
        }
        let permitted =
            shared.check(&settings.policy, peer.ip(), Some(peer.port())).map_err(Reject::PeerDenied)?;
        let bound = allocation.change(&stats, |found| {
            if !found.permissions.fit(&[permitted], tick, config.limits.permissions) {
                return Err(Refused::Full);
            }
            found.channels.bind(number, peer, tick, config.limits.channels)?;
            found.permissions.install(permitted, tick);
            Ok(())
        });
        bound.map_err(|refused| match refused {
            Refused::Conflict => Reject::ChannelConflict,
            Refused::Full => Reject::TableFull,
        })?;
        self.arm(slot);
        Ok(Success::ChannelBind)
    }
}
