//! What happened, for `observe`: metrics, log lines, records.

use std::sync::Arc;
use std::time::Duration;

use super::{CallId, Notice, Resumption, UserId};

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
    /// Somebody who had joined a call is no part of it any more: left, removed or lost. The credentials for it end.
    Departed {
        /// The call, which may go on.
        call: CallId,
        /// Who.
        user: UserId,
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
    /// A step in the life of a call, for webhooks.
    Notice(Arc<Notice>),
    /// A user was told of every call it has missed until now.
    MissedSeen {
        /// Who.
        user: UserId,
        /// Now, in milliseconds since the Unix epoch.
        at: i64,
    },
    /// The persistent state of a call changed: the whole record, to be upserted. Newest `rev` wins.
    Record(Arc<CallRecord>),
}

/// A call as the store keeps it, and as [`super::Hub::restore`] reads it back. Times are milliseconds since the Unix
/// epoch. Every text that is not an id is from a closed set: see [`word`].
#[derive(Debug, Clone, PartialEq)]
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
    /// Everyone in the room may join.
    pub open: bool,
    /// Nobody new may join.
    pub locked: bool,
    /// When it stops ringing.
    pub expires_at: i64,
    /// `good`, `fair` or `poor`: the mean of the participant who had it worst.
    pub quality: Option<&'static str>,
    /// Bytes that participants sent through the relay.
    pub relay_bytes_up: u64,
    /// Bytes that participants received through the relay.
    pub relay_bytes_down: u64,
    /// Opaque JSON of the initiator, at most 8 KiB.
    pub metadata: Option<Arc<str>>,
    /// Strictly increasing per call.
    pub rev: u64,
    /// Everyone ever invited or joined.
    pub participants: Vec<ParticipantRecord>,
}

/// A participant as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
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
    /// From the join to the first answer, in milliseconds.
    pub setup_ms: Option<i64>,
    /// Candidate type its media uses: `host`, `srflx`, `prflx` or `relay`.
    pub ice_method: Option<&'static str>,
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
    /// Bytes of its media that went through the relay, both ways.
    pub relay_bytes: u64,
    /// Transport between it and the relay.
    pub relay_transport: Option<&'static str>,
    /// Networks of the peers the relay talked to for it, in short (`198.51.100.0/24`).
    pub relay_peers: Vec<Arc<str>>,
}

impl CallRecord {
    /// Whether media went through the relay.
    pub fn relay_used(&self) -> bool {
        self.relay_bytes_up > 0 || self.relay_bytes_down > 0
    }
}

/// Every text of a record that is not an id.
const WORDS: &[&str] = &[
    // Kinds and modes.
    "audio",
    "video",
    "p2p",
    "mesh",
    // Statuses and reasons.
    "initiated",
    "ringing",
    "connecting",
    "active",
    "reconnecting",
    "completed",
    "rejected",
    "cancelled",
    "missed",
    "busy",
    "failed",
    "offline",
    "negotiationTimeout",
    "connectionLost",
    "maxDuration",
    "admin",
    // Roles, states of participants and reasons of a leave.
    "initiator",
    "participant",
    "invited",
    "joined",
    "connected",
    "grace",
    "declined",
    "left",
    "kicked",
    "banned",
    "lost",
    // Quality, candidates, transports.
    "good",
    "fair",
    "poor",
    "host",
    "srflx",
    "prflx",
    "relay",
    "udp",
    "tcp",
    "tls",
];

/// The text of a record that reads like this one, for whoever reads records back.
pub fn word(text: &str) -> Option<&'static str> {
    WORDS.iter().find(|word| **word == text).copied()
}
