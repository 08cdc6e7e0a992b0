//! What is left of a call: in the database, and over REST.

#![allow(dead_code, reason = "each test takes its part")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{Connection as _, SqliteConnection};

use crate::device::token;
use crate::support::caller::token_with;
use crate::support::{Server, eventually};

/// A folder for a database, and the configuration that keeps it there.
pub(crate) struct Database {
    folder: tempfile::TempDir,
}

impl Database {
    /// An empty folder.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// The section of the configuration.
    pub(crate) fn config(&self) -> String {
        format!("[store]\nurl = \"sqlite:{}\"\n", self.path().display())
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("calls.db")
    }

    /// Waits until a query has a first row.
    #[track_caller]
    pub(crate) fn row(&self, query: &'static str) -> SqliteRow {
        eventually(query, || first_row(&self.path(), query))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn first_row(path: &Path, query: &'static str) -> Option<SqliteRow> {
    let mut connection =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.ok()?;
    let row = sqlx::query(query).fetch_optional(&mut connection).await.ok().flatten();
    connection.close().await.ok()?;
    row
}

/// A GET as a user: status and JSON.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn rest(server: &Server, user: &str, path: &str) -> (u16, Value) {
    get(server, &token(user), path).await
}

/// The same, for who may see everything.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn as_operator(server: &Server, path: &str) -> (u16, Value) {
    get(server, &token_with("operator", &json!({ "admin": true })), path).await
}

async fn get(server: &Server, token: &str, path: &str) -> (u16, Value) {
    let url = format!("http://{}/api/v1/{path}", server.http);
    let answer = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

/// Waits until the complete record of a call is written, as a user sees it in its list.
#[track_caller]
pub(crate) fn ended(server: &Server, user: &str, call: &str) -> Value {
    eventually("the record has its end", || {
        let (status, mut list) = rest(server, user, "calls?limit=100");
        let written = list["calls"].as_array_mut()?.iter_mut();
        let record = written.into_iter().find(|record| record["callId"] == *call).map(Value::take)?;
        (status == 200 && record["endedAt"].is_string()).then_some(record)
    })
}
