//! Calls that users have missed.

use serde_json::{Value, json};

use super::Time;
use crate::signaling::UserId;

/// A question for a page of missed calls, newest first.
#[derive(Debug, Clone, Default)]
pub struct MissedQuery {
    /// Only what this user has missed; `None` for everybody.
    pub user: Option<UserId>,
    /// Opaque cursor of the previous page.
    pub cursor: Option<String>,
    /// Rows of the page, 1 to [`super::MAX_PAGE`].
    pub limit: u32,
}

/// A page of missed calls.
#[derive(Debug, Clone)]
pub struct MissedPage {
    /// Newest first.
    pub calls: Vec<MissedCall>,
    /// Cursor of the next page; `None` on the last.
    pub next: Option<String>,
}

/// A call that somebody has missed.
#[derive(Debug, Clone, PartialEq)]
pub struct MissedCall {
    /// Who.
    pub user: UserId,
    /// When it was over.
    pub missed_at: Time,
    /// What the user is told of it: the fields of `call:missed`.
    pub event: Value,
}

impl MissedCall {
    /// The fields of `call:missed`, who has missed it, and when.
    pub fn to_json(&self) -> Value {
        let mut fields = self.event.clone();
        if let Some(map) = fields.as_object_mut() {
            map.insert("userId".into(), json!(self.user.0.as_ref()));
            map.insert("missedAt".into(), json!(self.missed_at));
        }
        fields
    }
}
