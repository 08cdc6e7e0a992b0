//! Call records. Owns the database; must never be waited for by signaling: writes go through [`Queue`], which is
//! bounded and lossy only beyond its bound, with a counter. Driven by `observe` (writes) and `http` (reads).

mod call;
mod config;
mod error;
mod queue;
mod sqlite;

use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use call::{StoredCall, StoredParticipant, Time};
pub use config::Config;
pub use error::StoreError;
pub use queue::Queue;
pub use sqlite::Sqlite;

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

#[cfg(test)]
mod samples {
    //! Records for the tests of this module.

    use super::*;
    use crate::signaling::ParticipantRecord;

    pub(super) fn user(name: &str) -> UserId {
        UserId(name.into())
    }

    pub(super) fn call(id: &str, created_at: i64, rev: u64, users: &[&str]) -> Arc<CallRecord> {
        let participant = |name: &&str| ParticipantRecord {
            user: user(name),
            role: if *name == users[0] { "initiator" } else { "participant" },
            state: "joined",
            invited_at: created_at,
            joined_at: Some(created_at + 1),
            connected_at: None,
            left_at: None,
            leave_reason: None,
            audio: true,
            video: false,
            reconnects: 0,
            setup_ms: None,
            ice_method: None,
            rtt_avg_ms: None,
            rtt_max_ms: None,
            loss_avg: None,
            loss_max: None,
            jitter_avg_ms: None,
            relay_bytes: 0,
            relay_transport: None,
        };
        Arc::new(CallRecord {
            id: CallId(id.into()),
            room_id: Some("room".into()),
            kind: "video",
            mode: "p2p",
            status: "active",
            end_reason: None,
            initiator: user(users[0]),
            created_at,
            ringing_at: Some(created_at),
            answered_at: None,
            ended_at: None,
            duration_s: None,
            ended_by: None,
            participants_peak: 2,
            open: false,
            locked: false,
            expires_at: created_at + 60_000,
            quality: None,
            relay_bytes_up: 0,
            relay_bytes_down: 0,
            metadata: Some(r#"{"topic":"tea"}"#.into()),
            rev,
            participants: users.iter().map(participant).collect(),
        })
    }
}
