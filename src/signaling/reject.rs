//! Every refusal: its wire code, its message, its metric label.

use std::time::Duration;

use serde_json::{Value, json};

use super::CallId;

/// A refusal of a request: one variant for each way to be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// There is no authenticated session.
    #[error("authenticate first")]
    NotAuthenticated,
    /// The token of the session has expired: no new calls.
    #[error("the token has expired: connect again with a new one")]
    TokenExpired,
    /// A grant is missing.
    #[error("not permitted: {0}")]
    PermissionDenied(&'static str),
    /// A field of the payload is missing or wrong.
    #[error("{field}: {why}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it has to be.
        why: &'static str,
    },
    /// A signal that is none.
    #[error("invalid signal: {0}")]
    InvalidSignal(&'static str),
    /// A frame, session description or candidate over its limit.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it may be.
        limit: usize,
    },
    /// `from` names someone else.
    #[error("from is not the sender")]
    SenderMismatch,
    /// The target of a signal is not in the call.
    #[error("the target is not in this call")]
    TargetNotFound,
    /// More than one participant could be meant.
    #[error("name the target in to: this call has more than two participants")]
    TargetRequired,
    /// The other side's offer, which wins, is unanswered.
    #[error("the offer of the other side comes first: roll back and answer it")]
    OfferCollision,
    /// No such call, or one the caller has no part in.
    #[error("no such call")]
    CallNotFound,
    /// The room or pair has a running call.
    #[error("a call is running already: join it")]
    CallAlreadyActive(CallId),
    /// The call is over.
    #[error("the call has ended")]
    CallEnded(CallId),
    /// The call admits nobody new.
    #[error("the call is locked")]
    CallLocked,
    /// The request does not fit the state of the call.
    #[error("not now: {0}")]
    StateConflict(&'static str),
    /// Another device of the user has joined.
    #[error("another device of yours is in this call")]
    AlreadyInCall(CallId),
    /// The session is not the device that joined.
    #[error("join the call first")]
    NotInCall,
    /// The user is not a participant.
    #[error("not a participant of this call")]
    NotAParticipant,
    /// The call is full.
    #[error("a call has at most {0} participants")]
    MaxParticipants(usize),
    /// Nobody who was called is connected.
    #[error("nobody who was called is connected")]
    UserOffline,
    /// Everybody who was called is in another call.
    #[error("everybody who was called is in another call")]
    UserBusy,
    /// No such conversation.
    #[error("no such conversation")]
    ConversationNotFound,
    /// A type other than `audio` and `video`.
    #[error("type must be audio or video")]
    UnsupportedCallType,
    /// Too many requests.
    #[error("too many requests: slow down")]
    RateLimited {
        /// The limit, a metric label.
        limit: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// A table is full.
    #[error("too many {0}")]
    Capacity(&'static str),
    /// The server is about to stop.
    #[error("the server restarts: connect again")]
    Draining,
    /// No such event.
    #[error("unknown event")]
    UnknownEvent,
    /// Binary attachments.
    #[error("binary messages are not supported")]
    BinaryUnsupported,
    /// Another version of the protocol.
    #[error("unsupported protocol version: this server speaks version 1")]
    UnsupportedVersion,
    /// Our own fault.
    #[error("internal error")]
    Internal,
}

impl Reject {
    /// Wire code (`CALL_NOT_FOUND`), also the label of `passerelle_signaling_errors_total`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAuthenticated => "NOT_AUTHENTICATED",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::PermissionDenied(_) => "PERMISSION_DENIED",
            Self::Invalid { .. } => "VALIDATION_ERROR",
            Self::InvalidSignal(_) => "INVALID_SIGNAL",
            Self::TooLarge { .. } => "SIGNAL_TOO_LARGE",
            Self::SenderMismatch => "SIGNAL_SENDER_MISMATCH",
            Self::TargetNotFound => "TARGET_NOT_FOUND",
            Self::TargetRequired => "TARGET_REQUIRED",
            Self::OfferCollision => "OFFER_COLLISION",
            Self::CallNotFound => "CALL_NOT_FOUND",
            Self::CallAlreadyActive(_) => "CALL_ALREADY_ACTIVE",
            Self::CallEnded(_) => "CALL_ENDED",
            Self::CallLocked => "CALL_LOCKED",
            Self::StateConflict(_) => "CALL_STATE_CONFLICT",
            Self::AlreadyInCall(_) => "ALREADY_IN_CALL",
            Self::NotInCall => "NOT_IN_CALL",
            Self::NotAParticipant => "NOT_A_PARTICIPANT",
            Self::MaxParticipants(_) => "MAX_PARTICIPANTS_REACHED",
            Self::UserOffline => "USER_OFFLINE",
            Self::UserBusy => "USER_BUSY",
            Self::ConversationNotFound => "CONVERSATION_NOT_FOUND",
            Self::UnsupportedCallType => "UNSUPPORTED_CALL_TYPE",
            Self::RateLimited { .. } => "RATE_LIMIT_EXCEEDED",
            Self::Capacity(_) => "CAPACITY_EXCEEDED",
            Self::Draining => "DRAINING",
            Self::UnknownEvent => "UNKNOWN_EVENT",
            Self::BinaryUnsupported => "BINARY_UNSUPPORTED",
            Self::UnsupportedVersion => "UNSUPPORTED_VERSION",
            Self::Internal => "INTERNAL",
        }
    }

    /// When the request may be tried again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// The call this is about, where it is not the one of the request.
    pub fn call_id(&self) -> Option<&CallId> {
        match self {
            Self::CallAlreadyActive(call) | Self::CallEnded(call) | Self::AlreadyInCall(call) => Some(call),
            _ => None,
        }
    }

    /// The error object of an ack or of `call:error`: `{code, message, retryAfterMs?, callId?}`.
    pub fn to_json(&self) -> Value {
        let mut error = json!({ "code": self.code(), "message": self.to_string() });
        if let Some(fields) = error.as_object_mut() {
            if let Some(wait) = self.retry_after() {
                // Rounded up: a client that waits exactly this long must not be refused again.
                let millis = wait.as_nanos().div_ceil(1_000_000);
                fields.insert("retryAfterMs".into(), json!(u64::try_from(millis).unwrap_or(u64::MAX)));
            }
            if let Some(call) = self.call_id() {
                fields.insert("callId".into(), json!(call.0.as_ref()));
            }
        }
        error
    }
}
