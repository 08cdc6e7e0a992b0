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
    /// It takes too long.
    #[error("the database does not answer in time")]
    Timeout,
    /// The cursor is not one of ours.
    #[error("unreadable cursor: start without one")]
    Cursor,
}

impl StoreError {
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
