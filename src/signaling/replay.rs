//! What a session was sent and has not acknowledged yet, so that a later transport can be sent it again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ServerEvent;
use super::deadline::after;

/// What an event costs besides its payload.
const OVERHEAD: usize = 64;
/// Room that an empty ring may keep.
const SPARE: usize = 8;

/// The numbered events of a session, the latest of them still at hand. Their numbers have no gap: the last one is
/// `last`, the one before it `last - 1`.
#[derive(Debug, Default)]
pub(super) struct Replay {
    last: u64,
    sent: VecDeque<Sent>,
    bytes: usize,
}

#[derive(Debug)]
struct Sent {
    name: &'static str,
    payload: Arc<str>,
    at: Option<Instant>,
}

impl Replay {
    /// Numbers an event and keeps it; the oldest ones go where there is no room.
    pub(super) fn push(
        &mut self,
        name: &'static str,
        payload: &Arc<str>,
        at: Option<Instant>,
        (events, bytes): (usize, usize),
    ) -> u64 {
        self.last += 1;
        self.bytes += payload.len() + OVERHEAD;
        self.sent.push_back(Sent { name, payload: Arc::clone(payload), at });
        while self.sent.len() > events || self.bytes > bytes {
            self.forget_oldest();
        }
        self.last
    }

    /// The client has everything up to this number.
    pub(super) fn acknowledge(&mut self, seq: u64) {
        if seq > self.last {
            return;
        }
        while !self.sent.is_empty() && self.oldest() <= seq {
            self.forget_oldest();
        }
        self.trim();
    }

    /// Forgets what was sent longer than `window` ago. When the rest is that old is returned, if there is a rest.
    pub(super) fn expire(&mut self, window: Duration, now: Instant) -> Option<Instant> {
        let until = |sent: &Sent| sent.at.map(|at| after(at, window));
        while self.sent.front().is_some_and(|sent| until(sent).is_none_or(|until| until <= now)) {
            self.forget_oldest();
        }
        self.trim();
        self.sent.front().and_then(until)
    }

    /// Everything after this number, in order; `None` if some of it is gone, or was never sent.
    pub(super) fn since(&self, seq: u64) -> Option<Vec<ServerEvent>> {
        if seq > self.last || seq + 1 < self.oldest() {
            return None;
        }
        let numbered = (self.oldest()..).zip(&self.sent).skip_while(|(number, _)| *number <= seq);
        Some(
            numbered
                .map(|(number, sent)| ServerEvent {
                    name: sent.name,
                    seq: Some(number),
                    payload: Arc::clone(&sent.payload),
                })
                .collect(),
        )
    }

    /// Drops the oldest event; whether there was one.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let Some(sent) = self.sent.pop_front() else { return false };
        self.bytes = self.bytes.saturating_sub(sent.payload.len() + OVERHEAD);
        true
    }

    /// Bytes at hand.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    /// Number of the oldest event at hand; one more than the last if there is none.
    fn oldest(&self) -> u64 {
        self.last.saturating_sub(self.sent.len() as u64) + 1
    }

    fn trim(&mut self) {
        if self.sent.is_empty() && self.sent.capacity() > SPARE {
            self.sent = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(sent: usize, bounds: (usize, usize)) -> Replay {
        let mut ring = Replay::default();
        let payload: Arc<str> = "{}".into();
        for _ in 0..sent {
            ring.push("e", &payload, Some(Instant::now()), bounds);
        }
        ring
    }

    fn seqs(ring: &Replay, after: u64) -> Option<Vec<u64>> {
        Some(ring.since(after)?.iter().filter_map(|event| event.seq).collect())
    }

    #[test]
    fn what_was_not_acknowledged_comes_again_in_order() {
        let mut ring = ring(5, (10, 10_000));
        assert_eq!(seqs(&ring, 0), Some(vec![1, 2, 3, 4, 5]));
        ring.acknowledge(2);
        ring.acknowledge(1);
        ring.acknowledge(99);
        assert_eq!(seqs(&ring, 3), Some(vec![4, 5]));
        assert_eq!(seqs(&ring, 2), Some(vec![3, 4, 5]));
        assert_eq!(seqs(&ring, 1), None, "loss is not silent");
        assert_eq!(seqs(&ring, 5), Some(vec![]));
        assert_eq!(seqs(&ring, 6), None, "never sent");
        ring.acknowledge(5);
        assert_eq!((ring.bytes(), ring.len(), seqs(&ring, 5)), (0, 0, Some(vec![])));
    }

    #[test]
    fn a_ring_is_bounded_in_events_and_in_bytes() {
        assert_eq!(seqs(&ring(9, (3, 10_000)), 6), Some(vec![7, 8, 9]));
        assert_eq!(seqs(&ring(9, (3, 10_000)), 5), None);
        assert_eq!(ring(9, (100, 2 * (OVERHEAD + 2))).len(), 2);
        assert_eq!(ring(9, (100, 0)).len(), 0);
    }

    #[test]
    fn an_old_event_goes_and_an_idle_ring_costs_nothing() {
        let (mut ring, start) = (Replay::default(), Instant::now());
        let window = Duration::from_secs(120);
        let payload: Arc<str> = "{}".into();
        for second in 0..50 {
            ring.push("e", &payload, Some(start + Duration::from_secs(second)), (512, 100_000));
        }
        let later = start + Duration::from_secs(140);
        assert_eq!(ring.expire(window, later), Some(start + Duration::from_secs(141)));
        assert_eq!(ring.len(), 29);
        assert_eq!(ring.expire(window, start + Duration::from_secs(900)), None);
        assert_eq!((ring.sent.capacity(), ring.bytes()), (0, 0));
    }
}
