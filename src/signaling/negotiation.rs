//! Offers and answers between the participants of one call: who waits for whom, and what was said already.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::signal::{Signal, SignalType};
use super::{Reject, UserId};

/// Longest time an unanswered offer holds back the other side's. A page that was reloaded never answers.
const OFFER_GUARD: Duration = Duration::from_secs(30);
/// Session descriptions remembered in one call.
const REMEMBERED: usize = 64;

/// Offers that wait for an answer, and descriptions forwarded lately.
#[derive(Debug, Default)]
pub(super) struct Negotiation {
    offers: HashMap<(UserId, UserId), Offer>,
    forwarded: VecDeque<Forwarded>,
}

#[derive(Debug)]
struct Offer {
    at: Instant,
    negotiation: Option<Value>,
}

#[derive(Debug)]
struct Forwarded {
    from: UserId,
    to: UserId,
    fingerprint: u64,
    at: Instant,
}

impl Negotiation {
    /// Whether the same description went to the same target within `window`; if not, it counts as gone now.
    pub(super) fn is_duplicate(
        &self,
        from: &UserId,
        to: &UserId,
        signal: &Signal,
        now: Instant,
        window: Duration,
    ) -> bool {
        let Some(fingerprint) = fingerprint(signal) else { return false };
        self.forwarded.iter().any(|earlier| {
            earlier.fingerprint == fingerprint
                && earlier.from == *from
                && earlier.to == *to
                && now.saturating_duration_since(earlier.at) < window
        })
    }

    /// Checks an offer or answer against what is under way. `polite`: the sender gives way to the target.
    pub(super) fn check(
        &self,
        from: &UserId,
        to: &UserId,
        signal: &Signal,
        polite: bool,
        now: Instant,
    ) -> Result<(), Reject> {
        let Some(theirs) = self.offers.get(&(to.clone(), from.clone())) else { return Ok(()) };
        if signal.is_offer() && polite && now.saturating_duration_since(theirs.at) < OFFER_GUARD {
            return Err(Reject::OfferCollision);
        }
        if signal.kind == SignalType::Answer
            && let (Some(asked), Some(answered)) = (&theirs.negotiation, &signal.negotiation)
            && asked != answered
        {
            return Err(Reject::StateConflict("the answer is to an older offer"));
        }
        Ok(())
    }

    /// Notes a description that was forwarded or queued.
    pub(super) fn note(&mut self, from: &UserId, to: &UserId, signal: &Signal, now: Instant) {
        let Some(fingerprint) = fingerprint(signal) else { return };
        if self.forwarded.len() >= REMEMBERED {
            self.forwarded.pop_front();
        }
        self.forwarded.push_back(Forwarded { from: from.clone(), to: to.clone(), fingerprint, at: now });
        // Either an answer to the other side's offer, or an offer that wins over it.
        self.offers.remove(&(to.clone(), from.clone()));
        if signal.is_offer() {
            let offer = Offer { at: now, negotiation: signal.negotiation.clone() };
            self.offers.insert((from.clone(), to.clone()), offer);
        }
    }

    /// Forgets everything about a user: a new device, or none any more.
    pub(super) fn forget(&mut self, user: &UserId) {
        self.offers.retain(|(from, to), _| from != user && to != user);
        self.forwarded.retain(|earlier| earlier.from != *user && earlier.to != *user);
    }
}

fn fingerprint(signal: &Signal) -> Option<u64> {
    let sdp = signal.sdp.as_ref()?;
    let mut hasher = DefaultHasher::new();
    (signal.kind, sdp).hash(&mut hasher);
    Some(hasher.finish())
}

/// Signals that wait for a participant who has not joined yet or reconnects. First in, first out.
#[derive(Debug, Default)]
pub(super) struct SignalQueue {
    waiting: VecDeque<Queued>,
    bytes: usize,
}

/// A signal in the queue, ready to be sent.
#[derive(Debug)]
pub(super) struct Queued {
    /// Who sent it.
    pub(super) from: UserId,
    /// What it is.
    pub(super) kind: SignalType,
    is_offer: bool,
    bytes: usize,
    /// The payload of `call:signal`.
    pub(super) payload: Arc<str>,
}

impl Queued {
    /// Wraps a stamped signal that was `bytes` long on the wire.
    pub(super) fn new(
        from: &UserId,
        kind: SignalType,
        is_offer: bool,
        bytes: usize,
        payload: Arc<str>,
    ) -> Self {
        Self { from: from.clone(), kind, is_offer, bytes, payload }
    }
}

impl SignalQueue {
    /// Adds a signal. A newer offer replaces the waiting one of the same sender together with its candidates, and
    /// touches nobody else's.
    ///
    /// # Errors
    /// The queue is full; nothing changed.
    pub(super) fn push(&mut self, queued: Queued, count: usize, bytes: usize) -> Result<(), Reject> {
        let replaces =
            queued.is_offer && self.waiting.iter().any(|other| other.is_offer && other.from == queued.from);
        let replaced = |other: &Queued| {
            replaces
                && other.from == queued.from
                && (other.is_offer || other.kind == SignalType::IceCandidate)
        };
        let gone: Vec<usize> = self.waiting.iter().filter(|other| replaced(other)).map(|q| q.bytes).collect();
        let kept_bytes = self.bytes.saturating_sub(gone.iter().sum());
        let kept = self.waiting.len().saturating_sub(gone.len());
        if kept >= count || kept_bytes.saturating_add(queued.bytes) > bytes {
            return Err(Reject::Capacity("signals wait for this participant"));
        }
        self.waiting.retain(|other| !replaced(other));
        self.bytes = kept_bytes.saturating_add(queued.bytes);
        self.waiting.push_back(queued);
        Ok(())
    }

    /// Removes what a sender who is gone has left.
    pub(super) fn forget(&mut self, from: &UserId) {
        self.waiting.retain(|queued| queued.from != *from);
        self.bytes = self.waiting.iter().map(|queued| queued.bytes).sum();
    }

    /// Takes everything, in order.
    pub(super) fn take(&mut self) -> VecDeque<Queued> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// How many signals wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}
