//! Refresh (RFC 8656 section 8).

use std::sync::Arc;

use crate::stun::Message;
use crate::stun::attribute::{self, Family};
use crate::turn::answer::Success;
use crate::turn::long_term::Authenticated;
use crate::turn::server::Server;
use crate::turn::{EndReason, FiveTuple, Now, Reject};

use super::granted_lifetime;

impl Server {
    /// Extends or ends an allocation, or one of its two families (section 8.1).
    pub(in crate::turn) fn refresh(
        &mut self,
        from: &FiveTuple,
        message: &Message<'_>,
        by: &Authenticated,
        now: Now,
    ) -> Result<Success, Reject> {
        let config = Arc::clone(&self.settings.config);
        let tick = self.deadlines.tick(now.instant);
        let (slot, allocation) = self.owned_mut(from, by, tick)?;
        let family = match message.first(attribute::REQUESTED_ADDRESS_FAMILY).map(Family::from_value) {
            None => None,
            Some(Ok(family)) if allocation.relayed(family).is_some() => Some(family),
            Some(Ok(_) | Err([_, _, _, _])) => return Err(Reject::FamilyMismatch),
            Some(Err(_)) => return Err(Reject::Attribute("REQUESTED-ADDRESS-FAMILY")),
        };
        if message.first(attribute::LIFETIME) == Some(&[0; 4]) {
            match family.filter(|_| allocation.relayed.len() > 1) {
                Some(family) => self.release(slot, |relayed| relayed.family == family),
                None => self.end(slot, EndReason::Deleted, now.instant),
            }
            return Ok(Success::Refresh { lifetime: 0 });
        }
        let lifetime = granted_lifetime(message, &by.grant, &config, now.unix)?;
        allocation.extend(family, tick.after(lifetime));
        self.arm(slot);
        Ok(Success::Refresh { lifetime: lifetime.as_secs() as u32 })
    }
}
