//! What every database has to do, on each of them.

mod server;

use std::sync::Arc;
use std::time::Duration;

use server::Server;

use super::samples::{call, user};
use super::*;
use crate::metrics::Metrics;
use crate::signaling::{Notice, NoticeKind};

/// An empty store of each kind, and the server behind the last one.
async fn stores() -> ([Arc<dyn CallStore>; 2], Arc<Server>) {
    let server = Server::shared();
    let sqlite = Arc::new(Sqlite::memory().await.unwrap());
    let postgres = Arc::new(server.store().await);
    ([sqlite, postgres], server)
}

async fn filled(store: &dyn CallStore, calls: &[Arc<CallRecord>]) {
    store.write(calls).await.unwrap();
}

fn query(name: &str) -> CallQuery {
    CallQuery { user: Some(user(name)), limit: 100, ..CallQuery::default() }
}

async fn ids(store: &dyn CallStore, query: CallQuery) -> Vec<String> {
    store.list(query).await.unwrap().calls.iter().map(|call| call.id.0.to_string()).collect()
}

fn entry(call: &str, order: u64, kind: NoticeKind, at: i64) -> Entry {
    let session = serde_json::json!({
        "initiatorId": "alice", "conversationId": "room", "type": "video", "rev": 3,
        "startedAt": "2026-01-31T12:00:00.000Z",
        "participants": [{"userId": "bob"}, {"userId": "alice", "displayName": "Alice A."}],
    });
    let notice = Notice {
        call: CallId(call.into()),
        order,
        kind,
        at,
        user: Some(user("bob")),
        reason: None,
        session: session.to_string().into(),
    };
    Entry::Step { notice: Arc::new(notice), told: true, kept: false }
}

#[tokio::test]
async fn a_call_reads_back_as_it_was_written() {
    let (stores, _server) = stores().await;
    for store in stores {
        filled(&*store, &[call("c1", 1_700_000_000_123, 1, &["alice", "bob"])]).await;
        let read = store.one(Some(user("bob")), CallId("c1".into())).await.unwrap().unwrap();
        let json = serde_json::to_value(&read).unwrap();
        assert_eq!(json["callId"], "c1");
        assert_eq!(json["conversationId"], "room");
        assert_eq!(json["initiatorId"], "alice");
        assert_eq!(json["createdAt"], "2023-11-14T22:13:20.123Z");
        assert_eq!(json["endedAt"], serde_json::Value::Null);
        assert_eq!(json["metadata"]["topic"], "tea");
        assert_eq!(json["participants"][0]["userId"], "alice");
        assert_eq!(json["participants"][1]["isAudioEnabled"], true);
        assert_eq!(json["participants"][1]["joinedAt"], "2023-11-14T22:13:20.124Z");
    }
}

#[tokio::test]
async fn the_newest_revision_wins_in_any_order() {
    let (stores, _server) = stores().await;
    for store in stores {
        let end = |rev, status: &'static str| {
            let mut call = (*call("c1", 5, rev, &["alice", "bob"])).clone();
            call.status = status;
            call.participants[1].state = status;
            Arc::new(call)
        };
        filled(&*store, &[end(3, "completed"), end(2, "active")]).await;
        store.write(&[end(1, "ringing")]).await.unwrap();
        let read = store.one(Some(user("alice")), CallId("c1".into())).await.unwrap().unwrap();
        assert_eq!((read.status.as_str(), read.rev), ("completed", 3));
        assert_eq!(read.participants[1].state, "completed");
        store.write(&[end(4, "failed")]).await.unwrap();
        let read = store.one(Some(user("alice")), CallId("c1".into())).await.unwrap().unwrap();
        assert_eq!((read.status.as_str(), read.participants[1].state.as_str()), ("failed", "failed"));
    }
}

#[tokio::test]
async fn a_second_attempt_of_a_participant_is_a_row_of_its_own() {
    let (stores, _server) = stores().await;
    for store in stores {
        filled(&*store, &[call("c1", 5, 1, &["alice", "bob", "bob"])]).await;
        let read = store.one(Some(user("bob")), CallId("c1".into())).await.unwrap().unwrap();
        assert_eq!(read.participants.len(), 3);
        assert_eq!(ids(&*store, query("bob")).await, ["c1"]);
    }
}

#[tokio::test]
async fn a_user_sees_only_own_calls() {
    let (stores, _server) = stores().await;
    for store in stores {
        filled(&*store, &[call("c1", 1, 1, &["alice", "bob"]), call("c2", 2, 1, &["carol", "alice"])]).await;
        assert_eq!(ids(&*store, query("alice")).await, ["c2", "c1"]);
        assert_eq!(ids(&*store, query("bob")).await, ["c1"]);
        assert_eq!(ids(&*store, query("mallory")).await, [""; 0]);
        assert!(store.one(Some(user("bob")), CallId("c2".into())).await.unwrap().is_none());
        assert!(store.one(Some(user("alice")), CallId("c3".into())).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_list_is_filtered_by_direction_and_status() {
    let (stores, _server) = stores().await;
    for store in stores {
        let mut missed = (*call("c3", 3, 1, &["alice", "bob"])).clone();
        missed.status = "missed";
        filled(
            &*store,
            &[call("c1", 1, 1, &["alice", "bob"]), call("c2", 2, 1, &["bob", "alice"]), Arc::new(missed)],
        )
        .await;
        let outgoing = |outgoing| CallQuery { outgoing: Some(outgoing), ..query("alice") };
        assert_eq!(ids(&*store, outgoing(true)).await, ["c3", "c1"]);
        assert_eq!(ids(&*store, outgoing(false)).await, ["c2"]);
        let status = CallQuery { status: Some("missed".into()), ..query("alice") };
        assert_eq!(ids(&*store, status).await, ["c3"]);
    }
}

#[tokio::test]
async fn pages_hold_every_call_once_even_in_the_same_millisecond() {
    let (stores, _server) = stores().await;
    for store in stores {
        let calls: Vec<_> =
            (0..25).map(|n| call(&format!("c{n:02}"), n / 10, 1, &["alice", "bob"])).collect();
        filled(&*store, &calls).await;
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = store.list(CallQuery { cursor, limit: 4, ..query("bob") }).await.unwrap();
            assert!(page.calls.len() <= 4);
            seen.extend(page.calls.iter().map(|call| call.id.0.to_string()));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let expected: Vec<String> = (0..25).rev().map(|n| format!("c{n:02}")).collect();
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn a_foreign_cursor_is_refused() {
    let (stores, _server) = stores().await;
    for store in stores {
        filled(&*store, &[]).await;
        for cursor in ["", "!", "bm9uc2Vuc2U", "-"] {
            let page = store.list(CallQuery { cursor: Some(cursor.into()), ..query("bob") }).await;
            assert!(matches!(page, Err(StoreError::Cursor)), "{cursor}");
        }
    }
}

#[tokio::test]
async fn everything_a_call_has_reads_back() {
    let (stores, _server) = stores().await;
    for store in stores {
        let mut record = (*call("c1", 5, 7, &["alice", "bob"])).clone();
        record.quality = Some("fair");
        (record.relay_bytes_up, record.relay_bytes_down) = (1 << 40, 3);
        (record.open, record.locked) = (true, true);
        let bob = &mut record.participants[1];
        (bob.rtt_avg_ms, bob.rtt_max_ms, bob.loss_avg, bob.loss_max) =
            (Some(1.5), Some(9.0), Some(0.1), Some(2.0));
        (bob.jitter_avg_ms, bob.setup_ms, bob.relay_bytes) = (Some(0.5), Some(300), 1 << 41);
        (bob.ice_method, bob.relay_transport, bob.leave_reason) =
            (Some("relay"), Some("tls"), Some("kicked"));
        bob.relay_peers = vec!["198.51.100.0/24".into(), "2001:db8:1::/48".into()];
        filled(&*store, &[Arc::new(record.clone())]).await;
        let running = store.running(0, 10).await.unwrap();
        assert_eq!(running, [record.clone()]);
        let read = store.one(None, CallId("c1".into())).await.unwrap().unwrap();
        let json = serde_json::to_value(&read).unwrap();
        assert_eq!((&json["quality"], &json["relayUsed"]), (&"fair".into(), &true.into()));
        assert_eq!(json["participants"][1]["rttAvgMs"], 1.5);
        assert_eq!(json["participants"][1]["relayTransport"], "tls");
        assert_eq!(json["participants"][1]["relayPeers"][1], "2001:db8:1::/48");
        assert_eq!(read, record.into(), "as it is shown while the engine has it");
    }
}

#[tokio::test]
async fn only_calls_that_are_not_over_and_not_too_old_are_taken_up() {
    let (stores, _server) = stores().await;
    for store in stores {
        let mut over = (*call("over", 50, 1, &["alice", "bob"])).clone();
        over.ended_at = Some(60);
        let mut strange = (*call("strange", 50, 1, &["alice", "bob"])).clone();
        strange.status = "from a later version";
        let running = call("running", 50, 1, &["alice", "bob"]);
        let old = call("old", 5, 1, &["alice", "bob"]);
        filled(&*store, &[Arc::new(over), Arc::new(strange), running.clone(), old]).await;
        assert_eq!(store.running(10, 100).await.unwrap(), [(*running).clone()]);
        assert_eq!(store.ended(60, 100).await.unwrap(), [CallId("over".into())]);
        assert!(store.ended(61, 100).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_list_is_filtered_by_room_type_and_time_and_an_operator_sees_all() {
    let (stores, _server) = stores().await;
    for store in stores {
        let mut other = (*call("c2", 20, 1, &["carol", "dan"])).clone();
        (other.room_id, other.kind) = (Some("other".into()), "audio");
        filled(&*store, &[call("c1", 10, 1, &["alice", "bob"]), Arc::new(other)]).await;
        let all = CallQuery { limit: 100, ..CallQuery::default() };
        assert_eq!(ids(&*store, all.clone()).await, ["c2", "c1"]);
        for (narrowed, found) in [
            (CallQuery { room: Some("other".into()), ..all.clone() }, "c2"),
            (CallQuery { kind: Some("video".into()), ..all.clone() }, "c1"),
            (CallQuery { since: Some(20), ..all.clone() }, "c2"),
            (CallQuery { until: Some(20), ..all.clone() }, "c1"),
        ] {
            assert_eq!(ids(&*store, narrowed).await, [found]);
        }
    }
}

#[tokio::test]
async fn events_for_the_webhook_leave_in_the_order_of_their_call() {
    let (stores, _server) = stores().await;
    for store in stores {
        let entries = [
            entry("c1", 2, NoticeKind::Ended, 20),
            entry("c1", 1, NoticeKind::Initiated, 10),
            entry("c2", 1, NoticeKind::Initiated, 30),
        ];
        store.note(&entries).await.unwrap();
        store.note(&entries).await.unwrap();
        let due = async |now| {
            let due = store.due(now, 10).await.unwrap();
            due.into_iter().map(|delivery| delivery.id).collect::<Vec<_>>()
        };
        assert_eq!(due(100).await, ["c1-1", "c2-1"]);
        store.postponed("c1-1", 200).await.unwrap();
        assert_eq!(due(100).await, ["c2-1"], "a later event of the call waits too");
        assert_eq!(store.due(200, 10).await.unwrap().last().unwrap().attempts, 1);
        store.delivered("c1-1").await.unwrap();
        assert_eq!(due(200).await, ["c1-2", "c2-1"]);
        let body: serde_json::Value =
            serde_json::from_str(&store.due(200, 10).await.unwrap()[0].body).unwrap();
        assert_eq!(
            (&body["type"], &body["order"], &body["userId"]),
            (&"call.ended".into(), &2.into(), &"bob".into())
        );
        assert_eq!((&body["id"], &body["createdAt"]), (&"c1-2".into(), &"1970-01-01T00:00:00.020Z".into()));
    }
}

async fn missed(store: &dyn CallStore, of: Option<&str>) -> Vec<serde_json::Value> {
    let query = MissedQuery { user: of.map(user), cursor: None, limit: 100 };
    store.missed(query).await.unwrap().calls.iter().map(MissedCall::to_json).collect()
}

#[tokio::test]
async fn missed_calls_are_listed_and_told_once() {
    let (stores, _server) = stores().await;
    for store in stores {
        let of = |call, who: &str, at| {
            let Entry::Step { notice, .. } = entry(call, 1, NoticeKind::Missed, at) else { unreachable!() };
            let notice = Notice { user: Some(user(who)), reason: Some("cancelled"), ..(*notice).clone() };
            Entry::Step { notice: Arc::new(notice), told: false, kept: false }
        };
        let entries = [of("c1", "bob", 10), of("c2", "bob", 20), of("c2", "carol", 20), of("c3", "bob", 30)];
        store.note(&entries).await.unwrap();
        store.note(&[entry("c4", 1, NoticeKind::Ended, 40)]).await.unwrap();
        let bobs = missed(&*store, Some("bob")).await;
        assert_eq!(bobs.iter().map(|call| &call["callId"]).collect::<Vec<_>>(), ["c3", "c2", "c1"]);
        assert_eq!((&bobs[0]["userId"], &bobs[0]["reason"]), (&"bob".into(), &"cancelled".into()));
        assert_eq!(bobs[0]["missedAt"], "1970-01-01T00:00:00.030Z");
        assert_eq!(bobs[0]["initiator"]["displayName"], "Alice A.");
        assert_eq!((&bobs[0]["roomId"], &bobs[0]["type"]), (&"room".into(), &"video".into()));
        assert_eq!(bobs[0]["createdAt"], "2026-01-31T12:00:00.000Z");
        assert_eq!(missed(&*store, None).await.len(), 4);
        let (mut seen, mut cursor) = (0, None);
        loop {
            let page = store.missed(MissedQuery { user: None, cursor, limit: 1 }).await.unwrap();
            seen += page.calls.len();
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, 4, "two of the same moment as well");

        let unseen = async |limit| {
            let unseen = store.unseen(15, limit).await.unwrap();
            let ids = unseen.iter().map(|call| (call.user.0.to_string(), call.missed_at.0));
            ids.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(unseen(9).await, [("bob".into(), 20), ("bob".into(), 30), ("carol".into(), 20)].into());
        assert_eq!(unseen(1).await, [("bob".into(), 30)].into(), "the newest");
        for until in [25, 5] {
            store.note(&[Entry::Seen { user: user("bob"), until }]).await.unwrap();
        }
        assert_eq!(unseen(9).await, [("bob".into(), 30), ("carol".into(), 20)].into());
    }
}

#[tokio::test]
async fn the_steps_of_a_call_are_kept_for_those_who_are_part_of_it() {
    let (stores, _server) = stores().await;
    for store in stores {
        filled(&*store, &[call("c1", 5, 1, &["alice", "bob"])]).await;
        let kept = |order, kind, at| {
            let Entry::Step { notice, .. } = entry("c1", order, kind, at) else { unreachable!() };
            Entry::Step { notice, told: false, kept: true }
        };
        let entries = [kept(2, NoticeKind::Ended, 20), kept(1, NoticeKind::Initiated, 10)];
        store.note(&entries).await.unwrap();
        store.note(&entries).await.unwrap();
        let events = async |of: Option<&str>| store.events(of.map(user), CallId("c1".into())).await.unwrap();
        for of in [None, Some("alice"), Some("bob")] {
            let kinds: Vec<String> = events(of).await.into_iter().map(|event| event.kind).collect();
            assert_eq!(kinds, ["call.initiated", "call.ended"]);
        }
        assert!(events(Some("mallory")).await.is_empty());
        assert!(store.due(100, 10).await.unwrap().is_empty(), "the webhook is not told of them");
        store.purge(Horizon { calls: 0, events: 15, outbox: 0 }).await.unwrap();
        assert_eq!(events(None).await.len(), 1);
    }
}

#[tokio::test]
async fn the_outbox_keeps_the_newest_events() {
    let (stores, _server) = stores().await;
    for store in stores {
        let entries: Vec<Entry> = (0..10).map(|n| entry(&format!("c{n}"), 1, NoticeKind::Ended, n)).collect();
        store.note(&entries).await.unwrap();
        assert_eq!(store.trim(10).await.unwrap(), (0, 10));
        assert_eq!(store.trim(4).await.unwrap(), (6, 4));
        let left = store.due(100, 10).await.unwrap();
        assert_eq!(left.iter().map(|event| event.created_at).collect::<Vec<_>>(), [6, 7, 8, 9]);
    }
}

#[tokio::test]
async fn old_calls_are_deleted_with_all_that_belongs_to_them() {
    let (stores, _server) = stores().await;
    for store in stores {
        let calls: Vec<_> = (0..20).map(|n| call(&format!("c{n:02}"), n, 1, &["alice", "bob"])).collect();
        filled(&*store, &calls).await;
        let seen = Entry::Seen { user: user("bob"), until: 2 };
        store.note(&[entry("c01", 1, NoticeKind::Missed, 1), seen]).await.unwrap();
        let horizon = Horizon { calls: 15, events: 15, outbox: 15 };
        assert_eq!(store.purge(horizon).await.unwrap(), 15);
        assert!(missed(&*store, None).await.is_empty() && store.due(100, 10).await.unwrap().is_empty());
        assert_eq!(ids(&*store, query("bob")).await, ["c19", "c18", "c17", "c16", "c15"]);
        assert_eq!(store.purge(horizon).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn hostile_texts_are_data_and_nothing_else() {
    let (stores, _server) = stores().await;
    for store in stores {
        let hostile = r#"'; DROP TABLE calls; -- \" %s%n {"a":1} ünï \u"#;
        filled(&*store, &[call(hostile, 1, 1, &[hostile, "bob"])]).await;
        assert_eq!(ids(&*store, query(hostile)).await, [hostile]);
        assert_eq!(ids(&*store, query("bob")).await, [hostile]);
        assert_eq!(ids(&*store, query("' OR '1'='1")).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_database_that_hangs_delays_records_and_loses_none() {
    let server = Server::start();
    let store: Arc<dyn CallStore> = Arc::new(server.store().await);
    let queue = Queue::new(Arc::new(Metrics::new().unwrap()));
    let writer = tokio::spawn(queue.clone().run(store.clone()));
    queue.push(call("before", 1, 1, &["alice", "bob"]));
    queue.flushed(Duration::from_secs(60)).await.unwrap();
    server.freeze(true);
    for n in 0..100 {
        queue.push(call(&format!("during{n}"), 2, 1, &["alice", "bob"]));
    }
    assert_eq!(queue.flushed(Duration::from_millis(200)).await, Err(100));
    server.freeze(false);
    queue.flushed(Duration::from_secs(60)).await.unwrap();
    assert_eq!(ids(&*store, CallQuery { limit: 1000, ..CallQuery::default() }).await.len(), 101);
    writer.abort();
}
