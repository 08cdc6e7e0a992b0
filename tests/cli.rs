//! The command line, as an operator uses it: output, errors and exit codes of the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const LONG: Duration = Duration::from_secs(60);

fn passerelle(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_passerelle"));
    command.args(arguments);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PASSERELLE__"))
    {
        command.env_remove(name);
    }
    command
}

fn output(arguments: &[&str]) -> Output {
    passerelle(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A file whose listeners take free ports.
fn file(more: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("passerelle.toml");
    let text = format!(
        "turn.secrets = [\"{SECRET}\"]\nrelay.addresses = [\"127.0.0.1\"]\nstore.url = \"sqlite::memory:\"\n{more}\n\
         [listen]\nudp = [\"127.0.0.1:0\"]\ntcp = []\nhttp = [\"127.0.0.1:0\"]\nmetrics = [\"127.0.0.1:0\"]\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (directory, path)
}

#[test]
fn version_names_the_program() {
    let shown = output(&["version"]);
    assert!(shown.status.success());
    assert!(text(&shown.stdout).starts_with(concat!("passerelle ", env!("CARGO_PKG_VERSION"), " (")));
}

#[test]
fn a_wrong_argument_exits_with_2() {
    assert_eq!(output(&["--nonsense"]).status.code(), Some(2));
    assert_eq!(output(&["credentials", "--user", "a:b"]).status.code(), Some(2));
}

#[test]
fn check_config_accepts_a_good_file_and_starts_nothing() {
    let (_directory, path) = file("");
    let checked = output(&["check-config", "--config", path.to_str().unwrap()]);
    assert_eq!((checked.status.code(), text(&checked.stderr)), (Some(0), String::new()));
    assert_eq!(text(&checked.stdout), "the configuration is good\n");
}

#[test]
fn a_wrong_file_exits_with_2_and_every_problem_on_its_line() {
    let (_directory, path) = file("log.level = \"info,=x=\"\nrelay.deny_peers = [\"10.0.0.0/33\"]");
    let name = path.to_str().unwrap();
    for arguments in
        [&["check-config", "--config", name][..], &["run", "--config", name], &["--config", name]]
    {
        let refused = output(arguments);
        let errors = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{errors}");
        assert!(errors.contains(&format!("{name}:4: log.level: ")), "{errors}");
        let network = "relay.deny_peers[0]: \"10.0.0.0/33\" is no network: write it like 10.0.0.0/8";
        assert!(errors.contains(&format!("{name}:5: {network}")), "{errors}");
        assert_eq!(errors.lines().count(), 2, "{errors}");
    }
}

#[test]
fn a_wrong_flag_or_variable_is_named() {
    let (_directory, path) = file("");
    let name = path.to_str().unwrap();
    let refused = output(&["--config", name, "--http", "8080"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).starts_with("--http: listen.http[0]: \"8080\" is no socket address"));
    let refused =
        passerelle(&["check-config", "--config", name]).env("PASSERELLE__LOG__LEVLE", "x").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).starts_with("PASSERELLE__LOG__LEVLE: log.levle: there is no such key"));
}

#[test]
fn credentials_are_turn_rest_credentials_with_ready_ice_servers() {
    let (_directory, path) = file("public.hosts = [\"turn.example.org\"]");
    let name = path.to_str().unwrap();
    let shown = output(&["credentials", "--user", "alice", "--ttl", "2h", "--config", name]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let json: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let username = json["username"].as_str().unwrap();
    let (expires, user) = username.split_once(':').unwrap();
    let left = expires.parse::<i64>().unwrap() - jiff::Timestamp::now().as_second();
    assert_eq!(user, "alice");
    assert!((7000..=7200).contains(&left), "{left}");
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(username.as_bytes());
    let password = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(json["credential"], password);
    assert_eq!(json["ttl"], 7200);
    assert_eq!(json["iceServers"][0]["urls"][0], "stun:turn.example.org:0");
    let turn = &json["iceServers"][1];
    assert_eq!(turn["urls"][0], "turn:turn.example.org:0?transport=udp");
    assert_eq!((&turn["username"], &turn["credential"]), (&json["username"], &json["credential"]));
}

#[test]
fn credentials_need_the_secret_of_a_server() {
    let refused = output(&["credentials", "--user", "alice"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("name the file it runs with"));
}

/// A running server; ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn start(path: &std::path::Path) -> Self {
        let mut command = passerelle(&["--config", path.to_str().unwrap()]);
        Self(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Log lines up to and including the one whose message is `message`.
    fn lines_until(&mut self, message: &str) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        for line in BufReader::new(self.0.stderr.as_mut().unwrap()).lines() {
            let line = line.unwrap();
            let value: serde_json::Value =
                serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            lines.push(value);
            if lines.last().unwrap()["message"] == message {
                return lines;
            }
        }
        panic!("{message:?} is not among {lines:#?}");
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn every_listener_logs_its_address_and_a_signal_ends_the_server_in_order() {
    for signal in ["TERM", "INT"] {
        let (_directory, path) = file("");
        let mut server = Server::start(&path);
        let lines = server.lines_until("ready");
        for listener in ["http", "metrics"] {
            let line =
                lines.iter().find(|line| line["listener"] == listener && line["message"] == "listening");
            let address =
                line.unwrap_or_else(|| panic!("{listener}: {lines:#?}"))["address"].as_str().unwrap();
            let address: std::net::SocketAddr = address.parse().unwrap();
            assert_ne!(address.port(), 0);
            std::net::TcpStream::connect(address).unwrap();
        }
        server.signal(signal);
        let mut rest = String::new();
        server.0.stderr.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        assert_eq!(server.exit_code(), Some(0), "{rest}");
    }
}

#[test]
fn a_taken_port_is_an_error_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (_directory, path) = file("");
    let refused = output(&["--config", path.to_str().unwrap(), "--http", &address]);
    assert_eq!(refused.status.code(), Some(1));
    let errors = text(&refused.stderr);
    assert!(errors.contains(&format!("listen.http: cannot listen on {address}")), "{errors}");
}

#[test]
fn a_database_that_cannot_be_opened_is_an_error_with_its_key() {
    let (_directory, path) = file("");
    let refused = passerelle(&["--config", path.to_str().unwrap()])
        .env("PASSERELLE__STORE__URL", "sqlite:/nowhere/calls.db")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("store.url: "), "{}", text(&refused.stderr));
}
