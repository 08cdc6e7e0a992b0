//! The bounded queue between the engine and the transport of a session.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{Histogram, IntGauge};
use serde_json::Value;
use tokio::sync::Notify;

use crate::signaling::{Close, ServerEvent};

/// How far beyond the limit for slow transports a queue may grow before it is closed without patience.
const HARD_FACTOR: usize = 4;

/// How a transport names the request an ack belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AckId {
    /// `id` of a WebSocket frame.
    Text(String),
    /// Ack id of a Socket.IO packet.
    Number(i64),
}

/// One thing to send.
#[derive(Debug)]
pub(crate) enum Frame {
    /// An event of the server.
    Event(ServerEvent),
    /// The outcome of a request: its data, or its error object.
    Ack {
        /// Which request.
        id: AckId,
        /// What came of it.
        outcome: Result<Value, Value>,
    },
}

impl Frame {
    /// An event without a number.
    pub(crate) fn event(name: &'static str, payload: &Value) -> Self {
        Self::Event(ServerEvent { name, seq: None, payload: payload.to_string().into() })
    }

    /// Roughly the bytes of the frame on the wire, without serializing it.
    fn weight(&self) -> usize {
        match self {
            Self::Event(ServerEvent { name, payload, .. }) => 48 + name.len() + payload.len(),
            Self::Ack { outcome: Ok(value) | Err(value), .. } => 64 + weight(value),
        }
    }
}

fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 12,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| weight(item) + 1).sum::<usize>() + 2,
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| name.len() + weight(value) + 4).sum::<usize>() + 2
        }
    }
}

/// How much may wait, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) bytes: usize,
    pub(crate) frames: usize,
    pub(crate) patience: Duration,
}

/// What the transport does next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Send this, then report its weight to [`Queue::sent`].
    Send(Frame, usize),
    /// Everything before is sent: close.
    Close(Close),
}

/// A transport that does not read fast enough; its queue is closed and empty.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slow;

/// The queue of one session. A frame counts as unsent until the transport has handed it to the network.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    ready: Notify,
    pressed: Notify,
    bounds: Bounds,
    gauge: IntGauge,
    delivery: Histogram,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<(Frame, usize)>,
    unsent_frames: usize,
    unsent_bytes: usize,
    over_since: Option<Instant>,
    /// The frame whose time is taken: how many have to leave until it has left, and since when it is here.
    timed: Option<(usize, Instant)>,
    closed: Option<Close>,
}

impl Queue {
    /// Makes a queue that shows its bytes in `gauge`, and in `delivery` how long a frame takes to leave. One frame at a
    /// time is timed.
    pub(crate) fn new(bounds: Bounds, gauge: IntGauge, delivery: Histogram) -> Self {
        Self {
            state: Mutex::default(),
            ready: Notify::new(),
            pressed: Notify::new(),
            bounds,
            gauge,
            delivery,
        }
    }

    /// Adds a frame. After a close nothing is added any more.
    pub(crate) fn push(&self, frame: Frame) -> Result<(), Slow> {
        let weight = frame.weight();
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return Ok(());
        }
        state.frames.push_back((frame, weight));
        state.unsent_frames += 1;
        state.unsent_bytes += weight;
        if state.timed.is_none() {
            state.timed = Some((state.unsent_frames, Instant::now()));
        }
        self.gauge.add(i64::try_from(weight).unwrap_or(i64::MAX));
        let (bytes, frames) = (state.unsent_bytes, state.unsent_frames);
        let beyond = bytes > self.bounds.bytes * HARD_FACTOR || frames > self.bounds.frames * HARD_FACTOR;
        if beyond || state.over_since.is_some_and(|since| since.elapsed() >= self.bounds.patience) {
            self.end(&mut state, Close::Slow);
            return Err(Slow);
        }
        if state.over_since.is_none() && (bytes > self.bounds.bytes || frames > self.bounds.frames) {
            state.over_since = Some(Instant::now());
            self.pressed.notify_one();
        }
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Closes after what is queued; the first close counts.
    pub(crate) fn close(&self, close: Close) {
        let mut state = self.state.lock();
        state.closed.get_or_insert(close);
        drop(state);
        self.ready.notify_one();
    }

    /// Closes at once and drops what is queued.
    pub(crate) fn abort(&self, close: Close) {
        self.end(&mut self.state.lock(), close);
    }

    fn end(&self, state: &mut State, close: Close) {
        state.closed = Some(close);
        state.timed = None;
        let dropped: usize = state.frames.drain(..).map(|(_, weight)| weight).sum();
        self.release(state, dropped);
        self.ready.notify_one();
    }

    fn release(&self, state: &mut State, weight: usize) {
        state.unsent_bytes = state.unsent_bytes.saturating_sub(weight);
        self.gauge.sub(i64::try_from(weight).unwrap_or(i64::MAX));
    }

    /// Waits for the next thing to do. Only the one task that owns the transport calls this.
    pub(crate) async fn next(&self) -> Next {
        loop {
            {
                let mut state = self.state.lock();
                if let Some((frame, weight)) = state.frames.pop_front() {
                    return Next::Send(frame, weight);
                }
                if let Some(close) = state.closed {
                    return Next::Close(close);
                }
            }
            self.ready.notified().await;
        }
    }

    /// The next frame with its weight, if one waits.
    pub(crate) fn take(&self) -> Option<(Frame, usize)> {
        self.state.lock().frames.pop_front()
    }

    /// So many frames of this weight together have left.
    pub(crate) fn sent(&self, frames: usize, weight: usize) {
        let mut state = self.state.lock();
        state.unsent_frames = state.unsent_frames.saturating_sub(frames);
        match &mut state.timed {
            Some((ahead, since)) if *ahead <= frames => {
                self.delivery.observe(since.elapsed().as_secs_f64());
                state.timed = None;
            }
            Some((ahead, _)) => *ahead -= frames,
            None => {}
        }
        self.release(&mut state, weight);
        if state.unsent_bytes <= self.bounds.bytes && state.unsent_frames <= self.bounds.frames {
            state.over_since = None;
        }
    }

    /// Whether more than the bounds has been unsent for longer than a transport is given.
    pub(crate) fn is_overdue(&self) -> bool {
        self.state.lock().over_since.is_some_and(|since| since.elapsed() >= self.bounds.patience)
    }

    /// Waits until [`Queue::is_overdue`].
    pub(crate) async fn overdue(&self) {
        while !self.is_overdue() {
            let since = self.state.lock().over_since;
            match since {
                Some(since) => tokio::time::sleep_until((since + self.bounds.patience).into()).await,
                None => self.pressed.notified().await,
            }
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.gauge.sub(i64::try_from(self.state.get_mut().unsent_bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn queue(patience: Duration) -> Queue {
        let bounds = Bounds { bytes: 10_000, frames: 10, patience };
        let delivery = Histogram::with_opts(prometheus::HistogramOpts::new("delivery", "test")).unwrap();
        Queue::new(bounds, IntGauge::new("unsent", "test").unwrap(), delivery)
    }

    fn event() -> Frame {
        Frame::event("call:ended", &json!({}))
    }

    #[tokio::test]
    async fn frames_leave_in_order_and_a_close_waits_for_them() {
        let queue = queue(Duration::from_secs(10));
        for n in 0..3 {
            queue.push(Frame::event("e", &json!(n))).unwrap();
        }
        queue.close(Close::Restart);
        queue.close(Close::Slow);
        queue.push(event()).unwrap();
        for n in 0..3 {
            let Next::Send(Frame::Event(event), weight) = queue.next().await else { panic!() };
            assert_eq!(*event.payload, *n.to_string());
            queue.sent(1, weight);
        }
        assert!(matches!(queue.next().await, Next::Close(Close::Restart)));
        assert_eq!(queue.gauge.get(), 0);
    }

    #[tokio::test]
    async fn a_queue_over_its_bounds_is_overdue_only_after_its_patience() {
        let patient = queue(Duration::from_secs(3600));
        let hasty = queue(Duration::ZERO);
        for _ in 0..11 {
            patient.push(event()).unwrap();
            hasty.push(event()).unwrap();
        }
        assert!(!patient.is_overdue());
        hasty.overdue().await;
        assert_eq!(hasty.push(event()), Err(Slow));
        assert!(matches!(hasty.next().await, Next::Close(Close::Slow)));
    }

    #[tokio::test]
    async fn a_queue_that_drains_in_time_is_not_slow() {
        let queue = queue(Duration::from_millis(1));
        for _ in 0..11 {
            queue.push(event()).unwrap();
        }
        let Next::Send(_, weight) = queue.next().await else { panic!() };
        queue.sent(1, weight);
        assert!(queue.state.lock().over_since.is_none());
    }

    #[tokio::test]
    async fn one_frame_at_a_time_is_timed_from_push_to_network() {
        let queue = queue(Duration::from_secs(10));
        let count = || queue.delivery.get_sample_count();
        for round in 0..2 {
            (0..3).for_each(|_| queue.push(event()).unwrap());
            let Next::Send(_, weight) = queue.next().await else { panic!() };
            assert_eq!(count(), round, "it has not left yet");
            queue.sent(1, weight);
            assert_eq!(count(), round + 1);
            for _ in 0..2 {
                let Next::Send(_, weight) = queue.next().await else { panic!() };
                queue.sent(1, weight);
            }
            assert_eq!(count(), round + 1);
        }
    }

    #[test]
    fn a_queue_is_bounded_whatever_the_patience() {
        let frames = queue(Duration::from_secs(3600));
        let held = (0..100).take_while(|_| frames.push(event()).is_ok()).count();
        assert_eq!(held, 40);
        let bytes = queue(Duration::from_secs(3600));
        let large = || Frame::event("e", &json!("x".repeat(5_000)));
        let held = (0..100).take_while(|_| bytes.push(large()).is_ok()).count();
        assert_eq!(held, 7);
        assert_eq!((frames.gauge.get(), bytes.gauge.get()), (0, 0));
    }

    #[tokio::test]
    async fn the_gauge_forgets_what_a_dropped_queue_held() {
        let queue = queue(Duration::from_secs(10));
        let gauge = queue.gauge.clone();
        queue.push(event()).unwrap();
        queue.push(event()).unwrap();
        let _in_flight = queue.next().await;
        assert!(gauge.get() > 0);
        drop(queue);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn the_weight_of_a_payload_is_close_to_its_size() {
        let payload = json!({"callId": "c".repeat(32), "signal": {"type": "offer", "sdp": "v=0\r\n".repeat(500)},
            "list": [1, 2, 3, null, true]});
        let (estimated, real) = (weight(&payload), payload.to_string().len());
        assert!(estimated > real / 2 && estimated < real * 2, "{estimated} for {real}");
    }
}
