//! Call records. Owns the database; must never be waited for by signaling: writes go through [`queue`], which is
//! bounded and lossy only beyond its bound, with a counter. Driven by `observe` (writes) and `http` (reads).

mod error;

use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use error::StoreError;

use crate::signaling::{CallId, CallRecord, UserId};

/// A question for a page of a user's calls, newest first.
#[derive(Debug, Clone)]
pub struct CallQuery {
    /// Only calls this user was invited to, started or joined.
    pub user: UserId,
    /// Opaque cursor of the previous page.
    pub cursor: Option<String>,
    /// Rows of the page, 1 to 100.
    pub limit: u32,
    /// Only calls the user started (`Some(true)`) or received (`Some(false)`).
    pub outgoing: Option<bool>,
    /// Only calls with this wire status (`completed`, `missed`, …).
    pub status: Option<String>,
}

/// A page of calls.
#[derive(Debug, Clone)]
pub struct CallPage {
    /// The records, newest first.
    pub calls: Vec<StoredCall>,
    /// Cursor of the next page; `None` on the last.
    pub next: Option<String>,
}

/// A call as it was read back. Same fields as [`CallRecord`], owned.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StoredCall {}

/// Where call records live. One implementation a database.
pub trait CallStore: Send + Sync + std::fmt::Debug {
    /// Writes a batch in one transaction. A record replaces an older `rev` of itself and never a newer one.
    fn write<'a>(&'a self, batch: &'a [Arc<CallRecord>]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// A page of a user's calls.
    fn list(&self, query: CallQuery) -> BoxFuture<'_, Result<CallPage, StoreError>>;

    /// One call, only if the user is part of it.
    fn one(&self, user: UserId, id: CallId) -> BoxFuture<'_, Result<Option<StoredCall>, StoreError>>;

    /// Closes the database after everything was written.
    fn close(&self) -> BoxFuture<'_, ()>;
}
