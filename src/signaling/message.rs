//! The wire: requests of clients, events of the server (protocol `passerelle/1`).

use serde_json::Value;

/// A typed request, parsed from an event name and its payload.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {}

impl ClientMessage {
    /// Parses a payload.
    ///
    /// # Errors
    /// `UNKNOWN_EVENT`, `VALIDATION_ERROR` and the like.
    pub fn parse(_event: &str, _payload: Value) -> Result<Self, super::Reject> {
        todo!()
    }
}

/// One request as it came from either framing.
#[derive(Debug, Clone)]
pub struct Request {
    /// The wire name of the event (`call:initiate`).
    pub event: String,
    /// Its payload (an object; anything else is a `VALIDATION_ERROR`).
    pub payload: Value,
    /// Whether the client asked for an ack; without one the echo and error events are sent.
    pub wants_ack: bool,
    /// Size of the frame on the wire in bytes, for limits.
    pub size: usize,
}

/// An event of the server.
#[derive(Debug, Clone)]
pub struct ServerEvent {
    /// Wire name (`call:ended`).
    pub name: &'static str,
    /// Payload.
    pub payload: Value,
}

/// Why the server closes a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// 1012: restart.
    Restart,
    /// 4400: protocol error.
    Protocol,
    /// 4401: not authenticated.
    Auth,
    /// 4408: slow consumer or idle.
    Slow,
    /// 4409: another transport took the session over.
    Replaced,
    /// 4413: capacity.
    Capacity,
    /// 4429: rate.
    Rate,
}
