//! What happened becomes a metric, a log line, a record: the only place that turns an `Event` into them. Must never
//! wait: records go through the store's queue. Driven by whoever drains the outputs of a core.

use std::sync::Arc;

use crate::metrics::Metrics;
use crate::signaling;
use crate::store::Queue;

/// Observes both cores; clones share what they write to.
#[derive(Debug, Clone)]
pub struct Observe {
    metrics: Arc<Metrics>,
    records: Queue,
}

impl Observe {
    /// Makes an observer that counts in `metrics` and leaves records in `records`.
    pub fn new(metrics: Arc<Metrics>, records: Queue) -> Self {
        Self { metrics, records }
    }

    /// Takes an event of the call engine.
    pub fn signaling(&self, event: signaling::Event) {
        match event {
            signaling::Event::SessionOpened => {
                self.metrics.signaling_sessions.with_label_values(&["connected"]).inc();
            }
            signaling::Event::Record(record) => self.records.push(record),
        }
    }
}
