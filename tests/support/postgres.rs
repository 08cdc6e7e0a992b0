//! A PostgreSQL server that a test starts and stops as it likes: in a folder of its own, on a Unix socket.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::eventually;

/// A user without privileges: the server refuses to run as root.
const NOBODY: u32 = 65_534;

/// The server and its data. Stopped when it is dropped.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    process: Option<Child>,
}

impl Postgres {
    /// Makes the data of a server that does not run yet.
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let made = program("initdb", folder.path())
            .args(["-U", "passerelle", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(folder.path().join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { folder, process: None }
    }

    /// Starts the server; returns before it accepts connections.
    pub fn start(&mut self) {
        let process = program("postgres", self.folder.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
            .arg(self.folder.path())
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    /// Stops it at once.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = Command::new("kill").args(["-s", "QUIT", &process.id().to_string()]).status();
            eventually("PostgreSQL stops", || process.try_wait().unwrap());
        }
    }

    /// Whether it accepts connections.
    pub fn accepts(&self) -> bool {
        let mut asked = program("pg_isready", self.folder.path());
        asked.arg("-h").arg(self.folder.path()).stderr(Stdio::null());
        asked.status().is_ok_and(|status| status.success())
    }

    /// The section of the configuration.
    pub fn config(&self) -> String {
        let socket = self.folder.path().to_str().unwrap().replace('/', "%2F");
        format!("[store]\nurl = \"postgres://passerelle@{socket}/postgres\"\n")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// A program of the newest PostgreSQL of this machine, run by somebody without privileges.
fn program(name: &str, directory: &Path) -> Command {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is missing: run tests/install.sh")
        .map(|entry| entry.unwrap().path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    versions.sort();
    let mut command = Command::new(versions.pop().expect("PostgreSQL is missing: run tests/install.sh"));
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}
