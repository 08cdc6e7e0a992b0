//! What the rest of the process asks of a worker, and the way there.

use std::sync::{Arc, mpsc};
use std::thread;

use mio::Waker;
use parking_lot::Mutex;

use super::stream::Connection;
use crate::turn::{Departure, Keys, Settings};

/// What the rest of the process asks of a worker.
pub(super) enum Command {
    /// Serve a connection from now on.
    Adopt(Box<Connection>),
    /// End the allocations of calls.
    RevokeCalls(Arc<[Arc<str>]>),
    /// End the allocations that somebody made for a call it has left.
    RevokeDeparted(Arc<Departure>),
    /// Go on with a changed configuration.
    Reconfigure(Settings, Arc<dyn Keys>),
    /// End every allocation and return.
    Stop,
}

/// How a worker is reached.
pub(super) struct Link {
    commands: mpsc::Sender<Command>,
    waker: Arc<Waker>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Link {
    /// The way to a worker whose thread runs.
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        waker: Arc<Waker>,
        thread: thread::JoinHandle<()>,
    ) -> Self {
        Self { commands, waker, thread: Mutex::new(Some(thread)) }
    }

    /// Waits for the worker's end, once.
    pub(super) fn join(&self) {
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }

    /// Asks for something.
    pub(super) fn send(&self, command: Command) {
        // A worker that is gone has reported why; there is nobody left to obey.
        if self.commands.send(command).is_ok() {
            let _ = self.waker.wake();
        }
    }
}
