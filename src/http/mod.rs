//! The shell around `signaling` and everything HTTP: WebSocket, Socket.IO, REST, pages, health, scrape.
//!
//! Owns the [`Engine`] (the call engine with its clock and its sessions' queues) and every HTTP connection. Must not
//! know the relay or the database: it is handed a way to mint ICE servers, a [`CallStore`] and a sink for events.
//! Driven by its clients and by `app`, which binds the sockets and calls [`serve()`].
//!
//! A message's way: [`serve()`] → `admission` (who, from where) → `websocket` or `socketio` (framing) → [`Engine`] →
//! `session` (bounded queue) → the transports of the receivers.

mod admission;
mod calls;
mod config;
mod directory;
mod engine;
mod frame;
mod health;
mod ice_servers;
pub mod inbound;
mod openapi;
mod operations;
mod origin;
mod pages;
mod refusal;
mod rest;
mod resume;
mod scrape;
mod serve;
mod session;
mod socketio;
#[cfg(test)]
mod tests;
mod webhooks;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, post};
use parking_lot::Mutex;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

pub use admission::{Access, AccessLists};
pub use config::{Config, Limits};
pub use engine::{Engine, Sink};
pub use health::Ready;
pub use operations::{Operations, Reload};
pub use origin::BadOrigin;
pub use scrape::metrics_router;
pub use serve::{Server, serve};

pub use webhooks::Webhooks;

use admission::{Admission, Admitted, Visitor};
use engine::Opened;
use session::AckId;

use crate::auth::Authenticator;
use crate::metrics::Metrics;
use crate::signaling::{AdminCommand, Authority, IceMint, Reject, Resume, Resumption, UserId};
use crate::store::CallStore;

/// Time for a REST request.
const REST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a request of Socket.IO polling: longer than the server holds one, so only a dripping body meets it.
const POLLING_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a browser may remember a preflight.
const PREFLIGHT_AGE: Duration = Duration::from_mins(10);

/// What the router works with.
pub struct Parts {
    /// The call engine.
    pub engine: Arc<Engine>,
    /// Who may come in.
    pub authenticator: Arc<Authenticator>,
    /// And from where.
    pub access: Arc<Access>,
    /// Call records.
    pub store: Arc<dyn CallStore>,
    /// Mints ICE servers for REST.
    pub ice: Box<dyn IceMint>,
    /// What `/readyz` says.
    pub ready: Arc<Ready>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What an operator may tell the process.
    pub operations: Arc<Operations>,
}

/// What every handler shares.
pub(crate) struct Shared {
    engine: Arc<Engine>,
    admission: Arc<Admission>,
    store: Arc<dyn CallStore>,
    ice: Mutex<Box<dyn IceMint>>,
    limits: Limits,
    metrics: Arc<Metrics>,
    operations: Arc<Operations>,
}

impl Shared {
    /// Opens a session for someone who was let in. A wish to resume the session of someone else counts as an attempt to
    /// get in.
    fn open(
        &self,
        admitted: Admitted,
        visitor: Visitor,
        transport: &'static str,
        ack: Option<AckId>,
        resume: Option<Resume>,
    ) -> Result<Opened, Reject> {
        let Admitted { identity, members } = admitted;
        for (room, members) in members {
            let members = Some(members.into_iter().map(|user| UserId(user.into())).collect());
            let command = AdminCommand::SetMembers { room: room.into(), members };
            self.engine.admin(&Authority::Operator, command)?;
        }
        let opened = self.engine.open(identity, transport, ack, resume)?;
        if opened.resumption == Some(Resumption::Wrong) {
            self.admission.failed(visitor.peer);
        }
        Ok(opened)
    }
}

/// The router of the signaling listeners.
pub fn router(limits: &Limits, parts: Parts) -> Router {
    let Parts { engine, authenticator, access, store, ice, ready, metrics, operations } = parts;
    let admission = Arc::new(Admission::new(limits, access, authenticator, Arc::clone(&metrics)));
    let shared = Arc::new(Shared {
        engine,
        admission: Arc::clone(&admission),
        store,
        ice: Mutex::new(ice),
        limits: limits.clone(),
        metrics,
        operations,
    });
    let visited = from_fn_with_state(Arc::clone(&admission), admission::visit);
    let members = get(directory::room).put(directory::set_members).delete(directory::unset_members);
    let rest = Router::new()
        .route("/api/v1/openapi.json", get(openapi::document))
        .route("/api/v1/ice-servers", get(ice_servers::ice_servers))
        .route("/api/v1/calls", get(calls::list).post(calls::ring))
        .route("/api/v1/calls.csv", get(calls::csv))
        .route("/api/v1/calls/active", get(calls::active))
        .route("/api/v1/calls/missed", get(calls::missed))
        .route("/api/v1/calls/{id}", get(calls::one))
        .route("/api/v1/calls/{id}/events", get(calls::events))
        .route("/api/v1/calls/{id}/end", post(calls::end))
        .route("/api/v1/calls/{id}/invite", post(calls::invite))
        .route("/api/v1/calls/{id}/lock", post(calls::lock))
        .route("/api/v1/calls/{id}/participants/{user}/kick", post(calls::kick))
        .route("/api/v1/calls/{id}/participants/{user}/mute", post(calls::mute))
        .route("/api/v1/rooms/{id}/members", members)
        .route("/api/v1/users/{id}/presence", get(directory::presence))
        .route("/api/v1/sessions", get(directory::sessions))
        .route("/api/v1/stats", get(operations::stats))
        .route("/api/v1/admin/drain", post(operations::drain))
        .route("/api/v1/admin/reload", post(operations::reload))
        .route("/turn", get(ice_servers::turn))
        .layer(DefaultBodyLimit::max(limits.frame))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REST_TIMEOUT))
        .layer(SetResponseHeaderLayer::overriding(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        .layer(visited.clone())
        .layer(cors(Arc::clone(&admission)));
    let socketio = Router::new()
        .route("/socket.io/", socketio::service(&shared))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, POLLING_TIMEOUT))
        .layer(from_fn_with_state(Arc::clone(&shared), socketio::gate))
        .layer(visited.clone())
        .layer(cors(admission));
    let websocket = Router::new().route("/ws", any(websocket::upgrade)).layer(visited);
    let health = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .with_state((ready, Arc::clone(&shared.metrics)));
    Router::new()
        .merge(rest)
        .merge(socketio)
        .merge(websocket)
        .with_state(shared)
        .merge(health)
        .fallback(pages::page)
        .layer(SetResponseHeaderLayer::if_not_present(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(|request: &Request| {
                    // The path alone: the query may hold a token.
                    tracing::debug_span!("http", method = %request.method(), path = request.uri().path())
                })
                // A refusal for lack of room is an answer like any other: a storm of clients must not flood the log.
                .on_failure(()),
        )
}

/// Lets pages of allowed origins read answers. Tokens travel in headers, never in cookies: no credentials.
fn cors(admission: Arc<Admission>) -> CorsLayer {
    let allowed = move |origin: &HeaderValue, request: &axum::http::request::Parts| {
        origin.to_str().is_ok_and(|origin| admission.shares_with(origin, &request.headers))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .max_age(PREFLIGHT_AGE)
}
