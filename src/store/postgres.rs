//! PostgreSQL.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Row as _};

use super::backend::call_store;
use super::outbox;
use super::sql::{self, Cursor, peers_json};
use super::{
    CallEvent, CallPage, CallQuery, CallStore, Delivery, Entry, Horizon, MAX_PAGE, MissedCall, MissedPage,
    MissedQuery, StoreError, StoredCall, StoredParticipant, Time,
};
use crate::signaling::{CallId, CallRecord, Notice, UserId};

const PARTICIPANTS: &str = "\
SELECT * FROM call_participants WHERE call_id IN (SELECT jsonb_array_elements_text(CAST($1 AS jsonb))) \
ORDER BY call_id, invited_at, role, user_id, attempt";

/// Call records in PostgreSQL.
#[derive(Debug)]
pub struct Postgres {
    pool: PgPool,
}

/// Where a PostgreSQL server is. May hold a password: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(String);

impl std::fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PostgresUrl")
    }
}

impl PostgresUrl {
    /// Reads `postgres://user:password@host/database`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        match PgConnectOptions::from_str(url) {
            Ok(_) => Ok(Self(url.to_owned())),
            Err(_) => Err("is no PostgreSQL URL: write postgres://user:password@host/database".into()),
        }
    }

    /// The addresses the server's name has now; none where it is reached over a socket file or has no address.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let Ok(options) = PgConnectOptions::from_str(&self.0) else { return Vec::new() };
        let found = (options.get_host(), options.get_port()).to_socket_addrs();
        found.map(Iterator::collect).unwrap_or_default()
    }
}

impl Postgres {
    /// Connects and brings the tables up to date.
    ///
    /// # Errors
    /// The server is not there, or refuses.
    pub async fn open(url: &PostgresUrl) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(&url.0)?.application_name("passerelle");
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(5))
            .connect_with(options)
            .await?;
        sqlx::migrate!("migrations/postgres").run(&pool).await?;
        Ok(Self { pool })
    }

    async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, sqlx::Error> {
        self.pool.begin().await
    }
}

call_store!(Postgres, sqlx::Postgres, PARTICIPANTS);
