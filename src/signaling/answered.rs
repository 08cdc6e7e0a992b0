//! Requests that were handled already: one that comes again has its outcome again, and no second effect.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::Reject;

/// Requests remembered in a session.
const REMEMBERED: usize = 256;
/// Bytes of their outcomes.
const REMEMBERED_BYTES: usize = 64 * 1024;

/// The latest requests of a session that had a `msgId`.
#[derive(Debug, Default)]
pub(super) struct Answered {
    requests: VecDeque<Answer>,
    bytes: usize,
}

#[derive(Debug)]
struct Answer {
    hash: u64,
    id: Box<str>,
    /// As text: most outcomes are `{}`, and a map costs forty times as much.
    outcome: Result<Box<str>, Reject>,
}

impl Answer {
    fn weight(&self) -> usize {
        self.id.len() + self.outcome.as_ref().map_or(64, |text| text.len())
    }
}

impl Answered {
    /// The outcome of a request that was handled before.
    pub(super) fn outcome(&self, id: &str) -> Option<Result<Value, Reject>> {
        let hash = hash(id);
        let known = self.requests.iter().find(|known| known.hash == hash && *known.id == *id)?;
        Some(match &known.outcome {
            Ok(text) => serde_json::from_str(text).map_err(|_| Reject::Internal),
            Err(reject) => Err(reject.clone()),
        })
    }

    /// Remembers a request. One that was refused for its rate had no chance yet, and may come again.
    pub(super) fn remember(&mut self, id: &str, outcome: &Result<Value, Reject>) {
        if matches!(outcome, Err(Reject::RateLimited { .. })) {
            return;
        }
        let outcome = outcome.as_ref().map(|data| data.to_string().into()).map_err(Clone::clone);
        let answer = Answer { hash: hash(id), id: id.into(), outcome };
        self.bytes += answer.weight();
        self.requests.push_back(answer);
        while self.requests.len() > REMEMBERED || (self.bytes > REMEMBERED_BYTES && self.requests.len() > 1) {
            let gone = self.requests.pop_front();
            self.bytes = self.bytes.saturating_sub(gone.map_or(0, |answer| answer.weight()));
        }
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_256_requests_are_known_with_their_outcomes() {
        let mut answered = Answered::default();
        for n in 0..300 {
            answered.remember(&n.to_string(), &Ok(Value::from(n)));
        }
        assert_eq!(answered.outcome("299"), Some(Ok(Value::from(299))));
        assert_eq!(answered.outcome("44"), Some(Ok(Value::from(44))));
        assert_eq!(answered.outcome("43"), None);
    }

    #[test]
    fn large_outcomes_are_bounded_in_bytes() {
        let mut answered = Answered::default();
        let large = Ok(Value::from("x".repeat(10_000)));
        (0..50).for_each(|n| answered.remember(&n.to_string(), &large));
        assert!(answered.bytes <= REMEMBERED_BYTES && answered.requests.len() == 6);
        answered.remember("huge", &Ok(Value::from("x".repeat(REMEMBERED_BYTES))));
        assert!(answered.outcome("huge").is_some() && answered.requests.len() == 1);
    }

    #[test]
    fn a_refusal_is_an_outcome_unless_it_was_for_the_rate() {
        let mut answered = Answered::default();
        answered.remember("1", &Err(Reject::CallNotFound));
        let limited = Reject::RateLimited { limit: "join", retry_after: std::time::Duration::from_secs(1) };
        answered.remember("2", &Err(limited));
        assert_eq!(answered.outcome("1"), Some(Err(Reject::CallNotFound)));
        assert_eq!(answered.outcome("2"), None);
    }
}
