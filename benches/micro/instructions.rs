//! Counts instructions with callgrind and compares them with what was recorded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::operations::NAMES;

/// How much more is a regression.
const TOLERANCE: f64 = 1.10;
/// The difference of two runs leaves out what preparing costs.
const RUNS: [u64; 2] = [200, 1200];

fn recorded_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/micro/instructions.txt")
}

fn count(name: &str, runs: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--run", name, &runs.to_string()])
        // The names of hash seeds and addresses must not vary.
        .env("LC_ALL", "C")
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Counts everything; fails when something has become dearer.
pub(crate) fn compare() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed");
        return;
    }
    let recorded: BTreeMap<String, u64> = std::fs::read_to_string(recorded_in())
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, count)| Some((name.to_owned(), count.trim().parse().ok()?)))
        .collect();
    let mut found = String::from("# Instructions of one operation; written by UPDATE=1 make instructions.\n");
    let mut dearer = Vec::new();
    for name in NAMES {
        let [few, many] = RUNS.map(|runs| count(name, runs).expect("callgrind counts"));
        let each = (many - few) / (RUNS[1] - RUNS[0]);
        let before = recorded.get(name).copied();
        println!(
            "{name:<24} {each:>8}   recorded {}",
            before.map_or("nothing".into(), |count| count.to_string())
        );
        writeln!(found, "{name} {each}").unwrap();
        if before.is_none_or(|before| each as f64 > before as f64 * TOLERANCE + 20.0) {
            dearer.push(name);
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(recorded_in(), found).unwrap();
    } else {
        assert!(dearer.is_empty(), "dearer than recorded, or not recorded: {dearer:?}");
    }
}
