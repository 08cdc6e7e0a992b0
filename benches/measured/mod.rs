//! What the benchmarks measure and how they sum it up: the program, its run time, its memory, medians.

use std::fs;
use std::path::{Path, PathBuf};

/// The release build of this crate, built by `make bench` before.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("PASSERELLE_BINARY").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/passerelle"),
        PathBuf::from,
    )
}

/// Nanoseconds that a process (all its threads) or a kernel thread has run.
pub(crate) fn run_time(process: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    let time = |entry: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(entry.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.filter_map(time).sum()
}

/// Bytes of a process that are its own.
pub(crate) fn resident(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name))?;
        found.split_whitespace().next()?.parse::<u64>().ok()
    };
    1024 * (line("Private_Clean:").unwrap_or(0) + line("Private_Dirty:").unwrap_or(0))
}

/// The middle of the samples; no number without any.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}
