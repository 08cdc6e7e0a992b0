//! Which database.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::{CallStore, Postgres, PostgresUrl, Sqlite, StoreError};

/// Configuration of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// SQLite in a file.
    Sqlite(PathBuf),
    /// SQLite in memory: gone with the process.
    Memory,
    /// PostgreSQL.
    Postgres(PostgresUrl),
}

impl Config {
    /// Reads a URL: `sqlite:PATH`, `sqlite://PATH`, `sqlite::memory:` or `postgres://…`.
    ///
    /// # Errors
    /// What is wrong with it, and the way out.
    pub fn parse(url: &str) -> Result<Self, String> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return PostgresUrl::parse(url).map(Self::Postgres);
        }
        let path = url.strip_prefix("sqlite:").ok_or_else(|| {
            format!("{url:?} is no database: write sqlite:PATH, sqlite::memory: or postgres://…")
        })?;
        match path.strip_prefix("//").unwrap_or(path) {
            ":memory:" => Ok(Self::Memory),
            "" => Err("names no file: write sqlite:PATH or sqlite::memory:".into()),
            path if path.contains('?') => Err("takes no parameters: write sqlite:PATH".into()),
            path => Ok(Self::Sqlite(path.into())),
        }
    }

    /// Where a database on the network listens: never a peer of the relay.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Sqlite(_) | Self::Memory => Vec::new(),
            Self::Postgres(url) => url.addresses(),
        }
    }

    /// Whether calls go on without it: a server may be away when this one starts, a file may not.
    pub fn may_come_later(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Opens the database and brings its tables up to date.
    ///
    /// # Errors
    /// It cannot be opened or migrated.
    pub async fn open(&self) -> Result<Arc<dyn CallStore>, StoreError> {
        Ok(match self {
            Self::Sqlite(path) => Arc::new(Sqlite::open(path).await?),
            Self::Memory => Arc::new(Sqlite::memory().await?),
            Self::Postgres(url) => Arc::new(Postgres::open(url).await?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file_or_memory() {
        assert_eq!(Config::parse("sqlite:calls.db"), Ok(Config::Sqlite("calls.db".into())));
        assert_eq!(Config::parse("sqlite:///var/lib/p/c.db"), Ok(Config::Sqlite("/var/lib/p/c.db".into())));
        assert_eq!(Config::parse("sqlite::memory:"), Ok(Config::Memory));
        let postgres = Config::parse("postgres://u:hunter2@localhost/calls").unwrap();
        assert!(matches!(postgres, Config::Postgres(_)) && !format!("{postgres:?}").contains("hunter2"));
        let local = Config::parse("postgres://u@127.0.0.1:5433/calls").unwrap();
        assert_eq!(local.addresses(), ["127.0.0.1:5433".parse().unwrap()]);
        assert!(Config::Memory.addresses().is_empty());
        for wrong in ["", "sqlite:", "mysql://x", "postgres://[", "sqlite:a?mode=ro"] {
            assert!(Config::parse(wrong).is_err(), "{wrong}");
        }
    }
}
