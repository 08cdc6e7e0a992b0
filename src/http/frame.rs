//! Frames that the server sends in `passerelle.v1.json`: one JSON object per WebSocket text message.

use super::inbound::VERSION;
use super::session::{AckId, Frame};
use crate::signaling::ServerEvent;

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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
