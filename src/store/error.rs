//! What can go wrong with a database.

/// A failed read or write of call records.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or is gone.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// A migration failed.
    #[error("migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// It has not been there since the service started.
    #[error("the database is not there yet")]
    Away,
    /// It takes too long.
    #[error("the database does not answer in time")]
    Timeout,
    /// The cursor is not one of ours.
    #[error("unreadable cursor: start without one")]
    Cursor,
}

impl StoreError {
    /// Whether the database cannot be reached now and may be later. One that answers and refuses is not away.
    pub fn is_absence(&self) -> bool {
        use sqlx::migrate::MigrateError;
        match self {
            Self::Database(error) | Self::Migration(MigrateError::Execute(error)) => cannot_reach(error),
            Self::Away | Self::Timeout => true,
            Self::Migration(_) | Self::Cursor => false,
        }
    }

    /// Whether the record is to blame and not the database: writing it again would fail again.
    pub fn blames_record(&self) -> bool {
        use sqlx::error::ErrorKind;
        let Self::Database(error) = self else { return false };
        match error {
            sqlx::Error::Encode(_) => true,
            sqlx::Error::Database(error) => matches!(
                error.kind(),
                ErrorKind::NotNullViolation
                    | ErrorKind::CheckViolation
                    | ErrorKind::UniqueViolation
                    | ErrorKind::ForeignKeyViolation
            ),
            _ => false,
        }
    }
}

fn cannot_reach(error: &sqlx::Error) -> bool {
    /// It starts, stops, or has no connection left (PostgreSQL's codes).
    const NOT_NOW: [&str; 4] = ["57P03", "57P02", "57P01", "53300"];
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| NOT_NOW.contains(&&*code)),
        _ => false,
    }
}
