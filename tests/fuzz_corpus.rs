//! Replays the corpora of the fuzzers and mutations of them, on any toolchain: what a fuzzer found stays found.
//!
//! `FUZZ_MUTATIONS=10000` makes more of each file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "simulation/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use other parts")]
mod simulation;
#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use simulation::Chance;

/// Mutations of each file.
const MUTATIONS: usize = 50;

/// The files of a corpus, in order.
fn corpus(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus of {name} is empty");
    files
}

/// Changes bytes, cuts, repeats.
fn mutate(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len().max(1));
        match (chance.below(5), bytes.is_empty()) {
            (0, false) => bytes[at] ^= 1 << chance.below(8),
            (1, false) => bytes[at] = chance.bits() as u8,
            (2, false) => bytes.truncate(at),
            (3, false) => {
                let copy = bytes[at..].to_vec();
                bytes.extend(copy.into_iter().take(64));
            }
            _ => bytes.insert(at.min(bytes.len()), chance.bits() as u8),
        }
    }
}

fn replay(name: &str) {
    let mutations = std::env::var("FUZZ_MUTATIONS").map_or(MUTATIONS, |count| count.parse().unwrap());
    for (number, file) in corpus(name).into_iter().enumerate() {
        let original = fs::read(&file).unwrap();
        let mut chance = Chance::Seeded(number as u64);
        for round in 0..=mutations {
            let mut bytes = original.clone();
            if round > 0 {
                mutate(&mut bytes, &mut chance);
            }
            let outcome = panic::catch_unwind(|| targets::run(name, &bytes));
            assert!(outcome.is_ok(), "{name} fails on mutation {round} of {}: {bytes:02x?}", file.display());
        }
    }
}

#[test]
fn every_datagram_of_the_corpus_is_read_as_another_codec_reads_it() {
    replay("decode");
}

#[test]
fn every_stream_of_the_corpus_has_the_same_frames_however_it_is_cut() {
    replay("framing");
}

#[test]
fn every_sequence_of_operations_of_the_corpus_does_what_the_model_says() {
    replay("server_step");
}

#[test]
fn every_signaling_frame_of_the_corpus_is_read_without_a_panic() {
    replay("signaling");
}

#[test]
fn every_websocket_message_of_the_corpus_is_read_as_another_reader_of_json_reads_it() {
    replay("websocket");
}

#[test]
fn every_socketio_event_of_the_corpus_is_read_as_another_reader_of_json_reads_it() {
    replay("socketio");
}

#[test]
fn every_proxy_header_of_the_corpus_is_read_to_its_end_and_no_further() {
    replay("proxy");
}

#[test]
fn every_target_has_a_fuzzer_and_a_corpus() {
    for (name, _) in targets::ALL {
        let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/bin/{name}.rs"));
        assert!(bin.exists() && !corpus(name).is_empty());
    }
}
