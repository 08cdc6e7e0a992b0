//! A restart: sessions are gone, calls are not.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Hub, Timer};
use crate::signaling::call::{Call, Status};
use crate::signaling::config::Config;
use crate::signaling::deadline::after;
use crate::signaling::message::{Initiate, Kind, Settings};
use crate::signaling::participant::{Lost, Participant, Profile, Role, State};
use crate::signaling::session::Presence;
use crate::signaling::{CallId, CallRecord, Event, Grants, Identity, Now, ParticipantRecord, UserId};

/// Notices of a restored call count from its revision, moved so far that they come after all earlier ones.
const NOTICES_PER_REV: u64 = 16;
/// No honest call gets so far.
const LAST_REV: u64 = 1 << 48;

impl Hub {
    /// Takes up the calls of an earlier process that were not over: everyone in them is reconnecting, timers run on from
    /// their timestamps, and the first `call:join` of a user takes its seat again. What cannot be read is left out.
    /// To be called once: before the first session opens, or as soon as the store is there. How many calls run again.
    pub fn restore(&mut self, records: Vec<CallRecord>, now: Now) -> usize {
        self.board.tick(now);
        let mut restored = 0;
        for record in records.into_iter().take(self.board.config.limits.calls) {
            if self.calls.contains_key(&record.id) {
                continue;
            }
            let Some(call) = from_record(record, &self.board.config, now) else { continue };
            self.take_up(call, now);
            restored += 1;
        }
        restored
    }

    /// Whoever is connected already, because the store came late: those who are called ring, those who had joined may
    /// join again.
    fn tell_restored(&mut self, id: &CallId, now: Now) {
        self.edit(id, now, |call, board| {
            // Whoever was called so long ago is told by the timer, which is due, that the call was missed.
            if call.is_over() || call.pending().next().is_some() && call.ring_until <= now.instant {
                return;
            }
            let called: Vec<UserId> = call.pending().map(|who| who.user.clone()).collect();
            called.iter().for_each(|user| call.ring(board, user, &board.devices(user), now));
            let state = call.state_event();
            for who in call.present() {
                board.deliver_all(&board.devices(&who.user), "call:state", &state);
            }
        });
    }

    /// Takes up what users have missed in an earlier process and do not know of, oldest first: `call:missed` for each.
    pub fn restore_missed(&mut self, missed: Vec<(UserId, Value)>, now: Now) {
        self.board.tick(now);
        for (user, event) in missed {
            self.board.tell_missed(&user, &event, now);
        }
    }

    fn take_up(&mut self, call: Call, now: Now) {
        let id = call.id.clone();
        for who in call.participants.iter().filter(|who| who.is_live()) {
            let how = if who.is_present() { Presence::Present } else { Presence::Pending };
            self.board.index(&who.user, &id, how);
        }
        if let Some(room) = call.room.as_ref().filter(|_| call.open)
            && self.board.rooms.get(room).is_none_or(|room| room.call.is_none())
        {
            self.board.host(room, id.clone());
        }
        for who in call.participants.iter().filter(|who| !who.is_live() && who.joined_at.is_some()) {
            self.board.emit(Event::Departed { call: id.clone(), user: who.user.clone() });
        }
        self.board.emit(Event::CallStatus { from: None, to: Some(call.status.name()) });
        self.calls.insert(id.clone(), call);
        // A caller without anybody to wait for is no call; whatever is due is found by the timer.
        self.edit(&id, now, |call, board| {
            let cause = call.settled_reason();
            call.settle(board, cause, None, &[], now);
        });
        debug_assert!(self.board.timers.is_armed(&Timer::Call(id.clone())));
        self.tell_restored(&id, now);
    }
}

fn from_record(record: CallRecord, config: &Config, now: Now) -> Option<Call> {
    let kind = match record.kind {
        "audio" => Kind::Audio,
        "video" => Kind::Video,
        _ => return None,
    };
    if record.ended_at.is_some() {
        return None;
    }
    let instant = |unix_ms: i64| at(unix_ms, now);
    let request = Initiate {
        room: record.room_id,
        to: Vec::new(),
        kind,
        settings: Settings::default(),
        metadata: record.metadata.and_then(|text| serde_json::from_str(&text).ok()),
        ring_timeout: None,
    };
    let mut call = Call::new(record.id, &stranger(record.initiator), None, request, config, now);
    call.open = record.open && call.room.is_some();
    call.locked = record.locked;
    call.created_at = record.created_at;
    call.created = instant(record.created_at);
    call.ends_by = after(call.created, config.max_duration);
    call.ringing_at = record.ringing_at;
    call.answered_at = record.answered_at;
    call.answered = record.answered_at.map(instant);
    call.expires_at = record.expires_at;
    call.ring_until = instant(record.expires_at);
    // Everyone is lost now, and that is a change.
    call.rev = record.rev.min(LAST_REV) + 1;
    call.told = call.rev * NOTICES_PER_REV;
    call.meshed = record.mode == "mesh";
    call.peak = record.participants_peak.try_into().unwrap_or(1);
    call.relay_bytes_up = record.relay_bytes_up;
    call.relay_bytes_down = record.relay_bytes_down;
    call.participants = seats(record.participants, kind, config, now)?;
    call.joins = u32::try_from(call.participants.len()).unwrap_or(u32::MAX);
    call.negotiated = call.participants.iter().any(|who| who.connected_at.is_some());
    if call.answered.is_some() && !call.negotiated {
        // Nobody could negotiate while there was no server.
        call.negotiate_until = Some(after(now.instant, config.negotiation_timeout));
    }
    let runs = call.present().next().is_some() && call.of(&call.initiator).is_some();
    call.status = match (call.answered.is_some(), call.ringing_at.is_some()) {
        (true, _) => Status::Reconnecting,
        (false, true) => Status::Ringing,
        (false, false) => Status::Initiated,
    };
    call.dirty = true;
    runs.then_some(call)
}

/// Everyone in the call, in the order they joined.
fn seats(records: Vec<ParticipantRecord>, kind: Kind, config: &Config, now: Now) -> Option<Vec<Participant>> {
    if records.len() > config.limits.roster {
        return None;
    }
    let mut joined: Vec<(Option<i64>, UserId)> =
        records.iter().filter_map(|record| Some((Some(record.joined_at?), record.user.clone()))).collect();
    joined.sort();
    let seats = records.into_iter().map(|record| {
        let order = joined.iter().position(|(_, user)| *user == record.user);
        let mut who = Participant::invited(record.user, Profile::default(), kind, record.invited_at);
        who.role = if record.role == "initiator" { Role::Initiator } else { Role::Participant };
        who.identify(&stranger(who.user.clone()));
        who.state = state(record.state, record.connected_at.is_some());
        if who.is_present() {
            let until = after(now.instant, config.grace);
            who.joined = Some(now.instant);
            who.lost = Some(Lost { at: now.instant, until, told: false });
        }
        who.order = order.and_then(|order| u32::try_from(order).ok()).unwrap_or(u32::MAX);
        (who.joined_at, who.connected_at) = (record.joined_at, record.connected_at);
        (who.left_at, who.leave_reason) = (record.left_at, record.leave_reason);
        (who.audio, who.video) = (record.audio, record.video);
        who.reconnects = record.reconnects;
        who.relay_bytes = record.relay_bytes;
        who.relay_transport = record.relay_transport;
        who.relay_peers = record.relay_peers;
        who.quality.candidate = record.ice_method;
        who
    });
    Some(seats.collect())
}

/// No device rings after a restart: who was ringing is called anew as soon as it connects.
fn state(name: &str, connected: bool) -> State {
    match name {
        "invited" | "ringing" => State::Invited,
        "joined" | "connected" | "grace" if connected => State::Connected,
        "joined" | "connected" | "grace" => State::Joined,
        "declined" => State::Declined,
        "missed" => State::Missed,
        "busy" => State::Busy,
        "kicked" => State::Kicked,
        "lost" => State::Lost,
        _ => State::Left,
    }
}

/// Somebody of whom only the id is known until it connects.
fn stranger(user: UserId) -> Identity {
    let none = Grants {
        initiate: false,
        join: false,
        moderate: false,
        admin: false,
        relay: false,
        video: false,
        rooms: None,
        max_kbps: None,
    };
    Identity { user, display_name: None, username: None, avatar: None, grants: none, expires_unix_ms: None }
}

/// A moment of the wall clock by the monotonic one.
fn at(unix_ms: i64, now: Now) -> Instant {
    let distance = Duration::from_millis(unix_ms.abs_diff(now.unix_ms));
    if unix_ms >= now.unix_ms {
        after(now.instant, distance)
    } else {
        now.instant.checked_sub(distance).unwrap_or(now.instant)
    }
}
