//! A WebSocket client (RFC 6455) that never blocks, small enough to have tens of thousands of.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket as Raw, Type};

/// What every client masks with: the server unmasks whatever it is.
const MASK: [u8; 4] = [0x5a, 0x13, 0xc7, 0x2e];

/// One connection.
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    upgraded: bool,
}

/// What a connection brought.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The handshake is done.
    Open,
    /// A text message.
    Text(String),
    /// It is over: the status of the handshake, the code of the close frame, or 0 for neither.
    Closed(u16),
}

impl Socket {
    /// Starts to connect from an address of this host, and sends the handshake as soon as it can.
    pub(crate) fn connect(server: SocketAddr, source: Ipv4Addr, request: String) -> io::Result<Self> {
        let raw = Raw::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        raw.set_nonblocking(true)?;
        raw.set_reuse_address(true)?;
        raw.set_tcp_nodelay(true)?;
        raw.bind(&SocketAddr::from((source, 0)).into())?;
        match raw.connect(&server.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let stream = TcpStream::from_std(raw.into());
        Ok(Self { stream, inbox: Vec::new(), outbox: request.into_bytes(), upgraded: false })
    }

    /// Closes it with a reset, as a network that is gone for good does.
    pub(crate) fn reset(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Sends a text message.
    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        self.frame(0x1, text.as_bytes());
        self.flush()
    }

    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        self.outbox.push(0x80 | opcode);
        match payload.len() {
            short @ 0..126 => self.outbox.push(0x80 | short as u8),
            long => {
                assert!(long <= usize::from(u16::MAX), "nothing here is that long");
                self.outbox.push(0x80 | 126);
                self.outbox.extend((long as u16).to_be_bytes());
            }
        }
        self.outbox.extend(MASK);
        self.outbox.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }

    /// Writes what waits.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let mut written = 0;
        while let Some(rest) = self.outbox.get(written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(length) => written += length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if written == self.outbox.len() {
            self.outbox.clear();
            self.outbox.shrink_to(1024);
        } else {
            self.outbox.drain(..written);
        }
        Ok(())
    }

    /// Reads what is there and reports it. `ended`: the event says that the peer has stopped to write.
    pub(crate) fn read(&mut self, scratch: &mut [u8], ended: bool, hear: &mut impl FnMut(Happening)) {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return hear(Happening::Closed(0)),
                Ok(length) => {
                    self.inbox.extend_from_slice(&scratch[..length]);
                    // A short read has emptied the socket: the next arrival is an event of its own.
                    if length < scratch.len() && !ended {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return hear(Happening::Closed(0)),
            }
        }
        let used = if self.upgraded { self.frames(hear) } else { self.head(hear) };
        self.inbox.drain(..used);
        self.inbox.shrink_to(1024);
    }

    /// Reads the answer to the handshake; bytes used.
    fn head(&mut self, hear: &mut impl FnMut(Happening)) -> usize {
        let Some(end) = self.inbox.windows(4).position(|window| window == b"\r\n\r\n") else { return 0 };
        let head = String::from_utf8_lossy(&self.inbox[..end]);
        let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        if status != 101 {
            hear(Happening::Closed(status));
            return self.inbox.len();
        }
        self.upgraded = true;
        hear(Happening::Open);
        self.inbox.drain(..end + 4);
        self.frames(hear)
    }

    /// Reads whole frames; bytes used. The servers under test never fragment and never mask.
    fn frames(&mut self, hear: &mut impl FnMut(Happening)) -> usize {
        let mut used = 0;
        let mut pongs = 0;
        while let Some((opcode, start, end)) = next_frame(&self.inbox[used..]) {
            let payload = &self.inbox[used + start..used + end];
            used += end;
            match opcode {
                0x1 => hear(Happening::Text(String::from_utf8_lossy(payload).into_owned())),
                0x8 => {
                    hear(Happening::Closed(
                        payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code)),
                    ));
                }
                0x9 => pongs += 1,
                _ => {}
            }
        }
        for _ in 0..pongs {
            self.frame(0xa, &[]);
            let _ = self.flush();
        }
        used
    }
}

/// Opcode, start and end of the first frame's payload.
fn next_frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let opcode = bytes.first()? & 0x0f;
    let (start, length) = match bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?),
        short => (2, usize::from(short)),
    };
    let end = start + length;
    (bytes.len() >= end).then_some((opcode, start, end))
}
