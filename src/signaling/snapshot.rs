//! A call as others see it: the `CallSession` and the events of the wire, and the record of the store.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::call::{Call, Status};
use super::participant::Participant;
use super::quality::Level;
use super::{CallRecord, UserId};

/// Milliseconds since the epoch as ISO 8601, UTC.
pub(super) fn time(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).map(|at| format!("{at:.3}")).unwrap_or_default()
}

impl Call {
    /// The `CallSession` of the wire.
    pub(super) fn to_json(&self) -> Value {
        let mut fields = self.heading();
        fields.insert("id".into(), json!(self.id.0.as_ref()));
        fields.insert("mode".into(), json!(self.mode()));
        fields.insert("status".into(), json!(self.status.name()));
        fields.insert("initiatorId".into(), json!(self.initiator.0.as_ref()));
        fields.insert("startedAt".into(), json!(time(self.created_at)));
        fields.insert("rev".into(), json!(self.rev));
        fields.insert("locked".into(), json!(self.locked));
        fields.insert("participants".into(), self.roster());
        if let Some(at) = self.answered_at {
            fields.insert("answeredAt".into(), json!(time(at)));
        }
        if let (Some(end), Status::Ended(reason)) = (&self.end, self.status) {
            fields.insert("endedAt".into(), json!(time(end.at)));
            fields.insert("endReason".into(), json!(reason.name()));
            fields.insert("duration".into(), json!(self.duration_s().unwrap_or(0)));
        }
        Value::Object(fields)
    }

    fn roster(&self) -> Value {
        self.participants.iter().map(Participant::to_json).collect()
    }

    /// What every event about the call as a whole starts with.
    fn heading(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("callId".into(), json!(self.id.0.as_ref()));
        fields.insert("conversationId".into(), json!(self.room.as_deref()));
        fields.insert("roomId".into(), json!(self.room.as_deref()));
        fields.insert("type".into(), json!(self.kind.name()));
        fields
    }

    fn initiator_json(&self) -> Value {
        let profile = self.of(&self.initiator).map(|who| who.profile.clone());
        Value::Object(profile.unwrap_or_default().to_fields(&self.initiator))
    }

    /// `call:initiated`.
    pub(super) fn invitation(&self) -> Map<String, Value> {
        let mut fields = self.heading();
        fields.insert("mode".into(), json!(self.mode()));
        fields.insert("initiator".into(), self.initiator_json());
        fields.insert("participants".into(), self.roster());
        fields.insert("expiresAt".into(), json!(time(self.expires_at)));
        fields.insert("rev".into(), json!(self.rev));
        if let Some(metadata) = &self.metadata {
            fields.insert("metadata".into(), metadata.clone());
        }
        fields
    }

    /// `call:missed`.
    pub(super) fn missed_event(&self, reason: &'static str) -> Value {
        let mut fields = self.heading();
        fields.insert("initiator".into(), self.initiator_json());
        fields.insert("createdAt".into(), json!(time(self.created_at)));
        fields.insert("reason".into(), json!(reason));
        fields.insert("rev".into(), json!(self.rev));
        Value::Object(fields)
    }

    /// `call:state`.
    pub(super) fn state_event(&self) -> Value {
        json!({ "callId": self.id.0.as_ref(), "call": self.to_json(), "rev": self.rev })
    }

    /// `call:participant-left`.
    pub(super) fn left_event(&self, user: &UserId, reason: &'static str) -> Value {
        json!({
            "callId": self.id.0.as_ref(),
            "participantId": user.0.as_ref(),
            "userId": user.0.as_ref(),
            "reason": reason,
            "mode": self.mode(),
            "rev": self.rev,
        })
    }

    /// An event about one participant, with more `fields`.
    pub(super) fn participant_event(&self, user: &UserId, fields: Value) -> Value {
        let mut event = json!({
            "callId": self.id.0.as_ref(),
            "participantId": user.0.as_ref(),
            "userId": user.0.as_ref(),
            "rev": self.rev,
        });
        if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
            event.extend(fields);
        }
        event
    }

    /// `call:ended`.
    pub(super) fn ended_event(&self) -> Value {
        let (end, reason) = match (&self.end, self.status) {
            (Some(end), Status::Ended(reason)) => (Some(end), Some(reason.name())),
            _ => (None, None),
        };
        json!({
            "callId": self.id.0.as_ref(),
            "duration": self.duration_s().unwrap_or(0),
            "endedBy": end.and_then(|end| end.by.as_ref()).map(|by| by.0.as_ref()),
            "reason": reason,
            "status": self.status.name(),
            "endedAt": end.map(|end| time(end.at)),
            "rev": self.rev,
        })
    }

    /// Whole seconds from answer to end, of a call that was answered and is over.
    pub(super) fn duration_s(&self) -> Option<i64> {
        let duration = self.end.as_ref()?.duration?;
        i64::try_from(duration.as_secs()).ok()
    }

    /// As the store keeps it.
    pub(super) fn to_record(&self) -> CallRecord {
        let end_reason = match self.status {
            Status::Ended(reason) => Some(reason.name()),
            _ => None,
        };
        CallRecord {
            id: self.id.clone(),
            room_id: self.room.clone(),
            kind: self.kind.name(),
            mode: if self.meshed { "mesh" } else { "p2p" },
            status: self.status.name(),
            end_reason,
            initiator: self.initiator.clone(),
            created_at: self.created_at,
            ringing_at: self.ringing_at,
            answered_at: self.answered_at,
            ended_at: self.end.as_ref().map(|end| end.at),
            duration_s: self.duration_s(),
            ended_by: self.end.as_ref().and_then(|end| end.by.clone()),
            participants_peak: u32::try_from(self.peak).unwrap_or(u32::MAX),
            open: self.open,
            locked: self.locked,
            expires_at: self.expires_at,
            quality: self.participants.iter().filter_map(|who| who.quality.level()).max().map(Level::name),
            relay_bytes_up: self.relay_bytes_up,
            relay_bytes_down: self.relay_bytes_down,
            metadata: self.metadata.as_ref().map(|value| Arc::from(value.to_string())),
            rev: self.rev,
            participants: self.participants.iter().map(Participant::to_record).collect(),
        }
    }
}
