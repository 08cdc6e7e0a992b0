//! A WebSocket client that sends whatever bytes a test wants, right or wrong, and reads frame by frame (RFC 6455).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use base64::Engine as _;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use super::PATIENCE;
use super::caller::token;

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;
/// The frame is the last of its message.
pub const FIN: u8 = 0x80;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of a client: masked, its length in the shortest form.
pub fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = announcing(head, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The head of a frame with a payload of this length, mask included, and nothing of the payload.
pub fn announcing(head: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![head];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// A close frame with this code and reason.
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A request that is answered, in exactly `size` bytes.
pub fn request(id: &str, size: usize) -> String {
    let of = |padding: usize| {
        json!({ "v": 1, "t": "call:heartbeat", "id": id, "p": { "x": "x".repeat(padding) } }).to_string()
    };
    let empty = of(0).len();
    of(size.checked_sub(empty).expect("a request has more bytes than that"))
}

/// A connection to `/ws`.
pub struct RawWebSocket {
    stream: TcpStream,
}

impl RawWebSocket {
    /// Connects and shakes hands.
    #[track_caller]
    pub fn connect(server: SocketAddr) -> Self {
        let (socket, head) = Self::open(server, "/ws", "Sec-WebSocket-Protocol: passerelle.v1.json\r\n");
        assert!(head.contains("sec-websocket-protocol: passerelle.v1.json"), "{head}");
        socket
    }

    /// Connects and shakes hands at this path with more headers; gives the head of the answer too, in lower case.
    #[track_caller]
    pub fn open(server: SocketAddr, path: &str, headers: &str) -> (Self, String) {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the answer to the handshake");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        let accept = Sha1::digest(format!("{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
        let accept = base64::engine::general_purpose::STANDARD.encode(accept).to_ascii_lowercase();
        assert!(head.contains(&format!("sec-websocket-accept: {accept}")), "{head}");
        (Self { stream }, head)
    }

    /// Connects, says hello as a user and reads the greeting.
    #[track_caller]
    pub fn of(server: SocketAddr, user: &str) -> Self {
        let mut socket = Self::connect(server);
        let hello = json!({ "v": 1, "t": "hello", "p": { "token": token(user) } }).to_string();
        socket.write(&frame(FIN | TEXT, hello.as_bytes()));
        let (head, payload) = socket.frame().expect("the greeting");
        assert_eq!(head, FIN | TEXT);
        let ready: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(ready["t"], "session:ready", "{ready}");
        socket
    }

    /// Sends bytes; a server that has closed is what some tests are about.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends bytes in pieces, each in a packet of its own as far as the system goes along.
    pub fn write_in_pieces(&mut self, bytes: &[u8], size: usize) {
        bytes.chunks(size).for_each(|piece| self.write(piece));
    }

    /// The next frame: its first byte and its payload. `None` when the server has closed the connection.
    #[track_caller]
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut start = [0; 2];
        if self.stream.read(&mut start[..1]).expect("a frame in time") == 0 {
            return None;
        }
        self.exact(&mut start[1..]);
        assert_eq!(start[1] & 0x80, 0, "a server does not mask");
        let mut length = usize::from(start[1]);
        if length == 126 {
            let mut bytes = [0; 2];
            self.exact(&mut bytes);
            length = usize::from(u16::from_be_bytes(bytes));
        } else if length == 127 {
            let mut bytes = [0; 8];
            self.exact(&mut bytes);
            length = u64::from_be_bytes(bytes).try_into().unwrap();
        }
        let mut payload = vec![0; length];
        self.exact(&mut payload);
        Some((start[0], payload))
    }

    #[track_caller]
    fn exact(&mut self, bytes: &mut [u8]) {
        self.stream.read_exact(bytes).expect("the rest of a frame in time");
    }

    /// Asserts that the next frame is the answer to the request with this id.
    #[track_caller]
    pub fn acked(&mut self, id: &str) {
        let (head, payload) = self.frame().unwrap_or_else(|| panic!("closed before the ack of {id}"));
        assert_eq!(head, FIN | TEXT, "{}", String::from_utf8_lossy(&payload));
        let ack: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!((&ack["t"], &ack["re"], &ack["ok"]), (&json!("ack"), &json!(id), &json!(true)), "{ack}");
    }

    /// Asserts that the next frame is a pong with this payload.
    #[track_caller]
    pub fn ponged(&mut self, payload: &[u8]) {
        assert_eq!(self.frame(), Some((FIN | PONG, payload.to_vec())));
    }

    /// Asserts that the next frame closes, and that nothing comes after it; gives its code, 1005 when it has none.
    #[track_caller]
    pub fn closed(&mut self) -> u16 {
        let (head, payload) = self.frame().expect("a close frame before the end of the connection");
        assert_eq!(head, FIN | CLOSE, "{}", String::from_utf8_lossy(&payload));
        assert_eq!(self.frame(), None, "nothing comes after a close frame");
        match payload[..] {
            [] => 1005,
            [high, low, ref reason @ ..] => {
                assert!(std::str::from_utf8(reason).is_ok());
                u16::from_be_bytes([high, low])
            }
            _ => panic!("half a code: {payload:?}"),
        }
    }
}
