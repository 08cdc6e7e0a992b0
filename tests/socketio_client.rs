//! The official Socket.IO client against the real server: every transport, and a session that goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::Server;
use support::caller::token;

fn run(transports: &str) -> Value {
    let server = Server::start("");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/js/socketio-resume.mjs");
    let url = format!("http://{}", server.http);
    let output = Command::new("node")
        .args([script, &url, transports, &token("bob"), &token("ada")])
        .output()
        .expect("node is missing: run tests/install.sh");
    assert!(output.status.success(), "{transports}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The numbers the client saw: none twice, none missing.
fn assert_gapless(run: &Value) {
    let seen = run["seen"].as_array().unwrap();
    assert_eq!(seen[0]["ready"], false, "{run}");
    assert!(seen.iter().skip(1).any(|event| event["ready"] == true), "not resumed: {run}");
    let numbers: Vec<u64> = seen.iter().filter_map(|event| event["seq"].as_u64()).collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "{run}");
}

#[test]
fn the_stock_client_resumes_over_websocket() {
    let run = run("websocket");
    assert_gapless(&run);
    assert_eq!(run["transport"], "websocket");
}

#[test]
fn the_stock_client_resumes_over_polling() {
    let run = run("polling");
    assert_gapless(&run);
    assert_eq!((&run["transport"], &run["final"]), (&json!("polling"), &json!("polling")));
}

#[test]
fn the_stock_client_resumes_and_upgrades() {
    assert_gapless(&run("polling,websocket"));
}
