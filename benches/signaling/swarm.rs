//! All connections of the generator on one thread.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use super::socket::{Happening, Socket};

/// Sockets by number; the caller chooses the numbers.
pub(crate) struct Swarm {
    poll: Poll,
    events: Events,
    sockets: Vec<Option<Socket>>,
    scratch: Vec<u8>,
}

impl Swarm {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(4096),
            sockets: std::iter::repeat_with(|| None).take(size).collect(),
            scratch: vec![0; 64 * 1024],
        }
    }

    /// Starts to connect. What comes of it is reported by [`Swarm::poll`].
    pub(crate) fn connect(&mut self, index: usize, server: SocketAddr, source: Ipv4Addr, request: String) {
        let mut socket = Socket::connect(server, source, request).unwrap();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket.stream, Token(index), interest).unwrap();
        self.sockets[index] = Some(socket);
    }

    /// Sends a text. One to a connection that is gone is lost, as it would be.
    pub(crate) fn send(&mut self, index: usize, text: &str) {
        if let Some(socket) = &mut self.sockets[index] {
            // A broken connection is reported by its next read.
            let _ = socket.send(text);
        }
    }

    /// Resets a connection.
    pub(crate) fn cut(&mut self, index: usize) {
        if let Some(socket) = self.sockets[index].take() {
            socket.reset();
        }
    }

    /// Waits for something to happen, for at most `wait`, and adds all of it to `heard`.
    pub(crate) fn poll(&mut self, wait: Duration, heard: &mut Vec<(usize, Happening)>) {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            result => result.unwrap(),
        }
        for event in &self.events {
            let Token(index) = event.token();
            let Some(socket) = &mut self.sockets[index] else { continue };
            if event.is_writable() && socket.flush().is_err() {
                heard.push((index, Happening::Closed(0)));
                self.sockets[index] = None;
                continue;
            }
            if !event.is_readable() && !event.is_read_closed() && !event.is_error() {
                continue;
            }
            let mut closed = false;
            socket.read(&mut self.scratch, event.is_read_closed() || event.is_error(), &mut |happening| {
                closed |= matches!(happening, Happening::Closed(_));
                heard.push((index, happening));
            });
            if closed {
                self.sockets[index] = None;
            }
        }
    }
}
