//! Frames of `passerelle.v1.json`: one JSON object per WebSocket text message.

use serde::Deserialize;
use serde_json::{Value, json};

use super::session::{AckId, Frame};
use crate::signaling::ServerEvent;

/// The version of the protocol.
const VERSION: u64 = 1;
/// Longest id of a request, in characters.
const MAX_ID: usize = 64;
/// Longest name of an event, in bytes.
const MAX_EVENT: usize = 64;

/// A frame of a client.
#[derive(Debug, PartialEq)]
pub(crate) struct ClientFrame {
    /// Name of the event.
    pub(crate) event: String,
    /// Id for the ack, when one is wanted.
    pub(crate) id: Option<String>,
    /// Payload; an empty object when the frame has none.
    pub(crate) payload: Value,
    /// Number of the last event the client has received, where it says so.
    pub(crate) last_seen: Option<u64>,
}

/// A message that is no frame. It closes the transport: a client that gets its framing wrong has lost its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
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
pub(crate) fn parse(text: &str, max_depth: usize) -> Result<ClientFrame, FrameError> {
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

/// Writes a frame of the server. The sequence number of an event stands beside its payload, which is JSON already:
/// written once for everyone who gets it.
pub(crate) fn encode(frame: &Frame) -> String {
    match frame {
        Frame::Event(ServerEvent { name, seq: Some(seq), payload }) => {
            format!(r#"{{"v":{VERSION},"t":"{name}","seq":{seq},"p":{payload}}}"#)
        }
        Frame::Event(ServerEvent { name, seq: None, payload }) => {
            format!(r#"{{"v":{VERSION},"t":"{name}","p":{payload}}}"#)
        }
        Frame::Ack { id, outcome } => {
            let re = match id {
                // A text of the client: it has to be escaped.
                AckId::Text(id) => serde_json::to_string(id).unwrap_or_default(),
                AckId::Number(id) => id.to_string(),
            };
            match outcome {
                Ok(data) => format!(r#"{{"v":{VERSION},"t":"ack","re":{re},"ok":true,"p":{data}}}"#),
                Err(error) => format!(r#"{{"v":{VERSION},"t":"ack","re":{re},"ok":false,"error":{error}}}"#),
            }
        }
    }
}

/// Whether arrays and objects are nested deeper than `max`, looking at nothing but brackets and strings.
pub(crate) fn depth_exceeds(text: &str, max: usize) -> bool {
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
    fn server_frames_have_the_shape_of_the_protocol() {
        let event = |seq, payload: Value| {
            let payload = payload.to_string().into();
            encode(&Frame::Event(ServerEvent { name: "call:ended", seq, payload }))
        };
        assert_eq!(
            serde_json::from_str::<Value>(&event(Some(42), json!({"callId": "c"}))).unwrap(),
            json!({"v": 1, "t": "call:ended", "seq": 42, "p": {"callId": "c"}})
        );
        assert_eq!(
            serde_json::from_str::<Value>(&event(None, json!({}))).unwrap(),
            json!({"v": 1, "t": "call:ended", "p": {}})
        );
        let ack = |outcome| encode(&Frame::Ack { id: AckId::Text("7".into()), outcome });
        assert_eq!(
            serde_json::from_str::<Value>(&ack(Ok(json!({"rev": 1})))).unwrap(),
            json!({"v": 1, "t": "ack", "re": "7", "ok": true, "p": {"rev": 1}})
        );
        assert_eq!(
            serde_json::from_str::<Value>(&ack(Err(json!({"code": "X"})))).unwrap(),
            json!({"v": 1, "t": "ack", "re": "7", "ok": false, "error": {"code": "X"}})
        );
    }
}
