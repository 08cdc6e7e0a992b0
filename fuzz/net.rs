//! What of `net` reads from anything.

#[path = "../src/net/proxy.rs"]
pub mod proxy;
