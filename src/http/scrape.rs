//! `/metrics`, on a listener of its own.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use crate::metrics::{CONTENT_TYPE, Metrics};

/// Scrapes at once.
const CONCURRENT: usize = 4;

#[derive(Clone)]
struct Scrape {
    metrics: Arc<Metrics>,
    permits: Arc<Semaphore>,
}

/// The router of the scrape listener.
pub fn metrics_router(metrics: Arc<Metrics>) -> Router {
    let scrape = Scrape { metrics, permits: Arc::new(Semaphore::new(CONCURRENT)) };
    Router::new().route("/metrics", get(answer)).with_state(scrape)
}

async fn answer(State(scrape): State<Scrape>) -> Response {
    let Ok(_permit) = Arc::clone(&scrape.permits).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once\n").into_response();
    };
    // Encoding visits every series and runs the hooks: not on a thread that serves calls.
    match tokio::task::spawn_blocking(move || scrape.metrics.encode()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, "metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
