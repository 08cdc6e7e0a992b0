//! Records do not stay for ever.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use super::{CallStore, StoreError};

/// How often old records are looked for.
const EVERY: Duration = Duration::from_hours(1);

/// How soon it is looked again while the database is not there.
const AWAY: Duration = Duration::from_mins(1);
/// How long an event for the webhook stays that nobody takes out: one is told for a day, by whoever tells.
const UNTOLD: Duration = Duration::from_hours(48);

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Records of calls, and what was missed.
    pub calls: Duration,
    /// The steps of calls; zero keeps none.
    pub events: Duration,
}

/// Times in milliseconds since the Unix epoch before which everything is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// Calls with all that belongs to them, and missed calls.
    pub calls: i64,
    /// Steps of calls.
    pub events: i64,
    /// Events for the webhook.
    pub outbox: i64,
}

impl Horizon {
    /// What this retention leaves at a time since the Unix epoch.
    pub fn at(now: Duration, retention: Retention) -> Self {
        let before = |age| i64::try_from(now.saturating_sub(age).as_millis()).unwrap_or(0);
        Self {
            calls: before(retention.calls),
            events: before(retention.events.min(retention.calls)),
            outbox: before(UNTOLD),
        }
    }
}

/// Deletes what is older than this, for ever.
pub async fn purge(store: Arc<dyn CallStore>, retention: Retention) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let pause = match store.purge(Horizon::at(now, retention)).await {
            Ok(0) => EVERY,
            Ok(calls) => {
                tracing::info!(calls, "old call records are deleted");
                EVERY
            }
            Err(StoreError::Away) => AWAY,
            Err(error) => {
                tracing::warn!(%error, "old call records cannot be deleted now");
                EVERY
            }
        };
        sleep(pause).await;
    }
}
