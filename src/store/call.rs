//! A call as it was read back, and its JSON.

use serde::{Serialize, Serializer};

use crate::signaling::{CallId, UserId};

/// A call as it was read back: the fields of [`crate::signaling::CallRecord`], as REST shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    /// JSON of the initiator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Value>,
    /// Revision that was read.
    pub rev: u64,
    /// Everyone ever invited or joined, in order of invitation.
    pub participants: Vec<StoredParticipant>,
}

/// A participant as it was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
