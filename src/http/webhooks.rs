//! Tells the operator's webhook what happens to calls, from the outbox of the store: signed, in the order of each
//! call, again and again until it is taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use hyper::header::{HeaderMap, HeaderValue};

use super::engine::now;
use crate::auth::{Outbound, WebhookConfig, signature};
use crate::metrics::Metrics;
use crate::store::{CallStore, Delivery, StoreError};

/// Header of the event's id: the same in every attempt.
const EVENT_ID: &str = "passerelle-event-id";
/// How long the receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the outbox is looked at.
const POLL: Duration = Duration::from_millis(500);
/// How often it is looked whether too many events wait.
const TRIM: Duration = Duration::from_secs(5);
/// Events of one look, and how many of them are on their way at once.
const BATCH: u32 = 256;
const AT_ONCE: usize = 16;
/// The first pause after a failure and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));
/// How long an event is worth telling.
const LIFETIME: Duration = Duration::from_hours(24);

/// What tells.
pub struct Webhooks {
    /// Where, and signed with what.
    pub target: WebhookConfig,
    /// Where the events are.
    pub store: Arc<dyn CallStore>,
    /// How to get there.
    pub outbound: Outbound,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Events that may wait.
    pub most: u32,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Webhooks")
    }
}

impl Webhooks {
    /// Tells for ever.
    pub async fn run(self) {
        let mut trimmed = None;
        loop {
            if trimmed.is_none_or(|at: Instant| at.elapsed() >= TRIM) {
                self.trim().await;
                trimmed = Some(Instant::now());
            }
            match self.some().await {
                // More may have become due with what was taken: the next event of the same call.
                Ok(told) if told > 0 => {}
                Ok(_) => tokio::time::sleep(POLL).await,
                Err(StoreError::Away) => tokio::time::sleep(PAUSE.0).await,
                Err(error) => {
                    tracing::warn!(%error, "events for the webhook cannot be read: they wait");
                    tokio::time::sleep(PAUSE.0).await;
                }
            }
        }
    }

    /// Keeps the outbox within its bound.
    async fn trim(&self) {
        match self.store.trim(self.most).await {
            Ok((dropped, waiting)) => {
                self.metrics.webhook_queue_length.set(waiting.cast_signed());
                if dropped > 0 {
                    self.metrics.webhook_deliveries.with_label_values(&["dropped"]).inc_by(dropped);
                    tracing::error!(
                        dropped,
                        "the oldest events for the webhook are dropped: it does not take them"
                    );
                }
            }
            Err(error) => tracing::debug!(%error, "events for the webhook cannot be counted"),
        }
    }

    /// Tells what is due; how many events were taken.
    async fn some(&self) -> Result<usize, StoreError> {
        let due = self.store.due(now().unix_ms, BATCH).await?;
        // Each is of another call: the store hands out only the oldest of each.
        let mut outcomes = stream::iter(due).map(|event| self.tell(event)).buffer_unordered(AT_ONCE);
        let mut told = 0;
        while let Some(outcome) = outcomes.next().await {
            told += usize::from(outcome?);
        }
        Ok(told)
    }

    /// Tells one event; whether the next of its call may follow.
    async fn tell(&self, event: Delivery) -> Result<bool, StoreError> {
        let at = now().unix_ms;
        let answer = self.attempt(&event, at / 1000).await;
        let result = match &answer {
            Ok(()) => "ok",
            Err(_) if at.saturating_sub(event.created_at) > millis(LIFETIME) => "dropped",
            Err(_) => "error",
        };
        self.metrics.webhook_deliveries.with_label_values(&[result]).inc();
        if let Err(why) = &answer {
            let attempts = event.attempts + 1;
            tracing::warn!(event = event.kind, attempts, why, result, "the webhook did not take an event");
        }
        if result == "error" {
            let pause = pause(event.attempts, rand::random_range(0.8..1.2));
            self.store.postponed(&event.id, now().unix_ms + millis(pause)).await?;
            return Ok(false);
        }
        self.store.delivered(&event.id).await?;
        Ok(true)
    }

    async fn attempt(&self, event: &Delivery, unix_s: i64) -> Result<(), String> {
        let body = event.body.as_bytes();
        let mut headers = HeaderMap::new();
        if let Some(secret) = &self.target.secret {
            signature::sign(&mut headers, secret, unix_s, body);
        }
        if let Ok(id) = HeaderValue::try_from(&event.id) {
            headers.insert(EVENT_ID, id);
        }
        let body = bytes::Bytes::copy_from_slice(body);
        match self.outbound.post_json(&self.target.url, headers, body, PATIENCE).await {
            Ok((status, _)) if status.is_success() => Ok(()),
            Ok((status, _)) => Err(format!("status {}", status.as_u16())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Twice as long with each failed attempt, a little more or less so that receivers that come back are not overrun.
fn pause(failed: u32, spread: f64) -> Duration {
    PAUSE.0.saturating_mul(1 << failed.min(20)).min(PAUSE.1).mul_f64(spread)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_minutes() {
        let seconds: Vec<u64> = (0..12).map(|failed| pause(failed, 1.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert_eq!(pause(u32::MAX, 1.0), PAUSE.1);
    }
}
