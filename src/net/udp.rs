//! Datagrams in batches: `recvmmsg` and `sendmmsg` with the control messages the relay needs. The only place that knows
//! how packets enter and leave the kernel, and the only one with unsafe code.
#![allow(unsafe_code, reason = "the batched socket calls have no safe wrapper")]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, RawFd};

use libc::{c_int, c_void, cmsghdr, iovec, mmsghdr, msghdr, sockaddr_storage, socklen_t};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Datagrams of one system call.
pub(super) const BATCH: usize = 32;
/// Room for one datagram: the largest that UDP can carry.
const DATAGRAM: usize = 65_536;
/// Room for the control messages of one datagram: packet information and the overflow counter.
const CONTROL: usize = 96;

/// How a UDP socket is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// SO_RCVBUF in bytes, forced beyond the system's limit where allowed.
    pub(super) receive_buffer: usize,
    /// Whether other workers bind the same address.
    pub(super) reuse_port: bool,
}

/// Binds a nonblocking UDP socket that reports where datagrams were sent to and how many were lost.
pub(super) fn bind(address: SocketAddr, options: Options) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    set_receive_buffer(&socket, options.receive_buffer);
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
            SocketAddr::V6(_) => set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
        }
    }
    set_fragmentation(&socket, address.is_ipv6(), true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn set_receive_buffer(socket: &Socket, bytes: usize) {
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    // Without CAP_NET_ADMIN the kernel caps what is asked for: that is the operator's sysctl, not an error.
    if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        let _ = set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
    }
}

/// Lets the kernel fragment what leaves a socket, or forbids it (DONT-FRAGMENT, RFC 8656 section 15).
fn set_fragmentation(socket: &impl std::os::fd::AsFd, ipv6: bool, allowed: bool) -> io::Result<()> {
    let (level, name) = if ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
    };
    let value = if allowed { libc::IP_PMTUDISC_DONT } else { libc::IP_PMTUDISC_DO };
    set_option(&SockRef::from(socket), level, name, value)
}

fn set_option(socket: &Socket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as socklen_t;
    // SAFETY: the value outlives the call and its size is given.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast::<c_void>(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Control messages have to be aligned like their header.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// What a control message of a received datagram says.
#[derive(Debug, Clone, Copy, Default)]
struct Information {
    destination: Option<IpAddr>,
    overflow: Option<u32>,
}

/// A received datagram, in the receiver's buffer until the next [`Receiver::receive`].
#[derive(Debug)]
pub(super) struct Datagram<'a> {
    /// Its source.
    pub(super) source: SocketAddr,
    /// Where it was sent to; known on wildcard sockets.
    pub(super) destination: Option<IpAddr>,
    /// Its payload.
    pub(super) bytes: &'a [u8],
    /// Datagrams this socket has lost so far for lack of buffer space, where the kernel says so.
    pub(super) overflow: Option<u32>,
}

/// Receives a batch into buffers of its own.
pub(super) struct Receiver {
    buffer: Box<[u8]>,
    addresses: Box<[sockaddr_storage]>,
    controls: Box<[Control]>,
    iovecs: Box<[iovec]>,
    messages: Box<[mmsghdr]>,
}

// SAFETY: the pointers inside lead to buffers that the same value owns on the heap.
unsafe impl Send for Receiver {}

impl Receiver {
    pub(super) fn new() -> Self {
        // SAFETY: all of these are plain C structures for which zero bytes are valid.
        let (address, iovec, message): (sockaddr_storage, iovec, mmsghdr) = unsafe { mem::zeroed() };
        let mut receiver = Self {
            buffer: vec![0; BATCH * DATAGRAM].into(),
            addresses: vec![address; BATCH].into(),
            controls: vec![Control([0; CONTROL]); BATCH].into(),
            iovecs: vec![iovec; BATCH].into(),
            messages: vec![message; BATCH].into(),
        };
        let parts = receiver
            .buffer
            .chunks_exact_mut(DATAGRAM)
            .zip(receiver.addresses.iter_mut())
            .zip(receiver.controls.iter_mut().zip(receiver.iovecs.iter_mut()));
        for (message, ((buffer, address), (control, iovec))) in receiver.messages.iter_mut().zip(parts) {
            iovec.iov_base = buffer.as_mut_ptr().cast();
            iovec.iov_len = DATAGRAM;
            message.msg_hdr.msg_iov = iovec;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_name = (&raw mut *address).cast();
            message.msg_hdr.msg_control = (&raw mut *control).cast();
        }
        receiver
    }

    /// Receives what is there, at most [`BATCH`] datagrams. `WouldBlock` when there is none.
    pub(super) fn receive(&mut self, socket: RawFd) -> io::Result<usize> {
        for message in &mut self.messages {
            message.msg_hdr.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            message.msg_hdr.msg_controllen = CONTROL as _;
            message.msg_hdr.msg_flags = 0;
        }
        loop {
            // SAFETY: every header points to buffers of this value with their true lengths.
            let count = unsafe {
                libc::recvmmsg(
                    socket,
                    self.messages.as_mut_ptr(),
                    BATCH as _,
                    libc::MSG_DONTWAIT as _,
                    std::ptr::null_mut(),
                )
            };
            match usize::try_from(count) {
                Ok(count) => return Ok(count),
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }

    /// A datagram of the last batch; `None` when its source is no IP address or it was cut.
    pub(super) fn datagram(&self, index: usize) -> Option<Datagram<'_>> {
        let message = self.messages.get(index)?;
        if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let start = index * DATAGRAM;
        let bytes = self.buffer.get(start..start + message.msg_len as usize)?;
        let source = to_address(self.addresses.get(index)?)?;
        let Information { destination, overflow } = information(&message.msg_hdr);
        Some(Datagram { source, destination, bytes, overflow })
    }

    fn pointer(&self, payload: &Payload) -> iovec {
        let bytes =
            self.buffer.get(payload.datagram * DATAGRAM..).and_then(|bytes| bytes.get(payload.range.clone()));
        let bytes = bytes.unwrap_or_default();
        iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
    }
}

/// Reads the control messages of a received datagram.
fn information(header: &msghdr) -> Information {
    let mut information = Information::default();
    // SAFETY: the kernel has filled the control buffer and set its length; the macros stay inside it, and each value
    // is read unaligned from a message of its type.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = at.as_ref() {
            let data = libc::CMSG_DATA(at);
            match (head.cmsg_level, head.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let found = data.cast::<libc::in_pktinfo>().read_unaligned();
                    let ip = Ipv4Addr::from(u32::from_be(found.ipi_addr.s_addr));
                    information.destination = Some(ip.into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let found = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    information.destination = Some(Ipv6Addr::from(found.ipi6_addr.s6_addr).into());
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    information.overflow = Some(data.cast::<u32>().read_unaligned());
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    information
}

/// A part of a received datagram.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    /// Which one of the batch.
    pub(super) datagram: usize,
    /// Which bytes of it.
    pub(super) range: Range<usize>,
}

/// One datagram to send.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// The socket it leaves from.
    pub(super) socket: RawFd,
    /// Where it goes.
    pub(super) destination: SocketAddr,
    /// The address it leaves from, where the socket is bound to a wildcard.
    pub(super) source: Option<IpAddr>,
    /// Received bytes that are sent on, without a copy.
    pub(super) payload: Option<Payload>,
    /// Zeros behind the payload.
    pub(super) padding: u8,
    /// Whether it must not be fragmented.
    pub(super) dont_fragment: bool,
}

/// A message that could not be sent.
#[derive(Debug)]
pub(super) struct Unsent {
    /// Its position in the order of [`Sender::push`].
    pub(super) index: usize,
    /// Why.
    pub(super) error: io::Error,
}

/// Collects the messages that a batch of datagrams leads to, then sends them with as few calls as sockets.
pub(super) struct Sender {
    /// Bytes of our own: answers, ChannelData headers, indications.
    arena: Vec<u8>,
    queue: Vec<(Message, Range<usize>)>,
    order: Vec<usize>,
    addresses: Vec<(sockaddr_storage, socklen_t)>,
    controls: Vec<(Control, usize)>,
    iovecs: Vec<[iovec; 3]>,
    messages: Vec<mmsghdr>,
}

// SAFETY: the pointers inside are made anew by each flush and lead to buffers the caller keeps alive during it.
unsafe impl Send for Sender {}

static ZEROS: [u8; 4] = [0; 4];

impl Sender {
    pub(super) const fn new() -> Self {
        Self {
            arena: Vec::new(),
            queue: Vec::new(),
            order: Vec::new(),
            addresses: Vec::new(),
            controls: Vec::new(),
            iovecs: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// Queues a message; `head` goes before its payload.
    pub(super) fn push(&mut self, message: Message, head: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(head);
        self.queue.push((message, start..self.arena.len()));
    }

    /// Sends everything that was queued, socket by socket and in order, and reports what could not be sent.
    pub(super) fn flush(&mut self, received: &Receiver, mut report: impl FnMut(Unsent)) {
        if self.queue.is_empty() {
            return;
        }
        self.prepare(received);
        let mut start = 0;
        while let Some((first, _)) = self.order.get(start).and_then(|index| self.queue.get(*index)) {
            let (socket, dont_fragment) = (first.socket, first.dont_fragment);
            let ipv6 = first.destination.is_ipv6();
            let alike = |index: &&usize| {
                self.queue.get(**index).is_some_and(|(message, _)| {
                    message.socket == socket && message.dont_fragment == dont_fragment
                })
            };
            let length = self.order.iter().skip(start).take_while(alike).count();
            if dont_fragment {
                // SAFETY: the socket is open: its owner queued the message in this turn.
                let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(socket) };
                let _ = set_fragmentation(&borrowed, ipv6, false);
                self.send_run(socket, start..start + length, &mut report);
                let _ = set_fragmentation(&borrowed, ipv6, true);
            } else {
                self.send_run(socket, start..start + length, &mut report);
            }
            start += length;
        }
        self.arena.clear();
        self.queue.clear();
    }

    /// Lays out the headers of every queued message, grouped by socket without changing the order within one.
    fn prepare(&mut self, received: &Receiver) {
        let Self { arena, queue, order, addresses, controls, iovecs, messages } = self;
        order.clear();
        order.extend(0..queue.len());
        order.sort_by_key(|index| queue.get(*index).map(|(message, _)| message.socket));
        addresses.clear();
        controls.clear();
        iovecs.clear();
        messages.clear();
        let ordered = || order.iter().filter_map(|index| queue.get(*index));
        for (message, head) in ordered() {
            addresses.push(from_address(message.destination));
            controls.push(control(message.source));
            let head = arena.get(head.clone()).unwrap_or_default();
            let zeros = ZEROS.get(..usize::from(message.padding)).unwrap_or_default();
            let own =
                |bytes: &[u8]| iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let payload =
                message.payload.as_ref().map_or_else(|| own(&[]), |payload| received.pointer(payload));
            iovecs.push([own(head), payload, own(zeros)]);
        }
        let parts = addresses.iter_mut().zip(controls.iter_mut().zip(iovecs.iter_mut()));
        for ((address, address_length), ((control, control_length), iovecs)) in parts {
            // SAFETY: a plain C structure for which zero bytes are valid.
            let mut message: mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_name = (&raw mut *address).cast();
            message.msg_hdr.msg_namelen = *address_length;
            message.msg_hdr.msg_iov = iovecs.as_mut_ptr();
            message.msg_hdr.msg_iovlen = iovecs.len();
            if *control_length > 0 {
                message.msg_hdr.msg_control = (&raw mut *control).cast();
                message.msg_hdr.msg_controllen = *control_length as _;
            }
            messages.push(message);
        }
    }

    /// Sends a run of messages of one socket. One that fails does not hold up those behind it.
    fn send_run(&mut self, socket: RawFd, run: Range<usize>, report: &mut impl FnMut(Unsent)) {
        let Range { mut start, end } = run;
        while let Some(messages) = self.messages.get_mut(start..end).filter(|messages| !messages.is_empty()) {
            // SAFETY: `prepare` made every header point to live buffers with their true lengths.
            let sent = unsafe {
                libc::sendmmsg(socket, messages.as_mut_ptr(), messages.len() as _, libc::MSG_DONTWAIT as _)
            };
            if let Ok(sent @ 1..) = usize::try_from(sent) {
                start += sent;
                continue;
            }
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            if let Some(index) = self.order.get(start) {
                report(Unsent { index: *index, error });
            }
            start += 1;
        }
    }
}

/// The control message that sets the source address, and its length.
fn control(source: Option<IpAddr>) -> (Control, usize) {
    let mut control = Control([0; CONTROL]);
    let length = match source {
        None => 0,
        Some(IpAddr::V4(ip)) => {
            let value = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(ip).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            write_control(&mut control, libc::IPPROTO_IP, libc::IP_PKTINFO, value)
        }
        Some(IpAddr::V6(ip)) => {
            let address = libc::in6_addr { s6_addr: ip.octets() };
            let value = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 };
            write_control(&mut control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, value)
        }
    };
    (control, length)
}

fn write_control<T>(control: &mut Control, level: c_int, kind: c_int, value: T) -> usize {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: the buffer is aligned for a header and has room for one message of this size (at most 20 bytes).
    unsafe {
        let head = control.0.as_mut_ptr().cast::<cmsghdr>();
        (*head).cmsg_len = libc::CMSG_LEN(size) as _;
        (*head).cmsg_level = level;
        (*head).cmsg_type = kind;
        libc::CMSG_DATA(head).cast::<T>().write_unaligned(value);
        libc::CMSG_SPACE(size) as usize
    }
}

fn to_address(storage: &sockaddr_storage) -> Option<SocketAddr> {
    let pointer = &raw const *storage;
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure the storage holds.
            let found = unsafe { pointer.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(found.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let found = unsafe { pointer.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(found.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(found.sin6_port), 0, found.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn from_address(address: SocketAddr) -> (sockaddr_storage, socklen_t) {
    let mut storage = MaybeUninit::<sockaddr_storage>::zeroed();
    let pointer = storage.as_mut_ptr();
    let length = match address {
        SocketAddr::V4(address) => {
            let value = libc::sockaddr_in {
                sin_family: libc::AF_INET as _,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is larger than and aligned for every socket address.
            unsafe { pointer.cast::<libc::sockaddr_in>().write(value) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            let value = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as _,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { pointer.cast::<libc::sockaddr_in6>().write(value) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    // SAFETY: zero bytes are valid for the storage, and the address is written over them.
    (unsafe { storage.assume_init() }, length as socklen_t)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const OPTIONS: Options = Options { receive_buffer: 1 << 20, reuse_port: false };

    fn receive(receiver: &mut Receiver, socket: &std::net::UdpSocket) -> usize {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match receiver.receive(socket.as_raw_fd()) {
                Ok(count) => return count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn plain(socket: &std::net::UdpSocket, destination: SocketAddr) -> Message {
        let socket = socket.as_raw_fd();
        Message { socket, destination, source: None, payload: None, padding: 0, dont_fragment: false }
    }

    #[test]
    fn datagrams_of_every_size_arrive_whole_and_in_order() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let [from, to] = [(); 2].map(|()| bind(local.parse().unwrap(), OPTIONS).unwrap());
            let mut sender = Sender::new();
            let mut receiver = Receiver::new();
            for sizes in [[0, 1, 1472, 1500], [9000, 3, 2, 65_507]] {
                let bodies: Vec<Vec<u8>> = sizes.iter().map(|size| vec![*size as u8; *size]).collect();
                bodies.iter().for_each(|body| sender.push(plain(&from, to.local_addr().unwrap()), body));
                sender.flush(&receiver, |unsent| panic!("{unsent:?}"));
                let mut seen: Vec<Vec<u8>> = Vec::new();
                while seen.len() < bodies.len() {
                    let count = receive(&mut receiver, &to);
                    seen.extend((0..count).map(|index| {
                        let datagram = receiver.datagram(index).unwrap();
                        assert_eq!(datagram.source, from.local_addr().unwrap());
                        datagram.bytes.to_vec()
                    }));
                }
                assert_eq!(seen, bodies);
            }
        }
    }

    #[test]
    fn a_wildcard_socket_tells_the_destination_and_answers_from_it() {
        for (wildcard, own) in [("0.0.0.0:0", "127.0.0.3"), ("[::]:0", "::1")] {
            let server = bind(wildcard.parse().unwrap(), OPTIONS).unwrap();
            let own: IpAddr = own.parse().unwrap();
            let client =
                std::net::UdpSocket::bind((if own.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
            let server_address = SocketAddr::new(own, server.local_addr().unwrap().port());
            client.send_to(b"ping", server_address).unwrap();
            let mut receiver = Receiver::new();
            assert_eq!(receive(&mut receiver, &server), 1);
            let datagram = receiver.datagram(0).unwrap();
            assert_eq!((datagram.destination, datagram.bytes), (Some(own), b"ping".as_slice()));

            let mut sender = Sender::new();
            let payload = Some(Payload { datagram: 0, range: 1..4 });
            let source = datagram.destination;
            sender.push(Message { source, payload, padding: 1, ..plain(&server, datagram.source) }, b"<");
            sender.flush(&receiver, |unsent| panic!("{unsent:?}"));
            let mut answer = [0; 16];
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (length, from) = client.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..length], from), (b"<ing\0".as_slice(), server_address));
        }
    }

    #[test]
    fn one_message_that_cannot_be_sent_does_not_hold_up_the_others() {
        let [from, to] = [(); 2].map(|()| bind("127.0.0.1:0".parse().unwrap(), OPTIONS).unwrap());
        let (mut sender, mut receiver) = (Sender::new(), Receiver::new());
        let there = to.local_addr().unwrap();
        sender.push(plain(&from, there), b"one");
        sender.push(plain(&from, there), &vec![0; 65_536]);
        sender.push(Message { dont_fragment: true, ..plain(&from, there) }, b"two");
        sender.push(plain(&from, there), b"three");
        let mut unsent = Vec::new();
        sender.flush(&receiver, |failed| unsent.push((failed.index, failed.error.raw_os_error())));
        assert_eq!(unsent, [(1, Some(libc::EMSGSIZE))]);
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let count = receive(&mut receiver, &to);
            seen.extend((0..count).map(|index| receiver.datagram(index).unwrap().bytes.to_vec()));
        }
        assert_eq!(seen, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    }

    #[test]
    fn what_a_full_buffer_loses_is_reported() {
        let small = Options { receive_buffer: 4096, ..OPTIONS };
        let to = bind("127.0.0.1:0".parse().unwrap(), small).unwrap();
        let from = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = |count| (0..count).for_each(|_| drop(from.send_to(&[0; 1000], to.local_addr().unwrap())));
        send(100);
        let mut receiver = Receiver::new();
        let kept = receive(&mut receiver, &to);
        send(1);
        receive(&mut receiver, &to);
        let lost = receiver.datagram(0).unwrap().overflow;
        assert_eq!(lost, Some(100 - kept as u32));
    }
}
