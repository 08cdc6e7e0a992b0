//! Medians, ratios, a table, a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::Arguments;
use super::measured::median;
use super::servers::{Kind, coturn_version};

/// Samples by profile, quantity and server.
pub(crate) struct Report {
    kinds: Vec<Kind>,
    rounds: usize,
    seconds: f64,
    many: usize,
    samples: BTreeMap<(String, String), BTreeMap<&'static str, Vec<f64>>>,
}

impl Report {
    pub(crate) fn new(arguments: &Arguments, kinds: &[Kind]) -> Self {
        Self {
            kinds: kinds.to_vec(),
            rounds: arguments.rounds,
            seconds: arguments.seconds,
            many: arguments.many,
            samples: BTreeMap::new(),
        }
    }

    pub(crate) fn record(&mut self, kind: Kind, profile: &str, what: &str, value: f64) {
        let key = (profile.to_owned(), what.to_owned());
        self.samples.entry(key).or_default().entry(kind.name()).or_default().push(value);
    }

    fn ratio(&self, by_server: &BTreeMap<&'static str, Vec<f64>>) -> Option<f64> {
        let ours = median(by_server.get(Kind::Passerelle.name())?);
        let other = median(by_server.get(Kind::Coturn.name())?);
        self.kinds.contains(&Kind::Coturn).then_some(ours / other)
    }

    /// The table: medians, smallest and largest, and our median divided by coturn's.
    pub(crate) fn print(&self) {
        println!("{:<6} {:<20} {:>30} {:>30} {:>7}", "", "", "passerelle", "coturn", "ratio");
        for ((profile, what), by_server) in &self.samples {
            let cell = |kind: Kind| {
                by_server.get(kind.name()).map_or_else(String::new, |samples| {
                    let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
                    let high = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    format!("{:.2} ({low:.2} to {high:.2})", median(samples))
                })
            };
            let ratio = self.ratio(by_server).map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            println!(
                "{profile:<6} {what:<20} {:>30} {:>30} {ratio:>7}",
                cell(Kind::Passerelle),
                cell(Kind::Coturn)
            );
        }
    }

    /// The same for programs, with every sample.
    pub(crate) fn write(&self, path: &Path) {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let results: Vec<_> = self
            .samples
            .iter()
            .map(|((profile, what), by_server)| {
                json!({
                    "profile": profile,
                    "quantity": what,
                    "samples": by_server,
                    "medians": by_server.iter().map(|(name, all)| (*name, median(all))).collect::<BTreeMap<_, _>>(),
                    "ratio": self.ratio(by_server),
                })
            })
            .collect();
        let report = json!({
            "kernel": read("/proc/sys/kernel/osrelease"),
            "coturn": coturn_version(),
            "passerelle": env!("CARGO_PKG_VERSION"),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "many": self.many,
            "results": results,
        });
        if let Some(folder) = path.parent() {
            let _ = fs::create_dir_all(folder);
        }
        fs::write(path, serde_json::to_string_pretty(&report).unwrap()).unwrap();
        println!("written to {}", path.display());
    }
}
