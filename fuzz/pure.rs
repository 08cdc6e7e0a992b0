//! The pure modules of passerelle, and the decoders of the others, compiled alone.

#[path = "http.rs"]
pub mod http;
#[path = "net.rs"]
pub mod net;
#[path = "../src/signaling/mod.rs"]
pub mod signaling;
#[path = "../src/stun/mod.rs"]
pub mod stun;
#[path = "../src/turn/mod.rs"]
pub mod turn;
