//! How good a participant's media is, as its client measures it.

use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::Reject;

/// Reports closer together than this are not kept.
const INTERVAL: Duration = Duration::from_secs(5);
/// Alerts about one participant are at least this far apart.
const ALERT_INTERVAL: Duration = Duration::from_secs(30);
/// Round trip, loss and jitter from which on a call is fair, and from which on it is poor.
const FAIR: Thresholds = Thresholds { rtt: 200.0, loss: 2.0, jitter: 30.0 };
const POOR: Thresholds = Thresholds { rtt: 400.0, loss: 5.0, jitter: 50.0 };

struct Thresholds {
    rtt: f64,
    loss: f64,
    jitter: f64,
}

/// One report of a client (`call:quality-report`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stats {
    /// Round-trip time in milliseconds.
    pub rtt: f64,
    /// Lost packets in percent.
    pub loss: f64,
    /// Jitter in milliseconds.
    pub jitter: Option<f64>,
    /// Type of the local candidate in use: `host`, `srflx`, `prflx` or `relay`.
    pub candidate: Option<&'static str>,
}

impl Stats {
    /// Reads `stats`.
    pub(super) fn parse(map: &Map<String, Value>) -> Result<Self, Reject> {
        let number = |key: &str, most: f64| match map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if number.is_finite() && number >= 0.0 => Ok(Some(number.min(most))),
                _ => Err(Reject::Invalid { field: "stats", why: "must hold numbers that are not negative" }),
            },
        };
        let candidate = map.get("candidateType").and_then(Value::as_str);
        let candidates = ["host", "srflx", "prflx", "relay"];
        Ok(Self {
            rtt: number("rtt", 60_000.0)?.unwrap_or_default(),
            loss: number("packetLoss", 100.0)?.unwrap_or_default(),
            jitter: number("jitter", 60_000.0)?,
            candidate: candidate.and_then(|name| candidates.into_iter().find(|known| *known == name)),
        })
    }

    fn reaches(&self, limit: &Thresholds) -> bool {
        self.rtt >= limit.rtt
            || self.loss >= limit.loss
            || self.jitter.is_some_and(|jitter| jitter >= limit.jitter)
    }
}

/// The reports of a participant, summed up.
#[derive(Debug, Clone, Default)]
pub(super) struct Quality {
    reports: u32,
    rtt_sum: f64,
    rtt_max: f64,
    loss_sum: f64,
    loss_max: f64,
    jitters: u32,
    jitter_sum: f64,
    /// Type of the candidate in use, as it was reported last.
    pub(super) candidate: Option<&'static str>,
    reported: Option<Instant>,
    alerted: Option<Instant>,
}

impl Quality {
    /// Takes a report; whether it calls for an alert.
    pub(super) fn take(&mut self, stats: Stats, now: Instant) -> bool {
        let within =
            |last: Option<Instant>, wait| last.is_some_and(|last| now.saturating_duration_since(last) < wait);
        if within(self.reported, INTERVAL) {
            return false;
        }
        self.reported = Some(now);
        self.reports = self.reports.saturating_add(1);
        self.rtt_sum += stats.rtt;
        self.rtt_max = self.rtt_max.max(stats.rtt);
        self.loss_sum += stats.loss;
        self.loss_max = self.loss_max.max(stats.loss);
        if let Some(jitter) = stats.jitter {
            self.jitters = self.jitters.saturating_add(1);
            self.jitter_sum += jitter;
        }
        self.candidate = stats.candidate.or(self.candidate);
        let alert = stats.reaches(&POOR) && !within(self.alerted, ALERT_INTERVAL);
        if alert {
            self.alerted = Some(now);
        }
        alert
    }

    /// Mean and longest round trip in milliseconds.
    pub(super) fn rtt(&self) -> Option<(f64, f64)> {
        self.mean(self.rtt_sum).map(|mean| (mean, self.rtt_max))
    }

    /// Mean and highest loss in percent.
    pub(super) fn loss(&self) -> Option<(f64, f64)> {
        self.mean(self.loss_sum).map(|mean| (mean, self.loss_max))
    }

    /// Mean jitter in milliseconds.
    pub(super) fn jitter(&self) -> Option<f64> {
        (self.jitters > 0).then(|| self.jitter_sum / f64::from(self.jitters))
    }

    /// One word for all of it; `None` without a report.
    pub(super) fn level(&self) -> Option<Level> {
        let stats =
            Stats { rtt: self.rtt()?.0, loss: self.loss()?.0, jitter: self.jitter(), candidate: None };
        Some(match () {
            () if stats.reaches(&POOR) => Level::Poor,
            () if stats.reaches(&FAIR) => Level::Fair,
            () => Level::Good,
        })
    }

    fn mean(&self, sum: f64) -> Option<f64> {
        (self.reports > 0).then(|| sum / f64::from(self.reports))
    }
}

/// How good a call was; worse is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Good,
    Fair,
    Poor,
}

impl Level {
    /// Wire name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Fair => "fair",
            Self::Poor => "poor",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(rtt: f64, loss: f64) -> Stats {
        Stats { rtt, loss, jitter: None, candidate: Some("host") }
    }

    #[test]
    fn reports_are_averaged_and_at_most_one_in_five_seconds_is_kept() {
        let (mut quality, start) = (Quality::default(), Instant::now());
        for tenth in 0..101 {
            let rtt = if tenth % 50 == 0 { 100.0 + f64::from(tenth) } else { 9_999.0 };
            quality.take(stats(rtt, 0.0), start + Duration::from_millis(100 * u64::from(tenth as u32)));
        }
        assert_eq!(quality.rtt(), Some((150.0, 200.0)));
        assert_eq!((quality.jitter(), quality.level()), (None, Some(Level::Good)));
        assert_eq!(Quality::default().level(), None);
    }

    #[test]
    fn a_poor_report_alerts_and_does_not_repeat_itself() {
        let (mut quality, start) = (Quality::default(), Instant::now());
        let mut alerts = (0..14).map(|n| quality.take(stats(10.0, 7.0), start + n * INTERVAL));
        assert_eq!(alerts.by_ref().take(6).filter(|alert| *alert).count(), 1);
        assert_eq!(alerts.filter(|alert| *alert).count(), 2);
        assert_eq!(quality.level(), Some(Level::Poor));
    }

    #[test]
    fn nonsense_is_refused_and_extremes_are_cut() {
        let parse = |value: Value| Stats::parse(value.as_object().unwrap());
        for wrong in [serde_json::json!({"rtt": -1}), serde_json::json!({"packetLoss": "many"})] {
            assert!(parse(wrong).is_err());
        }
        let cut =
            parse(serde_json::json!({"rtt": 1e300, "packetLoss": 1e9, "candidateType": "carrier-pigeon"}));
        assert_eq!(cut, Ok(Stats { rtt: 60_000.0, loss: 100.0, jitter: None, candidate: None }));
    }
}
