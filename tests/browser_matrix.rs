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

use std::path::Path;

use lab::browser::Browser;
use lab::scene::{FRAMES, Scene, connected};
use lab::server::{Metrics, eventually, row};
use lab::{Host, Lab, Nat};
use serde_json::Value;
use sqlx::Row as _;

#[test]
fn two_browsers_with_public_addresses_talk_host_to_host() {
    let path = |local: &str, remote: &str| local == "host" && remote == "host";
    call_through(Nat::None, "direct", path, |_| {});
}

#[test]
fn two_browsers_behind_port_preserving_nat_talk_through_addresses_found_by_stun() {
    let found = |kind: &str| matches!(kind, "srflx" | "prflx");
    call_through(
        Nat::PortPreserving,
        "stun",
        |local, remote| (found(local) || found(remote)) && local != "relay" && remote != "relay",
        |_| {},
    );
}

#[test]
fn two_browsers_behind_symmetric_nat_talk_through_the_relay() {
    call_through(Nat::Symmetric, "relay", |local, remote| local == "relay" || remote == "relay", |_| {});
}

#[test]
fn two_browsers_that_may_use_no_udp_talk_through_the_relay_over_tcp() {
    only_over(Nat::WithoutUdp, "tcp");
}

#[test]
fn two_browsers_that_may_use_nothing_but_https_talk_through_the_relay_over_tls() {
    only_over(Nat::WebOnly, "tls");
}

/// Makes a relayed call, and checks that the allocations that carry it came over this transport.
fn only_over(nat: Nat, transport: &str) {
    let relayed = |local: &str, remote: &str| local == "relay" && remote == "relay";
    call_through(nat, "relay", relayed, |ana| {
        let metrics = Metrics::scrape(ana);
        let allocations = |transport: &str| {
            let series = "passerelle_turn_allocations";
            metrics.sum(&format!("{series}{{family=\"ipv4\",transport=\"{transport}\"}}"))
        };
        assert_eq!(allocations("udp"), 0.0, "UDP came through");
        assert!(allocations(transport) >= 2.0, "{} over {transport}", allocations(transport));
        // Where TCP gets through the browsers may hold allocations over TLS as well; the other way round they cannot.
        assert!(transport == "tcp" || allocations("tcp") == 0.0, "TCP came through");
    });
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
fn call_through(nat: Nat, path: &str, fits: impl Fn(&str, &str) -> bool, also: impl FnOnce(&mut Browser)) {
    let mut scene = Scene::start(nat, "", ["", ""]);
    for browser in scene.both() {
        let state = browser.wait_for("connected on the expected path", |state| {
            connected(state) && state["path"] == path && !text(state, "remoteCandidate").is_empty()
        });
        let (local, remote) = (text(&state, "localCandidate"), text(&state, "remoteCandidate"));
        assert!(fits(&local, &remote), "{nat:?}: the selected pair is {local} to {remote}");
    }
    let [ana, bruno] = scene.both();
    media_flows_where_it_should(ana, bruno, path);
    also(ana);

    scene.hang_up();
    no_allocation_is_left(&mut scene.ana);
    the_record_is_complete(scene.database());
    if path == "relay" {
        the_record_knows_what_was_relayed(scene.database());
    }
    let metrics = Metrics::scrape(&mut scene.ana);
    assert!(metrics.sum("passerelle_stun_requests_total") > 0.0);
    assert_eq!(metrics.sum("passerelle_calls_started_total"), 1.0);
    assert_eq!(metrics.sum("passerelle_calls_ended_total"), 1.0);
}

/// Both sides decode video, and its bytes pass through the relay exactly when the path is `relay`. Connectivity checks
/// of candidate pairs that lost are relayed in every cell, so the measure is the growth next to the growth of media.
fn media_flows_where_it_should(ana: &mut Browser, bruno: &mut Browser, path: &str) {
    ana.wait_for_frames(FRAMES);
    bruno.wait_for_frames(FRAMES);
    let (media, relayed) = (media_bytes(ana), relay_bytes(ana));
    let (seen_by_ana, seen_by_bruno) = (ana.frames(), bruno.frames());
    ana.wait_for_frames(seen_by_ana + FRAMES);
    bruno.wait_for_frames(seen_by_bruno + FRAMES);
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

fn the_record_knows_what_was_relayed(database: &Path) {
    let query =
        "SELECT relay_used, relay_bytes_up + relay_bytes_down AS bytes FROM calls WHERE relay_bytes_up > 0";
    let row = eventually("the record has what was relayed", || row(database, query));
    assert_eq!(row.get::<i64, _>("relay_used"), 1);
    assert!(row.get::<i64, _>("bytes") > 10_000);
}

fn text(state: &Value, field: &str) -> String {
    state[field].as_str().unwrap_or_default().to_owned()
}
