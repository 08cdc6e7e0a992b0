//! Writes behind: whoever has a record leaves it here and goes on. One task writes what has gathered, in batches, the
//! newest revision of each call only. While the database is down records wait, up to a bound.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::{CallStore, Entry, StoreError};
use crate::metrics::Metrics;
use crate::signaling::{CallId, CallRecord, Notice, UserId};

/// Calls that may wait.
const CAPACITY: usize = 100_000;
/// Records of one transaction.
const BATCH: usize = 512;
/// How long the database may take for a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a batch gathers.
const GATHER: Duration = Duration::from_millis(50);
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The queue; clones share it.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    metrics: Arc<Metrics>,
    waiting: Mutex<Waiting>,
    /// Something was pushed.
    pushed: Notify,
    /// A batch was written.
    written: Notify,
    capacity: usize,
    /// A webhook wants to know the steps of calls.
    tells: AtomicBool,
    /// Steps of calls are kept.
    keeps: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    order: VecDeque<CallId>,
    newest: HashMap<CallId, Arc<CallRecord>>,
    /// Whether the loss of records was logged.
    overflowing: bool,
}

impl Queue {
    /// Makes a queue. Records are written while [`Queue::run`] runs.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self::with_capacity(metrics, CAPACITY)
    }

    fn with_capacity(metrics: Arc<Metrics>, capacity: usize) -> Self {
        Self(Arc::new(Shared {
            metrics,
            waiting: Mutex::default(),
            pushed: Notify::new(),
            written: Notify::new(),
            capacity,
            tells: AtomicBool::new(false),
            keeps: AtomicBool::new(false),
        }))
    }

    /// Leaves a record to be written; never waits. Beyond the bound a call that is not in the queue yet is lost, and
    /// counted.
    pub fn push(&self, record: Arc<CallRecord>) {
        let shared = &*self.0;
        let mut waiting = shared.waiting.lock();
        let full = waiting.newest.len() >= shared.capacity;
        match waiting.newest.get_mut(&record.id) {
            Some(known) if known.rev >= record.rev => return,
            Some(known) => *known = record,
            None if full => {
                shared.count("dropped", 1);
                if !std::mem::replace(&mut waiting.overflowing, true) {
                    let waiting = shared.capacity;
                    tracing::error!(
                        waiting,
                        "the queue of call records is full: calls go on without a record"
                    );
                }
                return;
            }
            None => {
                waiting.order.push_back(record.id.clone());
                waiting.newest.insert(record.id.clone(), record);
            }
        }
        shared.show_length(&waiting);
        drop(waiting);
        shared.pushed.notify_one();
    }

    /// Whether a webhook is to be told the steps of calls from now on.
    pub fn tell_webhook(&self, tells: bool) {
        self.0.tells.store(tells, Ordering::Relaxed);
    }

    /// Whether the steps of calls are kept from now on.
    pub fn keep_steps(&self, keeps: bool) {
        self.0.keeps.store(keeps, Ordering::Relaxed);
    }

    /// Leaves a step of a call to be written; never waits. Beyond the bound it is lost, and counted.
    pub fn push_notice(&self, notice: Arc<Notice>) {
        let of = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        self.push_entry(Entry::Step { notice, told: of(&self.0.tells), kept: of(&self.0.keeps) });
    }

    /// Leaves to be written that a user knows what it has missed. As [`Queue::push_notice`].
    pub fn push_seen(&self, user: UserId, until: i64) {
        self.push_entry(Entry::Seen { user, until });
    }

    fn push_entry(&self, entry: Entry) {
        let shared = &*self.0;
        if !entry.matters() {
            return;
        }
        let mut waiting = shared.waiting.lock();
        if waiting.entries.len() >= shared.capacity {
            shared.count("dropped", 1);
            return;
        }
        waiting.entries.push_back(entry);
        shared.show_length(&waiting);
        drop(waiting);
        shared.pushed.notify_one();
    }

    /// Calls and steps that wait.
    pub fn len(&self) -> usize {
        self.0.waiting.lock().len()
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes for ever.
    pub async fn run(self, store: Arc<dyn CallStore>) {
        let shared = &*self.0;
        let mut pause = PAUSE.0;
        loop {
            if self.is_empty() {
                shared.pushed.notified().await;
                sleep(GATHER).await;
                continue;
            }
            match self.write_some(&*store).await {
                Ok(()) => {
                    shared.metrics.store_up.set(1);
                    if pause > PAUSE.0 {
                        tracing::info!("the database is back: call records are written again");
                    }
                    pause = PAUSE.0;
                }
                Err(error) => {
                    shared.metrics.store_up.set(0);
                    let waiting = self.len();
                    // Whoever waits for its arrival says so.
                    if !matches!(error, StoreError::Away) {
                        shared.count("error", 1);
                        tracing::warn!(%error, waiting, "call records cannot be written: they wait");
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    /// Waits until everything is written, at most until `limit` has passed.
    ///
    /// # Errors
    /// How many records are lost.
    pub async fn flushed(&self, limit: Duration) -> Result<(), usize> {
        let deadline = Instant::now() + limit;
        loop {
            let written = self.0.written.notified();
            let left = self.len();
            if left == 0 {
                return Ok(());
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if timeout(rest, written).await.is_err() {
                return match self.len() {
                    0 => Ok(()),
                    left => Err(left),
                };
            }
        }
    }

    /// Writes what comes next: calls before what happened to them.
    async fn write_some(&self, store: &dyn CallStore) -> Result<(), StoreError> {
        let batch = self.next_batch();
        if !batch.is_empty() {
            whole_or_each(&batch, |batch| store.write(batch), |batch, result| self.done(batch, result))
                .await?;
        }
        let entries: Vec<Entry> = self.0.waiting.lock().entries.iter().take(BATCH).cloned().collect();
        if !entries.is_empty() {
            let noted = |entries: &[Entry], result| self.noted(entries.len(), result);
            whole_or_each(&entries, |entries| store.note(entries), noted).await?;
        }
        Ok(())
    }

    fn noted(&self, entries: usize, result: &str) {
        let shared = &*self.0;
        let mut waiting = shared.waiting.lock();
        waiting.entries.drain(..entries);
        shared.count(result, entries);
        shared.show_length(&waiting);
        drop(waiting);
        shared.written.notify_waiters();
    }

    fn next_batch(&self) -> Vec<Arc<CallRecord>> {
        let waiting = self.0.waiting.lock();
        waiting.order.iter().take(BATCH).filter_map(|id| waiting.newest.get(id)).cloned().collect()
    }

    /// Takes the records of a batch out, unless a newer one has come meanwhile.
    fn done(&self, batch: &[Arc<CallRecord>], result: &str) {
        let shared = &*self.0;
        let mut waiting = shared.waiting.lock();
        for record in batch {
            waiting.order.pop_front();
            match waiting.newest.get(&record.id) {
                Some(newest) if newest.rev > record.rev => waiting.order.push_back(record.id.clone()),
                _ => {
                    waiting.newest.remove(&record.id);
                }
            }
        }
        waiting.overflowing = false;
        shared.count(result, batch.len());
        shared.show_length(&waiting);
        drop(waiting);
        shared.written.notify_waiters();
    }
}

impl Waiting {
    fn len(&self) -> usize {
        self.newest.len() + self.entries.len()
    }
}

/// Writes a batch; what no database would take is left out, so that it does not block the rest. `done` is told what has
/// become of which part.
async fn whole_or_each<'a, T: 'a>(
    batch: &'a [T],
    write: impl Fn(&'a [T]) -> BoxFuture<'a, Result<(), StoreError>>,
    done: impl Fn(&[T], &'static str),
) -> Result<(), StoreError> {
    match in_time(write(batch)).await {
        Ok(()) => done(batch, "ok"),
        Err(error) if error.blames_record() => {
            for part in batch.chunks(1) {
                match in_time(write(part)).await {
                    Ok(()) => done(part, "ok"),
                    Err(error) if error.blames_record() => {
                        tracing::error!(%error, "a call record was refused and is lost");
                        done(part, "dropped");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// A database that hangs is one that is down.
async fn in_time(write: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
    timeout(PATIENCE, write).await.unwrap_or(Err(StoreError::Timeout))
}

impl Shared {
    fn count(&self, result: &str, records: usize) {
        let records = u64::try_from(records).unwrap_or(u64::MAX);
        self.metrics.store_writes.with_label_values(&[result]).inc_by(records);
    }

    fn show_length(&self, waiting: &Waiting) {
        self.metrics.store_queue_length.set(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{call, user};
    use super::super::{
        CallEvent, CallPage, CallQuery, Delivery, Horizon, MissedCall, MissedPage, MissedQuery, Sqlite,
        StoredCall,
    };
    use super::*;

    /// A database that can be down, in front of a real one.
    #[derive(Debug)]
    struct Fragile {
        inner: Sqlite,
        down: AtomicBool,
        batches: Mutex<Vec<usize>>,
    }

    impl CallStore for Fragile {
        fn write<'a>(&'a self, batch: &'a [Arc<CallRecord>]) -> BoxFuture<'a, Result<(), StoreError>> {
            if self.down.load(Ordering::SeqCst) {
                return Box::pin(async { Err(sqlx::Error::PoolTimedOut.into()) });
            }
            self.batches.lock().push(batch.len());
            self.inner.write(batch)
        }
        fn note<'a>(&'a self, entries: &'a [Entry]) -> BoxFuture<'a, Result<(), StoreError>> {
            self.inner.note(entries)
        }
        fn running(&self, since: i64, limit: u32) -> BoxFuture<'_, Result<Vec<CallRecord>, StoreError>> {
            self.inner.running(since, limit)
        }
        fn ended(&self, since: i64, limit: u32) -> BoxFuture<'_, Result<Vec<CallId>, StoreError>> {
            self.inner.ended(since, limit)
        }
        fn events(
            &self,
            user: Option<UserId>,
            id: CallId,
        ) -> BoxFuture<'_, Result<Vec<CallEvent>, StoreError>> {
            self.inner.events(user, id)
        }
        fn missed(&self, query: MissedQuery) -> BoxFuture<'_, Result<MissedPage, StoreError>> {
            self.inner.missed(query)
        }
        fn unseen(&self, since: i64, limit: u32) -> BoxFuture<'_, Result<Vec<MissedCall>, StoreError>> {
            self.inner.unseen(since, limit)
        }
        fn trim(&self, most: u32) -> BoxFuture<'_, Result<(u64, u64), StoreError>> {
            self.inner.trim(most)
        }
        fn due(&self, now: i64, limit: u32) -> BoxFuture<'_, Result<Vec<Delivery>, StoreError>> {
            self.inner.due(now, limit)
        }
        fn delivered<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
            self.inner.delivered(id)
        }
        fn postponed<'a>(&'a self, id: &'a str, until: i64) -> BoxFuture<'a, Result<(), StoreError>> {
            self.inner.postponed(id, until)
        }
        fn purge(&self, before: Horizon) -> BoxFuture<'_, Result<u64, StoreError>> {
            self.inner.purge(before)
        }
        fn list(&self, query: CallQuery) -> BoxFuture<'_, Result<CallPage, StoreError>> {
            self.inner.list(query)
        }
        fn one(
            &self,
            user: Option<UserId>,
            id: CallId,
        ) -> BoxFuture<'_, Result<Option<StoredCall>, StoreError>> {
            self.inner.one(user, id)
        }
        fn close(&self) -> BoxFuture<'_, ()> {
            self.inner.close()
        }
    }

    async fn setup(down: bool, capacity: usize) -> (Queue, Arc<Fragile>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let inner = Sqlite::memory().await.unwrap();
        let store = Arc::new(Fragile { inner, down: down.into(), batches: Mutex::default() });
        let queue = Queue::with_capacity(metrics.clone(), capacity);
        tokio::spawn(queue.clone().run(store.clone()));
        (queue, store, metrics)
    }

    fn writes(metrics: &Metrics, result: &str) -> u64 {
        metrics.store_writes.with_label_values(&[result]).get()
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn calls_wait_while_the_database_is_down_and_are_written_when_it_is_back() {
        let (queue, store, metrics) = setup(true, 100).await;
        for n in 0..10 {
            queue.push(call(&format!("c{n}"), n, 1, &["alice", "bob"]));
        }
        until("a write fails", || writes(&metrics, "error") > 0).await;
        assert_eq!(metrics.store_queue_length.get(), 10);
        store.down.store(false, Ordering::SeqCst);
        queue.flushed(LONG).await.unwrap();
        assert_eq!((writes(&metrics, "ok"), metrics.store_queue_length.get()), (10, 0));
        let query = CallQuery { user: Some(user("bob")), limit: 100, ..CallQuery::default() };
        assert_eq!(store.list(query).await.unwrap().calls.len(), 10);
    }

    #[tokio::test]
    async fn a_call_is_written_once_in_its_newest_revision() {
        let (queue, store, metrics) = setup(true, 100).await;
        for rev in [1, 4, 3, 2] {
            queue.push(call("c1", 1, rev, &["alice", "bob"]));
        }
        assert_eq!(queue.len(), 1);
        store.down.store(false, Ordering::SeqCst);
        queue.flushed(LONG).await.unwrap();
        let read = store.one(Some(user("alice")), CallId("c1".into())).await.unwrap().unwrap();
        assert_eq!((read.rev, writes(&metrics, "ok")), (4, 1));
        queue.push(call("c1", 1, 5, &["alice", "bob"]));
        queue.flushed(LONG).await.unwrap();
        let read = store.one(Some(user("alice")), CallId("c1".into())).await.unwrap().unwrap();
        assert_eq!(read.rev, 5);
    }

    #[tokio::test]
    async fn beyond_its_bound_a_new_call_is_lost_and_counted_but_a_known_one_still_ends() {
        let (queue, store, metrics) = setup(true, 2).await;
        for id in ["c1", "c2", "c3"] {
            queue.push(call(id, 1, 1, &["alice", "bob"]));
        }
        queue.push(call("c2", 1, 2, &["alice", "bob"]));
        assert_eq!((queue.len(), writes(&metrics, "dropped")), (2, 1));
        store.down.store(false, Ordering::SeqCst);
        queue.flushed(LONG).await.unwrap();
        let read = store.one(Some(user("alice")), CallId("c2".into())).await.unwrap().unwrap();
        assert_eq!(read.rev, 2);
    }

    #[tokio::test]
    async fn what_gathers_is_written_in_one_transaction() {
        let (queue, store, _) = setup(true, 1000).await;
        for n in 0..600 {
            queue.push(call(&format!("c{n}"), n, 1, &["alice", "bob"]));
        }
        store.down.store(false, Ordering::SeqCst);
        queue.flushed(LONG).await.unwrap();
        assert_eq!(*store.batches.lock(), [BATCH, 600 - BATCH]);
    }

    #[tokio::test]
    async fn an_end_without_a_database_says_how_much_is_lost() {
        let (queue, _store, _) = setup(true, 100).await;
        queue.push(call("c1", 1, 1, &["alice", "bob"]));
        assert_eq!(queue.flushed(Duration::from_millis(1)).await, Err(1));
    }

    #[tokio::test]
    async fn a_locked_file_delays_records_and_loses_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("calls.db");
        let store: Arc<dyn CallStore> = Arc::new(Sqlite::open(&path).await.unwrap());
        let url = format!("sqlite:{}", path.display());
        let other = sqlx::SqlitePool::connect(&url).await.unwrap();
        let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let queue = Queue::new(metrics.clone());
        tokio::spawn(queue.clone().run(store.clone()));
        queue.push(call("c1", 1, 1, &["alice", "bob"]));
        until("the write times out", || writes(&metrics, "error") > 0).await;
        lock.rollback().await.unwrap();
        queue.flushed(LONG).await.unwrap();
        assert!(store.one(Some(user("bob")), CallId("c1".into())).await.unwrap().is_some());
    }
}
