//! A thousand seeded simulations of the pure relay against a reference model.
//!
//! `SIMULATION_SEEDS=100000` runs more of them, `SIMULATION_SEED=42` runs one and says what led to its failure.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "simulation/mod.rs"]
mod simulation;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use simulation::{Chance, Flaw, Summary, run};

/// Things that happen in one simulation.
const STEPS: usize = 150;

fn seed(seed: u64, flaw: Flaw) -> Result<Summary, String> {
    run(Chance::Seeded(seed), STEPS, flaw).map_err(|wrong| format!("SIMULATION_SEED={seed}: {wrong}"))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number of seeds or a seed"))
}

/// Runs seeds on every core until one fails.
fn run_all(seeds: std::ops::Range<u64>) -> Result<Summary, String> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut total = Summary::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= seeds.end {
                return Ok(total);
            }
            match seed(at, Flaw::None) {
                Ok(summary) => total.add(summary),
                Err(wrong) => {
                    next.store(seeds.end, Ordering::Relaxed);
                    return Err(wrong);
                }
            }
        }
    };
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut total = Summary::default();
        for thread in threads {
            total.add(thread.join().unwrap()?);
        }
        Ok(total)
    })
}

#[test]
fn the_relay_does_what_the_model_says_whatever_the_network_does() {
    if let Some(one) = number("SIMULATION_SEED") {
        seed(one, Flaw::None).unwrap_or_else(|wrong| panic!("{wrong}"));
        return;
    }
    let seen =
        run_all(0..number("SIMULATION_SEEDS").unwrap_or(1000)).unwrap_or_else(|wrong| panic!("{wrong}"));
    let codes = [0, 300, 400, 401, 403, 420, 437, 438, 440, 441, 442, 443, 486, 508];
    assert_eq!(Vec::from_iter(seen.codes), codes, "every answer is met");
    let ends = ["deleted", "disconnected", "expired", "revoked", "shutdown", "socket_failed"];
    assert_eq!(Vec::from_iter(seen.ends), ends, "an allocation ends in every way it can");
    let drops = [
        "bandwidth",
        "channel_length",
        "fingerprint",
        "incomplete",
        "keep_alive",
        "malformed",
        "no_allocation",
        "no_channel",
        "no_permission",
        "not_stun",
        "peer_denied",
        "source_port",
        "too_long",
        "unexpected",
        "unknown_attribute",
        "unknown_method",
    ];
    assert_eq!(Vec::from_iter(seen.drops), drops, "every reason to drop but the limits of the shell is met");
    let Summary { relayed, hairpins, carrying, .. } = seen;
    assert!(relayed > 1000 && hairpins > 10 && carrying > 10, "data flowed: {relayed} {hairpins} {carrying}");
}

#[test]
fn the_same_seed_leads_to_the_same_simulation() {
    for at in 0..5 {
        assert_eq!(seed(at, Flaw::None), seed(at, Flaw::None));
    }
}

#[test]
fn a_flaw_planted_on_either_side_is_found() {
    let flaws = [
        Flaw::ALongerPermission,
        Flaw::AShorterQuarantine,
        Flaw::AGenerousQuota,
        Flaw::ALeakedPort,
        Flaw::AMiscountedDrop,
    ];
    for flaw in flaws {
        let found = (0..200).find_map(|at| seed(at, flaw).err());
        assert!(found.is_some(), "{flaw:?} went unnoticed");
    }
}

#[test]
fn bytes_can_decide_in_place_of_a_seed() {
    for at in 0..20 {
        let mut seeded = Chance::Seeded(at);
        let bytes: Vec<u8> = (0..1000).map(|_| seeded.bits() as u8).collect();
        let seen = run(Chance::Bytes(bytes, 0), STEPS, Flaw::None).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(seen.codes.contains(&401), "whoever has no nonce yet is challenged");
    }
}
