//! What the generator asks of the machine.

use std::fs;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The core of the generator.
const GENERATOR_CORE: &str = "0";

/// Prepares this process and those it starts, or says what is missing: `descriptors` files, two cores, `taskset`.
pub(crate) fn prepare(descriptors: u64) -> Option<String> {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return Some("two cores are needed".into());
    }
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < descriptors) {
        let maximum = limit.maximum.map(|maximum| maximum.max(descriptors));
        let wanted = Rlimit { current: Some(descriptors), maximum };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            return Some(format!("{descriptors} open files are needed: {error}"));
        }
    }
    let id = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-apc", GENERATOR_CORE, &id]).output();
    (!pinned.is_ok_and(|output| output.status.success())).then(|| "taskset is not installed".into())
}

/// Nanoseconds that a process, all its threads, has run.
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
