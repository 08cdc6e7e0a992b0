//! `/api/v1/rooms`, `/api/v1/users`, `/api/v1/sessions`: who is where.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde_json::Value;

use super::Shared;
use super::calls::ActiveQuery;
use super::refusal::Refusal;
use super::rest::{Body, Caller, command, id, users};
use crate::signaling::{AdminCommand, UserId};

/// `GET /api/v1/rooms/{id}/members`.
pub(crate) async fn room(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(room): Path<String>,
) -> Result<Json<Value>, Refusal> {
    command(&shared, &caller, AdminCommand::Room(id(room)?))
}

/// `PUT /api/v1/rooms/{id}/members {members}`: who is rung for a call to the room, and may enter it.
pub(crate) async fn set_members(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(room): Path<String>,
    Body(body): Body,
) -> Result<Json<Value>, Refusal> {
    let members = Some(users(body.get("members"), "members")?);
    command(&shared, &caller, AdminCommand::SetMembers { room: id(room)?, members })
}

/// `DELETE /api/v1/rooms/{id}/members`: the room is open to everybody again.
pub(crate) async fn unset_members(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(room): Path<String>,
) -> Result<Json<Value>, Refusal> {
    command(&shared, &caller, AdminCommand::SetMembers { room: id(room)?, members: None })
}

/// `GET /api/v1/users/{id}/presence`.
pub(crate) async fn presence(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(user): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let Json(mut found) = command(&shared, &caller, AdminCommand::Presence(vec![UserId(id(user)?)]))?;
    Ok(Json(found["presence"][0].take()))
}

/// `GET /api/v1/sessions`.
pub(crate) async fn sessions(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    query: Result<Query<ActiveQuery>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let (user, limit) = ActiveQuery::read(query)?;
    command(&shared, &caller, AdminCommand::Sessions { user, limit })
}
