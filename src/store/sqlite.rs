//! SQLite, in WAL mode: readers never wait for the one writer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Row as _, SqlitePool};

use super::backend::call_store;
use super::outbox;
use super::sql::{self, Cursor, peers_json};
use super::{
    CallEvent, CallPage, CallQuery, CallStore, Delivery, Entry, Horizon, MAX_PAGE, MissedCall, MissedPage,
    MissedQuery, StoreError, StoredCall, StoredParticipant, Time,
};
use crate::signaling::{CallId, CallRecord, Notice, UserId};

/// How long a write waits for another process that holds the database.
const BUSY: Duration = Duration::from_secs(1);

/// Connections of the pool.
const CONNECTIONS: u32 = 4;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

const PARTICIPANTS: &str = "\
SELECT * FROM call_participants WHERE call_id IN (SELECT value FROM json_each($1)) \
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
            .busy_timeout(BUSY)
            .foreign_keys(true);
        // One connection first: a file that another one reads cannot become a WAL, and the pool opens two at once.
        let first = pool(1).connect_with(options.clone()).await?;
        MIGRATIONS.run(&first).await?;
        let pool = pool(CONNECTIONS).connect_with(options).await?;
        first.close().await;
        Ok(Self { pool })
    }

    /// Opens a database that is gone with the value.
    ///
    /// # Errors
    /// It cannot be migrated.
    pub async fn memory() -> Result<Self, StoreError> {
        // One connection that stays: each would be a database of its own.
        let pool =
            pool(1).connect_with(SqliteConnectOptions::new().in_memory(true).foreign_keys(true)).await?;
        MIGRATIONS.run(&pool).await?;
        Ok(Self { pool })
    }

    async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>, sqlx::Error> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }
}

call_store!(Sqlite, sqlx::Sqlite, PARTICIPANTS);

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(5))
        // A full disk makes SQLite roll back by itself. To the library the transaction then never ends, and the
        // connection begins no other: it is closed. The ping comes after a rollback that is under way.
        .after_release(|connection, _| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
}

/// Makes the file, readable by this service only: it says who called whom. SQLite gives its mode to the files beside it.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::samples::{call, user};
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_new_file_is_opened_by_one_connection_first() {
        let directory = tempfile::tempdir().unwrap();
        for file in 0..300 {
            let path = directory.path().join(format!("{file}.db"));
            Sqlite::open(&path).await.unwrap().close().await;
        }
    }

    /// A connection that has met a full disk is replaced by one that has room.
    #[tokio::test]
    async fn a_full_disk_blames_no_record_and_takes_them_once_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&directory.path().join("calls.db")).await.unwrap();
        let mut all = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut connection = store.pool.acquire().await.unwrap();
            // No less than there are already.
            sqlx::query("PRAGMA max_page_count = 1").execute(&mut *connection).await.unwrap();
            all.push(connection);
        }
        drop(all);
        let (mut written, mut refused) = (0, 0);
        while refused < CONNECTIONS {
            let record = call(&format!("c{written}"), 1, 1, &["alice", "bob"]);
            match store.write(std::slice::from_ref(&record)).await {
                Ok(()) => written += 1,
                Err(error) => {
                    assert!(!error.blames_record(), "{error}: it waits and is tried again");
                    assert!(error.to_string().contains("full"), "{error}");
                    refused += 1;
                }
            }
            assert!(written < 10_000, "it never gets full");
        }
        let record = call("last", 1, 1, &["alice", "bob"]);
        store.write(std::slice::from_ref(&record)).await.unwrap();
        assert!(store.one(None, record.id.clone()).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_file_keeps_calls_across_openings() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("calls.db");
        for rev in 1..=2 {
            let store = Sqlite::open(&path).await.unwrap();
            store.write(&[call("c1", 1, rev, &["alice", "bob"])]).await.unwrap();
            assert!(store.one(Some(user("bob")), CallId("c1".into())).await.unwrap().is_some());
            for file in std::fs::read_dir(directory.path()).unwrap() {
                let mode = file.unwrap().metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o077, 0, "others can read it");
            }
            store.close().await;
        }
    }
}
