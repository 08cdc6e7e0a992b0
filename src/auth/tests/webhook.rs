//! A service of the operator that says who a token belongs to.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{NOW_S, serve};
use crate::auth::{Authenticator, Caller, Config, Denied, Outbound, Presented, WebhookConfig, signature};

const SECRET: &str = "a secret of at least thirty-two bytes";

/// Asks a service that gives this answer.
async fn ask(status: u16, answer: &str) -> Result<Caller, Denied> {
    let (status, answer) = (StatusCode::from_u16(status).unwrap(), answer.to_owned());
    let url = serve(axum::Router::new().route("/", post(move || async move { (status, answer) }))).await;
    authenticator(url).authenticate(token(), "192.0.2.1".parse().unwrap(), NOW_S * 1000).await
}

fn authenticator(url: String) -> Authenticator {
    let webhook = WebhookConfig { url, secret: Some(SECRET.into()) };
    Authenticator::new(&Config { webhook: Some(webhook), ..Config::default() }, Outbound::new())
}

fn token() -> Presented<'static> {
    Presented { token: Some("opaque"), ..Presented::default() }
}

#[tokio::test]
async fn the_service_names_the_caller_and_what_it_may() {
    let answer = json!({
        "allowed": true, "userId": 42, "name": "Ada", "grants": {"moderate": true, "rooms": ["r"]},
        "members": {"r": ["bob"]}, "expiresAt": NOW_S + 5, "more": 1,
    });
    let caller = ask(200, &answer.to_string()).await.unwrap();
    assert_eq!((caller.user.as_str(), caller.display_name.as_deref()), ("42", Some("Ada")));
    assert!(caller.grants.moderate && caller.grants.rooms == Some(vec!["r".into()]));
    assert_eq!(caller.members["r"], ["bob"]);
    assert_eq!(caller.expires_unix_ms, Some((NOW_S + 5) * 1000));
}

#[tokio::test]
async fn whatever_is_no_clear_yes_lets_nobody_in() {
    for (status, answer, denied) in [
        (200, r#"{"allowed":false,"userId":"u","reason":"banned"}"#, Denied::Invalid),
        (401, "", Denied::Invalid),
        (403, r#"{"allowed":true,"userId":"u"}"#, Denied::Invalid),
        (500, r#"{"allowed":true,"userId":"u"}"#, Denied::Unavailable),
        (302, r#"{"allowed":true,"userId":"u"}"#, Denied::Unavailable),
        (204, "", Denied::Unavailable),
        (200, "", Denied::Unavailable),
        (200, "true", Denied::Unavailable),
        (200, r#"{"allowed":"true","userId":"u"}"#, Denied::Unavailable),
        (200, r#"{"userId":"u"}"#, Denied::Unavailable),
        (200, r#"{"allowed":true}"#, Denied::Unavailable),
        (200, r#"{"allowed":true,"userId":""}"#, Denied::Unavailable),
        (200, r#"{"allowed":true,"userId":"anon:1"}"#, Denied::Unavailable),
        (200, r#"{"allowed":true,"userId":"u","grants":{"admin":"yes"}}"#, Denied::Unavailable),
        (200, r#"{"allowed":true,"userId":"u","expiresAt":1}"#, Denied::Expired),
    ] {
        assert_eq!(ask(status, answer).await, Err(denied), "{status} {answer}");
    }
    let huge = format!(r#"{{"allowed":true,"userId":"u","pad":"{}"}}"#, "x".repeat(300 * 1024));
    assert_eq!(ask(200, &huge).await, Err(Denied::Unavailable));
}

#[tokio::test]
async fn a_service_that_is_not_there_lets_nobody_in() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let outcome = authenticator(url).authenticate(token(), "::1".parse().unwrap(), NOW_S * 1000).await;
    assert_eq!(outcome, Err(Denied::Unavailable));
}

#[tokio::test]
async fn a_question_is_signed_and_tells_where_the_caller_is() {
    let seen: Arc<Mutex<Option<(HeaderMap, String)>>> = Arc::default();
    let kept = Arc::clone(&seen);
    let answer = move |headers: HeaderMap, body: String| async move {
        *kept.lock() = Some((headers, body));
        r#"{"allowed":true,"userId":"u"}"#
    };
    let url = serve(axum::Router::new().route("/", post(answer))).await;
    let peer = "192.0.2.1".parse().unwrap();
    authenticator(url).authenticate(token(), peer, NOW_S * 1000).await.unwrap();
    let (headers, body) = seen.lock().take().unwrap();
    let question: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(question, json!({"token": "opaque", "ip": "192.0.2.1"}));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers[signature::TIMESTAMP], NOW_S.to_string());
    let expected = signature::signature(&SECRET.into(), NOW_S, body.as_bytes());
    assert_eq!(headers[signature::SIGNATURE], expected);
}
