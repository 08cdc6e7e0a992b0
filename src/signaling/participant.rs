//! One user in one call.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::message::{Kind, Media, Settings};
use super::negotiation::SignalQueue;
use super::quality::Quality;
use super::snapshot::time;
use super::{Grants, Identity, ParticipantRecord, SessionId, UserId};

/// Why someone left who was removed for good.
pub(super) const BANNED: &str = "banned";

/// Networks of peers that are noted for a participant.
const MAX_PEERS: usize = 8;

/// What one allocation carried for a participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayUsage {
    /// Bytes it sent to peers.
    pub up: u64,
    /// Bytes it got from peers.
    pub down: u64,
    /// Transport between it and the relay.
    pub transport: &'static str,
    /// Networks of the peers, in short.
    pub peers: Vec<Arc<str>>,
}

/// Why someone is in the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Started it.
    Initiator,
    /// Was called, or came by.
    Participant,
}

/// Where a participant stands. A lost connection is apart: see [`Participant::lost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Called, no device reached yet.
    Invited,
    /// A device rings.
    Ringing,
    /// Accepted.
    Joined,
    /// An answer was relayed.
    Connected,
    /// Said no.
    Declined,
    /// Did not answer in time.
    Missed,
    /// Was in another call and not rung.
    Busy,
    /// Left.
    Left,
    /// Was removed by someone who may.
    Kicked,
    /// Its connection did not come back.
    Lost,
}

/// What someone may do to others in a call: only to those of a lower rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Nothing.
    Member,
    /// The one who called.
    Initiator,
    /// Has the `moderate` grant.
    Moderator,
    /// Has the `admin` grant.
    Admin,
    /// The operator's own servers.
    Operator,
}

impl Rank {
    /// The rank of a user in a call.
    pub(super) fn of(role: Role, grants: &Grants) -> Self {
        match (grants.admin, grants.moderate, role) {
            (true, ..) => Self::Admin,
            (_, true, _) => Self::Moderator,
            (.., Role::Initiator) => Self::Initiator,
            _ => Self::Member,
        }
    }
}

/// A connection that was lost and may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// When it was lost.
    pub(super) at: Instant,
    /// When the participant is given up.
    pub(super) until: Instant,
    /// Whether the others know.
    pub(super) told: bool,
}

/// Names shown to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Profile {
    display_name: Option<Arc<str>>,
    username: Option<Arc<str>>,
    avatar: Option<Arc<str>>,
}

/// One user in one call.
#[derive(Debug)]
pub(super) struct Participant {
    pub(super) user: UserId,
    pub(super) profile: Profile,
    pub(super) role: Role,
    pub(super) rank: Rank,
    pub(super) state: State,
    /// The device that joined, even while its connection is lost, as long as its session may be resumed.
    pub(super) device: Option<SessionId>,
    pub(super) lost: Option<Lost>,
    /// When it joined last, by the monotonic clock.
    pub(super) joined: Option<Instant>,
    /// Place in the order of joining: the later one is polite.
    pub(super) order: u32,
    pub(super) invited_at: i64,
    pub(super) joined_at: Option<i64>,
    pub(super) connected_at: Option<i64>,
    pub(super) left_at: Option<i64>,
    pub(super) leave_reason: Option<&'static str>,
    pub(super) audio: bool,
    pub(super) video: bool,
    pub(super) screen: bool,
    pub(super) reconnects: u32,
    pub(super) queue: SignalQueue,
    pub(super) quality: Quality,
    pub(super) relay_bytes: u64,
    pub(super) relay_transport: Option<&'static str>,
    pub(super) relay_peers: Vec<Arc<str>>,
    /// When its ICE servers are renewed.
    pub(super) renew_ice: Option<Instant>,
}

impl Participant {
    /// Someone who is called.
    pub(super) fn invited(user: UserId, profile: Profile, kind: Kind, unix_ms: i64) -> Self {
        Self {
            user,
            profile,
            role: Role::Participant,
            rank: Rank::Member,
            state: State::Invited,
            device: None,
            lost: None,
            joined: None,
            order: u32::MAX,
            invited_at: unix_ms,
            joined_at: None,
            connected_at: None,
            left_at: None,
            leave_reason: None,
            audio: true,
            video: kind == Kind::Video,
            screen: false,
            reconnects: 0,
            queue: SignalQueue::default(),
            quality: Quality::default(),
            relay_bytes: 0,
            relay_transport: None,
            relay_peers: Vec::new(),
            renew_ice: None,
        }
    }

    /// Takes what an identity says of itself and may do.
    pub(super) fn identify(&mut self, identity: &Identity) {
        self.profile = Profile::of(identity);
        self.rank = Rank::of(self.role, &identity.grants);
    }

    /// Removed for good.
    pub(super) fn is_banned(&self) -> bool {
        self.state == State::Kicked && self.leave_reason == Some(BANNED)
    }

    /// Notes what its media has cost the relay.
    pub(super) fn note_relay(&mut self, usage: RelayUsage) {
        self.relay_bytes = self.relay_bytes.saturating_add(usage.up).saturating_add(usage.down);
        self.relay_transport = Some(usage.transport);
        for peer in usage.peers {
            if self.relay_peers.len() < MAX_PEERS && !self.relay_peers.contains(&peer) {
                self.relay_peers.push(peer);
            }
        }
    }

    /// Called and undecided.
    pub(super) fn is_pending(&self) -> bool {
        matches!(self.state, State::Invited | State::Ringing)
    }

    /// Joined, even if its connection is lost at the moment.
    pub(super) fn is_present(&self) -> bool {
        matches!(self.state, State::Joined | State::Connected)
    }

    /// The device that joined, if it can be reached now.
    pub(super) fn active_device(&self) -> Option<SessionId> {
        self.device.filter(|_| self.lost.is_none())
    }

    /// Called or joined, not gone.
    pub(super) fn is_live(&self) -> bool {
        self.is_pending() || self.is_present()
    }

    /// Takes the initial media a client asked for.
    pub(super) fn apply(&mut self, settings: Settings) {
        self.audio = settings.audio.unwrap_or(self.audio);
        self.video = settings.video.unwrap_or(self.video);
    }

    /// Sets a media; whether that changed anything.
    pub(super) fn set(&mut self, media: Media, enabled: bool) -> bool {
        let current = match media {
            Media::Audio => &mut self.audio,
            Media::Video => &mut self.video,
            Media::Screen => &mut self.screen,
        };
        std::mem::replace(current, enabled) != enabled
    }

    /// It is called once more, whatever became of the first time.
    pub(super) fn call_again(&mut self) {
        self.state = State::Invited;
        (self.left_at, self.leave_reason) = (None, None);
    }

    /// Ends its part.
    pub(super) fn depart(&mut self, state: State, reason: &'static str, unix_ms: i64) {
        let was_present = self.is_present();
        self.state = state;
        self.device = None;
        self.lost = None;
        self.renew_ice = None;
        self.left_at = was_present.then_some(unix_ms);
        self.leave_reason = Some(reason);
        self.queue = SignalQueue::default();
    }

    /// Its state on the wire.
    pub(super) fn state_name(&self) -> &'static str {
        if self.lost.is_some() {
            return "grace";
        }
        match self.state {
            State::Invited => "invited",
            State::Ringing => "ringing",
            State::Joined => "joined",
            State::Connected => "connected",
            State::Declined => "declined",
            State::Missed => "missed",
            State::Busy => "busy",
            State::Left => "left",
            State::Kicked => "kicked",
            State::Lost => "lost",
        }
    }

    /// As it stands in a `CallSession`.
    pub(super) fn to_json(&self) -> Value {
        let mut fields = self.profile.to_fields(&self.user);
        fields.insert("id".into(), json!(self.user.0.as_ref()));
        fields.insert("role".into(), json!(self.role.name()));
        fields.insert("state".into(), json!(self.state_name()));
        fields.insert("joinedAt".into(), json!(self.joined_at.map(time)));
        if let Some(left) = self.left_at {
            fields.insert("leftAt".into(), json!(time(left)));
        }
        fields.insert("isAudioEnabled".into(), json!(self.audio));
        fields.insert("isVideoEnabled".into(), json!(self.video));
        fields.insert("isScreenEnabled".into(), json!(self.screen));
        Value::Object(fields)
    }

    /// As the store keeps it.
    pub(super) fn to_record(&self) -> ParticipantRecord {
        ParticipantRecord {
            user: self.user.clone(),
            role: self.role.name(),
            state: self.state_name(),
            invited_at: self.invited_at,
            joined_at: self.joined_at,
            connected_at: self.connected_at,
            left_at: self.left_at,
            leave_reason: self.leave_reason,
            audio: self.audio,
            video: self.video,
            reconnects: self.reconnects,
            setup_ms: self.connected_at.zip(self.joined_at).map(|(connected, joined)| connected - joined),
            ice_method: self.quality.candidate,
            rtt_avg_ms: self.quality.rtt().map(|(mean, _)| mean),
            rtt_max_ms: self.quality.rtt().map(|(_, most)| most),
            loss_avg: self.quality.loss().map(|(mean, _)| mean),
            loss_max: self.quality.loss().map(|(_, most)| most),
            jitter_avg_ms: self.quality.jitter(),
            relay_bytes: self.relay_bytes,
            relay_transport: self.relay_transport,
            relay_peers: self.relay_peers.clone(),
        }
    }
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Participant => "participant",
        }
    }
}

impl Profile {
    /// What an identity shows of itself.
    pub(super) fn of(identity: &Identity) -> Self {
        Self {
            display_name: identity.display_name.clone(),
            username: identity.username.clone(),
            avatar: identity.avatar.clone(),
        }
    }

    /// `{userId, username?, displayName?, avatar?}`.
    pub(super) fn to_fields(&self, user: &UserId) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("userId".into(), json!(user.0.as_ref()));
        let names =
            [("username", &self.username), ("displayName", &self.display_name), ("avatar", &self.avatar)];
        for (key, value) in names {
            if let Some(value) = value {
                fields.insert(key.into(), json!(value.as_ref()));
            }
        }
        fields
    }
}
