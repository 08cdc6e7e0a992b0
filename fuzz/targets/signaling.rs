//! A frame of a signaling client: the name of an event, a line end, its payload.

use passerelle::signaling::{ClientMessage, Limits};

pub(super) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (event, payload) = text.split_once('\n').unwrap_or((text, "null"));
    let Ok(payload) = serde_json::from_str::<serde_json::Value>(payload) else { return };
    let limits = Limits::default();
    let first = ClientMessage::parse(event, payload.clone(), &limits);
    let second = ClientMessage::parse(event, payload, &limits);
    match (first, second) {
        (Ok(first), Ok(second)) => assert_eq!(first, second),
        (Err(first), Err(second)) => assert_eq!(first.to_string(), second.to_string()),
        (first, second) => panic!("{first:?}, then {second:?}"),
    }
}
