//! Refusals of HTTP requests: every one a status, a wire code and a message.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::admission::NotAdmitted;
use crate::auth::Denied;
use crate::signaling::Reject;

/// A refused request: `{"error":{"code","message"}}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// What the error object has besides code and message.
    details: Option<Value>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: None }
    }

    /// The page of a foreign origin.
    pub(crate) fn origin() -> Self {
        Self::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "pages of this origin are not allowed here")
    }

    /// Too many new connections of one address.
    pub(crate) fn connections() -> Self {
        let message = "too many new connections from this address";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_EXCEEDED", message)
    }

    /// Too many connections that have not authenticated.
    pub(crate) fn capacity() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "CAPACITY_EXCEEDED",
            "too many unauthenticated connections",
        )
    }

    /// A request that is wrong in itself.
    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", message)
    }

    /// The error object, as in acks.
    pub(crate) fn to_json(&self) -> Value {
        self.details.clone().unwrap_or_else(|| error_json(self.code, &self.message))
    }

    /// Something the caller may not do.
    pub(crate) fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message)
    }

    /// A call that does not exist, or is none of the caller's business.
    pub(crate) fn no_call() -> Self {
        Reject::CallNotFound.into()
    }
}

/// The error object of an ack: `{code, message}`.
pub(crate) fn error_json(code: &str, message: &str) -> Value {
    json!({"code": code, "message": message})
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Self {
        let code = reject.code();
        let status = match code {
            "NOT_AUTHENTICATED" | "TOKEN_EXPIRED" => StatusCode::UNAUTHORIZED,
            "PERMISSION_DENIED" => StatusCode::FORBIDDEN,
            "CALL_NOT_FOUND" | "CONVERSATION_NOT_FOUND" | "NOT_A_PARTICIPANT" | "TARGET_NOT_FOUND" => {
                StatusCode::NOT_FOUND
            }
            "CALL_ALREADY_ACTIVE"
            | "CALL_ENDED"
            | "CALL_LOCKED"
            | "CALL_STATE_CONFLICT"
            | "ALREADY_IN_CALL"
            | "NOT_IN_CALL"
            | "USER_BUSY"
            | "USER_OFFLINE"
            | "MAX_PARTICIPANTS_REACHED"
            | "OFFER_COLLISION" => StatusCode::CONFLICT,
            "RATE_LIMIT_EXCEEDED" => StatusCode::TOO_MANY_REQUESTS,
            "CAPACITY_EXCEEDED" | "DRAINING" => StatusCode::SERVICE_UNAVAILABLE,
            "INTERNAL" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self { status, code, message: reject.to_string(), details: Some(reject.to_json()) }
    }
}

impl From<NotAdmitted> for Refusal {
    fn from(reason: NotAdmitted) -> Self {
        let status = match reason {
            NotAdmitted::Origin => StatusCode::FORBIDDEN,
            NotAdmitted::Denied(Denied::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
            NotAdmitted::Denied(Denied::AnonymousKey) => StatusCode::BAD_REQUEST,
            NotAdmitted::Denied(_) => StatusCode::UNAUTHORIZED,
        };
        Self::new(status, reason.code(), reason.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({"error": self.to_json()}))).into_response();
        let header = match self.status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Some((header::RETRY_AFTER, "1"))
            }
            StatusCode::UPGRADE_REQUIRED => Some((header::SEC_WEBSOCKET_VERSION, "13")),
            _ => None,
        };
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
