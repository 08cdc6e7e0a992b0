//! Signaling under clients that nobody here wrote: the stock `socket.io-client` in Node over each of its transports, and
//! a plain WebSocket. The real binary runs as a child process; the same flows run on both framings.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "signaling_clients/device.rs"]
mod device;
#[path = "signaling_clients/golden.rs"]
mod golden;
#[path = "signaling_clients/ice.rs"]
mod ice;
#[path = "signaling_clients/limits.rs"]
mod limits;
#[path = "signaling_clients/outcomes.rs"]
mod outcomes;
#[path = "signaling_clients/records.rs"]
mod records;
#[path = "signaling_clients/refusals.rs"]
mod refusals;
#[path = "signaling_clients/resume.rs"]
mod resume;
mod support;
