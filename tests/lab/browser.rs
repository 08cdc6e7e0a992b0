//! A headless Chromium or Firefox on a host of the lab, driven line by line through `tests/js/browser-call.mjs`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::scene::FRAMES;
use super::{Host, Lab};

/// How long one command may take: a browser that starts on a busy machine needs its time.
const PATIENCE: Duration = Duration::from_secs(90);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The driver and its browser; both end with it.
pub(crate) struct Browser {
    driver: Child,
    commands: ChildStdin,
    lines: Receiver<Value>,
    log: PathBuf,
}

impl Browser {
    /// Starts a driver; its browser starts with the command `open`.
    pub(crate) fn start(lab: &Lab, host: Host, scratch: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js/browser-call.mjs");
        assert!(script.with_file_name("node_modules").exists(), "run `npm ci` in tests/js first");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let log = scratch.join(format!("browser-{number}.log"));
        let mut driver = lab
            .command(host, "node")
            .arg(script)
            .arg(scratch.join(format!("profile-{number}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let commands = driver.stdin.take().unwrap();
        let output = BufReader::new(driver.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else { continue };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { driver, commands, lines, log }
    }

    /// Gives a command and waits for its reply.
    ///
    /// # Panics
    /// When the driver reports an error, ends, or takes too long.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> Value {
        writeln!(self.commands, "{command}")
            .unwrap_or_else(|error| panic!("{command}: the driver is gone: {error}"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line["reply"] == command => {
                    assert!(line["error"].is_null(), "{command}: {}", line["error"]);
                    return line;
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("{command}: no reply within {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("{command}: the driver ended"),
            }
        }
    }

    /// Asks for the page's state until it is as wanted.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.ask("state");
            if wanted(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}; last seen: {state}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Calls, and the other one accepts.
    #[track_caller]
    pub(crate) fn rings(&mut self, other: &mut Self) {
        self.ask("call");
        other.wait_for("the call rings", |state| state["state"] == "ringing");
        other.ask("accept");
    }

    /// Video frames decoded so far, of everyone together.
    #[track_caller]
    pub(crate) fn frames(&mut self) -> u64 {
        self.ask("state")["framesDecoded"].as_u64().unwrap_or(0)
    }

    /// Waits until that many video frames were decoded.
    #[track_caller]
    pub(crate) fn wait_for_frames(&mut self, count: u64) {
        self.wait_for(&format!("{count} frames decoded"), |state| {
            state["framesDecoded"].as_u64() >= Some(count)
        });
    }

    /// Waits for a few more seconds of video.
    #[track_caller]
    pub(crate) fn goes_on_seeing(&mut self) {
        let seen = self.frames();
        self.wait_for_frames(seen + FRAMES);
    }

    /// Fetches a URL from this host; the body of a 200, `None` for anything else.
    #[track_caller]
    pub(crate) fn fetch(&mut self, url: &str) -> Option<String> {
        let reply = self.ask(&format!("get {url}"));
        (reply["status"] == 200).then(|| reply["body"].as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- {}\n{log}", self.log.display());
        }
        let _ = writeln!(self.commands, "quit");
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.driver.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
