//! Many sessions of one server, and the calls between them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::servers::Server;
use super::session::{Heard, Session};
use super::socket::Happening;
use super::swarm::Swarm;

/// Handshakes under way while a crowd gathers without hurry.
const AT_ONCE: usize = 200;
/// How long anything but a measurement may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// When a client that was turned away tries again: after a little more for each, up to twice as long.
const RETRY: Duration = Duration::from_millis(500);

/// The clients of a server.
pub(crate) struct Crowd<'a> {
    server: &'a Server,
    swarm: Swarm,
    pub(crate) sessions: Vec<Session>,
    happened: Vec<(usize, Happening)>,
    last_ack: u64,
}

/// What the gathering of a crowd came to.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// When each session was there, since the start.
    pub(crate) ready: Vec<Duration>,
    pub(crate) resumed: usize,
    /// Connections that were turned away and tried again.
    pub(crate) refused: usize,
}

impl<'a> Crowd<'a> {
    /// Clients that are not connected yet.
    pub(crate) fn new(server: &'a Server, size: usize) -> Self {
        Self {
            server,
            swarm: Swarm::new(size),
            sessions: (0..size).map(|number| Session::new(server.kind, number)).collect(),
            happened: Vec::new(),
            last_ack: 0,
        }
    }

    /// Connects these sessions, a few at a time.
    pub(crate) fn gather(&mut self, who: &[usize]) -> Gathered {
        self.connect(who, AT_ONCE, &mut |_, _| {})
    }

    /// Connects all of these sessions in the same moment.
    pub(crate) fn storm(&mut self, who: &[usize], hear: &mut impl FnMut(usize, Heard)) -> Gathered {
        self.connect(who, who.len(), hear)
    }

    fn connect(&mut self, who: &[usize], at_once: usize, hear: &mut impl FnMut(usize, Heard)) -> Gathered {
        let start = Instant::now();
        let mut gathered = Gathered::default();
        let mut waiting: BinaryHeap<Reverse<(Instant, usize)>> =
            who.iter().map(|index| Reverse((start, *index))).collect();
        let mut under_way = 0;
        while gathered.ready.len() < who.len() {
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {} sessions are there",
                gathered.ready.len(),
                who.len()
            );
            while under_way < at_once
                && waiting.peek().is_some_and(|Reverse((at, _))| *at <= Instant::now())
                && let Some(Reverse((_, index))) = waiting.pop()
            {
                under_way += 1;
                let session = &self.sessions[index];
                self.swarm.connect(index, self.server.address, session.address, session.handshake());
            }
            for (index, heard) in self.listen(Duration::from_millis(1)) {
                match heard {
                    Heard::Ready { resumed } => {
                        gathered.ready.push(start.elapsed());
                        gathered.resumed += usize::from(resumed);
                        under_way -= 1;
                    }
                    Heard::Refused(why) => panic!("{index} was not let in: {why}"),
                    Heard::Gone(_) => {
                        gathered.refused += 1;
                        under_way -= 1;
                        let spread = RETRY.mul_f64((gathered.refused % 100) as f64 / 100.0);
                        waiting.push(Reverse((Instant::now() + RETRY + spread, index)));
                    }
                    heard => hear(index, heard),
                }
            }
        }
        gathered
    }

    /// Waits a moment, answers what the framing wants answered, and gives the rest.
    pub(crate) fn listen(&mut self, wait: Duration) -> Vec<(usize, Heard)> {
        let mut happened = std::mem::take(&mut self.happened);
        self.swarm.poll(wait, &mut happened);
        let mut heard = Vec::with_capacity(happened.len());
        for (index, happening) in happened.drain(..) {
            match happening {
                Happening::Open => {
                    if let Some(greeting) = self.sessions[index].greeting() {
                        self.swarm.send(index, &greeting);
                    }
                }
                Happening::Text(text) => match self.sessions[index].hear(&text) {
                    Heard::Nothing => {}
                    Heard::Reply(reply) => self.swarm.send(index, &reply),
                    other => heard.push((index, other)),
                },
                Happening::Closed(code) => heard.push((index, Heard::Gone(code))),
            }
        }
        self.happened = happened;
        heard
    }

    /// Sends a request that nobody waits for.
    pub(crate) fn send(&mut self, index: usize, event: &str, payload: &str) {
        let text = self.sessions[index].request(event, payload, None);
        self.swarm.send(index, &text);
    }

    /// Sends a request that is acknowledged.
    pub(crate) fn send_with_ack(&mut self, index: usize, event: &str, payload: &str) -> u64 {
        self.last_ack += 1;
        let text = self.sessions[index].request(event, payload, Some(self.last_ack));
        self.swarm.send(index, &text);
        self.last_ack
    }

    /// Sends many requests, and gives the data of their acks.
    pub(crate) fn ask(&mut self, requests: Vec<(usize, &str, Value)>) -> Vec<Value> {
        let start = Instant::now();
        let wanted = requests.len();
        let mut waiting: HashMap<u64, usize> = HashMap::new();
        let mut answers = vec![Value::Null; wanted];
        let mut requests = requests.into_iter().enumerate();
        let mut answered = 0;
        while answered < wanted {
            assert!(start.elapsed() < PATIENCE, "{answered} of {wanted} requests were answered");
            while waiting.len() < AT_ONCE
                && let Some((at, (index, event, payload))) = requests.next()
            {
                waiting.insert(self.send_with_ack(index, event, &payload.to_string()), at);
            }
            for (index, heard) in self.listen(Duration::from_millis(1)) {
                match heard {
                    Heard::Ack { id, outcome } => {
                        let Some(at) = waiting.remove(&id) else { continue };
                        answers[at] = outcome
                            .unwrap_or_else(|error| panic!("a request of {index} was refused: {error}"));
                        answered += 1;
                    }
                    Heard::Gone(code) => panic!("the connection of {index} broke: {code}"),
                    _ => {}
                }
            }
        }
        answers
    }

    /// Puts the first member of each group into a call with the others; the ids of the calls.
    pub(crate) fn call(&mut self, groups: &[Vec<usize>]) -> Vec<String> {
        let user = |index: usize| self.sessions[index].user.clone();
        let initiate = groups.iter().map(|group| {
            let others: Vec<String> = group[1..].iter().map(|index| user(*index)).collect();
            (group[0], "call:initiate", json!({ "to": others, "type": "audio" }))
        });
        let initiate: Vec<_> = initiate.collect();
        let calls = self.ask(initiate);
        let calls: Vec<String> =
            calls.iter().map(|data| data["callId"].as_str().unwrap().to_owned()).collect();
        let others = |(group, call): (&Vec<usize>, &String)| {
            let call = call.clone();
            group[1..].iter().map(move |index| (*index, call.clone())).collect::<Vec<_>>()
        };
        let joining: Vec<(usize, String)> = groups.iter().zip(&calls).flat_map(others).collect();
        let join = joining.iter().map(|(index, call)| (*index, "call:join", json!({ "callId": call })));
        let join: Vec<_> = join.collect();
        self.ask(join);
        // Media is agreed upon: an answer to the first member.
        let answers = groups.iter().zip(&calls).flat_map(|(group, call)| {
            let first = self.sessions[group[0]].user.clone();
            group[1..].iter().map(move |index| {
                let signal =
                    json!({ "type": "answer", "to": first, "sdp": format!("v=0\r\ns={index}\r\nm=audio 9") });
                (*index, "call:signal", json!({ "callId": call, "signal": signal }))
            })
        });
        let answers: Vec<_> = answers.collect();
        self.ask(answers);
        calls
    }

    /// Resets the connections of these sessions.
    pub(crate) fn cut(&mut self, who: &[usize]) {
        who.iter().for_each(|index| self.swarm.cut(*index));
    }

    /// Listens to nothing in particular for a while: pings are answered.
    pub(crate) fn idle(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            for (index, heard) in self.listen(Duration::from_millis(10)) {
                assert!(!matches!(heard, Heard::Gone(_)), "the connection of {index} broke: {heard:?}");
            }
        }
    }
}
