//! Calls between participants: sessions, the call state machine, its timers and its limits. Pure.
//!
//! Owns every session, call and participant of this process. Must not do any I/O, read a clock or draw randomness:
//! time comes in as [`Now`], randomness as [`Entropy`]. Driven by `http`, which authenticates a transport before
//! it opens a session here.
//!
//! **The law of a core**: one input ([`Hub::open`], [`Hub::handle`], [`Hub::close`], [`Hub::on_timeout`]), then drain
//! [`Hub::poll_output`] to `None`, then sleep until [`Hub::poll_timeout`].

mod answered;
mod call;
mod config;
mod deadline;
mod event;
mod hub;
mod ice;
mod identity;
mod limits;
mod message;
mod missed;
mod negotiation;
mod notice;
mod participant;
mod quality;
mod reject;
mod replay;
mod resume;
mod session;
mod signal;
mod snapshot;
mod switchboard;
#[cfg(test)]
mod tests;
mod transition;

pub use config::{BusyPolicy, Config, Limits, Rate, Rates};
pub use event::{CallRecord, Event, ParticipantRecord, word};
pub use hub::{AdminCommand, Authority, Entropy, Hub, Now, Output};
pub use ice::{IceMint, IceServer, IceServers};
pub use identity::{CallId, Grants, Identity, SessionId, UserId};
pub use message::{ClientMessage, Close, Initiate, Kind, Media, Request, ServerEvent, Settings, event_label};
pub use notice::{Notice, NoticeKind};
pub use participant::RelayUsage;
pub use quality::Stats;
pub use reject::Reject;
pub use resume::{Opened, Resume, ResumeKey, Resumption};
pub use signal::{Signal, SignalType};
