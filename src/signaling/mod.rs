//! Calls between participants: sessions, the call state machine, its timers and its limits. Pure.
//!
//! Owns every session, call and participant of this process. Must not do any I/O, read a clock or draw randomness:
//! time comes in as [`Now`], randomness as [`Entropy`]. Driven by `http`, which authenticates a transport before
//! it opens a session here.
//!
//! **The law of a core**: one input ([`Hub::open`], [`Hub::handle`], [`Hub::close`], [`Hub::on_timeout`]), then drain
//! [`Hub::poll_output`] to `None`, then sleep until [`Hub::poll_timeout`].

mod config;
mod event;
mod hub;
mod ice;
mod identity;
mod message;
mod reject;

pub use config::Config;
pub use event::{CallRecord, Event, ParticipantRecord};
pub use hub::{Entropy, Hub, Now, Output};
pub use ice::{IceMint, IceServer, IceServers};
pub use identity::{CallId, Grants, Identity, SessionId, UserId};
pub use message::{ClientMessage, Close, Request, ServerEvent};
pub use reject::Reject;
