//! Records do not stay for ever.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{MissedTickBehavior, interval};

use super::CallStore;

/// How often old records are looked for.
const EVERY: Duration = Duration::from_hours(1);

/// Deletes calls older than this, for ever.
pub async fn purge(store: Arc<dyn CallStore>, retention: Duration) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let before =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(retention);
        match store.purge(i64::try_from(before.as_millis()).unwrap_or(0)).await {
            Ok(0) => {}
            Ok(calls) => tracing::info!(calls, "old call records are deleted"),
            Err(error) => tracing::warn!(%error, "old call records cannot be deleted now"),
        }
    }
}
