//! `GET /api/v1/calls` and `/api/v1/calls/{id}`: the caller's own calls.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::refusal::Refusal;
use super::rest::Caller;
use crate::signaling::CallId;
use crate::store::{CallQuery, StoreError, StoredCall};

/// Rows of a page when the request does not say.
const DEFAULT_LIMIT: u32 = 50;
/// Most rows of a page.
const MAX_LIMIT: u32 = 100;
/// Longest id, cursor or status, in bytes.
const MAX_TEXT: usize = 256;

#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    cursor: Option<String>,
    limit: Option<u32>,
    direction: Option<Direction>,
    status: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Outgoing,
    Incoming,
}

#[derive(Debug, Serialize)]
pub(crate) struct CallList {
    calls: Vec<StoredCall>,
    /// Cursor of the next page, `null` on the last.
    next: Option<String>,
}

/// `GET /api/v1/calls`.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<CallList>, Refusal> {
    let Query(ListQuery { cursor, limit, direction, status }) =
        query.map_err(|rejection| Refusal::validation(rejection.body_text()))?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Refusal::validation(format!("limit is 1 to {MAX_LIMIT}")));
    }
    if [&cursor, &status].into_iter().flatten().any(|text| text.len() > MAX_TEXT) {
        return Err(Refusal::validation("cursor or status too long"));
    }
    let query = CallQuery {
        user: Some(caller.user),
        cursor,
        limit,
        outgoing: direction.map(|direction| direction == Direction::Outgoing),
        status,
        ..CallQuery::default()
    };
    let page = shared.store.list(query).await.map_err(failed)?;
    Ok(Json(CallList { calls: page.calls, next: page.next }))
}

/// `GET /api/v1/calls/{id}`. A call of others is answered like one that does not exist.
pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<StoredCall>, Refusal> {
    let not_found = || Refusal::new(StatusCode::NOT_FOUND, "CALL_NOT_FOUND", "no such call");
    if id.len() > MAX_TEXT {
        return Err(not_found());
    }
    let call = shared.store.one(Some(caller.user), CallId(id.into())).await.map_err(failed)?;
    call.map(Json).ok_or_else(not_found)
}

fn failed(error: StoreError) -> Refusal {
    match error {
        StoreError::Cursor => Refusal::validation(error.to_string()),
        error => {
            tracing::error!(%error, "call records cannot be read");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "INTERNAL", "call records cannot be read now")
        }
    }
}
