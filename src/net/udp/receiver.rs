//! The receiving half: a batch of runs from one socket after the other, in buffers that belong to the worker.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::RawFd;

use libc::iovec;

use super::Offload;
use super::address::RawAddress;
use super::call::{self, Slot};
use super::control::{self, Control, ROOM};
use super::sender::Payload;

/// Runs of one batch.
const BATCH: usize = 64;
/// The longest run that the kernel gives out.
const LONGEST: usize = 65_536;
/// From one buffer to the next. The odd lines beyond the longest run keep the beginnings of all buffers from falling
/// into the same few sets of the caches.
const PITCH: usize = LONGEST + 5 * 64;

/// Datagrams of one source that arrived together, in the receiver's buffer until the next batch. All are `stride` bytes
/// long but for the last, which may be shorter.
#[derive(Debug)]
pub(in crate::net) struct Run<'a> {
    /// Its source.
    pub(in crate::net) source: SocketAddr,
    /// Where it was sent to; known on wildcard sockets.
    pub(in crate::net) destination: Option<IpAddr>,
    /// DSCP and ECN bits of its IP header.
    pub(in crate::net) traffic_class: u8,
    /// Datagrams its socket has lost so far for lack of buffer space, where the kernel says so.
    pub(in crate::net) overflow: Option<u32>,
    bytes: &'a [u8],
    stride: usize,
}

impl Run<'_> {
    /// How many datagrams it holds.
    pub(in crate::net) fn len(&self) -> usize {
        self.bytes.len().div_ceil(self.stride).max(1)
    }

    /// Where a datagram lies in the run.
    pub(in crate::net) fn range(&self, index: usize) -> Range<usize> {
        let start = (index * self.stride).min(self.bytes.len());
        start..(start + self.stride).min(self.bytes.len())
    }

    /// A datagram.
    pub(in crate::net) fn datagram(&self, index: usize) -> &[u8] {
        self.bytes.get(self.range(index)).unwrap_or_default()
    }
}

/// Receives batches.
pub(in crate::net) struct Receiver {
    offload: Offload,
    buffer: Box<[u8]>,
    addresses: Box<[RawAddress]>,
    /// Pointed to by the slots.
    _controls: Box<[Control]>,
    /// Pointed to by the slots.
    _iovecs: Box<[iovec]>,
    slots: Box<[Slot]>,
    filled: usize,
    /// Slots that any batch has filled.
    written: usize,
}

// SAFETY: the pointers inside lead to buffers that the same value owns on the heap.
unsafe impl Send for Receiver {}

impl Receiver {
    pub(in crate::net) fn new(offload: Offload) -> Self {
        let mut buffer: Box<[u8]> = vec![0; BATCH * PITCH].into();
        let mut addresses: Box<[RawAddress]> = vec![RawAddress::empty(); BATCH].into();
        let mut controls: Box<[Control]> = vec![Control::EMPTY; BATCH].into();
        let pointer = |bytes: &mut [u8]| iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: LONGEST };
        let mut iovecs: Box<[iovec]> = buffer.chunks_exact_mut(PITCH).map(pointer).collect();
        let parts = addresses.iter_mut().zip(controls.iter_mut()).zip(iovecs.iter_mut());
        let slot = |((address, control), iovec): ((&mut RawAddress, &mut Control), &mut iovec)| {
            let mut slot = call::empty();
            slot.msg_hdr.msg_iov = iovec;
            slot.msg_hdr.msg_iovlen = 1;
            slot.msg_hdr.msg_name = (&raw mut *address).cast();
            slot.msg_hdr.msg_control = (&raw mut *control).cast();
            prepare(&mut slot);
            slot
        };
        let slots = parts.map(slot).collect();
        Self {
            offload,
            buffer,
            addresses,
            _controls: controls,
            _iovecs: iovecs,
            slots,
            filled: 0,
            written: 0,
        }
    }

    /// Begins a new batch.
    pub(in crate::net) const fn clear(&mut self) {
        self.filled = 0;
    }

    /// Runs that still fit into the batch.
    pub(in crate::net) const fn room(&self) -> usize {
        BATCH - self.filled
    }

    /// Appends what a socket has to the batch, at most `limit` runs; gives their number. Fewer than asked for means
    /// that the socket is empty, and so does `WouldBlock`.
    pub(in crate::net) fn receive(&mut self, socket: RawFd, limit: usize) -> io::Result<usize> {
        let end = self.filled.saturating_add(limit).min(BATCH);
        // Only what the kernel has written to is made ready again.
        for slot in self.slots.get_mut(self.filled..end.min(self.written)).unwrap_or_default() {
            prepare(slot);
        }
        let slots = self.slots.get_mut(self.filled..end).unwrap_or_default();
        // SAFETY: every slot points to buffers of this value, each with its true length, that nobody else borrows.
        let count = unsafe { call::receive(socket, slots, self.offload) }?;
        self.filled += count;
        self.written = self.written.max(self.filled);
        Ok(count)
    }

    /// A run of the batch; `None` when its source is no IP address or it was cut.
    pub(in crate::net) fn run(&self, index: usize) -> Option<Run<'_>> {
        let slot = self.slots.get(..self.filled)?.get(index)?;
        if slot.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let start = index * PITCH;
        let bytes = self.buffer.get(start..start + slot.msg_len as usize)?;
        let source = self.addresses.get(index)?.read()?;
        let found = control::information(&slot.msg_hdr);
        Some(Run {
            source,
            destination: found.destination,
            traffic_class: found.traffic_class,
            overflow: found.overflow,
            bytes,
            stride: found.stride.unwrap_or(bytes.len()).max(1),
        })
    }

    /// The bytes of a payload that is sent on.
    pub(super) fn payload(&self, payload: &Payload) -> &[u8] {
        let start = payload.run * PITCH;
        self.buffer.get(start + payload.range.start..start + payload.range.end).unwrap_or_default()
    }
}

/// Makes a slot ready for the kernel: the lengths are its own answer of the time before.
fn prepare(slot: &mut Slot) {
    slot.msg_hdr.msg_namelen = RawAddress::SIZE;
    slot.msg_hdr.msg_controllen = ROOM as _;
    slot.msg_hdr.msg_flags = 0;
}
