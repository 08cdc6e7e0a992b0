//! Every refusal: its wire code, its message, its metric label.

use serde_json::Value;

/// A refusal of a request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Reject {}

impl Reject {
    /// Wire code (`CALL_NOT_FOUND`), also the label of `passerelle_signaling_errors_total`.
    pub fn code(&self) -> &'static str {
        todo!()
    }

    /// The error object of an ack or of `call:error`: `{code, message, retryAfterMs?, callId?}`.
    pub fn to_json(&self) -> Value {
        todo!()
    }
}
