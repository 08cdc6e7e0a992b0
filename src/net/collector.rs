//! Brings the counters of every worker into the metrics at a scrape.

use std::collections::HashMap;
use std::sync::Arc;

use crate::metrics::{Metrics, advance};
use crate::stun::attribute::Family;
use crate::turn::{Measure, Shared, Stats};

/// Sums the workers' counters before each scrape.
pub(super) fn register(metrics: &Arc<Metrics>, workers: Vec<Arc<Stats>>, shared: Arc<Shared>) {
    let sink = Arc::downgrade(metrics);
    metrics.before_scrape(move || {
        let Some(metrics) = sink.upgrade() else { return };
        let mut sums: HashMap<Measure, u64> = HashMap::new();
        for stats in &workers {
            stats.each(|measure, value| {
                let sum = sums.entry(measure).or_default();
                *sum = sum.wrapping_add(value);
            });
        }
        sums.into_iter().for_each(|(measure, value)| publish(&metrics, measure, value));
        metrics.relay_ports_used.set(shared.ports_used() as i64);
        metrics.relay_ports_capacity.set(shared.ports_capacity() as i64);
    });
}

fn publish(metrics: &Metrics, measure: Measure, value: u64) {
    let count = |counters: &prometheus::IntCounterVec, labels: &[&str]| {
        advance(&counters.with_label_values(labels), value);
    };
    match measure {
        Measure::Requests(method, transport) => count(&metrics.stun_requests, &[method, transport.label()]),
        Measure::Responses(method, code) => count(&metrics.stun_responses, &[method, &code.to_string()]),
        Measure::AuthFailures(failure) => count(&metrics.turn_auth_failures, &[failure.label()]),
        Measure::PeerDenied(rule) => count(&metrics.peer_denied, &[rule.label()]),
        Measure::Packets(direction) => count(&metrics.relay_packets, &[direction.label()]),
        Measure::Bytes(direction) => count(&metrics.relay_bytes, &[direction.label()]),
        Measure::Dropped(direction, reason) => {
            count(&metrics.relay_dropped, &[direction.label(), reason.label()]);
        }
        Measure::Allocations(transport, family) => {
            let family = if family == Family::V4 { "ipv4" } else { "ipv6" };
            metrics.turn_allocations.with_label_values(&[transport.label(), family]).set(value as i64);
        }
        Measure::Permissions => metrics.turn_permissions.set(value as i64),
        Measure::Channels => metrics.turn_channels.set(value as i64),
    }
}
