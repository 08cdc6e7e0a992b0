//! Calls that are over: their credentials start no allocation any more, whatever their expiry says.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use ahash::RandomState;
use parking_lot::Mutex;

/// Calls that are remembered. Beyond that the oldest is forgotten, and its credentials end by their expiry.
const CAPACITY: usize = 65_536;

/// The calls of the process that ended last.
#[derive(Debug, Default)]
pub(super) struct Revocations(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    calls: HashSet<Arc<str>, RandomState>,
    oldest_first: VecDeque<Arc<str>>,
}

impl Revocations {
    /// Remembers that a call is over.
    pub(super) fn add(&self, call: &Arc<str>) {
        let inner = &mut *self.0.lock();
        if inner.calls.insert(Arc::clone(call)) {
            inner.oldest_first.push_back(Arc::clone(call));
        }
        if inner.oldest_first.len() > CAPACITY
            && let Some(oldest) = inner.oldest_first.pop_front()
        {
            inner.calls.remove(&oldest);
        }
    }

    /// Whether a call is known to be over.
    pub(super) fn contains(&self, call: &str) -> bool {
        self.0.lock().calls.contains(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_calls_are_remembered_and_no_more_than_fit() {
        let revocations = Revocations::default();
        let call = |number: usize| Arc::from(number.to_string());
        (0..=CAPACITY).for_each(|number| revocations.add(&call(number)));
        revocations.add(&call(CAPACITY));
        assert!(!revocations.contains("0"));
        assert!(revocations.contains("1") && revocations.contains(&CAPACITY.to_string()));
        assert_eq!(revocations.0.lock().oldest_first.len(), CAPACITY);
    }
}
