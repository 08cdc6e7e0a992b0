//! The main job: two browsers, each behind a router of its own, in a call whose signaling, STUN and relay are one
//! process. A cell for each kind of router, and in each the path that theory asks for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and tells why"
)]

mod lab;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lab::browser::Browser;
use lab::{Host, Lab, Nat, SERVER};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{Connection as _, Row as _, SqliteConnection};

const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN_SECRET: &str = "another secret of a laboratory, longer than 32";
/// Frames that both sides decode before and during the measurement: a few seconds of video.
const FRAMES: u64 = 45;

#[test]
fn two_browsers_with_public_addresses_talk_host_to_host() {
    let path = |local: &str, remote: &str| local == "host" && remote == "host";
    call_through(Nat::None, "direct", path);
}

#[test]
fn two_browsers_behind_port_preserving_nat_talk_through_addresses_found_by_stun() {
    let found = |kind: &str| matches!(kind, "srflx" | "prflx");
    call_through(Nat::PortPreserving, "stun", |local, remote| {
        (found(local) || found(remote)) && local != "relay" && remote != "relay"
    });
}

#[test]
fn two_browsers_behind_symmetric_nat_talk_through_the_relay() {
    call_through(Nat::Symmetric, "relay", |local, remote| local == "relay" || remote == "relay");
}

#[test]
fn a_call_outlives_a_lost_signaling_connection() {
    let _turn = one_cell_at_a_time();
    let scratch = tempfile::tempdir().unwrap();
    let lab = Lab::new(Nat::None);
    let mut server = Server::start(&lab, scratch.path());
    let mut ana = Browser::start(&lab, Host::A, scratch.path());
    let mut bruno = Browser::start(&lab, Host::B, scratch.path());
    server.wait_until_ready(&mut ana);

    ana.ask(&format!("open http://{SERVER}:8080/ Ana blue token={}", token("ana")));
    bruno.ask(&format!("open http://{SERVER}:8080/ Bruno blue token={}", token("bruno")));
    ring_and_answer(&mut ana, &mut bruno);
    for browser in [&mut ana, &mut bruno] {
        browser.wait_for("connected", |state| state["state"] == "connected");
    }
    wait_for_frames(&mut ana, FRAMES);

    ana.ask("drop");
    ana.wait_for("back on the server", |state| state["server"] == "ready");
    let seen = frames(&mut ana);
    assert!(seen >= FRAMES, "media started over: {seen} frames");
    wait_for_frames(&mut ana, seen + FRAMES);
    assert_eq!(ana.ask("state")["state"], "connected");

    ana.ask("hangup");
    bruno.wait_for("hung up", |state| state["state"] == "idle" && state["lastEnd"] == "completed");
    the_record_is_complete(&server.database);
    let query = "SELECT reconnects FROM call_participants WHERE user_id = 'ana'";
    let reconnects: i64 = row(&server.database, query).unwrap().get("reconnects");
    assert_eq!(reconnects, 1);
}

#[test]
fn a_lab_takes_everything_with_it_even_when_a_test_fails() {
    let (tell, told) = std::sync::mpsc::channel();
    let failing = std::thread::spawn(move || {
        let lab = Lab::new(Nat::Symmetric);
        let mut left_behind = lab.command(Host::A, "sleep").arg("1000").spawn().unwrap();
        tell.send(lab.name().to_owned()).unwrap();
        let lab = Some(lab);
        let failure = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _lab = lab;
            std::panic::resume_unwind(Box::new("as a failed assertion would"));
        }));
        assert!(failure.is_err());
        left_behind.wait().unwrap()
    });
    let name = told.recv().unwrap();
    assert!(!failing.join().unwrap().success(), "a program outlived its network");
    assert!(!lab::namespaces().iter().any(|namespace| namespace.starts_with(&format!("{name}-"))));
}

/// Makes a call in one cell, and checks what the browsers, the metrics and the record say about it.
fn call_through(nat: Nat, path: &str, fits: impl Fn(&str, &str) -> bool) {
    let _turn = one_cell_at_a_time();
    let scratch = tempfile::tempdir().unwrap();
    let lab = Lab::new(nat);
    let mut server = Server::start(&lab, scratch.path());
    let mut ana = Browser::start(&lab, Host::A, scratch.path());
    let mut bruno = Browser::start(&lab, Host::B, scratch.path());
    server.wait_until_ready(&mut ana);

    ana.ask(&format!("open http://{SERVER}:8080/ Ana blue"));
    bruno.ask(&format!("open http://{SERVER}:8080/ Bruno blue"));
    ring_and_answer(&mut ana, &mut bruno);
    for browser in [&mut ana, &mut bruno] {
        let state = browser.wait_for("connected on the expected path", |state| {
            state["state"] == "connected"
                && state["path"] == path
                && !text(state, "remoteCandidate").is_empty()
        });
        let (local, remote) = (text(&state, "localCandidate"), text(&state, "remoteCandidate"));
        assert!(fits(&local, &remote), "{nat:?}: the selected pair is {local} to {remote}");
    }
    media_flows_where_it_should(&mut ana, &mut bruno, path);

    ana.ask("hangup");
    for browser in [&mut ana, &mut bruno] {
        browser.wait_for("hung up", |state| state["state"] == "idle" && state["lastEnd"] == "completed");
    }
    no_allocation_is_left(&mut ana);
    the_record_is_complete(&server.database);
    let metrics = Metrics::scrape(&mut ana);
    assert!(metrics.sum("passerelle_stun_requests_total") > 0.0);
    assert_eq!(metrics.sum("passerelle_calls_started_total"), 1.0);
    assert_eq!(metrics.sum("passerelle_calls_ended_total"), 1.0);
}

fn ring_and_answer(ana: &mut Browser, bruno: &mut Browser) {
    ana.ask("call");
    bruno.wait_for("the call rings", |state| state["state"] == "ringing");
    bruno.ask("accept");
}

/// Both sides decode video, and its bytes pass through the relay exactly when the path is `relay`. Connectivity checks
/// of candidate pairs that lost are relayed in every cell, so the measure is the growth next to the growth of media.
fn media_flows_where_it_should(ana: &mut Browser, bruno: &mut Browser, path: &str) {
    wait_for_frames(ana, FRAMES);
    wait_for_frames(bruno, FRAMES);
    let (media, relayed) = (media_bytes(ana), relay_bytes(ana));
    let (seen_by_ana, seen_by_bruno) = (frames(ana), frames(bruno));
    wait_for_frames(ana, seen_by_ana + FRAMES);
    wait_for_frames(bruno, seen_by_bruno + FRAMES);
    let relayed = relay_bytes(ana) - relayed;
    let media = media_bytes(ana) - media;
    let share = relayed / media;
    assert!(media > 0.0, "no media between two measurements");
    if path == "relay" {
        assert!(share > 0.5, "{relayed} bytes relayed while the browsers exchanged {media}");
    } else {
        assert!(
            share < 0.05,
            "{relayed} bytes relayed while the browsers exchanged {media} on a {path} path"
        );
    }
}

fn frames(browser: &mut Browser) -> u64 {
    browser.ask("state")["framesDecoded"].as_u64().unwrap_or(0)
}

#[track_caller]
fn wait_for_frames(browser: &mut Browser, count: u64) {
    browser
        .wait_for(&format!("{count} frames decoded"), |state| state["framesDecoded"].as_u64() >= Some(count));
}

/// Bytes on the selected pair, both ways.
fn media_bytes(browser: &mut Browser) -> f64 {
    let stats = browser.ask("stats");
    let peer = stats["peers"].as_object().and_then(|peers| peers.values().next()).expect("one peer");
    peer["bytesSent"].as_f64().unwrap() + peer["bytesReceived"].as_f64().unwrap()
}

fn relay_bytes(browser: &mut Browser) -> f64 {
    Metrics::scrape(browser).sum("passerelle_relay_bytes_total")
}

fn no_allocation_is_left(browser: &mut Browser) {
    eventually("no allocation is left", || {
        (Metrics::scrape(browser).sum("passerelle_turn_allocations") == 0.0).then_some(())
    });
}

fn the_record_is_complete(database: &Path) {
    let query = "SELECT status, duration_s, participants_peak FROM calls WHERE ended_at IS NOT NULL";
    let row = eventually("the record has its end", || row(database, query));
    assert_eq!(row.get::<String, _>("status"), "completed");
    let duration: i64 = row.get("duration_s");
    assert!((1..600).contains(&duration), "a call of some seconds lasted {duration} s by its record");
    assert_eq!(row.get::<i64, _>("participants_peak"), 2);
}

/// The first row of a query; `None` while there is none, or no database yet.
fn row(database: &Path, query: &'static str) -> Option<SqliteRow> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = SqliteConnectOptions::new().filename(database);
    runtime.block_on(async {
        let mut connection = SqliteConnection::connect_with(&options).await.ok()?;
        let row = sqlx::query(query).fetch_optional(&mut connection).await.ok().flatten();
        connection.close().await.ok()?;
        row
    })
}

/// Two browsers are enough for one machine.
fn one_cell_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(state: &Value, field: &str) -> String {
    state[field].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A scrape, as text.
struct Metrics(String);

impl Metrics {
    fn scrape(browser: &mut Browser) -> Self {
        Self(browser.fetch(&format!("http://{SERVER}:9090/metrics")).expect("metrics answer"))
    }

    /// The sum over all series of a metric.
    fn sum(&self, name: &str) -> f64 {
        let series = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let values =
            series.filter(|rest| rest.starts_with(['{', ' '])).filter_map(|rest| rest.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }
}

/// The real program in the middle of the lab. Its ports are fixed: nobody else lives in that namespace.
struct Server {
    program: Child,
    log: PathBuf,
    database: PathBuf,
}

impl Server {
    fn start(lab: &Lab, scratch: &Path) -> Self {
        let (config, log, database) =
            (scratch.join("passerelle.toml"), scratch.join("server.log"), scratch.join("calls.db"));
        std::fs::write(&config, configuration(&database)).unwrap();
        let program = lab
            .command(Host::Server, env!("CARGO_BIN_EXE_passerelle"))
            .args(["run", "--config"])
            .arg(&config)
            .current_dir(scratch)
            .stdin(Stdio::null())
            .stdout(File::create(&log).unwrap())
            .stderr(File::create(scratch.join("server.err")).unwrap())
            .spawn()
            .unwrap();
        Self { program, log, database }
    }

    fn wait_until_ready(&mut self, from: &mut Browser) {
        eventually("the server is ready", || {
            let ended = self.program.try_wait().unwrap();
            assert!(ended.is_none(), "the server ended early: {ended:?}");
            from.fetch(&format!("http://{SERVER}:8080/readyz"))
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
        if std::thread::panicking() {
            for log in [self.log.clone(), self.log.with_extension("err")] {
                eprintln!("--- {}\n{}", log.display(), std::fs::read_to_string(&log).unwrap_or_default());
            }
        }
    }
}

/// A token that the server accepts.
fn token(user: &str) -> String {
    let expires =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 3600;
    let claims = serde_json::json!({ "sub": user, "exp": expires });
    let key = jsonwebtoken::EncodingKey::from_secret(TOKEN_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

fn configuration(database: &Path) -> String {
    format!(
        r#"
[listen]
udp = ["{SERVER}:3478"]
tcp = []
http = ["{SERVER}:8080"]
metrics = ["{SERVER}:9090"]
[public]
hosts = ["{SERVER}"]
[turn]
secrets = ["a secret of a laboratory, longer than 32 bytes"]
[relay]
addresses = ["{SERVER}"]
[auth]
anonymous = "any"
anonymous_in_public = true
[auth.jwt]
secret = "{TOKEN_SECRET}"
[store]
url = "sqlite:{}"
"#,
        database.display()
    )
}
