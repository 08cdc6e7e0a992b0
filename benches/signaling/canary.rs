//! Notices when the machine itself stands still: a hypervisor that takes a core away makes any server look slow.
//!
//! On each core a thread of real-time priority sleeps for half a millisecond and looks at the clock, over and over. Nothing
//! that runs here can hold it up: where it is late, the core was gone.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long it sleeps.
const NAP: Duration = Duration::from_micros(500);
/// Later than this, and the core was gone.
const LATE: Duration = Duration::from_micros(500);

/// Watches the cores while it lives.
pub(crate) struct Canary {
    stop: Arc<AtomicBool>,
    stalls: Arc<Mutex<Vec<(Instant, Instant)>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Canary {
    /// Watches both cores; `None` where real-time priority is not to be had.
    pub(crate) fn start() -> Option<Self> {
        let (stop, stalls) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default());
        let mut threads = Vec::new();
        let mut ready = true;
        for core in ["0", "1"] {
            let (stop, stalls) = (Arc::clone(&stop), Arc::clone(&stalls));
            let (tell, told) = std::sync::mpsc::channel();
            threads.push(std::thread::spawn(move || {
                let _ = tell.send(thread_id());
                while !stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    std::thread::sleep(NAP);
                    if begin.elapsed() > NAP + LATE {
                        stalls.lock().unwrap().push((begin, Instant::now()));
                    }
                }
            }));
            let thread: String = told.recv().unwrap();
            for command in [["taskset", "-pc", core], ["chrt", "-pf", "50"]] {
                let output = Command::new(command[0]).args(&command[1..]).arg(&thread).output();
                ready &= output.is_ok_and(|output| output.status.success());
            }
        }
        stalls.lock().unwrap().clear();
        let canary = Self { stop, stalls, threads };
        ready.then_some(canary)
    }

    /// When a core was gone, from when to when.
    pub(crate) fn stalls(&self) -> Vec<(Instant, Instant)> {
        self.stalls.lock().unwrap().clone()
    }
}

/// The id of the thread that asks.
fn thread_id() -> String {
    let link = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    link.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}
