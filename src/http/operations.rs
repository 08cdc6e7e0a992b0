//! `/api/v1/stats` and `/api/v1/admin`: what an operator asks of the process as a whole.

use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::Shared;
use super::refusal::Refusal;
use super::rest::{Caller, command};
use crate::signaling::AdminCommand;

/// Reads the configuration again: the keys that changed, or what is wrong.
pub type Reload = Box<dyn Fn() -> BoxFuture<'static, Result<Vec<String>, String>> + Send + Sync>;

/// What the process can be told to do. Set once its parts run.
#[derive(Default)]
pub struct Operations {
    drain: OnceLock<Box<dyn Fn() + Send + Sync>>,
    reload: OnceLock<Reload>,
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Operations")
    }
}

impl Operations {
    /// How to drain and how to reload. The first call counts.
    pub fn set(&self, drain: impl Fn() + Send + Sync + 'static, reload: Reload) {
        let _ = self.drain.set(Box::new(drain));
        let _ = self.reload.set(reload);
    }

    fn drain(&self) {
        if let Some(drain) = self.drain.get() {
            drain();
        }
    }

    async fn reload(&self) -> Result<Vec<String>, String> {
        match self.reload.get() {
            Some(reload) => reload().await,
            None => Err("the service is still starting".into()),
        }
    }
}

/// `GET /api/v1/stats`: what the call engine counts.
pub(crate) async fn stats(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Json<Value>, Refusal> {
    command(&shared, &caller, AdminCommand::Stats)
}

/// `POST /api/v1/admin/drain`.
pub(crate) async fn drain(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    caller.must_be_operator()?;
    shared.operations.drain();
    Ok((StatusCode::ACCEPTED, Json(json!({"draining": true}))))
}

/// `POST /api/v1/admin/reload`.
pub(crate) async fn reload(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
) -> Result<Json<Value>, Refusal> {
    caller.must_be_operator()?;
    match shared.operations.reload().await {
        Ok(changed) => Ok(Json(json!({"changed": changed}))),
        Err(message) => Err(Refusal::new(StatusCode::CONFLICT, "VALIDATION_ERROR", message)),
    }
}
