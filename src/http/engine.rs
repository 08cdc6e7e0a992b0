//! Drives the call engine: one input at a time, its outputs into the queues of the transports, its timers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::Limits;
use super::resume::echo;
use super::session::{AckId, Bounds, Frame, Queue, Slow};
use crate::metrics::Metrics;
use crate::signaling::{
    self, AdminCommand, Authority, CallId, CallRecord, Close, Event, Hub, Identity, Now, Output, Reject,
    RelayUsage, Request, Resume, Resumption, ServerEvent, SessionId, UserId, event_label,
};

/// Where events of the call engine go. Called with the engine locked, so that events keep their order: it must not
/// block and must not call the engine.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// Labels of transports.
pub(crate) const WEBSOCKET: &str = "websocket";
pub(crate) const SOCKETIO: &str = "socketio";

/// How many steps [`Engine::close_all`] takes.
const CLOSING_SLICES: u32 = 20;
/// How long transports have to write what they hold after the last one was told to close.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The call engine with its sessions' queues and its clock. Cheap to share, short to lock: nothing waits inside.
pub struct Engine {
    core: Mutex<Core>,
    rearm: Notify,
    metrics: Arc<Metrics>,
    sink: Sink,
    bounds: Bounds,
    transports: TaskTracker,
    closers: Mutex<Vec<Closer>>,
}

/// Closes every transport of a framing that cannot close one alone.
type Closer = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

struct Core {
    hub: Hub,
    sessions: HashMap<SessionId, Session>,
    armed: Option<Instant>,
}

struct Session {
    queue: Arc<Queue>,
    transport: &'static str,
}

/// A session that was opened for a transport.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) session: SessionId,
    pub(crate) queue: Arc<Queue>,
    pub(crate) resumption: Option<Resumption>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    /// Takes over the hub. Timers run only while [`Engine::run`] does.
    #[must_use]
    pub fn new(hub: Hub, limits: &Limits, metrics: Arc<Metrics>, sink: Sink) -> Arc<Self> {
        let bounds =
            Bounds { bytes: limits.unsent_bytes, frames: limits.unsent_frames, patience: limits.slow_after };
        Arc::new(Self {
            core: Mutex::new(Core { hub, sessions: HashMap::new(), armed: None }),
            rearm: Notify::new(),
            metrics,
            sink,
            bounds,
            transports: TaskTracker::new(),
            closers: Mutex::default(),
        })
    }

    /// Runs the timers of the hub until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let deadline = {
                let mut core = self.core.lock();
                core.armed = core.hub.poll_timeout();
                core.armed
            };
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.rearm.notified() => {}
                () = due => self.input(|core, now| core.hub.on_timeout(now)),
            }
        }
    }

    /// Goes on with other limits, rates and timers of the hub.
    pub fn reconfigure(&self, config: signaling::Config) {
        self.core.lock().hub.reconfigure(config);
    }

    /// Stops accepting calls and tells every session when to reconnect.
    pub fn drain(&self) {
        self.metrics.draining.set(1);
        self.input(|core, now| core.hub.drain(now));
    }

    /// Closes every transport: WebSockets with 1012 (restart), a slice at a time so that clients do not all come back
    /// in the same moment, then Socket.IO connections, whose stock clients spread their reconnects themselves. Returns
    /// when all are gone, at the latest shortly after `within`.
    pub async fn close_all(&self, within: Duration) {
        for left in (1..=CLOSING_SLICES).rev() {
            let mut sessions = self.closable();
            if sessions.is_empty() {
                break;
            }
            sessions.truncate(sessions.len().div_ceil(left as usize));
            for session in sessions {
                self.end(session, Close::Restart);
            }
            if left > 1 {
                tokio::time::sleep(within / CLOSING_SLICES).await;
            }
        }
        let closing: Vec<_> = self.closers.lock().iter().map(|closer| closer()).collect();
        let _ = tokio::time::timeout(LAST_WORDS, futures_util::future::join_all(closing)).await;
        // A framing that closes everything at once does not say so to each session.
        let rest: Vec<SessionId> = self.core.lock().sessions.keys().copied().collect();
        for session in rest {
            self.end(session, Close::Restart);
        }
        self.transports.close();
        if tokio::time::timeout(LAST_WORDS, self.transports.wait()).await.is_err() {
            tracing::debug!(left = self.transports.len(), "transports still open");
        }
    }

    /// The sessions whose transport can be closed alone.
    fn closable(&self) -> Vec<SessionId> {
        let core = self.core.lock();
        let alone = core.sessions.iter().filter(|(_, open)| open.transport == WEBSOCKET);
        alone.map(|(session, _)| *session).collect()
    }

    /// Registers how [`Engine::close_all`] closes the transports of a framing that cannot close one alone.
    pub(crate) fn on_close_all(&self, closer: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        self.closers.lock().push(Box::new(closer));
    }

    /// How many sessions have a transport.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.core.lock().sessions.len()
    }

    /// Spawns the task of a transport; [`Engine::close_all`] waits for it.
    pub(crate) fn spawn(&self, transport: impl Future<Output = ()> + Send + 'static) {
        self.transports.spawn(transport);
    }

    /// Opens a session for an authenticated transport. `ack` is acknowledged first when there is one, then the hub's
    /// greeting follows.
    pub(crate) fn open(
        &self,
        identity: Identity,
        transport: &'static str,
        ack: Option<AckId>,
        resume: Option<Resume>,
    ) -> Result<Opened, Reject> {
        self.input(|core, now| {
            let signaling::Opened { session, resumption } = core.hub.open(identity, resume, now)?;
            let (unsent, delivery) =
                (&self.metrics.signaling_send_queue_bytes, &self.metrics.signaling_delivery);
            let queue = Arc::new(Queue::new(self.bounds, unsent.clone(), delivery.clone()));
            if let Some(id) = ack {
                // An empty queue has room for one frame.
                let _ = queue.push(Frame::Ack { id, outcome: Ok(serde_json::json!({})) });
            }
            core.sessions.insert(session, Session { queue: Arc::clone(&queue), transport });
            self.metrics.signaling_connections.with_label_values(&[transport]).inc();
            Ok(Opened { session, queue, resumption })
        })
    }

    /// Handles a request of a session. The ack goes through the queue, before the events the request caused.
    pub(crate) fn handle(&self, session: SessionId, request: Request, ack: Option<AckId>) {
        let label = event_label(&request.event);
        self.input(|core, now| {
            let Some(queue) = core.sessions.get(&session).map(|open| Arc::clone(&open.queue)) else { return };
            let started = Instant::now();
            let outcome = core.hub.handle(session, request, now);
            self.metrics
                .signaling_handle
                .with_label_values(&[label])
                .observe(started.elapsed().as_secs_f64());
            let Some(id) = ack else { return };
            if queue.push(Frame::Ack { id, outcome: outcome.map_err(|reject| reject.to_json()) }).is_err() {
                self.forget_slow(core, session, now);
            }
        });
    }

    /// Refuses a request that is none, so that the hub never sees it.
    pub(crate) fn refuse(&self, session: SessionId, reject: &Reject, ack: Option<AckId>) {
        self.metrics.signaling_errors.with_label_values(&[reject.code()]).inc();
        self.answer(session, ack, "call:error", Err(reject.to_json()));
    }

    /// Gives the other identity of the same user to a session.
    pub(crate) fn refresh(&self, session: SessionId, identity: Identity, ack: Option<AckId>) {
        let outcome = self.input(|core, now| core.hub.refresh(session, identity, now));
        self.answer(session, ack, "session:refresh", outcome.map_err(|reject| reject.to_json()));
    }

    /// Sends the outcome of a request: as its ack, else as an echo of this name or as `call:error`.
    pub(crate) fn answer(
        &self,
        session: SessionId,
        ack: Option<AckId>,
        name: &'static str,
        outcome: Result<Value, Value>,
    ) {
        let frame = match (ack, outcome) {
            (Some(id), outcome) => Frame::Ack { id, outcome },
            (None, Ok(data)) => Frame::event(name, &echo(data)),
            (None, Err(error)) => Frame::event("call:error", &error),
        };
        self.input(|core, now| {
            let full = core.sessions.get(&session).is_some_and(|open| open.queue.push(frame).is_err());
            if full {
                self.forget_slow(core, session, now);
            }
        });
    }

    /// Carries out a command of REST.
    pub(crate) fn admin(&self, by: &Authority, command: AdminCommand) -> Result<Value, Reject> {
        self.input(|core, now| core.hub.admin(by, command, now))
    }

    /// The record of a call that runs or ended a moment ago.
    pub(crate) fn record(&self, by: &Authority, call: &CallId) -> Result<CallRecord, Reject> {
        self.core.lock().hub.record(by, call)
    }

    /// Takes up what users have missed in an earlier process and do not know of, oldest first.
    pub fn restore_missed(&self, missed: Vec<(UserId, Value)>) {
        self.input(|core, now| core.hub.restore_missed(missed, now));
    }

    /// Takes up the calls of an earlier process; how many run again.
    pub fn restore(&self, records: Vec<CallRecord>) -> usize {
        self.input(|core, now| core.hub.restore(records, now))
    }

    /// Notes what a participant's media has cost the relay.
    pub fn relay_usage(&self, call: &CallId, user: &UserId, usage: RelayUsage) {
        self.input(|core, now| core.hub.relay_usage(call, user, usage, now));
    }

    /// The transport of a session is gone. Does nothing the second time.
    pub(crate) fn close(&self, session: SessionId) {
        self.input(|core, now| {
            if self.forget(core, session).is_some() {
                core.hub.close(session, now);
            }
        });
    }

    /// The transport of a session does not read; it is closed, the participant enters its grace.
    pub(crate) fn close_slow(&self, session: SessionId) {
        self.input(|core, now| self.forget_slow(core, session, now));
    }

    /// Ends a session from this side.
    fn end(&self, session: SessionId, close: Close) {
        self.input(|core, now| {
            if let Some(queue) = self.forget(core, session) {
                core.hub.close(session, now);
                queue.close(close);
            }
        });
    }

    /// The law of the core: one input, then every output, then the timer.
    fn input<T>(&self, input: impl FnOnce(&mut Core, Now) -> T) -> T {
        let now = now();
        let mut core = self.core.lock();
        let result = input(&mut core, now);
        self.flush(&mut core, now);
        let next = core.hub.poll_timeout();
        if next.is_some_and(|next| core.armed.is_none_or(|armed| next < armed)) {
            core.armed = next;
            self.rearm.notify_one();
        }
        result
    }

    fn flush(&self, core: &mut Core, now: Now) {
        while let Some(output) = core.hub.poll_output() {
            match output {
                Output::Deliver { session, event } => self.deliver(core, session, event, now),
                Output::Close { session, close } => {
                    if let Some(queue) = self.forget(core, session) {
                        queue.close(close);
                    }
                }
                Output::Event(event) => (self.sink)(event),
            }
        }
    }

    fn deliver(&self, core: &mut Core, session: SessionId, event: ServerEvent, now: Now) {
        let Some(open) = core.sessions.get(&session) else { return };
        self.metrics.signaling_events.with_label_values(&[event.name, "out"]).inc();
        if open.queue.push(Frame::Event(event)) == Err(Slow) {
            self.forget_slow(core, session, now);
        }
    }

    fn forget(&self, core: &mut Core, session: SessionId) -> Option<Arc<Queue>> {
        let open = core.sessions.remove(&session)?;
        self.metrics.signaling_connections.with_label_values(&[open.transport]).dec();
        Some(open.queue)
    }

    fn forget_slow(&self, core: &mut Core, session: SessionId, now: Now) {
        if let Some(queue) = self.forget(core, session) {
            self.metrics.signaling_slow_consumers.inc();
            queue.abort(Close::Slow);
            core.hub.close(session, now);
        }
    }
}

/// Reads both clocks.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX) }
}
