//! What a fuzzer does with its bytes. Shared by the fuzzers and by the test that replays their corpora.

mod decode;
mod framing;
mod server_step;
mod signaling;

/// A target's name and what it does with bytes.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target and the name of its corpus.
pub(crate) const ALL: [Target; 4] = [
    ("decode", decode::run),
    ("framing", framing::run),
    ("server_step", server_step::run),
    ("signaling", signaling::run),
];

/// Runs a target by its name.
pub(crate) fn run(name: &str, bytes: &[u8]) {
    for (known, target) in ALL {
        if known == name {
            target(bytes);
        }
    }
}
