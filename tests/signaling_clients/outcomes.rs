//! The ends of a call that nobody answers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::device::{Device, Framing, WEBSOCKET_ONLY};
use crate::records::{ended, rest};
use crate::support::{Server, eventually};

/// Ana rings both devices of Bruno. Ana's framing and acks, then Bruno's.
struct Ring {
    server: Server,
    ana: Device,
    bruno: [Device; 2],
    call: String,
}

impl Ring {
    #[track_caller]
    fn start(extra: &Value) -> Self {
        let server = Server::start("");
        let mut ana = Device::of(&server, "ana", WEBSOCKET_ONLY, false);
        let mut bruno = [
            Device::of(&server, "bruno", Framing::WebSocket, true),
            Device::of(&server, "bruno", WEBSOCKET_ONLY, false),
        ];
        let mut request = json!({ "to": ["bruno"], "type": "audio" });
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        ana.ask("call:initiate", &request);
        let call = ana.next("call:initiated")["callId"].as_str().unwrap().to_owned();
        for device in &mut bruno {
            assert_eq!(device.next("call:initiated")["callId"], *call);
        }
        Self { server, ana, bruno, call }
    }

    /// Asserts how everyone hears of the end, and what the record says.
    #[track_caller]
    fn ended(mut self, reason: &str, by: &Value) {
        for device in self.bruno.iter_mut().chain([&mut self.ana]) {
            let end = device.next("call:ended");
            assert_eq!((&end["reason"], &end["status"]), (&json!(reason), &json!(reason)), "{end}");
            assert_eq!((&end["duration"], &end["endedBy"]), (&json!(0), by), "{end}");
        }
        let record = ended(&self.server, "ana", &self.call);
        assert_eq!((&record["status"], &record["duration"]), (&json!(reason), &Value::Null), "{record}");
        assert_eq!(record["answeredAt"], Value::Null, "{record}");
        let labels = [("reason", reason), ("type", "audio"), ("path", "none")];
        assert_eq!(self.server.scrape().sum("passerelle_calls_ended_total", &labels), 1.0);
    }
}

#[test]
fn a_call_that_is_declined_is_rejected() {
    let mut ring = Ring::start(&json!({}));
    ring.bruno[0].ask("call:decline", &json!({ "callId": ring.call }));
    for device in ring.bruno.iter_mut().chain([&mut ring.ana]) {
        assert_eq!(device.next("call:declined")["userId"], "bruno");
    }
    ring.ended("rejected", &json!("bruno"));
}

#[test]
fn a_call_that_its_caller_cancels_is_missed_by_every_device() {
    let mut ring = Ring::start(&json!({}));
    ring.ana.ask("call:leave", &json!({ "callId": ring.call }));
    for device in &mut ring.bruno {
        let missed = device.next("call:missed");
        assert_eq!((&missed["initiator"]["userId"], &missed["reason"]), (&json!("ana"), &json!("cancelled")));
    }
    ring.ended("cancelled", &json!("ana"));
}

#[test]
fn a_call_that_rings_out_is_missed_after_ten_seconds_at_the_least() {
    let started = Instant::now();
    let mut ring = Ring::start(&json!({ "ringTimeoutMs": 1 }));
    for device in &mut ring.bruno {
        assert_eq!(device.next("call:missed")["reason"], "missed");
    }
    assert!(started.elapsed() >= Duration::from_secs(10), "it rang for {:?} only", started.elapsed());
    ring.ended("missed", &Value::Null);
}

#[test]
fn a_call_to_nobody_is_refused_and_recorded_as_missed() {
    let server = Server::start("");
    for (framing, acks) in [(WEBSOCKET_ONLY, false), (Framing::WebSocket, true)] {
        let mut ana = Device::of(&server, "ana", framing, acks);
        let error = ana.refused("call:initiate", &json!({ "to": "nobody", "type": "video" }));
        assert_eq!(error["code"], "USER_OFFLINE");
        ana.has_not_heard("call:initiated");
    }
    let calls = eventually("both records", || {
        let (_, list) = rest(&server, "nobody", "calls?direction=incoming");
        let calls = list["calls"].as_array().unwrap().clone();
        (calls.len() == 2).then_some(calls)
    });
    for record in calls {
        let participants = record["participants"].as_array().unwrap();
        let nobody = participants.iter().find(|who| who["userId"] == "nobody").unwrap();
        assert_eq!((&record["status"], &nobody["state"]), (&json!("missed"), &json!("missed")), "{record}");
    }
}
