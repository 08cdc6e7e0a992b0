//! Measures the signaling of the release build: memory of idle sessions, relay of signals, a storm of reconnects; over
//! plain WebSocket and over Socket.IO, and the stock Socket.IO server on Node at the same work (`tests/js/
//! socketio-gateway.mjs`). The clients are written for this and share no code with the server.
//!
//! The server has one core and the generator another. CPU is the run time of every thread of the server. What loopback
//! costs is charged to whoever sends: the server pays for what its clients receive.
//!
//! `cargo bench --bench signaling -- --rounds 3 --seconds 4 --only memory,relay,acked,storm --kinds websocket,node`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement that cannot go on stops, and its report goes to the terminal"
)]

mod canary;
mod crowd;
mod machine;
#[path = "../measured/mod.rs"]
mod measured;
mod profiles;
mod report;
mod servers;
mod session;
mod socket;
mod swarm;

use std::path::PathBuf;

use report::Report;
use servers::Kind;

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Arguments {
    rounds: usize,
    seconds: f64,
    only: Vec<String>,
    kinds: Vec<String>,
    json: PathBuf,
    /// Idle sessions.
    sessions: usize,
    /// Sessions that are cut.
    storm: usize,
}

impl Arguments {
    fn read() -> Self {
        let mut found = Self {
            rounds: 1,
            seconds: 4.0,
            only: Vec::new(),
            kinds: Vec::new(),
            json: PathBuf::from("target/bench-signaling.json"),
            sessions: 20_000,
            storm: 10_000,
        };
        let list = |text: String| text.split(',').map(str::to_owned).collect();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--rounds" => found.rounds = value().parse().expect("--rounds is a number"),
                "--seconds" => found.seconds = value().parse().expect("--seconds is a number"),
                "--sessions" => found.sessions = value().parse().expect("--sessions is a number"),
                "--storm" => found.storm = value().parse().expect("--storm is a number"),
                "--only" => found.only = list(value()),
                "--kinds" => found.kinds = list(value()),
                "--json" => found.json = value().into(),
                // What cargo passes to every bench.
                "--bench" => {}
                other => panic!("unknown argument {other}"),
            }
        }
        found
    }

    /// Whether a profile is wanted.
    pub(crate) fn wants(&self, profile: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == profile)
    }

    fn kinds(&self) -> Vec<Kind> {
        let wanted = |kind: &Kind| self.kinds.is_empty() || self.kinds.iter().any(|name| name == kind.name());
        let missing = servers::node_missing();
        if let Some(missing) = &missing {
            eprintln!("without a comparison: {missing}");
        }
        Kind::ALL.into_iter().filter(wanted).filter(|kind| *kind != Kind::Node || missing.is_none()).collect()
    }
}

fn main() {
    let mut arguments = Arguments::read();
    let kinds = arguments.kinds();
    let wanted = arguments.sessions.max(profiles::storm_sessions(arguments.storm));
    match machine::prepare(wanted) {
        Ok(most) if most < profiles::storm_sessions(arguments.storm) => {
            println!("skipped: more open files are needed than the {most} there are");
            return;
        }
        Ok(most) => arguments.sessions = arguments.sessions.min(most),
        Err(missing) => {
            println!("skipped: {missing}");
            return;
        }
    }
    let mut report = Report::new(&kinds);
    for round in 0..arguments.rounds {
        eprintln!("round {} of {}", round + 1, arguments.rounds);
        kinds.iter().for_each(|kind| profiles::run_all(&arguments, *kind, &mut report));
    }
    report.print();
    report.write(&arguments);
}
