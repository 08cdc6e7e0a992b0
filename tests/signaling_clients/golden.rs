//! The golden flow: a whole call with two devices of the callee and a lost connection, over every way to connect.

use serde_json::{Value, json};
use sqlx::Row as _;

use crate::device::{Device, Framing, POLLING_ONLY, UPGRADE, WEBSOCKET_ONLY};
use crate::records::{Database, ended, rest};
use crate::support::Server;

pub(crate) const OFFER: &str =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";
pub(crate) const ANSWER: &str =
    "v=0\r\no=- 2 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";

/// A way to connect, and whether acks are asked for.
type Way = (Framing, bool);

#[test]
fn the_golden_flow_over_socket_io_without_acks() {
    golden((WEBSOCKET_ONLY, false), (WEBSOCKET_ONLY, false));
}

#[test]
fn the_golden_flow_over_socket_io_with_acks() {
    golden((WEBSOCKET_ONLY, true), (WEBSOCKET_ONLY, true));
}

#[test]
fn the_golden_flow_over_socket_io_by_polling() {
    golden((POLLING_ONLY, false), (POLLING_ONLY, true));
}

#[test]
fn the_golden_flow_over_socket_io_that_upgrades_from_polling() {
    golden((UPGRADE, true), (UPGRADE, false));
}

#[test]
fn the_golden_flow_over_websocket() {
    golden((Framing::WebSocket, true), (Framing::WebSocket, false));
}

#[test]
fn the_golden_flow_from_socket_io_to_websocket() {
    golden((WEBSOCKET_ONLY, false), (Framing::WebSocket, true));
}

#[test]
fn the_golden_flow_from_websocket_to_socket_io() {
    golden((Framing::WebSocket, false), (UPGRADE, true));
}

/// Ana calls Bruno, whose phone answers while his laptop rings too.
struct Scene {
    server: Server,
    database: Database,
    ana: Device,
    phone: Device,
    laptop: Device,
    call: String,
}

fn golden(caller: Way, callee: Way) {
    let database = Database::new();
    let server = Server::start(&database.config());
    let mut scene = Scene {
        ana: Device::of(&server, "ana", caller.0, caller.1),
        phone: Device::of(&server, "bruno", callee.0, callee.1),
        laptop: Device::of(&server, "bruno", callee.0, callee.1),
        call: String::new(),
        server,
        database,
    };
    scene.rings_everywhere();
    scene.is_answered_once();
    scene.negotiates();
    scene.mutes();
    scene.survives_a_lost_connection(caller);
    scene.ends();
    scene.is_recorded();
    scene.is_counted();
}

impl Scene {
    fn rings_everywhere(&mut self) {
        let request = json!({ "conversationId": "tea", "to": "bruno", "type": "video", "msgId": "m1" });
        let ack = self.ana.ask("call:initiate", &request);
        let own = self.ana.next("call:initiated");
        own["callId"].as_str().unwrap().clone_into(&mut self.call);
        assert_eq!((&own["self"], &own["conversationId"]), (&json!(true), &json!("tea")), "{own}");
        assert_ice(&own);
        if let Some(ack) = ack {
            assert_eq!((&ack["callId"], &ack["mode"]), (&own["callId"], &json!("p2p")));
            assert_eq!((&ack["ringing"], &ack["call"]["status"]), (&json!(["bruno"]), &json!("ringing")));
            assert_ice(&ack);
        }
        for device in [&mut self.phone, &mut self.laptop] {
            let ring = device.next("call:initiated");
            assert_eq!(ring["callId"], *self.call);
            assert_eq!((&ring["self"], &ring["type"]), (&Value::Null, &json!("video")), "{ring}");
            assert_eq!(
                (&ring["initiator"]["userId"], &ring["mode"]),
                (&json!("ana"), &json!("p2p")),
                "{ring}"
            );
            assert!(ring["expiresAt"].is_string() && ring["participants"].is_array(), "{ring}");
        }
        assert_eq!(self.ana.next("call:ringing")["userId"], "bruno");
    }

    fn is_answered_once(&mut self) {
        let request = json!({ "callId": self.call, "settings": { "videoEnabled": true } });
        let ack = self.phone.ask("call:join", &request);
        let with_ack = ack.is_some();
        let joined = ack.unwrap_or_else(|| self.phone.next("call:join"));
        assert_eq!(joined["success"], if with_ack { Value::Null } else { json!(true) });
        assert_eq!(joined["callSession"]["callId"], *self.call);
        assert_eq!(joined["callSession"]["status"], "connecting");
        assert_ice(&joined);
        if with_ack {
            self.phone.has_not_heard("call:join");
        }
        let newcomer = self.ana.next("call:participant-joined");
        assert_eq!(newcomer["participant"]["userId"], "bruno", "{newcomer}");
        assert_eq!(self.laptop.next("call:already-answered")["callId"], *self.call);
    }

    fn negotiates(&mut self) {
        // All three shapes that the seed draws.
        let call = &self.call;
        self.phone
            .ask("call:signal", &json!({ "callId": call, "signal": { "type": "offer", "sdp": OFFER } }));
        let offer = self.ana.next("call:signal");
        assert_eq!((&offer["from"], &offer["signal"]["from"]), (&json!("bruno"), &json!("bruno")));
        assert_eq!((&offer["signal"]["type"], &offer["signal"]["sdp"]), (&json!("offer"), &json!(OFFER)));
        let answer =
            json!({ "callId": call, "type": "answer", "signal": { "type": "answer", "sdp": ANSWER } });
        self.ana.ask("call:signal", &answer);
        let answer = self.phone.next("call:signal");
        assert_eq!((&answer["from"], &answer["signal"]["sdp"]), (&json!("ana"), &json!(ANSWER)));
        for number in 1..=3 {
            self.ana.ask("call:signal", &candidate(call, number));
            self.phone.ask("call:signal", &candidate(call, number + 100));
        }
        for number in 1..=3 {
            assert_candidate(&self.phone.next("call:signal"), "ana", number);
            assert_candidate(&self.ana.next("call:signal"), "bruno", number + 100);
        }
        let forged = json!({ "callId": call, "signal": { "type": "bye", "from": "ana" } });
        assert_eq!(self.phone.refused("call:signal", &forged)["code"], "SIGNAL_SENDER_MISMATCH");
    }

    fn mutes(&mut self) {
        self.ana.ask("call:toggle-audio", &json!({ "callId": self.call, "enabled": false }));
        for device in [&mut self.ana, &mut self.phone] {
            let toggled = device.next("call:media-toggled");
            assert_eq!((&toggled["userId"], &toggled["participantId"]), (&json!("ana"), &json!("ana")));
            assert_eq!((&toggled["mediaType"], &toggled["enabled"]), (&json!("audio"), &json!(false)));
        }
    }

    /// What is sent to someone whose connection is gone waits until a plain reconnect has joined again.
    fn survives_a_lost_connection(&mut self, way: Way) {
        self.ana.cut();
        self.server.await_metric("passerelle_signaling_sessions", &[("state", "connected")], 2.0);
        self.phone.ask("call:signal", &candidate(&self.call, 200));
        self.ana = Device::of(&self.server, "ana", way.0, way.1);
        let ack = self.ana.ask("call:join", &json!({ "callId": self.call }));
        let joined = ack.unwrap_or_else(|| self.ana.next("call:join"));
        assert_eq!(joined["callSession"]["status"], "active", "{joined}");
        assert_candidate(&self.ana.next("call:signal"), "bruno", 200);
        let state = self.ana.next("call:state");
        let ana = participant(&state["call"], "ana");
        assert_eq!(
            (&ana["isAudioEnabled"], &ana["isVideoEnabled"]),
            (&json!(false), &json!(true)),
            "{state}"
        );
        self.ana.has_not_heard("call:signal");
    }

    fn ends(&mut self) {
        self.ana.ask("call:leave", &json!({ "callId": self.call }));
        for device in [&mut self.ana, &mut self.phone] {
            let ended = device.next("call:ended");
            assert_eq!((&ended["callId"], &ended["endedBy"]), (&json!(self.call), &json!("ana")), "{ended}");
            assert_eq!((&ended["reason"], &ended["status"]), (&json!("completed"), &json!("completed")));
            assert!(ended["duration"].is_u64() && ended["endedAt"].is_string(), "{ended}");
        }
        self.laptop.has_not_heard("call:ended");
        let late = json!({ "callId": self.call });
        let error = self.phone.refused("call:join", &late);
        assert_eq!(error["code"], "CALL_ENDED");
    }

    fn is_recorded(&self) {
        let record = ended(&self.server, "bruno", &self.call);
        assert_eq!((&record["status"], &record["endReason"]), (&json!("completed"), &json!("completed")));
        assert_eq!((&record["initiatorId"], &record["endedBy"]), (&json!("ana"), &json!("ana")));
        assert!(record["duration"].is_u64() && record["answeredAt"].is_string(), "{record}");
        assert_eq!((&record["conversationId"], &record["participantsPeak"]), (&json!("tea"), &json!(2)));
        let ana = participant(&record, "ana");
        assert_eq!((&ana["reconnects"], &ana["isAudioEnabled"]), (&json!(1), &json!(false)), "{record}");
        for (user, calls) in [("ana", 1), ("bruno", 1), ("carla", 0)] {
            let (status, list) = rest(&self.server, user, "calls");
            assert_eq!(
                (status, list["calls"].as_array().map(Vec::len)),
                (200, Some(calls)),
                "{user}: {list}"
            );
        }
        let (status, error) = rest(&self.server, "carla", &format!("calls/{}", self.call));
        assert_eq!((status, &error["error"]["code"]), (404, &json!("CALL_NOT_FOUND")));
        let row = self.database.row("SELECT id, duration_s FROM calls WHERE ended_at IS NOT NULL");
        assert_eq!(row.get::<String, _>("id"), self.call);
        assert!((0..600).contains(&row.get::<i64, _>("duration_s")));
    }

    fn is_counted(&self) {
        let count = |name: &str, labels: &[(&str, &str)]| self.server.scrape().sum(name, labels);
        assert_eq!(count("passerelle_calls_started_total", &[("type", "video")]), 1.0);
        let ended = [("reason", "completed"), ("type", "video"), ("path", "direct")];
        assert_eq!(count("passerelle_calls_ended_total", &ended), 1.0);
        assert_eq!(count("passerelle_calls", &[]), 0.0);
        for (event, received, sent) in [
            ("call:initiate", 1.0, 0.0),
            ("call:initiated", 0.0, 3.0),
            ("call:join", 3.0, f64::NAN),
            ("call:signal", 10.0, 9.0),
            ("call:media-toggled", 0.0, 2.0),
            ("call:already-answered", 0.0, 1.0),
            ("call:ended", 0.0, 2.0),
        ] {
            let counted =
                |way| count("passerelle_signaling_events_total", &[("event", event), ("direction", way)]);
            assert_eq!(counted("in"), received, "{event}");
            // How many echoes of a join there are depends on who asks for acks.
            assert!(sent.is_nan() || counted("out") == sent, "{event}: {} and not {sent}", counted("out"));
        }
        assert_eq!(count("passerelle_signaling_errors_total", &[("code", "SIGNAL_SENDER_MISMATCH")]), 1.0);
        assert_eq!(count("passerelle_call_duration_seconds_count", &[]), 1.0);
        assert_eq!(count("passerelle_call_setup_seconds_count", &[]), 1.0);
        assert_eq!(count("passerelle_call_ring_seconds_count", &[]), 1.0);
        assert!(count("passerelle_ice_credentials_issued_total", &[("kind", "call")]) >= 3.0);
        assert!(count("passerelle_store_writes_total", &[("result", "ok")]) >= 1.0);
    }
}

#[test]
fn two_people_without_an_account_call_each_other_over_both_framings() {
    let server = Server::start("[auth]\nanonymous = \"loopback\"\n");
    for (room, caller, callee) in
        [("blue", UPGRADE, Framing::WebSocket), ("green", Framing::WebSocket, POLLING_ONLY)]
    {
        let ((mut ana, ana_id), (mut bruno, bruno_id)) =
            (Device::anonymous(&server, caller, true), Device::anonymous(&server, callee, false));
        assert!(ana_id.starts_with("anon:") && bruno_id.starts_with("anon:"));
        for device in [&mut ana, &mut bruno] {
            device.acked("room:join", &json!({ "roomId": room })).unwrap();
        }
        // Without `to`, everyone else in the room rings.
        let call = ana.ask("call:initiate", &json!({ "roomId": room, "type": "audio" })).unwrap();
        assert_eq!(call["ringing"], json!([bruno_id]));
        assert_eq!(bruno.next("call:initiated")["initiator"]["displayName"], "Somebody");
        bruno.ask("call:join", &json!({ "callId": call["callId"] }));
        assert_eq!(ana.next("call:participant-joined")["participant"]["userId"], *bruno_id);
        bruno.ask("call:leave", &json!({ "callId": call["callId"] }));
        for device in [&mut ana, &mut bruno] {
            assert_eq!(device.next("call:ended")["endedBy"], *bruno_id);
        }
    }
}

pub(crate) fn candidate(call: &str, number: u16) -> Value {
    let line = format!("candidate:1 1 udp 2130706431 192.0.2.1 {number} typ host");
    json!({ "callId": call, "type": "ice-candidate", "signal": { "candidate": line, "sdpMid": "0", "sdpMLineIndex": 0 } })
}

#[track_caller]
pub(crate) fn assert_candidate(event: &Value, from: &str, number: u16) {
    assert_eq!(
        (&event["from"], &event["signal"]["type"]),
        (&json!(from), &json!("ice-candidate")),
        "{event}"
    );
    let line = event["signal"]["candidate"].as_str().unwrap();
    assert!(line.contains(&format!(" {number} typ host")), "{event}");
    assert_eq!((&event["signal"]["sdpMid"], &event["signal"]["sdpMLineIndex"]), (&json!("0"), &json!(0)));
}

#[track_caller]
fn assert_ice(answer: &Value) {
    let servers = answer["iceServers"].as_array().unwrap_or_else(|| panic!("no iceServers: {answer}"));
    let with_credentials =
        servers.iter().any(|server| server["username"].is_string() && server["credential"].is_string());
    assert!(with_credentials, "{answer}");
    assert!(answer["ttl"].as_u64() > Some(0), "{answer}");
}

#[track_caller]
fn participant<'a>(call: &'a Value, user: &str) -> &'a Value {
    let participants = call["participants"].as_array().unwrap_or_else(|| panic!("no participants: {call}"));
    participants.iter().find(|who| who["userId"] == user).unwrap_or_else(|| panic!("no {user}: {call}"))
}
