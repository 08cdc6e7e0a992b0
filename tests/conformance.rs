//! What RFC 8489, RFC 8656 and RFC 7443 ask of a server, sentence by sentence: the real binary as a child process, and
//! a client that stands on another STUN codec than the server's.
//!
//! Every test begins with the section and the sentence it is about; docs/conformance.md is made of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "conformance/page.rs"]
mod page;
#[path = "conformance/rfc7443/mod.rs"]
mod rfc7443;
#[path = "conformance/rfc8489/mod.rs"]
mod rfc8489;
#[path = "conformance/rfc8656/mod.rs"]
mod rfc8656;
mod support;
