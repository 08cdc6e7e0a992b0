//! Binds listeners: all of them before anything starts, each so that a second server on the same port is an error.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::udp::{self, Options, Role};

/// Connections that may wait to be accepted: all clients of a server that was gone for a moment come at once, and who is
/// not queued tries again a second later. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A bound UDP listener address, one socket a worker.
#[derive(Debug)]
pub(super) struct Bound {
    /// The address with its real port.
    pub(super) address: SocketAddr,
    pub(super) sockets: Vec<UdpSocket>,
}

/// Binds an address once a worker. The first bind is exclusive: the kernel would let a second server of the same user
/// share the port and take half of the packets.
pub(super) fn bind_udp(address: SocketAddr, workers: usize, options: Options) -> io::Result<Bound> {
    let first = udp::bind(address, Role::Listener { shared: false }, options)?;
    let address = first.local_addr()?;
    if workers > 1 {
        // From here on others may join; the port is never free in between.
        SockRef::from(&first).set_reuse_port(true)?;
    }
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(udp::bind(address, Role::Listener { shared: true }, options)?);
    }
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::udp::Offload;
    use super::*;

    const OPTIONS: Options = Options { receive_buffer: 1 << 16, offload: Offload::None };

    #[test]
    fn every_worker_shares_the_port_and_nobody_else_gets_it() {
        let bound = bind_udp("127.0.0.1:0".parse().unwrap(), 3, OPTIONS).unwrap();
        assert_eq!(bound.sockets.len(), 3);
        let ports: HashSet<u16> =
            bound.sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 1);
        let taken = bind_udp(bound.address, 3, OPTIONS).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let mut heard = HashSet::new();
        for _ in 0..64 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(b"x", bound.address).unwrap();
            heard.extend(bound.sockets.iter().position(|socket| socket.recv(&mut [0; 1]).is_ok()));
        }
        assert_eq!(heard, HashSet::from([0, 1, 2]), "clients are spread over all workers");
    }
}
