#![no_main]

#[path = "../../tests/simulation/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use other parts")]
mod simulation;
#[path = "../targets/mod.rs"]
#[allow(dead_code, reason = "each fuzzer runs one target")]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("websocket", bytes));
