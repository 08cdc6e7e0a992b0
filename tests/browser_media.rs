//! What a call does besides running: another microphone, the screen, fresh credentials, and how good it was.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and tells why"
)]

mod lab;

use lab::Nat;
use lab::browser::Browser;
use lab::scene::{FRAMES, Scene};
use lab::server::{Metrics, eventually};
use serde_json::{Value, json};

#[test]
fn a_call_shares_its_screen_changes_its_microphone_and_renews_its_credentials() {
    let mut scene = Scene::start(Nat::None, "PASSERELLE__TURN__CREDENTIAL_TTL=1m", ["", ""]);
    let [ana, bruno] = scene.both();
    ana.wait_for_frames(FRAMES);
    bruno.wait_for_frames(FRAMES);
    let minted = minted_for_calls(ana);

    ana.ask("screen");
    bruno.wait_for("the screen", |state| tile(state, "screen") == "on");
    bruno.goes_on_seeing();
    ana.ask("screen");
    bruno.wait_for("the camera again", |state| tile(state, "screen") == "off");
    bruno.goes_on_seeing();

    let first = ana.ask("microphone")["device"].clone();
    assert_ne!(ana.ask("microphone")["device"], first, "another one each time");
    let received = packets_received(bruno);
    eventually("sound and picture arrive", || (packets_received(bruno) > received + 100.0).then_some(()));

    // Credentials of a minute are renewed after 48 seconds, on both sides, without anybody noticing.
    eventually("both sides have new credentials", || (minted_for_calls(ana) >= minted + 2.0).then_some(()));
    bruno.goes_on_seeing();
    let reports = events(ana, "call:quality-report");
    assert!(reports >= 8.0, "{reports} reports of two sides in a minute");
    let quality = ana.ask("state")["quality"].clone();
    assert!([json!("good"), json!("fair"), json!("poor")].contains(&quality), "{quality}");
    for browser in [ana, bruno] {
        assert_eq!(browser.ask("state")["state"], "connected");
    }
}

/// A fact about the only other participant.
fn tile<'a>(state: &'a Value, fact: &str) -> &'a str {
    state["tiles"][0][fact].as_str().unwrap_or_default()
}

fn packets_received(browser: &mut Browser) -> f64 {
    let stats = browser.ask("stats");
    stats["peers"].as_object().and_then(|peers| peers.values().next()).unwrap()["packetsReceived"]
        .as_f64()
        .unwrap()
}

fn minted_for_calls(browser: &mut Browser) -> f64 {
    Metrics::scrape(browser).sum("passerelle_ice_credentials_issued_total{kind=\"call\"}")
}

fn events(browser: &mut Browser, name: &str) -> f64 {
    let series = format!("passerelle_signaling_events_total{{direction=\"in\",event=\"{name}\"}}");
    Metrics::scrape(browser).sum(&series)
}
