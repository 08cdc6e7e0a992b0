//! A call as it was read back, and its JSON.

use serde::{Serialize, Serializer};

use crate::signaling::{CallId, CallRecord, ParticipantRecord, UserId, word};

/// A call as it was read back: the fields of [`crate::signaling::CallRecord`], as REST shows them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredCall {
    /// Id of the call.
    #[serde(rename = "callId", serialize_with = "call_id")]
    pub id: CallId,
    /// Room or conversation.
    #[serde(rename = "conversationId")]
    pub room_id: Option<String>,
    /// `video` or `audio`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `p2p` or `mesh`.
    pub mode: String,
    /// Wire status.
    pub status: String,
    /// Wire reason of the end.
    pub end_reason: Option<String>,
    /// Who started it.
    #[serde(rename = "initiatorId", serialize_with = "user_id")]
    pub initiator: UserId,
    /// Creation.
    pub created_at: Time,
    /// First device reached.
    pub ringing_at: Option<Time>,
    /// First answer.
    pub answered_at: Option<Time>,
    /// End.
    pub ended_at: Option<Time>,
    /// Whole seconds from answer to end.
    #[serde(rename = "duration")]
    pub duration_s: Option<i64>,
    /// Who ended it; `None` is the server.
    pub ended_by: Option<String>,
    /// Most participants joined at once.
    pub participants_peak: u32,
    /// Everyone in the room may join.
    #[serde(skip)]
    pub open: bool,
    /// Nobody new may join.
    #[serde(skip)]
    pub locked: bool,
    /// When it stops ringing.
    #[serde(skip)]
    pub expires_at: Time,
    /// Whether media went through the relay.
    pub relay_used: Option<bool>,
    /// Bytes that participants sent through the relay.
    pub relay_bytes_up: Option<i64>,
    /// Bytes that participants received through the relay.
    pub relay_bytes_down: Option<i64>,
    /// `good`, `fair` or `poor`.
    pub quality: Option<String>,
    /// JSON of the initiator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Value>,
    /// Revision that was read.
    pub rev: u64,
    /// Everyone ever invited or joined, in order of invitation.
    pub participants: Vec<StoredParticipant>,
}

/// A participant as it was read back.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredParticipant {
    /// Who.
    #[serde(rename = "userId", serialize_with = "user_id")]
    pub user: UserId,
    /// `initiator` or `participant`.
    pub role: String,
    /// Wire state.
    pub state: String,
    /// Invitation.
    pub invited_at: Time,
    /// Join.
    pub joined_at: Option<Time>,
    /// Media negotiated.
    pub connected_at: Option<Time>,
    /// Leave.
    pub left_at: Option<Time>,
    /// Why it left.
    pub leave_reason: Option<String>,
    /// Audio enabled.
    #[serde(rename = "isAudioEnabled")]
    pub audio: bool,
    /// Video enabled.
    #[serde(rename = "isVideoEnabled")]
    pub video: bool,
    /// How often its signaling reconnected.
    pub reconnects: u32,
    /// Candidate type of its media.
    pub ice_method: Option<String>,
    /// From the join to the first answer, in milliseconds.
    pub setup_ms: Option<i64>,
    /// Mean round trip in milliseconds.
    pub rtt_avg_ms: Option<f64>,
    /// Longest round trip in milliseconds.
    pub rtt_max_ms: Option<f64>,
    /// Mean loss in percent.
    pub loss_avg: Option<f64>,
    /// Highest loss in percent.
    pub loss_max: Option<f64>,
    /// Mean jitter in milliseconds.
    pub jitter_avg_ms: Option<f64>,
    /// Bytes of its media that went through the relay.
    pub relay_bytes: Option<i64>,
    /// Transport between it and the relay.
    pub relay_transport: Option<String>,
    /// Networks (/24, /48) of the peers the relay talked to for it.
    pub relay_peers: Vec<String>,
}

impl StoredCall {
    /// The record this was written from, for the call engine; `None` if it holds a word the engine does not know.
    pub(super) fn into_record(self) -> Option<CallRecord> {
        let bytes = |stored: Option<i64>| stored.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        let participants = self.participants.into_iter().map(StoredParticipant::into_record);
        Some(CallRecord {
            id: self.id,
            room_id: self.room_id.map(Into::into),
            kind: word(&self.kind)?,
            mode: word(&self.mode)?,
            status: word(&self.status)?,
            end_reason: known(self.end_reason)?,
            initiator: self.initiator,
            created_at: self.created_at.0,
            ringing_at: self.ringing_at.map(|time| time.0),
            answered_at: self.answered_at.map(|time| time.0),
            ended_at: self.ended_at.map(|time| time.0),
            duration_s: self.duration_s,
            ended_by: self.ended_by.map(|user| UserId(user.into())),
            participants_peak: self.participants_peak,
            open: self.open,
            locked: self.locked,
            expires_at: self.expires_at.0,
            quality: known(self.quality)?,
            relay_bytes_up: bytes(self.relay_bytes_up),
            relay_bytes_down: bytes(self.relay_bytes_down),
            metadata: self.metadata.map(|metadata| metadata.to_string().into()),
            rev: self.rev,
            participants: participants.collect::<Option<_>>()?,
        })
    }
}

impl From<CallRecord> for StoredCall {
    fn from(record: CallRecord) -> Self {
        let (relay_used, bytes) = (record.relay_used(), |bytes: u64| Some(bytes.cast_signed()));
        Self {
            id: record.id,
            room_id: record.room_id.map(|room| room.to_string()),
            kind: record.kind.into(),
            mode: record.mode.into(),
            status: record.status.into(),
            end_reason: record.end_reason.map(Into::into),
            initiator: record.initiator,
            created_at: Time(record.created_at),
            ringing_at: record.ringing_at.map(Time),
            answered_at: record.answered_at.map(Time),
            ended_at: record.ended_at.map(Time),
            duration_s: record.duration_s,
            ended_by: record.ended_by.map(|user| user.0.to_string()),
            participants_peak: record.participants_peak,
            open: record.open,
            locked: record.locked,
            expires_at: Time(record.expires_at),
            relay_used: Some(relay_used),
            relay_bytes_up: bytes(record.relay_bytes_up),
            relay_bytes_down: bytes(record.relay_bytes_down),
            quality: record.quality.map(Into::into),
            metadata: record.metadata.and_then(|text| serde_json::from_str(&text).ok()),
            rev: record.rev,
            participants: record.participants.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ParticipantRecord> for StoredParticipant {
    fn from(record: ParticipantRecord) -> Self {
        Self {
            user: record.user,
            role: record.role.into(),
            state: record.state.into(),
            invited_at: Time(record.invited_at),
            joined_at: record.joined_at.map(Time),
            connected_at: record.connected_at.map(Time),
            left_at: record.left_at.map(Time),
            leave_reason: record.leave_reason.map(Into::into),
            audio: record.audio,
            video: record.video,
            reconnects: record.reconnects,
            ice_method: record.ice_method.map(Into::into),
            setup_ms: record.setup_ms,
            rtt_avg_ms: record.rtt_avg_ms,
            rtt_max_ms: record.rtt_max_ms,
            loss_avg: record.loss_avg,
            loss_max: record.loss_max,
            jitter_avg_ms: record.jitter_avg_ms,
            relay_bytes: Some(record.relay_bytes.cast_signed()),
            relay_transport: record.relay_transport.map(Into::into),
            relay_peers: record.relay_peers.iter().map(ToString::to_string).collect(),
        }
    }
}

impl StoredParticipant {
    fn into_record(self) -> Option<ParticipantRecord> {
        Some(ParticipantRecord {
            user: self.user,
            role: word(&self.role)?,
            state: word(&self.state)?,
            invited_at: self.invited_at.0,
            joined_at: self.joined_at.map(|time| time.0),
            connected_at: self.connected_at.map(|time| time.0),
            left_at: self.left_at.map(|time| time.0),
            leave_reason: known(self.leave_reason)?,
            audio: self.audio,
            video: self.video,
            reconnects: self.reconnects,
            setup_ms: self.setup_ms,
            ice_method: known(self.ice_method)?,
            rtt_avg_ms: self.rtt_avg_ms,
            rtt_max_ms: self.rtt_max_ms,
            loss_avg: self.loss_avg,
            loss_max: self.loss_max,
            jitter_avg_ms: self.jitter_avg_ms,
            relay_bytes: self.relay_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
            relay_transport: known(self.relay_transport)?,
            relay_peers: self.relay_peers.into_iter().map(Into::into).collect(),
        })
    }
}

/// A text from a closed set, where there is one: `None` for one that is not in the set.
fn known(text: Option<String>) -> Option<Option<&'static str>> {
    text.map_or(Some(None), |text| word(&text).map(Some))
}

/// A moment in milliseconds since the Unix epoch; ISO-8601 UTC in JSON, as `Date.toISOString` writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = jiff::Timestamp::from_millisecond(self.0).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&format_args!("{time:.3}"))
    }
}

fn call_id<S: Serializer>(id: &CallId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.0)
}

fn user_id<S: Serializer>(id: &UserId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.0)
}
