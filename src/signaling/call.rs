//! One call: its state, and what follows from it. What changes it is in [`super::transition`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::config::Config;
use super::deadline::after;
use super::limits::Bucket;
use super::message::{Initiate, Kind};
use super::negotiation::Negotiation;
use super::notice::Step;
use super::participant::{Lost, Participant, Profile, Role, State};
use super::switchboard::Switchboard;
use super::{CallId, Event, Identity, Now, SessionId, UserId};

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// No device reached yet.
    Initiated,
    /// A device rings.
    Ringing,
    /// Accepted, no answer relayed yet.
    Connecting,
    /// An answer was relayed.
    Active,
    /// Every connection is lost at the moment.
    Reconnecting,
    /// Over.
    Ended(Reason),
}

/// Why a call ended. Always the server's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It was answered and hung up.
    Completed,
    /// Everybody said no.
    Rejected,
    /// The caller gave up.
    Cancelled,
    /// Nobody answered in time.
    Missed,
    /// Nobody was connected.
    Offline,
    /// Everybody was in another call.
    Busy,
    /// It was answered, but no answer to an offer came.
    NegotiationTimeout,
    /// Connections were lost and did not come back.
    ConnectionLost,
    /// It had lasted as long as a call may.
    MaxDuration,
    /// The operator ended it.
    Admin,
}

/// The end of a call.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) at: i64,
    pub(super) by: Option<UserId>,
    pub(super) duration: Option<Duration>,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) room: Option<Arc<str>>,
    /// Everyone in the room may join: it was started for the room, not for somebody.
    pub(super) open: bool,
    pub(super) kind: Kind,
    pub(super) metadata: Option<Value>,
    pub(super) initiator: UserId,
    pub(super) status: Status,
    pub(super) end: Option<End>,
    pub(super) created_at: i64,
    pub(super) ringing_at: Option<i64>,
    pub(super) answered_at: Option<i64>,
    pub(super) expires_at: i64,
    pub(super) created: Instant,
    pub(super) answered: Option<Instant>,
    /// An answer was relayed.
    pub(super) negotiated: bool,
    pub(super) ring_until: Instant,
    pub(super) negotiate_until: Option<Instant>,
    pub(super) alone_until: Option<Instant>,
    pub(super) ends_by: Instant,
    /// Most participants joined at once.
    pub(super) peak: usize,
    /// It has been a mesh.
    pub(super) meshed: bool,
    pub(super) rev: u64,
    /// The store does not have this `rev` yet.
    pub(super) dirty: bool,
    /// Nobody new may join.
    pub(super) locked: bool,
    pub(super) relay_bytes_up: u64,
    pub(super) relay_bytes_down: u64,
    /// What happened since the last notice.
    pub(super) steps: Vec<Step>,
    /// Number of the last notice.
    pub(super) told: u64,
    pub(super) joins: u32,
    pub(super) participants: Vec<Participant>,
    pub(super) negotiation: Negotiation,
    pub(super) candidates: Bucket,
}

impl Status {
    /// Wire name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Initiated => "initiated",
            Self::Ringing => "ringing",
            Self::Connecting => "connecting",
            Self::Active => "active",
            Self::Reconnecting => "reconnecting",
            Self::Ended(reason) => match reason {
                Reason::Completed | Reason::MaxDuration | Reason::Admin => "completed",
                Reason::Rejected => "rejected",
                Reason::Cancelled => "cancelled",
                Reason::Missed | Reason::Offline => "missed",
                Reason::Busy => "busy",
                Reason::NegotiationTimeout | Reason::ConnectionLost => "failed",
            },
        }
    }
}

impl Reason {
    /// Wire name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Missed => "missed",
            Self::Offline => "offline",
            Self::Busy => "busy",
            Self::NegotiationTimeout => "negotiationTimeout",
            Self::ConnectionLost => "connectionLost",
            Self::MaxDuration => "maxDuration",
            Self::Admin => "admin",
        }
    }
}

impl Call {
    /// A call that nobody has heard of yet. The initiator has joined it with `device`; without one it is expected to
    /// take its seat as long as it rings.
    pub(super) fn new(
        id: CallId,
        initiator: &Identity,
        device: Option<SessionId>,
        request: Initiate,
        config: &Config,
        now: Now,
    ) -> Self {
        let ring = request
            .ring_timeout
            .unwrap_or(config.ring_timeout)
            .min(config.ring_timeout_max)
            .max(config.ring_timeout_min);
        let ring_ms = i64::try_from(ring.as_millis()).unwrap_or(i64::MAX);
        let mut first =
            Participant::invited(initiator.user.clone(), Profile::of(initiator), request.kind, now.unix_ms);
        first.role = Role::Initiator;
        first.state = State::Joined;
        first.identify(initiator);
        first.device = device;
        first.joined = Some(now.instant);
        first.joined_at = Some(now.unix_ms);
        first.order = 0;
        if device.is_none() {
            first.joined = None;
            first.lost = Some(Lost { at: now.instant, until: after(now.instant, ring), told: true });
        }
        first.apply(request.settings);
        Self {
            id,
            open: request.to.is_empty(),
            room: request.room,
            kind: request.kind,
            metadata: request.metadata,
            initiator: initiator.user.clone(),
            status: Status::Initiated,
            end: None,
            created_at: now.unix_ms,
            ringing_at: None,
            answered_at: None,
            expires_at: now.unix_ms.saturating_add(ring_ms),
            created: now.instant,
            answered: None,
            negotiated: false,
            ring_until: after(now.instant, ring),
            negotiate_until: None,
            alone_until: None,
            ends_by: after(now.instant, config.max_duration),
            peak: 1,
            meshed: false,
            rev: 1,
            dirty: true,
            locked: false,
            relay_bytes_up: 0,
            relay_bytes_down: 0,
            steps: Vec::new(),
            told: 0,
            joins: 1,
            participants: vec![first],
            negotiation: Negotiation::default(),
            candidates: Bucket::default(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.status, Status::Ended(_))
    }

    pub(super) fn of(&self, user: &UserId) -> Option<&Participant> {
        self.participants.iter().find(|participant| participant.user == *user)
    }

    pub(super) fn of_mut(&mut self, user: &UserId) -> Option<&mut Participant> {
        self.participants.iter_mut().find(|participant| participant.user == *user)
    }

    pub(super) fn present(&self) -> impl Iterator<Item = &Participant> {
        self.participants.iter().filter(|participant| participant.is_present())
    }

    pub(super) fn pending(&self) -> impl Iterator<Item = &Participant> {
        self.participants.iter().filter(|participant| participant.is_pending())
    }

    /// Called or joined. Those gone do not count.
    pub(super) fn live(&self) -> usize {
        self.participants.iter().filter(|participant| participant.is_live()).count()
    }

    /// More than two sides: a hang-up of one is not the end.
    pub(super) fn is_group(&self) -> bool {
        self.peak > 2 || self.live() > 2
    }

    /// `p2p` or `mesh`, as it stands now.
    pub(super) fn mode(&self) -> &'static str {
        if self.live() > 2 { "mesh" } else { "p2p" }
    }

    /// Counts a change that participants or the store have to know.
    pub(super) fn bump(&mut self) -> u64 {
        self.rev += 1;
        self.dirty = true;
        self.meshed |= self.live() > 2;
        self.peak = self.peak.max(self.present().count());
        self.rev
    }

    /// The devices of everyone who has joined, except `but`.
    pub(super) fn joined_devices(&self, but: Option<&UserId>) -> Vec<SessionId> {
        self.present().filter(|who| Some(&who.user) != but).filter_map(|who| who.device).collect()
    }

    /// Sends an event to everyone who has joined, except `but`.
    pub(super) fn tell(
        &self,
        board: &mut Switchboard,
        name: &'static str,
        payload: &Value,
        but: Option<&UserId>,
    ) {
        board.deliver_all(&self.joined_devices(but), name, payload);
    }

    /// The status that follows from the participants of a running call.
    fn current_status(&self) -> Status {
        if self.answered.is_none() {
            return if self.ringing_at.is_some() { Status::Ringing } else { Status::Initiated };
        }
        if !self.negotiated {
            return Status::Connecting;
        }
        if self.present().all(|who| who.lost.is_some()) { Status::Reconnecting } else { Status::Active }
    }

    /// Brings the status of a running call up to date; whether the participants were told the new one.
    pub(super) fn refresh_status(&mut self, board: &mut Switchboard) -> bool {
        let (old, new) = (self.status, self.current_status());
        if self.is_over() || old == new {
            return false;
        }
        self.status = new;
        self.bump();
        board.emit(Event::CallStatus { from: Some(old.name()), to: Some(new.name()) });
        let tell = matches!(new, Status::Active | Status::Reconnecting);
        if tell {
            let state = self.state_event();
            self.tell(board, "call:state", &state, None);
        }
        tell
    }

    /// When the call wants attention next.
    pub(super) fn next_deadline(&self, config: &Config) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let ring = self.pending().next().map(|_| self.ring_until);
        let lost = self.present().filter_map(|who| who.lost).map(|lost| {
            let tell = after(lost.at, config.reconnecting_after);
            if lost.told { lost.until } else { tell.min(lost.until) }
        });
        let ice = self.present().filter(|who| who.lost.is_none()).filter_map(|who| who.renew_ice);
        [Some(self.ends_by), ring, self.negotiate_until, self.alone_until]
            .into_iter()
            .flatten()
            .chain(lost)
            .chain(ice)
            .min()
    }
}
