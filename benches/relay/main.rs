//! Measures the release build of the server against the coturn that is installed: the same generator, the same network,
//! in turns. Needs root, `ip`, `ethtool`, `taskset`, two cores; coturn (`turnserver`) is optional.
//!
//! ```text
//!   generator, clients, peers  ──── veth ────  server under test
//!   core 0                                     core 1, with the NAPI thread of its veth
//! ```
//! Segmentation offload is off on both ends: the generator's packets arrive one by one, and the server's kernel pays for
//! cutting what it sends. CPU is the run time of all threads of the server and of that NAPI thread.
//!
//! `cargo bench --bench relay -- --rounds 6 --seconds 2 --only a32,b64 --json target/bench-relay.json`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement that cannot go on stops, and its report goes to the terminal"
)]

mod client;
mod lab;
#[path = "../measured/mod.rs"]
mod measured;
mod profiles;
mod report;
mod servers;
mod traffic;

use std::path::PathBuf;

use lab::Lab;
use report::Report;
use servers::{Kind, Server};

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Arguments {
    rounds: usize,
    seconds: f64,
    only: Vec<String>,
    json: PathBuf,
    ours_only: bool,
    /// What the profiles' rates are multiplied by.
    load: f64,
    /// Whether everything has real-time priority.
    realtime: bool,
    /// Allocations of the large profile.
    many: usize,
    /// Set for the part that runs inside the generator's namespace.
    inside: Option<String>,
}

fn arguments() -> Arguments {
    let mut found = Arguments {
        rounds: 6,
        seconds: 2.0,
        only: Vec::new(),
        json: PathBuf::from("target/bench-relay.json"),
        ours_only: false,
        load: 1.0,
        realtime: false,
        many: 10_000,
        inside: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--rounds" => found.rounds = value().parse().expect("--rounds is a number"),
            "--seconds" => found.seconds = value().parse().expect("--seconds is a number"),
            "--only" => found.only = value().split(',').map(str::to_owned).collect(),
            "--json" => found.json = value().into(),
            "--load" => found.load = value().parse().expect("--load is a number"),
            "--many" => found.many = value().parse().expect("--many is a number"),
            "--inside" => found.inside = Some(value()),
            "--realtime" => found.realtime = true,
            "--ours" => found.ours_only = true,
            // What cargo passes to every bench.
            "--bench" => {}
            other => panic!("unknown argument {other}"),
        }
    }
    found
}

fn main() {
    let arguments = arguments();
    match &arguments.inside {
        None => {
            if let Some(missing) = lab::missing() {
                println!("skipped: {missing}");
                return;
            }
            Lab::new(arguments.realtime).run_inside();
        }
        Some(name) => measure(&arguments, &Lab::inside(name, arguments.realtime)),
    }
}

fn measure(arguments: &Arguments, lab: &Lab) {
    let mut kinds = vec![Kind::Passerelle];
    if !arguments.ours_only && servers::coturn_version().is_some() {
        kinds.push(Kind::Coturn);
    }
    let mut report = Report::new(arguments, &kinds);
    for round in 0..arguments.rounds {
        for kind in &kinds {
            let server = Server::start(*kind, lab);
            profiles::run_all(arguments, lab, &server, &mut report);
        }
        eprintln!("round {} of {}", round + 1, arguments.rounds);
        // Whoever was first is last now.
        kinds.reverse();
    }
    report.print();
    report.write(&arguments.json);
}
