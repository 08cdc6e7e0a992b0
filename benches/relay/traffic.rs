//! Paced traffic through a relay, and what arrives of it.
#![allow(unsafe_code, reason = "batched calls keep the generator out of its own measurement")]

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use super::client::{CHANNEL, Client};

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From clients to the peer.
    Up,
    /// From the peer to clients.
    Down,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) way: Way,
    /// Bytes of application data.
    pub(crate) size: usize,
    /// Packets that leave back to back on one flow, before the next flow has its turn.
    pub(crate) burst: usize,
    /// Packets a second.
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    /// Microseconds, sorted.
    pub(crate) latencies: Vec<f32>,
}

impl Outcome {
    /// A percentile of the latency in microseconds.
    pub(crate) fn latency(&self, percentile: f64) -> f64 {
        let index = (self.latencies.len() as f64 * percentile / 100.0) as usize;
        self.latencies
            .get(index.min(self.latencies.len().saturating_sub(1)))
            .map_or(0.0, |found| f64::from(*found))
    }
}

/// Datagrams of one receiving call.
const BATCH: usize = 64;
const ROOM: usize = 2048;

/// Receives what there is and looks at its time stamps.
struct Sink {
    buffer: Vec<u8>,
    iovecs: Vec<libc::iovec>,
    slots: Vec<libc::mmsghdr>,
    /// Where the time stamp lies in a datagram.
    offset: usize,
}

impl Sink {
    fn new(offset: usize) -> Self {
        let mut buffer = vec![0; BATCH * ROOM];
        let mut iovecs: Vec<libc::iovec> = buffer
            .chunks_mut(ROOM)
            .map(|chunk| libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: ROOM })
            .collect();
        // SAFETY: a plain C structure for which zero bytes are valid.
        let empty: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let mut slots = vec![empty; BATCH];
        for (slot, iovec) in slots.iter_mut().zip(&mut iovecs) {
            slot.msg_hdr.msg_iov = iovec;
            slot.msg_hdr.msg_iovlen = 1;
        }
        Self { buffer, iovecs, slots, offset }
    }

    fn drain(&mut self, socket: &UdpSocket, start: Instant, outcome: &mut Outcome) {
        loop {
            debug_assert_eq!(self.iovecs.len(), self.slots.len());
            // SAFETY: every slot points to a buffer of this value with its true length.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.slots.as_mut_ptr(),
                    BATCH as _,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                )
            };
            let Ok(count) = usize::try_from(count) else { return };
            let now = start.elapsed().as_nanos() as u64;
            for chunk in self.buffer.chunks(ROOM).take(count) {
                let stamp = chunk[self.offset..self.offset + 8].try_into().map(u64::from_be_bytes).unwrap();
                outcome.latencies.push(now.saturating_sub(stamp) as f32 / 1000.0);
            }
            outcome.delivered += count as u64;
            if count < BATCH {
                return;
            }
        }
    }
}

/// Sends as planned and counts what arrives; `clients` have a channel to `peer`.
pub(crate) fn run(clients: &[Client], peer: &UdpSocket, plan: Plan) -> Outcome {
    // SAFETY: changes how exactly this thread sleeps, nothing else.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000) };
    let header = if plan.way == Way::Up { 4 } else { 0 };
    let mut sink = Sink::new(4 - header);
    let packet = {
        let mut packet = vec![0x55; header + plan.size];
        if plan.way == Way::Up {
            packet[..2].copy_from_slice(&CHANNEL.to_be_bytes());
            packet[2..4].copy_from_slice(&(plan.size as u16).to_be_bytes());
        }
        packet
    };
    let mut burst = packet.repeat(plan.burst);
    let mut outcome = Outcome::default();
    let start = Instant::now();
    let mut flow = 0;
    while start.elapsed().as_secs_f64() < plan.seconds {
        let due = (start.elapsed().as_secs_f64() * plan.rate) as u64;
        while outcome.sent + plan.burst as u64 <= due {
            let stamp = (start.elapsed().as_nanos() as u64).to_be_bytes();
            for datagram in burst.chunks_mut(packet.len()) {
                datagram[header..header + 8].copy_from_slice(&stamp);
            }
            let client = &clients[flow % clients.len()];
            match plan.way {
                Way::Up => send(&client.socket, None, &burst, packet.len()),
                Way::Down => send(peer, Some(client.relayed), &burst, packet.len()),
            }
            outcome.sent += plan.burst as u64;
            flow += 1;
            if outcome.sent % 64 < plan.burst as u64 {
                collect(&mut sink, clients, peer, plan.way, start, &mut outcome);
            }
        }
        collect(&mut sink, clients, peer, plan.way, start, &mut outcome);
        let next = (outcome.sent + plan.burst as u64) as f64 / plan.rate - start.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_secs_f64(next.clamp(0.000_02, 0.001)));
    }
    let end = Instant::now() + Duration::from_millis(200);
    while Instant::now() < end {
        collect(&mut sink, clients, peer, plan.way, start, &mut outcome);
        std::thread::sleep(Duration::from_millis(5));
    }
    outcome.latencies.sort_unstable_by(f32::total_cmp);
    outcome
}

fn collect(
    sink: &mut Sink,
    clients: &[Client],
    peer: &UdpSocket,
    way: Way,
    start: Instant,
    outcome: &mut Outcome,
) {
    match way {
        Way::Up => sink.drain(peer, start, outcome),
        Way::Down => clients.iter().for_each(|client| sink.drain(&client.socket, start, outcome)),
    }
}

/// Sends datagrams of one size back to back.
fn send(socket: &UdpSocket, to: Option<SocketAddr>, bytes: &[u8], size: usize) {
    if bytes.len() == size {
        let _ = match to {
            None => socket.send(bytes),
            Some(to) => socket.send_to(bytes, to),
        };
        return;
    }
    let address = to.map(socket2::SockAddr::from);
    let mut iovec = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    #[repr(C, align(8))]
    struct Control([u8; 24]);
    let mut control = Control([0; 24]);
    // SAFETY: the header points to live buffers with their true lengths, the control buffer has room for one message of
    // two bytes and is aligned for its header.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut iovec;
        header.msg_iovlen = 1;
        if let Some(address) = &address {
            header.msg_name = address.as_ptr().cast_mut().cast();
            header.msg_namelen = address.len();
        }
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(2) as _;
        let head = libc::CMSG_FIRSTHDR(&raw const header);
        (*head).cmsg_level = libc::SOL_UDP;
        (*head).cmsg_type = libc::UDP_SEGMENT;
        (*head).cmsg_len = libc::CMSG_LEN(2) as _;
        libc::CMSG_DATA(head).cast::<u16>().write_unaligned(size as u16);
        libc::sendmsg(socket.as_raw_fd(), &raw const header, 0);
    }
}
