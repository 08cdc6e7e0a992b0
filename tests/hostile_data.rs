//! What names and numbers from outside did to databases, logs and metrics of other servers. Names begin with the row of
//! docs/security.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "signaling_clients/device.rs"]
mod device;
#[path = "signaling_clients/records.rs"]
mod records;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use device::{Device, Framing, POLLING_ONLY, WEBSOCKET_ONLY, token};
use records::{Database, ended, rest};
use serde_json::{Value, json};
use sqlx::Row as _;
use support::postgres::Postgres;
use support::raw_http::request;
use support::stun_client::rest_credential;
use support::{Client, Request, Server, eventually};

/// Starts a call in a room, takes it and ends it; gives the record as the caller sees it.
fn recorded(server: &Server, caller: &str, callee: &str, room: &str, metadata: &Value) -> Value {
    let mut ana = Device::of(server, caller, Framing::WebSocket, true);
    let mut bruno = Device::of(server, callee, Framing::WebSocket, true);
    let call = json!({ "to": callee, "type": "audio", "roomId": room, "metadata": metadata });
    let call = ana.ask("call:initiate", &call).unwrap();
    let id = json!({ "callId": call["callId"] });
    bruno.ask("call:join", &id);
    ana.ask("call:leave", &json!({ "callId": call["callId"], "reason": room }));
    bruno.next("call:ended");
    ended(server, caller, call["callId"].as_str().unwrap())
}

/// As a part of a query.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn x1_a_name_never_becomes_a_statement() {
    let database = Database::new();
    let server = Server::start(&database.config());
    no_statement(&server);
    let count = database
        .row("SELECT count(*) AS calls, (SELECT count(*) FROM call_participants) AS seats FROM calls");
    assert_eq!((count.get::<i64, _>("calls"), count.get::<i64, _>("seats")), (5, 10));
}

#[test]
fn x1_a_name_never_becomes_a_statement_of_postgresql_either() {
    let mut database = Postgres::new();
    database.start();
    eventually("PostgreSQL accepts connections", || database.accepts().then_some(()));
    no_statement(&Server::start(&database.config()));
}

/// Calls and asks with names that would be statements elsewhere.
fn no_statement(server: &Server) {
    let hostile = [
        "'; DROP TABLE calls; --",
        "\" OR \"1\"=\"1",
        "x') UNION SELECT sql FROM sqlite_master --",
        "%' OR 1=1 --",
        "\\'; DELETE FROM call_participants WHERE ''='",
    ];
    for text in hostile {
        let record = recorded(server, text, &format!("{text} too"), text, &json!({ text: text }));
        assert_eq!(
            (&record["initiatorId"], &record["conversationId"]),
            (&json!(text), &json!(text)),
            "{record}"
        );
    }
    for text in hostile {
        for query in ["roomId", "cursor", "status", "type", "direction", "since", "until", "limit"] {
            let (status, list) = rest(server, text, &format!("calls?{query}={}", escaped(text)));
            let found = list["calls"].as_array().map_or(0, Vec::len);
            let expected = match query {
                "roomId" => (200, 1),
                "status" | "type" => (200, 0),
                _ => (400, 0),
            };
            assert_eq!((status, found), expected, "{query}={text}: {list}");
        }
        // Nobody sees more than its own.
        let (_, list) = rest(server, text, "calls");
        assert_eq!(list["calls"].as_array().unwrap().len(), 1, "{list}");
    }
}

#[test]
fn x2_nothing_listens_but_what_is_configured() {
    let server = Server::start("[listen]\ntcp = [\"127.0.0.1:0\"]\n");
    let own: BTreeSet<String> = fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    assert!(!own.is_empty());
    // Ports of the server's sockets of a kind in a state: 0A listens, 07 is a bound UDP socket.
    let ports = |kind: &str, state: &str| -> BTreeSet<u16> {
        let table = fs::read_to_string(format!("/proc/{}/net/{kind}", server.pid())).unwrap_or_default();
        let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines
            .filter(|words| words[3] == state && own.contains(words[9]))
            .map(|words| u16::from_str_radix(words[1].rsplit(':').next().unwrap(), 16).unwrap())
            .collect()
    };
    let listening: BTreeSet<u16> = ["tcp", "tcp6"].iter().flat_map(|kind| ports(kind, "0A")).collect();
    let expected = [server.http.port(), server.metrics.port(), server.tcp[0].port()];
    assert_eq!(listening, BTreeSet::from(expected));
    let bound: BTreeSet<u16> = ["udp", "udp6"].iter().flat_map(|kind| ports(kind, "07")).collect();
    assert_eq!(bound, BTreeSet::from([server.turn().port()]));
    let unix = fs::read_to_string(format!("/proc/{}/net/unix", server.pid())).unwrap();
    let listens = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(3) == Some(&"00010000") && words.get(6).is_some_and(|inode| own.contains(*inode))
    };
    assert_eq!(unix.lines().filter(listens).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn x3_a_name_is_no_format() {
    const NAME: &str = "%s%n%x{}{0}${jndi:ldap://x}";
    let database = Database::new();
    let server = Server::start(&database.config());
    let record = recorded(&server, NAME, "bruno", NAME, &json!(NAME));
    assert_eq!((&record["initiatorId"], &record["conversationId"]), (&json!(NAME), &json!(NAME)), "{record}");
    let row = database.row("SELECT room_id, initiator_id FROM calls WHERE ended_at IS NOT NULL");
    assert_eq!((row.get::<&str, _>("room_id"), row.get::<&str, _>("initiator_id")), (NAME, NAME));
}

#[test]
fn x4_the_log_keeps_secrets_and_its_lines() {
    const API_KEY: &str = "an api key that is long enough for everyone";
    const ANONYMOUS: &str = "a secret of nobody in particular";
    let server = Server::start(&format!(
        "[auth]\nanonymous = \"loopback\"\napi_keys = [\"{API_KEY}\"]\n[log]\nlevel = \"debug,passerelle=trace\"\n"
    ));
    let mut secrets: Vec<String> =
        [API_KEY, ANONYMOUS, support::server::SECRET, support::server::TOKEN_SECRET]
            .into_iter()
            .chain([support::server::ALICE.1, support::server::BOB.1])
            .map(ToOwned::to_owned)
            .collect();
    // Callers of every kind, right and wrong, one of whom writes in red and over two lines.
    let (ana, mut forged) = (token("ana"), token("mallory"));
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    let mut sessions = Vec::new();
    for framing in [WEBSOCKET_ONLY, POLLING_ONLY, Framing::WebSocket] {
        let mut device = Device::dial(&server, framing, &json!({ "token": ana }), None);
        let ready = device.next("session:ready");
        secrets.push(ready["resume"]["key"].as_str().unwrap().to_owned());
        let resume = json!({ "sid": ready["sid"], "key": ready["resume"]["key"], "seq": 0 });
        let mut again = Device::dial(&server, framing, &json!({ "token": ana, "resume": resume }), None);
        let ready = again.next("session:ready");
        secrets.push(ready["resume"]["key"].as_str().unwrap().to_owned());
        let credentials =
            ready["iceServers"].as_array().unwrap().iter().filter_map(|server| server["credential"].as_str());
        secrets.extend(credentials.map(ToOwned::to_owned));
        if framing == Framing::WebSocket {
            assert!(again.acked("call:\u{1b}[31mred\nfake", &json!({})).is_err());
        }
        assert!(again.acked("session:refresh", &json!({ "token": forged })).is_err());
        let hello = json!({ "anonymousKey": ANONYMOUS, "name": "\u{1b}[31mred\r\n{\"level\":\"ERROR\"}" });
        let mut anonymous = Device::dial(&server, framing, &hello, None);
        anonymous.next("session:ready");
        let mut mallory = Device::dial(&server, framing, &json!({ "token": forged }), None);
        if framing == Framing::WebSocket {
            drop(mallory.closed());
        } else {
            drop(mallory.not_let_in());
        }
        sessions.extend([device, again, anonymous]);
    }
    for secret in [&ana, &forged, API_KEY] {
        for (path, header) in [
            ("/api/v1/ice-servers".to_owned(), format!("Bearer {secret}")),
            (format!("/api/v1/calls?access_token={secret}").replace(' ', "+"), String::new()),
            (format!("/turn?service=turn&username=x&key={secret}").replace(' ', "%20"), String::new()),
            ("/api/v1/\u{1b}[31mred".replace('\u{1b}', "%1b"), format!("Anonymous {ANONYMOUS}")),
        ] {
            let headers: Vec<(&str, &str)> =
                if header.is_empty() { Vec::new() } else { vec![("Authorization", &header)] };
            let (_, _, body) = request(server.http, "GET", &path, &headers, "");
            let body: Value = serde_json::from_str(&body).unwrap_or_default();
            secrets.extend(body["password"].as_str().map(ToOwned::to_owned));
        }
    }
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::refresh(0)).code(), 0);
    let (name, password) = rest_credential("ana", support::server::SECRET, Duration::from_secs(600));
    let mut client = Client::new(server.turn()).with_user((&name, &password));
    client.allocate();
    secrets.push(password);
    secrets.extend([&ana, &forged].map(|token| token.rsplit('.').next().unwrap().to_owned()));
    drop(sessions);

    let log = server.stop();
    assert!(log.lines().count() > 20, "too little is logged to find anything in it");
    for secret in secrets {
        let spellings = [secret.clone(), secret.replace(' ', "+"), secret.replace(' ', "%20")];
        let line = log.lines().find(|line| spellings.iter().any(|secret| line.contains(secret.as_str())));
        assert_eq!(line, None, "a secret is logged");
    }
    for line in log.lines() {
        assert!(
            serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()),
            "a line of its own: {line}"
        );
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

#[test]
fn d7_scrapes_leave_nothing_and_users_make_no_series() {
    let server = Server::start("");
    let scrape = |times: usize| (0..times).for_each(|_| drop(server.scrape()));
    let series = || {
        let (_, _, body) = request(server.metrics, "GET", "/metrics", &[], "");
        body.lines().filter(|line| !line.starts_with('#')).count()
    };
    let talk = |users: std::ops::Range<usize>| {
        for user in users {
            let record =
                recorded(&server, &format!("caller-{user}"), &format!("callee-{user}"), "tea", &Value::Null);
            assert_eq!(record["status"], "completed");
        }
    };
    talk(0..2);
    scrape(100);
    let (before, few) = (series(), server.resident_kib());
    talk(2..12);
    assert_eq!(series(), before, "what a label says is never a user, a room or a call");
    scrape(1_000);
    let grown = server.resident_kib().saturating_sub(few);
    assert!(grown < 4 * 1024, "a thousand scrapes and ten calls left {grown} KiB");
    // More at once than are answered at once are told so, and the next is answered.
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let (status, ..) = request(server.metrics, "GET", "/metrics", &[], "");
                    assert!(status == 200 || status == 503, "{status}");
                }
            });
        }
    });
    scrape(1);
    // There is no body to keep, and nothing but metrics.
    let (status, ..) = request(server.metrics, "POST", "/metrics", &[], &"x".repeat(100_000));
    assert_eq!(status, 405);
    let (status, ..) = request(server.metrics, "GET", "/api/v1/calls", &[], "");
    assert_eq!(status, 404);
}

#[test]
fn a6_what_proves_a_secret_is_compared_in_constant_time() {
    let source =
        |file: &str| fs::read_to_string(format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    // Every place where something secret meets what a stranger has sent.
    for (file, comparisons) in
        [("stun/message.rs", 1), ("turn/nonce.rs", 2), ("auth/api_keys.rs", 1), ("signaling/resume.rs", 1)]
    {
        let text = source(file);
        let code = text.split("#[cfg(test)]").next().unwrap();
        assert_eq!(code.matches(".ct_eq(").count(), comparisons, "{file}");
    }
    // Types that hold a secret have no other comparison.
    for (file, name) in [
        ("stun/integrity.rs", "Key"),
        ("auth/api_keys.rs", "ApiKeys"),
        ("auth/shared_secret.rs", "SharedSecrets"),
        ("auth/users.rs", "Users"),
        ("signaling/resume.rs", "Key"),
        ("signaling/resume.rs", "Keys"),
    ] {
        let text = source(file);
        let at = text.find(&format!("struct {name}")).unwrap_or_else(|| panic!("{file} has no {name}"));
        let derives = text[..at].rsplit("\n\n").next().unwrap();
        assert!(!derives.contains("PartialEq"), "{file}: {name} can be compared with ==: {derives}");
        assert!(!text.contains(&format!("PartialEq for {name} ")), "{file}: {name} can be compared with ==");
    }
}

#[test]
fn a13_a_client_behind_a_changed_port_has_a_new_allocation_beside_its_old_one() {
    let server = Server::start("[relay]\nallow_peers = [\"127.0.0.0/8\"]\n");
    let peer = support::EchoPeer::start();
    let (mut old, old_relay) = Client::allocated(server.turn());
    assert_eq!(old.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    // The router has forgotten the mapping: the same user comes from another port, ten allocations long.
    let mut clients = Vec::new();
    for _ in 1..10 {
        let (mut client, relay) = Client::allocated(server.turn());
        assert_ne!(relay, old_relay);
        assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
        client.send_channel_data(0x4000, b"new");
        assert_eq!(client.receive_channel_data(), (0x4000, b"new".to_vec()));
        clients.push(client);
    }
    old.send_channel_data(0x4000, b"old");
    assert_eq!(old.receive_channel_data(), (0x4000, b"old".to_vec()), "it is not taken over");
    let mut beyond = Client::new(server.turn());
    assert_eq!(beyond.ask_signed(Request::allocate()).code(), 486);
    // What is given up makes room.
    assert_eq!(old.ask_signed(Request::refresh(0)).code(), 0);
    assert_eq!(beyond.ask_signed(Request::allocate()).code(), 0);
}
