//! The real binary as a child process.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, eventually, http_get};

/// What every test starts from; a test writes only what differs. Peers live on 127.0.0.2, so that the server's own
/// address needs no exception.
const BASE: &str = r#"
[listen]
udp = ["127.0.0.1:0"]
tcp = []
http = ["127.0.0.1:0"]
metrics = ["127.0.0.1:0"]
[turn]
realm = "passerelle.test"
secrets = ["a shared secret that is long enough for everyone"]
users = [
    { name = "alice", password = "correct horse battery staple" },
    { name = "bob", password = "another horse altogether here" },
]
[relay]
addresses = ["127.0.0.1"]
workers = 2
[auth.jwt]
secret = "a token secret that is long enough for everyone"
[store]
url = "sqlite::memory:"
[log]
format = "json"
level = "info,passerelle=debug"
[drain]
timeout = "1s"
"#;

/// Realm of [`BASE`].
pub const REALM: &str = "passerelle.test";
/// Shared secret of [`BASE`].
pub const SECRET: &str = "a shared secret that is long enough for everyone";
/// HS256 key of [`BASE`].
pub const TOKEN_SECRET: &str = "a token secret that is long enough for everyone";
/// Static users of [`BASE`] and their passwords.
pub const ALICE: (&str, &str) = ("alice", "correct horse battery staple");
/// The other one.
pub const BOB: (&str, &str) = ("bob", "another horse altogether here");
/// Added to [`BASE`] by tests whose peers are on loopback.
pub const LOOPBACK_PEERS: &str = "[relay]\nallow_peers = [\"127.0.0.0/8\"]\n";

/// A running server. Killed when it is dropped; its log is printed when the test failed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: Log,
    readers: Vec<JoinHandle<()>>,
    folder: TempDir,
    /// STUN and TURN over UDP, in the order of `listen.udp`.
    pub udp: Vec<SocketAddr>,
    /// TURN over TCP, in the order of `listen.tcp`.
    pub tcp: Vec<SocketAddr>,
    /// TURN over TLS, in the order of `listen.tls`.
    pub tls: Vec<SocketAddr>,
    /// Signaling, REST, pages, health.
    pub http: SocketAddr,
    /// Prometheus.
    pub metrics: SocketAddr,
}

impl Server {
    /// Starts the binary with [`BASE`] and `config` (TOML) over it, and waits until `/readyz` says 200.
    ///
    /// Tables are merged key by key; any other value replaces the base's.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::launch(&[config], &[], &[])
    }

    /// [`Server::start`] with several configurations, each over those before it.
    #[track_caller]
    pub fn start_with(configs: &[&str]) -> Self {
        Self::launch(configs, &[], &[])
    }

    /// [`Server::start`] with variables of the environment.
    #[track_caller]
    pub fn start_in(config: &str, environment: &[(&str, &str)]) -> Self {
        Self::launch(&[config], &[], environment)
    }

    /// [`Server::start_with`] under another program, such as `prlimit --nofile=64`.
    #[track_caller]
    pub fn start_under(under: &[&str], configs: &[&str]) -> Self {
        Self::launch(configs, under, &[])
    }

    #[track_caller]
    fn launch(configs: &[&str], under: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let config = merged(configs);
        let wanted =
            |name: &str| config["listen"].get(name).and_then(toml::Value::as_array).map_or(0, Vec::len);
        let (mut child, log, readers) = spawn(&folder, &config, under, environment);
        let mut ready_since: Option<Instant> = None;
        let addresses = eventually("every listener logs its address", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server stopped at its start ({status}):\n{}", log.text());
            }
            let bound = log.listeners();
            let all = ["udp", "tcp", "tls", "http", "metrics"]
                .iter()
                .all(|name| bound.get(*name).map_or(0, Vec::len) >= wanted(name));
            let http = bound.get("http").and_then(|list| list.first());
            if !all && http.is_some_and(|address| is_ready(*address)) {
                // Its log may be a little behind, but not for long.
                let since = *ready_since.get_or_insert_with(Instant::now);
                assert!(
                    since.elapsed().as_secs() < 3,
                    "ready with these listeners only: {bound:?}\n{}",
                    log.text()
                );
            }
            all.then_some(bound)
        });
        let only = |name: &str| {
            addresses
                .get(name)
                .and_then(|list| list.first())
                .copied()
                .unwrap_or_else(|| ([0, 0, 0, 0], 0).into())
        };
        let server = Self {
            http: only("http"),
            metrics: only("metrics"),
            udp: addresses.get("udp").cloned().unwrap_or_default(),
            tcp: addresses.get("tcp").cloned().unwrap_or_default(),
            tls: addresses.get("tls").cloned().unwrap_or_default(),
            child,
            log,
            readers,
            folder,
        };
        eventually("/readyz says 200", || is_ready(server.http).then_some(()));
        server
    }

    /// Starts the binary with a configuration it must refuse; gives what it wrote.
    #[track_caller]
    pub fn refused(config: &str) -> String {
        let folder = TempDir::new().unwrap();
        let (mut child, log, readers) = spawn(&folder, &merged(&[config]), &[], &[]);
        let status = wait(&mut child, "the server refuses its configuration");
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert!(!status.success(), "the server accepted {config}:\n{}", log.text());
        log.text()
    }

    /// The one UDP listener of [`BASE`].
    pub fn turn(&self) -> SocketAddr {
        *self.udp.first().expect("no UDP listener")
    }

    /// A scrape of `/metrics`.
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        let (status, body) = http_get::get(self.metrics, "/metrics").unwrap();
        assert_eq!(status, 200);
        Scrape::parse(&body)
    }

    /// Scrapes until the sum over the samples of `name` with these labels is `value`: counters of the relay are
    /// published a little after the packet.
    #[track_caller]
    pub fn await_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut last = 0.0;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            last = self.scrape().sum(name, labels);
            if last == value {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{name}{labels:?} stays at {last}, not {value}");
    }

    /// Everything the server has written so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Where its database and configuration are.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends a signal by name (`TERM`, `HUP`).
    pub fn signal(&self, name: &str) {
        // `kill` and not libc: the crate's tests write no unsafe code either.
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Writes another configuration, [`BASE`] and `config` over it, in one step.
    pub fn configure(&self, config: &str) {
        write(&self.folder, &merged(&[config]));
    }

    /// Writes another configuration and sends SIGHUP; gives what the server logs until it has applied or refused it.
    #[track_caller]
    pub fn reload(&self, config: &str) -> String {
        self.configure(config);
        let before = self.log().lines().count();
        self.signal("HUP");
        eventually("the server says what came of the reload", || {
            let log = self.log();
            let mut new = log.lines().skip(before);
            new.any(|line| {
                line.contains("configuration reloaded") || line.contains("configuration not reloaded")
            })
            .then(|| log.lines().skip(before).collect::<Vec<_>>().join("\n"))
        })
    }

    /// [`Self::reload`], which must be applied.
    #[track_caller]
    pub fn reloaded(&self, config: &str) -> String {
        let said = self.reload(config);
        assert!(said.contains("configuration reloaded"), "{said}");
        said
    }

    /// [`Self::reload`], which must be refused.
    #[track_caller]
    pub fn not_reloaded(&self, config: &str) -> String {
        let said = self.reload(config);
        assert!(said.contains("configuration not reloaded: the old one stays in use"), "{said}");
        said
    }

    /// Asks it to stop and asserts that it does, with exit code 0. Gives its whole log.
    #[track_caller]
    pub fn stop(self) -> String {
        self.signal("TERM");
        self.stopped()
    }

    /// Asserts that it stops, after a signal that was sent before, with exit code 0. Gives its whole log.
    #[track_caller]
    pub fn stopped(mut self) -> String {
        let status = wait(&mut self.child, "the server stops after SIGTERM");
        std::mem::take(&mut self.readers).into_iter().for_each(|reader| reader.join().unwrap());
        assert!(status.success(), "the server stopped with {status}:\n{}", self.log.text());
        self.log.text()
    }
}

impl Drop for Server {
    #[allow(clippy::print_stderr, reason = "the log belongs to the report of a failed test")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log.text();
            let tail: Vec<&str> = log.lines().rev().take(80).collect();
            eprintln!("--- the end of the server's log ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

fn is_ready(http: SocketAddr) -> bool {
    http_get::get(http, "/readyz").is_ok_and(|(status, _)| status == 200)
}

fn merged(configs: &[&str]) -> toml::Table {
    let mut base: toml::Table = BASE.parse().unwrap();
    if std::env::var_os("TEST_WITHOUT_SEGMENTATION").is_some() {
        merge(&mut base, "relay.segmentation = false".parse().unwrap());
    }
    for config in configs {
        merge(&mut base, config.parse().unwrap());
    }
    base
}

fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Writes the configuration file, never half of it: a running server may read it at any time.
fn write(folder: &TempDir, config: &toml::Table) -> std::path::PathBuf {
    let (new, file) = (folder.path().join("new.toml"), folder.path().join("passerelle.toml"));
    std::fs::write(&new, config.to_string()).unwrap();
    // It holds secrets.
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&new, &file).unwrap();
    file
}

fn spawn(
    folder: &TempDir,
    config: &toml::Table,
    under: &[&str],
    environment: &[(&str, &str)],
) -> (Child, Log, Vec<JoinHandle<()>>) {
    let file = write(folder, config);
    let program = env!("CARGO_BIN_EXE_passerelle");
    let mut words = under.iter().copied().chain([program]);
    let mut command = Command::new(words.next().unwrap_or(program));
    command.args(words);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PASSERELLE__")) {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    command.args(["run", "--config"]).arg(&file).current_dir(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let log = Log::default();
    let readers = vec![
        log.follow(child.stdout.take().expect("stdout is piped")),
        log.follow(child.stderr.take().expect("stderr is piped")),
    ];
    (child, log, readers)
}

#[track_caller]
fn wait(child: &mut Child, what: &str) -> ExitStatus {
    eventually(what, || child.try_wait().unwrap())
}

/// The lines of both output streams.
#[derive(Debug, Default, Clone)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn follow(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = Arc::clone(&self.0);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        })
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    /// Listener name → addresses, from the `listening` messages.
    fn listeners(&self) -> BTreeMap<String, Vec<SocketAddr>> {
        let mut bound: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
        for line in self.0.lock().unwrap().iter() {
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            let fields = event.get("fields").unwrap_or(&event);
            let field = |name: &str| fields.get(name).and_then(Value::as_str);
            if field("message") == Some("listening")
                && let (Some(name), Some(Ok(address))) =
                    (field("listener"), field("address").map(str::parse::<SocketAddr>))
            {
                bound.entry(name.to_owned()).or_default().push(address);
            }
        }
        bound
    }
}

/// One reading of all metrics.
#[derive(Debug)]
pub struct Scrape(Vec<(String, BTreeMap<String, String>, f64)>);

impl Scrape {
    /// Reads the text exposition format.
    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels
                .trim_end_matches('}')
                .split("\",")
                .filter_map(|pair| pair.split_once("=\""))
                .map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned()))
                .collect();
            (name.to_owned(), labels, value.parse().unwrap())
        });
        Self(samples.collect())
    }

    /// The sum of the samples of `name` that carry all of `labels`; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |sample: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| sample.get(*key).is_some_and(|found| found == value))
        };
        self.0
            .iter()
            .filter(|(found, sample, _)| found == name && matches(sample))
            .map(|(.., value)| value)
            .sum()
    }

    /// Every name there is.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, ..)| name.as_str())
    }
}
