//! A PostgreSQL server of the tests: in a temporary directory, on a Unix socket, gone with the last test that uses it.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use sqlx::Connection as _;
use tempfile::TempDir;

use crate::store::{Postgres, PostgresUrl};

/// A user without privileges: the server refuses to run as root.
const NOBODY: u32 = 65_534;
const PATIENCE: Duration = Duration::from_secs(60);

static RUNNING: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static DATABASES: AtomicUsize = AtomicUsize::new(0);

pub(super) struct Server {
    process: Child,
    directory: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::QUIT);
        let _ = self.process.wait();
    }
}

impl Server {
    /// The server of this test run.
    pub(super) fn shared() -> Arc<Self> {
        let mut running = RUNNING.lock();
        if let Some(server) = running.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *running = Arc::downgrade(&server);
        server
    }

    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        if geteuid().is_root() {
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = directory.path().join("data");
        let made = program("initdb", directory.path())
            .args(["-U", "passerelle", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let process = program("postgres", directory.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=100", "-k"])
            .arg(directory.path())
            .arg("-D")
            .arg(&data)
            .spawn()
            .unwrap();
        Self { process, directory }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Stops the main process and everything it has started, or lets them go on.
    pub(super) fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        let children = format!("/proc/{0}/task/{0}/children", self.process.id());
        let children = std::fs::read_to_string(children).unwrap();
        for child in children.split_whitespace() {
            let pid = Pid::from_raw(child.parse().unwrap()).unwrap();
            // One that has just ended needs no signal.
            let _ = kill_process(pid, signal);
        }
        self.signal(signal);
    }

    fn url(&self, database: &str) -> String {
        let socket = self.directory.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://passerelle@{socket}/{database}")
    }

    /// A store in a database of its own.
    pub(super) async fn store(&self) -> Postgres {
        let deadline = Instant::now() + PATIENCE;
        let mut connection = loop {
            match sqlx::PgConnection::connect(&self.url("postgres")).await {
                Ok(connection) => break connection,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(create).execute(&mut connection).await.unwrap();
        Postgres::open(&PostgresUrl::parse(&self.url(&name)).unwrap()).await.unwrap()
    }
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
    if name == "postgres" {
        command.stderr(Stdio::null());
    }
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}
