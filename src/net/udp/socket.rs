//! How a UDP socket is made, and the options that are set on it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _};

use libc::{c_int, c_void, socklen_t};
use socket2::{Domain, Protocol, Socket, Type};

use super::control::IPV4_DESTINATION;

/// How much of the work on many datagrams is left to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Offload {
    /// Runs of datagrams are joined and cut by the kernel, several of them take one call. Linux only.
    Segmentation,
    /// One call for each datagram: what every system can do.
    None,
}

impl Offload {
    /// What is asked for, where the system has it.
    pub(in crate::net) const fn available(wanted: bool) -> Self {
        if wanted && cfg!(target_os = "linux") { Self::Segmentation } else { Self::None }
    }
}

/// What a UDP socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Role {
    /// Clients send to it, on an address that other workers may share.
    Listener {
        /// Whether others bind the same address.
        shared: bool,
    },
    /// A relayed transport address: ICMP errors of what leaves it are of interest.
    Relay,
}

/// How a UDP socket is made.
#[derive(Debug, Clone, Copy)]
pub(in crate::net) struct Options {
    /// SO_RCVBUF in bytes, forced beyond the system's limit where allowed.
    pub(in crate::net) receive_buffer: usize,
    /// What the kernel does.
    pub(in crate::net) offload: Offload,
}

/// Binds a nonblocking UDP socket that reports where datagrams were sent to and how many were lost.
pub(in crate::net) fn bind(
    address: SocketAddr,
    role: Role,
    options: Options,
) -> io::Result<std::net::UdpSocket> {
    let socket = new(Domain::for_address(address))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if role == (Role::Listener { shared: true }) {
        socket.set_reuse_port(true)?;
    }
    let by_family = |v4: c_int, v6: c_int, value: c_int| match address {
        SocketAddr::V4(_) => set_option(&socket, libc::IPPROTO_IP, v4, value),
        SocketAddr::V6(_) => set_option(&socket, libc::IPPROTO_IPV6, v6, value),
    };
    if address.ip().is_unspecified() {
        by_family(IPV4_DESTINATION, libc::IPV6_RECVPKTINFO, 1)?;
    }
    by_family(libc::IP_RECVTOS, libc::IPV6_RECVTCLASS, 1)?;
    #[cfg(target_os = "linux")]
    {
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
        if options.offload == Offload::Segmentation {
            // A kernel before 5.0 has no GRO for sockets: then every run is one datagram.
            let _ = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
        }
        if role == Role::Relay {
            by_family(libc::IP_RECVERR, libc::IPV6_RECVERR, 1)?;
            set_fragmentation(&socket, address.is_ipv6(), true)?;
        } else {
            by_family(libc::IP_MTU_DISCOVER, libc::IPV6_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
        }
    }
    set_receive_buffer(&socket, options.receive_buffer);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A nonblocking socket, in one call where there is such a call.
#[cfg(target_os = "linux")]
fn new(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))
}

#[cfg(not(target_os = "linux"))]
fn new(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn set_receive_buffer(socket: &Socket, bytes: usize) {
    // Without CAP_NET_ADMIN the kernel caps what is asked for: that is the operator's sysctl, not an error.
    #[cfg(target_os = "linux")]
    {
        let forced = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, forced).is_ok() {
            return;
        }
    }
    let _ = socket.set_recv_buffer_size(bytes);
}

/// Lets the kernel fragment what leaves a relay socket, or forbids it (DONT-FRAGMENT, RFC 8656 section 15).
#[cfg(target_os = "linux")]
pub(super) fn set_fragmentation(socket: &impl AsFd, ipv6: bool, allowed: bool) -> io::Result<()> {
    let (level, name) = if ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
    };
    // OMIT fragments like DONT but, unlike it, reports what a router says about datagrams that must not be fragmented.
    // It also goes by the interface alone, so it is nothing for IPv6, where no router fragments.
    let allowing = if ipv6 { libc::IPV6_PMTUDISC_DONT } else { libc::IP_PMTUDISC_OMIT };
    let value = if allowed { allowing } else { libc::IP_PMTUDISC_DO };
    set_option(&socket2::SockRef::from(socket), level, name, value)
}

/// Elsewhere the system's default holds.
#[cfg(not(target_os = "linux"))]
pub(super) fn set_fragmentation(_: &impl AsFd, _: bool, _: bool) -> io::Result<()> {
    Ok(())
}

fn set_option(socket: &Socket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as socklen_t;
    // SAFETY: the value outlives the call and its size is given.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast::<c_void>(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
