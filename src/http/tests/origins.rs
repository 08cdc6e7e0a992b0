//! Cross-site WebSocket hijacking, and what other pages may read.

use serde_json::json;

use super::support::{Client, Server, token};
use crate::auth::{self, Authenticator, Mode, Outbound};

const PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "passerelle.v1.json");

async fn status(server: &Server, origin: Option<&str>) -> u16 {
    let mut headers = vec![PROTOCOL];
    headers.extend(origin.map(|origin| ("origin", origin)));
    match Client::handshake(server, "/ws", &headers).await {
        Ok(_) => 101,
        Err(refused) => refused.status().as_u16(),
    }
}

#[tokio::test]
async fn eight_origins_at_an_allow_list() {
    let server = Server::start(Mode::Any, |config| {
        config.origins = vec!["https://app.example.org".into(), "https://xn--bcher-kva.example".into()];
    })
    .await;
    for (origin, expected) in [
        (None, 101),
        (Some("https://app.example.org"), 101),
        (Some("https://APP.Example.org"), 101),
        (Some("https://xn--bcher-kva.example"), 101),
        (Some("null"), 403),
        (Some("https://app.example.org.evil.example"), 403),
        (Some("https://app.example.org:8443"), 403),
        (Some("http://app.example.org"), 403),
    ] {
        assert_eq!(status(&server, origin).await, expected, "{origin:?}");
    }
}

#[tokio::test]
async fn a_foreign_page_never_gets_an_anonymous_session() {
    let loopback = auth::Config { anonymous: Mode::Loopback, ..auth::Config::default() };
    let anonymous_only = Server::with(Authenticator::new(&loopback, Outbound::new()), |_| {}).await;
    let own = format!("http://{}", anonymous_only.address);
    for (origin, expected) in
        [(Some(own.as_str()), 101), (None, 101), (Some("https://evil.example"), 403), (Some("null"), 403)]
    {
        assert_eq!(status(&anonymous_only, origin).await, expected, "{origin:?}");
    }
}

#[tokio::test]
async fn where_tokens_are_taken_a_foreign_page_needs_one() {
    let server = Server::start(Mode::Loopback, |_| {}).await;
    for (payload, expected) in [(json!({}), None), (json!({"token": token("ada")}), Some("ada"))] {
        let headers = [PROTOCOL, ("origin", "https://evil.example")];
        let (mut client, _) = Client::handshake(&server, "/ws", &headers).await.map_err(|_| ()).unwrap();
        client.send(&json!({"v": 1, "t": "hello", "p": payload})).await;
        match expected {
            Some(user) => assert_eq!(client.receive().await["p"]["userId"], user),
            None => assert_eq!(client.closed().await, 4403),
        }
    }
}

#[tokio::test]
async fn only_pages_of_allowed_origins_may_read_answers() {
    let server =
        Server::start(Mode::Off, |config| config.origins = vec!["https://app.example.org".into()]).await;
    let client = reqwest::Client::new();
    for path in ["/api/v1/ice-servers", "/socket.io/?EIO=4&transport=polling"] {
        for (origin, shared) in
            [("https://app.example.org", true), ("https://evil.example", false), ("null", false)]
        {
            let answer = client
                .get(server.url(path))
                .header("origin", origin)
                .bearer_auth(token("ada"))
                .send()
                .await
                .unwrap();
            let allowed = answer.headers().get("access-control-allow-origin");
            assert_eq!(allowed.is_some_and(|value| value == origin), shared, "{path} {origin}");
            assert_eq!(answer.status().as_u16(), if shared { 200 } else { 403 }, "{path} {origin}");
            assert!(answer.headers().get("access-control-allow-credentials").is_none());
        }
        let preflight = client
            .request(reqwest::Method::OPTIONS, server.url(path))
            .header("origin", "https://app.example.org")
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization")
            .send()
            .await
            .unwrap();
        assert_eq!(preflight.headers()["access-control-allow-origin"], "https://app.example.org", "{path}");
    }
}
