//! Binds listeners: all of them before anything starts, each so that a second server on the same port is an error.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::udp::{self, Options};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A bound UDP listener address, one socket a worker.
#[derive(Debug)]
pub(super) struct Bound {
    /// The address with its real port.
    pub(super) address: SocketAddr,
    pub(super) sockets: Vec<UdpSocket>,
}

/// Binds an address once a worker. The first bind is exclusive: the kernel would let a second server of the same user
/// share the port and take half of the packets.
pub(super) fn bind_udp(address: SocketAddr, workers: usize, receive_buffer: usize) -> io::Result<Bound> {
    let options = |reuse_port| Options { receive_buffer, reuse_port };
    let first = udp::bind(address, options(workers > 1 && address.port() == 0))?;
    let address = first.local_addr()?;
    if workers == 1 {
        return Ok(Bound { address, sockets: vec![first] });
    }
    drop(first);
    let sockets = (0..workers).map(|_| udp::bind(address, options(true))).collect::<io::Result<_>>()?;
    Ok(Bound { address, sockets })
}

/// Binds a nonblocking TCP listener. An IPv6 one takes IPv6 only, so that `0.0.0.0` and `[::]` can stand side by side.
///
/// # Errors
/// The address is taken, not allowed, or not this host's.
pub fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
