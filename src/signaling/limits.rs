//! Token buckets. A bucket is the instant at which it will be full again, so an untouched one costs nothing.

use std::time::{Duration, Instant};

use super::config::Rate;

/// One bucket; its [`Rate`] comes in with each use, so that a reload applies at once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes one token.
    ///
    /// # Errors
    /// How long until there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let Some(interval) = rate.per.checked_div(rate.count) else { return Ok(()) };
        let capacity = interval.saturating_mul(rate.burst.max(1));
        let missing = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let spent = missing.saturating_add(interval);
        if spent > capacity {
            return Err(spent.saturating_sub(capacity));
        }
        self.full_at = now.checked_add(spent);
        Ok(())
    }

    /// When the bucket is full, that is, when it may be forgotten.
    pub(super) fn full_at(&self) -> Option<Instant> {
        self.full_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { count: 10, per: Duration::from_secs(1), burst: 3 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(bucket.take(RATE, start), Ok(()));
        }
        assert_eq!(bucket.take(RATE, start), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(RATE, start + Duration::from_millis(99)), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(RATE, start + Duration::from_millis(100)), Ok(()));
        assert!(bucket.take(RATE, start + Duration::from_millis(100)).is_err());
    }

    #[test]
    fn a_rest_never_saves_up_more_than_the_burst() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert_eq!(bucket.take(RATE, start), Ok(()));
        let later = start + Duration::from_secs(3600);
        let taken = (0..10).filter(|_| bucket.take(RATE, later).is_ok()).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn a_count_of_zero_turns_the_limit_off() {
        let mut bucket = Bucket::default();
        let off = Rate { count: 0, ..RATE };
        assert!((0..1000).all(|_| bucket.take(off, Instant::now()).is_ok()));
        assert_eq!(bucket.full_at(), None);
    }
}
