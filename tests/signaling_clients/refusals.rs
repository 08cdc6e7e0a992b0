//! What is refused, and how each framing says so.

use serde_json::{Value, json};

use crate::device::{Device, Framing, POLLING_ONLY, UPGRADE, WEBSOCKET_ONLY, token};
use crate::support::Server;

const FRAMINGS: [Framing; 3] = [WEBSOCKET_ONLY, POLLING_ONLY, Framing::WebSocket];
/// More than a frame may have.
const TOO_MUCH: usize = 129 * 1024;

#[test]
fn a_refusal_is_in_the_ack_or_else_in_an_event() {
    let server = Server::start("");
    let cases: [(&str, Value, &str); 6] = [
        ("call:join", json!({ "callId": "none" }), "CALL_NOT_FOUND"),
        ("call:join", json!({}), "VALIDATION_ERROR"),
        ("call:initiate", json!({ "to": "bruno", "type": "hologram" }), "UNSUPPORTED_CALL_TYPE"),
        ("call:initiate", json!({ "type": "video" }), "VALIDATION_ERROR"),
        ("call:signal", json!({ "callId": "none", "signal": { "type": "offer" } }), "INVALID_SIGNAL"),
        ("call:teleport", json!({ "callId": "none" }), "UNKNOWN_EVENT"),
    ];
    for framing in FRAMINGS {
        for acks in [false, true] {
            // Users of their own, whose rates are.
            let mut user = Device::of(&server, &format!("{framing:?}{acks}"), framing, acks);
            for (event, payload, code) in &cases {
                let error = user.refused(event, payload);
                assert_eq!(error["code"], *code, "{framing:?}, acks {acks}: {error}");
                assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
            }
        }
    }
    let unknown = [("code", "UNKNOWN_EVENT")];
    assert_eq!(server.scrape().sum("passerelle_signaling_errors_total", &unknown), 6.0);
}

#[test]
fn binary_is_not_supported() {
    let server = Server::start("");
    for framing in [WEBSOCKET_ONLY, POLLING_ONLY] {
        let mut ana = Device::of(&server, "ana", framing, true);
        ana.send_binary("call:signal", 16);
        assert_eq!(ana.last_ack().unwrap_err()["code"], "BINARY_UNSUPPORTED");
        // And nothing worse comes of it.
        ana.acked("call:heartbeat", &json!({})).unwrap();
    }
    let mut ana = Device::of(&server, "ana", Framing::WebSocket, true);
    ana.send_binary("call:signal", 16);
    assert_eq!(ana.closed(), "4400");
}

#[test]
fn a_wrong_token_does_not_get_in() {
    let server = Server::start("[auth]\nanonymous = \"loopback\"\n");
    let mut forged = token("ana");
    forged.truncate(forged.len() - 8);
    forged.push_str("AAAAAAAA");
    for framing in [WEBSOCKET_ONLY, POLLING_ONLY, UPGRADE] {
        let mut ana = Device::dial(&server, framing, &json!({ "token": forged }), None);
        assert_eq!(ana.not_let_in(), "NOT_AUTHENTICATED", "{framing:?}");
    }
    let mut ana = Device::dial(&server, Framing::WebSocket, &json!({ "token": forged }), None);
    assert_eq!(ana.last_ack().unwrap_err()["code"], "NOT_AUTHENTICATED");
    assert_eq!(ana.closed(), "4401");
}

#[test]
fn a_page_of_a_foreign_origin_does_not_get_in() {
    let server = Server::start("[http]\norigins = [\"https://app.example.org\"]\n");
    let hello = json!({ "token": token("ana") });
    for framing in FRAMINGS {
        let mut friend = Device::dial(&server, framing, &hello, Some("https://app.example.org"));
        friend.next("session:ready");
        for foreign in ["https://app.example.org.evil.example", "https://evil.example", "null"] {
            let mut stranger = Device::dial(&server, framing, &hello, Some(foreign));
            let said = stranger.not_let_in();
            let expected = match framing {
                Framing::WebSocket => "403",
                Framing::SocketIo(["polling"]) => "xhr poll error",
                Framing::SocketIo(_) => "websocket error",
            };
            assert_eq!(said, expected, "{framing:?} from {foreign}");
        }
    }
}

#[test]
fn a_page_of_any_origin_needs_a_token_where_no_origins_are_configured() {
    let server = Server::start("[auth]\nanonymous = \"loopback\"\n");
    let (somebody, ana) = (json!({ "name": "Somebody" }), json!({ "token": token("ana") }));
    for framing in FRAMINGS {
        let mut page = Device::dial(&server, framing, &ana, Some("https://any.example"));
        page.next("session:ready");
        let mut page = Device::dial(&server, framing, &somebody, Some("https://any.example"));
        if framing == Framing::WebSocket {
            assert_eq!(page.last_ack().unwrap_err()["code"], "PERMISSION_DENIED");
            assert_eq!(page.closed(), "4403");
        } else {
            assert_eq!(page.not_let_in(), "PERMISSION_DENIED");
        }
    }
}

#[test]
fn a_frame_that_is_too_large_ends_the_connection() {
    let server = Server::start("");
    for (framing, reason) in
        [(Framing::WebSocket, "1009"), (WEBSOCKET_ONLY, "transport close"), (POLLING_ONLY, "transport error")]
    {
        let mut ana = Device::of(&server, "ana", framing, true);
        // Large but not too large is read and refused by its size.
        let large = json!({ "callId": "x".repeat(100 * 1024) });
        assert_eq!(ana.refused("call:join", &large)["code"], "VALIDATION_ERROR");
        ana.post("call:join", &json!({ "callId": "x".repeat(TOO_MUCH) }), None);
        assert_eq!(ana.closed(), reason, "{framing:?}");
    }
    server.await_metric("passerelle_signaling_sessions", &[("state", "connected")], 0.0);
}

#[test]
fn who_calls_too_often_is_told_when_to_try_again() {
    let server = Server::start("");
    for (user, framing, acks) in [
        ("ana", WEBSOCKET_ONLY, false),
        ("bruno", POLLING_ONLY, true),
        ("carla", Framing::WebSocket, true),
        ("dora", Framing::WebSocket, false),
    ] {
        let mut device = Device::of(&server, user, framing, acks);
        let request = json!({ "to": "nobody", "type": "video" });
        for _ in 0..5 {
            assert_eq!(device.refused("call:initiate", &request)["code"], "USER_OFFLINE");
        }
        let error = device.refused("call:initiate", &request);
        assert_eq!(error["code"], "RATE_LIMIT_EXCEEDED");
        let wait = error["retryAfterMs"].as_u64().unwrap();
        assert!((1..=12_000).contains(&wait), "five a minute, so one in twelve seconds: {wait}");
    }
    let limit = [("limit", "initiate")];
    assert_eq!(server.scrape().sum("passerelle_signaling_rate_limited_total", &limit), 4.0);
}
