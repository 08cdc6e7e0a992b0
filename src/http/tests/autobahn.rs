//! Autobahn's WebSocket test suite, against the handshake, the reading and the closing of `/ws`.
//!
//! The suite wants an echo, which the protocol of calls is not: between [`next_text`] and [`close`], the same code that
//! `/ws` runs, stands a loop that sends back what came. `tests/websocket_protocol.rs` has the same groups against the
//! real binary, in frames of the protocol.

use std::collections::BTreeMap;
use std::process::Command;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::support::PATIENCE;
use crate::http::serve;
use crate::http::websocket::{GONE, accepted, close, handshake, next_text, switching};

/// Groups that are none of ours: binary messages are closed with 4400, and compression is not offered.
const NOT_OFFERED: [&str; 7] = ["1.2.*", "9.2.*", "9.4.*", "9.6.*", "9.8.*", "12.*", "13.*"];
/// The suite sends messages of up to 16 MiB.
const LARGEST: usize = 16 * 1024 * 1024;

async fn echo(mut request: Request) -> Response {
    let key = match handshake(request.method(), request.headers()) {
        Ok(key) => key,
        Err(refusal) => return refusal.into_response(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut sink, mut stream) = accepted(upgrade.await.unwrap(), LARGEST).await.split();
        let end = loop {
            let mut heard = Instant::now();
            let text = timeout(PATIENCE, next_text(&mut stream, &mut heard)).await;
            match text.unwrap_or(Err(GONE)) {
                Ok(text) => {
                    if sink.send(Message::text(text)).await.is_err() {
                        break GONE;
                    }
                }
                Err(end) => break end,
            }
        };
        close(sink, stream, &end).await;
    });
    switching(&key)
}

/// The suite offers no subprotocol.
async fn offering(mut request: Request, next: Next) -> Response {
    let protocol = HeaderValue::from_static("passerelle.v1.json");
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    let mut response = next.run(request).await;
    response.headers_mut().remove(header::SEC_WEBSOCKET_PROTOCOL);
    response
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_autobahn_suite_finds_nothing_wrong() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback_service(any(echo)).layer(from_fn(offering));
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, router, stop.clone()));
    let folder = tempfile::tempdir().unwrap();
    let mut suite = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/py/.venv/bin/kosoku"));
    suite.args(["--mode", "fuzzingclient", "--parallelism", "2", "--outdir"]).arg(folder.path());
    suite.args(NOT_OFFERED.iter().flat_map(|cases| ["--exclude", cases])).arg(address);
    let output = tokio::task::spawn_blocking(move || suite.output()).await.unwrap();
    let output = output.expect("kosoku is missing: run tests/install.sh");
    stop.cancel();
    let said = String::from_utf8_lossy(&output.stdout);
    let index = std::fs::read(folder.path().join("index.json")).unwrap_or_else(|_| panic!("{said}"));
    let index: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(&index).unwrap();
    let cases = index.values().next().unwrap();
    assert!(cases.len() > 200, "{} cases: {said}", cases.len());
    let bad: Vec<_> = cases.iter().filter(|(id, case)| !is_fine(id, case)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// What the suite does not judge is fine, and text that is not UTF-8 may be noticed at the end of its frame.
fn is_fine(id: &str, case: &Value) -> bool {
    let judged = |of: &str| case[of] == "OK" || case[of] == "INFORMATIONAL";
    let late = id.starts_with("6.4.") && case["behavior"] == "NON-STRICT";
    (judged("behavior") || late) && judged("behaviorClose")
}
