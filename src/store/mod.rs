//! Call records. Owns the database; must never be waited for by signaling: writes go through [`Queue`], which is
//! bounded and lossy only beyond its bound, with a counter. Driven by `observe` (writes) and `http` (reads).

mod backend;
mod call;
mod config;
mod error;
mod late;
mod missed;
mod outbox;
mod postgres;
mod queue;
mod retention;
mod sql;
mod sqlite;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use call::{StoredCall, StoredParticipant, Time};
pub use config::Config;
pub use error::StoreError;
pub use late::Late;
pub use missed::{MissedCall, MissedPage, MissedQuery};
pub use outbox::{CallEvent, Delivery, Entry};
pub use postgres::{Postgres, PostgresUrl};
pub use queue::Queue;
pub use retention::{Horizon, Retention, purge};
pub use sqlite::Sqlite;

use crate::signaling::{CallId, CallRecord, UserId};

/// Most rows of a page.
pub const MAX_PAGE: u32 = 1000;

/// A question for a page of calls, newest first.
#[derive(Debug, Clone, Default)]
pub struct CallQuery {
    /// Only calls this user was invited to, started or joined; `None` for everybody's.
    pub user: Option<UserId>,
    /// Opaque cursor of the previous page.
    pub cursor: Option<String>,
    /// Rows of the page, 1 to [`MAX_PAGE`].
    pub limit: u32,
    /// Only calls the user started (`Some(true)`) or received (`Some(false)`).
    pub outgoing: Option<bool>,
    /// Only calls with this wire status (`completed`, `missed`, …).
    pub status: Option<String>,
    /// Only calls of this room.
    pub room: Option<String>,
    /// Only `audio` or `video`.
    pub kind: Option<String>,
    /// Only calls made at this time or later, in milliseconds since the Unix epoch.
    pub since: Option<i64>,
    /// Only calls made before this time.
    pub until: Option<i64>,
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

    /// Writes what happened to calls: for the webhook, for the list of missed calls, for their history. What is there
    /// already stays.
    fn note<'a>(&'a self, entries: &'a [Entry]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// A page of calls.
    fn list(&self, query: CallQuery) -> BoxFuture<'_, Result<CallPage, StoreError>>;

    /// One call; with a user only if that one is part of it.
    fn one(&self, user: Option<UserId>, id: CallId) -> BoxFuture<'_, Result<Option<StoredCall>, StoreError>>;

    /// Calls made since then that are not over, newest first: what a process that starts takes up.
    fn running(&self, since: i64, limit: u32) -> BoxFuture<'_, Result<Vec<CallRecord>, StoreError>>;

    /// The newest calls that ended since then, the oldest of them first.
    fn ended(&self, since: i64, limit: u32) -> BoxFuture<'_, Result<Vec<CallId>, StoreError>>;

    /// The steps of a call that are kept, oldest first; with a user only if that one is part of it.
    fn events(&self, user: Option<UserId>, id: CallId) -> BoxFuture<'_, Result<Vec<CallEvent>, StoreError>>;

    /// A page of missed calls.
    fn missed(&self, query: MissedQuery) -> BoxFuture<'_, Result<MissedPage, StoreError>>;

    /// What was missed since then by users who do not know of it yet, oldest first, the newest if there is more.
    fn unseen(&self, since: i64, limit: u32) -> BoxFuture<'_, Result<Vec<MissedCall>, StoreError>>;

    /// Drops the oldest events for the webhook beyond `most`: how many were dropped, how many wait.
    fn trim(&self, most: u32) -> BoxFuture<'_, Result<(u64, u64), StoreError>>;

    /// Events for the webhook whose time has come: of each call the oldest only, so that they stay in order.
    fn due(&self, now: i64, limit: u32) -> BoxFuture<'_, Result<Vec<Delivery>, StoreError>>;

    /// The webhook has an event, or will never have it.
    fn delivered<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;

    /// An attempt has failed; the next one is not before this time.
    fn postponed<'a>(&'a self, id: &'a str, until: i64) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Deletes what is older than this; how many calls.
    fn purge(&self, before: Horizon) -> BoxFuture<'_, Result<u64, StoreError>>;

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
            relay_peers: Vec::new(),
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
