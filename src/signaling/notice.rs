//! What happened to a call, for those outside who follow it (webhooks).

use std::sync::Arc;

use super::call::Call;
use super::switchboard::Switchboard;
use super::{CallId, Event, Now, UserId};

/// A step in the life of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The call.
    pub call: CallId,
    /// Place among the notices of this call: strictly increasing, over restarts too, with gaps.
    pub order: u64,
    /// What happened.
    pub kind: NoticeKind,
    /// When, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Whom it is about, where it is about one.
    pub user: Option<UserId>,
    /// Wire reason of an end, of a leave or of a miss.
    pub reason: Option<&'static str>,
    /// The `CallSession` after the step, as JSON.
    pub session: Arc<str>,
}

/// What happened to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// Somebody called.
    Initiated,
    /// The first device of a callee rings.
    Ringing,
    /// The first callee has accepted.
    Answered,
    /// Somebody has joined.
    ParticipantJoined,
    /// Somebody has left, was removed or lost.
    ParticipantLeft,
    /// Somebody did not answer.
    Missed,
    /// The call is over: always the last notice.
    Ended,
}

impl NoticeKind {
    /// Name of the webhook event.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initiated => "call.initiated",
            Self::Ringing => "call.ringing",
            Self::Answered => "call.answered",
            Self::ParticipantJoined => "call.participant_joined",
            Self::ParticipantLeft => "call.participant_left",
            Self::Missed => "call.missed",
            Self::Ended => "call.ended",
        }
    }
}

/// A step that is not told yet: the call is told as it stands when the input is over.
#[derive(Debug)]
pub(super) struct Step {
    kind: NoticeKind,
    user: Option<UserId>,
    reason: Option<&'static str>,
}

impl Step {
    pub(super) fn of(kind: NoticeKind, user: Option<&UserId>, reason: Option<&'static str>) -> Self {
        Self { kind, user: user.cloned(), reason }
    }
}

impl Call {
    /// Notes a step.
    pub(super) fn note(&mut self, kind: NoticeKind, user: Option<&UserId>, reason: Option<&'static str>) {
        self.steps.push(Step::of(kind, user, reason));
    }

    /// Tells the steps of an input.
    pub(super) fn tell_steps(&mut self, board: &mut Switchboard, now: Now) {
        if self.steps.is_empty() {
            return;
        }
        let session: Arc<str> = self.to_json().to_string().into();
        for Step { kind, user, reason } in std::mem::take(&mut self.steps) {
            self.told += 1;
            board.emit(Event::Notice(Arc::new(Notice {
                call: self.id.clone(),
                order: self.told,
                kind,
                at: now.unix_ms,
                user,
                reason,
                session: Arc::clone(&session),
            })));
        }
    }
}
