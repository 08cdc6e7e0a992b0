//! What of `http` knows no socket.

#[path = "../src/http/inbound.rs"]
pub mod inbound;
