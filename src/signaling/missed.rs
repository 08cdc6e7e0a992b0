//! Calls that users have missed while they were away, until they come back.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::UserId;
use super::deadline::after;

/// Missed calls remembered for a user.
const PER_USER: usize = 20;
/// Users they are remembered for.
const USERS: usize = 10_000;
/// For how long.
const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// What absent users have missed. Bounded: the longest absent are forgotten first.
#[derive(Debug, Default)]
pub(super) struct Missed {
    users: HashMap<UserId, Away>,
    /// When each user is forgotten, oldest first. Some of them have come back already.
    order: VecDeque<(Instant, UserId)>,
}

/// What a user has missed.
#[derive(Debug)]
struct Away {
    forget_at: Instant,
    calls: VecDeque<Box<str>>,
}

impl Missed {
    /// Remembers a missed call.
    pub(super) fn add(&mut self, user: &UserId, call: &Value, now: Instant) {
        let Away { calls, .. } = self.users.entry(user.clone()).or_insert_with(|| {
            let forget_at = after(now, RETENTION);
            self.order.push_back((forget_at, user.clone()));
            Away { forget_at, calls: VecDeque::new() }
        });
        if calls.len() >= PER_USER {
            calls.pop_front();
        }
        calls.push_back(call.to_string().into());
        while self.users.len() > USERS {
            self.forget_oldest();
        }
        if self.order.len() > 2 * USERS {
            let users = &self.users;
            self.order.retain(|(at, user)| users.get(user).is_some_and(|away| away.forget_at == *at));
        }
    }

    /// Takes what a user who is back has missed, oldest first.
    pub(super) fn take(&mut self, user: &UserId) -> Vec<Value> {
        let Some(Away { calls, .. }) = self.users.remove(user) else { return Vec::new() };
        while self.order.front().is_some_and(|oldest| self.is_stale(oldest)) {
            self.order.pop_front();
        }
        calls.iter().filter_map(|call| serde_json::from_str(call).ok()).collect()
    }

    /// Forgets whoever was away for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.next().is_some_and(|at| at <= now) {
            self.forget_oldest();
        }
    }

    /// When [`Missed::expire`] wants to be called.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.front().map(|(at, _)| *at)
    }

    /// Whether a user has come back since.
    fn is_stale(&self, (at, user): &(Instant, UserId)) -> bool {
        self.users.get(user).is_none_or(|away| away.forget_at != *at)
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.order.pop_front()
            && !self.is_stale(&oldest)
        {
            self.users.remove(&oldest.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(name: impl std::fmt::Display) -> UserId {
        UserId(name.to_string().into())
    }

    #[test]
    fn the_latest_twenty_are_told_once() {
        let (mut missed, now) = (Missed::default(), Instant::now());
        (0..25).for_each(|n| missed.add(&user("a"), &json!(n), now));
        let told = missed.take(&user("a"));
        assert_eq!((told.len(), &told[0], &told[19]), (20, &json!(5), &json!(24)));
        assert!(missed.take(&user("a")).is_empty());
        assert_eq!(missed.next(), None);
    }

    #[test]
    fn whoever_stays_away_is_forgotten() {
        let (mut missed, now) = (Missed::default(), Instant::now());
        (0..USERS + 5).for_each(|n| missed.add(&user(n), &json!(n), now));
        assert_eq!((missed.users.len(), missed.order.len()), (USERS, USERS));
        assert!(missed.take(&user(4)).is_empty());
        missed.expire(now + RETENTION);
        assert!(missed.users.is_empty());
    }
}
