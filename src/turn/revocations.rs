//! Calls that are over and people who have left one: their credentials start no allocation any more, whatever their
//! expiry says.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ahash::RandomState;
use parking_lot::Mutex;

use super::Grant;

/// Calls that are remembered. Beyond that the oldest is forgotten, and its credentials end by their expiry.
const CAPACITY: usize = 65_536;

/// A user who is no part of a call any more. What is minted for it later, because it came back, has a higher serial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// The call, which may go on.
    pub call: Arc<str>,
    /// Who.
    pub user: Arc<str>,
    /// The last serial that was minted before ([`Grant::serial`]).
    pub serial: u64,
}

impl Departure {
    /// Whether it ends what a credential has started.
    pub(super) fn ends(&self, grant: &Grant) -> bool {
        grant.user == self.user && grant.serial <= self.serial && grant.call.as_ref() == Some(&self.call)
    }
}

/// The calls of the process that ended last, and who has left those that go on.
#[derive(Debug, Default)]
pub(super) struct Revocations(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    calls: HashMap<Arc<str>, Revoked, RandomState>,
    oldest_first: VecDeque<Arc<str>>,
}

#[derive(Debug)]
enum Revoked {
    /// The call is over.
    All,
    /// These have left it: user and last serial.
    Some(Vec<(Arc<str>, u64)>),
}

impl Revocations {
    /// Remembers that a call is over, for as long as for those that end together with it.
    pub(super) fn add(&self, call: &Arc<str>) {
        let inner = &mut *self.0.lock();
        if matches!(inner.calls.get(call), Some(Revoked::Some(_)))
            // It is among the last ones, mostly.
            && let Some(place) = inner.oldest_first.iter().rposition(|other| other == call)
        {
            // Its age counts from its end.
            inner.oldest_first.remove(place);
            inner.calls.remove(call);
        }
        *inner.entry(call) = Revoked::All;
    }

    /// Remembers that somebody has left a call.
    pub(super) fn depart(&self, departure: &Departure) {
        let Departure { call, user, serial } = departure;
        let inner = &mut *self.0.lock();
        let Revoked::Some(gone) = inner.entry(call) else { return };
        match gone.iter_mut().find(|(who, _)| who == user) {
            Some((_, last)) => *last = (*last).max(*serial),
            None => gone.push((Arc::clone(user), *serial)),
        }
    }

    /// Whether a call is known to be over.
    pub(super) fn contains(&self, call: &str) -> bool {
        matches!(self.0.lock().calls.get(call), Some(Revoked::All))
    }

    /// Whether a credential is good for nothing any more.
    pub(super) fn covers(&self, grant: &Grant) -> bool {
        let Some(call) = &grant.call else { return false };
        match self.0.lock().calls.get(call) {
            None => false,
            Some(Revoked::All) => true,
            Some(Revoked::Some(gone)) => {
                gone.iter().any(|(user, last)| *user == grant.user && grant.serial <= *last)
            }
        }
    }
}

impl Inner {
    /// What is known of a call; the oldest call makes room for it.
    fn entry(&mut self, call: &Arc<str>) -> &mut Revoked {
        if !self.calls.contains_key(call) {
            self.oldest_first.push_back(Arc::clone(call));
            if self.oldest_first.len() > CAPACITY
                && let Some(oldest) = self.oldest_first.pop_front()
            {
                self.calls.remove(&oldest);
            }
        }
        self.calls.entry(Arc::clone(call)).or_insert_with(|| Revoked::Some(Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(call: &str, user: &str, serial: u64) -> Grant {
        let call = Some(call.into());
        Grant { username: user.into(), user: user.into(), call, serial, expires_unix: None }
    }

    #[test]
    fn the_last_calls_are_remembered_and_no_more_than_fit() {
        let revocations = Revocations::default();
        let call = |number: usize| Arc::from(number.to_string());
        (0..=CAPACITY).for_each(|number| revocations.add(&call(number)));
        revocations.add(&call(CAPACITY));
        assert!(!revocations.contains("0"));
        assert!(revocations.contains("1") && revocations.contains(&CAPACITY.to_string()));
        let inner = revocations.0.lock();
        assert_eq!((inner.oldest_first.len(), inner.calls.len()), (CAPACITY, CAPACITY));
    }

    #[test]
    fn who_leaves_loses_what_was_minted_before_and_nobody_else_does() {
        let revocations = Revocations::default();
        let left = |serial| Departure { call: "c".into(), user: "ana".into(), serial };
        revocations.depart(&left(7));
        revocations.depart(&left(5));
        let is_covered = |user, serial| revocations.covers(&grant("c", user, serial));
        assert!(is_covered("ana", 0) && is_covered("ana", 7));
        assert!(!is_covered("ana", 8) && !is_covered("ben", 7) && !revocations.contains("c"));
        assert!(!revocations.covers(&grant("d", "ana", 7)));
        revocations.add(&"c".into());
        revocations.depart(&left(7));
        assert!(is_covered("ana", 8) && is_covered("ben", 9) && revocations.contains("c"));
    }
}
