//! What happened becomes a metric, a log line, a record: the only place that turns an `Event` into them. Must never
//! wait: records go through the store's queue. Driven by whoever drains the outputs of a core.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::metrics::Metrics;
use crate::signaling::{self, CallId};
use crate::store::Queue;
use crate::turn;

/// Answers whether TURN carried media of a call, for the `path` of an ended call.
pub type Relayed = Arc<dyn Fn(&CallId) -> bool + Send + Sync>;

/// Observes both cores; clones share what they write to.
#[derive(Clone)]
pub struct Observe {
    metrics: Arc<Metrics>,
    records: Queue,
    relayed: Relayed,
    /// Calls that run now.
    calls: Arc<AtomicI64>,
}

impl fmt::Debug for Observe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observe").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Observe {
    /// Makes an observer that counts in `metrics` and leaves records in `records`.
    pub fn new(metrics: Arc<Metrics>, records: Queue, relayed: Relayed) -> Self {
        Self { metrics, records, relayed, calls: Arc::default() }
    }

    /// Calls that run now.
    pub fn calls(&self) -> i64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Takes an event of the call engine.
    pub fn signaling(&self, event: signaling::Event) {
        use signaling::Event;
        let metrics = &*self.metrics;
        match event {
            Event::SessionState { from, to } => {
                let gauge = |state| metrics.signaling_sessions.with_label_values(&[state]);
                from.iter().for_each(|state| gauge(state).dec());
                to.iter().for_each(|state| gauge(state).inc());
            }
            Event::Resume { result } => {
                metrics.signaling_session_resume.with_label_values(&[result.label()]).inc();
            }
            Event::Duplicate => metrics.signaling_duplicates.inc(),
            Event::Notice(notice) => self.records.push_notice(notice),
            Event::MissedSeen { user, at } => self.records.push_seen(user, at),
            Event::EventIn { name } => metrics.signaling_events.with_label_values(&[name, "in"]).inc(),
            Event::Rejected { code } => metrics.signaling_errors.with_label_values(&[code]).inc(),
            Event::RateLimited { limit } => metrics.signaling_rate_limited.with_label_values(&[limit]).inc(),
            Event::CallStarted { kind } => metrics.calls_started.with_label_values(&[kind]).inc(),
            Event::CallAnswered { ring } => metrics.call_ring.observe(ring.as_secs_f64()),
            Event::CallConnected { setup } => metrics.call_setup.observe(setup.as_secs_f64()),
            Event::CallStatus { from, to } => self.call_status(from, to),
            Event::CallEnded { call, kind, reason, answered, duration } => {
                self.call_ended(&call, kind, reason, answered, duration);
            }
            Event::Departed { .. } => {}
            Event::IceMinted { kind } => metrics.ice_credentials_issued.with_label_values(&[kind]).inc(),
            Event::Record(record) => self.records.push(record),
        }
    }

    fn call_status(&self, from: Option<&str>, to: Option<&str>) {
        let gauge = |status| self.metrics.calls.with_label_values(&[status]);
        if let Some(from) = from {
            gauge(from).dec();
        }
        if let Some(to) = to {
            gauge(to).inc();
        }
        match (from, to) {
            (None, Some(_)) => self.calls.fetch_add(1, Ordering::Relaxed),
            (Some(_), None) => self.calls.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    fn call_ended(
        &self,
        call: &CallId,
        kind: &str,
        reason: &str,
        answered: bool,
        duration: Option<Duration>,
    ) {
        let path = match answered {
            false => "none",
            true if (self.relayed)(call) => "relay",
            true => "direct",
        };
        self.metrics.calls_ended.with_label_values(&[reason, kind, path]).inc();
        if let Some(duration) = duration {
            self.metrics.call_duration.observe(duration.as_secs_f64());
        }
        let seconds = duration.map(|duration| duration.as_secs());
        tracing::info!(call = &*call.0, kind, reason, path, seconds, "call ended");
    }

    /// Takes an event of the relay.
    pub fn turn(&self, event: &turn::Event) {
        use turn::Event;
        match event {
            Event::AllocationCreated { five_tuple, grant, lifetime } => {
                self.metrics.turn_allocations_created.inc();
                let (transport, lifetime) = (five_tuple.transport.label(), lifetime.as_secs());
                tracing::info!(transport, lifetime, "allocation made");
                tracing::debug!(user = &*grant.user, call = grant.call.as_deref(), "allocation of");
            }
            Event::CarriesMedia { grant } => {
                tracing::debug!(call = grant.call.as_deref(), "media is relayed");
            }
            Event::AllocationEnded { five_tuple, reason, duration, usage, .. } => {
                self.metrics.turn_allocations_ended.with_label_values(&[reason.label()]).inc();
                self.metrics.turn_allocation_duration.observe(duration.as_secs_f64());
                tracing::info!(
                    transport = five_tuple.transport.label(),
                    reason = reason.label(),
                    seconds = duration.as_secs(),
                    bytes_to_peer = usage.bytes_to_peer,
                    bytes_to_client = usage.bytes_to_client,
                    "allocation ended"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signaling::Event;

    fn observe(relayed: bool) -> (Observe, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let records = Queue::new(metrics.clone());
        (Observe::new(metrics.clone(), records, Arc::new(move |_| relayed)), metrics)
    }

    fn ended(answered: bool) -> Event {
        Event::CallEnded {
            call: CallId("c".into()),
            kind: "video",
            reason: "completed",
            answered,
            duration: answered.then_some(Duration::from_secs(7)),
        }
    }

    #[test]
    fn a_call_moves_through_the_gauges_and_leaves_none_behind() {
        let (observe, metrics) = observe(false);
        let gauge = |status| metrics.calls.with_label_values(&[status]).get();
        observe.signaling(Event::CallStatus { from: None, to: Some("ringing") });
        observe.signaling(Event::CallStatus { from: Some("ringing"), to: Some("active") });
        assert_eq!((gauge("ringing"), gauge("active"), observe.calls()), (0, 1, 1));
        observe.signaling(Event::CallStatus { from: Some("active"), to: None });
        assert_eq!((gauge("active"), observe.calls()), (0, 0));
    }

    #[test]
    fn the_path_of_a_call_is_what_carried_its_media() {
        for (answered, relayed, path) in
            [(false, true, "none"), (true, false, "direct"), (true, true, "relay")]
        {
            let (observe, metrics) = observe(relayed);
            observe.signaling(ended(answered));
            let count = metrics.calls_ended.with_label_values(&["completed", "video", path]).get();
            assert_eq!((count, metrics.call_duration.get_sample_count()), (1, u64::from(answered)), "{path}");
        }
    }

    #[test]
    fn sessions_that_close_are_no_longer_counted() {
        let (observe, metrics) = observe(false);
        observe.signaling(Event::SessionState { from: None, to: Some("connected") });
        observe.signaling(Event::SessionState { from: None, to: Some("connected") });
        observe.signaling(Event::SessionState { from: Some("connected"), to: None });
        assert_eq!(metrics.signaling_sessions.with_label_values(&["connected"]).get(), 1);
    }
}
