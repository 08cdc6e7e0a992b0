//! The relay core as clients and peers see it, with a clock that the test moves.

mod allocations;
mod authentication;
mod harness;
mod relaying;
