//! Wakes workers once a second while something of theirs has a deadline. A worker that waited with a timeout would have
//! the kernel set a timer at each wake-up and remove it again: 3 % of what a packet costs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use mio::Waker;
use parking_lot::Mutex;

/// As exact as the wheel of the deadlines.
const PERIOD: Duration = Duration::from_secs(1);

/// One worker's side: says whether it wants to be woken.
pub(super) struct Beat {
    wanted: Arc<AtomicBool>,
    thread: Thread,
}

impl Beat {
    /// Wants to be woken from now on, or no more.
    pub(super) fn want(&self, wanted: bool) {
        if self.wanted.load(Ordering::Relaxed) != wanted {
            self.wanted.store(wanted, Ordering::Release);
            if wanted {
                self.thread.unpark();
            }
        }
    }
}

/// The thread that wakes them. It sleeps for good while nobody wants to be woken.
pub(super) struct Beats {
    stopped: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Beats {
    /// Starts the thread for workers that are woken by these; a [`Beat`] for each, in the same order.
    pub(super) fn start(wakers: Vec<Arc<Waker>>) -> io::Result<(Self, Vec<Beat>)> {
        let workers: Vec<_> =
            wakers.into_iter().map(|waker| (waker, Arc::new(AtomicBool::new(false)))).collect();
        let wanted: Vec<_> = workers.iter().map(|(_, wanted)| Arc::clone(wanted)).collect();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let thread = thread::Builder::new().name("relay-beat".into()).spawn(move || {
            while !stop.load(Ordering::Acquire) {
                let mut any = false;
                for (waker, _) in workers.iter().filter(|(_, wanted)| wanted.load(Ordering::Acquire)) {
                    any = true;
                    // A worker that is gone has reported why.
                    let _ = waker.wake();
                }
                match any {
                    true => thread::park_timeout(PERIOD),
                    false => thread::park(),
                }
            }
        })?;
        let handle = thread.thread().clone();
        let beat = |wanted| Beat { wanted, thread: handle.clone() };
        let beats = wanted.into_iter().map(beat).collect();
        Ok((Self { stopped, thread: Mutex::new(Some(thread)) }, beats))
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.lock().take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use mio::{Events, Poll, Token};

    use super::*;

    #[test]
    fn a_worker_is_woken_again_and_again_while_it_wants_to_be_and_not_otherwise() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(7)).unwrap());
        let (beats, workers) = Beats::start(vec![waker]).unwrap();
        let mut events = Events::with_capacity(4);
        let mut woken = |patience| {
            poll.poll(&mut events, Some(Duration::from_secs(patience))).unwrap();
            !events.is_empty()
        };
        assert!(!woken(0), "nobody asked");
        workers[0].want(true);
        let start = Instant::now();
        assert!(woken(30) && woken(30) && woken(30));
        assert!(start.elapsed() > PERIOD, "two periods lie between three beats");
        workers[0].want(false);
        // One may have been under way.
        woken(2);
        assert!(!woken(3));
        beats.stop();
    }
}
