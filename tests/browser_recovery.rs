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
use lab::scene::{FRAMES, Scene, connected};
use lab::server::{Metrics, Server, eventually, row, token};
use lab::{Host, Nat, SERVER};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

/// A call of Ana and Bruno that runs. `extra`: what else Bruno's page is opened with.
fn call(nat: Nat, extra: &str) -> Scene {
    let [ana, bruno] = ["ana", "bruno"].map(|user| format!("token={}", token(user)));
    let mut scene = Scene::start(nat, "", [&ana, &format!("{bruno} {extra}")]);
    for browser in scene.both() {
        browser.wait_for("connected", connected);
        browser.wait_for_frames(FRAMES);
    }
    scene
}

/// The end of a call, and its record.
#[track_caller]
fn ends(mut scene: Scene) -> SqliteRow {
    scene.hang_up();
    let query = "SELECT calls.*, (SELECT sum(reconnects) FROM call_participants) AS reconnects FROM calls \
                 WHERE ended_at IS NOT NULL";
    let record = eventually("the record has its end", || row(scene.database(), query));
    assert_eq!(record.get::<String, _>("status"), "completed");
    record
}

fn ready(state: &Value) -> bool {
    state["server"] == "ready"
}

#[test]
fn a_call_outlives_a_lost_signaling_connection() {
    let mut scene = call(Nat::None, "");
    let before = scene.ana.frames();
    scene.ana.ask("drop");
    scene.ana.wait_for("back on the server", ready);
    assert!(scene.ana.frames() >= before, "media started over");
    let resumed = "passerelle_signaling_session_resume_total{result=\"resumed\"}";
    assert_eq!(Metrics::scrape(&mut scene.ana).sum(resumed), 1.0);
    scene.media_goes_on();
    let record = ends(scene);
    assert_eq!(record.get::<i64, _>("reconnects"), 1);
}

#[test]
fn a_call_moves_to_a_new_address_of_its_network() {
    let mut scene = call(Nat::None, "");
    scene.lab.renumber(Nat::None, Host::A, 9);
    scene.ana.wait_for("the connection is found to be lost", |state| !connected(state));
    scene.ana.wait_for("back on the server", ready);
    for browser in scene.both() {
        browser.wait_for("connected on a new path", connected);
    }
    scene.media_goes_on();
    ends(scene);
}

#[test]
fn a_call_survives_a_killed_server() {
    let mut scene = call(Nat::None, "");
    scene.server.kill();
    for browser in [&mut scene.ana, &mut scene.bruno] {
        browser.wait_for("the loss is shown", |state| state["server"] == "reconnecting");
    }
    // Media needs no server.
    scene.ana.goes_on_seeing();
    scene.server = Server::start(&scene.lab, scene.scratch.path());
    for browser in scene.both() {
        let state = browser.wait_for("back on the server", ready);
        assert_eq!(state["state"], "connected", "{state}");
    }
    scene.media_goes_on();
    ends(scene);
}

#[test]
fn a_relayed_call_survives_a_killed_server() {
    let mut scene = call(Nat::Symmetric, "");
    scene.server.kill();
    scene.server = Server::start(&scene.lab, scene.scratch.path());
    for browser in [&mut scene.ana, &mut scene.bruno] {
        browser.wait_for("the loss is noticed", |state| !ready(state) || !connected(state));
    }
    for browser in scene.both() {
        browser.wait_for("back", |state| ready(state) && connected(state) && state["path"] == "relay");
    }
    scene.media_goes_on();
    ends(scene);
}

#[test]
fn chromium_and_firefox_talk_through_the_relay() {
    let mut scene = call(Nat::Symmetric, "firefox");
    for browser in scene.both() {
        browser.wait_for("the relay is the path", |state| state["path"] == "relay");
    }
    scene.media_goes_on();
    ends(scene);
}

#[test]
fn firefox_moves_to_a_new_address_of_its_network() {
    let mut scene = call(Nat::None, "firefox");
    scene.lab.renumber(Nat::None, Host::B, 9);
    scene.bruno.wait_for("the connection is found to be lost", |state| !connected(state));
    for browser in scene.both() {
        browser.wait_for("connected on a new path", |state| ready(state) && connected(state));
    }
    scene.media_goes_on();
    ends(scene);
}

#[test]
fn three_people_see_each_other() {
    let mut scene = call(Nat::None, "");
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
        browser.goes_on_seeing();
    }
    carla.ask("hangup");
    scene.ana.wait_for("alone", |state| state["peers"].as_str().is_none_or(|peers| peers == "0"));
    scene.ana.ask("hangup");
    let query = "SELECT mode, participants_peak FROM calls WHERE ended_at IS NOT NULL";
    let record = eventually("the record has its end", || row(&scene.server.database, query));
    assert_eq!(record.get::<String, _>("mode"), "mesh");
    assert_eq!(record.get::<i64, _>("participants_peak"), 3);
}
