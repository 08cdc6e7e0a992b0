//! The wire: requests of clients, events of the server (protocol `passerelle/1`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::config::Limits;
use super::quality::Stats;
use super::signal::Signal;
use super::{CallId, Reject, UserId};

/// A typed request, parsed from an event name and its payload.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    /// `call:initiate`.
    Initiate(Initiate),
    /// `call:join`.
    Join {
        /// The call.
        call: CallId,
        /// Initial media.
        settings: Settings,
    },
    /// `call:signal`.
    Signal {
        /// The call.
        call: CallId,
        /// What to forward.
        signal: Signal,
    },
    /// `call:toggle-audio`, `call:toggle-video`, `call:toggle-screen`.
    Toggle {
        /// The call.
        call: CallId,
        /// Which media.
        media: Media,
        /// The state to set.
        enabled: bool,
    },
    /// `call:leave`.
    Leave(CallId),
    /// `call:decline`.
    Decline(CallId),
    /// `call:end`.
    End(CallId),
    /// `call:request-ice-servers`.
    RequestIceServers(Option<CallId>),
    /// `call:heartbeat`.
    Heartbeat,
    /// `room:join`.
    RoomJoin(Arc<str>),
    /// `room:leave`.
    RoomLeave(Arc<str>),
    /// `call:invite`.
    Invite {
        /// The call.
        call: CallId,
        /// Who is called.
        to: Vec<UserId>,
    },
    /// `call:kick`.
    Kick {
        /// The call.
        call: CallId,
        /// Who is removed.
        user: UserId,
        /// For good: no invitation brings it back.
        ban: bool,
    },
    /// `call:mute`.
    Mute {
        /// The call.
        call: CallId,
        /// Whose media.
        user: UserId,
        /// Which media.
        media: Media,
    },
    /// `call:lock`.
    Lock {
        /// The call.
        call: CallId,
        /// The state to set.
        locked: bool,
    },
    /// `call:message`.
    Message {
        /// The call.
        call: CallId,
        /// Who it is for; absent for everyone.
        to: Option<UserId>,
        /// Opaque.
        data: Value,
    },
    /// `call:quality-report`.
    Quality {
        /// The call.
        call: CallId,
        /// What the client measured.
        stats: Stats,
    },
    /// `presence:get`.
    Presence(Vec<UserId>),
    /// `session:bye`.
    Bye,
    /// `seq`: nothing but an acknowledgement of events.
    Seen,
}

/// A request to start a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Initiate {
    /// Room or conversation.
    pub room: Option<Arc<str>>,
    /// Who is called; empty for everyone in the room.
    pub to: Vec<UserId>,
    /// Audio or video.
    pub kind: Kind,
    /// Initial media of the caller.
    pub settings: Settings,
    /// Opaque, handed to the callees and the record.
    pub metadata: Option<Value>,
    /// How long it rings.
    pub ring_timeout: Option<Duration>,
}

/// The type of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sound only.
    Audio,
    /// Sound and picture.
    Video,
}

/// A media of a participant that can be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// Microphone.
    Audio,
    /// Camera.
    Video,
    /// Shared screen.
    Screen,
}

/// Initial media of a participant; what is absent follows from the type of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Microphone.
    pub audio: Option<bool>,
    /// Camera.
    pub video: Option<bool>,
}

/// One request as it came from either framing.
#[derive(Debug, Clone)]
pub struct Request {
    /// The wire name of the event (`call:initiate`).
    pub event: String,
    /// Its payload (an object; anything else is a `VALIDATION_ERROR`).
    pub payload: Value,
    /// Whether the client asked for an ack; without one the echo and error events are sent.
    pub wants_ack: bool,
    /// Size of the frame on the wire in bytes, for limits.
    pub size: usize,
    /// Number of the last event the client has received (`ls`), where it says so. A payload may say so as well.
    pub last_seen: Option<u64>,
}

/// An event of the server. Clones share the payload.
#[derive(Debug, Clone)]
pub struct ServerEvent {
    /// Wire name (`call:ended`).
    pub name: &'static str,
    /// Its number in the session; an event about the transport itself has none.
    pub seq: Option<u64>,
    /// Payload: a JSON object without the number, written once for everyone who gets it.
    pub payload: Arc<str>,
}

impl ServerEvent {
    /// The payload as a value, with its number as the field `seq` where it has one.
    pub fn to_value(&self) -> Value {
        let mut payload = serde_json::from_str(&self.payload).unwrap_or_default();
        if let (Value::Object(fields), Some(seq)) = (&mut payload, self.seq) {
            fields.insert("seq".into(), seq.into());
        }
        payload
    }
}

/// Why the server closes a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// 1012: restart.
    Restart,
    /// 4400: protocol error.
    Protocol,
    /// 4401: not authenticated.
    Auth,
    /// 4408: slow consumer or idle.
    Slow,
    /// 4409: another transport took the session over.
    Replaced,
    /// 4413: capacity.
    Capacity,
    /// 4429: rate.
    Rate,
}

/// Every event a client may send.
const CLIENT_EVENTS: &[&str] = &[
    "call:initiate",
    "call:join",
    "call:signal",
    "call:toggle-audio",
    "call:toggle-video",
    "call:toggle-screen",
    "call:leave",
    "call:decline",
    "call:end",
    "call:invite",
    "call:kick",
    "call:mute",
    "call:lock",
    "call:message",
    "call:quality-report",
    "call:request-ice-servers",
    "call:heartbeat",
    "presence:get",
    "room:join",
    "room:leave",
    "session:bye",
    // Answered by whoever can check a token: see `Hub::refresh`.
    "session:refresh",
    "seq",
];

/// The name of a client's event as a label: `other` for one that does not exist.
pub fn event_label(event: &str) -> &'static str {
    CLIENT_EVENTS.iter().find(|known| **known == event).copied().unwrap_or("other")
}

impl ClientMessage {
    /// Parses a payload.
    ///
    /// # Errors
    /// `UNKNOWN_EVENT`, `VALIDATION_ERROR`, `INVALID_SIGNAL`, `SIGNAL_TOO_LARGE`, `SIGNAL_SENDER_MISMATCH`,
    /// `UNSUPPORTED_CALL_TYPE`.
    pub fn parse(event: &str, payload: Value, limits: &Limits) -> Result<Self, Reject> {
        if event_label(event) == "other" {
            return Err(Reject::UnknownEvent);
        }
        if !shallower_than(&payload, limits.json_depth) {
            return Err(Reject::Invalid { field: "payload", why: "is nested too deeply" });
        }
        let Value::Object(map) = payload else {
            return Err(Reject::Invalid { field: "payload", why: "must be an object" });
        };
        let mut fields = Fields { map, limits };
        fields.text("msgId", 64)?;
        Self::from_fields(event, &mut fields)
    }

    fn from_fields(event: &str, fields: &mut Fields<'_>) -> Result<Self, Reject> {
        Ok(match event {
            "call:initiate" => Self::Initiate(Initiate::parse(fields)?),
            "call:join" => Self::Join { call: fields.call()?, settings: Settings::parse(fields)? },
            "call:signal" => Self::Signal { call: fields.call()?, signal: Signal::parse(fields)? },
            "call:toggle-audio" => Self::toggle(fields, Media::Audio)?,
            "call:toggle-video" => Self::toggle(fields, Media::Video)?,
            "call:toggle-screen" => Self::toggle(fields, Media::Screen)?,
            "call:leave" => Self::Leave(fields.call_with_reason()?),
            "call:decline" => Self::Decline(fields.call_with_reason()?),
            "call:end" => Self::End(fields.call_with_reason()?),
            "call:request-ice-servers" => Self::RequestIceServers(fields.id("callId")?.map(CallId)),
            "call:invite" => Self::Invite { call: fields.call()?, to: fields.named_users("to")? },
            "call:kick" => Self::Kick {
                call: fields.call_with_reason()?,
                user: fields.participant()?,
                ban: fields.flag("ban")?.unwrap_or_default(),
            },
            "call:mute" => {
                Self::Mute { call: fields.call()?, user: fields.participant()?, media: fields.media()? }
            }
            "call:lock" => {
                Self::Lock { call: fields.call()?, locked: fields.flag("locked")?.unwrap_or(true) }
            }
            "call:message" => {
                Self::Message { call: fields.call()?, to: fields.id("to")?.map(UserId), data: fields.data()? }
            }
            "call:quality-report" => Self::Quality { call: fields.call()?, stats: fields.stats()? },
            "presence:get" => Self::Presence(fields.named_users("userIds")?),
            "call:heartbeat" => Self::Heartbeat,
            "room:join" => Self::RoomJoin(fields.room()?.ok_or(ROOM_MISSING)?),
            "room:leave" => Self::RoomLeave(fields.room()?.ok_or(ROOM_MISSING)?),
            "session:bye" => Self::Bye,
            "seq" => Self::Seen,
            _ => return Err(Reject::UnknownEvent),
        })
    }

    fn toggle(fields: &Fields<'_>, media: Media) -> Result<Self, Reject> {
        let enabled =
            fields.flag("enabled")?.ok_or(Reject::Invalid { field: "enabled", why: "is missing" })?;
        Ok(Self::Toggle { call: fields.call()?, media, enabled })
    }
}

const ROOM_MISSING: Reject = Reject::Invalid { field: "roomId", why: "is missing" };

impl Initiate {
    fn parse(fields: &mut Fields<'_>) -> Result<Self, Reject> {
        let kind = match fields.text("type", usize::MAX)? {
            Some("video") => Kind::Video,
            Some("audio") => Kind::Audio,
            Some(_) => return Err(Reject::UnsupportedCallType),
            None => return Err(Reject::Invalid { field: "type", why: "is missing" }),
        };
        let (room, to) = (fields.room()?, fields.callees()?);
        if room.is_none() && to.is_empty() {
            return Err(Reject::Invalid { field: "to", why: "is missing, and so is conversationId" });
        }
        let metadata = fields.map.remove("metadata").filter(|value| !value.is_null());
        if metadata.as_ref().is_some_and(|value| value.to_string().len() > fields.limits.metadata_bytes) {
            return Err(Reject::Invalid { field: "metadata", why: "is too large" });
        }
        let ring_timeout = match fields.present("ringTimeoutMs") {
            None => None,
            Some(value) => Some(milliseconds(value).ok_or(Reject::Invalid {
                field: "ringTimeoutMs",
                why: "must be a number of milliseconds",
            })?),
        };
        Ok(Self { room, to, kind, settings: Settings::parse(fields)?, metadata, ring_timeout })
    }
}

fn milliseconds(value: &Value) -> Option<Duration> {
    let seconds = value.as_f64()? / 1000.0;
    Duration::try_from_secs_f64(seconds).ok()
}

impl Settings {
    fn parse(fields: &Fields<'_>) -> Result<Self, Reject> {
        let Some(value) = fields.present("settings") else { return Ok(Self::default()) };
        let wrong = Reject::Invalid { field: "settings", why: "must be an object of booleans" };
        let map = value.as_object().ok_or(wrong.clone())?;
        let flag = |key: &str| match map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(wrong.clone()),
        };
        Ok(Self { audio: flag("audioEnabled")?, video: flag("videoEnabled")? })
    }
}

impl Kind {
    /// Wire name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

impl Media {
    /// Wire name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Screen => "screen",
        }
    }
}

/// A payload that is read field by field. `null` counts as absent, unknown fields are ignored.
pub(super) struct Fields<'a> {
    pub(super) map: Map<String, Value>,
    pub(super) limits: &'a Limits,
}

impl Fields<'_> {
    pub(super) fn present(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, key: &'static str, limit: usize) -> Result<Option<&str>, Reject> {
        match self.present(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= limit => Ok(Some(text)),
            Some(Value::String(_)) => Err(Reject::Invalid { field: key, why: "is too long" }),
            Some(_) => Err(Reject::Invalid { field: key, why: "must be a string" }),
        }
    }

    /// An id: not empty, bounded, without control characters.
    pub(super) fn id(&self, key: &'static str) -> Result<Option<Arc<str>>, Reject> {
        self.text(key, self.limits.id_bytes)?.map(|text| valid_id(key, text)).transpose()
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<Option<bool>, Reject> {
        match self.present(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(Reject::Invalid { field: key, why: "must be true or false" }),
        }
    }

    fn call(&self) -> Result<CallId, Reject> {
        self.id("callId")?.map(CallId).ok_or(Reject::Invalid { field: "callId", why: "is missing" })
    }

    /// The call of a request that may say why. What it says decides nothing: the server names the reason of an end.
    fn call_with_reason(&self) -> Result<CallId, Reject> {
        self.text("reason", self.limits.id_bytes)?;
        self.call()
    }

    /// `roomId` and `conversationId` are two names of one thing.
    fn room(&self) -> Result<Option<Arc<str>>, Reject> {
        match (self.id("roomId")?, self.id("conversationId")?) {
            (Some(room), Some(conversation)) if room != conversation => {
                Err(Reject::Invalid { field: "roomId", why: "differs from conversationId" })
            }
            (room, conversation) => Ok(room.or(conversation)),
        }
    }

    fn callees(&self) -> Result<Vec<UserId>, Reject> {
        match self.present("to") {
            None => Ok(Vec::new()),
            Some(_) => self.named_users("to"),
        }
    }

    /// Someone in the call, named by `participantId`, `userId` or `to`.
    fn participant(&self) -> Result<UserId, Reject> {
        let named = self.id("participantId")?.or(self.id("userId")?).or(self.id("to")?);
        named.map(UserId).ok_or(Reject::Invalid { field: "participantId", why: "is missing" })
    }

    fn media(&self) -> Result<Media, Reject> {
        match self.text("mediaType", usize::MAX)? {
            None | Some("audio") => Ok(Media::Audio),
            Some("video") => Ok(Media::Video),
            Some("screen") => Ok(Media::Screen),
            Some(_) => Err(Reject::Invalid { field: "mediaType", why: "must be audio, video or screen" }),
        }
    }

    fn data(&mut self) -> Result<Value, Reject> {
        let limit = self.limits.message_bytes;
        match self.map.remove("data") {
            None | Some(Value::Null) => Err(Reject::Invalid { field: "data", why: "is missing" }),
            Some(data) if data.to_string().len() > limit => Err(Reject::TooLarge { what: "data", limit }),
            Some(data) => Ok(data),
        }
    }

    fn stats(&self) -> Result<Stats, Reject> {
        let stats = self.present("stats").and_then(Value::as_object);
        Stats::parse(stats.ok_or(Reject::Invalid { field: "stats", why: "must be an object" })?)
    }

    /// One id or a list of ids, each of them once.
    fn named_users(&self, field: &'static str) -> Result<Vec<UserId>, Reject> {
        let wrong = || Reject::Invalid { field, why: "must be an id or a list of ids" };
        let listed = match self.present(field) {
            None => return Err(wrong()),
            Some(Value::Array(listed)) => listed.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        if listed.is_empty() {
            return Err(wrong());
        }
        if listed.len() > self.limits.invited {
            return Err(Reject::MaxParticipants(self.limits.participants));
        }
        let mut callees: Vec<UserId> = Vec::with_capacity(listed.len());
        for value in listed {
            let text = value.as_str().filter(|text| text.len() <= self.limits.id_bytes).ok_or_else(wrong)?;
            let user = UserId(valid_id(field, text)?);
            if !callees.contains(&user) {
                callees.push(user);
            }
        }
        Ok(callees)
    }
}

fn valid_id(field: &'static str, text: &str) -> Result<Arc<str>, Reject> {
    if text.is_empty() {
        return Err(Reject::Invalid { field, why: "is empty" });
    }
    if text.chars().any(char::is_control) {
        return Err(Reject::Invalid { field, why: "has control characters" });
    }
    Ok(Arc::from(text))
}

fn shallower_than(value: &Value, depth: usize) -> bool {
    let Some(below) = depth.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| shallower_than(item, below)),
        Value::Object(map) => map.values().all(|item| shallower_than(item, below)),
        _ => true,
    }
}
