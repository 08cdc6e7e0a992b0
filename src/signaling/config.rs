//! Limits and timers of the call engine.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of the call engine (`[signaling]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What happens when someone calls a user who is in another call: `waiting` rings anyway, `reject` refuses.
    pub busy: BusyPolicy,
    /// How long a call rings when the caller does not say.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ring_timeout: Duration,
    /// Shortest ring a caller may ask for.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ring_timeout_min: Duration,
    /// Longest ring a caller may ask for.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ring_timeout_max: Duration,
    /// How long a call keeps ringing after the connection of its caller was lost.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub initiator_grace: Duration,
    /// How long an accepted call may take until its first answer is relayed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub negotiation_timeout: Duration,
    /// How long a participant whose connection was lost stays in its call.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub grace: Duration,
    /// The same, for a user who is still connected with another device or page.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub grace_with_session: Duration,
    /// How long a lost connection is kept from the other participants.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub reconnecting_after: Duration,
    /// How long the last participant of a group waits for others.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub alone_timeout: Duration,
    /// Longest call.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub max_duration: Duration,
    /// How long an ended call is remembered, so that late requests get a precise answer.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ended_retention: Duration,
    /// How long an identical session description to the same target is not forwarded again.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub duplicate_window: Duration,
    /// Ring users who are not connected too, because something else wakes them (a push message sent on a webhook). Without
    /// it a call that reaches nobody is refused.
    pub ring_offline: bool,
    /// Clients use relayed addresses only (`iceTransportPolicy: "relay"`), so that nobody in a call learns the address of
    /// another. Those who may not use the relay are not told so.
    pub force_relay: bool,
    /// How long a session without a connection can be resumed, and how long what it was sent is kept for that.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub resume_window: Duration,
    /// On a drain, clients are told to reconnect after a random time up to this.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub drain_reconnect: Duration,
    /// Sizes and counts.
    pub limits: Limits,
    /// Rates of requests.
    pub rates: Rates,
}

/// What happens when someone calls a user who is in another call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BusyPolicy {
    /// Ring anyway, marked as `busy`.
    #[default]
    Waiting,
    /// Refuse with `USER_BUSY`.
    Reject,
}

/// Sizes and counts (`[signaling.limits]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one frame.
    pub frame_bytes: usize,
    /// Bytes of a session description.
    pub sdp_bytes: usize,
    /// Bytes of an ICE candidate.
    pub candidate_bytes: usize,
    /// Bytes of an id of a user, call, room or negotiation.
    pub id_bytes: usize,
    /// Bytes of the metadata of a call, as JSON.
    pub metadata_bytes: usize,
    /// Bytes of the data of a message between participants, as JSON.
    pub message_bytes: usize,
    /// Levels of nesting in a payload.
    pub json_depth: usize,
    /// Sessions in all.
    pub sessions: usize,
    /// Sessions of one user.
    pub sessions_per_user: usize,
    /// Running calls in all.
    pub calls: usize,
    /// Running calls one user may have started.
    pub calls_per_initiator: usize,
    /// Running calls one user may be in or be rung by; a user beyond it is busy.
    pub calls_per_user: usize,
    /// Participants of a call at once.
    pub participants: usize,
    /// Users one call to a room rings.
    pub invited: usize,
    /// Everyone ever invited to or seen in one call.
    pub roster: usize,
    /// Rooms whose members were named.
    pub member_rooms: usize,
    /// Members that one room may name.
    pub members: usize,
    /// Sessions in one room.
    pub sessions_per_room: usize,
    /// Rooms one session may be in.
    pub rooms_per_session: usize,
    /// Signals waiting for one participant that has not joined yet or reconnects.
    pub queued_signals: usize,
    /// Bytes of those signals.
    pub queued_bytes: usize,
    /// Events kept for a session until it acknowledges them.
    pub replay_events: usize,
    /// Bytes of those events.
    pub replay_bytes: usize,
    /// Bytes of the events kept for all sessions.
    pub replay_total_bytes: usize,
    /// Ended calls that are remembered.
    pub ended_calls: usize,
}

/// Rates of requests (`[signaling.rates]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// Frames of one session, whatever they are.
    pub frames: Rate,
    /// Signals of one session, ICE candidates apart.
    pub signals: Rate,
    /// ICE candidates in one call.
    pub candidates: Rate,
    /// Calls started by one user.
    pub initiate: Rate,
    /// Joins of calls and rooms by one user.
    pub join: Rate,
    /// Leaves, declines and ends by one user.
    pub leave: Rate,
    /// Microphone and camera switches of one user.
    pub toggle: Rate,
    /// Messages, invitations and questions of one session.
    pub messages: Rate,
}

/// A sustained rate with a burst on top: `count` requests each `per`, at most `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests in each period; 0 turns the limit off.
    pub count: u32,
    /// The period.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub per: Duration,
    /// Requests at once, after a rest.
    pub burst: u32,
}

impl Rate {
    const fn per_second(count: u32, burst: u32) -> Self {
        Self { count, per: Duration::from_secs(1), burst }
    }

    const fn per_minute(count: u32) -> Self {
        Self { count, per: Duration::from_secs(60), burst: count }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            busy: BusyPolicy::Waiting,
            ring_timeout: Duration::from_secs(60),
            ring_timeout_min: Duration::from_secs(10),
            ring_timeout_max: Duration::from_secs(120),
            initiator_grace: Duration::from_secs(10),
            negotiation_timeout: Duration::from_secs(45),
            grace: Duration::from_secs(30),
            grace_with_session: Duration::from_secs(90),
            reconnecting_after: Duration::from_secs(3),
            alone_timeout: Duration::from_secs(60),
            max_duration: Duration::from_secs(12 * 3600),
            ended_retention: Duration::from_secs(60),
            duplicate_window: Duration::from_secs(30),
            ring_offline: false,
            force_relay: false,
            resume_window: Duration::from_secs(120),
            drain_reconnect: Duration::from_secs(10),
            limits: Limits::default(),
            rates: Rates::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 128 * 1024,
            sdp_bytes: 64 * 1024,
            candidate_bytes: 2 * 1024,
            id_bytes: 128,
            metadata_bytes: 8 * 1024,
            message_bytes: 8 * 1024,
            json_depth: 16,
            sessions: 50_000,
            sessions_per_user: 10,
            calls: 25_000,
            calls_per_initiator: 2,
            calls_per_user: 16,
            participants: 4,
            invited: 32,
            roster: 64,
            member_rooms: 10_000,
            members: 1_000,
            sessions_per_room: 100,
            rooms_per_session: 16,
            queued_signals: 64,
            queued_bytes: 128 * 1024,
            replay_events: 512,
            replay_bytes: 256 * 1024,
            replay_total_bytes: 512 * 1024 * 1024,
            ended_calls: 10_000,
        }
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            frames: Rate::per_second(50, 200),
            signals: Rate::per_second(10, 100),
            candidates: Rate::per_second(30, 150),
            initiate: Rate::per_minute(5),
            join: Rate::per_minute(20),
            leave: Rate::per_minute(20),
            toggle: Rate::per_minute(50),
            messages: Rate::per_second(10, 50),
        }
    }
}
