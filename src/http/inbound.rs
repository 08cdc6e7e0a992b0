//! What clients send, read from its JSON text: frames of `passerelle.v1.json` and events of Socket.IO.
//!
//! Public and free of sockets for the sake of the fuzzers, which compile this file alone.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::signaling::Reject;

/// The version of the protocol.
pub(super) const VERSION: u64 = 1;
/// Longest id of a request, in characters.
const MAX_ID: usize = 64;
/// Longest name of an event, in bytes.
const MAX_EVENT: usize = 64;

/// A frame of a client.
#[derive(Debug, PartialEq)]
pub struct ClientFrame {
    /// Name of the event.
    pub event: String,
    /// Id for the ack, when one is wanted.
    pub id: Option<String>,
    /// Payload; an empty object when the frame has none.
    pub payload: Value,
    /// Number of the last event the client has received, where it says so.
    pub last_seen: Option<u64>,
}

/// A message that is no frame. It closes the transport: a client that gets its framing wrong has lost its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not a JSON object with `v` and `t`.
    #[error("not a frame of passerelle.v1.json")]
    Malformed,
    /// Another version.
    #[error("UNSUPPORTED_VERSION")]
    Version,
    /// Nested deeper than allowed.
    #[error("nested too deep")]
    Depth,
}

#[derive(Deserialize)]
struct Wire {
    v: u64,
    t: String,
    id: Option<String>,
    p: Option<Value>,
    ls: Option<u64>,
}

/// Reads a frame.
///
/// # Errors
/// [`FrameError`].
pub fn parse(text: &str, max_depth: usize) -> Result<ClientFrame, FrameError> {
    if depth_exceeds(text, max_depth) {
        return Err(FrameError::Depth);
    }
    let Wire { v, t, id, p, ls } = serde_json::from_str(text).map_err(|_| FrameError::Malformed)?;
    if v != VERSION {
        return Err(FrameError::Version);
    }
    let id_too_long = id.as_ref().is_some_and(|id| id.chars().count() > MAX_ID);
    if t.is_empty() || t.len() > MAX_EVENT || id_too_long {
        return Err(FrameError::Malformed);
    }
    Ok(ClientFrame { event: t, id, payload: p.unwrap_or_else(|| json!({})), last_seen: ls })
}

/// Reads an event of Socket.IO: the array of its name and its payload. An event without a payload has an empty one.
///
/// # Errors
/// It is no such array, or nested too deep.
pub fn event(text: &str, max_depth: usize) -> Result<(String, Value), Reject> {
    const MALFORMED: Reject = Reject::Invalid { field: "payload", why: "has to be one object" };
    // The array around name and payload is the framing's.
    if depth_exceeds(text, max_depth + 1) {
        return Err(Reject::Invalid { field: "payload", why: "is nested too deep" });
    }
    let mut items: Vec<Value> = serde_json::from_str(text).map_err(|_| MALFORMED)?;
    if items.len() > 2 {
        return Err(MALFORMED);
    }
    let payload = if items.len() == 2 { items.pop() } else { None };
    match items.pop() {
        Some(Value::String(event)) => Ok((event, payload.unwrap_or_else(|| json!({})))),
        _ => Err(MALFORMED),
    }
}

/// Whether arrays and objects are nested deeper than `max`, looking at nothing but brackets and strings.
fn depth_exceeds(text: &str, max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_with_and_without_its_optional_fields() {
        assert_eq!(
            parse(r#"{"v":1,"t":"call:join","id":"7","p":{"callId":"c"},"ls":41,"x":[1]}"#, 16),
            Ok(ClientFrame {
                event: "call:join".into(),
                id: Some("7".into()),
                payload: json!({"callId": "c"}),
                last_seen: Some(41),
            })
        );
        assert_eq!(
            parse(r#"{"v":1,"t":"seq","ls":41}"#, 16),
            Ok(ClientFrame { event: "seq".into(), id: None, payload: json!({}), last_seen: Some(41) })
        );
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for (text, error) in [
            ("", FrameError::Malformed),
            ("hello", FrameError::Malformed),
            ("[]", FrameError::Malformed),
            ("null", FrameError::Malformed),
            (r#"{"t":"call:join"}"#, FrameError::Malformed),
            (r#"{"v":1}"#, FrameError::Malformed),
            (r#"{"v":1,"t":""}"#, FrameError::Malformed),
            (r#"{"v":1,"t":7}"#, FrameError::Malformed),
            (r#"{"v":1,"t":"x","id":7}"#, FrameError::Malformed),
            (r#"{"v":1,"t":"seq","ls":-1}"#, FrameError::Malformed),
            (r#"{"v":1,"t":"seq","ls":"1"}"#, FrameError::Malformed),
            (r#"{"v":1,"t":"x","t":"y"}"#, FrameError::Malformed),
            (r#"{"v":1,"t":"x"} {"v":1,"t":"x"}"#, FrameError::Malformed),
            (r#"{"v":"1","t":"x"}"#, FrameError::Malformed),
            (r#"{"v":2,"t":"x"}"#, FrameError::Version),
            (r#"{"v":0,"t":"x"}"#, FrameError::Version),
        ] {
            assert_eq!(parse(text, 16), Err(error), "{text}");
        }
        let id = |n: usize| format!(r#"{{"v":1,"t":"x","id":"{}"}}"#, "é".repeat(n));
        assert!(parse(&id(64), 16).is_ok());
        assert_eq!(parse(&id(65), 16), Err(FrameError::Malformed));
    }

    #[test]
    fn sixteen_levels_are_read_and_seventeen_are_not() {
        let nested = |levels: usize| {
            format!(r#"{{"v":1,"t":"x","p":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1))
        };
        assert!(parse(&nested(16), 16).is_ok());
        assert_eq!(parse(&nested(17), 16), Err(FrameError::Depth));
        assert_eq!(parse(&nested(100_000), 16), Err(FrameError::Depth));
        let text = r#"{"v":1,"t":"x","p":"[[[[[[[[[[[[[[[[[[[[\"[[[[\\"}"#;
        assert!(parse(text, 16).is_ok());
    }

    #[test]
    fn an_event_is_a_name_and_at_most_one_payload() {
        assert_eq!(
            event(r#"["call:join",{"callId":"c"}]"#, 16),
            Ok(("call:join".into(), json!({"callId": "c"})))
        );
        assert_eq!(event(r#"["call:heartbeat"]"#, 16), Ok(("call:heartbeat".into(), json!({}))));
        for text in ["", "[]", "{}", "7", "[7]", "[null,{}]", r#"["a",{},{}]"#, r#"["a"]["b"]"#, r#"["a",]"#]
        {
            assert_eq!(event(text, 16).unwrap_err().code(), "VALIDATION_ERROR", "{text}");
        }
        let nested = |levels: usize| format!(r#"["x",{}{}]"#, "[".repeat(levels), "]".repeat(levels));
        assert!(event(&nested(16), 16).is_ok());
        assert!(event(&nested(17), 16).is_err());
    }
}
