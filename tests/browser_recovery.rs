//! Calls that survive what happens to calls: a lost connection, a new address, a killed server. And calls of three, and
//! between two kinds of browsers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and tells why"
)]

mod lab;

use lab::browser::Browser;
use lab::server::{Metrics, Server, eventually, row, token};
use lab::{Host, Lab, Nat, SERVER, one_at_a_time};
use serde_json::Value;
use sqlx::Row as _;

/// A few seconds of video.
const FRAMES: u64 = 45;

/// A running call of Ana and Bruno.
struct Scene {
    ana: Browser,
    bruno: Browser,
    server: Server,
    lab: Lab,
    scratch: tempfile::TempDir,
}

impl Scene {
    /// `extra`: what else Bruno's browser is opened with.
    fn start(nat: Nat, extra: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let lab = Lab::new(nat);
        let mut server = Server::start(&lab, scratch.path());
        let mut ana = Browser::start(&lab, Host::A, scratch.path());
        let mut bruno = Browser::start(&lab, Host::B, scratch.path());
        server.wait_until_ready(&mut ana);
        ana.ask(&format!("open http://{SERVER}:8080/ Ana blue token={}", token("ana")));
        bruno.ask(format!("open http://{SERVER}:8080/ Bruno blue token={} {extra}", token("bruno")).trim());
        ana.rings(&mut bruno);
        for browser in [&mut ana, &mut bruno] {
            browser.wait_for("connected", connected);
            browser.wait_for_frames(FRAMES);
        }
        Self { ana, bruno, server, lab, scratch }
    }

    /// Both sides see and hear each other from now on.
    #[track_caller]
    fn media_goes_on(&mut self) {
        for browser in [&mut self.ana, &mut self.bruno] {
            let seen = browser.frames();
            browser.wait_for_frames(seen + FRAMES);
            browser.wait_for("connected", connected);
        }
    }

    /// Ana hangs up, which Bruno hears of; the record of the call.
    #[track_caller]
    fn ends(mut self) -> sqlx::sqlite::SqliteRow {
        self.ana.ask("hangup");
        for browser in [&mut self.ana, &mut self.bruno] {
            let ended = |state: &Value| state["state"] == "idle" && state["lastEnd"] == "completed";
            browser.wait_for("hung up", ended);
        }
        let query = "SELECT calls.*, (SELECT sum(reconnects) FROM call_participants) AS reconnects FROM calls \
                     WHERE ended_at IS NOT NULL";
        let record = eventually("the record has its end", || row(&self.server.database, query));
        assert_eq!(record.get::<String, _>("status"), "completed");
        record
    }
}

fn connected(state: &Value) -> bool {
    state["state"] == "connected"
}

fn ready(state: &Value) -> bool {
    state["server"] == "ready"
}

#[test]
fn a_call_outlives_a_lost_signaling_connection() {
    let _turn = one_at_a_time();
    let mut scene = Scene::start(Nat::None, "");
    let before = scene.ana.frames();
    scene.ana.ask("drop");
    scene.ana.wait_for("back on the server", ready);
    assert!(scene.ana.frames() >= before, "media started over");
    let resumed = "passerelle_signaling_session_resume_total{result=\"resumed\"}";
    assert_eq!(Metrics::scrape(&mut scene.ana).sum(resumed), 1.0);
    scene.media_goes_on();
    let record = scene.ends();
    assert_eq!(record.get::<i64, _>("reconnects"), 1);
}

#[test]
fn a_call_moves_to_a_new_address_of_its_network() {
    let _turn = one_at_a_time();
    let mut scene = Scene::start(Nat::None, "");
    scene.lab.renumber(Nat::None, Host::A, 9);
    scene.ana.wait_for("the connection is found to be lost", |state| !connected(state));
    scene.ana.wait_for("back on the server", ready);
    for browser in [&mut scene.ana, &mut scene.bruno] {
        browser.wait_for("connected on a new path", connected);
    }
    scene.media_goes_on();
    scene.ends();
}

#[test]
fn a_call_survives_a_killed_server() {
    let _turn = one_at_a_time();
    let mut scene = Scene::start(Nat::None, "");
    scene.server.kill();
    for browser in [&mut scene.ana, &mut scene.bruno] {
        browser.wait_for("the loss is shown", |state| state["server"] == "reconnecting");
    }
    // Media needs no server.
    let seen = scene.ana.frames();
    scene.ana.wait_for_frames(seen + FRAMES);
    scene.server = Server::start(&scene.lab, scene.scratch.path());
    for browser in [&mut scene.ana, &mut scene.bruno] {
        let state = browser.wait_for("back on the server", ready);
        assert_eq!(state["state"], "connected", "{state}");
    }
    scene.media_goes_on();
    scene.ends();
}

#[test]
fn a_relayed_call_survives_a_killed_server() {
    let _turn = one_at_a_time();
    let mut scene = Scene::start(Nat::Symmetric, "");
    scene.server.kill();
    scene.server = Server::start(&scene.lab, scene.scratch.path());
    for browser in [&mut scene.ana, &mut scene.bruno] {
        browser.wait_for("the loss is noticed", |state| !ready(state) || !connected(state));
    }
    for browser in [&mut scene.ana, &mut scene.bruno] {
        browser.wait_for("back", |state| ready(state) && connected(state) && state["path"] == "relay");
    }
    scene.media_goes_on();
    scene.ends();
}

#[test]
fn chromium_and_firefox_talk_through_the_relay() {
    let _turn = one_at_a_time();
    let mut scene = Scene::start(Nat::Symmetric, "firefox");
    for browser in [&mut scene.ana, &mut scene.bruno] {
        browser.wait_for("the relay is the path", |state| state["path"] == "relay");
    }
    scene.media_goes_on();
    scene.ends();
}

#[test]
fn firefox_moves_to_a_new_address_of_its_network() {
    let _turn = one_at_a_time();
    let mut scene = Scene::start(Nat::None, "firefox");
    scene.lab.renumber(Nat::None, Host::B, 9);
    scene.bruno.wait_for("the connection is found to be lost", |state| !connected(state));
    for browser in [&mut scene.ana, &mut scene.bruno] {
        browser.wait_for("connected on a new path", |state| ready(state) && connected(state));
    }
    scene.media_goes_on();
    scene.ends();
}

#[test]
fn three_people_see_each_other() {
    let _turn = one_at_a_time();
    let mut scene = Scene::start(Nat::None, "");
    let mut carla = Browser::start(&scene.lab, Host::A, scene.scratch.path());
    carla.ask(&format!("open http://{SERVER}:8080/ Carla blue token={}", token("carla")));
    // A call runs in the room: to call is to join it.
    carla.ask("call");
    let everyone = |state: &Value| connected(state) && state["peers"] == "2";
    for browser in [&mut scene.ana, &mut scene.bruno, &mut carla] {
        browser.wait_for("two connections", everyone);
        browser.wait_for("frames of both", |state| {
            state["slowest"].as_str().and_then(|frames| frames.parse().ok()) >= Some(FRAMES)
        });
    }
    // Who goes does not take the others along.
    scene.bruno.ask("hangup");
    for browser in [&mut scene.ana, &mut carla] {
        browser.wait_for("one connection", |state| connected(state) && state["peers"] == "1");
        let seen = browser.frames();
        browser.wait_for_frames(seen + FRAMES);
    }
    carla.ask("hangup");
    scene.ana.wait_for("alone", |state| state["peers"].as_str().is_none_or(|peers| peers == "0"));
    scene.ana.ask("hangup");
    let query = "SELECT mode, participants_peak FROM calls WHERE ended_at IS NOT NULL";
    let record = eventually("the record has its end", || row(&scene.server.database, query));
    assert_eq!(record.get::<String, _>("mode"), "mesh");
    assert_eq!(record.get::<i64, _>("participants_peak"), 3);
}
