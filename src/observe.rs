//! What happened becomes a metric, a log line, a record: the only place that turns an `Event` into them. Must never
//! wait: records go through the store's queue. Driven by whoever drains the outputs of a core.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::metrics::Metrics;
use crate::signaling::{self, CallId};
use crate::store::Queue;
use crate::turn::{self, Grant};

/// Bytes that tell relayed media from the connectivity checks that cross a relay in every call.
const MEDIA_BYTES: u64 = 64 * 1024;

/// How an address may be logged.
pub type Shown = fn(IpAddr) -> String;

/// Observes both cores; clones share what they write to.
#[derive(Debug, Clone)]
pub struct Observe(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    metrics: Arc<Metrics>,
    records: Queue,
    shown: Shown,
    /// Calls that run now.
    calls: AtomicI64,
    /// What the relay did for calls, until both the call and its allocations are over.
    relayed: Mutex<HashMap<Arc<str>, Relayed>>,
}

/// What the relay did for one call.
#[derive(Debug, Default)]
struct Relayed {
    allocations: u32,
    bytes: u64,
    /// Reason and type of a call that is over while its allocations are not.
    ended: Option<(&'static str, &'static str)>,
}

impl Relayed {
    const fn path(&self) -> &'static str {
        if self.bytes < MEDIA_BYTES { "direct" } else { "relay" }
    }
}

impl Observe {
    /// Makes an observer that counts in `metrics`, leaves records in `records` and logs addresses as `shown`.
    pub fn new(metrics: Arc<Metrics>, records: Queue, shown: Shown) -> Self {
        let (calls, relayed) = (AtomicI64::new(0), Mutex::default());
        Self(Arc::new(Shared { metrics, records, shown, calls, relayed }))
    }

    /// Calls that run now.
    pub fn calls(&self) -> i64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    /// Takes an event of the relay.
    pub fn turn(&self, event: &turn::Event) {
        let shared = &*self.0;
        match event {
            turn::Event::AllocationCreated { five_tuple, grant, lifetime } => {
                shared.metrics.turn_allocations_created.inc();
                if let Some(call) = &grant.call {
                    shared.relayed.lock().entry(Arc::clone(call)).or_default().allocations += 1;
                }
                let client = (shared.shown)(five_tuple.client.ip());
                let transport = five_tuple.transport.label();
                tracing::debug!(client, transport, lifetime = lifetime.as_secs(), "allocation created");
            }
            turn::Event::AllocationEnded { five_tuple, grant, reason, duration, usage } => {
                shared.metrics.turn_allocations_ended.with_label_values(&[reason.label()]).inc();
                shared.metrics.turn_allocation_duration.observe(duration.as_secs_f64());
                shared.allocation_ended(grant, usage.bytes_to_peer.saturating_add(usage.bytes_to_client));
                let client = (shared.shown)(five_tuple.client.ip());
                let transport = five_tuple.transport.label();
                let reason = reason.label();
                let (to_peer, to_client) = (usage.bytes_to_peer, usage.bytes_to_client);
                let seconds = duration.as_secs();
                tracing::info!(client, transport, reason, seconds, to_peer, to_client, "allocation ended");
            }
        }
    }

    /// Takes an event of the call engine.
    pub fn signaling(&self, event: signaling::Event) {
        use signaling::Event;
        let shared = &*self.0;
        let metrics = &*shared.metrics;
        match event {
            Event::SessionOpened => metrics.signaling_sessions.with_label_values(&["connected"]).inc(),
            Event::SessionClosed => metrics.signaling_sessions.with_label_values(&["connected"]).dec(),
            Event::EventIn { name } => metrics.signaling_events.with_label_values(&[name, "in"]).inc(),
            Event::Rejected { code } => metrics.signaling_errors.with_label_values(&[code]).inc(),
            Event::RateLimited { limit } => metrics.signaling_rate_limited.with_label_values(&[limit]).inc(),
            Event::CallStarted { kind } => metrics.calls_started.with_label_values(&[kind]).inc(),
            Event::CallAnswered { ring } => metrics.call_ring.observe(ring.as_secs_f64()),
            Event::CallConnected { setup } => metrics.call_setup.observe(setup.as_secs_f64()),
            Event::CallStatus { from, to } => shared.call_status(from, to),
            Event::CallEnded { call, kind, reason, answered, duration } => {
                shared.call_ended(&call, kind, reason, answered, duration);
            }
            Event::IceMinted { kind } => metrics.ice_credentials_issued.with_label_values(&[kind]).inc(),
            Event::Record(record) => shared.records.push(record),
        }
    }
}

impl Shared {
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
        kind: &'static str,
        reason: &'static str,
        answered: bool,
        duration: Option<Duration>,
    ) {
        if let Some(duration) = duration {
            self.metrics.call_duration.observe(duration.as_secs_f64());
        }
        let seconds = duration.map(|duration| duration.as_secs());
        tracing::info!(call = &*call.0, kind, reason, seconds, "call ended");
        let mut relayed = self.relayed.lock();
        let path = match relayed.get_mut(&call.0) {
            // What they relayed is known when they are gone; they end with the call.
            Some(live) if live.allocations > 0 && answered => {
                live.ended = Some((reason, kind));
                return;
            }
            _ if !answered => "none",
            Some(over) => over.path(),
            None => "direct",
        };
        relayed.remove(&call.0);
        self.count_end(reason, kind, path);
    }

    fn allocation_ended(&self, grant: &Grant, bytes: u64) {
        let Some(call) = &grant.call else { return };
        let mut relayed = self.relayed.lock();
        let Some(entry) = relayed.get_mut(call) else { return };
        entry.allocations = entry.allocations.saturating_sub(1);
        entry.bytes = entry.bytes.saturating_add(bytes);
        if entry.allocations > 0 {
            return;
        }
        if let Some((reason, kind)) = entry.ended {
            self.count_end(reason, kind, entry.path());
            relayed.remove(call);
        } else if entry.bytes < MEDIA_BYTES {
            relayed.remove(call);
        }
    }

    fn count_end(&self, reason: &str, kind: &str, path: &str) {
        self.metrics.calls_ended.with_label_values(&[reason, kind, path]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signaling::Event;
    use crate::turn::{EndReason, FiveTuple, Transport, Usage};

    fn observe() -> (Observe, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let records = Queue::new(metrics.clone());
        (Observe::new(metrics.clone(), records, |ip| ip.to_string()), metrics)
    }

    fn call_ended(answered: bool) -> Event {
        Event::CallEnded {
            call: CallId("c".into()),
            kind: "video",
            reason: "completed",
            answered,
            duration: answered.then_some(Duration::from_secs(7)),
        }
    }

    fn five_tuple() -> FiveTuple {
        let address = "192.0.2.1:1000".parse().unwrap();
        FiveTuple { client: address, server: address, transport: Transport::Udp }
    }

    fn grant() -> Arc<Grant> {
        let name: Arc<str> = "alice".into();
        Arc::new(Grant { username: name.clone(), user: name, call: Some("c".into()), expires_unix: None })
    }

    fn allocated() -> turn::Event {
        let lifetime = Duration::from_secs(600);
        turn::Event::AllocationCreated { five_tuple: five_tuple(), grant: grant(), lifetime }
    }

    fn freed(bytes_to_peer: u64) -> turn::Event {
        turn::Event::AllocationEnded {
            five_tuple: five_tuple(),
            grant: grant(),
            reason: EndReason::Revoked,
            duration: Duration::from_secs(5),
            usage: Usage { bytes_to_peer, ..Usage::default() },
        }
    }

    fn path(metrics: &Metrics, path: &str) -> u64 {
        metrics.calls_ended.with_label_values(&["completed", "video", path]).get()
    }

    #[test]
    fn a_call_moves_through_the_gauges_and_leaves_none_behind() {
        let (observe, metrics) = observe();
        let gauge = |status| metrics.calls.with_label_values(&[status]).get();
        observe.signaling(Event::CallStatus { from: None, to: Some("ringing") });
        observe.signaling(Event::CallStatus { from: Some("ringing"), to: Some("active") });
        assert_eq!((gauge("ringing"), gauge("active"), observe.calls()), (0, 1, 1));
        observe.signaling(Event::CallStatus { from: Some("active"), to: None });
        assert_eq!((gauge("active"), observe.calls()), (0, 0));
    }

    #[test]
    fn the_path_of_a_call_is_what_carried_its_media() {
        for (answered, bytes, expected) in [
            (false, None, "none"),
            (true, None, "direct"),
            (true, Some(900), "direct"),
            (true, Some(1 << 20), "relay"),
        ] {
            for call_first in [true, false] {
                let (observe, metrics) = observe();
                if bytes.is_some() {
                    observe.turn(&allocated());
                    observe.turn(&allocated());
                    observe.turn(&freed(0));
                }
                let free = || bytes.map(freed).iter().for_each(|event| observe.turn(event));
                if call_first {
                    observe.signaling(call_ended(answered));
                    free();
                } else {
                    free();
                    observe.signaling(call_ended(answered));
                }
                assert_eq!(path(&metrics, expected), 1, "{answered} {bytes:?} {call_first}");
                assert!(observe.0.relayed.lock().is_empty());
                assert_eq!(metrics.call_duration.get_sample_count(), u64::from(answered));
            }
        }
    }

    #[test]
    fn allocations_are_counted_with_the_reason_of_their_end() {
        let (observe, metrics) = observe();
        observe.turn(&allocated());
        observe.turn(&freed(10));
        assert_eq!(metrics.turn_allocations_created.get(), 1);
        assert_eq!(metrics.turn_allocations_ended.with_label_values(&["revoked"]).get(), 1);
        assert_eq!(metrics.turn_allocation_duration.get_sample_count(), 1);
    }

    #[test]
    fn sessions_that_close_are_no_longer_counted() {
        let (observe, metrics) = observe();
        observe.signaling(Event::SessionOpened);
        observe.signaling(Event::SessionOpened);
        observe.signaling(Event::SessionClosed);
        assert_eq!(metrics.signaling_sessions.with_label_values(&["connected"]).get(), 1);
    }
}
