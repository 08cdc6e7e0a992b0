//! Medians, a table, a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::Arguments;
use super::measured::median;
use super::servers::{Kind, node_versions};

/// What the project has promised, by profile and quantity: of either framing, or of plain WebSocket only.
const GOALS: [(&str, &str, &str); 5] = [
    ("memory", "KiB a session", "<= 12"),
    ("relay", "frames a second of CPU", ">= 60000"),
    ("relay", "at half load: 99 %, ms", "< 2"),
    ("storm", "resumed, %", ">= 99"),
    ("storm", "99 % are back after, s", "<= 15"),
];

/// Samples by profile, quantity and server.
pub(crate) struct Report {
    kinds: Vec<Kind>,
    order: Vec<(String, String)>,
    samples: BTreeMap<(String, String), BTreeMap<&'static str, Vec<f64>>>,
}

impl Report {
    pub(crate) fn new(kinds: &[Kind]) -> Self {
        Self { kinds: kinds.to_vec(), order: Vec::new(), samples: BTreeMap::new() }
    }

    pub(crate) fn record(&mut self, kind: Kind, profile: &str, what: &str, value: f64) {
        let key = (profile.to_owned(), what.to_owned());
        if !self.order.contains(&key) {
            self.order.push(key.clone());
        }
        eprintln!("  {} {profile}: {what}: {value:.2}", kind.name());
        self.samples.entry(key).or_default().entry(kind.name()).or_default().push(value);
    }

    /// The table: medians.
    pub(crate) fn print(&self) {
        print!("{:<8} {:<26}", "", "");
        self.kinds.iter().for_each(|kind| print!(" {:>12}", kind.name()));
        println!(" {:>10}", "goal");
        for key in &self.order {
            let (profile, what) = key;
            print!("{profile:<8} {what:<26}");
            for kind in &self.kinds {
                let samples = self.samples[key].get(kind.name());
                let cell = samples.map_or_else(String::new, |samples| format!("{:.2}", median(samples)));
                print!(" {cell:>12}");
            }
            let goal = GOALS.iter().find(|(p, w, _)| p == profile && w == what);
            println!(" {:>10}", goal.map_or("", |(_, _, goal)| goal));
        }
    }

    /// The same for programs, with every sample.
    pub(crate) fn write(&self, arguments: &Arguments) {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let results: Vec<_> = self
            .order
            .iter()
            .map(|key| {
                let by_server = &self.samples[key];
                json!({
                    "profile": key.0,
                    "quantity": key.1,
                    "samples": by_server,
                    "medians": by_server.iter().map(|(name, all)| (*name, median(all))).collect::<BTreeMap<_, _>>(),
                })
            })
            .collect();
        let versions = self.kinds.contains(&Kind::Node).then(node_versions);
        let report = json!({
            "kernel": read("/proc/sys/kernel/osrelease"),
            "passerelle": env!("CARGO_PKG_VERSION"),
            "node": versions.as_ref().map(|(node, _)| node),
            "socket.io": versions.as_ref().map(|(_, package)| package),
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "sessions": arguments.sessions,
            "storm": arguments.storm,
            "results": results,
        });
        write(&arguments.json, &serde_json::to_string_pretty(&report).unwrap());
    }
}

fn write(path: &Path, text: &str) {
    if let Some(folder) = path.parent() {
        let _ = fs::create_dir_all(folder);
    }
    fs::write(path, text).unwrap();
    println!("written to {}", path.display());
}
