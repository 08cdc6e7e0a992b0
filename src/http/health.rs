//! `/healthz`: the process lives. `/readyz`: it takes calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::metrics::Metrics;

/// Whether the process takes calls: not before everything is bound, not while it drains.
#[derive(Debug, Default)]
pub struct Ready(AtomicU8);

/// Starting is zero, the default.
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Ready {
    /// Every listener is bound and every part started.
    pub fn set_ready(&self) {
        self.0.store(READY, Ordering::Release);
    }

    /// No new calls from now on.
    pub fn set_draining(&self) {
        self.0.store(DRAINING, Ordering::Release);
    }
}

/// `GET /healthz`.
pub(crate) async fn healthz() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// `GET /readyz`. A database that is away is told and changes nothing: calls go on without it.
pub(crate) async fn readyz(State((ready, metrics)): State<(Arc<Ready>, Arc<Metrics>)>) -> Response {
    let (code, status) = match ready.0.load(Ordering::Acquire) {
        READY => (StatusCode::OK, "ready"),
        DRAINING => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
    };
    let store = if metrics.store_up.get() == 1 { "up" } else { "away" };
    (code, Json(json!({"status": status, "store": store}))).into_response()
}
