//! Limits and timers of the call engine.

/// Configuration of the call engine (`[signaling]`).
#[derive(Debug, Clone, Default)]
pub struct Config {}
