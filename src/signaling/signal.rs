//! A signal between two participants: its shapes on the wire, and what may be in it. The session description
//! itself is opaque: it is checked to be one, and never rewritten.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Map, Value, json};

use super::message::Fields;
use super::{CallId, Reject, UserId};

/// What a signal carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignalType {
    /// A session description that asks.
    Offer,
    /// A session description that answers.
    Answer,
    /// An ICE candidate, or the end of candidates.
    IceCandidate,
    /// A request for, or an offer with, new ICE credentials.
    IceRestart,
    /// A request for, or an offer of, changed media.
    Renegotiate,
    /// The peer connection is closed.
    Bye,
}

/// A signal as a client sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// What it carries.
    pub kind: SignalType,
    /// Who the client says it is.
    pub from: Option<UserId>,
    /// Who it is for; absent where there is only one other participant.
    pub to: Option<UserId>,
    /// Session description.
    pub sdp: Option<String>,
    /// Distinguishes one exchange of offer and answer from the next.
    pub negotiation: Option<Value>,
    /// `candidate`, `sdpMid`, `sdpMLineIndex`, `usernameFragment`, as they came.
    pub candidate: Map<String, Value>,
}

impl SignalType {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "offer" => Self::Offer,
            "answer" => Self::Answer,
            "ice-candidate" => Self::IceCandidate,
            "ice-restart" => Self::IceRestart,
            "renegotiate" => Self::Renegotiate,
            "bye" => Self::Bye,
            _ => return None,
        })
    }

    /// Wire name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::IceCandidate => "ice-candidate",
            Self::IceRestart => "ice-restart",
            Self::Renegotiate => "renegotiate",
            Self::Bye => "bye",
        }
    }
}

impl Signal {
    /// Reads the three shapes: everything in `signal`; `type` beside `signal:{type,sdp}`; `type:'ice-candidate'`
    /// beside `signal:{candidate}`.
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Self, Reject> {
        let Some(Value::Object(map)) = fields.map.remove("signal") else {
            return Err(Reject::Invalid { field: "signal", why: "must be an object" });
        };
        let inner = Fields { map, limits: fields.limits };
        let kind =
            both(fields.text("type", 32)?, inner.text("type", 32)?, "type is named twice, differently")?
                .ok_or(Reject::InvalidSignal("type is missing"))?;
        let kind = SignalType::from_name(kind).ok_or(Reject::InvalidSignal("unknown type"))?;
        let to = both(fields.id("to")?, inner.id("to")?, "to is named twice, differently")?.map(UserId);
        let from = inner.id("from")?.or(fields.id("from")?).map(UserId);
        let negotiation = negotiation(&inner)?;
        let mut signal = Self { kind, from, to, sdp: None, negotiation, candidate: Map::new() };
        if kind == SignalType::IceCandidate {
            signal.candidate = candidate(inner)?;
        } else {
            signal.sdp = sdp(inner, kind)?;
        }
        Ok(signal)
    }

    /// Whether it asks for an answer.
    pub(super) fn is_offer(&self) -> bool {
        self.sdp.is_some() && self.kind != SignalType::Answer
    }

    /// The payload of `call:signal` for the target, with the sender as the server knows it. Written at once: a tree of
    /// values in between would cost more than everything else that is done for a signal.
    pub(super) fn stamped(&self, call: &CallId, from: &UserId, to: &UserId) -> Arc<str> {
        let stamped = Stamped {
            call_id: &call.0,
            from: &from.0,
            kind: self.kind.name(),
            signal: Inner { signal: self, from, to },
        };
        // Texts and JSON values are always JSON.
        serde_json::to_string(&stamped).unwrap_or_default().into()
    }
}

/// The payload of `call:signal` to its target.
#[derive(serde::Serialize)]
struct Stamped<'a> {
    #[serde(rename = "callId")]
    call_id: &'a str,
    from: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    signal: Inner<'a>,
}

/// Its `signal`.
struct Inner<'a> {
    signal: &'a Signal,
    from: &'a UserId,
    to: &'a UserId,
}

impl Serialize for Inner<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Signal { kind, sdp, negotiation, candidate, .. } = self.signal;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", kind.name())?;
        map.serialize_entry("from", &*self.from.0)?;
        map.serialize_entry("to", &*self.to.0)?;
        if let Some(sdp) = sdp {
            map.serialize_entry("sdp", sdp)?;
        }
        if let Some(negotiation) = negotiation {
            map.serialize_entry("negotiationId", negotiation)?;
        }
        for (name, value) in candidate {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn both<T: PartialEq>(outer: Option<T>, inner: Option<T>, why: &'static str) -> Result<Option<T>, Reject> {
    match (outer, inner) {
        (Some(outer), Some(inner)) if outer != inner => Err(Reject::InvalidSignal(why)),
        (outer, inner) => Ok(inner.or(outer)),
    }
}

fn negotiation(fields: &Fields<'_>) -> Result<Option<Value>, Reject> {
    match fields.present("negotiationId") {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= fields.limits.id_bytes => Ok(Some(json!(text))),
        Some(number @ Value::Number(_)) => Ok(Some(number.clone())),
        Some(_) => Err(Reject::InvalidSignal("negotiationId must be a short string or a number")),
    }
}

fn sdp(mut fields: Fields<'_>, kind: SignalType) -> Result<Option<String>, Reject> {
    let limit = fields.limits.sdp_bytes;
    match fields.map.remove("sdp") {
        None | Some(Value::Null) => match kind {
            SignalType::Offer | SignalType::Answer => Err(Reject::InvalidSignal("sdp is missing")),
            _ => Ok(None),
        },
        Some(Value::String(sdp)) if sdp.len() > limit => Err(Reject::TooLarge { what: "sdp", limit }),
        Some(Value::String(_)) if kind == SignalType::Bye => Ok(None),
        Some(Value::String(sdp)) if sdp.starts_with("v=0") && sdp.contains("\nm=") => Ok(Some(sdp)),
        Some(_) => Err(Reject::InvalidSignal("sdp is no session description")),
    }
}

/// The candidate is a string, or the object that `RTCIceCandidate.toJSON()` makes; `null` or an empty string is the
/// end of candidates.
fn candidate(mut fields: Fields<'_>) -> Result<Map<String, Value>, Reject> {
    let mut candidate = Map::new();
    match fields.map.remove("candidate") {
        None => return Err(Reject::InvalidSignal("candidate is missing")),
        Some(Value::Object(map)) => {
            let inner = candidate_fields(map, fields.limits.candidate_bytes, fields.limits.id_bytes)?;
            candidate.insert("candidate".into(), Value::Object(inner));
        }
        Some(line) => {
            fields.map.insert("candidate".into(), line);
            candidate = candidate_fields(fields.map, fields.limits.candidate_bytes, fields.limits.id_bytes)?;
        }
    }
    Ok(candidate)
}

fn candidate_fields(
    mut map: Map<String, Value>,
    limit: usize,
    id_bytes: usize,
) -> Result<Map<String, Value>, Reject> {
    let mut kept = Map::new();
    for key in ["candidate", "sdpMid", "sdpMLineIndex", "usernameFragment"] {
        let Some(value) = map.remove(key) else { continue };
        let valid = match (key, &value) {
            (_, Value::Null) => true,
            ("candidate", Value::String(line)) if line.len() > limit => {
                return Err(Reject::TooLarge { what: "candidate", limit });
            }
            ("candidate", Value::String(line)) => is_candidate(line),
            ("sdpMLineIndex", Value::Number(index)) => index.as_u64().is_some_and(|n| n <= 0xffff),
            ("sdpMid" | "usernameFragment", Value::String(text)) => text.len() <= id_bytes.max(256),
            _ => false,
        };
        if !valid {
            return Err(Reject::InvalidSignal("candidate, sdpMid or sdpMLineIndex is wrong"));
        }
        kept.insert(key.into(), value);
    }
    Ok(kept)
}

fn is_candidate(line: &str) -> bool {
    let line = line.strip_prefix("a=").unwrap_or(line);
    line.is_empty() || (line.starts_with("candidate:") && !line.chars().any(char::is_control))
}
