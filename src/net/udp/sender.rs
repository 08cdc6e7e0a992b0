//! The sending half: everything that follows from a batch is queued, ordered by socket and destination, grouped, and
//! sent with one call a socket.
//!
//! A group is a sequence of datagrams from one socket to one destination, all of one size but for the last, which may
//! be shorter: the kernel gets it as one message and cuts it (UDP_SEGMENT). The order of what is relayed from one socket
//! to one destination never changes; answers of our own go first.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Instant;

use libc::{c_int, iovec};

use super::address::RawAddress;
use super::call::{self, Slot};
use super::control::{Control, Writer};
use super::refusals::Refusals;
use super::socket::set_fragmentation;
use super::{Offload, Receiver};

/// Datagrams of one group: the kernel's own limit.
const GROUP: usize = 64;
/// Bytes of one group: what one IPv4 packet could carry.
const GROUP_BYTES: usize = 65_507;
/// Pending errors that one message may find on its socket before it is given up.
const PENDING: usize = 4;

/// A part of a received run.
#[derive(Debug, Clone)]
pub(in crate::net) struct Payload {
    /// Which run of the batch.
    pub(in crate::net) run: usize,
    /// Which bytes of it.
    pub(in crate::net) range: Range<usize>,
}

/// One datagram to send.
#[derive(Debug, Clone)]
pub(in crate::net) struct Message {
    /// The socket it leaves from.
    pub(in crate::net) socket: RawFd,
    /// Where it goes.
    pub(in crate::net) destination: SocketAddr,
    /// The address it leaves from, where the socket is bound to a wildcard.
    pub(in crate::net) source: Option<IpAddr>,
    /// Received bytes that are sent on, without a copy.
    pub(in crate::net) payload: Option<Payload>,
    /// Zeros behind the payload.
    pub(in crate::net) padding: u8,
    /// DSCP and ECN bits of its IP header.
    pub(in crate::net) traffic_class: u8,
    /// Whether it must not be fragmented.
    pub(in crate::net) dont_fragment: bool,
}

impl Message {
    /// Whether both take the same way, so that one header serves both.
    fn goes_with(&self, other: &Self) -> bool {
        self.socket == other.socket
            && self.destination == other.destination
            && self.source == other.source
            && self.traffic_class == other.traffic_class
            && self.dont_fragment == other.dont_fragment
    }

    /// Sorts what is of our own, answers to requests, before what is relayed; then by socket; then keeps together what
    /// has one destination. Two destinations may share a number; that costs a group, nothing else.
    fn place(&self) -> u64 {
        let ip = match self.destination.ip() {
            IpAddr::V4(ip) => u64::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip) as u64 ^ (u128::from(ip) >> 64) as u64,
        };
        let mixed = (ip ^ u64::from(self.destination.port()) << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        u64::from(self.payload.is_some()) << 63 | u64::from(self.socket as u32) << 32 | mixed >> 32
    }
}

/// A message that could not be sent.
#[derive(Debug)]
pub(in crate::net) struct Unsent {
    /// Its position in the order of [`Sender::push`].
    pub(in crate::net) index: usize,
    /// The error of the system.
    pub(in crate::net) code: c_int,
}

struct Queued {
    message: Message,
    /// In the arena.
    head: Range<usize>,
    length: usize,
    place: u64,
}

/// Messages that leave as one.
struct Group {
    /// In the sending order.
    members: Range<usize>,
    parts: Range<usize>,
    /// Bytes of each but the last.
    size: usize,
    bytes: usize,
    /// Whether another one may follow: none has been shorter.
    open: bool,
}

/// Collects the messages that a batch of datagrams leads to, then sends them.
pub(in crate::net) struct Sender {
    offload: Offload,
    refusals: Refusals,
    /// Bytes of our own: answers, ChannelData headers, indications.
    arena: Vec<u8>,
    queue: Vec<Queued>,
    /// Whether the queue holds more than one socket and destination.
    mixed: bool,
    order: Vec<usize>,
    groups: Vec<Group>,
    parts: Vec<iovec>,
    addresses: Vec<RawAddress>,
    controls: Vec<Control>,
    slots: Vec<Slot>,
}

// SAFETY: the pointers inside are made anew by each flush and lead to buffers that live during it.
unsafe impl Send for Sender {}

static ZEROS: [u8; 4] = [0; 4];

impl Sender {
    pub(in crate::net) fn new(offload: Offload) -> Self {
        Self {
            offload,
            refusals: Refusals::new(),
            arena: Vec::new(),
            queue: Vec::new(),
            mixed: false,
            order: Vec::new(),
            groups: Vec::new(),
            parts: Vec::new(),
            addresses: Vec::new(),
            controls: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// Queues a message; `head` goes before its payload.
    pub(in crate::net) fn push(&mut self, message: Message, head: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(head);
        let payload = message.payload.as_ref().map_or(0, |payload| payload.range.len());
        let place = message.place();
        self.mixed |= self.queue.last().is_some_and(|last| last.place != place);
        self.queue.push(Queued {
            length: head.len() + payload + usize::from(message.padding),
            head: start..self.arena.len(),
            place,
            message,
        });
    }

    /// Sends everything that was queued and reports what could not be sent.
    pub(in crate::net) fn flush(
        &mut self,
        received: &Receiver,
        now: Instant,
        mut report: impl FnMut(Unsent),
    ) {
        if self.queue.is_empty() {
            return;
        }
        self.order.clear();
        self.order.extend(0..self.queue.len());
        if self.mixed {
            let queue = &self.queue;
            self.order.sort_unstable_by_key(|index| (queue.get(*index).map(|queued| queued.place), *index));
        }
        self.plan(received, now);
        self.lay_out();
        self.transmit(now, &mut report);
        self.arena.clear();
        self.queue.clear();
        self.mixed = false;
    }

    fn queued(&self, position: usize) -> Option<&Queued> {
        self.queue.get(*self.order.get(position)?)
    }

    /// Puts the messages into groups.
    fn plan(&mut self, received: &Receiver, now: Instant) {
        let Self { offload, refusals, arena, queue, order, groups, parts, .. } = self;
        groups.clear();
        parts.clear();
        let mut first: Option<&Queued> = None;
        for (position, queued) in order.iter().filter_map(|index| queue.get(*index)).enumerate() {
            let start = parts.len();
            let head = arena.get(queued.head.clone()).unwrap_or_default();
            let payload = queued.message.payload.as_ref().map_or(&[][..], |part| received.payload(part));
            let zeros = ZEROS.get(..usize::from(queued.message.padding)).unwrap_or_default();
            for bytes in [head, payload, zeros].into_iter().filter(|bytes| !bytes.is_empty()) {
                parts.push(iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
            }
            if let (Offload::Segmentation, Some(group), Some(first)) = (*offload, groups.last_mut(), first)
                && group.open
                && queued.length <= group.size
                && queued.length > 0
                && group.members.len() < GROUP
                && group.bytes + queued.length <= GROUP_BYTES
                && queued.message.goes_with(&first.message)
                && (group.members.len() > 1
                    || refusals.allow(queued.message.destination.ip(), group.size, now))
            {
                group.members.end = position + 1;
                group.parts.end = parts.len();
                group.bytes += queued.length;
                group.open = queued.length == group.size;
                continue;
            }
            first = Some(queued);
            groups.push(Group {
                members: position..position + 1,
                parts: start..parts.len(),
                size: queued.length,
                bytes: queued.length,
                open: true,
            });
        }
    }

    /// Makes a header for each group.
    fn lay_out(&mut self) {
        let Self { queue, order, groups, parts, addresses, controls, slots, .. } = self;
        addresses.resize(groups.len().max(addresses.len()), RawAddress::empty());
        controls.resize(groups.len().max(controls.len()), Control::EMPTY);
        slots.clear();
        let room = addresses.iter_mut().zip(controls.iter_mut());
        for (group, (address, control)) in groups.iter().zip(room) {
            let first = order.get(group.members.start).and_then(|index| queue.get(*index));
            let Some(Queued { message, .. }) = first else { continue };
            let mut slot = call::empty();
            let (raw, length) = RawAddress::write(message.destination);
            *address = raw;
            slot.msg_hdr.msg_name = (&raw mut *address).cast();
            slot.msg_hdr.msg_namelen = length;
            let iovecs = parts.get_mut(group.parts.clone()).unwrap_or_default();
            slot.msg_hdr.msg_iov = iovecs.as_mut_ptr();
            slot.msg_hdr.msg_iovlen = iovecs.len() as _;
            let segment = (group.members.len() > 1).then_some(group.size as u16);
            attach(&mut slot, control, message, segment);
            slots.push(slot);
        }
    }

    fn transmit(&mut self, now: Instant, report: &mut impl FnMut(Unsent)) {
        let mut start = 0;
        while let Some(first) = self.groups.get(start).and_then(|group| self.queued(group.members.start)) {
            let (socket, dont_fragment) = (first.message.socket, first.message.dont_fragment);
            let ipv6 = first.message.destination.is_ipv6();
            let alike = |group: &&Group| {
                self.queued(group.members.start).is_some_and(|queued| {
                    queued.message.socket == socket && queued.message.dont_fragment == dont_fragment
                })
            };
            let end = start + self.groups.iter().skip(start).take_while(alike).count();
            if dont_fragment {
                // SAFETY: the socket is open: its owner queued the message in this turn.
                let borrowed = unsafe { BorrowedFd::borrow_raw(socket) };
                let _ = set_fragmentation(&borrowed, ipv6, false);
                self.send_groups(socket, start..end, now, report);
                let _ = set_fragmentation(&borrowed, ipv6, true);
            } else {
                self.send_groups(socket, start..end, now, report);
            }
            start = end;
        }
    }

    /// Sends groups of one socket. One that fails does not hold up those behind it.
    fn send_groups(
        &mut self,
        socket: RawFd,
        groups: Range<usize>,
        now: Instant,
        report: &mut impl FnMut(Unsent),
    ) {
        let mut at = groups.start;
        let mut pending = 0;
        while let Some(slots) = self.slots.get_mut(at..groups.end).filter(|slots| !slots.is_empty()) {
            // SAFETY: `lay_out` made every header point to live buffers with their true lengths.
            let error = match unsafe { call::send(socket, slots, self.offload) } {
                Ok(sent @ 1..) => {
                    at += sent;
                    pending = 0;
                    continue;
                }
                Ok(0) => 0,
                Err(error) => error.raw_os_error().unwrap_or(0),
            };
            if is_pending(error) && pending < PENDING {
                // It is about a datagram sent before, and reading it has cleared it.
                pending += 1;
                continue;
            }
            pending = 0;
            self.failed(at, error, now, report);
            at += 1;
        }
    }

    /// Sends the members of a group one by one when the kernel does not take it as a whole, else gives it up.
    fn failed(&mut self, index: usize, error: c_int, now: Instant, report: &mut impl FnMut(Unsent)) {
        let Some(group) = self.groups.get(index) else { return };
        let Some(slot) = self.slots.get(index).copied() else { return };
        if group.members.len() == 1 || !refuses_group(error) {
            for index in self.order.get(group.members.clone()).unwrap_or_default() {
                report(Unsent { index: *index, code: error });
            }
            return;
        }
        // Too large for the route is a matter of size, everything else one of the route itself.
        let size = matches!(error, libc::EMSGSIZE | libc::EINVAL).then_some(group.size);
        let mut parts = group.parts.start;
        for position in group.members.clone() {
            let Some(queued) = self.queued(position) else { return };
            let mut control = Control::EMPTY;
            let mut single = slot;
            let mut length = 0;
            let start = parts;
            while let Some(part) = self.parts.get(parts).filter(|_| length < queued.length) {
                length += part.iov_len;
                parts += 1;
            }
            let iovecs = self.parts.get(start..parts).unwrap_or_default();
            single.msg_hdr.msg_iov = iovecs.as_ptr().cast_mut();
            single.msg_hdr.msg_iovlen = iovecs.len() as _;
            attach(&mut single, &mut control, &queued.message, None);
            if let Err(code) = send_single(queued.message.socket, &mut single, self.offload)
                && let Some(index) = self.order.get(position)
            {
                report(Unsent { index: *index, code });
            }
        }
        let destination = self.queued(group.members.start).map(|queued| queued.message.destination.ip());
        if let Some(destination) = destination {
            self.refusals.remember(destination, size, now);
        }
    }
}

/// Sends one message, past the pending errors of its socket.
fn send_single(socket: RawFd, slot: &mut Slot, offload: Offload) -> Result<(), c_int> {
    let mut last = 0;
    for _ in 0..=PENDING {
        // SAFETY: the caller made the header point to live buffers with their true lengths.
        match unsafe { call::send(socket, std::slice::from_mut(slot), offload) } {
            Ok(_) => return Ok(()),
            Err(error) => last = error.raw_os_error().unwrap_or(0),
        }
        if !is_pending(last) {
            break;
        }
    }
    Err(last)
}

/// Attaches what a message needs beside its destination and its bytes.
fn attach(slot: &mut Slot, control: &mut Control, message: &Message, segment: Option<u16>) {
    let mut writer = Writer::new(control);
    if let Some(source) = message.source {
        writer.source(source);
    }
    if message.traffic_class != 0 {
        writer.traffic_class(message.traffic_class, message.destination.is_ipv6());
    }
    #[cfg(target_os = "linux")]
    if let Some(size) = segment {
        writer.segment(size);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = segment;
    let length = writer.length();
    slot.msg_hdr.msg_control = if length == 0 { std::ptr::null_mut() } else { (&raw mut *control).cast() };
    slot.msg_hdr.msg_controllen = length as _;
}

/// Errors by which the kernel says that it does not cut a group: no checksum offload on the route, an IPsec policy, or
/// datagrams that would have to be fragmented.
const fn refuses_group(error: c_int) -> bool {
    matches!(error, libc::EIO | libc::EINVAL | libc::EOPNOTSUPP | libc::EMSGSIZE)
}

/// Errors that a socket keeps from a datagram sent before: the next call reports them instead of sending.
const fn is_pending(error: c_int) -> bool {
    matches!(
        error,
        libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENOPROTOOPT
            | libc::EPROTO
            | libc::EACCES
            | libc::EMSGSIZE
    )
}
