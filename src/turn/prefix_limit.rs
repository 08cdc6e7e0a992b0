//! How often one prefix is answered before it has proved its source address: a table of fixed size, so that spoofed
//! sources cost no memory and no victim is flooded.

use std::net::IpAddr;
use std::time::Instant;

use ahash::RandomState;

/// Buckets of the table. Prefixes that share one share its budget.
const BUCKETS: usize = 8192;
/// Fractions of an answer that a bucket counts in.
const UNIT: u64 = 1000;

/// A table of token buckets over /24 and /56 prefixes.
#[derive(Debug)]
pub(super) struct PrefixLimit {
    start: Instant,
    hasher: RandomState,
    buckets: Box<[Bucket]>,
}

/// Thousandths of answers spent, as of a millisecond since the start.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    spent: u32,
    at: u32,
}

impl PrefixLimit {
    /// An empty table; the seed keeps an attacker from choosing who shares a bucket.
    pub(super) fn new(start: Instant, seed: [u64; 2]) -> Self {
        let hasher = RandomState::with_seeds(seed[0], seed[1], !seed[0], !seed[1]);
        Self { start, hasher, buckets: vec![Bucket::default(); BUCKETS].into() }
    }

    /// Whether one more answer may go to the prefix of `client`, and spends it. Loopback is never limited: its
    /// addresses cannot be spoofed from outside.
    pub(super) fn spend(&mut self, client: IpAddr, now: Instant, per_second: u32, burst: u32) -> bool {
        if per_second == 0 || client.to_canonical().is_loopback() {
            return true;
        }
        let elapsed_ms = now.saturating_duration_since(self.start).as_millis() as u32;
        let Some(bucket) = self.bucket(client) else { return true };
        let regained = u64::from(elapsed_ms.wrapping_sub(bucket.at)) * u64::from(per_second);
        bucket.at = elapsed_ms;
        let spent = u64::from(bucket.spent).saturating_sub(regained);
        let room = u64::from(burst).saturating_mul(UNIT).min(u64::from(u32::MAX));
        let allowed = spent + UNIT <= room;
        bucket.spent = (spent + if allowed { UNIT } else { 0 }) as u32;
        allowed
    }

    /// Gives an answer back: its receiver followed it up, so its address was no spoofed one.
    pub(super) fn refund(&mut self, client: IpAddr) {
        if let Some(bucket) = self.bucket(client) {
            bucket.spent = bucket.spent.saturating_sub(UNIT as u32);
        }
    }

    fn bucket(&mut self, client: IpAddr) -> Option<&mut Bucket> {
        let prefix = match client.to_canonical() {
            IpAddr::V4(ip) => u128::from(u32::from(ip) >> 8),
            IpAddr::V6(ip) => u128::from(ip) >> 72,
        };
        let index = self.hasher.hash_one(prefix) as usize % BUCKETS;
        self.buckets.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limit() -> (PrefixLimit, Instant) {
        let start = Instant::now();
        (PrefixLimit::new(start, [1, 2]), start)
    }

    fn spend_all(limit: &mut PrefixLimit, ip: &str, now: Instant) -> usize {
        (0..1000).filter(|_| limit.spend(ip.parse().unwrap(), now, 10, 50)).count()
    }

    #[test]
    fn a_prefix_gets_its_burst_and_then_its_rate() {
        let (mut limit, start) = limit();
        assert_eq!(spend_all(&mut limit, "9.9.9.1", start), 50);
        assert_eq!(spend_all(&mut limit, "9.9.9.200", start), 0, "the same /24");
        assert_eq!(spend_all(&mut limit, "9.9.8.1", start), 50, "another /24");
        assert_eq!(spend_all(&mut limit, "9.9.9.1", start + Duration::from_secs(2)), 20);
        assert_eq!(spend_all(&mut limit, "9.9.9.1", start + Duration::from_secs(3600)), 50);
    }

    #[test]
    fn an_answer_that_was_followed_up_costs_nothing() {
        let (mut limit, start) = limit();
        for _ in 0..1000 {
            assert!(limit.spend("9.9.9.1".parse().unwrap(), start, 10, 50));
            limit.refund("9.9.9.1".parse().unwrap());
        }
    }

    #[test]
    fn loopback_and_a_rate_of_zero_are_unlimited() {
        let (mut limit, start) = limit();
        assert_eq!(spend_all(&mut limit, "127.0.0.1", start), 1000);
        assert!((0..1000).all(|_| limit.spend("9.9.9.1".parse().unwrap(), start, 0, 0)));
    }
}
