//! What the generator asks of the machine.

use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The core of the generator.
const GENERATOR_CORE: &str = "0";

/// Files that a process has open besides the sockets of sessions.
const OTHER_FILES: u64 = 100;

/// Prepares this process and those it starts, or says what is missing. Gives the most sessions it may have open, as many
/// as are wanted where the system lets it.
pub(crate) fn prepare(sessions: usize) -> Result<usize, String> {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return Err("two cores are needed".into());
    }
    let descriptors = sessions as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(descriptors);
    if limit.current.is_some_and(|current| current < descriptors)
        && setrlimit(
            Resource::Nofile,
            Rlimit { current: Some(descriptors), maximum: Some(most.max(descriptors)) },
        )
        .is_err()
    {
        setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(|error| error.to_string())?;
    }
    let id = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-apc", GENERATOR_CORE, &id]).output();
    if !pinned.is_ok_and(|output| output.status.success()) {
        return Err("taskset is not installed".into());
    }
    // What else runs here must not make the difference. The servers inherit it.
    let _ = Command::new("renice").args(["-n", "-20", "-p", &id]).output();
    let open = getrlimit(Resource::Nofile).current.unwrap_or(descriptors).min(descriptors);
    Ok(open.saturating_sub(OTHER_FILES) as usize)
}

/// Lets nothing but the kernel's own threads of higher priority come before a process (`threads`: all of its threads) or,
/// with `on` false, before nobody any more.
pub(crate) fn real_time(process: u32, threads: bool, on: bool) {
    let (policy, priority) = if on { ("-f", "10") } else { ("-o", "0") };
    let mut command = Command::new("chrt");
    if threads {
        command.arg("-a");
    }
    let _ = command.args([policy, "-p", priority, &process.to_string()]).output();
}
