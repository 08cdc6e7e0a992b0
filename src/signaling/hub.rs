//! The engine: one input, then drain the outputs, then sleep until the next timeout.

use std::time::Instant;

use super::{
    ClientMessage, Close, Config, Event, IceMint, Identity, Reject, Request, ServerEvent, SessionId,
};

/// Fills a buffer with unpredictable bytes. The shell passes the system's generator, a simulation a seeded one.
pub type Entropy = Box<dyn FnMut(&mut [u8]) + Send>;

/// The two clocks of one input: a monotonic one for timers, a wall clock for what people read.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic time, for every timer and limit.
    pub instant: Instant,
    /// Milliseconds since the Unix epoch, for records and wire timestamps.
    pub unix_ms: i64,
}

/// What the shell has to do after an input, in this order.
#[derive(Debug)]
pub enum Output {
    /// Send an event to the transport of a session, through its bounded queue.
    Deliver {
        /// The receiving session.
        session: SessionId,
        /// What to send; its payload is complete, `seq` included where it has one.
        event: ServerEvent,
    },
    /// Close the transport of a session; the hub has forgotten it already.
    Close {
        /// The session whose transport is closed.
        session: SessionId,
        /// Why, with the WebSocket close code.
        close: Close,
    },
    /// Something to count, log or record.
    Event(Event),
}

/// The call engine.
pub struct Hub {}

impl Hub {
    /// Makes an empty hub.
    pub fn new(_config: Config, _ice: Box<dyn IceMint>, _entropy: Entropy) -> Self {
        todo!()
    }
    /// Opens a session for an authenticated transport; `session:ready` is the first output.
    ///
    /// # Errors
    /// [`Reject`] when a limit on sessions is reached or the server drains.
    pub fn open(&mut self, _identity: Identity, _now: Now) -> Result<SessionId, Reject> {
        todo!()
    }
    /// Handles one request. The value is the ack's data (`{}` where there is none). Where the client asked for no
    /// ack (`Request::wants_ack == false`) the echo or error event of the protocol is among the outputs as well.
    ///
    /// # Errors
    /// [`Reject`], to be sent as the ack's error.
    pub fn handle(
        &mut self,
        _session: SessionId,
        _request: Request,
        _now: Now,
    ) -> Result<serde_json::Value, Reject> {
        todo!()
    }
    /// The transport of a session is gone (not a hang-up: participants enter their grace).
    pub fn close(&mut self, _session: SessionId, _now: Now) {
        todo!()
    }
    /// Stops accepting calls; sessions are told when to reconnect.
    pub fn drain(&mut self, _now: Now) {
        todo!()
    }
    /// Runs every timer that is due.
    pub fn on_timeout(&mut self, _now: Now) {
        todo!()
    }
    /// When [`Hub::on_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        todo!()
    }
}
