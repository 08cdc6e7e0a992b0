//! SQLite, in WAL mode: readers never wait for the one writer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::{CallPage, CallQuery, CallStore, StoreError, StoredCall, StoredParticipant, Time};
use crate::signaling::{CallId, CallRecord, ParticipantRecord, UserId};

/// How long a write waits for another process that holds the database.
const BUSY: Duration = Duration::from_secs(1);

const UPSERT_CALL: &str = "\
INSERT INTO calls (id, room_id, type, mode, status, end_reason, initiator_id, created_at, ringing_at, answered_at, \
                   ended_at, duration_s, ended_by, participants_peak, metadata, rev) \
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
ON CONFLICT (id) DO UPDATE SET \
    mode = excluded.mode, status = excluded.status, end_reason = excluded.end_reason, \
    ringing_at = excluded.ringing_at, answered_at = excluded.answered_at, ended_at = excluded.ended_at, \
    duration_s = excluded.duration_s, ended_by = excluded.ended_by, \
    participants_peak = excluded.participants_peak, metadata = excluded.metadata, rev = excluded.rev \
WHERE excluded.rev > calls.rev";

const UPSERT_PARTICIPANT: &str = "\
INSERT INTO call_participants (call_id, user_id, attempt, role, state, invited_at, joined_at, connected_at, left_at, \
                               leave_reason, audio, video, reconnects) \
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
ON CONFLICT (call_id, user_id, attempt) DO UPDATE SET \
    role = excluded.role, state = excluded.state, joined_at = excluded.joined_at, \
    connected_at = excluded.connected_at, left_at = excluded.left_at, leave_reason = excluded.leave_reason, \
    audio = excluded.audio, video = excluded.video, reconnects = excluded.reconnects";

/// The calls of user ?1.
const LIST: &str = "\
WITH mine (id) AS (SELECT id FROM calls WHERE initiator_id = ?1 \
                   UNION SELECT call_id FROM call_participants WHERE user_id = ?1) \
SELECT calls.* FROM calls JOIN mine USING (id) \
WHERE (?2 IS NULL OR (initiator_id = ?1) = ?2) AND (?3 IS NULL OR status = ?3) \
  AND (?4 IS NULL OR (created_at, id) < (?4, ?5)) \
ORDER BY created_at DESC, id DESC LIMIT ?6";

const ONE: &str = "\
SELECT * FROM calls WHERE id = ?2 AND (initiator_id = ?1 OR EXISTS \
    (SELECT 1 FROM call_participants WHERE call_id = ?2 AND user_id = ?1))";

const PARTICIPANTS: &str = "\
SELECT * FROM call_participants WHERE call_id IN (SELECT value FROM json_each(?)) \
ORDER BY call_id, invited_at, role, user_id, attempt";

/// Call records in SQLite.
#[derive(Debug)]
pub struct Sqlite {
    pool: SqlitePool,
}

impl Sqlite {
    /// Opens a file, made if missing.
    ///
    /// # Errors
    /// It cannot be opened or migrated.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        create_private(path).map_err(sqlx::Error::Io)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY);
        Self::with(options, 4).await
    }

    /// Opens a database that is gone with the value.
    ///
    /// # Errors
    /// It cannot be migrated.
    pub async fn memory() -> Result<Self, StoreError> {
        // One connection that stays: each would be a database of its own.
        Self::with(SqliteConnectOptions::new().in_memory(true), 1).await
    }

    async fn with(options: SqliteConnectOptions, connections: u32) -> Result<Self, StoreError> {
        let pool = SqlitePoolOptions::new()
            .max_connections(connections)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(Duration::from_secs(5))
            .connect_with(options.foreign_keys(true))
            .await?;
        sqlx::migrate!("migrations/sqlite").run(&pool).await?;
        Ok(Self { pool })
    }

    async fn write_batch(&self, batch: &[Arc<CallRecord>]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for call in batch {
            if upsert_call(&mut transaction, call).await? {
                upsert_participants(&mut transaction, call).await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    async fn page(&self, query: CallQuery) -> Result<CallPage, StoreError> {
        let after = query.cursor.as_deref().map(Cursor::decode).transpose()?;
        let limit = query.limit.clamp(1, 100);
        let mut rows = sqlx::query(LIST)
            .bind(&*query.user.0)
            .bind(query.outgoing)
            .bind(query.status)
            .bind(after.as_ref().map(|cursor| cursor.created_at))
            .bind(after.map(|cursor| cursor.id))
            .bind(limit + 1)
            .fetch_all(&self.pool)
            .await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let calls = self.with_participants(&rows).await?;
        let next = calls
            .last()
            .filter(|_| more)
            .map(|last| Cursor { created_at: last.created_at.0, id: last.id.0.to_string() }.encode());
        Ok(CallPage { calls, next })
    }

    async fn with_participants(&self, rows: &[SqliteRow]) -> Result<Vec<StoredCall>, StoreError> {
        let mut calls = rows.iter().map(read_call).collect::<Result<Vec<_>, _>>()?;
        if calls.is_empty() {
            return Ok(calls);
        }
        let ids: serde_json::Value = calls.iter().map(|call| call.id.0.to_string()).collect();
        let rows = sqlx::query(PARTICIPANTS).bind(ids.to_string()).fetch_all(&self.pool).await?;
        let mut participants: HashMap<String, Vec<StoredParticipant>> = HashMap::new();
        for row in &rows {
            participants.entry(row.try_get("call_id")?).or_default().push(read_participant(row)?);
        }
        for call in &mut calls {
            call.participants = participants.remove(&*call.id.0).unwrap_or_default();
        }
        Ok(calls)
    }
}

impl CallStore for Sqlite {
    fn write<'a>(&'a self, batch: &'a [Arc<CallRecord>]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.write_batch(batch))
    }

    fn list(&self, query: CallQuery) -> BoxFuture<'_, Result<CallPage, StoreError>> {
        Box::pin(self.page(query))
    }

    fn one(&self, user: UserId, id: CallId) -> BoxFuture<'_, Result<Option<StoredCall>, StoreError>> {
        Box::pin(async move {
            let row = sqlx::query(ONE).bind(&*user.0).bind(&*id.0).fetch_optional(&self.pool).await?;
            Ok(self.with_participants(row.as_slice()).await?.pop())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.pool.close())
    }
}

/// Makes the file, readable by this service only: it says who called whom. SQLite gives its mode to the files beside it.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Writes a call; whether it was newer than what was there.
async fn upsert_call(connection: &mut SqliteConnection, call: &CallRecord) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(UPSERT_CALL)
        .bind(&*call.id.0)
        .bind(call.room_id.as_deref())
        .bind(call.kind)
        .bind(call.mode)
        .bind(call.status)
        .bind(call.end_reason)
        .bind(&*call.initiator.0)
        .bind(call.created_at)
        .bind(call.ringing_at)
        .bind(call.answered_at)
        .bind(call.ended_at)
        .bind(call.duration_s)
        .bind(call.ended_by.as_ref().map(|user| &*user.0))
        .bind(call.participants_peak)
        .bind(call.metadata.as_deref())
        .bind(call.rev.cast_signed())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

async fn upsert_participants(
    connection: &mut SqliteConnection,
    call: &CallRecord,
) -> Result<(), sqlx::Error> {
    let mut attempts: HashMap<&UserId, i64> = HashMap::new();
    for participant in &call.participants {
        let attempt = attempts.entry(&participant.user).or_insert(0);
        *attempt += 1;
        upsert_participant(connection, &call.id, *attempt, participant).await?;
    }
    Ok(())
}

async fn upsert_participant(
    connection: &mut SqliteConnection,
    call: &CallId,
    attempt: i64,
    participant: &ParticipantRecord,
) -> Result<(), sqlx::Error> {
    sqlx::query(UPSERT_PARTICIPANT)
        .bind(&*call.0)
        .bind(&*participant.user.0)
        .bind(attempt)
        .bind(participant.role)
        .bind(participant.state)
        .bind(participant.invited_at)
        .bind(participant.joined_at)
        .bind(participant.connected_at)
        .bind(participant.left_at)
        .bind(participant.leave_reason)
        .bind(participant.audio)
        .bind(participant.video)
        .bind(participant.reconnects)
        .execute(connection)
        .await?;
    Ok(())
}

fn read_call(row: &SqliteRow) -> Result<StoredCall, sqlx::Error> {
    let time = |column| row.try_get::<Option<i64>, _>(column).map(|time| time.map(Time));
    let metadata: Option<String> = row.try_get("metadata")?;
    Ok(StoredCall {
        id: CallId(row.try_get::<String, _>("id")?.into()),
        room_id: row.try_get("room_id")?,
        kind: row.try_get("type")?,
        mode: row.try_get("mode")?,
        status: row.try_get("status")?,
        end_reason: row.try_get("end_reason")?,
        initiator: UserId(row.try_get::<String, _>("initiator_id")?.into()),
        created_at: Time(row.try_get("created_at")?),
        ringing_at: time("ringing_at")?,
        answered_at: time("answered_at")?,
        ended_at: time("ended_at")?,
        duration_s: row.try_get("duration_s")?,
        ended_by: row.try_get("ended_by")?,
        participants_peak: row.try_get("participants_peak")?,
        metadata: metadata.and_then(|text| serde_json::from_str(&text).ok()),
        rev: row.try_get::<i64, _>("rev")?.cast_unsigned(),
        participants: Vec::new(),
    })
}

fn read_participant(row: &SqliteRow) -> Result<StoredParticipant, sqlx::Error> {
    let time = |column| row.try_get::<Option<i64>, _>(column).map(|time| time.map(Time));
    Ok(StoredParticipant {
        user: UserId(row.try_get::<String, _>("user_id")?.into()),
        role: row.try_get("role")?,
        state: row.try_get("state")?,
        invited_at: Time(row.try_get("invited_at")?),
        joined_at: time("joined_at")?,
        connected_at: time("connected_at")?,
        left_at: time("left_at")?,
        leave_reason: row.try_get("leave_reason")?,
        audio: row.try_get("audio")?,
        video: row.try_get("video")?,
        reconnects: row.try_get("reconnects")?,
    })
}

/// The last call of a page.
struct Cursor {
    created_at: i64,
    id: String,
}

impl Cursor {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}:{}", self.created_at, self.id))
    }

    fn decode(text: &str) -> Result<Self, StoreError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| StoreError::Cursor)?;
        let text = String::from_utf8(bytes).map_err(|_| StoreError::Cursor)?;
        let (created_at, id) = text.split_once(':').ok_or(StoreError::Cursor)?;
        Ok(Self { created_at: created_at.parse().map_err(|_| StoreError::Cursor)?, id: id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{call, user};
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    async fn filled(calls: &[Arc<CallRecord>]) -> Sqlite {
        let store = Sqlite::memory().await.unwrap();
        store.write(calls).await.unwrap();
        store
    }

    fn query(name: &str) -> CallQuery {
        CallQuery { user: user(name), cursor: None, limit: 100, outgoing: None, status: None }
    }

    async fn ids(store: &Sqlite, query: CallQuery) -> Vec<String> {
        store.list(query).await.unwrap().calls.iter().map(|call| call.id.0.to_string()).collect()
    }

    #[tokio::test]
    async fn a_call_reads_back_as_it_was_written() {
        let store = filled(&[call("c1", 1_700_000_000_123, 1, &["alice", "bob"])]).await;
        let read = store.one(user("bob"), CallId("c1".into())).await.unwrap().unwrap();
        let json = serde_json::to_value(&read).unwrap();
        assert_eq!(json["callId"], "c1");
        assert_eq!(json["conversationId"], "room");
        assert_eq!(json["initiatorId"], "alice");
        assert_eq!(json["createdAt"], "2023-11-14T22:13:20.123Z");
        assert_eq!(json["endedAt"], serde_json::Value::Null);
        assert_eq!(json["metadata"]["topic"], "tea");
        assert_eq!(json["participants"][0]["userId"], "alice");
        assert_eq!(json["participants"][1]["isAudioEnabled"], true);
        assert_eq!(json["participants"][1]["joinedAt"], "2023-11-14T22:13:20.124Z");
    }

    #[tokio::test]
    async fn the_newest_revision_wins_in_any_order() {
        let end = |rev, status: &'static str| {
            let mut call = (*call("c1", 5, rev, &["alice", "bob"])).clone();
            call.status = status;
            call.participants[1].state = status;
            Arc::new(call)
        };
        let store = filled(&[end(3, "completed"), end(2, "active")]).await;
        store.write(&[end(1, "ringing")]).await.unwrap();
        let read = store.one(user("alice"), CallId("c1".into())).await.unwrap().unwrap();
        assert_eq!((read.status.as_str(), read.rev), ("completed", 3));
        assert_eq!(read.participants[1].state, "completed");
        store.write(&[end(4, "failed")]).await.unwrap();
        let read = store.one(user("alice"), CallId("c1".into())).await.unwrap().unwrap();
        assert_eq!((read.status.as_str(), read.participants[1].state.as_str()), ("failed", "failed"));
    }

    #[tokio::test]
    async fn a_second_attempt_of_a_participant_is_a_row_of_its_own() {
        let store = filled(&[call("c1", 5, 1, &["alice", "bob", "bob"])]).await;
        let read = store.one(user("bob"), CallId("c1".into())).await.unwrap().unwrap();
        assert_eq!(read.participants.len(), 3);
        assert_eq!(ids(&store, query("bob")).await, ["c1"]);
    }

    #[tokio::test]
    async fn a_user_sees_only_own_calls() {
        let store =
            filled(&[call("c1", 1, 1, &["alice", "bob"]), call("c2", 2, 1, &["carol", "alice"])]).await;
        assert_eq!(ids(&store, query("alice")).await, ["c2", "c1"]);
        assert_eq!(ids(&store, query("bob")).await, ["c1"]);
        assert_eq!(ids(&store, query("mallory")).await, [""; 0]);
        assert!(store.one(user("bob"), CallId("c2".into())).await.unwrap().is_none());
        assert!(store.one(user("alice"), CallId("c3".into())).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_list_is_filtered_by_direction_and_status() {
        let mut missed = (*call("c3", 3, 1, &["alice", "bob"])).clone();
        missed.status = "missed";
        let store = filled(&[
            call("c1", 1, 1, &["alice", "bob"]),
            call("c2", 2, 1, &["bob", "alice"]),
            Arc::new(missed),
        ])
        .await;
        let outgoing = |outgoing| CallQuery { outgoing: Some(outgoing), ..query("alice") };
        assert_eq!(ids(&store, outgoing(true)).await, ["c3", "c1"]);
        assert_eq!(ids(&store, outgoing(false)).await, ["c2"]);
        let status = CallQuery { status: Some("missed".into()), ..query("alice") };
        assert_eq!(ids(&store, status).await, ["c3"]);
    }

    #[tokio::test]
    async fn pages_hold_every_call_once_even_in_the_same_millisecond() {
        let calls: Vec<_> =
            (0..25).map(|n| call(&format!("c{n:02}"), n / 10, 1, &["alice", "bob"])).collect();
        let store = filled(&calls).await;
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = store.list(CallQuery { cursor, limit: 4, ..query("bob") }).await.unwrap();
            assert!(page.calls.len() <= 4);
            seen.extend(page.calls.iter().map(|call| call.id.0.to_string()));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let expected: Vec<String> = (0..25).rev().map(|n| format!("c{n:02}")).collect();
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn a_foreign_cursor_is_refused() {
        let store = filled(&[]).await;
        for cursor in ["", "!", "bm9uc2Vuc2U", "-"] {
            let page = store.list(CallQuery { cursor: Some(cursor.into()), ..query("bob") }).await;
            assert!(matches!(page, Err(StoreError::Cursor)), "{cursor}");
        }
    }

    #[tokio::test]
    async fn a_file_keeps_calls_across_openings() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("calls.db");
        for rev in 1..=2 {
            let store = Sqlite::open(&path).await.unwrap();
            store.write(&[call("c1", 1, rev, &["alice", "bob"])]).await.unwrap();
            assert_eq!(ids(&store, query("bob")).await, ["c1"]);
            for file in std::fs::read_dir(directory.path()).unwrap() {
                let mode = file.unwrap().metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o077, 0, "others can read it");
            }
            store.close().await;
        }
    }
}
