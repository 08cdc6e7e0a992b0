//! The sockets of one worker: its listeners and the relay sockets of its allocations.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use prometheus::IntCounter;

use crate::stun::attribute::Family;
use crate::turn::RelayId;

/// The token of the worker's waker.
pub(super) const WAKER: Token = Token(usize::MAX);

/// Tokens of connections: this bit and their index.
const STREAM: usize = 1 << (usize::BITS - 1);

/// The token of a connection.
pub(super) const fn stream_token(index: usize) -> Token {
    Token(STREAM | index)
}

/// What a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A listener, by its index.
    Listener(usize),
    /// A relayed transport address.
    Relay(RelayId),
    /// A client's connection, by its index.
    Stream(usize),
}

/// A socket of the worker.
#[derive(Debug)]
pub(super) struct Socket {
    udp: UdpSocket,
    /// Where it is bound.
    pub(super) local: SocketAddr,
    /// Its own number among the sockets of the worker.
    pub(super) serial: u32,
    /// The kernel's count of lost datagrams as last seen.
    overflow: u32,
}

impl Socket {
    pub(super) const fn new(udp: UdpSocket, local: SocketAddr) -> Self {
        Self { udp, local, serial: 0, overflow: 0 }
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.udp.as_raw_fd()
    }

    /// Counts the datagrams that were lost since the last count.
    pub(super) fn count_lost(&mut self, overflow: Option<u32>, counter: &IntCounter) {
        if let Some(now) = overflow.filter(|now| *now != self.overflow) {
            counter.inc_by(u64::from(now.wrapping_sub(self.overflow)));
            self.overflow = now;
        }
    }
}

/// Every socket of a worker, found by index.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    listeners: Vec<Socket>,
    /// By allocation slot, then family.
    relays: Vec<[Option<Socket>; 2]>,
    /// Sockets made so far.
    made: u32,
}

impl Sockets {
    /// Registers a listener; listeners come before every relay socket.
    pub(super) fn add_listener(&mut self, registry: &Registry, socket: Socket) -> std::io::Result<()> {
        let token = Token(self.listeners.len());
        registry.register(&mut SourceFd(&socket.descriptor()), token, Interest::READABLE)?;
        self.listeners.push(socket);
        Ok(())
    }

    /// Registers a relay socket.
    pub(super) fn add_relay(
        &mut self,
        registry: &Registry,
        id: RelayId,
        mut socket: Socket,
    ) -> std::io::Result<()> {
        let token = Token(self.listeners.len() + id.slot as usize * 2 + family_index(id.family));
        registry.register(&mut SourceFd(&socket.descriptor()), token, Interest::READABLE)?;
        self.made = self.made.wrapping_add(1);
        socket.serial = self.made;
        let slot = id.slot as usize;
        if self.relays.len() <= slot {
            self.relays.resize_with(slot + 1, Default::default);
        }
        if let Some(place) = self.relays.get_mut(slot).and_then(|pair| pair.get_mut(family_index(id.family)))
        {
            *place = Some(socket);
        }
        Ok(())
    }

    /// Closes a relay socket; the kernel forgets its registration with it.
    pub(super) fn close_relay(&mut self, id: RelayId) {
        if let Some(pair) = self.relays.get_mut(id.slot as usize)
            && let Some(place) = pair.get_mut(family_index(id.family))
        {
            *place = None;
        }
    }

    /// What a token stands for.
    pub(super) fn owner(&self, token: Token) -> Owner {
        if token.0 & STREAM != 0 {
            return Owner::Stream(token.0 & !STREAM);
        }
        match token.0.checked_sub(self.listeners.len()) {
            None => Owner::Listener(token.0),
            Some(index) => {
                let family = if index % 2 == 0 { Family::V4 } else { Family::V6 };
                Owner::Relay(RelayId { slot: (index / 2) as u32, family })
            }
        }
    }

    /// The UDP socket of an owner; `None` once it is closed.
    pub(super) fn find_mut(&mut self, owner: Owner) -> Option<&mut Socket> {
        match owner {
            Owner::Listener(index) => self.listeners.get_mut(index),
            Owner::Stream(_) => None,
            Owner::Relay(id) => {
                self.relays.get_mut(id.slot as usize)?.get_mut(family_index(id.family))?.as_mut()
            }
        }
    }

    /// The descriptor of a relayed address.
    pub(super) fn relay(&self, id: RelayId) -> Option<RawFd> {
        self.relays.get(id.slot as usize)?.get(family_index(id.family))?.as_ref().map(Socket::descriptor)
    }

    /// The listener that speaks for a server address: the one bound to it, else the wildcard of its family.
    pub(super) fn listener(&self, server: SocketAddr) -> Option<(RawFd, bool)> {
        let exact = self.listeners.iter().find(|found| found.local == server);
        let wildcard = |found: &&Socket| {
            found.local.ip().is_unspecified()
                && found.local.port() == server.port()
                && found.local.is_ipv6() == server.is_ipv6()
        };
        exact
            .map(|found| (found.descriptor(), false))
            .or_else(|| self.listeners.iter().find(wildcard).map(|found| (found.descriptor(), true)))
    }
}

const fn family_index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
