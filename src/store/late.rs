//! A database that was away when the service started: until it is there, reads fail and writes wait in the queue.

use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;

use super::{
    CallEvent, CallPage, CallQuery, CallStore, Delivery, Entry, Horizon, MissedCall, MissedPage, MissedQuery,
    StoreError, StoredCall,
};
use crate::signaling::{CallId, CallRecord, UserId};

/// A place for a store that is opened later.
#[derive(Debug, Default)]
pub struct Late(OnceLock<Arc<dyn CallStore>>);

impl Late {
    /// The database is there, from now on. The first one stays.
    pub fn arrive(&self, store: Arc<dyn CallStore>) {
        let _ = self.0.set(store);
    }

    fn store(&self) -> Result<&dyn CallStore, StoreError> {
        self.0.get().map(AsRef::as_ref).ok_or(StoreError::Away)
    }
}

impl CallStore for Late {
    fn write<'a>(&'a self, batch: &'a [Arc<CallRecord>]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.store()?.write(batch).await })
    }

    fn note<'a>(&'a self, entries: &'a [Entry]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.store()?.note(entries).await })
    }

    fn list(&self, query: CallQuery) -> BoxFuture<'_, Result<CallPage, StoreError>> {
        Box::pin(async move { self.store()?.list(query).await })
    }

    fn one(&self, user: Option<UserId>, id: CallId) -> BoxFuture<'_, Result<Option<StoredCall>, StoreError>> {
        Box::pin(async move { self.store()?.one(user, id).await })
    }

    fn running(&self, since: i64, limit: u32) -> BoxFuture<'_, Result<Vec<CallRecord>, StoreError>> {
        Box::pin(async move { self.store()?.running(since, limit).await })
    }

    fn ended(&self, since: i64, limit: u32) -> BoxFuture<'_, Result<Vec<CallId>, StoreError>> {
        Box::pin(async move { self.store()?.ended(since, limit).await })
    }

    fn events(&self, user: Option<UserId>, id: CallId) -> BoxFuture<'_, Result<Vec<CallEvent>, StoreError>> {
        Box::pin(async move { self.store()?.events(user, id).await })
    }

    fn missed(&self, query: MissedQuery) -> BoxFuture<'_, Result<MissedPage, StoreError>> {
        Box::pin(async move { self.store()?.missed(query).await })
    }

    fn unseen(&self, since: i64, limit: u32) -> BoxFuture<'_, Result<Vec<MissedCall>, StoreError>> {
        Box::pin(async move { self.store()?.unseen(since, limit).await })
    }

    fn trim(&self, most: u32) -> BoxFuture<'_, Result<(u64, u64), StoreError>> {
        Box::pin(async move { self.store()?.trim(most).await })
    }

    fn due(&self, now: i64, limit: u32) -> BoxFuture<'_, Result<Vec<Delivery>, StoreError>> {
        Box::pin(async move { self.store()?.due(now, limit).await })
    }

    fn delivered<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.store()?.delivered(id).await })
    }

    fn postponed<'a>(&'a self, id: &'a str, until: i64) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.store()?.postponed(id, until).await })
    }

    fn purge(&self, before: Horizon) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.store()?.purge(before).await })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Ok(store) = self.store() {
                store.close().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sqlite;
    use super::super::samples::call;
    use super::*;

    #[tokio::test]
    async fn nothing_is_read_or_written_before_the_database_is_there() {
        let late = Late::default();
        assert!(matches!(late.write(&[]).await, Err(StoreError::Away)));
        assert!(matches!(late.running(0, 1).await, Err(StoreError::Away)));
        late.close().await;
        late.arrive(Arc::new(Sqlite::memory().await.unwrap()));
        late.write(&[call("c1", 1, 1, &["alice", "bob"])]).await.unwrap();
        assert_eq!(late.running(0, 9).await.unwrap().len(), 1);
    }
}
