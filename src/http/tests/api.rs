//! REST as the operator's servers and users drive it: calls are changed by the same engine, so that participants hear.

use serde_json::{Value, json};

use super::support::{API_KEY, Client, Server, token};
use crate::auth::Mode;

async fn ask(server: &Server, method: &str, path: &str, token: &str, body: Option<Value>) -> (u16, Value) {
    let method = method.parse().unwrap();
    let mut request = reqwest::Client::new().request(method, server.url(path)).bearer_auth(token);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn until(client: &mut Client, name: &str) -> Value {
    loop {
        let frame = client.receive().await;
        if frame["t"] == name {
            return frame["p"].clone();
        }
    }
}

/// Ada and Bob, and a call between them that an operator started.
async fn running(server: &Server) -> (Client, Client, String) {
    let (mut ada, mut bob) = (Client::of(server, "ada").await, Client::of(server, "bob").await);
    let ring = json!({"from": {"userId": "ada", "displayName": "Ada"}, "to": "bob", "type": "audio"});
    let (status, rung) = ask(server, "POST", "/api/v1/calls", API_KEY, Some(ring)).await;
    assert_eq!(status, 201, "{rung}");
    let call = rung["callId"].as_str().unwrap().to_owned();
    assert_eq!(until(&mut bob, "call:initiated").await["initiator"]["userId"], "ada");
    for client in [&mut ada, &mut bob] {
        client.send(&json!({"v": 1, "t": "call:join", "id": "j", "p": {"callId": call}})).await;
        let ack = until_ack(client).await;
        assert_eq!(ack["ok"], true, "{ack}");
    }
    (ada, bob, call)
}

async fn until_ack(client: &mut Client) -> Value {
    loop {
        let frame = client.receive().await;
        if frame["t"] == "ack" {
            return frame;
        }
    }
}

#[tokio::test]
async fn an_operator_starts_mutes_and_ends_a_call_and_the_participants_hear_of_it() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (mut ada, mut bob, call) = running(&server).await;
    let (status, active) = ask(&server, "GET", "/api/v1/calls/active", API_KEY, None).await;
    assert_eq!((status, &active["calls"][0]["callId"]), (200, &json!(call)));
    // The record is not written here: the call is shown as its participants see it.
    let (status, one) = ask(&server, "GET", &format!("/api/v1/calls/{call}"), API_KEY, None).await;
    assert_eq!((status, &one["callId"]), (200, &json!(call)));

    let mute = format!("/api/v1/calls/{call}/participants/bob/mute");
    let (status, answer) = ask(&server, "POST", &mute, API_KEY, Some(json!({"media": "audio"}))).await;
    assert_eq!(status, 200, "{answer}");
    let toggled = until(&mut ada, "call:media-toggled").await;
    assert_eq!((&toggled["userId"], &toggled["enabled"]), (&json!("bob"), &json!(false)));

    let (status, _) = ask(&server, "POST", &format!("/api/v1/calls/{call}/end"), API_KEY, None).await;
    assert_eq!(status, 200);
    for client in [&mut ada, &mut bob] {
        assert_eq!(until(client, "call:ended").await["callId"], json!(call));
    }
}

#[tokio::test]
async fn a_kick_through_rest_reaches_everybody() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (mut ada, mut bob, call) = running(&server).await;
    let kick = format!("/api/v1/calls/{call}/participants/bob/kick");
    let (status, answer) = ask(&server, "POST", &kick, API_KEY, None).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(until(&mut bob, "call:kicked").await["callId"], json!(call));
    assert_eq!(until(&mut ada, "call:ended").await["callId"], json!(call));
}

#[tokio::test]
async fn a_ban_through_rest_says_so() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (_ada, mut bob, call) = running(&server).await;
    let kick = format!("/api/v1/calls/{call}/participants/bob/kick");
    let (status, _) = ask(&server, "POST", &kick, API_KEY, Some(json!({ "ban": "yes" }))).await;
    assert_eq!(status, 400);
    let (status, answer) = ask(&server, "POST", &kick, API_KEY, Some(json!({ "ban": true }))).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(until(&mut bob, "call:kicked").await["reason"], "banned");
}

#[tokio::test]
async fn missed_calls_and_steps_are_pages_of_the_store() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (_ada, _bob, call) = running(&server).await;
    let missed = ask(&server, "GET", "/api/v1/calls/missed?limit=5", &token("bob"), None).await;
    assert_eq!(missed, (200, json!({ "calls": [], "next": null })));
    for wrong in ["limit=0", "limit=101", "limit=x", "cursor="] {
        let path = format!("/api/v1/calls/missed?{wrong}");
        assert_eq!(ask(&server, "GET", &path, API_KEY, None).await.0, 400, "{wrong}");
    }
    let events = format!("/api/v1/calls/{call}/events");
    assert_eq!(ask(&server, "GET", &events, &token("bob"), None).await, (200, json!({ "events": [] })));
    assert_eq!(ask(&server, "GET", &events, &token("mallory"), None).await.0, 404);
}

#[tokio::test]
async fn a_user_sees_and_changes_only_what_is_its_own() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (_ada, _bob, call) = running(&server).await;
    let mallory = token("mallory");
    for (method, path, status) in [
        ("GET", format!("/api/v1/calls/{call}"), 404),
        ("POST", format!("/api/v1/calls/{call}/end"), 404),
        ("POST", format!("/api/v1/calls/{call}/participants/bob/kick"), 404),
        ("POST", format!("/api/v1/calls/{call}/participants/bob/mute"), 404),
        ("POST", format!("/api/v1/calls/{call}/lock"), 404),
        ("GET", "/api/v1/users/bob/presence".into(), 403),
        ("GET", "/api/v1/rooms/r/members".into(), 403),
        ("DELETE", "/api/v1/rooms/r/members".into(), 403),
        ("GET", "/api/v1/stats".into(), 403),
        ("POST", "/api/v1/admin/drain".into(), 403),
        ("POST", "/api/v1/admin/reload".into(), 403),
        ("GET", "/turn?service=turn".into(), 401),
    ] {
        let (found, answer) = ask(&server, method, &path, &mallory, None).await;
        assert_eq!(found, status, "{method} {path}: {answer}");
        assert!(answer["error"]["code"].is_string(), "{path}: {answer}");
    }
    let (_, active) = ask(&server, "GET", "/api/v1/calls/active?user=ada", &mallory, None).await;
    assert_eq!(active["calls"], json!([]));
    let (_, sessions) = ask(&server, "GET", "/api/v1/sessions?user=ada", &mallory, None).await;
    assert_eq!(sessions["sessions"], json!([]));
    let (status, _) = ask(&server, "GET", "/api/v1/calls?user=ada", &mallory, None).await;
    let asked = server.store.0.lock().pop().unwrap();
    assert_eq!((status, &*asked.user.unwrap().0), (200, "mallory"));
    let forged = json!({"from": "ada", "to": "bob", "type": "audio"});
    let (status, _) = ask(&server, "POST", "/api/v1/calls", &mallory, Some(forged)).await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn an_api_key_opens_rest_and_no_session() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (status, stats) = ask(&server, "GET", "/api/v1/stats", API_KEY, None).await;
    assert_eq!((status, &stats["sessions"]["connected"]), (200, &json!(0)));
    assert_eq!(ask(&server, "GET", "/api/v1/stats", &API_KEY[1..], None).await.0, 401);
    let mut client = Client::plain(&server).await;
    client.send(&json!({"v": 1, "t": "hello", "id": "h", "p": {"token": API_KEY}})).await;
    assert_eq!(client.receive().await["error"]["code"], "NOT_AUTHENTICATED");
    assert_eq!(client.closed().await, 4401);
}

#[tokio::test]
async fn members_of_a_room_are_rung_and_strangers_stay_out() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let path = "/api/v1/rooms/team/members";
    let (status, room) = ask(&server, "PUT", path, API_KEY, Some(json!({"members": ["ada", "bob"]}))).await;
    assert_eq!(status, 200, "{room}");
    let (mut ada, mut bob) = (Client::of(&server, "ada").await, Client::of(&server, "bob").await);
    ada.send(&json!({"v": 1, "t": "call:initiate", "id": "1", "p": {"roomId": "team", "type": "audio"}}))
        .await;
    assert_eq!(until_ack(&mut ada).await["ok"], true);
    until(&mut bob, "call:initiated").await;
    let mut mallory = Client::of(&server, "mallory").await;
    mallory.send(&json!({"v": 1, "t": "room:join", "id": "1", "p": {"roomId": "team"}})).await;
    assert_eq!(until_ack(&mut mallory).await["ok"], false);
    assert_eq!(ask(&server, "PUT", path, API_KEY, Some(json!({"members": [7]}))).await.0, 400);
    assert_eq!(ask(&server, "DELETE", path, API_KEY, None).await.0, 200);
}

#[tokio::test]
async fn presence_and_sessions_tell_who_is_there() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let _ada = Client::of(&server, "ada").await;
    let (_, ada) = ask(&server, "GET", "/api/v1/users/ada/presence", API_KEY, None).await;
    let (_, bob) = ask(&server, "GET", "/api/v1/users/bob/presence", API_KEY, None).await;
    assert_eq!((&ada["userId"], &bob["userId"]), (&json!("ada"), &json!("bob")));
    assert_ne!(ada["status"], bob["status"]);
    let (_, sessions) = ask(&server, "GET", "/api/v1/sessions", API_KEY, None).await;
    assert_eq!(sessions["sessions"][0]["userId"], "ada");
}

#[tokio::test]
async fn older_clients_get_turn_credentials_with_an_api_key() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let key = API_KEY.replace(' ', "%20");
    let (status, answer) =
        ask(&server, "GET", &format!("/turn?service=turn&username=alice&key={key}"), "x", None).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer,
        json!({"username": "alice", "password": "password", "ttl": 43_200, "uris": ["turn:call.example"]})
    );
    assert_eq!(ask(&server, "GET", "/turn?service=turn", API_KEY, None).await.0, 200);
    for (path, status) in
        [("/turn?service=stun", 400), ("/turn", 400), ("/turn?service=turn&username=a:b", 400)]
    {
        assert_eq!(ask(&server, "GET", path, API_KEY, None).await.0, status, "{path}");
    }
    assert_eq!(ask(&server, "GET", "/turn?service=turn&key=wrong", "x", None).await.0, 401);
}

#[tokio::test]
async fn bodies_that_are_none_are_refused() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let post = |body: &'static str| {
        reqwest::Client::new()
            .post(server.url("/api/v1/calls"))
            .bearer_auth(API_KEY)
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    for body in ["", "{", "[]", "7", "null", r#"{"from":7,"type":"audio","to":"b"}"#, r#"{"from":"a"}"#] {
        let answer = post(body).await.unwrap();
        assert_eq!(answer.status().as_u16(), 400, "{body}");
        let json: Value = answer.json().await.unwrap();
        assert_eq!(json["error"]["code"], "VALIDATION_ERROR", "{body}");
    }
    let huge = reqwest::Client::new()
        .post(server.url("/api/v1/calls"))
        .bearer_auth(API_KEY)
        .json(&json!({"metadata": "x".repeat(200_000)}))
        .send()
        .await
        .unwrap();
    assert_eq!(huge.status().as_u16(), 413);
}

#[tokio::test]
async fn the_description_lists_exactly_the_routes_there_are() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (status, document) = ask(&server, "GET", "/api/v1/openapi.json", "", None).await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let routed: Vec<&str> = include_str!("../mod.rs")
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next())
        .filter(|path| path.starts_with("/api/") || *path == "/turn")
        .collect();
    let mut described: Vec<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = routed.clone();
    described.sort_unstable();
    expected.sort_unstable();
    assert_eq!(described, expected);
    for (path, operations) in document["paths"].as_object().unwrap() {
        let url = path.replace("{id}", "x").replace("{user}", "y");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            if path.ends_with("/drain") && method == "POST" {
                continue;
            }
            let (status, answer) = ask(&server, method, &url, API_KEY, None).await;
            let is_described = operations.get(method.to_lowercase()).is_some();
            assert_eq!(status != 405, is_described, "{method} {path}: {status} {answer}");
            if is_described {
                let described = &operations[method.to_lowercase()]["responses"];
                assert!(described.get(status.to_string()).is_some(), "{method} {path}: {status} {answer}");
            }
        }
    }
}
