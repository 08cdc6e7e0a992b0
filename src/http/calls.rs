//! `/api/v1/calls`: records of calls, calls that run, and what can be done to them.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Shared;
use super::refusal::Refusal;
use super::rest::{Body, Caller, call_id, command, id, users};
use crate::signaling::{AdminCommand, Grants, Identity, Media, UserId};
use crate::store::{
    CallEvent, CallPage, CallQuery, MAX_PAGE, MissedCall, MissedQuery, StoreError, StoredCall,
};

/// Rows of a page when the request does not say, and of a CSV.
const DEFAULT_LIMIT: u32 = 50;
const CSV_LIMIT: u32 = MAX_PAGE;
/// Most rows of a page.
const MAX_LIMIT: u32 = 100;
/// Longest text of a query, in bytes.
const MAX_TEXT: usize = 256;
/// Header of a CSV with the cursor of the next part.
const NEXT: HeaderName = HeaderName::from_static("passerelle-next-cursor");

/// Which calls.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListQuery {
    cursor: Option<String>,
    limit: Option<u32>,
    direction: Option<Direction>,
    status: Option<String>,
    #[serde(alias = "conversationId")]
    room_id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    since: Option<String>,
    until: Option<String>,
    user: Option<String>,
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

impl ListQuery {
    fn into_query(self, caller: &Caller, default: u32, most: u32) -> Result<CallQuery, Refusal> {
        let Self { cursor, limit, direction, status, room_id, kind, since, until, user } = self;
        let limit = limit.unwrap_or(default);
        if !(1..=most).contains(&limit) {
            return Err(Refusal::validation(format!("limit is 1 to {most}")));
        }
        let texts = [&cursor, &status, &room_id, &kind, &user];
        // A database that is handed a NUL answers with an error of its own.
        if texts.into_iter().flatten().any(|text| text.len() > MAX_TEXT || text.chars().any(char::is_control))
        {
            return Err(Refusal::validation("a text of the query is too long or has control characters"));
        }
        let user = caller.scope(user);
        if direction.is_some() && user.is_none() {
            return Err(Refusal::validation("direction needs a user"));
        }
        Ok(CallQuery {
            user,
            cursor,
            limit,
            outgoing: direction.map(|direction| direction == Direction::Outgoing),
            status,
            room: room_id,
            kind,
            since: time("since", since)?,
            until: time("until", until)?,
        })
    }
}

/// A time of a query: ISO-8601, or milliseconds since the Unix epoch.
fn time(field: &str, text: Option<String>) -> Result<Option<i64>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let read = text.parse().ok().or_else(|| Some(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()));
    read.map(Some).ok_or_else(|| Refusal::validation(format!("{field} is a time like 2026-01-31T12:00:00Z")))
}

async fn page(
    shared: &Shared,
    caller: &Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
    (default, most): (u32, u32),
) -> Result<CallPage, Refusal> {
    let Query(query) = query.map_err(|rejection| Refusal::validation(rejection.body_text()))?;
    let mut page = shared.store.list(query.into_query(caller, default, most)?).await.map_err(failed)?;
    page.calls.iter_mut().for_each(|call| trim(caller, call));
    Ok(page)
}

/// Leaves out what only operators see: where the others were, which a call does not tell those who never joined it.
fn trim(caller: &Caller, call: &mut StoredCall) {
    if !caller.is_operator() {
        call.participants.iter_mut().for_each(|who| who.relay_peers.clear());
    }
}

/// `GET /api/v1/calls`.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<CallList>, Refusal> {
    let page = page(&shared, &caller, query, (DEFAULT_LIMIT, MAX_LIMIT)).await?;
    Ok(Json(CallList { calls: page.calls, next: page.next }))
}

/// `GET /api/v1/calls.csv`: the same as a table, more rows at once.
pub(crate) async fn csv(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let page = page(&shared, &caller, query, (CSV_LIMIT, CSV_LIMIT)).await?;
    let mut text = String::from(
        "callId,conversationId,type,mode,status,endReason,initiatorId,createdAt,answeredAt,endedAt,duration,endedBy,\
         participants,relayUsed,relayBytesUp,relayBytesDown,quality\r\n",
    );
    for call in &page.calls {
        let json = serde_json::to_value(call).unwrap_or_default();
        let users: Vec<&str> = call.participants.iter().map(|who| &*who.user.0).collect();
        let users = Value::from(users.join(" "));
        let cells = [
            "callId",
            "conversationId",
            "type",
            "mode",
            "status",
            "endReason",
            "initiatorId",
            "createdAt",
            "answeredAt",
            "endedAt",
            "duration",
            "endedBy",
            "",
            "relayUsed",
            "relayBytesUp",
            "relayBytesDown",
            "quality",
        ];
        let row: Vec<String> =
            cells.iter().map(|name| cell(if name.is_empty() { &users } else { &json[*name] })).collect();
        text.push_str(&row.join(","));
        text.push_str("\r\n");
    }
    let mut response = ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], text).into_response();
    if let Some(next) = page.next.and_then(|next| HeaderValue::try_from(next).ok()) {
        response.headers_mut().insert(NEXT, next);
    }
    Ok(response)
}

/// A cell of a table (RFC 4180). What a spreadsheet would take for a formula is made a text.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// `GET /api/v1/calls/{id}`. A call of others is answered like one that does not exist. The engine's record of one that
/// runs is newer than the written one.
pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(call): Path<String>,
) -> Result<Json<StoredCall>, Refusal> {
    let call = call_id(call).map_err(|_| Refusal::no_call())?;
    let mut found: StoredCall = match shared.engine.record(&caller.0, &call) {
        Ok(record) => record.into(),
        Err(_) => {
            let stored = shared.store.one(caller.scope(None), call).await.map_err(failed)?;
            stored.ok_or_else(Refusal::no_call)?
        }
    };
    trim(&caller, &mut found);
    Ok(Json(found))
}

/// The steps of a call.
#[derive(Debug, Serialize)]
pub(crate) struct CallEvents {
    events: Vec<CallEvent>,
}

/// `GET /api/v1/calls/{id}/events`: what is kept of the steps of a call, nothing of the calls of others.
pub(crate) async fn events(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(call): Path<String>,
) -> Result<Json<CallEvents>, Refusal> {
    let call = call_id(call).map_err(|_| Refusal::no_call())?;
    let events = shared.store.events(caller.scope(None), call.clone()).await.map_err(failed)?;
    if events.is_empty() && shared.engine.record(&caller.0, &call).is_err() {
        let known = shared.store.one(caller.scope(None), call).await.map_err(failed)?;
        known.ok_or_else(Refusal::no_call)?;
    }
    Ok(Json(CallEvents { events }))
}

/// Which missed calls.
#[derive(Debug, Deserialize)]
pub(crate) struct MissedParameters {
    user: Option<String>,
    cursor: Option<String>,
    limit: Option<u32>,
}

/// `GET /api/v1/calls/missed`: the caller's own, or an operator's choice.
pub(crate) async fn missed(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    query: Result<Query<MissedParameters>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Query(MissedParameters { user, cursor, limit }) =
        query.map_err(|rejection| Refusal::validation(rejection.body_text()))?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Refusal::validation(format!("limit is 1 to {MAX_LIMIT}")));
    }
    let text = |text: Option<String>| text.map(id).transpose().map(|id| id.map(|id| id.to_string()));
    let query = MissedQuery { user: caller.scope(text(user)?), cursor: text(cursor)?, limit };
    let page = shared.store.missed(query).await.map_err(failed)?;
    let calls: Vec<Value> = page.calls.iter().map(MissedCall::to_json).collect();
    Ok(Json(json!({ "calls": calls, "next": page.next })))
}

/// Which running calls or sessions.
#[derive(Debug, Deserialize)]
pub(crate) struct ActiveQuery {
    user: Option<String>,
    limit: Option<u32>,
}

impl ActiveQuery {
    pub(crate) fn read(
        query: Result<Query<Self>, QueryRejection>,
    ) -> Result<(Option<UserId>, usize), Refusal> {
        let Query(Self { user, limit }) =
            query.map_err(|rejection| Refusal::validation(rejection.body_text()))?;
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Refusal::validation(format!("limit is 1 to {MAX_PAGE}")));
        }
        Ok((user.map(|user| id(user).map(UserId)).transpose()?, limit as usize))
    }
}

/// `GET /api/v1/calls/active`.
pub(crate) async fn active(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    query: Result<Query<ActiveQuery>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let (user, limit) = ActiveQuery::read(query)?;
    command(&shared, &caller, AdminCommand::ActiveCalls { user, limit })
}

/// `POST /api/v1/calls`: rings on behalf of a user, `from`.
pub(crate) async fn ring(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Body(mut request): Body,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let from = request.as_object_mut().and_then(|fields| fields.remove("from"));
    let from = match (from, caller.user()) {
        (None, Some(identity)) => identity.clone(),
        (Some(from), _) => caller_of(&from)?,
        (None, None) => return Err(Refusal::validation("from is missing: who calls?")),
    };
    let Json(data) = command(&shared, &caller, AdminCommand::Ring { from, request })?;
    Ok((StatusCode::CREATED, Json(data)))
}

/// Who calls, as the operator says: an id, or `{userId, displayName?, username?, avatar?}`.
fn caller_of(from: &Value) -> Result<Identity, Refusal> {
    let text = |field: &str| from.get(field).and_then(Value::as_str);
    let user = from.as_str().or_else(|| text("userId"));
    let user = user.ok_or_else(|| Refusal::validation("from has to be an id or have a userId"))?;
    let shown = |field: &str| text(field).filter(|text| text.len() <= MAX_TEXT).map(Into::into);
    Ok(Identity {
        user: UserId(id(user.to_owned())?),
        display_name: shown("displayName"),
        username: shown("username"),
        avatar: shown("avatar"),
        grants: Grants::default(),
        expires_unix_ms: None,
    })
}

/// `POST /api/v1/calls/{id}/end`.
pub(crate) async fn end(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(call): Path<String>,
) -> Result<Json<Value>, Refusal> {
    command(&shared, &caller, AdminCommand::End(call_id(call)?))
}

/// `POST /api/v1/calls/{id}/lock {locked}`.
pub(crate) async fn lock(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(call): Path<String>,
    Body(body): Body,
) -> Result<Json<Value>, Refusal> {
    let locked = flag(&body, "locked", true)?;
    command(&shared, &caller, AdminCommand::Lock { call: call_id(call)?, locked })
}

/// `POST /api/v1/calls/{id}/invite {to}`.
pub(crate) async fn invite(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(call): Path<String>,
    Body(body): Body,
) -> Result<Json<Value>, Refusal> {
    let users = users(body.get("to"), "to")?;
    command(&shared, &caller, AdminCommand::Invite { call: call_id(call)?, users })
}

/// `POST /api/v1/calls/{id}/participants/{user}/kick {ban?}`.
pub(crate) async fn kick(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path((call, user)): Path<(String, String)>,
    Body(body): Body,
) -> Result<Json<Value>, Refusal> {
    let ban = flag(&body, "ban", false)?;
    command(&shared, &caller, AdminCommand::Kick { call: call_id(call)?, user: UserId(id(user)?), ban })
}

/// A switch of a body.
fn flag(body: &Value, field: &str, default: bool) -> Result<bool, Refusal> {
    match body.get(field) {
        None => Ok(default),
        Some(set) => set.as_bool().ok_or_else(|| Refusal::validation(format!("{field} is true or false"))),
    }
}

/// `POST /api/v1/calls/{id}/participants/{user}/mute {media?}`.
pub(crate) async fn mute(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path((call, user)): Path<(String, String)>,
    Body(body): Body,
) -> Result<Json<Value>, Refusal> {
    let media = match body.get("media").map(Value::as_str) {
        None | Some(Some("audio")) => Media::Audio,
        Some(Some("video")) => Media::Video,
        Some(Some("screen")) => Media::Screen,
        Some(_) => return Err(Refusal::validation("media is audio, video or screen")),
    };
    command(&shared, &caller, AdminCommand::Mute { call: call_id(call)?, user: UserId(id(user)?), media })
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cell_is_never_a_formula_and_never_breaks_its_row() {
        for (value, expected) in [
            (json!("plain"), "plain"),
            (json!("a,b"), "\"a,b\""),
            (json!("say \"x\"\r\n"), "\"say \"\"x\"\"\r\n\""),
            (json!("=1+1"), "'=1+1"),
            (json!("@SUM(A1,A2)"), "\"'@SUM(A1,A2)\""),
            (json!(-5), "-5"),
            (json!(null), ""),
            (json!(true), "true"),
        ] {
            assert_eq!(cell(&value), expected, "{value}");
        }
    }
}
