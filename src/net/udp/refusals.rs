//! Destinations to which the kernel does not cut groups of datagrams: remembered for a while, then tried again.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::RandomState;

/// How long a refusal holds.
const MEMORY: Duration = Duration::from_secs(60);
/// Destinations remembered; others that fall on the same place replace them, which costs a probe.
const PLACES: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Refusal {
    destination: IpAddr,
    /// Datagrams of this size or larger are refused.
    size: usize,
    until: Instant,
}

/// A table of fixed size, so that no number of destinations makes it grow.
#[derive(Debug)]
pub(super) struct Refusals {
    places: Box<[Option<Refusal>]>,
    hasher: RandomState,
    /// When the last of them is over: the usual case is that there is none.
    until: Option<Instant>,
}

impl Refusals {
    pub(super) fn new() -> Self {
        Self { places: vec![None; PLACES].into(), hasher: RandomState::new(), until: None }
    }

    /// Whether datagrams of this size to this destination may be grouped.
    pub(super) fn allow(&self, destination: IpAddr, size: usize, now: Instant) -> bool {
        if self.until.is_none_or(|until| until <= now) {
            return true;
        }
        let place = self.places.get(self.place(destination)).copied().flatten();
        place.is_none_or(|found| found.destination != destination || found.until <= now || size < found.size)
    }

    /// Remembers that a group was refused: of this size and larger, or whatever its size.
    pub(super) fn remember(&mut self, destination: IpAddr, size: Option<usize>, now: Instant) {
        let until = now + MEMORY;
        let place = self.place(destination);
        if let Some(place) = self.places.get_mut(place) {
            *place = Some(Refusal { destination, size: size.unwrap_or(0), until });
            self.until = Some(until);
        }
    }

    fn place(&self, destination: IpAddr) -> usize {
        self.hasher.hash_one(destination) as usize % PLACES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_for_its_destination_its_size_and_its_time() {
        let (mut refusals, now) = (Refusals::new(), Instant::now());
        let [here, there]: [IpAddr; 2] = ["9.9.9.9".parse().unwrap(), "2001:db8::9".parse().unwrap()];
        assert!(refusals.allow(here, 1400, now));
        refusals.remember(here, Some(1400), now);
        assert!(!refusals.allow(here, 1400, now));
        assert!(!refusals.allow(here, 1500, now));
        assert!(refusals.allow(here, 1399, now));
        assert!(refusals.allow(there, 1400, now));
        assert!(refusals.allow(here, 1400, now + MEMORY), "and is probed again");
        refusals.remember(here, None, now);
        assert!(!refusals.allow(here, 1, now));
    }
}
