//! File descriptors: how many there may be, and how many relay sockets fit under that.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors kept for everything that is no relay socket: listeners, HTTP, signaling, the database.
const RESERVE: usize = 256;

/// How many relay sockets a limit on open files allows.
pub fn relay_sockets(open_files: usize) -> usize {
    open_files.saturating_sub(RESERVE).max(open_files / 2)
}

/// Raises the limit to the hard one and returns how many relay sockets fit under it.
pub(super) fn raise_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
    let now = getrlimit(Resource::Nofile).current;
    relay_sockets(now.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX))
}
