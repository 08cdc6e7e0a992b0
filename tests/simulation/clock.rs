//! The two clocks of the simulation: one that only goes forward, one on the wall that jumps.

use std::time::{Duration, Instant};

use passerelle::turn::Now;

/// Unix time at which every simulation starts.
pub const START: u64 = 1_700_000_000;

/// Virtual time.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    /// Milliseconds since the start.
    pub millis: u64,
    /// How far the wall clock is ahead, in seconds.
    pub skew: i64,
}

impl Clock {
    pub fn new() -> Self {
        Self { start: Instant::now(), millis: 0, skew: 0 }
    }

    /// Whole seconds since the start: lifetimes count in these.
    pub const fn second(&self) -> u64 {
        self.millis / 1000
    }

    /// Seconds since the Unix epoch, as the wall clock has it.
    pub const fn unix(&self) -> u64 {
        (START + self.second()).saturating_add_signed(self.skew)
    }

    pub fn now(&self) -> Now {
        Now { instant: self.start + Duration::from_millis(self.millis), unix: self.unix() }
    }

    /// The first millisecond at or after an instant of this clock.
    pub fn millis_of(&self, instant: Instant) -> u64 {
        instant.duration_since(self.start).as_micros().div_ceil(1000) as u64
    }
}
