//! Events to the operator's webhook: signed, in order, again until they are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::support::eventually;
use crate::auth::{Outbound, WebhookConfig, signature};
use crate::http::Webhooks;
use crate::metrics::Metrics;
use crate::signaling::{CallId, Notice, NoticeKind};
use crate::store::{CallStore, Entry, Sqlite};

const SECRET: &str = "a secret of at least thirty-two bytes";

fn entry(call: &str, order: u64, kind: NoticeKind) -> Entry {
    let notice = Notice {
        call: CallId(call.into()),
        order,
        kind,
        at: super::super::engine::now().unix_ms,
        user: None,
        reason: None,
        session: "{}".into(),
    };
    Entry::Step { notice: Arc::new(notice), told: true, kept: false }
}

/// A receiver that refuses its first requests, and what reached it.
async fn receiver(refusals: usize) -> (String, Arc<Mutex<Vec<(HeaderMap, String)>>>) {
    let taken: Arc<Mutex<Vec<_>>> = Arc::default();
    let (kept, asked) = (Arc::clone(&taken), Arc::new(AtomicUsize::new(0)));
    let answer = move |headers: HeaderMap, body: String| async move {
        if asked.fetch_add(1, Ordering::SeqCst) < refusals {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        kept.lock().push((headers, body));
        StatusCode::NO_CONTENT
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/hook", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, taken)
}

async fn tell(refusals: usize, entries: &[Entry]) -> (Vec<(HeaderMap, String)>, Arc<Metrics>) {
    tell_within(entries.len(), refusals, entries).await
}

/// The same with an outbox that holds so many.
async fn tell_within(
    most: usize,
    refusals: usize,
    entries: &[Entry],
) -> (Vec<(HeaderMap, String)>, Arc<Metrics>) {
    let (url, taken) = receiver(refusals).await;
    let store: Arc<dyn CallStore> = Arc::new(Sqlite::memory().await.unwrap());
    store.note(entries).await.unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let webhooks = Webhooks {
        target: WebhookConfig { url, secret: Some(SECRET.into()) },
        store: Arc::clone(&store),
        outbound: Outbound::new(),
        metrics: Arc::clone(&metrics),
        most: u32::try_from(most).unwrap(),
    };
    let teller = tokio::spawn(webhooks.run());
    eventually("everything is taken", || taken.lock().len() >= most).await;
    teller.abort();
    let taken = taken.lock().clone();
    (taken, metrics)
}

#[tokio::test]
async fn events_of_a_call_come_signed_and_in_order() {
    let kinds = [NoticeKind::Initiated, NoticeKind::Ringing, NoticeKind::Answered, NoticeKind::Ended];
    let entries: Vec<Entry> = (0..5)
        .flat_map(|call| {
            kinds.iter().zip(1..).map(move |(kind, order)| entry(&format!("c{call}"), order, *kind))
        })
        .collect();
    let (taken, metrics) = tell(0, &entries).await;
    for call in 0..5 {
        let of_call: Vec<Value> = taken
            .iter()
            .map(|(_, body)| serde_json::from_str::<Value>(body).unwrap())
            .filter(|event| event["callId"] == format!("c{call}"))
            .map(|event| event["type"].clone())
            .collect();
        assert_eq!(
            of_call,
            ["call.initiated", "call.ringing", "call.answered", "call.ended"].map(Value::from)
        );
    }
    for (headers, body) in &taken {
        let at: i64 = headers[signature::TIMESTAMP].to_str().unwrap().parse().unwrap();
        let expected = signature::signature(&SECRET.into(), at, body.as_bytes());
        assert_eq!(headers[signature::SIGNATURE], expected);
        let event: Value = serde_json::from_str(body).unwrap();
        assert_eq!(json!(headers["passerelle-event-id"].to_str().unwrap()), event["id"]);
    }
    assert_eq!(metrics.webhook_deliveries.with_label_values(&["ok"]).get(), 20);
}

#[tokio::test]
async fn a_refused_event_comes_again_and_before_the_next_of_its_call() {
    let entries = [entry("c", 1, NoticeKind::Initiated), entry("c", 2, NoticeKind::Ended)];
    let (taken, metrics) = tell(2, &entries).await;
    let kinds: Vec<bool> = taken.iter().map(|(_, body)| body.contains("call.initiated")).collect();
    assert_eq!(kinds, [true, false]);
    assert_eq!(metrics.webhook_deliveries.with_label_values(&["error"]).get(), 2);
}

#[tokio::test]
async fn beyond_the_bound_the_oldest_events_are_dropped_and_counted() {
    let entries: Vec<Entry> = (0..9).map(|call| entry(&format!("c{call}"), 1, NoticeKind::Ended)).collect();
    let (taken, metrics) = tell_within(4, 0, &entries).await;
    let count = |result| metrics.webhook_deliveries.with_label_values(&[result]).get();
    assert_eq!((taken.len(), count("dropped")), (4, 5));
    assert_eq!(metrics.webhook_queue_length.get(), 4);
}
