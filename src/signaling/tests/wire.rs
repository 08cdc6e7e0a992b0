//! Requests that are wrong, requests without an ack, and the configuration.

use serde_json::{Value, json};

use super::stage::{Stage, code};
use crate::signaling::*;

#[test]
fn an_unknown_event_is_said_to_be_one() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    stage.clear();
    assert_eq!(code(stage.ask(a, "call:teleport", json!(null))), "UNKNOWN_EVENT");
    stage.send(a, "call:teleport", json!({}));
    let error = stage.expect(a, "call:error");
    assert_eq!(error["code"], "UNKNOWN_EVENT");
    assert!(error["message"].as_str().unwrap().len() > 3, "not an empty object");
    assert_eq!(stage.count(|event| matches!(event, Event::EventIn { name: "other" })), 2);
}

#[test]
fn a_payload_that_is_no_object_is_refused() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    for payload in [json!(null), json!([]), json!("x"), json!(1)] {
        for event in
            ["call:initiate", "call:join", "call:signal", "room:join", "session:bye", "call:heartbeat"]
        {
            assert_eq!(code(stage.ask(a, event, payload.clone())), "VALIDATION_ERROR", "{event} {payload}");
        }
    }
}

#[test]
fn every_wrong_field_is_named() {
    let wrong = [
        ("call:initiate", json!({ "to": "b" }), "type"),
        ("call:initiate", json!({ "to": "b", "type": 1 }), "type"),
        ("call:initiate", json!({ "type": "audio" }), "to"),
        ("call:initiate", json!({ "type": "audio", "to": [] }), "to"),
        ("call:initiate", json!({ "type": "audio", "to": [1] }), "to"),
        ("call:initiate", json!({ "type": "audio", "to": "" }), "to"),
        ("call:initiate", json!({ "type": "audio", "to": "b\n" }), "to"),
        ("call:initiate", json!({ "type": "audio", "roomId": "a", "conversationId": "b" }), "roomId"),
        ("call:initiate", json!({ "type": "audio", "to": "b", "ringTimeoutMs": "1" }), "ringTimeoutMs"),
        ("call:initiate", json!({ "type": "audio", "to": "b", "ringTimeoutMs": -1 }), "ringTimeoutMs"),
        ("call:initiate", json!({ "type": "audio", "to": "b", "settings": [] }), "settings"),
        (
            "call:initiate",
            json!({ "type": "audio", "to": "b", "settings": { "audioEnabled": 1 } }),
            "settings",
        ),
        ("call:join", json!({}), "callId"),
        ("call:join", json!({ "callId": 7 }), "callId"),
        ("call:join", json!({ "callId": "" }), "callId"),
        ("call:leave", json!({ "callId": "x", "reason": 7 }), "reason"),
        ("call:toggle-audio", json!({ "callId": "x" }), "enabled"),
        ("call:toggle-audio", json!({ "callId": "x", "enabled": "false" }), "enabled"),
        ("call:signal", json!({ "callId": "x" }), "signal"),
        ("room:join", json!({}), "roomId"),
        ("room:join", json!({ "roomId": "r", "msgId": 1 }), "msgId"),
    ];
    for (event, payload, field) in wrong {
        let refused = ClientMessage::parse(event, payload.clone(), &Limits::default()).unwrap_err();
        assert!(
            matches!(&refused, Reject::Invalid { field: f, .. } if *f == field),
            "{payload}: {refused:?}"
        );
        assert!(refused.to_json()["message"].as_str().unwrap().starts_with(field));
    }
    let refused =
        ClientMessage::parse("call:initiate", json!({ "to": "b", "type": "hologram" }), &Limits::default());
    assert_eq!(refused.unwrap_err().code(), "UNSUPPORTED_CALL_TYPE");
}

#[test]
fn unknown_fields_and_nulls_are_ignored() {
    let payload = json!({ "callId": "x", "settings": null, "msgId": null, "colour": "blue" });
    let parsed = ClientMessage::parse("call:join", payload, &Limits::default());
    let expected = ClientMessage::Join { call: CallId("x".into()), settings: Settings::default() };
    assert_eq!(parsed, Ok(expected));
}

#[test]
fn an_error_without_an_ack_names_its_call() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    stage.clear();
    stage.send(a, "call:join", json!({ "callId": "nowhere" }));
    let error = stage.expect(a, "call:error");
    assert_eq!((&error["code"], &error["callId"]), (&json!("CALL_NOT_FOUND"), &json!("nowhere")));
    assert!(error["seq"].is_u64());
    stage.send(a, "call:join", json!({ "callId": "x".repeat(5000) }));
    assert_eq!(stage.expect(a, "call:error").get("callId"), None);
}

#[test]
fn an_error_with_an_ack_is_in_the_ack_only() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    stage.clear();
    assert!(stage.ask(a, "call:join", json!({ "callId": "nowhere" })).is_err());
    assert!(stage.names(a).is_empty());
}

#[test]
fn rooms_answer_without_an_ack_too() {
    let mut stage = Stage::new();
    let a = stage.open("a");
    stage.send(a, "room:join", json!({ "roomId": "r" }));
    let echo = stage.expect(a, "room:join");
    assert_eq!((&echo["success"], &echo["members"][0]["userId"]), (&json!(true), &json!("a")));
    stage.send(a, "room:leave", json!({ "roomId": "r" }));
    assert_eq!(stage.expect(a, "room:leave")["roomId"], "r");
    stage.ask(a, "room:leave", json!({ "roomId": "r" })).unwrap();
}

#[test]
fn the_configuration_reads_what_it_writes_and_nothing_else() {
    let written = toml::to_string(&Config::default()).unwrap();
    assert!(written.contains("ring_timeout = \"1m\""), "{written}");
    assert_eq!(toml::from_str::<Config>(&written).unwrap(), Config::default());
    assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    assert!(toml::from_str::<Config>("ring_time = \"1m\"").is_err());
    assert!(toml::from_str::<Config>("[limits]\nsessionz = 1").is_err());
    let partial: Config = toml::from_str("busy = \"reject\"\n[limits]\nsessions = 5").unwrap();
    assert_eq!((partial.busy, partial.limits.sessions), (BusyPolicy::Reject, 5));
    assert_eq!(partial.limits.participants, 4);
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    documented(&schema);
    schema["$defs"]
        .as_object()
        .unwrap()
        .values()
        .filter(|def| def.get("properties").is_some())
        .for_each(documented);
}

fn documented(schema: &Value) {
    for (name, field) in schema["properties"].as_object().unwrap() {
        assert!(field["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}");
    }
}

#[test]
fn no_configuration_panics() {
    let huge = std::time::Duration::MAX;
    let config = Config {
        ring_timeout_min: huge,
        max_duration: huge,
        grace: huge,
        ended_retention: huge,
        rates: Rates { initiate: Rate { count: 1, per: huge, burst: u32::MAX }, ..Rates::default() },
        ..Config::default()
    };
    let mut stage = Stage::with(config);
    let (a, b, call) = stage.active();
    stage.close(a);
    stage.pass(86_400.0);
    stage.ask(b, "call:leave", json!({ "callId": call })).unwrap();
}
