//! `GET /api/v1/openapi.json`: the REST interface, described (OpenAPI 3.1).

use axum::http::header;
use axum::response::IntoResponse;

/// The description. Written by hand; a test holds it to the router.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /api/v1/openapi.json`.
pub(crate) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}
