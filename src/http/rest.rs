//! What every REST endpoint shares: who asks, and bodies and ids of bounded size.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde_json::Value;

use super::Shared;
use super::admission::{Admitted, NotAdmitted, Visitor, credential};
use super::refusal::Refusal;
use crate::signaling::{AdminCommand, Authority, CallId, Identity, UserId};

/// Longest id, cursor or word in a path or query, in bytes.
const MAX_TEXT: usize = 256;

/// Who sends a request: the operator's own servers with an api key, or a user with a token.
pub(crate) struct Caller(pub(crate) Authority);

impl Caller {
    /// Whether it sees and may do everything.
    pub(crate) fn is_operator(&self) -> bool {
        match &self.0 {
            Authority::Operator => true,
            Authority::User(identity) => identity.grants.admin,
        }
    }

    /// Refuses everybody else.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub(crate) fn must_be_operator(&self) -> Result<(), Refusal> {
        match self.is_operator() {
            true => Ok(()),
            false => Err(Refusal::forbidden("this takes an api key or a token with the grant admin")),
        }
    }

    /// Whose data it sees: its own, or the asked one's or everybody's for an operator.
    pub(crate) fn scope(&self, asked: Option<String>) -> Option<UserId> {
        match &self.0 {
            Authority::User(identity) if !identity.grants.admin => Some(identity.user.clone()),
            _ => asked.map(|user| UserId(user.into())),
        }
    }

    /// The user behind a token.
    pub(crate) fn user(&self) -> Option<&Identity> {
        match &self.0 {
            Authority::Operator => None,
            Authority::User(identity) => Some(identity),
        }
    }
}

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Refusal> {
        let visitor = parts.extensions.get::<Visitor>().copied().ok_or_else(Refusal::origin)?;
        let shown = credential(&parts.headers, parts.uri.query()).map_err(NotAdmitted::from)?;
        if shown.token.as_deref().is_some_and(|key| shared.admission.is_api_key(key)) {
            return Ok(Self(Authority::Operator));
        }
        let Admitted { identity, .. } = shared.admission.authenticate(shown.presented(None), visitor).await?;
        Ok(Self(Authority::User(identity)))
    }
}

/// A body of JSON; an empty one is an empty object.
pub(crate) struct Body(pub(crate) Value);

impl FromRequest<Arc<Shared>> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Refusal> {
        let length = request.headers().get(axum::http::header::CONTENT_LENGTH);
        let is_empty = length.map_or_else(
            || !request.headers().contains_key(axum::http::header::TRANSFER_ENCODING),
            |length| length == "0",
        );
        if is_empty {
            return Ok(Self(Value::Object(serde_json::Map::new())));
        }
        let Json(value) = Json::<Value>::from_request(request, shared).await.map_err(|rejection| {
            let status = match &rejection {
                JsonRejection::BytesRejection(_) => rejection.status(),
                _ => axum::http::StatusCode::BAD_REQUEST,
            };
            Refusal::new(status, "VALIDATION_ERROR", rejection.body_text())
        })?;
        match value {
            Value::Object(_) => Ok(Self(value)),
            _ => Err(Refusal::validation("the body has to be one object")),
        }
    }
}

/// Carries out a command on behalf of the caller.
///
/// # Errors
/// What the engine refuses.
pub(crate) fn command(
    shared: &Shared,
    caller: &Caller,
    command: AdminCommand,
) -> Result<Json<Value>, Refusal> {
    Ok(Json(shared.engine.admin(&caller.0, command)?))
}

/// An id of a path.
///
/// # Errors
/// It is empty, too long or has control characters.
pub(crate) fn id(text: String) -> Result<Arc<str>, Refusal> {
    if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(Refusal::validation("an id has 1 to 256 bytes without control characters"));
    }
    Ok(text.into())
}

/// The id of a call in a path.
///
/// # Errors
/// As [`id`].
pub(crate) fn call_id(text: String) -> Result<CallId, Refusal> {
    id(text).map(CallId)
}

/// A list of user ids in a body.
///
/// # Errors
/// It is none.
pub(crate) fn users(value: Option<&Value>, field: &str) -> Result<Vec<UserId>, Refusal> {
    let wrong = || Refusal::validation(format!("{field} has to be an id or a list of ids"));
    let listed = match value {
        Some(Value::Array(listed)) => listed.as_slice(),
        Some(one @ Value::String(_)) => std::slice::from_ref(one),
        _ => return Err(wrong()),
    };
    listed.iter().map(|user| id(user.as_str().ok_or_else(wrong)?.to_owned()).map(UserId)).collect()
}
