//! What passes beside the media: `call:message`, `call:quality-report`, `presence:get`.

use serde_json::{Value, json};

use super::{Caller, Hub};
use crate::signaling::participant::Participant;
use crate::signaling::quality::Stats;
use crate::signaling::session::Presence;
use crate::signaling::snapshot::time;
use crate::signaling::{CallId, Identity, Now, Reject, UserId};

impl Hub {
    /// A message to one or to everyone who has joined. Whoever reconnects gets it with its next transport.
    pub(super) fn message(
        &mut self,
        caller: Caller,
        id: &CallId,
        to: Option<&UserId>,
        data: &Value,
        now: Now,
    ) -> Result<Value, Reject> {
        let identity = self.board.identity(caller.session)?;
        self.charge_message(caller.session, now)?;
        let from = &identity.user;
        let call = self.joined_here(caller.session, from, id)?;
        let there = |user: &UserId| call.of(user).is_some_and(Participant::is_present) && user != from;
        if to.is_some_and(|to| !there(to)) {
            return Err(Reject::TargetNotFound);
        }
        let targets = call.present().filter(|who| who.user != *from && to.is_none_or(|to| who.user == *to));
        let devices: Vec<_> = targets.filter_map(|who| who.device).collect();
        let message = json!({
            "callId": id.0.as_ref(),
            "from": from.0.as_ref(),
            "to": to.map(|to| to.0.as_ref()),
            "data": data,
            "sentAt": time(now.unix_ms),
        });
        self.board.deliver_all(&devices, "call:message", &message);
        Ok(json!({ "delivered": devices.len() }))
    }

    /// What a client measures, summed up for the record; a bad report is shown to everyone in the call.
    pub(super) fn report_quality(
        &mut self,
        caller: Caller,
        id: &CallId,
        stats: Stats,
        now: Now,
    ) -> Result<Value, Reject> {
        let identity = self.board.identity(caller.session)?;
        let user = &identity.user;
        self.joined_here(caller.session, user, id)?;
        self.edit(id, now, |call, board| {
            let Some(who) = call.of_mut(user) else { return };
            if who.quality.take(stats, now.instant) {
                let fields = json!({
                    "level": "poor",
                    "rtt": stats.rtt,
                    "packetLoss": stats.loss,
                    "jitter": stats.jitter,
                });
                let alert = call.participant_event(user, fields);
                call.tell(board, "call:quality-alert", &alert, None);
            }
        });
        Ok(json!({}))
    }

    pub(super) fn presence_of(
        &mut self,
        caller: Caller,
        users: &[UserId],
        now: Now,
    ) -> Result<Value, Reject> {
        let identity = self.board.identity(caller.session)?;
        self.charge_message(caller.session, now)?;
        let presence: Vec<Value> = users
            .iter()
            .map(|user| if self.may_see(&identity, user) { self.presence(user) } else { absent(user) })
            .collect();
        let outcome = json!({ "presence": presence });
        self.echo(caller, "presence:get", &outcome);
        Ok(outcome)
    }

    /// Who is limited to some rooms sees who is in them. To it anybody else looks offline.
    fn may_see(&self, identity: &Identity, user: &UserId) -> bool {
        let Some(rooms) = &identity.grants.rooms else { return true };
        identity.user == *user
            || rooms.iter().any(|room| {
                self.board.devices(user).iter().any(|session| self.board.is_in_room(*session, room))
            })
    }

    /// `{userId, status:'online'|'reconnecting'|'offline', inCall}`.
    pub(super) fn presence(&self, user: &UserId) -> Value {
        let Some(known) = self.board.users.get(user) else { return absent(user) };
        let status = match (self.board.is_reachable(user), known.sessions.is_empty()) {
            (true, _) => "online",
            (false, false) => "reconnecting",
            (false, true) => "offline",
        };
        let in_call = known.calls.values().any(|how| *how == Presence::Present);
        json!({ "userId": user.0.as_ref(), "status": status, "inCall": in_call })
    }
}

fn absent(user: &UserId) -> Value {
    json!({ "userId": user.0.as_ref(), "status": "offline", "inCall": false })
}
