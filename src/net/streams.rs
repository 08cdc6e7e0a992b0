//! The connections of a worker: frames from clients, messages to them, and those that have to go.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use ahash::RandomState;
use mio::{Interest, Registry};
use slab::Slab;

use super::sockets::{Owner, stream_token};
use super::stream::{CHUNK, Connection, Progress, Stream};
use super::worker::{Stake, Worker, to};
use crate::turn::{Direction, DropReason, FiveTuple, Frame, Now, Verdict, first_frame};

/// Chunks one connection may read before the others get their turn.
const CHUNKS_PER_TURN: usize = 8;
/// Bytes a client may send before it has an allocation without completing a message: no request is longer.
const STRANGER_INBOX: usize = 4096;
/// How many times its queue of media a client may let answers pile up before it is closed.
const PATIENCE: usize = 4;

static ZEROS: [u8; 4] = [0; 4];

/// Every connection of a worker.
pub(super) struct Streams {
    slab: Slab<(u64, Stream)>,
    by_client: HashMap<FiveTuple, usize, RandomState>,
    /// When each connection is looked at next, oldest first: all wait equally long.
    deadlines: VecDeque<(Instant, usize, u64)>,
    /// Connections with something to write at the end of the batch.
    dirty: Vec<usize>,
    scratch: Box<[u8; CHUNK]>,
    adopted: u64,
    queue: usize,
    patience: Duration,
}

impl Streams {
    /// No connections yet. `queue`: bytes that wait for a slow client before media is dropped. `patience`: how long a
    /// connection may stay without an allocation.
    pub(super) fn new(queue: usize, patience: Duration) -> Self {
        Self {
            slab: Slab::new(),
            by_client: HashMap::default(),
            deadlines: VecDeque::new(),
            dirty: Vec::new(),
            scratch: Box::new([0; CHUNK]),
            adopted: 0,
            queue,
            patience,
        }
    }

    /// When the connections that have no allocation are looked at.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(at, ..)| *at)
    }

    /// Queues data of a peer for a client; false when it is too slow for it, or gone.
    pub(super) fn relay(&mut self, client: &FiveTuple, prefix: &[u8], payload: &[u8], padding: u8) -> bool {
        let Some(index) = self.by_client.get(client).copied() else { return false };
        let Some((_, stream)) = self.slab.get_mut(index) else { return false };
        if stream.queued() + payload.len() > self.queue {
            return false;
        }
        stream.push([prefix, payload, ZEROS.get(..usize::from(padding)).unwrap_or_default()]);
        self.dirty.push(index);
        true
    }

    fn insert(&mut self, registry: &Registry, mut stream: Stream) -> std::io::Result<usize> {
        let entry = self.slab.vacant_entry();
        let index = entry.key();
        registry.register(stream.socket(), stream_token(index), Interest::READABLE | Interest::WRITABLE)?;
        self.adopted += 1;
        self.by_client.insert(stream.five_tuple, index);
        self.deadlines.push_back((Instant::now() + self.patience, index, self.adopted));
        entry.insert((self.adopted, stream));
        Ok(index)
    }

    fn find_mut(&mut self, index: usize) -> Option<&mut Stream> {
        self.slab.get_mut(index).map(|(_, stream)| stream)
    }

    fn remove(&mut self, index: usize) -> Option<Stream> {
        let (_, stream) = self.slab.try_remove(index)?;
        if self.by_client.get(&stream.five_tuple) == Some(&index) {
            self.by_client.remove(&stream.five_tuple);
        }
        Some(stream)
    }
}

impl Worker {
    /// Takes over a connection and what was read of it.
    pub(super) fn adopt(&mut self, connection: Connection) {
        let five_tuple = connection.five_tuple;
        if let Some(old) = self.streams.by_client.get(&five_tuple).copied() {
            // The client's port was used again before this side saw the old connection end.
            self.close_stream(old, self.now);
        }
        match self.streams.insert(self.poll.registry(), Stream::new(connection)) {
            Ok(index) => {
                self.gauges.connections.with_label_values(&[five_tuple.transport.label()]).inc();
                self.read_frames(index, self.now);
                self.stream_turn(index);
            }
            Err(error) => tracing::warn!(%error, "a connection could not be watched"),
        }
    }

    /// Reads one connection until it is empty or its turn is over, and writes what waits for it.
    pub(super) fn stream_turn(&mut self, index: usize) {
        let now = self.now;
        let mut progress = Progress::More;
        for _ in 0..CHUNKS_PER_TURN {
            let Streams { slab, scratch, .. } = &mut self.streams;
            let Some((_, stream)) = slab.get_mut(index) else { return };
            progress = stream.read(scratch);
            self.streams.dirty.push(index);
            self.read_frames(index, now);
            if progress != Progress::More {
                break;
            }
        }
        self.flush();
        match progress {
            Progress::Closed => self.close_stream(index, now),
            Progress::More => self.unfinished.push(Owner::Stream(index)),
            Progress::Drained => {}
        }
        self.flush_streams(now);
        self.drain_outputs();
    }

    /// Handles every whole message of a connection's inbox.
    fn read_frames(&mut self, index: usize, now: Now) {
        let Some(stream) = self.streams.find_mut(index) else { return };
        let five_tuple = stream.five_tuple;
        let mut inbox = mem::take(&mut stream.inbox);
        let mut at = 0;
        let mut broken = false;
        while let Some(rest) = inbox.get(at..).filter(|rest| !rest.is_empty()) {
            match first_frame(rest) {
                Frame::Whole(length) => {
                    self.frame(index, &five_tuple, rest.get(..length).unwrap_or_default(), now);
                    at += length;
                }
                Frame::Incomplete => break,
                Frame::Invalid => {
                    broken = true;
                    break;
                }
            }
        }
        inbox.drain(..at);
        let Some(stream) = self.streams.find_mut(index) else { return };
        let stranger = stream.admission.is_some();
        if broken || (stranger && inbox.len() > STRANGER_INBOX) {
            self.gauges.refused.with_label_values(&["framing"]).inc();
            self.close_stream(index, now);
            return;
        }
        if inbox.is_empty() && inbox.capacity() > STRANGER_INBOX {
            inbox = Vec::new();
        }
        stream.inbox = inbox;
    }

    fn frame(&mut self, index: usize, from: &FiveTuple, bytes: &[u8], now: Now) {
        let verdict = self.server.on_client(from, bytes, now);
        match self.bound(verdict, now) {
            Verdict::Reply => {
                let Some((_, stream)) = self.streams.slab.get_mut(index) else { return };
                stream.push([self.server.reply(), &[], &[]]);
                if stream.admission.is_some() && self.server.serves(from) {
                    stream.admission = None;
                }
                self.streams.dirty.push(index);
            }
            Verdict::ToPeer { relay, peer, payload, dont_fragment } => {
                let Some(descriptor) = self.sockets.relay(relay) else { return };
                let stake = Stake { direction: Direction::ToPeer, relayed: Some(payload.len()) };
                let mut message = to((descriptor, None), peer);
                message.dont_fragment = dont_fragment;
                self.sender.push(message, bytes.get(payload).unwrap_or_default(), stake);
            }
            Verdict::Drop(_) | Verdict::ToClient { .. } | Verdict::Bind(_) => {}
        }
    }

    /// Writes what the batch has queued for connections; closes those that are broken or do not read.
    pub(super) fn flush_streams(&mut self, now: Now) {
        let mut dirty = mem::take(&mut self.streams.dirty);
        for index in dirty.drain(..) {
            let limit = self.streams.queue.saturating_mul(PATIENCE);
            let Some(stream) = self.streams.find_mut(index) else { continue };
            let broken = stream.flush().is_err();
            if broken || stream.queued() > limit {
                self.server.stats().dropped(Direction::ToClient, DropReason::SendError, u64::from(!broken));
                self.close_stream(index, now);
            }
        }
        self.streams.dirty = dirty;
    }

    /// Closes the connections that have waited long enough without an allocation.
    pub(super) fn close_idle_streams(&mut self, now: Now) {
        while let Some((_, index, id)) = self.streams.deadlines.pop_front_if(|(at, ..)| *at <= now.instant) {
            let Some((found, stream)) = self.streams.slab.get(index) else { continue };
            if *found != id {
                continue;
            }
            if self.server.serves(&stream.five_tuple) {
                self.streams.deadlines.push_back((now.instant + self.streams.patience, index, id));
            } else {
                self.gauges.refused.with_label_values(&["unauthenticated"]).inc();
                self.close_stream(index, now);
            }
        }
        self.drain_outputs();
    }

    /// Ends a connection and the allocation that came over it.
    fn close_stream(&mut self, index: usize, now: Now) {
        if let Some(stream) = self.streams.remove(index) {
            self.gauges.connections.with_label_values(&[stream.five_tuple.transport.label()]).dec();
            self.server.disconnect(&stream.five_tuple, now);
            stream.close();
        }
    }

    /// Ends every connection.
    pub(super) fn close_streams(&mut self, now: Now) {
        let open: Vec<usize> = self.streams.slab.iter().map(|(index, _)| index).collect();
        open.into_iter().for_each(|index| self.close_stream(index, now));
    }
}
