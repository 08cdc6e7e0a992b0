//! `call:signal`: from one joined device to another, or into the queue of one that is not there yet.

use serde_json::{Value, json};

use super::{Caller, Hub};
use crate::signaling::call::Call;
use crate::signaling::negotiation::Queued;
use crate::signaling::participant::Participant;
use crate::signaling::signal::{Signal, SignalType};
use crate::signaling::switchboard::Switchboard;
use crate::signaling::{CallId, Now, Reject, SessionId, UserId};

impl Hub {
    pub(super) fn relay(
        &mut self,
        caller: Caller,
        id: &CallId,
        signal: &Signal,
        now: Now,
    ) -> Result<Value, Reject> {
        let identity = self.board.identity(caller.session)?;
        let from = &identity.user;
        if signal.from.as_ref().is_some_and(|claimed| claimed != from) {
            return Err(Reject::SenderMismatch);
        }
        self.charge_signal(caller.session, from, id, signal, now)?;
        let to = target(self.joined_here(caller.session, from, id)?, from, signal.to.as_ref())?;
        self.edit(id, now, |call, board| forward(call, board, from, &to, signal, now))
            .unwrap_or(Err(Reject::CallNotFound))
    }

    /// Candidates are charged to their call, everything else to the session.
    fn charge_signal(
        &mut self,
        session: SessionId,
        from: &UserId,
        id: &CallId,
        signal: &Signal,
        now: Now,
    ) -> Result<(), Reject> {
        let rates = self.board.config.rates.clone();
        let (limit, taken) = if signal.kind == SignalType::IceCandidate {
            self.joined_here(session, from, id)?;
            let call = self.calls.get_mut(id).ok_or(Reject::CallNotFound)?;
            ("candidates", call.candidates.take(rates.candidates, now.instant))
        } else {
            let session = self.board.sessions.get_mut(&session).ok_or(Reject::NotAuthenticated)?;
            ("signals", session.signals.take(rates.signals, now.instant))
        };
        taken.map_err(|retry_after| Reject::RateLimited { limit, retry_after })
    }
}

/// Who a signal is for: the one it names, or the only other participant.
fn target(call: &Call, from: &UserId, named: Option<&UserId>) -> Result<UserId, Reject> {
    if let Some(named) = named {
        let there = call.of(named).is_some_and(Participant::is_live) && named != from;
        return if there { Ok(named.clone()) } else { Err(Reject::TargetNotFound) };
    }
    let mut others: Vec<&UserId> = call.present().map(|who| &who.user).filter(|user| *user != from).collect();
    if others.is_empty() {
        others = call.pending().map(|who| &who.user).collect();
    }
    match others.as_slice() {
        [] => Err(Reject::TargetNotFound),
        [only] => Ok((*only).clone()),
        _ => Err(Reject::TargetRequired),
    }
}

fn forward(
    call: &mut Call,
    board: &mut Switchboard,
    from: &UserId,
    to: &UserId,
    signal: &Signal,
    now: Now,
) -> Result<Value, Reject> {
    let order = |user: &UserId| call.of(user).map_or(u32::MAX, |who| who.order);
    let polite = order(from) > order(to);
    let device = call.of(to).and_then(Participant::active_device);
    let window = board.config.duplicate_window;
    if call.negotiation.is_duplicate(from, to, signal, now.instant, window) {
        return Ok(outcome(device.is_some()));
    }
    call.negotiation.check(from, to, signal, polite, now.instant)?;
    if device.is_none() {
        return queue(call, board, from, to, signal, now);
    }
    call.negotiation.note(from, to, signal, now.instant);
    let kind = signal.kind;
    if let Some(device) = device {
        board.deliver_text(device, "call:signal", &signal.stamped(&call.id, from, to));
    }
    if kind == SignalType::Answer {
        call.connect(board, from, to, now);
    }
    Ok(outcome(true))
}

fn queue(
    call: &mut Call,
    board: &Switchboard,
    from: &UserId,
    to: &UserId,
    signal: &Signal,
    now: Now,
) -> Result<Value, Reject> {
    let limits = &board.config.limits;
    let bytes = signal.sdp.as_ref().map_or(0, String::len)
        + signal.candidate.values().map(|value| value.to_string().len()).sum::<usize>();
    let payload = signal.stamped(&call.id, from, to);
    let queued = Queued::new(from, signal.kind, signal.is_offer(), bytes, payload);
    let who = call.of_mut(to).ok_or(Reject::TargetNotFound)?;
    who.queue.push(queued, limits.queued_signals, limits.queued_bytes)?;
    call.negotiation.note(from, to, signal, now.instant);
    Ok(outcome(false))
}

fn outcome(delivered: bool) -> Value {
    json!({ "delivered": delivered, "queued": !delivered })
}
