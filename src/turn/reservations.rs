//! Ports kept for a RESERVATION-TOKEN (RFC 8656 section 7.2): 30 seconds, for whichever worker the token comes to.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::RandomState;
use parking_lot::Mutex;

use super::PortLease;
use super::quota::QuotaClaim;

/// How long a token is good (RFC 8656 section 7.2: at least 30 s).
const LIFETIME: Duration = Duration::from_secs(30);

/// A port that waits for its token. It counts as an allocation of whoever reserved it: reserving is no way around a
/// quota.
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) lease: PortLease,
    pub(super) quota: QuotaClaim,
}

/// The reservations of the process. Bounded by the ports they hold.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    held: Mutex<Held>,
    /// Entries of the queue: workers ask at every wake-up, and must not lock for "none".
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Held {
    reservations: HashMap<[u8; 8], Reservation, RandomState>,
    /// Every token that was given, oldest first: all are good for the same time.
    queue: VecDeque<([u8; 8], Instant)>,
}

impl Reservations {
    /// Keeps a port for the token.
    pub(super) fn keep(&self, token: [u8; 8], reservation: Reservation, now: Instant) {
        let held = &mut *self.held.lock();
        held.reservations.insert(token, reservation);
        held.queue.push_back((token, now + LIFETIME));
        self.waiting.store(held.queue.len(), Ordering::Relaxed);
    }

    /// Takes the port of a token, once.
    pub(super) fn take(&self, token: [u8; 8], now: Instant) -> Option<Reservation> {
        self.expire(now);
        self.held.lock().reservations.remove(&token)
    }

    /// Gives back the ports of expired tokens.
    pub(super) fn expire(&self, now: Instant) {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let held = &mut *self.held.lock();
        while let Some((token, _)) = held.queue.pop_front_if(|(_, until)| *until <= now) {
            held.reservations.remove(&token);
        }
        self.waiting.store(held.queue.len(), Ordering::Relaxed);
    }

    /// When [`Reservations::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.held.lock().queue.front().map(|(_, until)| *until)
    }
}
