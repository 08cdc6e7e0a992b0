//! What holds between any two inputs.

use std::collections::{BTreeMap, HashSet};

use super::Hub;
use crate::signaling::call::Call;
use crate::signaling::session::Presence;
use crate::signaling::switchboard::Timer;
use crate::signaling::{CallId, UserId};

impl Hub {
    /// Panics if a table contradicts another one.
    pub(crate) fn check_invariants(&self) {
        self.check_sessions();
        self.check_rooms();
        self.check_users();
        self.check_ended();
        self.calls.values().for_each(|call| self.check_call(call));
    }

    /// Whether every table is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
            && self.ended.is_empty()
            && self.board.sessions.is_empty()
            && self.board.users.is_empty()
            && self.board.rooms.is_empty()
            && self.board.timers.len() == 0
            && self.board.detached.len() == 0
            && self.board.sids.is_empty()
            && self.board.missed.next().is_none()
            && self.board.out.is_empty()
    }

    /// How many calls are running.
    pub(crate) fn running(&self) -> usize {
        self.calls.values().filter(|call| !call.is_over()).count()
    }

    /// How many signals wait for a user in a call.
    pub(crate) fn queued(&self, call: &str, user: &str) -> usize {
        let (call, user) = (CallId(call.into()), UserId(user.into()));
        self.calls.get(&call).and_then(|call| call.of(&user)).map_or(0, |who| who.queue.len())
    }

    fn check_sessions(&self) {
        for (id, session) in &self.board.sessions {
            let user = &self.board.users[&session.identity.user];
            assert_eq!(user.sessions.iter().filter(|other| *other == id).count(), 1);
            for room in &session.rooms {
                assert!(self.board.rooms[room].sessions.contains(id));
            }
        }
        for (sid, id) in &self.board.sids {
            assert_eq!(self.board.sessions[id].sid, *sid);
        }
        assert_eq!(self.board.sids.len(), self.board.sessions.len());
        let waiting = self.board.sessions.values().filter(|session| !session.attached).count();
        assert_eq!(self.board.detached.len(), waiting);
        self.board.check_replays();
        let listed: usize = self.board.users.values().map(|user| user.sessions.len()).sum();
        assert_eq!(listed, self.board.sessions.len());
    }

    fn check_rooms(&self) {
        for (name, room) in &self.board.rooms {
            assert!(!room.is_empty(), "an empty room stays");
            for session in &room.sessions {
                assert!(self.board.sessions[session].rooms.contains(name));
            }
            if let Some(call) = &room.call {
                let call = &self.calls[call];
                assert!(call.open && !call.is_over() && call.room.as_ref() == Some(name));
            }
        }
        for call in self.calls.values().filter(|call| call.open && !call.is_over()) {
            // One that was taken up late may have found another one there.
            assert!(self.board.rooms[call.room.as_ref().unwrap()].call.is_some());
        }
    }

    fn check_users(&self) {
        let mut live: BTreeMap<(UserId, CallId), Presence> = BTreeMap::new();
        for call in self.calls.values() {
            for who in call.participants.iter().filter(|who| who.is_live()) {
                let how = if who.is_present() { Presence::Present } else { Presence::Pending };
                live.insert((who.user.clone(), call.id.clone()), how);
            }
        }
        let mut indexed = BTreeMap::new();
        let mut idle = 0;
        for (id, user) in &self.board.users {
            assert!(user.sessions.len() <= self.board.config.limits.sessions_per_user);
            assert!(user.calls.len() <= self.board.config.limits.calls_per_user);
            for (call, how) in &user.calls {
                indexed.insert((id.clone(), call.clone()), *how);
            }
            if user.sessions.is_empty() && user.calls.is_empty() {
                idle += 1;
                assert_eq!(self.board.timers.of(&Timer::User(id.clone())), user.full_at());
            }
        }
        assert_eq!(indexed, live);
        assert!(self.board.timers.len() >= idle + self.running());
    }

    fn check_ended(&self) {
        let ended: HashSet<&CallId> = self.ended.iter().map(|(_, id)| id).collect();
        assert_eq!(ended.len(), self.ended.len());
        assert!(ended.len() <= self.board.config.limits.ended_calls);
        for call in self.calls.values() {
            assert_eq!(call.is_over(), ended.contains(&call.id));
        }
        assert_eq!(self.calls.len(), ended.len() + self.running());
    }

    fn check_call(&self, call: &Call) {
        let limits = &self.board.config.limits;
        assert!(!call.dirty, "a change without a record");
        assert_eq!(call.is_over(), call.end.is_some());
        assert_eq!(
            self.board.timers.of(&Timer::Call(call.id.clone())),
            call.next_deadline(&self.board.config)
        );
        assert!(call.peak <= limits.participants && call.present().count() <= call.peak);
        assert!(call.participants.len() <= limits.roster);
        let users: HashSet<&UserId> = call.participants.iter().map(|who| &who.user).collect();
        assert_eq!(users.len(), call.participants.len());
        if call.is_over() {
            assert_eq!(call.live(), 0);
            return;
        }
        assert!(call.present().next().is_some(), "a call that nobody is in");
        assert!(call.answered.is_some() || call.pending().next().is_some(), "a ring that nobody hears");
        for who in &call.participants {
            assert_eq!(who.is_present(), who.device.is_some() || who.lost.is_some());
            assert!(who.queue.len() <= limits.queued_signals);
            assert!(who.queue.len() == 0 || (who.is_live() && who.active_device().is_none()));
            if let Some(device) = who.device {
                let session = &self.board.sessions[&device];
                assert_eq!(session.identity.user, who.user);
                assert_eq!(session.attached, who.lost.is_none());
            }
        }
    }
}
