//! One file a method: what RFC 8656 demands of it, on tables that `server` owns.

mod allocate;
mod channel_bind;
mod create_permission;
mod refresh;
mod send;

use std::net::SocketAddr;
use std::time::Duration;

use super::{Config, ExpiryPolicy, Grant, Reject};
use crate::stun::{Message, attribute};

/// The lifetime granted for what LIFETIME asks (RFC 8656 section 7.2), cut where the credential ends sooner.
fn granted_lifetime(
    message: &Message<'_>,
    grant: &Grant,
    config: &Config,
    unix: u64,
) -> Result<Duration, Reject> {
    let asked = match message.first(attribute::LIFETIME) {
        None => config.lifetime_default,
        Some(value) => {
            let seconds = attribute::read_u32(value).ok_or(Reject::Attribute("LIFETIME"))?;
            Duration::from_secs(u64::from(seconds))
        }
    };
    let granted = asked.max(config.lifetime_default).min(config.lifetime_max);
    let until = grant.expires_unix.and_then(|expires| match config.expiry {
        ExpiryPolicy::Keep => None,
        ExpiryPolicy::Cut => Some(expires),
        ExpiryPolicy::Grace => Some(expires.saturating_add(config.expiry_grace.as_secs())),
    });
    match until.map(|until| until.saturating_sub(unix)) {
        Some(0) => Err(Reject::ExpiredCredential),
        Some(left) => Ok(granted.min(Duration::from_secs(left))),
        None => Ok(granted),
    }
}

/// XOR-PEER-ADDRESS, which the method cannot do without.
fn peer_address(message: &Message<'_>) -> Result<SocketAddr, Reject> {
    message.xor_address(attribute::XOR_PEER_ADDRESS).flatten().ok_or(Reject::Attribute("XOR-PEER-ADDRESS"))
}
