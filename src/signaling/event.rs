//! What happened, for `observe`: metrics, log lines, records.

use std::sync::Arc;
use std::time::Duration;

use super::{CallId, Resumption, UserId};

/// Something to count, log or record. Every text is from a closed set and may label a metric.
#[derive(Debug, Clone)]
pub enum Event {
    /// A session changed its state (`connected`, `resumable`), for the gauge of sessions.
    SessionState {
        /// State it leaves; `None` for a new session.
        from: Option<&'static str>,
        /// State it enters; `None` when it is over.
        to: Option<&'static str>,
    },
    /// A transport came to resume a session.
    Resume {
        /// What came of it.
        result: Resumption,
    },
    /// A request came a second time and had its first outcome again.
    Duplicate,
    /// A request came in.
    EventIn {
        /// Its wire name, `other` for an unknown one.
        name: &'static str,
    },
    /// A request was refused.
    Rejected {
        /// The wire code.
        code: &'static str,
    },
    /// A request was over a rate limit.
    RateLimited {
        /// The limit (`frames`, `signals`, …).
        limit: &'static str,
    },
    /// A call was started.
    CallStarted {
        /// `video` or `audio`.
        kind: &'static str,
    },
    /// The first callee accepted.
    CallAnswered {
        /// How long it rang.
        ring: Duration,
    },
    /// The first answer was relayed.
    CallConnected {
        /// Time since the callee accepted.
        setup: Duration,
    },
    /// A call is over.
    CallEnded {
        /// The call, whose credentials end with it.
        call: CallId,
        /// `video` or `audio`.
        kind: &'static str,
        /// Wire reason.
        reason: &'static str,
        /// Whether a callee ever accepted.
        answered: bool,
        /// From answer to end.
        duration: Option<Duration>,
    },
    /// A running call changed its status, for the gauge of running calls.
    CallStatus {
        /// Status it leaves; `None` for a new call.
        from: Option<&'static str>,
        /// Status it enters; `None` when it ends.
        to: Option<&'static str>,
    },
    /// ICE credentials were made.
    IceMinted {
        /// `session` or `call`.
        kind: &'static str,
    },
    /// The persistent state of a call changed: the whole record, to be upserted. Newest `rev` wins.
    Record(Arc<CallRecord>),
}

/// A call as the store keeps it. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRecord {
    /// Id of the call.
    pub id: CallId,
    /// Room or conversation.
    pub room_id: Option<Arc<str>>,
    /// `video` or `audio`.
    pub kind: &'static str,
    /// `p2p` or `mesh`.
    pub mode: &'static str,
    /// Wire status (`ringing`, `active`, `completed`, …).
    pub status: &'static str,
    /// Wire reason of the end.
    pub end_reason: Option<&'static str>,
    /// Who started it.
    pub initiator: UserId,
    /// Creation.
    pub created_at: i64,
    /// First device reached.
    pub ringing_at: Option<i64>,
    /// First answer.
    pub answered_at: Option<i64>,
    /// End.
    pub ended_at: Option<i64>,
    /// Whole seconds from answer to end.
    pub duration_s: Option<i64>,
    /// Who ended it; `None` is the server.
    pub ended_by: Option<UserId>,
    /// Most participants joined at once.
    pub participants_peak: u32,
    /// Opaque JSON of the initiator, at most 8 KiB.
    pub metadata: Option<Arc<str>>,
    /// Strictly increasing per call.
    pub rev: u64,
    /// Everyone ever invited or joined.
    pub participants: Vec<ParticipantRecord>,
}

/// A participant as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantRecord {
    /// Who.
    pub user: UserId,
    /// `initiator` or `participant`.
    pub role: &'static str,
    /// Wire state (`invited`, `joined`, `left`, …).
    pub state: &'static str,
    /// Invitation.
    pub invited_at: i64,
    /// Join.
    pub joined_at: Option<i64>,
    /// Media negotiated (first answer relayed).
    pub connected_at: Option<i64>,
    /// Leave.
    pub left_at: Option<i64>,
    /// Why it left.
    pub leave_reason: Option<&'static str>,
    /// Audio enabled.
    pub audio: bool,
    /// Video enabled.
    pub video: bool,
    /// How often its signaling reconnected.
    pub reconnects: u32,
}
