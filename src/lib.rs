//! passerelle: one process that answers STUN, relays media (TURN), carries the signaling of WebRTC calls over
//! Socket.IO and WebSocket, keeps a record of each call and shows all of it to Prometheus.
//!
//! In reading order:
//!
//! * [`stun`] — pure. Bytes to and from STUN messages and ChannelData (RFC 8489).
//! * [`turn`] — pure. The relay's state: allocations, permissions, channels, credentials, policy (RFC 8656).
//! * [`signaling`] — pure. Calls between participants: sessions, the call state machine, limits.
//! * [`net`] — the shell around `turn`: one worker per core, sockets, batches.
//! * [`http`] — the shell around `signaling`: Socket.IO, WebSocket, REST, pages, health, scrape.
//! * [`auth`] — who may: shared secrets, static users, tokens, anonymous callers.
//! * [`store`] — call records, written behind.
//! * [`link`] — the only place where calls and relay meet.
//! * [`observe`] — the only place that turns an event into a metric, a log line, a record.
//! * [`metrics`], [`logging`], [`shutdown`] — what everyone may use.
//! * [`supervisor`] — what the service manager is told.
//! * [`config`], [`cli`], [`app`] — from a file and a command line to a running service, and its end.
//! * [`reload`] — another configuration for the running service.

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod http;
pub mod link;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod observe;
pub mod reload;
pub mod shutdown;
pub mod signaling;
pub mod store;
pub mod stun;
pub mod supervisor;
pub mod turn;
