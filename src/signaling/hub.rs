//! The engine: one input, then drain the outputs, then sleep until the next timeout.

mod admin;
mod conversation;
mod initiate;
#[cfg(test)]
mod invariants;
mod membership;
mod moderation;
mod relay;
mod restore;
mod room;
mod session;

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use serde_json::{Value, json};

use super::call::Call;
use super::deadline::after;
use super::message::event_label;
use super::switchboard::{Switchboard, Timer};
use super::{CallId, ClientMessage, Close, Config, Event, IceMint, Reject, Request, ServerEvent, SessionId};

/// Longest `msgId`, in bytes.
const MAX_MESSAGE_ID: usize = 64;

/// Fills a buffer with unpredictable bytes. The shell passes the system's generator, a simulation a seeded one.
pub type Entropy = Box<dyn FnMut(&mut [u8]) + Send>;

/// The two clocks of one input: a monotonic one for timers, a wall clock for what people read.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic time, for every timer and limit.
    pub instant: Instant,
    /// Milliseconds since the Unix epoch, for records and wire timestamps.
    pub unix_ms: i64,
}

/// What the shell has to do after an input, in this order.
#[derive(Debug)]
pub enum Output {
    /// Send an event to the transport of a session, through its bounded queue.
    Deliver {
        /// The receiving session.
        session: SessionId,
        /// What to send.
        event: ServerEvent,
    },
    /// Close the transport of a session; the hub knows that it is gone already.
    Close {
        /// The session whose transport is closed.
        session: SessionId,
        /// Why, with the WebSocket close code.
        close: Close,
    },
    /// Something to count, log or record.
    Event(Event),
}

/// Who sends a request, and how it wants the outcome.
#[derive(Debug, Clone, Copy)]
struct Caller {
    session: SessionId,
    wants_ack: bool,
}

pub use admin::{AdminCommand, Authority};

/// The call engine.
pub struct Hub {
    board: Switchboard,
    /// Running calls, and those that ended a short while ago.
    calls: HashMap<CallId, Call>,
    /// Ended calls with the time they are forgotten, oldest first.
    ended: VecDeque<(Instant, CallId)>,
    draining: bool,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("sessions", &self.board.sessions.len())
            .field("calls", &self.calls.len())
            .field("draining", &self.draining)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// Makes an empty hub.
    pub fn new(config: Config, ice: Box<dyn IceMint>, entropy: Entropy) -> Self {
        Self {
            board: Switchboard::new(config, ice, entropy),
            calls: HashMap::new(),
            ended: VecDeque::new(),
            draining: false,
        }
    }

    /// Handles one request. The value is the ack's data (`{}` where there is none). Where the client asked for no
    /// ack (`Request::wants_ack == false`) the echo or error event of the protocol is among the outputs as well.
    ///
    /// # Errors
    /// [`Reject`], to be sent as the ack's error.
    pub fn handle(&mut self, session: SessionId, request: Request, now: Now) -> Result<Value, Reject> {
        self.board.tick(now);
        let text = |key| request.payload.get(key).and_then(Value::as_str).map(str::to_owned);
        let (call, id) =
            (text("callId"), text("msgId").filter(|id| !id.is_empty() && id.len() <= MAX_MESSAGE_ID));
        let caller = Caller { session, wants_ack: request.wants_ack };
        self.board.emit(Event::EventIn { name: event_label(&request.event) });
        self.hear(session, &request);
        let admitted = self.admit(session, &request, now);
        if admitted.is_ok()
            && let Some(outcome) = id.as_ref().and_then(|id| self.answered(session, id))
        {
            self.board.emit(Event::Duplicate);
            return outcome;
        }
        let outcome = admitted.and_then(|()| {
            let message = ClientMessage::parse(&request.event, request.payload, &self.board.config.limits)?;
            self.dispatch(caller, message, now)
        });
        if let (Some(id), Some(session)) = (&id, self.board.sessions.get_mut(&session)) {
            session.answered.remember(id, &outcome);
        }
        if let Err(reject) = &outcome {
            self.refuse(caller, reject, call, now);
        }
        outcome
    }

    /// The client of a session has received every event up to this number (`ls`).
    pub fn acknowledge(&mut self, session: SessionId, seq: u64) {
        self.board.acknowledge(session, seq);
    }

    /// What any request says besides itself: its transport works, and what arrived on it.
    fn hear(&mut self, id: SessionId, request: &Request) {
        let Some(session) = self.board.sessions.get_mut(&id) else { return };
        session.keys.received();
        let seen = request.last_seen.or_else(|| request.payload.get("ls").and_then(Value::as_u64));
        if let Some(seq) = seen {
            self.board.acknowledge(id, seq);
        }
    }

    /// Goes on with other limits, rates and timers. A timer that runs keeps its time until its call changes.
    pub fn reconfigure(&mut self, config: Config) {
        self.board.config = config;
    }

    /// The outcome of a request that was handled before.
    fn answered(&self, session: SessionId, id: &str) -> Option<Result<Value, Reject>> {
        self.board.sessions.get(&session)?.answered.outcome(id)
    }

    /// Stops accepting calls; sessions are told when to reconnect.
    pub fn drain(&mut self, now: Now) {
        self.board.tick(now);
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        let spread = u64::try_from(self.board.config.drain_reconnect.as_millis()).unwrap_or(u64::MAX);
        let mut sessions: Vec<SessionId> = self.board.sessions.keys().copied().collect();
        sessions.sort_unstable();
        for session in sessions {
            let wait = self.board.random_below(spread);
            self.board.deliver_volatile(session, "session:draining", &json!({ "reconnectInMs": wait }));
        }
    }

    /// Runs every timer that is due.
    pub fn on_timeout(&mut self, now: Now) {
        self.board.tick(now);
        while let Some(timer) = self.board.timers.pop_due(now.instant) {
            match timer {
                Timer::Call(id) => {
                    self.edit(&id, now, |call, board| call.on_timeout(board, now));
                }
                Timer::User(user) => self.board.release(&user, now),
                Timer::Replay(session) => self.board.expire(session, now),
            }
        }
        self.board.missed.expire(now.instant);
        while let Some(session) = self.board.detached.pop_due(now.instant) {
            self.forsake(session, now);
        }
        while self.ended.front().is_some_and(|(at, _)| *at <= now.instant) {
            self.forget_oldest();
        }
    }

    /// When [`Hub::on_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let forget = self.ended.front().map(|(at, _)| *at);
        self.board
            .timers
            .next()
            .into_iter()
            .chain(self.board.detached.next())
            .chain(self.board.missed.next())
            .chain(forget)
            .min()
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.board.out.pop_front()
    }

    /// Size and rate of a frame, before anything else is looked at.
    fn admit(&mut self, id: SessionId, request: &Request, now: Now) -> Result<(), Reject> {
        let config = &self.board.config;
        let session = self.board.sessions.get_mut(&id).filter(|session| session.attached);
        let session = session.ok_or(Reject::NotAuthenticated)?;
        if let Err(retry_after) = session.frames.take(config.rates.frames, now.instant) {
            session.flooded = session.flooded.saturating_add(1);
            return Err(Reject::RateLimited { limit: "frames", retry_after });
        }
        session.flooded = 0;
        let limit = config.limits.frame_bytes;
        if request.size > limit { Err(Reject::TooLarge { what: "frame", limit }) } else { Ok(()) }
    }

    fn dispatch(&mut self, caller: Caller, message: ClientMessage, now: Now) -> Result<Value, Reject> {
        match message {
            ClientMessage::Initiate(request) => self.initiate(caller, request, now),
            ClientMessage::Join { call, settings } => self.join(caller, &call, settings, now),
            ClientMessage::Signal { call, signal } => self.relay(caller, &call, &signal, now),
            ClientMessage::Toggle { call, media, enabled } => self.toggle(caller, &call, media, enabled, now),
            ClientMessage::Leave(call) => self.leave(caller, &call, now),
            ClientMessage::Decline(call) => self.decline(caller, &call, now),
            ClientMessage::End(call) => self.end(caller, &call, now),
            ClientMessage::Invite { call, to } => self.invite_to(caller, &call, &to, now),
            ClientMessage::Kick { call, user, ban } => self.kick(caller, &call, &user, ban, now),
            ClientMessage::Mute { call, user, media } => self.mute(caller, &call, &user, media, now),
            ClientMessage::Lock { call, locked } => self.lock(caller, &call, locked, now),
            ClientMessage::Message { call, to, data } => self.message(caller, &call, to.as_ref(), &data, now),
            ClientMessage::Quality { call, stats } => self.report_quality(caller, &call, stats, now),
            ClientMessage::Presence(users) => self.presence_of(caller, &users, now),
            ClientMessage::RequestIceServers(call) => self.request_ice(caller, call.as_ref(), now),
            ClientMessage::Heartbeat | ClientMessage::Seen => Ok(json!({})),
            ClientMessage::RoomJoin(room) => self.room_join(caller, &room, now),
            ClientMessage::RoomLeave(room) => self.room_leave(caller, &room),
            ClientMessage::Bye => self.bye(caller, now),
        }
    }

    /// Counts a refusal, and sends it where no ack will.
    fn refuse(&mut self, caller: Caller, reject: &Reject, call: Option<String>, now: Now) {
        self.board.emit(Event::Rejected { code: reject.code() });
        if let Reject::RateLimited { limit, .. } = reject {
            self.board.emit(Event::RateLimited { limit });
        }
        let burst = self.board.config.rates.frames.burst.max(1);
        if self.board.sessions.get(&caller.session).is_some_and(|session| session.flooded > burst) {
            self.close(caller.session, now);
            self.board.out.push_back(Output::Close { session: caller.session, close: Close::Rate });
        } else if !caller.wants_ack {
            let mut error = reject.to_json();
            let call = call.filter(|id| id.len() <= self.board.config.limits.id_bytes);
            if let (Some(fields), Some(call)) = (error.as_object_mut(), call) {
                fields.entry("callId").or_insert(json!(call));
            }
            self.board.deliver(caller.session, "call:error", &error);
        }
    }

    /// The running calls of a user.
    fn calls_of(&self, user: &super::UserId) -> Vec<CallId> {
        self.board.users.get(user).map(|user| user.calls.keys().cloned().collect()).unwrap_or_default()
    }

    /// Changes a call; then its status, record and timers follow. `None` if there is no such call.
    fn edit<T>(
        &mut self,
        id: &CallId,
        now: Now,
        change: impl FnOnce(&mut Call, &mut Switchboard) -> T,
    ) -> Option<T> {
        let call = self.calls.get_mut(id)?;
        let was_over = call.is_over();
        let value = change(call, &mut self.board);
        call.refresh_status(&mut self.board);
        call.tell_steps(&mut self.board, now);
        if let Some(record) = call.take_record() {
            self.board.emit(record);
        }
        let deadline = call.next_deadline(&self.board.config);
        self.board.timers.arm(&Timer::Call(id.clone()), deadline);
        if call.is_over() && !was_over {
            let forget_at = after(now.instant, self.board.config.ended_retention);
            self.ended.push_back((forget_at, id.clone()));
            while self.ended.len() > self.board.config.limits.ended_calls {
                self.forget_oldest();
            }
        }
        Some(value)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.ended.pop_front() {
            self.calls.remove(&id);
        }
    }
}
