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
    users: HashMap<UserId, VecDeque<Box<str>>>,
    /// When each user is forgotten, oldest first. Some of them have come back already.
    order: VecDeque<(Instant, UserId)>,
}

impl Missed {
    /// Remembers a missed call.
    pub(super) fn add(&mut self, user: &UserId, call: &Value, now: Instant) {
        let calls = self.users.entry(user.clone()).or_insert_with(|| {
            self.order.push_back((after(now, RETENTION), user.clone()));
            VecDeque::new()
        });
        if calls.len() >= PER_USER {
            calls.pop_front();
        }
        calls.push_back(call.to_string().into());
        if self.order.len() > USERS {
            self.forget_oldest();
        }
    }

    /// Takes what a user who is back has missed, oldest first.
    pub(super) fn take(&mut self, user: &UserId) -> Vec<Value> {
        let Some(calls) = self.users.remove(user) else { return Vec::new() };
        self.order.retain(|(_, other)| other != user);
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

    fn forget_oldest(&mut self) {
        if let Some((_, user)) = self.order.pop_front() {
            self.users.remove(&user);
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
