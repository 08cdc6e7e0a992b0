//! What hostile clients did to other servers of signaling, and what it comes to here. Names begin with the row of
//! docs/security.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "signaling_clients/device.rs"]
mod device;
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use device::{Device, Framing, POLLING_ONLY, WEBSOCKET_ONLY, token};
use serde_json::{Value, json};
use support::raw_http::{exchange, knock, request};
use support::raw_websocket::{BINARY, FIN, RawWebSocket, TEXT, frame};
use support::server::TOKEN_SECRET;
use support::{PATIENCE, Server};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
/// Everybody here comes from one address, so that each connection is told to be another one's.
const PROXIED: &str = "[http]\ntrusted_proxies = [\"127.0.0.1/32\"]\n";

#[test]
fn w1_a_page_of_another_origin_opens_no_connection() {
    let server =
        Server::start("[http]\norigins = [\"https://app.example.org\", \"https://xn--bcher-kva.example\"]\n");
    for (origin, fits) in [
        (None, true),
        (Some("https://app.example.org"), true),
        (Some("https://APP.Example.org"), true),
        (Some("https://xn--bcher-kva.example"), true),
        (Some("null"), false),
        (Some("https://app.example.org.evil.example"), false),
        (Some("https://app.example.org:8443"), false),
        (Some("https://bücher.example"), false),
    ] {
        let headers: Vec<(&str, &str)> = origin.map(|origin| ("Origin", origin)).into_iter().collect();
        for (path, open) in [("/ws", 101), (POLLING, 200)] {
            let (status, _) = knock(server.http, path, &headers);
            assert_eq!(status, if fits { open } else { 403 }, "{path} from {origin:?}");
        }
    }
}

/// A Socket.IO connection over a raw WebSocket, of an address of its own, in the namespace of the calls.
fn engine(server: &Server, address: usize) -> RawWebSocket {
    let forwarded = format!("X-Forwarded-For: 198.51.{}.{}\r\n", address / 250, 1 + address % 250);
    let path = "/socket.io/?EIO=4&transport=websocket";
    let (mut socket, _) = RawWebSocket::open(server.http, path, &forwarded);
    let (_, open) = socket.frame().expect("the handshake of Engine.IO");
    assert_eq!(open.first(), Some(&b'0'));
    socket.write(&frame(FIN | TEXT, format!("40{}", json!({ "token": token("mallory") })).as_bytes()));
    socket
}

/// The server serves others, and nothing of it has panicked.
#[track_caller]
fn is_well(server: &Server) {
    for framing in [WEBSOCKET_ONLY, Framing::WebSocket] {
        let mut ana = Device::of(server, "ana", framing, true);
        ana.acked("call:heartbeat", &json!({})).unwrap();
    }
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Packets that have crashed servers, and others of the kind.
const PACKETS: [&str; 30] = [
    // An event whose name is an object (CVE-2023-32695), reserved names (CVE-2024-38355).
    r#"42[{"toString":"rce"}]"#,
    r#"42["error"]"#,
    r#"42["disconnect",{}]"#,
    r#"42["connect_error",{}]"#,
    r#"42["__proto__",{"x":1}]"#,
    // Attachments that never come, that are none, that are without end.
    r#"451-["x",{"_placeholder":true,"num":0}]"#,
    r#"451-["x",{"_placeholder":true,"num":99}]"#,
    r#"451-["x",{"_placeholder":true,"num":-1}]"#,
    r#"450-["x"]"#,
    r#"45-["x"]"#,
    r#"4599999999999999999999-["x"]"#,
    r#"461-7[{"_placeholder":true,"num":1e99}]"#,
    // Acks of nothing, ids without end.
    "43[]",
    "4399[{}]",
    r#"4299999999999999999999999999["x",{}]"#,
    r#"42-1["x",{}]"#,
    // Halves.
    "",
    "4",
    "42",
    "42[",
    r#"42["x""#,
    "40{",
    r#"40{"token":7}"#,
    "44{}",
    // Namespaces.
    r#"42/nope,["x",{}]"#,
    "40/../../etc/passwd,{}",
    "41/nope,",
    // Engine.IO.
    "2probe",
    "5",
    "9\u{0}\u{fffd}",
];

#[test]
fn w2_packets_that_crashed_other_servers_hurt_nobody() {
    let server = Server::start(PROXIED);
    for (at, packet) in PACKETS.iter().enumerate() {
        let mut socket = engine(&server, at);
        socket.write(&frame(FIN | TEXT, packet.as_bytes()));
        socket.write(&frame(FIN | BINARY, b"an attachment of nothing"));
        socket.write(&frame(FIN | TEXT, br#"42["call:heartbeat",{}]"#));
        let from = [("X-Forwarded-For", &*format!("203.0.113.{}", 1 + at))];
        let (_, _, open) = request(server.http, "GET", POLLING, &from, "");
        let open: Value = serde_json::from_str(open.trim_start_matches('0')).unwrap();
        let path = format!("{POLLING}&sid={}", open["sid"].as_str().unwrap());
        let connect = format!("40{}", json!({ "token": token("mallory") }));
        for body in [&*connect, packet, r#"42["call:heartbeat",{}]"#] {
            let (status, ..) = request(server.http, "POST", &path, &from, body);
            assert!(status < 500, "{packet} is answered with {status}");
            assert!(body != connect || status == 200, "{status}");
        }
    }
    is_well(&server);
}

#[test]
fn w2_mutated_packets_hurt_nobody() {
    let server = Server::start(PROXIED);
    let mut random = 7_u64;
    let mut below = move |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % bound
    };
    for address in 0..60 {
        let mut socket = engine(&server, address);
        for _ in 0..20 {
            let mut packet = PACKETS[below(PACKETS.len())].as_bytes().to_vec();
            for _ in 0..=below(3) {
                let at = below(packet.len() + 1);
                match below(3) {
                    0 => packet.insert(at, b"0123456789[]{}\",:-/\\\x00\xff"[below(22)]),
                    1 => packet.truncate(at),
                    _ => packet.extend(PACKETS[below(PACKETS.len())].bytes()),
                }
            }
            let head = if below(5) == 0 { BINARY } else { TEXT };
            socket.write(&frame(FIN | head, &packet));
        }
    }
    is_well(&server);
}

#[test]
fn w3_a_million_attachments_that_are_announced_cost_nothing() {
    let server = Server::start(PROXIED);
    let announce = |addresses: std::ops::Range<usize>| -> Vec<RawWebSocket> {
        let open = addresses.map(|address| {
            let mut socket = engine(&server, address);
            socket.write(&frame(FIN | TEXT, br#"451000000-["x",{"_placeholder":true,"num":0}]"#));
            socket.write(&frame(FIN | BINARY, &[0; 100]));
            // What it was answered shows that it was read.
            socket.frame();
            socket
        });
        open.collect()
    };
    let warm = announce(0..40);
    let before = server.resident_kib();
    let more = announce(40..80);
    let grown = server.resident_kib().saturating_sub(before);
    // Connections and sessions cost something themselves.
    assert!(grown < 4 * 1024, "{grown} KiB for {} announcements", more.len());
    drop(warm);
    is_well(&server);
}

#[test]
fn w4_heads_are_bounded_in_bytes_and_in_time_and_there_is_no_http2() {
    let server = Server::start("");
    let lines: String = (0..2_000).map(|n| format!("x-{n}: {n}\r\n")).collect();
    for head in [format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(17 * 1024)), lines] {
        let head = if head.starts_with("GET") { head } else { format!("GET / HTTP/1.1\r\n{head}\r\n") };
        let answer = exchange(server.http, head.as_bytes());
        let refused =
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 ") || answer.starts_with(b"HTTP/1.1 400 ");
        assert!(refused, "{}", String::from_utf8_lossy(&answer));
    }
    // The preface of HTTP/2, settings, and a thousand empty frames of data.
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
    (0..1_000).for_each(|_| flood.extend(b"\x00\x00\x00\x00\x00\x00\x00\x00\x01"));
    let answer = exchange(server.http, &flood);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
    // A head that never ends.
    let started = Instant::now();
    let mut slow = TcpStream::connect(server.http).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    loop {
        let _ = slow.write_all(b"x");
        match slow.read(&mut [0; 256]) {
            Ok(0) => break,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            _ => assert!(started.elapsed() < PATIENCE, "a head may take as long as it likes"),
        }
    }
    is_well(&server);
}

#[test]
fn w7_to_a_stranger_a_call_of_others_and_no_call_are_the_same() {
    const ABSENT: &str = "0123456789abcdef0123456789abcdef";
    let server = Server::start("");
    let mut ana = Device::of(&server, "ana", Framing::WebSocket, true);
    let _bruno = Device::of(&server, "bruno", Framing::WebSocket, true);
    let call = ana.ask("call:initiate", &json!({ "to": "bruno", "type": "video", "roomId": "tea" })).unwrap();
    let id = call["callId"].as_str().unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "128 bits: {id}");
    for framing in [WEBSOCKET_ONLY, POLLING_ONLY, Framing::WebSocket] {
        let mut stranger = Device::of(&server, "stranger", framing, true);
        let offer = json!({ "type": "bye", "to": "ana" });
        for event in [
            "call:join",
            "call:leave",
            "call:decline",
            "call:end",
            "call:toggle-audio",
            "call:signal",
            "call:invite",
            "call:kick",
            "call:mute",
            "call:lock",
            "call:message",
            "call:request-ice-servers",
            "call:quality-report",
        ] {
            let mut refusal = |call: &str| {
                let payload = json!({
                    "callId": call, "enabled": true, "signal": offer, "to": "ana", "participantId": "ana", "data": 1,
                    "stats": { "rtt": 1, "packetLoss": 0 },
                });
                let error = stranger.acked(event, &payload).expect_err(event);
                error.to_string().replace(call, "ID")
            };
            let (real, absent) = (refusal(id), refusal(ABSENT));
            assert_eq!(real, absent, "{event}");
            assert!(real.contains("CALL_NOT_FOUND"), "{event}: {real}");
        }
    }
    let authorization = format!("Bearer {}", token("stranger"));
    let headers = [("Authorization", &*authorization), ("Content-Type", "application/json")];
    for (method, path) in
        [("GET", ""), ("POST", "/end"), ("POST", "/participants/ana/kick"), ("POST", "/lock")]
    {
        let answer = |call: &str| {
            let path = format!("/api/v1/calls/{call}{path}");
            let (status, head, body) = request(server.http, method, &path, &headers, "{}");
            let head: Vec<&str> = head.lines().filter(|line| !line.starts_with("date:")).collect();
            (status, head.join("\n"), body.replace(call, "ID"))
        };
        let (real, absent) = (answer(id), answer(ABSENT));
        assert_eq!(real, absent, "{method} {path}");
        assert_eq!(real.0, 404, "{real:?}");
    }
}

#[test]
fn w8_what_looks_like_a_page_stays_text() {
    const SVG: &str = "<svg onload=alert(1)>";
    let server = Server::start("");
    let claims = json!({ "sub": SVG, "name": SVG, "preferred_username": SVG, "picture": "javascript:alert(1)", "exp": 4_000_000_000_u64 });
    let key = jsonwebtoken::EncodingKey::from_secret(TOKEN_SECRET.as_bytes());
    let hostile = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    let mut mallory = Device::dial(&server, Framing::WebSocket, &json!({ "token": hostile }), None);
    mallory.next("session:ready");
    let mut ana = Device::of(&server, "ana", WEBSOCKET_ONLY, true);
    let call = json!({ "to": "ana", "type": "video", "roomId": SVG, "metadata": { SVG: SVG } });
    let id = mallory.ask("call:initiate", &call).unwrap()["callId"].clone();
    let rung = ana.next("call:initiated");
    assert_eq!(
        rung["initiator"],
        json!({ "userId": SVG, "displayName": SVG, "username": SVG }),
        "no script as a picture"
    );
    assert_eq!((&rung["roomId"], &rung["metadata"][SVG]), (&json!(SVG), &json!(SVG)));
    ana.ask("call:join", &json!({ "callId": id }));
    mallory.ask("call:message", &json!({ "callId": id, "data": SVG }));
    assert_eq!(ana.next("call:message")["data"], SVG);
    // Of a signal only what signals have goes on, and what is no description or candidate goes nowhere.
    let candidate =
        json!({ "type": "ice-candidate", "candidate": "candidate:1", "usernameFragment": SVG, SVG: SVG });
    mallory.ask("call:signal", &json!({ "callId": id, "signal": candidate }));
    let signal = &ana.next("call:signal")["signal"];
    assert!(signal[SVG].is_null() && signal["candidate"] == "candidate:1", "{signal}");
    for signal in
        [json!({ "type": "offer", "sdp": SVG }), json!({ "type": "ice-candidate", "candidate": SVG })]
    {
        let refused = mallory.refused("call:signal", &json!({ "callId": id, "signal": signal }));
        assert_eq!(refused["code"], "INVALID_SIGNAL");
    }
    let authorization = format!("Bearer {hostile}");
    for (path, kind) in [
        (format!("/api/v1/calls/{}", id.as_str().unwrap()), "application/json"),
        ("/api/v1/calls/active".into(), "application/json"),
        ("/api/v1/calls.csv".into(), "text/csv"),
        ("/%3Csvg%20onload=alert(1)%3E".into(), ""),
        ("/".into(), "text/html"),
    ] {
        let (_, head, body) = request(server.http, "GET", &path, &[("Authorization", &authorization)], "");
        assert!(head.contains("x-content-type-options: nosniff"), "{path}: {head}");
        assert!(kind.is_empty() || head.contains(&format!("content-type: {kind}")), "{path}: {head}");
        assert!(!head.contains("text/html") || !body.contains(SVG), "{path}: {body}");
        if kind == "text/html" {
            let policy =
                head.lines().find(|line| line.starts_with("content-security-policy:")).expect("a policy");
            assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
        }
    }
    // And the page makes no markup of what it is sent.
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/web")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap_or_default();
        for maker in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!text.contains(maker), "{maker} in web/");
        }
    }
}

#[test]
fn w9_nobody_speaks_in_the_name_of_another() {
    let server = Server::start("");
    for framing in [WEBSOCKET_ONLY, Framing::WebSocket] {
        let mut ana = Device::of(&server, "ana", framing, true);
        let mut bruno = Device::of(&server, "bruno", Framing::WebSocket, true);
        let call =
            ana.ask("call:initiate", &json!({ "to": "bruno", "type": "video", "from": "carla" })).unwrap();
        let id = &call["callId"];
        assert_eq!(bruno.next("call:initiated")["initiator"]["userId"], "ana");
        bruno.ask("call:join", &json!({ "callId": id, "userId": "carla", "participantId": "carla" }));
        assert_eq!(ana.next("call:participant-joined")["participant"]["userId"], "bruno");
        let forged = json!({ "callId": id, "signal": { "type": "bye", "from": "carla" } });
        assert_eq!(ana.refused("call:signal", &forged)["code"], "SIGNAL_SENDER_MISMATCH");
        ana.ask("call:message", &json!({ "callId": id, "data": 1, "from": "carla", "sentAt": 0 }));
        assert_eq!(bruno.next("call:message")["from"], "ana");
        ana.ask("call:toggle-audio", &json!({ "callId": id, "enabled": false, "userId": "bruno" }));
        assert_eq!(bruno.next("call:media-toggled")["userId"], "ana");
        ana.ask("call:leave", &json!({ "callId": id, "endedBy": "bruno", "userId": "bruno" }));
        assert_eq!(bruno.next("call:ended")["endedBy"], "ana");
    }
}

#[test]
fn w11_whoever_is_no_trusted_proxy_cannot_say_where_it_is() {
    let knocks = |server: &Server| {
        let mut kept = Vec::new();
        let refused = (0..120).filter(|n| {
            let address = format!("198.51.100.{n}");
            let (status, connection) = knock(server.http, "/ws", &[("X-Forwarded-For", &address)]);
            kept.push(connection);
            status == 429
        });
        refused.count()
    };
    assert!(knocks(&Server::start("")) > 0, "a header makes no other address");
    assert_eq!(knocks(&Server::start(PROXIED)), 0, "each is counted by itself");
}

#[test]
fn a12_hostile_tokens_open_nothing_on_any_framing() {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    let server = Server::start("");
    let key = EncodingKey::from_secret(TOKEN_SECRET.as_bytes());
    let good = json!({ "sub": "ana", "exp": 4_000_000_000_u64 });
    let sign = |algorithm, claims: &Value| encode(&Header::new(algorithm), claims, &key).unwrap();
    let valid = sign(Algorithm::HS256, &good);
    let parts: Vec<&str> = valid.split('.').collect();
    let none = "eyJhbGciOiJub25lIn0";
    let hostile = [
        format!("{none}.{}.", parts[1]),
        format!("{none}.{}.{}", parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        sign(Algorithm::HS384, &good),
        sign(Algorithm::HS512, &good),
        sign(Algorithm::HS256, &json!({ "sub": "ana" })),
        sign(Algorithm::HS256, &json!({ "sub": "ana", "exp": "4000000000" })),
        sign(Algorithm::HS256, &json!({ "sub": "ana", "exp": 1 })),
        sign(Algorithm::HS256, &json!({ "sub": "ana", "exp": 4_000_000_000_u64, "nbf": "1" })),
    ];
    // Fewer than are delayed.
    for (at, token) in hostile.iter().enumerate() {
        let framing = [WEBSOCKET_ONLY, POLLING_ONLY, Framing::WebSocket][at % 3];
        let mut mallory = Device::dial(&server, framing, &json!({ "token": token }), None);
        let code = match framing {
            Framing::WebSocket => mallory.last_ack().unwrap_err()["code"].as_str().unwrap().to_owned(),
            Framing::SocketIo(_) => mallory.not_let_in(),
        };
        assert!(["NOT_AUTHENTICATED", "TOKEN_EXPIRED"].contains(&&*code), "{token}: {code}");
    }
    let mut ana = Device::dial(&server, Framing::WebSocket, &json!({ "token": valid }), None);
    assert_eq!(ana.next("session:ready")["userId"], "ana");
}
