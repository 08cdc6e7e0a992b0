//! The ICE servers that signaling hands out are this server's, their credentials work, and a call takes its own along.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::device::{Device, Framing, WEBSOCKET_ONLY};
use crate::records::{Database, as_operator, rest};
use crate::support::server::{LOOPBACK_PEERS, SECRET};
use crate::support::stun_client::rest_credential;
use crate::support::{Client, EchoPeer, Request, Server, eventually};

/// `iceServers` as a browser would use it: the TURN address over UDP and the credentials for it.
#[track_caller]
fn turn_server(answer: &Value) -> (SocketAddr, String, String) {
    let servers = answer["iceServers"].as_array().unwrap();
    let urls = |server: &Value| -> Vec<String> { serde_json::from_value(server["urls"].clone()).unwrap() };
    assert!(servers.iter().flat_map(urls).any(|url| url.starts_with("stun:")), "{answer}");
    let found = servers.iter().find_map(|server| {
        let url = urls(server)
            .into_iter()
            .find(|url| url.starts_with("turn:") && url.ends_with("?transport=udp"))?;
        let address = url.strip_prefix("turn:")?.strip_suffix("?transport=udp")?.parse().ok()?;
        Some((address, server["username"].as_str()?.to_owned(), server["credential"].as_str()?.to_owned()))
    });
    found.unwrap_or_else(|| panic!("no TURN server over UDP: {answer}"))
}

/// A client that holds an allocation with the credentials of an answer.
#[track_caller]
fn allocate(answer: &Value) -> (Client, SocketAddr) {
    let (address, user, password) = turn_server(answer);
    let mut client = Client::new(address).with_user((&user, &password));
    let relayed = client.ask_signed(Request::allocate()).relayed();
    (client, relayed)
}

#[test]
fn credentials_allocate_and_those_of_a_call_end_with_it() {
    let server = Server::start(LOOPBACK_PEERS);
    let mut ana = Device::of(&server, "ana", WEBSOCKET_ONLY, true);
    let mut bruno =
        Device::dial(&server, Framing::WebSocket, &json!({ "token": crate::device::token("bruno") }), None);
    let ready = bruno.next("session:ready");
    let (mut of_session, _) = allocate(&ready);

    let initiated = ana.ask("call:initiate", &json!({ "to": "bruno", "type": "video" })).unwrap();
    let call = json!({ "callId": initiated["callId"] });
    let joined = bruno.ask("call:join", &call).unwrap();
    let ((mut of_ana, at_ana), (mut of_bruno, at_bruno)) = (allocate(&initiated), allocate(&joined));
    let refreshed = ana.ask("call:request-ice-servers", &call).unwrap();
    let (_of_refresh, _) = allocate(&refreshed);
    server.await_metric("passerelle_turn_allocations", &[], 4.0);

    // Relay to relay, as in a call between two symmetric NATs.
    assert!(of_ana.ask_signed(Request::permission(&[at_bruno])).is_success());
    assert!(of_bruno.ask_signed(Request::permission(&[at_ana])).is_success());
    // Enough of it that nobody takes it for connectivity checks.
    for _ in 0..100 {
        of_ana.send(Request::send(at_bruno, &[7; 1000]).bytes());
        assert_eq!(of_bruno.receive_data(), (at_ana, vec![7; 1000]));
    }

    let ended = Instant::now();
    bruno.ask("call:end", &call).unwrap();
    ana.next("call:ended");
    server.await_metric("passerelle_turn_allocations", &[], 1.0);
    let took = ended.elapsed();
    assert!(took < Duration::from_secs(5), "the allocations of the call outlived it by {took:?}");

    let path = format!("calls/{}", initiated["callId"].as_str().unwrap());
    let record = eventually("the record knows what the relay carried", || {
        let record = rest(&server, "ana", &path).1;
        (record["relayBytesDown"].as_u64() >= Some(100_000)).then_some(record)
    });
    let participants = record["participants"].as_array().unwrap();
    let by = |user: &str| participants.iter().find(|who| who["userId"] == user).unwrap();
    assert_eq!(
        (&by("ana")["relayTransport"], by("ana")["relayBytes"].as_u64()),
        (&json!("udp"), Some(100_000))
    );
    assert_eq!(by("bruno")["relayPeers"], json!([]), "where the others were is for operators");
    let (_, whole) = as_operator(&server, &path);
    let bruno = whole["participants"].as_array().unwrap().iter().find(|who| who["userId"] == "bruno");
    assert_eq!(bruno.unwrap()["relayPeers"], json!(["127.0.0.0/24"]), "{whole}");

    assert!(of_session.ask_signed(Request::refresh(600)).is_success(), "the session goes on");
    let (address, user, password) = turn_server(&initiated);
    let mut late = Client::new(address).with_user((&user, &password));
    assert_eq!(late.ask_signed(Request::allocate()).code(), 401, "a credential ends with its call");
    let scrape = server.scrape();
    assert_eq!(scrape.sum("passerelle_turn_allocations_ended_total", &[("reason", "revoked")]), 3.0);
    let labels = [("reason", "completed"), ("type", "video"), ("path", "relay")];
    assert_eq!(scrape.sum("passerelle_calls_ended_total", &labels), 1.0);
}

#[test]
fn who_is_gone_from_a_group_loses_its_relay_and_the_others_keep_theirs() {
    let server = Server::start(LOOPBACK_PEERS);
    let mut ana = Device::of(&server, "ana", Framing::WebSocket, true);
    let mut bruno = Device::of(&server, "bruno", Framing::WebSocket, true);
    let mut cleo = Device::of(&server, "cleo", WEBSOCKET_ONLY, true);
    let to = json!({ "to": ["bruno", "cleo"], "type": "video" });
    let initiated = ana.ask("call:initiate", &to).unwrap();
    let call = json!({ "callId": initiated["callId"] });
    let at_bruno = bruno.ask("call:join", &call).unwrap();
    let at_cleo = cleo.ask("call:join", &call).unwrap();
    let (mut of_ana, peer_ana) = allocate(&initiated);
    let (mut of_bruno, _) = allocate(&at_bruno);
    let (mut of_cleo, peer_cleo) = allocate(&at_cleo);
    assert!(of_ana.ask_signed(Request::permission(&[peer_cleo])).is_success());
    assert!(of_cleo.ask_signed(Request::permission(&[peer_ana])).is_success());

    let kick = json!({ "callId": initiated["callId"], "participantId": "bruno" });
    ana.ask("call:kick", &kick);
    bruno.next("call:kicked");
    server.await_metric("passerelle_turn_allocations", &[], 2.0);
    assert_eq!(of_bruno.ask_signed(Request::refresh(600)).code(), 437);
    assert_eq!(of_bruno.ask_signed(Request::allocate()).code(), 401, "its credential is good for nothing");
    for _ in 0..50 {
        of_ana.send(Request::send(peer_cleo, &[7; 1000]).bytes());
        assert_eq!(of_cleo.receive_data(), (peer_ana, vec![7; 1000]));
    }

    // Called back, it has credentials of its own again; the old ones stay void.
    ana.ask("call:invite", &json!({ "callId": initiated["callId"], "to": "bruno" }));
    let (mut again, _) = allocate(&bruno.ask("call:join", &call).unwrap());
    assert_eq!(of_bruno.ask_signed(Request::allocate()).code(), 401);
    assert!(again.ask_signed(Request::refresh(600)).is_success());
    // Leaving is the same, and whoever leaves may come back.
    bruno.ask("call:leave", &call);
    server.await_metric("passerelle_turn_allocations", &[], 2.0);
    assert_eq!(again.ask_signed(Request::refresh(600)).code(), 437);
    let (mut back, _) = allocate(&bruno.ask("call:join", &call).unwrap());
    assert!(back.ask_signed(Request::refresh(600)).is_success());
    // Unless it was banned.
    let ban = json!({ "callId": initiated["callId"], "participantId": "bruno", "ban": true });
    ana.ask("call:kick", &ban);
    server.await_metric("passerelle_turn_allocations", &[], 2.0);
    assert_eq!(bruno.refused("call:join", &call)["code"], "PERMISSION_DENIED");

    assert!(of_cleo.ask_signed(Request::refresh(600)).is_success());
    ana.ask("call:end", &call);
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
    // What was revoked before the end has not made it forget that media was relayed.
    let labels = [("reason", "completed"), ("type", "video"), ("path", "relay")];
    server.await_metric("passerelle_calls_ended_total", &labels, 1.0);
}

#[test]
fn what_a_call_has_allocated_outlives_the_expiry_of_its_credential_and_not_the_call() {
    let server = Server::start(LOOPBACK_PEERS);
    let (mut ana, mut bruno) = (
        Device::of(&server, "ana", Framing::WebSocket, true),
        Device::of(&server, "bruno", Framing::WebSocket, true),
    );
    let initiated = ana.ask("call:initiate", &json!({ "to": "bruno", "type": "audio" })).unwrap();
    let call = json!({ "callId": initiated["callId"] });
    bruno.ask("call:join", &call);
    // As the server makes them, but for a moment only.
    let id = initiated["callId"].as_str().unwrap();
    let (user, password) = rest_credential(&format!("ana:{id}"), SECRET, Duration::from_secs(2));
    let client = || Client::new(server.turn()).with_user((&user, &password));
    let mut early = client();
    early.allocate();
    let mut late = client();
    eventually("the credential expires", || match late.ask_signed(Request::allocate()).code() {
        401 => Some(()),
        _ => {
            assert!(late.ask_signed(Request::refresh(0)).is_success());
            None
        }
    });
    let peer = EchoPeer::start();
    assert!(early.ask_signed(Request::refresh(600)).is_success(), "the call lives");
    assert!(early.ask_signed(Request::permission(&[peer.address])).is_success());
    assert!(early.ask_signed(Request::channel_bind(0x4000, peer.address)).is_success());
    early.send_channel_data(0x4000, b"still here");
    assert_eq!(early.receive_channel_data(), (0x4000, b"still here".to_vec()));
    ana.ask("call:end", &call);
    bruno.next("call:ended");
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
    assert_eq!(early.ask_signed(Request::refresh(600)).code(), 437);
}

#[test]
fn credentials_are_renewed_in_mid_call_before_they_run_out() {
    let server = Server::start("[turn]\ncredential_ttl = \"10s\"\n");
    let mut ana = Device::of(&server, "ana", Framing::WebSocket, true);
    let mut bruno = Device::of(&server, "bruno", WEBSOCKET_ONLY, false);
    let initiated = ana.ask("call:initiate", &json!({ "to": "bruno", "type": "audio" })).unwrap();
    assert_eq!(initiated["ttl"], 10);
    let call = json!({ "callId": initiated["callId"] });
    bruno.ask("call:join", &call);
    let joined = bruno.next("call:join");
    for (device, first) in [(&mut ana, initiated), (&mut bruno, joined)] {
        let renewed = device.next("call:ice-servers-refreshed");
        assert_eq!((&renewed["callId"], &renewed["ttl"]), (&call["callId"], &json!(10)));
        assert_ne!(turn_server(&renewed), turn_server(&first));
        let _ = allocate(&renewed);
    }
    server.await_metric("passerelle_turn_allocations", &[], 2.0);
    ana.ask("call:leave", &call);
    server.await_metric("passerelle_turn_allocations", &[], 0.0);
}

#[test]
fn credentials_of_a_call_that_is_over_start_nothing_after_a_restart_either() {
    let database = Database::new();
    let server = Server::start(&database.config());
    let mut devices =
        ["ana", "bruno", "cleo"].map(|user| Device::of(&server, user, Framing::WebSocket, true));
    let [ana, bruno, cleo] = &mut devices;
    let over = ana.ask("call:initiate", &json!({ "to": "bruno", "type": "audio" })).unwrap();
    bruno.ask("call:join", &json!({ "callId": over["callId"] }));
    ana.ask("call:end", &json!({ "callId": over["callId"] }));
    let runs = ana.ask("call:initiate", &json!({ "to": ["bruno", "cleo"], "type": "audio" })).unwrap();
    let call = json!({ "callId": runs["callId"] });
    let left = bruno.ask("call:join", &call).unwrap();
    let stays = cleo.ask("call:join", &call).unwrap();
    bruno.ask("call:leave", &call);
    ana.next("call:participant-left");
    database.row("SELECT 1 FROM calls, call_participants WHERE status = 'completed' AND state = 'left' AND user_id = 'bruno' AND call_id != id");
    server.signal("KILL");
    drop((devices, server));

    let server = Server::start(&database.config());
    for (answer, code) in [(&over, 401), (&left, 401), (&stays, 0)] {
        let (_, user, password) = turn_server(answer);
        let mut client = Client::new(server.turn()).with_user((&user, &password));
        assert_eq!(client.ask_signed(Request::allocate()).code(), code, "{user}");
    }
}

#[test]
fn other_servers_and_the_forced_relay_reach_the_client() {
    let others = r#"ice_servers = [{ urls = ["stun:stun.example.org"] }, { urls = ["turn:b.example.org"] }]"#;
    let server = Server::start(&format!("[public]\n{others}\n[signaling]\nforce_relay = true\n"));
    let mut ana = Device::of(&server, "ana", Framing::WebSocket, true);
    let _bruno = Device::of(&server, "bruno", Framing::WebSocket, true);
    let initiated = ana.ask("call:initiate", &json!({ "to": "bruno", "type": "audio" })).unwrap();
    assert_eq!(initiated["iceTransportPolicy"], "relay");
    let servers = initiated["iceServers"].as_array().unwrap();
    let of = |url: &str| servers.iter().find(|server| server["urls"][0] == url).unwrap_or(&Value::Null);
    assert!(of("stun:stun.example.org").is_object(), "{initiated}");
    assert_eq!(of("turn:b.example.org")["username"], turn_server(&initiated).1, "one secret, one credential");
    let refused = Server::refused("[public]\nice_servers = [{ urls = [\"https://turn.example.org\"] }]\n");
    assert!(refused.contains("public.ice_servers[0]"), "{refused}");
}

#[test]
fn whose_connection_stays_lost_loses_its_relay_too() {
    let server = Server::start(
        "[signaling]\nreconnecting_after = \"1s\"\ngrace = \"1s\"\ngrace_with_session = \"1s\"\n",
    );
    let mut ana = Device::of(&server, "ana", Framing::WebSocket, true);
    let mut others = ["bruno", "cleo"].map(|user| Device::of(&server, user, Framing::WebSocket, true));
    let initiated = ana.ask("call:initiate", &json!({ "to": ["bruno", "cleo"], "type": "audio" })).unwrap();
    let call = json!({ "callId": initiated["callId"] });
    let [mut of_bruno, mut of_cleo] =
        [0, 1].map(|at: usize| allocate(&others[at].ask("call:join", &call).unwrap()).0);
    others[0].cut();
    assert_eq!(ana.next("call:participant-left")["reason"], "connectionLost");
    server.await_metric("passerelle_turn_allocations", &[], 1.0);
    assert_eq!(of_bruno.ask_signed(Request::refresh(600)).code(), 437);
    assert!(of_cleo.ask_signed(Request::refresh(600)).is_success());
}

#[test]
fn a_new_call_of_the_same_people_gets_credentials_that_work() {
    let server = Server::start("");
    let mut ana = Device::of(&server, "ana", Framing::WebSocket, true);
    let mut bruno = Device::of(&server, "bruno", WEBSOCKET_ONLY, true);
    for _ in 0..2 {
        let initiated = ana.ask("call:initiate", &json!({ "to": "bruno", "type": "audio" })).unwrap();
        let call = json!({ "callId": initiated["callId"] });
        bruno.next("call:initiated");
        bruno.ask("call:join", &call);
        let _ = allocate(&initiated);
        ana.ask("call:leave", &call);
        bruno.next("call:ended");
        server.await_metric("passerelle_turn_allocations", &[], 0.0);
    }
}
