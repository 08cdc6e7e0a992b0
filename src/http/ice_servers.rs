//! STUN and TURN outside of a call: `GET /api/v1/ice-servers`, and `GET /turn` for clients of older TURN REST servers.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::admission::NotAdmitted;
use super::engine::now;
use super::refusal::Refusal;
use super::rest::{Caller, id};
use crate::auth::Denied;
use crate::signaling::{Authority, IceServers, UserId};

/// `GET /api/v1/ice-servers`. A caller without the grant `relay` gets STUN only; an operator says for whom it asks.
pub(crate) async fn ice_servers(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    query: Result<Query<For>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let (user, relay) = match &caller.0 {
        Authority::User(identity) => (identity.user.clone(), identity.grants.relay),
        Authority::Operator => {
            let Query(For { user }) =
                query.map_err(|rejection| Refusal::validation(rejection.body_text()))?;
            let user = user.ok_or_else(|| Refusal::validation("user is missing: for whom?"))?;
            (UserId(id(user)?), true)
        }
    };
    let minted = mint(&shared, &user, relay);
    Ok(Json(json!({"iceServers": minted.servers, "ttl": minted.ttl.as_secs()})))
}

/// For whom an operator asks.
#[derive(Debug, Deserialize)]
pub(crate) struct For {
    user: Option<String>,
}

/// The query of draft-uberti-behave-turn-rest.
#[derive(Debug, Deserialize)]
pub(crate) struct TurnQuery {
    service: Option<String>,
    username: Option<String>,
    key: Option<String>,
}

/// `GET /turn?service=turn&username=…&key=…` (draft-uberti-behave-turn-rest-00 section 2): the api key may come as
/// `key` or as a bearer token.
pub(crate) async fn turn(
    State(shared): State<Arc<Shared>>,
    caller: Result<Caller, Refusal>,
    query: Result<Query<TurnQuery>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Query(TurnQuery { service, username, key }) =
        query.map_err(|rejection| Refusal::validation(rejection.body_text()))?;
    let by_key = key.is_some_and(|key| shared.admission.is_api_key(&key));
    if !by_key && !caller.as_ref().is_ok_and(Caller::is_operator) {
        return Err(NotAdmitted::Denied(Denied::Invalid).into());
    }
    if service.as_deref() != Some("turn") {
        return Err(Refusal::validation("service has to be turn"));
    }
    let username = match username {
        Some(username) if username.contains(':') => {
            return Err(Refusal::validation("username has no colon"));
        }
        Some(username) => id(username)?,
        None => "anonymous".into(),
    };
    let minted = mint(&shared, &UserId(username), true);
    let turn = minted.servers.iter().filter(|server| server.credential.is_some());
    let (mut uris, mut first) = (Vec::new(), None);
    for server in turn {
        uris.extend(server.urls.iter().cloned());
        first = first.or(Some(server));
    }
    let Some(first) = first else {
        let message = "this server relays nothing";
        return Err(Refusal::new(axum::http::StatusCode::NOT_FOUND, "CAPACITY_EXCEEDED", message));
    };
    Ok(Json(json!({
        "username": first.username,
        "password": first.credential,
        "ttl": minted.ttl.as_secs(),
        "uris": uris,
    })))
}

fn mint(shared: &Shared, user: &UserId, relay: bool) -> IceServers {
    if relay {
        shared.metrics.ice_credentials_issued.with_label_values(&["rest"]).inc();
    }
    shared.ice.lock().mint(user, None, relay, now())
}
