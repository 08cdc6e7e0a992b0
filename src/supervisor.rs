//! What the service manager is told: systemd's `sd_notify` protocol (`Type=notify-reload`, `WatchdogSec=`). Must not
//! know what the service does. Driven by `app` and `reload`; without a manager (`NOTIFY_SOCKET`) every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Everything listens.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again; [`ready`] follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic clock"),
    }
}

/// The drain has begun, which takes at most this long: the manager's own deadline must not cut it.
pub fn stopping(within: Duration) {
    let within = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(within)]);
}

/// Says that the process lives, as often as the manager wants to hear it, until the task is dropped. It says so from
/// a task of the runtime: when that hangs, the manager restarts the service.
pub async fn keep_alive() {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let mut interval = tokio::time::interval(within / 3);
    loop {
        interval.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
