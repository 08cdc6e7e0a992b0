//! The shell around `turn`: one worker thread per core, each with its own sockets, timers and [`crate::turn::Server`].
//!
//! Owns every socket of the relay. Must not know what a call is, and nothing of HTTP. A packet is received, decided on
//! and sent on by one worker, without a lock, a queue or an allocation between. Driven by `app`: [`Relay::bind`] takes
//! every listener before anything runs, [`Relay::start`] spawns the workers, [`Handle`] is how the rest of the process
//! reaches them.

mod accept;
mod beat;
mod collector;
mod command;
pub mod config;
mod descriptors;
mod listen;
pub mod proxy;
mod relay;
mod sockets;
mod strangers;
mod stream;
mod streams;
mod tls;
mod udp;
mod worker;

pub use accept::HttpService;
pub use config::{Certificate, Config};
pub use descriptors::relay_sockets;
pub use listen::bind_tcp;
pub use relay::{Failure, Handle, NetError, Parts, Relay};
pub use tls::{CertificateError, Certificates};
