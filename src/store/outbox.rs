//! What the operator's webhook is told, from a step of a call to its delivery.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Time;
use crate::signaling::{CallId, Notice, NoticeKind};

/// A step of a call as it is written: for the webhook, for the list of missed calls, or both.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The step.
    pub notice: Arc<Notice>,
    /// Whether the webhook is told.
    pub told: bool,
}

/// An event that waits for the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Id of the event: the same in every attempt.
    pub id: String,
    /// The call.
    pub call: CallId,
    /// Name of the event.
    pub kind: String,
    /// JSON that is sent.
    pub body: String,
    /// Attempts that failed.
    pub attempts: u32,
    /// When it happened, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

impl Entry {
    /// Whether the step is of any use: nobody is told and nobody missed it otherwise.
    pub(super) fn matters(&self) -> bool {
        self.told || self.missed().is_some()
    }

    /// Id of the event.
    pub(super) fn id(&self) -> String {
        format!("{}-{}", self.notice.call.0, self.notice.order)
    }

    /// Who missed the call, if somebody did: user, initiator, room, type.
    pub(super) fn missed(&self) -> Option<(String, String, Option<String>, String)> {
        let user = self.notice.user.as_ref().filter(|_| self.notice.kind == NoticeKind::Missed)?;
        let call: Value = serde_json::from_str(&self.notice.session).ok()?;
        let text = |key: &str| call.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
        Some((user.0.to_string(), text("initiatorId")?, text("conversationId"), text("type")?))
    }

    /// The JSON of the event.
    pub(super) fn body(&self) -> String {
        let Notice { call, order, kind, at, user, reason, session } = &*self.notice;
        json!({
            "id": self.id(),
            "type": kind.name(),
            "createdAt": Time(*at),
            "order": order,
            "callId": call.0.as_ref(),
            "userId": user.as_ref().map(|user| user.0.as_ref()),
            "reason": reason,
            "call": serde_json::from_str::<Value>(session).unwrap_or_default(),
        })
        .to_string()
    }
}
