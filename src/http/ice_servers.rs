//! `GET /api/v1/ice-servers`: STUN and TURN for the caller, outside of a call.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shared;
use super::engine::now;
use super::rest::Caller;

/// `GET /api/v1/ice-servers`. A caller without the grant `relay` gets STUN only.
pub(crate) async fn ice_servers(State(shared): State<Arc<Shared>>, Caller(caller): Caller) -> Json<Value> {
    let relay = caller.grants.relay;
    let minted = shared.ice.lock().mint(&caller.user, None, relay, now());
    if relay {
        shared.metrics.ice_credentials_issued.with_label_values(&["rest"]).inc();
    }
    Json(json!({"iceServers": minted.servers, "ttl": minted.ttl.as_secs()}))
}
