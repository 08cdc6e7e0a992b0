//! What one packet and one request cost in the pure core.
//!
//! `cargo bench --bench micro` measures time with criterion. `cargo bench --bench micro -- --instructions` counts
//! instructions under valgrind, which does not depend on what else the machine does, and fails when an operation takes
//! more than a tenth more than `instructions.txt` says; `UPDATE=1` writes that file anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a measurement that cannot go on stops, and its report goes to the terminal"
)]

mod instructions;
mod operations;

use criterion::Criterion;

fn main() {
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--instructions" => return instructions::compare(),
            "--run" => {
                let (name, count) = (words.next().unwrap(), words.next().unwrap());
                return operations::run(&name, count.parse().unwrap());
            }
            _ => {}
        }
    }
    let mut criterion = Criterion::default().configure_from_args();
    for name in operations::NAMES {
        let mut operation = operations::prepare(name);
        criterion.bench_function(name, |bencher| bencher.iter(&mut operation));
    }
    criterion.final_summary();
}
