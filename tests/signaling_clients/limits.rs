//! Every limit of the protocol at its boundary, on every way to connect: what is exactly at it passes, one more is refused
//! as it should be. The limits that no transport has a part in are in `src/signaling/tests/limits.rs`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::device::{Device, Framing, POLLING_ONLY, UPGRADE, WEBSOCKET_ONLY, token};
use crate::support::Server;
use crate::support::raw_http::knock;
use crate::support::raw_websocket::RawWebSocket;

const FRAMINGS: [Framing; 3] = [WEBSOCKET_ONLY, POLLING_ONLY, Framing::WebSocket];

/// A user for each framing, because some limits are a user's.
fn name(framing: Framing) -> String {
    format!("{framing:?}").chars().filter(char::is_ascii_alphabetic).collect()
}

/// A call with somebody who answers: the caller, the other one, and its id.
fn talking(server: &Server, user: &str, framing: Framing) -> (Device, Device, String) {
    let other = format!("{user}-other");
    let mut ana = Device::of(server, user, framing, true);
    let mut bruno = Device::of(server, &other, Framing::WebSocket, true);
    let call = ana.ask("call:initiate", &json!({ "to": other, "type": "video" })).unwrap();
    let id = call["callId"].as_str().unwrap().to_owned();
    bruno.ask("call:join", &json!({ "callId": id }));
    (ana, bruno, id)
}

/// The code of what a request comes to; `OK` when it is not refused.
#[track_caller]
fn code(device: &mut Device, event: &str, payload: &Value) -> String {
    match device.acked(event, payload) {
        Ok(_) => "OK".to_owned(),
        Err(error) => error["code"].as_str().unwrap().to_owned(),
    }
}

#[test]
fn limit_of_a_frame() {
    const LARGEST: usize = 128 * 1024;
    let server = Server::start("");
    let frame = |framing, padding: usize| {
        let x = "x".repeat(padding);
        match framing {
            Framing::WebSocket => {
                json!({ "v": 1, "t": "call:heartbeat", "p": { "x": x }, "id": "1" }).to_string()
            }
            // The first request of a client that wants an ack, as it is on the wire.
            Framing::SocketIo(_) => format!(r#"420["call:heartbeat",{{"x":"{x}"}}]"#),
        }
    };
    for framing in FRAMINGS {
        let room = LARGEST - frame(framing, 0).len();
        let mut ana = Device::of(&server, "ana", framing, true);
        assert_eq!(code(&mut ana, "call:heartbeat", &json!({ "x": "x".repeat(room) })), "OK", "{framing:?}");
        let mut ana = Device::of(&server, "ana", framing, true);
        ana.post("call:heartbeat", &json!({ "x": "x".repeat(room + 1) }), Some(1));
        let closed = ana.closed();
        match framing {
            Framing::WebSocket => assert_eq!(closed, "1009"),
            Framing::SocketIo(_) => assert!(closed.starts_with("transport "), "{closed}"),
        }
    }
}

#[test]
fn limit_of_descriptions_candidates_ids_metadata_and_messages() {
    let server = Server::start("");
    for framing in FRAMINGS {
        let (mut ana, _bruno, call) = talking(&server, &name(framing), framing);
        let start = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n";
        let padded = |start: &str, size: usize| format!("{start}{}", "x".repeat(size - start.len()));
        let signal = |signal: Value| json!({ "callId": call, "signal": signal });
        let sdp = |size| signal(json!({ "type": "offer", "sdp": padded(start, size) }));
        let line = |size| padded("candidate:", size);
        let candidate = |size| signal(json!({ "type": "ice-candidate", "candidate": line(size) }));
        let room = |size| json!({ "roomId": padded("", size) });
        // As JSON a text has two quotes more.
        let message = |size: usize| json!({ "callId": call, "data": padded("", size - 2) });
        let metadata =
            |size: usize| json!({ "to": "nobody", "type": "audio", "metadata": padded("", size - 2) });
        let once = |size| json!({ "msgId": padded("", size) });
        for (event, at, beyond, passes, refused) in [
            ("call:signal", sdp(65_536), sdp(65_537), "OK", "SIGNAL_TOO_LARGE"),
            ("call:signal", candidate(2_048), candidate(2_049), "OK", "SIGNAL_TOO_LARGE"),
            ("room:join", room(128), room(129), "OK", "VALIDATION_ERROR"),
            ("call:message", message(8_192), message(8_193), "OK", "SIGNAL_TOO_LARGE"),
            ("call:initiate", metadata(8_192), metadata(8_193), "USER_OFFLINE", "VALIDATION_ERROR"),
            ("call:heartbeat", once(64), once(65), "OK", "VALIDATION_ERROR"),
        ] {
            assert_eq!(code(&mut ana, event, &at), passes, "{framing:?} {event}");
            assert_eq!(code(&mut ana, event, &beyond), refused, "{framing:?} {event}");
        }
    }
}

#[test]
fn limit_of_nesting() {
    let server = Server::start("");
    let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "x": inner }));
    for framing in [WEBSOCKET_ONLY, POLLING_ONLY] {
        let mut ana = Device::of(&server, "ana", framing, true);
        assert_eq!(code(&mut ana, "call:heartbeat", &nested(16)), "OK", "{framing:?}");
        assert_eq!(code(&mut ana, "call:heartbeat", &nested(17)), "VALIDATION_ERROR", "{framing:?}");
    }
    // The frame around the payload is one level.
    let mut ana = Device::of(&server, "ana", Framing::WebSocket, true);
    assert_eq!(code(&mut ana, "call:heartbeat", &nested(15)), "OK");
    ana.post("call:heartbeat", &nested(16), Some(9));
    assert_eq!(ana.closed(), "4400");
}

/// Repeats a request until it is refused for its rate, which has to be after `burst` of them, and as many as became due
/// meanwhile.
#[track_caller]
fn exhaust(device: &mut Device, event: &str, payload: &Value, burst: usize, per_second: f64) {
    let started = Instant::now();
    for passed in 0.. {
        let Err(error) = device.acked(event, payload) else { continue };
        if error["code"] != "RATE_LIMIT_EXCEEDED" {
            continue;
        }
        let due = (started.elapsed().as_secs_f64() * per_second).ceil() as usize;
        assert!((burst..=burst + due).contains(&passed), "{event}: {passed} passed, {burst} and {due} may");
        let wait = error["retryAfterMs"].as_f64().unwrap();
        assert!(wait > 0.0 && wait <= 1000.0 / per_second, "{event}: {wait} ms");
        return;
    }
}

#[test]
fn limit_of_requests_a_user_or_a_session_makes() {
    let server = Server::start("");
    for framing in FRAMINGS {
        let none = json!({ "callId": "none", "enabled": true });
        let mut ana = Device::of(&server, &name(framing), framing, true);
        exhaust(&mut ana, "call:initiate", &json!({ "to": "nobody", "type": "audio" }), 5, 5.0 / 60.0);
        exhaust(&mut ana, "call:join", &none, 20, 20.0 / 60.0);
        exhaust(&mut ana, "call:leave", &none, 20, 20.0 / 60.0);
        exhaust(&mut ana, "call:toggle-audio", &none, 50, 50.0 / 60.0);
    }
}

#[test]
fn limit_of_signals_candidates_and_messages() {
    let server = Server::start("");
    for framing in FRAMINGS {
        let (mut ana, _bruno, call) = talking(&server, &name(framing), framing);
        let bye = json!({ "callId": call, "signal": { "type": "bye" } });
        exhaust(&mut ana, "call:signal", &bye, 100, 10.0);
        // Another user, whose frames are not spent.
        let (mut ana, _bruno, call) = talking(&server, &format!("{}-too", name(framing)), framing);
        let candidate = json!({ "callId": call, "signal": { "type": "ice-candidate", "candidate": "" } });
        exhaust(&mut ana, "call:signal", &candidate, 150, 30.0);
        let (mut ana, _bruno, call) = talking(&server, &format!("{}-talks", name(framing)), framing);
        exhaust(&mut ana, "call:message", &json!({ "callId": call, "data": 1 }), 50, 10.0);
    }
}

#[test]
fn limit_of_frames_and_the_end_of_a_flood() {
    let server = Server::start("");
    for framing in FRAMINGS {
        let mut ana = Device::of(&server, &name(framing), framing, true);
        exhaust(&mut ana, "call:heartbeat", &json!({}), 200, 50.0);
        let started = Instant::now();
        let flood = || (0..100).for_each(|_| ana.post("call:heartbeat", &json!({}), None));
        // On a slow machine a part of the flood is within the rate.
        std::iter::repeat_with(flood).take(10).for_each(drop);
        let closed = ana.closed();
        // A connection of Socket.IO whose buffer is full ends without a word.
        let expected: &[&str] = if framing == Framing::WebSocket {
            &["4429"]
        } else {
            &["io server disconnect", "transport close"]
        };
        assert!(expected.contains(&&*closed), "{closed} after {:?}", started.elapsed());
    }
}

#[test]
fn limit_of_sessions_of_a_user() {
    let server = Server::start("");
    for framing in FRAMINGS {
        let user = name(framing);
        let mut devices: Vec<Device> =
            (0..10).map(|_| Device::of(&server, &user, Framing::WebSocket, true)).collect();
        let mut beyond = Device::dial(&server, framing, &json!({ "token": token(&user) }), None);
        if framing == Framing::WebSocket {
            assert_eq!(beyond.last_ack().unwrap_err()["code"], "CAPACITY_EXCEEDED");
            assert_eq!(beyond.closed(), "4413");
        } else {
            assert_eq!(beyond.not_let_in(), "CAPACITY_EXCEEDED");
        }
        // One that ends makes room, and one that only waits for a resume does too.
        assert_eq!(code(&mut devices[0], "session:bye", &json!({})), "OK");
        Device::of(&server, &user, framing, true);
    }
}

#[test]
fn limit_of_calls_a_user_has_started() {
    let server = Server::start("");
    for framing in FRAMINGS {
        let user = name(framing);
        let others: Vec<String> = (0..3).map(|n| format!("{user}-{n}")).collect();
        let _others: Vec<Device> =
            others.iter().map(|other| Device::of(&server, other, Framing::WebSocket, true)).collect();
        let mut ana = Device::of(&server, &user, framing, true);
        for (other, expected) in others.iter().zip(["OK", "OK", "CAPACITY_EXCEEDED"]) {
            let call = json!({ "to": other, "type": "audio" });
            assert_eq!(code(&mut ana, "call:initiate", &call), expected, "{framing:?}");
        }
    }
}

#[test]
fn limit_of_participants() {
    let server = Server::start("");
    for framing in FRAMINGS {
        let user = name(framing);
        let room = json!({ "roomId": format!("room of {user}") });
        let mut devices: Vec<Device> =
            (0..5).map(|n| Device::of(&server, &format!("{user}-{n}"), framing, true)).collect();
        devices.iter_mut().for_each(|device| assert_eq!(code(device, "room:join", &room), "OK"));
        let call = json!({ "roomId": room["roomId"], "type": "video" });
        let call = json!({ "callId": devices[0].ask("call:initiate", &call).unwrap()["callId"] });
        for (device, expected) in devices[1..].iter_mut().zip(["OK", "OK", "OK", "MAX_PARTICIPANTS_REACHED"])
        {
            assert_eq!(code(device, "call:join", &call), expected, "{framing:?}");
        }
    }
}

#[test]
fn limit_of_new_connections_of_an_address() {
    // Another server for each, because the limit is an address's.
    for path in ["/ws", "/socket.io/?EIO=4&transport=polling"] {
        let server = Server::start("");
        let (started, mut kept) = (Instant::now(), Vec::new());
        let refused = (0..).find(|_| {
            let (status, connection) = knock(server.http, path, &[]);
            kept.push(connection);
            status == 429
        });
        let passed = refused.unwrap();
        let due = (started.elapsed().as_secs_f64() * 10.0).ceil() as usize;
        assert!((60..=60 + due).contains(&passed), "{path}: {passed} passed, 60 and {due} may");
        server.await_metric("passerelle_signaling_rate_limited_total", &[("limit", "connections")], 1.0);
    }
}

#[test]
fn limit_of_the_time_to_authenticate() {
    let server = Server::start("");
    let started = Instant::now();
    let mut silent = RawWebSocket::connect(server.http);
    let (_, opened) = knock(server.http, "/socket.io/?EIO=4&transport=polling", &[]);
    assert_eq!(silent.closed(), 4401);
    assert!(started.elapsed() >= Duration::from_secs(9), "closed after {:?}", started.elapsed());
    drop(opened);
}

#[test]
fn limit_of_failed_authentications() {
    let server = Server::start("");
    let wrong = json!({ "token": "a.b.c" });
    for _ in 0..10 {
        let mut guess = Device::dial(&server, Framing::WebSocket, &wrong, None);
        assert_eq!(guess.closed(), "4401");
    }
    let delayed =
        || server.scrape().sum("passerelle_signaling_rate_limited_total", &[("limit", "authentication")]);
    assert_eq!(delayed(), 0.0, "ten are not delayed");
    for (framing, count) in [(Framing::WebSocket, 1.0), (WEBSOCKET_ONLY, 2.0), (UPGRADE, 3.0)] {
        let started = Instant::now();
        let mut ana = Device::dial(&server, framing, &json!({ "token": token("ana") }), None);
        ana.next("session:ready");
        assert!(started.elapsed() >= Duration::from_secs(1), "let in after {:?}", started.elapsed());
        assert_eq!(delayed(), count);
    }
}
