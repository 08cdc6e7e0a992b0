//! A hashed timer wheel with ticks of one second. One entry an allocation, re-armed lazily: extending a lifetime costs
//! nothing, the old entry fires early and is armed again.

use std::time::{Duration, Instant};

/// Seconds since the server started: every lifetime in the tables is one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Tick(pub(super) u32);

impl Tick {
    /// This long from now, rounded up: nothing ever ends early.
    pub(super) fn after(self, lifetime: Duration) -> Self {
        Self(self.0.saturating_add(lifetime.as_secs().min(u64::from(u32::MAX)) as u32).saturating_add(1))
    }
}

/// Slots of the wheel; entries further away than a turn stay in their slot for several turns.
const SLOTS: usize = 1024;

/// The wheel.
#[derive(Debug)]
pub(super) struct Deadlines {
    start: Instant,
    slots: Vec<Vec<(Tick, u32)>>,
    /// Last tick that was fired.
    fired: Tick,
    armed: usize,
}

impl Deadlines {
    pub(super) fn new(start: Instant) -> Self {
        Self { start, slots: vec![Vec::new(); SLOTS], fired: Tick(0), armed: 0 }
    }

    /// The tick of a point in time.
    pub(super) fn tick(&self, instant: Instant) -> Tick {
        Tick(instant.saturating_duration_since(self.start).as_secs().min(u64::from(u32::MAX)) as u32)
    }

    /// Fires `slot` at the first timeout at or after `at`; returns the tick it is armed for.
    pub(super) fn arm(&mut self, at: Tick, slot: u32) -> Tick {
        let at = at.max(Tick(self.fired.0.saturating_add(1)));
        if let Some(entries) = self.slots.get_mut(at.0 as usize % SLOTS) {
            entries.push((at, slot));
            self.armed += 1;
        }
        at
    }

    /// Moves every entry due at `now` into `due`.
    pub(super) fn fire(&mut self, now: Tick, due: &mut Vec<(Tick, u32)>) {
        // After a long sleep one turn visits every slot.
        let turns = (now.0.saturating_sub(self.fired.0) as usize).min(SLOTS);
        for step in 0..turns {
            let index = (now.0 as usize).wrapping_sub(step) % SLOTS;
            let Some(entries) = self.slots.get_mut(index) else { continue };
            let before = entries.len();
            entries.retain(|entry| {
                let later = entry.0 > now;
                if !later {
                    due.push(*entry);
                }
                later
            });
            self.armed -= before - entries.len();
            if entries.is_empty() {
                entries.shrink_to(16);
            }
        }
        self.fired = self.fired.max(now);
    }

    /// When [`Deadlines::fire`] has something to look at; `None` when nothing is armed.
    pub(super) fn next(&self) -> Option<Instant> {
        (self.armed > 0).then(|| self.start + Duration::from_secs(u64::from(self.fired.0) + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_fires_once_at_or_after_its_tick() {
        let mut wheel = Deadlines::new(Instant::now());
        for at in 1..=5000u32 {
            wheel.arm(Tick(at), at);
        }
        let (mut due, mut seen) = (Vec::new(), Vec::new());
        for now in [1, 2, 3, 700, 701, 1800, 4999, 5000] {
            wheel.fire(Tick(now), &mut due);
            assert!(due.iter().all(|(at, _)| at.0 <= now));
            seen.extend(due.drain(..).map(|(_, slot)| slot));
            assert_eq!(seen.len(), now as usize, "all up to {now} fired");
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=5000).collect::<Vec<_>>());
        assert_eq!(wheel.next(), None);
    }
}
