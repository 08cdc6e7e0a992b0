//! Deadlines in order, at most one a key.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A set of keys, each with the instant at which it wants attention.
#[derive(Debug)]
pub(super) struct Deadlines<K> {
    order: BTreeSet<(Instant, K)>,
    armed: HashMap<K, Instant>,
}

impl<K: Ord + Hash + Clone> Deadlines<K> {
    pub(super) fn new() -> Self {
        Self { order: BTreeSet::new(), armed: HashMap::new() }
    }

    /// Sets, moves or (with `None`) clears the deadline of a key.
    pub(super) fn arm(&mut self, key: &K, at: Option<Instant>) {
        if self.armed.get(key).copied() == at {
            return;
        }
        if let Some(old) = self.armed.remove(key) {
            self.order.remove(&(old, key.clone()));
        }
        if let Some(at) = at {
            self.armed.insert(key.clone(), at);
            self.order.insert((at, key.clone()));
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes a key whose deadline has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.armed.remove(&key);
        Some(key)
    }

    /// Whether a key has a deadline.
    pub(super) fn is_armed(&self, key: &K) -> bool {
        self.armed.contains_key(key)
    }

    /// The key with the earliest deadline.
    pub(super) fn first(&self) -> Option<&K> {
        self.order.first().map(|(_, key)| key)
    }

    #[cfg(test)]
    pub(super) fn of(&self, key: &K) -> Option<Instant> {
        self.armed.get(key).copied()
    }

    /// How many keys have a deadline.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

/// `at + wait`, where a wait beyond any use (from a configuration) is cut to a century.
pub(super) fn after(at: Instant, wait: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    at.checked_add(wait.min(CENTURY)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_deadline_and_the_earliest_comes_first() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut deadlines = Deadlines::new();
        deadlines.arm(&'a', Some(at(1)));
        deadlines.arm(&'b', Some(at(2)));
        deadlines.arm(&'a', Some(at(3)));
        deadlines.arm(&'c', Some(at(1)));
        deadlines.arm(&'c', None);
        assert_eq!((deadlines.len(), deadlines.next()), (2, Some(at(2))));
        assert_eq!(deadlines.pop_due(at(1)), None);
        assert_eq!(deadlines.pop_due(at(3)), Some('b'));
        assert_eq!(deadlines.pop_due(at(3)), Some('a'));
        assert_eq!((deadlines.len(), deadlines.next()), (0, None));
    }
}
