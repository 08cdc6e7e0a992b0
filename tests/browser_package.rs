//! The client as a package that others install, and the example that does without it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;
use std::process::Command;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::server::TOKEN_SECRET;
use support::{Server, program};

/// The most that the minified and compressed client may weigh.
const BUDGET: u64 = 12 * 1024;

/// Runs a script of tests/js; gives the JSON of its last line.
fn script(name: &str, arguments: &[&str]) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js").join(name);
    let (ended_well, output) = program::output(Command::new("node").arg(path).args(arguments));
    assert!(ended_well, "{name} failed:\n{output}");
    serde_json::from_str(output.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{output}"))
}

#[test]
fn the_package_is_small_typed_and_depends_on_nothing() {
    let package = script("package/check.mjs", &[]);
    assert_eq!(package["types"], "", "{}", package["types"].as_str().unwrap_or_default());
    assert_eq!(package["exports"], package["declared"], "what is exported and what is declared");
    assert_eq!(package["exports"], json!(["Call", "Client", "PasserelleError", "connect"]));
    assert_eq!(package["dependencies"], 0);
    let files: Vec<String> = serde_json::from_value(package["files"].clone()).unwrap();
    assert!(!files.iter().any(|file| file.contains("demo") || file.contains("index")), "{files:?}");
    let bytes = package["bytes"].as_u64().unwrap();
    assert!((1000..=BUDGET).contains(&bytes), "{bytes} bytes compressed");
}

#[test]
fn the_example_in_thirty_lines_makes_a_call_with_the_stock_socket_io_client() {
    let text = include_str!("../docs/examples/socketio-call.js");
    assert!(text.lines().count() <= 30, "{} lines", text.lines().count());
    let server = Server::start("[auth]\nanonymous = \"loopback\"\n");
    let played = script("example-call.mjs", &[&format!("http://{}/", server.http)]);
    let frames: Vec<u64> = serde_json::from_value(played["frames"].clone()).unwrap();
    assert!(frames.len() == 2 && frames.iter().all(|frames| *frames > 30), "{frames:?}");
    // The first one to come has called as well, and reached nobody.
    server.await_metric("passerelle_calls_started_total", &[("type", "video")], 2.0);
}

/// A token of a user who may send 300 kbit/s.
fn token(user: &str) -> String {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600);
    let claims = json!({ "sub": user, "exp": expires.as_secs(), "psr": { "maxKbps": 300 } });
    let key = jsonwebtoken::EncodingKey::from_secret(TOKEN_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

#[test]
fn the_client_applies_what_the_server_says_of_ice_and_bandwidth() {
    let server = Server::start("[turn]\ncredential_ttl = \"10s\"\n[signaling]\nforce_relay = true\n");
    let url = format!("http://{}/", server.http);
    let said = script("client-without-media.mjs", &[&url, &token("ana"), &token("bruno")]);
    let name = |field: &str| said[field].as_str().unwrap().to_owned();
    let of = |name: String| name.split(':').nth(2).unwrap().to_owned();
    assert_ne!(name("first"), name("renewed"));
    assert_eq!(of(name("first")), of(name("renewed")), "the same call: {said}");
    assert_eq!((&said["policy"], &said["maxBitrate"]), (&json!("relay"), &json!(300_000)));
}
