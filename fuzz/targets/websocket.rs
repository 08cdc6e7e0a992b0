//! The text of a WebSocket message: what is read as a frame, another reader of JSON reads the same way.

use passerelle::http::inbound::{ClientFrame, FrameError, parse};
use serde_json::{Value, json};

use super::nesting;

/// As deep as the protocol allows.
const DEPTH: usize = 16;

pub(super) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let json: Option<Value> = serde_json::from_str(text).ok();
    let too_deep = nesting(text).map(|depth| depth > DEPTH);
    match parse(text, DEPTH) {
        Ok(ClientFrame { event, id, payload, last_seen }) => {
            let Some(json) = json else {
                // In a field that nobody knows, half a surrogate pair or a number beyond all numbers is passed over.
                assert!(serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(), "a frame is JSON");
                return;
            };
            assert_eq!(too_deep, Some(false));
            assert_eq!((&json["v"], &json["t"], &json["id"]), (&json!(1), &json!(event), &json!(id)));
            assert_eq!(&json["ls"], &json!(last_seen));
            let expected = if json["p"].is_null() { &json!({}) } else { &json["p"] };
            assert_eq!(&payload, expected);
            assert!((1..=64).contains(&event.len()) && id.as_ref().is_none_or(|id| id.chars().count() <= 64));
            let again = json!({ "v": 1, "t": event, "id": id, "p": payload, "ls": last_seen }).to_string();
            let again = parse(&again, DEPTH).expect("what was read is written and read again");
            // A number with a fraction may be rounded once more.
            assert_eq!((again.event, again.id, again.last_seen), (event, id, last_seen));
        }
        // What is nested too deep is refused before anybody knows whether it is JSON.
        Err(FrameError::Depth) => assert_ne!(too_deep, Some(false)),
        Err(FrameError::Version) => assert!(json.is_none_or(|json| json["v"] != 1)),
        Err(FrameError::Malformed) => assert_ne!(too_deep, Some(true)),
    }
}
