//! Who is connected: sessions, and what is kept about the user and the room behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::answered::Answered;
use super::limits::Bucket;
use super::replay::Replay;
use super::resume::Keys;
use super::{CallId, Identity, SessionId, UserId};

/// One client, over one transport after another.
#[derive(Debug)]
pub(super) struct Session {
    /// Name on the wire.
    pub(super) sid: Arc<str>,
    /// Its owner.
    pub(super) identity: Arc<Identity>,
    /// When it opened.
    pub(super) opened: Instant,
    /// It has a transport; without one it waits to be resumed.
    pub(super) attached: bool,
    /// What resumes it.
    pub(super) keys: Keys,
    /// What it was sent.
    pub(super) replay: Replay,
    /// What it asked.
    pub(super) answered: Answered,
    /// Rate of all frames.
    pub(super) frames: Bucket,
    /// Rate of signals.
    pub(super) signals: Bucket,
    /// Rate of messages.
    pub(super) messages: Bucket,
    /// Frames over the rate in a row.
    pub(super) flooded: u32,
    /// Rooms it is in.
    pub(super) rooms: BTreeSet<Arc<str>>,
}

/// A user with a session, a running call or an unfilled bucket.
#[derive(Debug, Default)]
pub(super) struct User {
    /// Its sessions, oldest first.
    pub(super) sessions: Vec<SessionId>,
    /// Its running calls.
    pub(super) calls: BTreeMap<CallId, Presence>,
    /// Rate of starting calls.
    pub(super) initiate: Bucket,
    /// Rate of joining.
    pub(super) join: Bucket,
    /// Rate of leaving.
    pub(super) leave: Bucket,
    /// Rate of switching media.
    pub(super) toggle: Bucket,
}

/// How a user is part of a running call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Being rung.
    Pending,
    /// Joined.
    Present,
}

/// A room with a session or a running call.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Sessions in it.
    pub(super) sessions: BTreeSet<SessionId>,
    /// The running call that everyone in the room may join.
    pub(super) call: Option<CallId>,
    /// Whose room it is, where somebody has said so: they are rung and may enter, nobody else.
    pub(super) members: Option<BTreeSet<UserId>>,
}

impl Room {
    /// Nothing would be lost with it.
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.call.is_none() && self.members.is_none()
    }

    /// Whether a user may enter.
    pub(super) fn admits(&self, user: &UserId) -> bool {
        self.members.as_ref().is_none_or(|members| members.contains(user))
    }
}

impl User {
    /// When its last bucket is full.
    pub(super) fn full_at(&self) -> Option<Instant> {
        [self.initiate, self.join, self.leave, self.toggle].iter().filter_map(Bucket::full_at).max()
    }
}
