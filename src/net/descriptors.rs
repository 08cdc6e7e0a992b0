//! File descriptors: how many there may be, and how many allocations that allows.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors kept for everything that is no relay socket: listeners, HTTP, signaling, the database.
const RESERVE: u64 = 256;

/// Raises the limit to the hard one and returns how many relay sockets fit under it.
pub(super) fn raise_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
    let now = getrlimit(Resource::Nofile).current;
    // Signaling sockets share the limit: the relay takes at most three quarters of it.
    let usable = now.map_or(u64::MAX, |limit| limit.saturating_sub(RESERVE) / 4 * 3);
    usize::try_from(usable).unwrap_or(usize::MAX)
}
