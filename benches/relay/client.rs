//! A TURN client of its own: just enough of RFC 8656 for a real handshake with long-term credentials. It shares no code
//! with the server.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use sha1::Sha1;

pub(crate) const REALM: &str = "bench.test";
pub(crate) const USER: &str = "bench";
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// The channel every allocation binds.
pub(crate) const CHANNEL: u16 = 0x4000;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
/// Requests on their way at once.
const WINDOW: usize = 16;

/// A client with an allocation and a channel to the peer.
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    pub(crate) relayed: SocketAddr,
}

struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, id: u64) -> Self {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend([0; 4]);
        bytes.extend(id.to_be_bytes());
        Self(bytes)
    }

    fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(kind.to_be_bytes());
        self.0.extend((value.len() as u16).to_be_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.measured(0)
    }

    fn measured(mut self, more: usize) -> Self {
        let length = (self.0.len() - 20 + more) as u16;
        self.0[2..4].copy_from_slice(&length.to_be_bytes());
        self
    }

    fn signed(self, nonce: &[u8]) -> Self {
        let key = Md5::digest(format!("{USER}:{REALM}:{PASSWORD}"));
        let covered = self
            .with(0x0006, USER.as_bytes())
            .with(0x0014, REALM.as_bytes())
            .with(0x0015, nonce)
            .measured(24);
        let mut mac = Hmac::<Sha1>::new_from_slice(&key).unwrap();
        mac.update(&covered.0);
        covered.with(0x0008, &mac.finalize().into_bytes())
    }
}

fn value(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut at = 20;
    while let Some(head) = message.get(at..at + 4) {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if u16::from_be_bytes([head[0], head[1]]) == wanted {
            return message.get(at + 4..at + 4 + length);
        }
        at += 4 + length.next_multiple_of(4);
    }
    None
}

fn xored(address: SocketAddr) -> Vec<u8> {
    let mut value = vec![0, 1];
    value.extend((address.port() ^ 0x2112).to_be_bytes());
    let IpAddr::V4(ip) = address.ip() else { panic!("the lab is IPv4") };
    value.extend(ip.octets().iter().zip(COOKIE).map(|(octet, mask)| octet ^ mask));
    value
}

fn unxored(value: &[u8]) -> SocketAddr {
    let port = u16::from_be_bytes([value[2], value[3]]) ^ 0x2112;
    let ip: Vec<u8> = value[4..8].iter().zip(COOKIE).map(|(octet, mask)| octet ^ mask).collect();
    SocketAddr::from(([ip[0], ip[1], ip[2], ip[3]], port))
}

/// Whether a server answers a Binding request.
pub(crate) fn answers(server: SocketAddr) -> bool {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let request = Request::new(0x0001, 1);
    socket.send_to(&request.0, server).is_ok() && socket.recv(&mut [0; 512]).is_ok()
}

/// Sockets for clients, connected to the server.
pub(crate) fn sockets(server: SocketAddr, count: usize) -> Vec<UdpSocket> {
    let connected = |_| {
        let socket = UdpSocket::bind((super::lab::GENERATOR, 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    };
    (0..count).map(connected).collect()
}

/// Makes an allocation on each socket and binds [`CHANNEL`] to the peer, a few at a time.
pub(crate) fn allocate(sockets: Vec<UdpSocket>, peer: SocketAddr) -> Vec<Client> {
    let mut clients = Vec::with_capacity(sockets.len());
    let mut id = 0u64;
    let mut sockets = sockets.into_iter().peekable();
    while sockets.peek().is_some() {
        let group: Vec<UdpSocket> = sockets.by_ref().take(WINDOW).collect();
        let allocate = |id| Request::new(0x0003, id).with(0x0019, &[17, 0, 0, 0]);
        let mut next = || {
            id += 1;
            id
        };
        let bare: Vec<Request> = group.iter().map(|_| allocate(next())).collect();
        let nonces: Vec<Vec<u8>> = exchange(&group, &bare)
            .iter()
            .map(|answer| value(answer, 0x0015).expect("a challenge has a NONCE").to_vec())
            .collect();
        let signed: Vec<Request> = nonces.iter().map(|nonce| allocate(next()).signed(nonce)).collect();
        let relayed: Vec<SocketAddr> = exchange(&group, &signed)
            .iter()
            .map(|answer| {
                unxored(value(answer, 0x0016).unwrap_or_else(|| panic!("no allocation: {answer:?}")))
            })
            .collect();
        let bind = |id, nonce: &Vec<u8>| {
            let channel = [CHANNEL.to_be_bytes(), [0, 0]].concat();
            Request::new(0x0009, id).with(0x000C, &channel).with(0x0012, &xored(peer)).signed(nonce)
        };
        let binds: Vec<Request> = nonces.iter().map(|nonce| bind(next(), nonce)).collect();
        for answer in exchange(&group, &binds) {
            assert_eq!(answer.get(..2), Some(&[0x01, 0x09][..]), "no channel: {answer:?}");
        }
        clients.extend(group.into_iter().zip(relayed).map(|(socket, relayed)| Client { socket, relayed }));
    }
    clients
}

/// Sends every request on its socket and waits for every answer, again and again where one is lost.
fn exchange(sockets: &[UdpSocket], requests: &[Request]) -> Vec<Vec<u8>> {
    let send = |at: usize| drop(sockets[at].send(&requests[at].0));
    (0..sockets.len()).for_each(send);
    let answer = |at: usize| {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut buffer = [0; 2048];
        loop {
            match sockets[at].recv(&mut buffer) {
                Ok(length) if length >= 20 && buffer[4..20] == requests[at].0[4..20] => {
                    return buffer[..length].to_vec();
                }
                Ok(_) => {}
                Err(_) => send(at),
            }
            assert!(Instant::now() < deadline, "the server does not answer");
        }
    };
    (0..sockets.len()).map(answer).collect()
}
