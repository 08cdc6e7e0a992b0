//! REST, health, scrape.

use serde_json::{Value, json};

use super::support::{Server, token};
use crate::auth::Mode;

async fn ask(server: &Server, path: &str, token: Option<&str>) -> (u16, Value) {
    let mut request = reqwest::Client::new().get(server.url(path));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn records_need_a_token_where_nobody_is_anonymous() {
    let server = Server::start(Mode::Off, |_| {}).await;
    for path in ["/api/v1/calls", "/api/v1/calls/x", "/api/v1/ice-servers"] {
        for token in [None, Some("a.b.c")] {
            let (status, body) = ask(&server, path, token).await;
            assert_eq!((status, &body["error"]["code"]), (401, &json!("NOT_AUTHENTICATED")), "{path}");
        }
    }
    assert!(server.store.0.lock().is_empty());
}

#[tokio::test]
async fn a_user_asks_for_its_own_calls_page_by_page() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let path = "/api/v1/calls?limit=2&cursor=first&direction=outgoing&status=missed";
    let (status, body) = ask(&server, path, Some(&token("ada"))).await;
    assert_eq!((status, body), (200, json!({"calls": [], "next": "second"})));
    let asked = server.store.0.lock().pop().unwrap();
    assert_eq!(&*asked.user.unwrap().0, "ada");
    assert_eq!((asked.limit, asked.outgoing), (2, Some(true)));
    assert_eq!((asked.cursor.as_deref(), asked.status.as_deref()), (Some("first"), Some("missed")));
}

#[tokio::test]
async fn questions_that_are_none_are_refused() {
    let server = Server::start(Mode::Off, |_| {}).await;
    for query in ["limit=0", "limit=101", "limit=x", "direction=both", "cursor=broken"] {
        let (status, body) = ask(&server, &format!("/api/v1/calls?{query}"), Some(&token("ada"))).await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("VALIDATION_ERROR")), "{query}");
    }
    let (status, body) = ask(&server, "/api/v1/calls/unknown", Some(&token("ada"))).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("CALL_NOT_FOUND")));
}

#[tokio::test]
async fn an_anonymous_caller_gets_ice_servers_and_no_calls_of_others() {
    let server = Server::start(Mode::Loopback, |_| {}).await;
    let (status, body) = ask(&server, "/api/v1/ice-servers", None).await;
    assert_eq!((status, &body["ttl"]), (200, &json!(43_200)));
    assert_eq!(body["iceServers"][1]["credential"], "password");
    let (status, _) = ask(&server, "/api/v1/calls", None).await;
    assert_eq!(status, 200);
    let asked = server.store.0.lock().pop().unwrap();
    assert!(asked.user.unwrap().0.starts_with("anon:"));
}

#[tokio::test]
async fn the_process_is_ready_between_start_and_drain() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let (starting, _) = ask(&server, "/readyz", None).await;
    server.ready.set_ready();
    let (ready, _) = ask(&server, "/readyz", None).await;
    server.ready.set_draining();
    let (draining, body) = ask(&server, "/readyz", None).await;
    assert_eq!((starting, ready, draining), (503, 200, 503));
    assert_eq!(body["status"], "draining");
    assert_eq!(ask(&server, "/healthz", None).await.0, 200);
}

#[tokio::test]
async fn metrics_are_scraped_on_a_listener_of_their_own() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let scrape = server.scrape().await;
    let text = reqwest::get(&scrape).await.unwrap().text().await.unwrap();
    assert!(text.contains("passerelle_signaling_send_queue_bytes 0"), "{text}");
    assert_eq!(reqwest::get(server.url("/metrics")).await.unwrap().status().as_u16(), 404);
}
