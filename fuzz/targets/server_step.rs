//! A sequence of server operations: the simulation, with the fuzzer deciding what happens.

use crate::simulation::{Chance, Flaw, run as simulate};

pub(super) fn run(bytes: &[u8]) {
    if let Err(wrong) = simulate(Chance::Bytes(bytes.to_vec(), 0), 64, Flaw::None) {
        panic!("{wrong}");
    }
}
