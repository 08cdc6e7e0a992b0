//! What is measured: memory of idle sessions, relay of signals, a storm of reconnects.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::Arguments;
use super::canary::Canary;
use super::crowd::Crowd;
use super::machine;
use super::report::Report;
use super::servers::{Kind, Server};
use super::session::Heard;

/// Two parties each.
const CALLS: usize = 250;
/// Signals under way in each call while the most is looked for.
const WINDOW: usize = 4;
/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long the generator rests when there is nothing to do.
const BREATH: Duration = Duration::from_micros(10);
/// The storm: groups of one that stays and three that are cut, as many as a call has by default.
const GROUP: usize = 4;
/// A session description is of this size, a candidate of a hundred bytes.
const DESCRIPTION: usize = 2_500;
/// Of so many signals of a call, the first is an offer and the second an answer; the others are candidates.
const ROUND: u64 = 12;

/// Rates of one client say nothing about the server: this client sends what a thousand would.
const WITHOUT_RATES: &str = "[signaling.rates]\n\
    frames = { count = 0, per = \"1s\", burst = 1 }\n\
    signals = { count = 0, per = \"1s\", burst = 1 }\n\
    candidates = { count = 0, per = \"1s\", burst = 1 }\n";

/// How many sessions the storm needs in all.
pub(crate) fn storm_sessions(cut: usize) -> usize {
    cut.div_ceil(GROUP - 1) * GROUP
}

/// Runs every profile that is wanted, each against a server of its own.
pub(crate) fn run_all(arguments: &Arguments, kind: Kind, report: &mut Report) {
    if arguments.wants("memory") {
        memory(arguments, kind, report);
    }
    if arguments.wants("relay") {
        relay(arguments, kind, "relay", false, report);
    }
    if arguments.wants("acked") {
        relay(arguments, kind, "acked", true, report);
    }
    if arguments.wants("storm") {
        storm(arguments, kind, report);
    }
}

/// Idle sessions: what the process has more than before, divided by them.
fn memory(arguments: &Arguments, kind: Kind, report: &mut Report) {
    let server = Server::start(kind, "");
    let mut crowd = Crowd::new(&server, arguments.sessions);
    let (first, rest): (Vec<usize>, Vec<usize>) = ((0..100).collect(), (100..arguments.sessions).collect());
    // What the server makes once is not a session's.
    crowd.gather(&first);
    let before = server.resident();
    let gathered = crowd.gather(&rest);
    crowd.idle(Duration::from_secs(3));
    let each = server.resident().saturating_sub(before) as f64 / rest.len() as f64;
    report.record(kind, "memory", "KiB a session", each / 1024.0);
    let last = gathered.ready.last().unwrap().as_secs_f64();
    report.record(kind, "memory", "sessions opened a second", rest.len() as f64 / last);
}

/// Signals between pairs.
struct Pairs<'a> {
    crowd: Crowd<'a>,
    calls: Vec<String>,
    /// Signals sent in each call.
    sent: Vec<u64>,
    acks: bool,
    start: Instant,
    payload: String,
}

impl<'a> Pairs<'a> {
    fn new(server: &'a Server, acks: bool) -> Self {
        let mut crowd = Crowd::new(server, 2 * CALLS);
        let everyone: Vec<usize> = (0..2 * CALLS).collect();
        crowd.gather(&everyone);
        let groups: Vec<Vec<usize>> = (0..CALLS).map(|call| vec![2 * call, 2 * call + 1]).collect();
        let calls = crowd.call(&groups);
        Self { crowd, calls, sent: vec![0; CALLS], acks, start: Instant::now(), payload: String::new() }
    }

    /// The next signal of a call; the parties speak in turns. It says when it was due.
    fn send(&mut self, call: usize, due: Instant) {
        let number = self.sent[call];
        self.sent[call] += 1;
        let mark = due.saturating_duration_since(self.start).as_nanos();
        let id = &self.calls[call];
        self.payload.clear();
        let _ = match number % ROUND {
            turn @ (0 | 1) => {
                let kind = if turn == 0 { "offer" } else { "answer" };
                let filling = "a=rtpmap:96 VP8/90000\\r\\n".repeat(DESCRIPTION / 25);
                write!(
                    self.payload,
                    r#"{{"callId":"{id}","signal":{{"type":"{kind}","sdp":"v=0\r\ns=@{mark} \r\nm=audio 9\r\n{filling}"}}}}"#
                )
            }
            _ => write!(
                self.payload,
                r#"{{"callId":"{id}","signal":{{"type":"ice-candidate","candidate":"candidate:1 1 udp 2122260223 192.0.2.17 54400 typ host @{mark} ","sdpMid":"0","sdpMLineIndex":0}}}}"#
            ),
        };
        let from = 2 * call + (number % 2) as usize;
        if self.acks {
            self.crowd.send_with_ack(from, "call:signal", &self.payload);
        } else {
            self.crowd.send(from, "call:signal", &self.payload);
        }
    }

    /// Takes what has arrived: calls and marks of signals.
    fn arrived(&mut self, wait: Duration) -> Vec<(usize, u64)> {
        let heard = self.crowd.listen(wait);
        let signals = heard.into_iter().filter_map(|(index, heard)| match heard {
            Heard::Signal(mark) => Some((index / 2, mark)),
            Heard::Event(name, payload) if name == "call:error" => panic!("{payload}"),
            Heard::Ack { outcome: Err(error), .. } => panic!("{error}"),
            Heard::Gone(code) => panic!("the connection of {index} broke: {code}"),
            _ => None,
        });
        signals.collect()
    }
}

/// As much as the server takes. Half as much at a steady rate then, unless every signal is acknowledged.
fn relay(arguments: &Arguments, kind: Kind, profile: &str, acks: bool, report: &mut Report) {
    let server = Server::start(kind, WITHOUT_RATES);
    let mut pairs = Pairs::new(&server, acks);
    let rate = most(arguments, &server, &mut pairs, profile, report);
    if !acks {
        half(arguments, &server, &mut pairs, profile, rate / 2.0, report);
    }
}

/// As many signals as the server takes: each that arrives lets its call send another one. Signals a second.
fn most(
    arguments: &Arguments,
    server: &Server,
    pairs: &mut Pairs<'_>,
    profile: &str,
    report: &mut Report,
) -> f64 {
    for call in (0..CALLS).flat_map(|call| [call; WINDOW]) {
        pairs.send(call, Instant::now());
    }
    let mut begin = Instant::now();
    let mut counted: Option<(Instant, u64)> = None;
    let (mut signals, mut end) = (0_u64, begin + WARM_UP);
    loop {
        let now = Instant::now();
        if now >= end {
            match counted {
                None => {
                    begin = now;
                    counted = Some((now, server.run_time()));
                    signals = 0;
                    end = now + Duration::from_secs_f64(arguments.seconds);
                }
                Some((since, run_time)) => {
                    let (wall, cpu) = ((now - since).as_secs_f64(), server.run_time() - run_time);
                    let frames = 2.0 * signals as f64;
                    let cpu = cpu as f64 / 1e9;
                    report.record(server.kind, profile, "frames a second of CPU", frames / cpu);
                    report.record(server.kind, profile, "frames a second", frames / wall);
                    report.record(server.kind, profile, "CPU used at most, %", 100.0 * cpu / wall);
                    break;
                }
            }
        }
        let arrived = pairs.arrived(Duration::from_millis(1));
        signals += arrived.len() as u64;
        let now = Instant::now();
        arrived.iter().for_each(|(call, _)| pairs.send(*call, now));
    }
    let rate = signals as f64 / begin.elapsed().as_secs_f64();
    drain(pairs);
    rate
}

/// Until nothing is under way any more.
fn drain(pairs: &mut Pairs<'_>) {
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_millis(300) {
        if !pairs.arrived(Duration::from_millis(10)).is_empty() {
            last = Instant::now();
        }
    }
}

/// A steady rate, each signal at its time whatever came of those before: how long each took since it was due.
fn half(
    arguments: &Arguments,
    server: &Server,
    pairs: &mut Pairs<'_>,
    profile: &str,
    rate: f64,
    report: &mut Report,
) {
    server.prefer();
    machine::real_time(std::process::id(), false, true);
    let canary = Canary::start();
    let start = Instant::now();
    pairs.start = start;
    let time = Duration::from_secs_f64(arguments.seconds);
    let run_time = server.run_time();
    // When each was due, and how long it took.
    let mut latencies: Vec<(Duration, Duration)> = Vec::new();
    let (mut sent, mut arrived) = (0_u64, 0_u64);
    let total = (rate * arguments.seconds) as u64;
    while arrived < total && start.elapsed() < 4 * time + Duration::from_secs(5) {
        loop {
            let due = start + Duration::from_secs_f64(sent as f64 / rate);
            if sent == total || due > Instant::now() {
                break;
            }
            pairs.send(sent as usize % CALLS, due);
            sent += 1;
        }
        let marks = pairs.arrived(Duration::ZERO);
        if marks.is_empty() {
            // What has this priority must not run all the time.
            std::thread::sleep(BREATH);
        }
        let now = start.elapsed();
        arrived += marks.len() as u64;
        let took = marks
            .iter()
            .map(|(_, mark)| Duration::from_nanos(*mark))
            .map(|due| (due, now.saturating_sub(due)));
        latencies.extend(took.filter(|(due, _)| *due > WARM_UP));
    }
    machine::real_time(std::process::id(), false, false);
    assert_eq!(arrived, total, "signals got lost");
    let cpu = (server.run_time() - run_time) as f64 / 1e9 / start.elapsed().as_secs_f64();
    let all: Vec<Duration> = latencies.iter().map(|(_, took)| *took).collect();
    report.record(server.kind, profile, "at half load: 50 %, ms", quantile(all.clone(), 0.5));
    report.record(server.kind, profile, "with stalls: 99 %, ms", quantile(all, 0.99));
    if let Some(canary) = canary {
        let stalls = canary.stalls();
        let gone: Duration = stalls.iter().map(|(begin, end)| *end - *begin).sum();
        let is_disturbed = |due: Duration, took: Duration| {
            let (sent, arrived) = (start + due, start + due + took);
            stalls.iter().any(|(begin, end)| sent < *end + 2 * (*end - *begin) && arrived > *begin)
        };
        let whole = latencies.len() as f64;
        latencies.retain(|(due, took)| !is_disturbed(*due, *took));
        let left_out = 100.0 * (1.0 - latencies.len() as f64 / whole);
        let kept = latencies.into_iter().map(|(_, took)| took).collect();
        report.record(server.kind, profile, "at half load: 99 %, ms", quantile(kept, 0.99));
        report.record(server.kind, profile, "left out for stalls, %", left_out);
        report.record(server.kind, profile, "a core was gone, ms", gone.as_secs_f64() * 1e3);
    }
    report.record(server.kind, profile, "CPU used at half load, %", 100.0 * cpu);
}

/// Milliseconds.
fn quantile(mut latencies: Vec<Duration>, share: f64) -> f64 {
    latencies.sort_unstable();
    latencies
        .get((latencies.len() as f64 * share) as usize)
        .map_or(f64::NAN, |found| found.as_secs_f64() * 1e3)
}

/// Ten thousand connections are reset at once. Those who stay send each of them something; then all come back at once.
fn storm(arguments: &Arguments, kind: Kind, report: &mut Report) {
    let server = Server::start(kind, "");
    let size = storm_sessions(arguments.storm);
    let mut crowd = Crowd::new(&server, size);
    let everyone: Vec<usize> = (0..size).collect();
    crowd.gather(&everyone);
    let members: Vec<Vec<usize>> = everyone.chunks(GROUP).map(<[usize]>::to_vec).collect();
    let calls = crowd.call(&members);
    let cut: Vec<usize> = members.iter().flat_map(|group| group[1..].iter().copied()).collect();
    let mut got: Vec<Vec<u64>> = vec![Vec::new(); size];
    let mut note = |index: usize, heard: Heard| {
        if let Heard::Signal(mark) = heard {
            got[index].push(mark);
        }
    };
    // One that arrives, one that may meet the cut, one while nobody is there.
    tell(&mut crowd, &members, &calls, 1, &mut note);
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        for (index, heard) in crowd.listen(Duration::from_millis(10)) {
            note(index, heard);
        }
    }
    crowd.cut(&cut);
    tell(&mut crowd, &members, &calls, 2, &mut note);
    tell(&mut crowd, &members, &calls, 3, &mut note);
    let run_time = server.run_time();
    let gathered = crowd.storm(&cut, &mut note);
    let cpu = server.run_time() - run_time;
    let last = Instant::now();
    while last.elapsed() < Duration::from_secs(3) {
        for (index, heard) in crowd.listen(Duration::from_millis(10)) {
            note(index, heard);
        }
    }
    let whole = cut.iter().filter(|index| got[**index] == [1, 2, 3]).count();
    let share = |count: usize| 100.0 * count as f64 / cut.len() as f64;
    let after = |share: f64| {
        let at = (gathered.ready.len() as f64 * share).ceil() as usize;
        gathered.ready[at.clamp(1, gathered.ready.len()) - 1].as_secs_f64()
    };
    report.record(kind, "storm", "resumed, %", share(gathered.resumed));
    report.record(kind, "storm", "got every event once, %", share(whole));
    report.record(kind, "storm", "99 % are back after, s", after(0.99));
    report.record(kind, "storm", "all are back after, s", after(1.0));
    report.record(kind, "storm", "turned away, tried again", gathered.refused as f64);
    report.record(kind, "storm", "CPU, s", cpu as f64 / 1e9);
}

/// Those who stay send a signal to each of the others of their call, and wait until the server has all of them.
fn tell(
    crowd: &mut Crowd<'_>,
    members: &[Vec<usize>],
    calls: &[String],
    mark: u64,
    note: &mut impl FnMut(usize, Heard),
) {
    let mut waiting = 0_usize;
    for (group, call) in members.iter().zip(calls) {
        for other in &group[1..] {
            let to = &crowd.sessions[*other].user;
            let payload = format!(
                r#"{{"callId":"{call}","signal":{{"type":"ice-candidate","to":"{to}","candidate":"candidate:1 1 udp 1 192.0.2.17 54400 typ host @{mark} ","sdpMid":"0"}}}}"#
            );
            crowd.send_with_ack(group[0], "call:signal", &payload);
            waiting += 1;
        }
    }
    let start = Instant::now();
    while waiting > 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "{waiting} signals were not acknowledged");
        for (index, heard) in crowd.listen(Duration::from_millis(1)) {
            match heard {
                Heard::Ack { outcome, .. } => {
                    outcome.unwrap_or_else(|error| panic!("a signal was refused: {error}"));
                    waiting -= 1;
                }
                Heard::Gone(code) => panic!("the connection of {index} broke: {code}"),
                heard => note(index, heard),
            }
        }
    }
}
