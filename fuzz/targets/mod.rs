//! What a fuzzer does with its bytes. Shared by the fuzzers and by the test that replays their corpora.

mod decode;
mod framing;
mod proxy;
mod server_step;
mod signaling;
mod socketio;
mod websocket;

/// A target's name and what it does with bytes.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target and the name of its corpus.
pub(crate) const ALL: [Target; 7] = [
    ("decode", decode::run),
    ("framing", framing::run),
    ("proxy", proxy::run),
    ("server_step", server_step::run),
    ("signaling", signaling::run),
    ("socketio", socketio::run),
    ("websocket", websocket::run),
];

/// Runs a target by its name.
pub(crate) fn run(name: &str, bytes: &[u8]) {
    for (known, target) in ALL {
        if known == name {
            target(bytes);
        }
    }
}

/// How deep arrays and objects are nested.
fn nesting(json: &serde_json::Value) -> usize {
    match json {
        serde_json::Value::Array(items) => 1 + items.iter().map(nesting).max().unwrap_or(0),
        serde_json::Value::Object(fields) => 1 + fields.values().map(nesting).max().unwrap_or(0),
        _ => 0,
    }
}
