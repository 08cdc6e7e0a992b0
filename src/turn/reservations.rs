//! Ports kept for a RESERVATION-TOKEN (RFC 8656 section 7.2): 30 seconds, for whichever worker the token comes to.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ahash::RandomState;
use parking_lot::Mutex;

use super::PortLease;

/// How long a token is good (RFC 8656 section 7.2: at least 30 s).
const LIFETIME: Duration = Duration::from_secs(30);

/// The reservations of the process. Bounded by the ports they hold.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    held: Mutex<HashMap<[u8; 8], (PortLease, Instant), RandomState>>,
}

impl Reservations {
    /// Keeps a port for the token.
    pub(super) fn keep(&self, token: [u8; 8], lease: PortLease, now: Instant) {
        self.held.lock().insert(token, (lease, now + LIFETIME));
    }

    /// Takes the port of a token, once.
    pub(super) fn take(&self, token: [u8; 8], now: Instant) -> Option<PortLease> {
        self.held.lock().remove(&token).filter(|(_, until)| *until > now).map(|(lease, _)| lease)
    }

    /// Gives back the ports of expired tokens.
    pub(super) fn expire(&self, now: Instant) {
        self.held.lock().retain(|_, (_, until)| *until > now);
    }

    /// When [`Reservations::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.held.lock().values().map(|(_, until)| *until).min()
    }
}
