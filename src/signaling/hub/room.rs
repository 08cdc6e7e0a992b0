//! `room:join`, `room:leave`: who is rung when a call names only a room.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Caller, Hub};
use crate::signaling::call::Call;
use crate::signaling::participant::Profile;
use crate::signaling::{Now, Reject, UserId};

impl Hub {
    pub(super) fn room_join(&mut self, caller: Caller, name: &Arc<str>, now: Now) -> Result<Value, Reject> {
        let identity = self.board.identity(caller.session)?;
        self.charge(caller.session, "join", now)?;
        if !identity.grants.allows_room(Some(name)) {
            return Err(Reject::PermissionDenied("this room"));
        }
        if self.board.rooms.get(name).is_some_and(|room| !room.admits(&identity.user)) {
            return Err(Reject::ConversationNotFound);
        }
        if !self.board.is_in_room(caller.session, name) {
            self.check_room_limits(caller, name)?;
            self.board.rooms.entry(name.clone()).or_default().sessions.insert(caller.session);
            if let Some(session) = self.board.sessions.get_mut(&caller.session) {
                session.rooms.insert(name.clone());
            }
        }
        let room = self.room_json(name);
        self.echo(caller, "room:join", &room);
        Ok(room)
    }

    pub(super) fn room_leave(&mut self, caller: Caller, name: &Arc<str>) -> Result<Value, Reject> {
        let session = self.board.sessions.get_mut(&caller.session).ok_or(Reject::NotAuthenticated)?;
        if session.rooms.remove(name) {
            self.board.vacate(name, caller.session);
        }
        self.echo(caller, "room:leave", &json!({ "roomId": name.as_ref() }));
        Ok(json!({}))
    }

    fn check_room_limits(&self, caller: Caller, name: &Arc<str>) -> Result<(), Reject> {
        let limits = &self.board.config.limits;
        let rooms = self.board.sessions.get(&caller.session).map_or(0, |session| session.rooms.len());
        if rooms >= limits.rooms_per_session {
            return Err(Reject::Capacity("rooms of this session"));
        }
        let there = self.board.rooms.get(name).map_or(0, |room| room.sessions.len());
        if there >= limits.sessions_per_room {
            Err(Reject::Capacity("sessions in this room"))
        } else {
            Ok(())
        }
    }

    /// `{roomId, members, activeCall?}`.
    pub(super) fn room_json(&self, name: &Arc<str>) -> Value {
        let Some(room) = self.board.rooms.get(name) else { return json!({ "roomId": name.as_ref() }) };
        let members: BTreeMap<&UserId, Map<String, Value>> = room
            .sessions
            .iter()
            .filter_map(|session| self.board.sessions.get(session))
            .map(|session| &session.identity)
            .map(|identity| (&identity.user, Profile::of(identity).to_fields(&identity.user)))
            .collect();
        let members: Vec<_> = members.into_values().collect();
        let mut fields = json!({ "roomId": name.as_ref(), "members": members });
        let call = room.call.as_ref().and_then(|id| self.calls.get(id)).map(Call::to_json);
        if let (Some(fields), Some(call)) = (fields.as_object_mut(), call) {
            fields.insert("activeCall".into(), call);
        }
        fields
    }

    pub(super) fn echo(&mut self, caller: Caller, name: &'static str, data: &Value) {
        if caller.wants_ack {
            return;
        }
        let mut echo = data.clone();
        if let Some(fields) = echo.as_object_mut() {
            fields.insert("success".into(), json!(true));
        }
        self.board.deliver(caller.session, name, &echo);
    }
}
