//! What the end-to-end tests share: the real binary as a child process, an independent STUN client, an echo peer.
//!
//! Nothing here uses the server's own code: [`stun_client`] stands on the `stun` crate's codec, which the server does
//! not use, and [`server`] knows the program by its command line, its log and its HTTP only.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test takes its part")]

pub mod caller;
pub mod certificate;
pub mod everywhere;
pub mod http_get;
pub mod line;
pub mod namespace;
pub mod postgres;
pub mod program;
pub mod raw_http;
pub mod raw_websocket;
pub mod server;
pub mod stun_client;

pub use caller::Caller;
pub use certificate::Certificate;
pub use everywhere::Everywhere;
pub use line::{Line, Transport};
pub use postgres::Postgres;
pub use server::Server;
pub use stun_client::{Answer, Client, EchoPeer, Request};

use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Long, because the machine may be busy; never reached when all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until `look` finds something, and fails with `what` when [`PATIENCE`] is over.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
