//! What every REST endpoint shares: the caller behind a bearer token.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::Shared;
use super::admission::{Admitted, NotAdmitted, Visitor, credential};
use super::refusal::Refusal;
use crate::signaling::Identity;

/// The authenticated caller of a request.
pub(crate) struct Caller(pub(crate) Identity);

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Refusal> {
        let visitor = parts.extensions.get::<Visitor>().copied().ok_or_else(Refusal::origin)?;
        let shown = credential(&parts.headers, parts.uri.query()).map_err(NotAdmitted::from)?;
        let Admitted { identity, .. } = shared.admission.authenticate(shown.presented(None), visitor).await?;
        Ok(Self(identity))
    }
}
