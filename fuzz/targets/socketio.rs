//! The text of a Socket.IO event, then what it asks for.

use passerelle::http::inbound::event;
use passerelle::signaling::{ClientMessage, Limits};
use serde_json::{Value, json};

use super::nesting;

/// As deep as the protocol allows a payload.
const DEPTH: usize = 16;

pub(super) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let json: Option<Value> = serde_json::from_str(text).ok();
    let too_deep = nesting(text).map(|depth| depth > DEPTH + 1);
    match event(text, DEPTH) {
        Ok((name, payload)) => {
            let json = json.expect("an event is JSON");
            assert_eq!(too_deep, Some(false));
            let whole = json!([name, payload]);
            assert!(json == whole || (json == json!([name]) && payload == json!({})));
            let _ = ClientMessage::parse(&name, payload, &Limits::default());
        }
        Err(reject) => {
            assert_eq!(reject.code(), "VALIDATION_ERROR");
            let Some(Value::Array(items)) = json else { return };
            let named = items.first().is_some_and(Value::is_string);
            assert!(too_deep == Some(true) || !named || items.len() > 2, "{text} is an event");
        }
    }
}
