//! The pure modules of passerelle, compiled alone.

#[path = "../src/signaling/mod.rs"]
pub mod signaling;
#[path = "../src/stun/mod.rs"]
pub mod stun;
#[path = "../src/turn/mod.rs"]
pub mod turn;
