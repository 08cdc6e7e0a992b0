//! The database at the start: opened at once or as soon as it is there, and what an earlier process left in it taken up.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::config::Config;
use crate::http::Engine;
use crate::link::Link;
use crate::metrics::Metrics;
use crate::signaling::{CallId, CallRecord, UserId};
use crate::store::{self, CallStore, Late, StoreError};

/// The first pause between two attempts to reach a database, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// How long a missed call is told as soon as its user is back.
const MISSED_FOR: Duration = Duration::from_hours(24);
/// Missed calls that are taken up.
const MISSED: u32 = 100_000;

/// Calls that are over and remembered for it.
const OVER: u32 = 65_536;

/// The store, and where the real one goes once it is there, if it was away.
pub(super) type Opened = (Arc<dyn CallStore>, Option<Arc<Late>>);

/// Opens the database. A server that cannot be reached may come later: calls go on without it.
///
/// # Errors
/// It is there and of no use, or it is a file that cannot be opened.
pub(super) async fn open(config: &store::Config, metrics: &Metrics) -> Result<Opened, StoreError> {
    match config.open().await {
        Ok(store) => {
            metrics.store_up.set(1);
            Ok((store, None))
        }
        Err(error) if config.may_come_later() && error.is_absence() => {
            tracing::error!(%error, "the database cannot be reached: calls go on, their records wait for it");
            let late = Arc::new(Late::default());
            Ok((Arc::clone(&late) as Arc<dyn CallStore>, Some(late)))
        }
        Err(error) => Err(error),
    }
}

/// What an earlier process left unfinished.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    calls: Vec<CallRecord>,
    /// Calls that are over, but whose credentials would not have expired yet, oldest first.
    over: Vec<CallId>,
    /// What users have missed and do not know of, oldest first.
    missed: Vec<(UserId, Value)>,
}

impl Unfinished {
    /// Reads it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) async fn read(reach: &Reach, store: &dyn CallStore) -> Result<Self, StoreError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = |age| i64::try_from(now.saturating_sub(age).as_millis()).unwrap_or(0);
        let calls = store.running(since(reach.longest_call), reach.calls).await?;
        let over = store.ended(since(reach.credentials), OVER).await?;
        let missed = store.unseen(since(MISSED_FOR), MISSED).await?;
        let missed = missed.into_iter().map(|missed| (missed.user, missed.event)).collect();
        Ok(Self { calls, over, missed })
    }

    /// Goes on with it.
    pub(super) fn take_up(self, engine: &Engine, link: &Link) {
        link.over(&self.over);
        let calls = engine.restore(self.calls);
        engine.restore_missed(self.missed);
        if calls > 0 {
            tracing::info!(calls, "calls of the last run go on");
        }
    }
}

/// How far back a process looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    longest_call: Duration,
    calls: u32,
    credentials: Duration,
}

impl Reach {
    pub(super) fn of(config: &Config) -> Self {
        let calls = u32::try_from(config.signaling.limits.calls).unwrap_or(u32::MAX);
        Self { longest_call: config.signaling.max_duration, calls, credentials: config.credential_ttl }
    }
}

/// Waits for a database that was away at the start, and takes up what is in it before anything is written.
pub(super) async fn arrival(
    config: store::Config,
    reach: Reach,
    late: Arc<Late>,
    engine: Arc<Engine>,
    link: Link,
    metrics: Arc<Metrics>,
) {
    let mut pause = PAUSE.0;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
        let found = async {
            let store = config.open().await?;
            let unfinished = Unfinished::read(&reach, &*store).await?;
            Ok::<_, StoreError>((store, unfinished))
        };
        match found.await {
            Ok((store, unfinished)) => {
                unfinished.take_up(&engine, &link);
                late.arrive(store);
                metrics.store_up.set(1);
                tracing::info!("the database is there: call records are written");
                return;
            }
            Err(error) => tracing::warn!(%error, "the database is still away"),
        }
    }
}
