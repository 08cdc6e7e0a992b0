//! Every metric of the process, one line each: its doc comment is its HELP text.
//!
//! Whoever owns a fact holds an `Arc<Metrics>` and touches the field. What is counted elsewhere (the relay's per-worker
//! counters) is copied in by a hook that runs at each scrape, see [`Metrics::before_scrape`]. Labels come from closed
//! sets: no user, room, id or address is ever one.

use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Brings a counter up to a total that is kept elsewhere; it never goes back.
pub fn advance(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// Builds a metric of one kind from its name, help and labels.
trait Make: Sized {
    fn make(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self>;
}

macro_rules! make {
    ($kind:ty, |$name:ident, $help:ident, $labels:ident, $buckets:ident| $build:expr) => {
        impl Make for $kind {
            fn make(
                $name: &str,
                $help: &str,
                $labels: &[&str],
                $buckets: &[f64],
            ) -> prometheus::Result<Self> {
                let _ = ($labels, $buckets);
                $build
            }
        }
    };
}

make!(IntCounter, |name, help, labels, buckets| Self::new(name, help));
make!(IntGauge, |name, help, labels, buckets| Self::new(name, help));
make!(IntCounterVec, |name, help, labels, buckets| Self::new(Opts::new(name, help), labels));
make!(IntGaugeVec, |name, help, labels, buckets| Self::new(Opts::new(name, help), labels));
make!(Histogram, |name, help, labels, buckets| Self::with_opts(
    HistogramOpts::new(name, help).buckets(buckets.to_vec())
));
make!(HistogramVec, |name, help, labels, buckets| Self::new(
    HistogramOpts::new(name, help).buckets(buckets.to_vec()),
    labels
));

/// Seconds a call or an allocation lives.
const LONG: &[f64] =
    &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0];
/// Seconds a person waits.
const WAIT: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0];
/// Seconds a machine works.
const WORK: &[f64] = &[0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];
/// Messages in a batch.
const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
/// Not a histogram.
const NONE: &[f64] = &[];

macro_rules! metrics {
    ($(#[doc = $help:literal] $field:ident: $kind:ty = $name:literal [$($label:literal),*] $buckets:ident;)*) => {
        /// Every metric of the process.
        pub struct Metrics {
            $(#[doc = $help] pub $field: $kind,)*
            registry: Registry,
            hooks: Mutex<Vec<Box<dyn Fn() + Send>>>,
        }

        /// Name, kind and help of every metric, for `docs/metrics.md` and its test.
        pub const CATALOGUE: &[(&str, &str, &str, &[&str])] =
            &[$(($name, stringify!($kind), $help, &[$($label),*]),)*];

        impl Metrics {
            /// Registers every metric in a registry of its own.
            ///
            /// # Errors
            /// Two metrics share a name, or a name is invalid: a defect of this file, found by its test.
            pub fn new() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(
                    let $field = <$kind as Make>::make($name, $help.trim(), &[$($label),*], $buckets)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                #[cfg(target_os = "linux")]
                registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
                Ok(Self { $($field,)* registry, hooks: Mutex::default() })
            }
        }
    };
}

metrics! {
    /// STUN and TURN requests by method and transport.
    stun_requests: IntCounterVec = "passerelle_stun_requests_total" ["method", "transport"] NONE;
    /// STUN and TURN answers by method and code; success is code 0.
    stun_responses: IntCounterVec = "passerelle_stun_responses_total" ["method", "code"] NONE;
    /// Live TURN allocations.
    turn_allocations: IntGaugeVec = "passerelle_turn_allocations" ["transport", "family"] NONE;
    /// TURN allocations made.
    turn_allocations_created: IntCounter = "passerelle_turn_allocations_created_total" [] NONE;
    /// TURN allocations that ended.
    turn_allocations_ended: IntCounterVec = "passerelle_turn_allocations_ended_total" ["reason"] NONE;
    /// Life of ended TURN allocations in seconds.
    turn_allocation_duration: Histogram = "passerelle_turn_allocation_duration_seconds" [] LONG;
    /// Requests whose credentials were refused.
    turn_auth_failures: IntCounterVec = "passerelle_turn_auth_failures_total" ["reason"] NONE;
    /// Live permissions of all allocations.
    turn_permissions: IntGauge = "passerelle_turn_permissions" [] NONE;
    /// Live channels of all allocations.
    turn_channels: IntGauge = "passerelle_turn_channels" [] NONE;
    /// Relayed packets by direction (to_peer, to_client).
    relay_packets: IntCounterVec = "passerelle_relay_packets_total" ["direction"] NONE;
    /// Relayed application bytes by direction (to_peer, to_client), counted while they flow.
    relay_bytes: IntCounterVec = "passerelle_relay_bytes_total" ["direction"] NONE;
    /// Datagrams that were dropped, by direction and reason.
    relay_dropped: IntCounterVec = "passerelle_relay_dropped_total" ["direction", "reason"] NONE;
    /// Open connections of TURN clients over TCP and TLS.
    turn_connections: IntGaugeVec = "passerelle_turn_connections" ["transport"] NONE;
    /// Connections of TURN clients that were given up before they authenticated, by reason.
    turn_connections_refused: IntCounterVec = "passerelle_turn_connections_refused_total" ["reason"] NONE;
    /// End of the validity of the TLS certificate in use, in seconds since the Unix epoch.
    tls_certificate_expiry: IntGauge = "passerelle_tls_certificate_expiry_timestamp_seconds" [] NONE;
    /// Relay ports in use.
    relay_ports_used: IntGauge = "passerelle_relay_ports_used" [] NONE;
    /// Relay ports there are.
    relay_ports_capacity: IntGauge = "passerelle_relay_ports_capacity" [] NONE;
    /// Datagrams handled by one system call.
    relay_batch_size: HistogramVec = "passerelle_relay_batch_size" ["operation"] BATCH;
    /// Datagrams the kernel dropped because a receive buffer was full.
    socket_receive_overflow: IntCounter = "passerelle_socket_receive_overflow_total" [] NONE;
    /// Peers that the policy denied, by rule.
    peer_denied: IntCounterVec = "passerelle_peer_denied_total" ["rule"] NONE;
    /// Connected signaling transports.
    signaling_connections: IntGaugeVec = "passerelle_signaling_connections" ["transport"] NONE;
    /// Signaling sessions by state (connected, resumable).
    signaling_sessions: IntGaugeVec = "passerelle_signaling_sessions" ["state"] NONE;
    /// Signaling events by name and direction (in, out); unexpected names are `other`.
    signaling_events: IntCounterVec = "passerelle_signaling_events_total" ["event", "direction"] NONE;
    /// Signaling requests that were refused, by error code.
    signaling_errors: IntCounterVec = "passerelle_signaling_errors_total" ["code"] NONE;
    /// Time the engine takes for one event.
    signaling_handle: HistogramVec = "passerelle_signaling_event_handle_duration_seconds" ["event"] WORK;
    /// Bytes waiting in the send queues of all sessions.
    signaling_send_queue_bytes: IntGauge = "passerelle_signaling_send_queue_bytes" [] NONE;
    /// Seconds a frame takes from the engine to the network; of each session one frame at a time is timed.
    signaling_delivery: Histogram = "passerelle_signaling_delivery_seconds" [] WORK;
    /// Sessions closed because they did not read.
    signaling_slow_consumers: IntCounter = "passerelle_signaling_slow_consumers_total" [] NONE;
    /// Transports that came to resume a session, by result (resumed, expired, beyond, wrong_key).
    signaling_session_resume: IntCounterVec = "passerelle_signaling_session_resume_total" ["result"] NONE;
    /// Requests that came again and had their first outcome again.
    signaling_duplicates: IntCounter = "passerelle_signaling_duplicate_requests_total" [] NONE;
    /// Requests over a rate limit, by limit.
    signaling_rate_limited: IntCounterVec = "passerelle_signaling_rate_limited_total" ["limit"] NONE;
    /// Calls that have not ended, by status.
    calls: IntGaugeVec = "passerelle_calls" ["status"] NONE;
    /// Calls started, by type (video, audio); also those that could ring nobody, which end as offline or busy at once.
    calls_started: IntCounterVec = "passerelle_calls_started_total" ["type"] NONE;
    /// Calls ended, by reason, type and path (relay when TURN carried media, else direct; none when never answered).
    calls_ended: IntCounterVec = "passerelle_calls_ended_total" ["reason", "type", "path"] NONE;
    /// Seconds from answer to end.
    call_duration: Histogram = "passerelle_call_duration_seconds" [] LONG;
    /// Seconds from join to the first relayed answer.
    call_setup: Histogram = "passerelle_call_setup_seconds" [] WAIT;
    /// Seconds a call rang before it was answered.
    call_ring: Histogram = "passerelle_call_ring_seconds" [] WAIT;
    /// ICE credentials handed out, by kind (session, call, rest).
    ice_credentials_issued: IntCounterVec = "passerelle_ice_credentials_issued_total" ["kind"] NONE;
    /// Call records written, by result (ok, error, dropped).
    store_writes: IntCounterVec = "passerelle_store_writes_total" ["result"] NONE;
    /// 1 while the database of call records answers, as last seen; 0 while records wait for it.
    store_up: IntGauge = "passerelle_store_up" [] NONE;
    /// Events sent to the webhook, by result (ok, error, dropped).
    webhook_deliveries: IntCounterVec = "passerelle_webhook_deliveries_total" ["result"] NONE;
    /// Events waiting for the webhook, as last counted.
    webhook_queue_length: IntGauge = "passerelle_webhook_queue_length" [] NONE;
    /// Call records waiting to be written.
    store_queue_length: IntGauge = "passerelle_store_queue_length" [] NONE;
    /// Reloads of the configuration, by result (applied, refused).
    config_reloads: IntCounterVec = "passerelle_config_reloads_total" ["result"] NONE;
    /// 1 while the server drains.
    draining: IntGauge = "passerelle_draining" [] NONE;
    /// Always 1; the labels name the build.
    build_info: IntGaugeVec = "passerelle_build_info" ["version", "commit"] NONE;
}

impl Metrics {
    /// Runs `hook` at the start of every scrape, to copy in what is counted elsewhere.
    pub fn before_scrape(&self, hook: impl Fn() + Send + 'static) {
        self.hooks.lock().push(Box::new(hook));
    }

    /// The text exposition of everything.
    ///
    /// # Errors
    /// A metric family cannot be encoded.
    pub fn encode(&self) -> prometheus::Result<String> {
        // The lock also keeps two scrapes from advancing one counter twice.
        let hooks = self.hooks.lock();
        hooks.iter().for_each(|hook| hook());
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_and_follows_the_naming_of_prometheus() {
        Metrics::new().unwrap();
        for (name, kind, help, _) in CATALOGUE {
            assert!(name.starts_with("passerelle_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind.starts_with("IntCounter"), "{name} is a {kind}");
            assert!(help.trim().ends_with('.'), "{name}: {help}");
        }
    }

    #[test]
    fn a_counter_advances_to_a_total_and_never_goes_back() {
        let metrics = Metrics::new().unwrap();
        for total in [3, 7, 5] {
            advance(&metrics.turn_allocations_created, total);
        }
        assert_eq!(metrics.turn_allocations_created.get(), 7);
    }

    #[test]
    fn a_hook_runs_at_each_scrape() {
        let metrics = std::sync::Arc::new(Metrics::new().unwrap());
        let gauge = metrics.turn_channels.clone();
        metrics.before_scrape(move || gauge.inc());
        assert!(metrics.encode().unwrap().contains("passerelle_turn_channels 1"));
        assert!(metrics.encode().unwrap().contains("passerelle_turn_channels 2"));
    }
}
