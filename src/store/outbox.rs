//! What happened to a call, as it is written: for the operator's webhook, for the list of missed calls, for the history
//! of the call.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::Time;
use crate::signaling::{CallId, Notice, NoticeKind, UserId};

/// Something to be written beside the records of calls.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A step of a call.
    Step {
        /// The step.
        notice: Arc<Notice>,
        /// Whether the webhook is told.
        told: bool,
        /// Whether it is kept as history of the call.
        kept: bool,
    },
    /// A user knows of every call it has missed until then.
    Seen {
        /// Who.
        user: UserId,
        /// Milliseconds since the Unix epoch.
        until: i64,
    },
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

/// A step of a call as it was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallEvent {
    /// Place among the steps of the call.
    pub order: i64,
    /// What happened: a name of a webhook event.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whom it is about, where it is about one.
    pub user_id: Option<String>,
    /// Wire reason of an end, of a leave or of a miss.
    pub reason: Option<String>,
    /// When.
    pub at: Time,
}

/// A call that somebody missed.
pub(super) struct Miss {
    pub(super) user: String,
    pub(super) initiator: String,
    pub(super) room: Option<String>,
    pub(super) kind: String,
    /// JSON of `call:missed`.
    pub(super) body: String,
}

impl Entry {
    /// Whether it is of any use: nobody is told, nobody missed it and nothing is kept otherwise.
    pub(super) fn matters(&self) -> bool {
        match self {
            Self::Step { notice, told, kept } => *told || *kept || missed(notice).is_some(),
            Self::Seen { .. } => true,
        }
    }
}

/// Id of the webhook event of a step.
pub(super) fn id(notice: &Notice) -> String {
    format!("{}-{}", notice.call.0, notice.order)
}

/// Who missed a call, if this step says so.
pub(super) fn missed(notice: &Notice) -> Option<Miss> {
    let user = notice.user.as_ref().filter(|_| notice.kind == NoticeKind::Missed)?;
    let call: Value = serde_json::from_str(&notice.session).ok()?;
    let text = |key: &str| call.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
    let (initiator, room) = (text("initiatorId")?, text("conversationId"));
    let shown = |who: &&Value| who.get("userId").and_then(Value::as_str) == Some(&initiator);
    let who = call.get("participants").and_then(Value::as_array).and_then(|all| all.iter().find(shown));
    let mut profile = json!({ "userId": initiator });
    for key in ["username", "displayName", "avatar"] {
        if let Some(value) = who.and_then(|who| who.get(key)) {
            profile[key] = value.clone();
        }
    }
    let body = json!({
        "callId": notice.call.0.as_ref(),
        "conversationId": room,
        "roomId": room,
        "type": call.get("type"),
        "initiator": profile,
        "createdAt": call.get("startedAt"),
        "reason": notice.reason,
        "rev": call.get("rev"),
    });
    Some(Miss { user: user.0.to_string(), initiator, room, kind: text("type")?, body: body.to_string() })
}

/// The JSON of the webhook event of a step.
pub(super) fn body(notice: &Notice) -> String {
    let Notice { call, order, kind, at, user, reason, session } = notice;
    json!({
        "id": id(notice),
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
