//! The end of the process: the drain signal, its deadline, the tasks that must finish. Must not know what is drained.
//! Driven by `app`; every part holds a clone, and waits for [`Shutdown::draining`] and [`Shutdown::stopping`].
//!
//! `SIGTERM` or `SIGINT` starts the drain: nothing new is accepted, what runs goes on. When nothing is left, or the
//! deadline passes, or a second signal comes, everything stops.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Configuration of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Longest time between the first signal and the stop.
    pub timeout: Duration,
}

/// Why a drain was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Nothing was left.
    Idle,
    /// The deadline passed.
    Deadline,
    /// A second signal.
    Hurried,
}

/// A handle to the end of the process; clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    timeout: Arc<Mutex<Duration>>,
    draining: CancellationToken,
    stopping: CancellationToken,
    hurrying: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Makes the end of one process. Signals are heard from [`Shutdown::hear_signals`] on.
    pub fn new(config: Config) -> Self {
        Self {
            timeout: Arc::new(Mutex::new(config.timeout)),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            hurrying: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Takes another deadline, for a drain that has not started.
    pub fn reconfigure(&self, config: Config) {
        *self.timeout.lock() = config.timeout;
    }

    /// Listens to `SIGTERM` and `SIGINT`.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn hear_signals(&self) -> io::Result<()> {
        let mut signals = Signals::install()?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            signals.next().await;
            shutdown.drain();
            signals.next().await;
            shutdown.hurry();
        });
        Ok(())
    }

    /// Starts the drain.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Ends the drain: everything has to stop.
    pub fn stop(&self) {
        self.draining.cancel();
        self.stopping.cancel();
    }

    /// Stops, and cuts every wait of the end short.
    pub fn hurry(&self) {
        self.stop();
        self.hurrying.cancel();
    }

    /// Whether waits are cut short.
    pub fn is_hurrying(&self) -> bool {
        self.hurrying.is_cancelled()
    }

    /// Waits until waits are cut short.
    pub async fn hurrying(&self) {
        self.hurrying.cancelled().await;
    }

    /// Longest time a drain takes.
    pub fn timeout(&self) -> Duration {
        *self.timeout.lock()
    }

    /// Whether the drain has started.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Whether everything has to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Waits until the drain starts.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Waits until everything has to stop.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Runs a task that the end waits for.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// A token that is cancelled when everything has to stop, for tasks that want one.
    pub fn stop_token(&self) -> CancellationToken {
        self.stopping.child_token()
    }

    /// Waits until `idle` is done, the deadline passes or a second signal comes.
    pub async fn drained(&self, idle: impl Future<Output = ()>) -> Drained {
        let timeout = self.timeout();
        tokio::select! {
            biased;
            () = self.hurrying() => Drained::Hurried,
            () = idle => Drained::Idle,
            () = tokio::time::sleep(timeout) => Drained::Deadline,
        }
    }

    /// Waits for the tasks, at most for `limit` or until a second signal.
    ///
    /// # Errors
    /// How many are still running.
    pub async fn finished(&self, limit: Duration) -> Result<(), usize> {
        self.tasks.close();
        tokio::select! {
            biased;
            () = self.tasks.wait() => Ok(()),
            () = self.hurrying() => Err(self.tasks.len()),
            () = tokio::time::sleep(limit) => Err(self.tasks.len()),
        }
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn install() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    fn shutdown(timeout: Duration) -> Shutdown {
        Shutdown::new(Config { timeout })
    }

    #[tokio::test]
    async fn a_drain_ends_when_nothing_is_left() {
        let shutdown = shutdown(Duration::from_secs(600));
        shutdown.drain();
        assert!(shutdown.is_draining() && !shutdown.is_stopping());
        assert_eq!(shutdown.drained(ready(())).await, Drained::Idle);
    }

    #[tokio::test]
    async fn a_drain_ends_at_its_deadline() {
        let shutdown = shutdown(Duration::from_millis(1));
        shutdown.drain();
        assert_eq!(shutdown.drained(pending()).await, Drained::Deadline);
    }

    #[tokio::test]
    async fn a_second_signal_ends_a_drain() {
        let shutdown = shutdown(Duration::from_secs(600));
        shutdown.drain();
        let other = shutdown.clone();
        tokio::spawn(async move { other.hurry() });
        assert_eq!(shutdown.drained(pending()).await, Drained::Hurried);
        shutdown.spawn(pending::<()>());
        assert_eq!(shutdown.finished(Duration::from_secs(600)).await, Err(1));
    }

    #[tokio::test]
    async fn the_end_waits_for_its_tasks_but_not_for_ever() {
        let shutdown = shutdown(Duration::ZERO);
        let stopped = shutdown.clone();
        shutdown.spawn(async move { stopped.stopping().await });
        assert_eq!(shutdown.finished(Duration::from_millis(1)).await, Err(1));
        shutdown.stop();
        assert_eq!(shutdown.finished(Duration::from_secs(60)).await, Ok(()));
    }
}
