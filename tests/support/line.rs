//! What a client talks over: a UDP socket, or a TCP or TLS connection that is cut into messages.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use super::PATIENCE;

/// How a client reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Messages in a stream.
    Tcp,
    /// The same, encrypted.
    Tls,
}

impl Transport {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];
    /// Those in which messages have to be found.
    pub const STREAMS: [Self; 2] = [Self::Tcp, Self::Tls];

    /// As metrics name it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

trait Bytes: Read + Write + Send {}
impl<T: Read + Write + Send> Bytes for T {}

/// One way to a server.
pub struct Line {
    local: SocketAddr,
    kind: Kind,
}

enum Kind {
    Udp(UdpSocket),
    Stream(RefCell<Framed>),
}

/// A stream and what was read of it beyond the last message.
struct Framed {
    bytes: Box<dyn Bytes>,
    /// The same connection, for its timeouts.
    socket: TcpStream,
    unread: Vec<u8>,
    ended: bool,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Line {
    /// A UDP socket on the loopback of the server's family; elsewhere on the address that leads to the server.
    pub fn udp(server: SocketAddr) -> Self {
        let local: IpAddr = match (server.is_ipv4(), server.ip().is_loopback()) {
            (true, true) => Ipv4Addr::LOCALHOST.into(),
            (true, false) => Ipv4Addr::UNSPECIFIED.into(),
            (false, true) => Ipv6Addr::LOCALHOST.into(),
            (false, false) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::udp_from(local, server)
    }

    /// A UDP socket on an address of this host.
    pub fn udp_from(local: IpAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((local, 0)).unwrap();
        socket.connect(server).unwrap();
        Self { local: socket.local_addr().unwrap(), kind: Kind::Udp(socket) }
    }

    /// A TCP connection.
    pub fn tcp(server: SocketAddr) -> Self {
        Self::over(TcpStream::connect(server).unwrap())
    }

    /// A TCP connection that is there already.
    pub fn over(socket: TcpStream) -> Self {
        let bytes = Box::new(socket.try_clone().unwrap());
        Self::framed(socket, bytes)
    }

    /// A TLS connection.
    pub fn tls(server: SocketAddr, client: ClientConnection) -> Self {
        Self::encrypted(TcpStream::connect(server).unwrap(), client)
    }

    /// TLS over a TCP connection that is there already.
    pub fn encrypted(socket: TcpStream, client: ClientConnection) -> Self {
        let bytes = Box::new(StreamOwned::new(client, socket.try_clone().unwrap()));
        Self::framed(socket, bytes)
    }

    fn framed(socket: TcpStream, bytes: Box<dyn Bytes>) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let local = socket.local_addr().unwrap();
        let framed = Framed { bytes, socket, unread: Vec::new(), ended: false };
        Self { local, kind: Kind::Stream(RefCell::new(framed)) }
    }

    /// Its own address.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether messages have to be found in it.
    pub const fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Stream(_))
    }

    /// Sends bytes as they are: one datagram, or so much of a stream.
    pub fn send(&self, bytes: &[u8]) {
        assert!(self.try_send(bytes), "the connection is broken");
    }

    /// Sends unless the connection is broken.
    pub fn try_send(&self, bytes: &[u8]) -> bool {
        match &self.kind {
            Kind::Udp(socket) => socket.send(bytes).is_ok(),
            Kind::Stream(framed) => {
                let stream = &mut framed.borrow_mut().bytes;
                stream.write_all(bytes).and_then(|()| stream.flush()).is_ok()
            }
        }
    }

    /// The next message, its padding included, or `None` after `wait` or when the connection has ended.
    pub fn receive_within(&self, wait: Duration) -> Option<Vec<u8>> {
        match &self.kind {
            Kind::Udp(socket) => {
                let mut buffer = vec![0; 65_536];
                socket.set_read_timeout(Some(wait)).unwrap();
                match socket.recv(&mut buffer) {
                    Ok(length) => {
                        buffer.truncate(length);
                        Some(buffer)
                    }
                    Err(error) if timed_out(&error) => None,
                    Err(error) => panic!("receive: {error}"),
                }
            }
            Kind::Stream(framed) => framed.borrow_mut().message(Instant::now() + wait),
        }
    }

    /// Asserts that the server closes the connection, whatever it still says before that.
    #[track_caller]
    pub fn is_closed(&self) {
        let Kind::Stream(framed) = &self.kind else { panic!("a datagram socket is not closed by anybody") };
        let mut framed = framed.borrow_mut();
        let deadline = Instant::now() + PATIENCE;
        while !framed.ended {
            assert!(Instant::now() < deadline, "the connection is still open after {PATIENCE:?}");
            framed.read(deadline);
        }
    }

    /// Whether the server has closed the connection so far.
    pub fn has_ended(&self) -> bool {
        let Kind::Stream(framed) = &self.kind else { return false };
        let mut framed = framed.borrow_mut();
        framed.read(Instant::now() + Duration::from_millis(1));
        framed.ended
    }
}

impl Framed {
    fn message(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = first_message(&self.unread).filter(|length| *length <= self.unread.len()) {
                return Some(self.unread.drain(..length).collect());
            }
            if self.ended || Instant::now() >= deadline {
                return None;
            }
            self.read(deadline);
        }
    }

    fn read(&mut self, deadline: Instant) {
        let wait = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(wait)).unwrap();
        let mut buffer = [0; 16_384];
        match self.bytes.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(length) => self.unread.extend_from_slice(&buffer[..length]),
            Err(error) if timed_out(&error) || error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.ended = true,
        }
    }
}

fn timed_out(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The length of the first message of a stream, its padding included (RFC 8656 section 12.5).
fn first_message(bytes: &[u8]) -> Option<usize> {
    let head: [u8; 4] = *bytes.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let channel = head[0] & 0xC0 == 0x40;
    Some(if channel { 4 + length.next_multiple_of(4) } else { 20 + length })
}
