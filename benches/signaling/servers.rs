//! The servers under test, each a process of its own on a core of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use serde_json::Value;

use super::machine;
use super::measured;

/// Key of the tokens.
pub(crate) const TOKEN_SECRET: &str = "a token secret that is long enough for everyone";
/// The core of the server.
const SERVER_CORE: &str = "1";

/// Which server, and how its clients talk to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// This server, plain WebSocket.
    WebSocket,
    /// This server, Socket.IO over a WebSocket.
    SocketIo,
    /// The stock Socket.IO server on Node.
    Node,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::WebSocket, Self::SocketIo, Self::Node];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::SocketIo => "socketio",
            Self::Node => "node",
        }
    }
}

/// Why the comparison cannot run.
pub(crate) fn node_missing() -> Option<String> {
    if !gateway().with_file_name("node_modules/socket.io").exists() {
        return Some("Socket.IO for Node is not installed: make install".into());
    }
    let found = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    (!found).then(|| "node is not installed".into())
}

/// `v20.1.2` of Node and `4.8.1` of the `socket.io` package.
pub(crate) fn node_versions() -> (String, String) {
    let node = Command::new("node").arg("--version").output().unwrap();
    let package = gateway().with_file_name("node_modules/socket.io/package.json");
    let package: Value =
        serde_json::from_str(&fs::read_to_string(package).unwrap_or_default()).unwrap_or_default();
    let version = package["version"].as_str().unwrap_or_default().to_owned();
    (String::from_utf8_lossy(&node.stdout).trim().to_owned(), version)
}

fn gateway() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js/socketio-gateway.mjs")
}

/// A running server.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    child: Child,
    folder: PathBuf,
}

impl Server {
    /// Starts it on its core and waits until it listens. `config` is added to this server's configuration.
    pub(crate) fn start(kind: Kind, config: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("passerelle-signaling-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE]);
        match kind {
            Kind::WebSocket | Kind::SocketIo => {
                let file = folder.join("passerelle.toml");
                fs::write(&file, format!("{BASE}{config}")).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
                command.arg(measured::binary()).args(["run", "--config"]).arg(file);
            }
            Kind::Node => {
                command.args(["node", "--expose-gc"]).arg(gateway()).arg(TOKEN_SECRET);
            }
        }
        command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (found, address) = channel();
        listen_to(out, found.clone());
        listen_to(err, found);
        let address = address.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("{} does not start", kind.name())
        });
        // `taskset` becomes the server: the process keeps its id.
        Self { kind, address, child, folder }
    }

    /// Nanoseconds that its threads have run.
    pub(crate) fn run_time(&self) -> u64 {
        measured::run_time(self.child.id())
    }

    /// Puts it before whatever else runs here. Of Node that is the thread that does the work: its helpers would come before
    /// it too often.
    pub(crate) fn prefer(&self) {
        machine::real_time(self.child.id(), self.kind != Kind::Node, true);
    }

    /// Bytes of its own, after Node has been asked to collect its garbage.
    pub(crate) fn resident(&self) -> u64 {
        if self.kind == Kind::Node {
            let _ = Command::new("kill").args(["-USR2", &self.child.id().to_string()]).status();
            std::thread::sleep(Duration::from_secs(1));
        }
        measured::resident(self.child.id())
    }
}

/// Reads what a server says to its end, so that it never waits for a reader: where it listens, and what is wrong.
fn listen_to(pipe: impl Read + Send + 'static, found: Sender<SocketAddr>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let said: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = listening(&said) {
                let _ = found.send(address);
            } else if said["level"] != "INFO" {
                eprintln!("{line}");
            }
        }
    });
}

/// The address in the line that says where HTTP is served.
fn listening(said: &Value) -> Option<SocketAddr> {
    (said["listener"] == "http").then(|| said["address"].as_str()?.parse().ok()).flatten()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// As it comes, but for where it listens and whose tokens it takes. The relay idles.
const BASE: &str = r#"
[listen]
udp = ["127.0.0.1:0"]
tcp = []
http = ["127.0.0.1:0"]
metrics = ["127.0.0.1:0"]
[turn]
secrets = ["a shared secret that is long enough for everyone"]
[relay]
addresses = ["127.0.0.1"]
workers = 1
[auth.jwt]
secret = "a token secret that is long enough for everyone"
[log]
format = "json"
level = "warn,passerelle::app=info"
"#;
