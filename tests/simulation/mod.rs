//! A seeded simulation of the pure relay: clients, peers, several workers, a bad network and two clocks on one side, a
//! plain reference model on the other. After every input both have to agree on everything that can be seen.

#![allow(unreachable_pub, reason = "compiled into tests and fuzzers alike")]

mod actions;
mod cast;
mod chance;
mod check;
mod clock;
mod model;
mod network;
mod wire;
mod world;

use std::collections::BTreeSet;

use passerelle::turn::{DropReason, EndReason};

pub(crate) use chance::Chance;
use model::Rules;
use world::World;

/// Something made wrong on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// A permission lasts a second longer than the server keeps it.
    ALongerPermission,
    /// Number and peer of a channel are free a second sooner than the server frees them.
    AShorterQuarantine,
    /// A user may hold one allocation more than the server allows.
    AGenerousQuota,
    /// A socket is closed and its port is not given back.
    ALeakedPort,
    /// One datagram is counted twice.
    AMiscountedDrop,
}

impl Flaw {
    fn rules(self) -> Rules {
        let mut rules = Rules::default();
        match self {
            Self::ALongerPermission => rules.permission += 1,
            Self::AShorterQuarantine => rules.quarantine -= 1,
            Self::AGenerousQuota => rules.generosity = 1,
            Self::None | Self::ALeakedPort | Self::AMiscountedDrop => {}
        }
        rules
    }
}

/// What a simulation has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub inputs: u64,
    pub relayed: u64,
    /// Data from one relayed address to another of this server.
    pub hairpins: u64,
    pub carrying: u64,
    pub codes: BTreeSet<u16>,
    pub drops: BTreeSet<&'static str>,
    pub ends: BTreeSet<&'static str>,
}

impl Summary {
    fn answered(&mut self, code: u16) {
        self.codes.insert(code);
    }

    fn dropped(&mut self, reason: DropReason) {
        self.drops.insert(reason.label());
    }

    fn ended(&mut self, reason: EndReason) {
        self.ends.insert(reason.label());
    }

    /// Adds what another simulation has seen.
    pub fn add(&mut self, other: Self) {
        self.inputs += other.inputs;
        self.relayed += other.relayed;
        self.hairpins += other.hairpins;
        self.carrying += other.carrying;
        self.codes.extend(other.codes);
        self.drops.extend(other.drops);
        self.ends.extend(other.ends);
    }
}

/// Runs one simulation for at most `steps`, or until chance is exhausted, and then lets everything run out.
///
/// # Errors
/// What the server and the model did not agree on, with the inputs that led there.
pub(crate) fn run(chance: Chance, steps: usize, flaw: Flaw) -> Result<Summary, String> {
    let mut world = World::new(chance, flaw);
    let mut outcome = Ok(());
    for step in 0..steps {
        if world.chance.is_exhausted() {
            break;
        }
        outcome = world.step().map_err(|wrong| format!("step {step}: {wrong}"));
        if outcome.is_err() {
            break;
        }
    }
    match outcome.and_then(|()| world.finish()) {
        Ok(()) => Ok(world.summary),
        Err(wrong) => Err(format!("{wrong}\nafter{}", world.trail())),
    }
}
