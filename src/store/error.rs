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
    /// The cursor is not one of ours.
    #[error("unreadable cursor: start without one")]
    Cursor,
}
