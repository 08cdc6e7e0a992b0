//! What clients send: kept as meaning for the model, written as bytes for the server.

use std::net::SocketAddr;

use passerelle::stun::{Algorithm, Class, Key, Method, TransactionId, Writer, attribute, userhash};

use super::cast::{CREDENTIALS, Directory, REALM};

/// A datagram, or a frame of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    Request(Request),
    Send(Send),
    /// ChannelData whose LENGTH says `claimed`.
    ChannelData {
        number: u16,
        length: usize,
        claimed: usize,
    },
    Noise(Noise),
}

/// Something no client should send, or that wants no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    NotStun,
    Truncated,
    BadFingerprint,
    Response,
    UnknownMethod,
    KeepAlive,
}

/// A Send indication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    pub peer: Option<SocketAddr>,
    pub length: Option<usize>,
    pub unknown_attribute: bool,
    pub dont_fragment: bool,
}

/// A request and what it proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub ask: Ask,
    pub transaction: [u8; 12],
    pub proof: Option<Proof>,
    pub unknown_attribute: bool,
    pub fingerprint: bool,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Binding,
    Allocate(Allocate),
    Refresh { lifetime: Option<u32>, family: Option<u8> },
    CreatePermission { peers: Vec<SocketAddr> },
    ChannelBind { number: Option<u16>, peer: Option<SocketAddr> },
}

impl Ask {
    pub const fn method(&self) -> Method {
        match self {
            Self::Binding => Method::Binding,
            Self::Allocate(_) => Method::Allocate,
            Self::Refresh { .. } => Method::Refresh,
            Self::CreatePermission { .. } => Method::CreatePermission,
            Self::ChannelBind { .. } => Method::ChannelBind,
        }
    }

    /// Its name among the counters.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Allocate(_) => "allocate",
            Self::Refresh { .. } => "refresh",
            Self::CreatePermission { .. } => "create_permission",
            Self::ChannelBind { .. } => "channel_bind",
        }
    }
}

/// The attributes of an Allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocate {
    pub transport: Option<u8>,
    pub family: Option<u8>,
    pub additional: Option<u8>,
    /// EVEN-PORT, and whether the next port is to be reserved.
    pub even_port: Option<bool>,
    pub token: Option<[u8; 8]>,
    pub lifetime: Option<u32>,
}

/// An Allocate that asks for nothing special.
pub const PLAIN: Allocate = Allocate {
    transport: Some(17),
    family: None,
    additional: None,
    even_port: None,
    token: None,
    lifetime: None,
};

/// Credentials of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Which of [`CREDENTIALS`].
    pub credential: usize,
    pub honesty: Honesty,
    pub nonce: Option<Nonce>,
    pub algorithm: Algorithm,
    /// MESSAGE-INTEGRITY-SHA256 instead of MESSAGE-INTEGRITY.
    pub sha256: bool,
    /// USERHASH instead of USERNAME.
    pub hashed: bool,
}

/// How much of a proof is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Honesty {
    Honest,
    WrongPassword,
    UnknownUser,
}

/// A nonce, and what only the server can read in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce {
    pub bytes: Vec<u8>,
    pub client: SocketAddr,
    pub expires: u64,
}

impl std::fmt::Debug for Nonce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nonce of {} until {}", self.client, self.expires)
    }
}

/// A comprehension-required attribute that nobody understands.
const UNKNOWN: u16 = 0x7ABC;

impl Datagram {
    pub fn encode(&self, directory: &Directory) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Request(request) => request.encode(directory, &mut out),
            Self::Send(send) => send.encode(&mut out),
            Self::ChannelData { number, length, claimed } => {
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&(*claimed as u16).to_be_bytes());
                out.resize(4 + length, 0xC4);
            }
            Self::Noise(noise) => noise.encode(&mut out),
        }
        out
    }
}

impl Noise {
    fn encode(self, out: &mut Vec<u8>) {
        let id = TransactionId([9; 12]);
        match self {
            Self::NotStun => out.extend_from_slice(b"\x80RTP is not for us"),
            Self::Truncated => {
                Writer::new(out, Class::Request, Method::Binding, id).attribute(attribute::SOFTWARE, b"four");
                out.truncate(24);
            }
            Self::BadFingerprint => {
                Writer::new(out, Class::Request, Method::Binding, id).u32(attribute::FINGERPRINT, 7);
            }
            Self::Response => drop(Writer::new(out, Class::Success, Method::Allocate, id)),
            Self::UnknownMethod => drop(Writer::new(out, Class::Request, Method::Other(0x00A), id)),
            Self::KeepAlive => drop(Writer::new(out, Class::Indication, Method::Binding, id)),
        }
    }
}

impl Send {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out, Class::Indication, Method::Send, TransactionId([5; 12]));
        if let Some(peer) = self.peer {
            writer.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        }
        if self.unknown_attribute {
            writer.u32(UNKNOWN, 0);
        }
        if self.dont_fragment {
            writer.attribute(attribute::DONT_FRAGMENT, &[]);
        }
        if let Some(length) = self.length {
            writer.attribute(attribute::DATA, &vec![0xDA; length]);
        }
    }
}

impl Request {
    fn encode(&self, directory: &Directory, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out, Class::Request, self.ask.method(), TransactionId(self.transaction));
        self.ask.encode(&mut writer);
        if self.unknown_attribute {
            writer.u32(UNKNOWN, 0);
        }
        if let Some(proof) = &self.proof {
            proof.encode(directory, &mut writer);
        }
        if self.fingerprint {
            writer.fingerprint();
        }
    }
}

impl Ask {
    fn encode(&self, writer: &mut Writer<'_>) {
        let lifetime = |writer: &mut Writer<'_>, seconds: Option<u32>| {
            if let Some(seconds) = seconds {
                writer.u32(attribute::LIFETIME, seconds);
            }
        };
        let byte = |writer: &mut Writer<'_>, kind: u16, value: Option<u8>| {
            if let Some(value) = value {
                writer.attribute(kind, &[value, 0, 0, 0]);
            }
        };
        match self {
            Self::Binding => {}
            Self::Allocate(asked) => {
                byte(writer, attribute::REQUESTED_TRANSPORT, asked.transport);
                byte(writer, attribute::REQUESTED_ADDRESS_FAMILY, asked.family);
                byte(writer, attribute::ADDITIONAL_ADDRESS_FAMILY, asked.additional);
                if let Some(reserve) = asked.even_port {
                    writer.attribute(attribute::EVEN_PORT, &[if reserve { 0x80 } else { 0 }]);
                }
                if let Some(token) = asked.token {
                    writer.attribute(attribute::RESERVATION_TOKEN, &token);
                }
                lifetime(writer, asked.lifetime);
            }
            Self::Refresh { lifetime: seconds, family } => {
                lifetime(writer, *seconds);
                byte(writer, attribute::REQUESTED_ADDRESS_FAMILY, *family);
            }
            Self::CreatePermission { peers } => {
                for peer in peers {
                    writer.xor_address(attribute::XOR_PEER_ADDRESS, *peer);
                }
            }
            Self::ChannelBind { number, peer } => {
                if let Some(number) = number {
                    writer.u32(attribute::CHANNEL_NUMBER, u32::from(*number) << 16);
                }
                if let Some(peer) = peer {
                    writer.xor_address(attribute::XOR_PEER_ADDRESS, *peer);
                }
            }
        }
    }
}

impl Proof {
    fn encode(&self, directory: &Directory, writer: &mut Writer<'_>) {
        let username = match self.honesty {
            Honesty::UnknownUser => "nobody",
            _ => CREDENTIALS[self.credential].username,
        };
        if self.hashed {
            writer.attribute(attribute::USERHASH, &userhash(username, REALM));
        } else {
            writer.attribute(attribute::USERNAME, username.as_bytes());
        }
        writer.attribute(attribute::REALM, REALM.as_bytes());
        if let Some(nonce) = &self.nonce {
            writer.attribute(attribute::NONCE, &nonce.bytes);
        }
        if self.algorithm == Algorithm::Sha256 {
            writer.attribute(attribute::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]);
            writer.attribute(attribute::PASSWORD_ALGORITHM, &[0, 2, 0, 0]);
        }
        let wrong;
        let key = if self.honesty == Honesty::Honest {
            directory.key(self.credential, self.algorithm)
        } else {
            wrong = Key::long_term(self.algorithm, username, REALM, "guessed");
            &wrong
        };
        if self.sha256 {
            writer.integrity_sha256(key);
        } else {
            writer.integrity_sha1(key);
        }
    }
}
