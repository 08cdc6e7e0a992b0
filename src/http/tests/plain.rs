//! The HTTP server itself.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::support::{PATIENCE, Server};
use crate::auth::Mode;
use crate::http::serve;

async fn raw(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is an end as well.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("never closed");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_head_beyond_16_kib_is_refused() {
    let server = Server::start(Mode::Off, |_| {}).await;
    let request = |padding: usize| {
        format!("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: {}\r\n\r\n", "x".repeat(padding))
    };
    assert!(raw(&server, &request(12 * 1024)).await.starts_with("HTTP/1.1 200"));
    assert!(raw(&server, &request(20 * 1024)).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn a_request_in_flight_finishes_after_shutdown_and_nothing_new_is_accepted() {
    let (listener, stop) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
    let address = listener.local_addr().unwrap();
    let (started, mut running) = tokio::sync::mpsc::channel::<()>(1);
    let (release, gate) = tokio::sync::watch::channel(false);
    let handler = move || async move {
        let mut gate = gate;
        started.send(()).await.unwrap();
        gate.wait_for(|open| *open).await.unwrap();
        "done"
    };
    let serving = tokio::spawn(serve(listener, Router::new().route("/", get(handler)), stop.clone()));
    let request = tokio::spawn(reqwest::get(format!("http://{address}/")));
    timeout(PATIENCE, running.recv()).await.unwrap();
    stop.cancel();
    release.send(true).unwrap();
    assert_eq!(request.await.unwrap().unwrap().text().await.unwrap(), "done");
    timeout(PATIENCE, serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let (listener, stop) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve(listener, Router::new(), stop.clone()));
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET / HT").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.cancel();
    timeout(PATIENCE, serving).await.unwrap().unwrap();
}
