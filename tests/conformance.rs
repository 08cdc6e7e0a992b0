//! What the relay answers, on the wire: each answer of RFC 8489 and RFC 8656 that a client can provoke, one test each.
//!
//! The real binary runs as a child process; the client stands on another STUN codec than the server's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "turn_answers/allocate.rs"]
mod allocate;
#[path = "turn_answers/authentication.rs"]
mod authentication;
#[path = "turn_answers/binding.rs"]
mod binding;
#[path = "turn_answers/channel.rs"]
mod channel;
#[path = "turn_answers/permission.rs"]
mod permission;
#[path = "turn_answers/refresh.rs"]
mod refresh;
#[path = "turn_answers/relay.rs"]
mod relay;
mod support;
