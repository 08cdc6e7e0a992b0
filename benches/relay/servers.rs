//! The servers under test.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::client::{self, PASSWORD, REALM, USER};
use super::lab::{self, GENERATOR, Lab, RELAY};
use super::measured;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Passerelle,
    Coturn,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Passerelle => "passerelle",
            Self::Coturn => "coturn",
        }
    }
}

/// The version of the installed coturn.
pub(crate) fn coturn_version() -> Option<String> {
    let output = Command::new("turnserver").arg("--version").output().ok()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let version = text.split_whitespace().find(|word| word.contains('.') && word.len() < 12)?;
    Some(version.trim().to_owned())
}

/// A running server.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    child: Child,
    folder: PathBuf,
    process: u32,
    napi: Vec<u32>,
}

impl Server {
    /// Starts it on its core and waits until it answers.
    pub(crate) fn start(kind: Kind, lab: &Lab) -> Self {
        let folder = std::env::temp_dir().join(format!("passerelle-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let address: SocketAddr = format!("{RELAY}:3478").parse().unwrap();
        let log = fs::File::create(folder.join(format!("{}.log", kind.name()))).unwrap();
        let mut command = match kind {
            Kind::Passerelle => passerelle(lab, &folder),
            Kind::Coturn => coturn(lab, &folder),
        };
        command.current_dir(&folder).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !client::answers(address) {
            assert!(Instant::now() < deadline, "{} does not answer; see {}", kind.name(), folder.display());
        }
        // `ip netns exec` and `taskset` become the server: the process keeps its id.
        let process = child.id();
        Self { kind, address, child, folder, process, napi: lab::napi_threads("r0") }
    }

    /// Nanoseconds that its threads and the NAPI thread of its device have run.
    pub(crate) fn run_time(&self) -> u64 {
        measured::run_time(self.process)
            + self.napi.iter().map(|thread| measured::run_time(*thread)).sum::<u64>()
    }

    /// Nanoseconds that its own threads have run.
    pub(crate) fn own_time(&self) -> u64 {
        measured::run_time(self.process)
    }

    /// Bytes of its own.
    pub(crate) fn resident(&self) -> u64 {
        measured::resident(self.process)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn passerelle(lab: &Lab, folder: &Path) -> Command {
    let config = format!(
        "[listen]\nudp = [\"{RELAY}:3478\"]\ntcp = []\nhttp = [\"127.0.0.1:8080\"]\nmetrics = [\"127.0.0.1:9090\"]\n\
         [turn]\nrealm = \"{REALM}\"\nusers = [{{ name = \"{USER}\", password = \"{PASSWORD}\" }}]\n\
         [relay]\naddresses = [\"{RELAY}\"]\nports = \"20000-60000\"\nworkers = 1\nallow_peers = [\"{GENERATOR}/32\"]\n\
         [limits]\nallocations_per_user = 30000\nallocations_per_ip = 30000\nunauthenticated_per_second = 0\n\
         [store]\nurl = \"sqlite::memory:\"\n[log]\nlevel = \"warn\"\n"
    );
    let file = folder.join("passerelle.toml");
    fs::write(&file, config).unwrap();
    let mut command = lab.command(measured::binary().to_str().unwrap());
    command.args(["run", "--config"]).arg(file);
    command
}

/// As it comes, but for what it needs to know.
fn coturn(lab: &Lab, folder: &Path) -> Command {
    let mut command = lab.command("turnserver");
    command.args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--lt-cred-mech", "--no-stdout-log"]);
    command.args(["--listening-ip", RELAY, "--relay-ip", RELAY, "--realm", REALM]);
    command.args(["--min-port", "20000", "--max-port", "60000"]);
    command.args(["--user", &format!("{USER}:{PASSWORD}")]);
    command.arg("--log-file").arg(folder.join("turnserver.log"));
    command.arg("--pidfile").arg(folder.join("turnserver.pid"));
    command.arg("--userdb").arg(folder.join("turndb"));
    command
}
