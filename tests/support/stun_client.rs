//! A small STUN and TURN client that can also be wrong on purpose. Built on the `stun` crate's codec.

use std::net::{SocketAddr, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stun::attributes::*;
use stun::error_code::ErrorCodeAttribute;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::*;
use stun::uattrs::UnknownAttributes;
use stun::xoraddr::XorMappedAddress;

use super::{Line, PATIENCE, server};

/// ADDITIONAL-ADDRESS-FAMILY (RFC 8656 section 18.1), which the codec does not know.
pub const ATTR_ADDITIONAL_ADDRESS_FAMILY: AttrType = AttrType(0x8000);
/// UDP as a value of REQUESTED-TRANSPORT.
pub const UDP: u8 = 17;
/// IPv4 as a value of REQUESTED-ADDRESS-FAMILY.
pub const IPV4: u8 = 1;
/// IPv6 as a value of REQUESTED-ADDRESS-FAMILY.
pub const IPV6: u8 = 2;

/// A message in the making: attributes are appended in the order of the calls, nothing is checked.
#[derive(Debug, Clone)]
pub struct Request(Message);

impl Request {
    /// A request of a method with a fresh transaction id.
    pub fn new(method: Method) -> Self {
        Self::of(MessageType::new(method, CLASS_REQUEST))
    }

    /// An indication of a method.
    pub fn indication(method: Method) -> Self {
        Self::of(MessageType::new(method, CLASS_INDICATION))
    }

    fn of(kind: MessageType) -> Self {
        let mut message = Message::new();
        message.set_type(kind);
        message.new_transaction_id().unwrap();
        message.write_header();
        Self(message)
    }

    /// Allocate with REQUESTED-TRANSPORT = UDP.
    pub fn allocate() -> Self {
        Self::new(METHOD_ALLOCATE).with(ATTR_REQUESTED_TRANSPORT, &[UDP, 0, 0, 0])
    }

    /// Refresh with a lifetime in seconds.
    pub fn refresh(lifetime: u32) -> Self {
        Self::new(METHOD_REFRESH).lifetime(lifetime)
    }

    /// CreatePermission for these peers.
    pub fn permission(peers: &[SocketAddr]) -> Self {
        peers.iter().fold(Self::new(METHOD_CREATE_PERMISSION), |request, peer| request.peer(*peer))
    }

    /// ChannelBind of a number to a peer.
    pub fn channel_bind(number: u16, peer: SocketAddr) -> Self {
        Self::new(METHOD_CHANNEL_BIND).channel(number).peer(peer)
    }

    /// A Send indication.
    pub fn send(peer: SocketAddr, data: &[u8]) -> Self {
        Self::indication(METHOD_SEND).peer(peer).with(ATTR_DATA, data)
    }

    /// Appends an attribute.
    #[must_use]
    pub fn with(mut self, kind: AttrType, value: &[u8]) -> Self {
        self.0.add(kind, value);
        self
    }

    /// Appends LIFETIME.
    #[must_use]
    pub fn lifetime(self, seconds: u32) -> Self {
        self.with(ATTR_LIFETIME, &seconds.to_be_bytes())
    }

    /// Appends CHANNEL-NUMBER.
    #[must_use]
    pub fn channel(self, number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        self.with(ATTR_CHANNEL_NUMBER, &[high, low, 0, 0])
    }

    /// Appends XOR-PEER-ADDRESS.
    #[must_use]
    pub fn peer(mut self, peer: SocketAddr) -> Self {
        let address = XorMappedAddress { ip: peer.ip(), port: peer.port() };
        address.add_to_as(&mut self.0, ATTR_XOR_PEER_ADDRESS).unwrap();
        self
    }

    /// Appends REQUESTED-ADDRESS-FAMILY.
    #[must_use]
    pub fn family(self, family: u8) -> Self {
        self.with(ATTR_REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
    }

    /// Appends USERNAME, REALM, NONCE and MESSAGE-INTEGRITY.
    #[must_use]
    pub fn signed(self, user: &str, password: &str, realm: &str, nonce: &[u8]) -> Self {
        let mut request = self
            .with(ATTR_USERNAME, user.as_bytes())
            .with(ATTR_REALM, realm.as_bytes())
            .with(ATTR_NONCE, nonce);
        let key = MessageIntegrity::new_long_term_integrity(user.into(), realm.into(), password.into());
        key.add_to(&mut request.0).unwrap();
        request
    }

    /// Appends FINGERPRINT.
    #[must_use]
    pub fn fingerprint(mut self) -> Self {
        FINGERPRINT.add_to(&mut self.0).unwrap();
        self
    }

    /// Appends MESSAGE-INTEGRITY-SHA256 made with a key.
    #[must_use]
    pub fn integrity_sha256(mut self, key: &[u8]) -> Self {
        // The length counts the attribute itself: an empty one is added first, then filled.
        self.0.add(ATTR_MESSAGE_INTEGRITY_SHA256, &[0; 32]);
        let at = self.0.raw.len() - 36;
        let code = hmac_sha256(key, &self.0.raw[..at]);
        self.0.raw[at + 4..].copy_from_slice(&code);
        self
    }

    /// Appends MESSAGE-INTEGRITY made with a key.
    #[must_use]
    pub fn integrity_sha1(mut self, key: &[u8]) -> Self {
        MessageIntegrity(key.to_vec()).add_to(&mut self.0).unwrap();
        self
    }

    /// Its transaction id.
    pub fn transaction(&self) -> [u8; 12] {
        self.0.transaction_id.0
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.0.raw
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer(pub Message);

impl Answer {
    /// Whether it is a success.
    pub fn is_success(&self) -> bool {
        self.0.typ.class == CLASS_SUCCESS_RESPONSE
    }

    /// The error code; 0 for a success.
    #[track_caller]
    pub fn code(&self) -> u16 {
        if self.is_success() {
            return 0;
        }
        assert_eq!(self.0.typ.class, CLASS_ERROR_RESPONSE, "no answer at all: {}", self.0);
        let mut code = ErrorCodeAttribute::default();
        code.get_from(&self.0).unwrap();
        code.code.0
    }

    /// The value of an attribute.
    pub fn value(&self, kind: AttrType) -> Option<Vec<u8>> {
        self.0.get(kind).ok()
    }

    /// A XORed address.
    pub fn address(&self, kind: AttrType) -> Option<SocketAddr> {
        let mut address = XorMappedAddress::default();
        address.get_from_as(&self.0, kind).ok()?;
        Some(SocketAddr::new(address.ip, address.port))
    }

    /// XOR-RELAYED-ADDRESS.
    #[track_caller]
    pub fn relayed(&self) -> SocketAddr {
        assert_eq!(self.code(), 0, "no allocation");
        self.address(ATTR_XOR_RELAYED_ADDRESS).expect("a success of Allocate carries XOR-RELAYED-ADDRESS")
    }

    /// LIFETIME in seconds.
    #[track_caller]
    pub fn lifetime(&self) -> u32 {
        let value = self.value(ATTR_LIFETIME).expect("LIFETIME");
        u32::from_be_bytes(value.try_into().unwrap())
    }

    /// The types in UNKNOWN-ATTRIBUTES.
    pub fn unknown(&self) -> Vec<u16> {
        let mut unknown = UnknownAttributes(Vec::new());
        unknown
            .get_from(&self.0)
            .map(|()| unknown.0.iter().map(AttrType::value).collect())
            .unwrap_or_default()
    }

    /// Whether MESSAGE-INTEGRITY-SHA256 is there and made with this key.
    pub fn is_sealed_by(&self, key: &[u8]) -> bool {
        let Some(at) = self.offset(ATTR_MESSAGE_INTEGRITY_SHA256) else { return false };
        let mut covered = self.0.raw[..at].to_vec();
        let length = u16::try_from(at + 36 - 20).unwrap();
        covered[2..4].copy_from_slice(&length.to_be_bytes());
        self.0.raw[at + 4..at + 36] == hmac_sha256(key, &covered)
    }

    /// Where an attribute begins.
    fn offset(&self, kind: AttrType) -> Option<usize> {
        let mut at = 20;
        while let Some(head) = self.0.raw.get(at..at + 4) {
            if u16::from_be_bytes([head[0], head[1]]) == kind.value() {
                return Some(at);
            }
            at += 4 + usize::from(u16::from_be_bytes([head[2], head[3]])).next_multiple_of(4);
        }
        None
    }

    /// Every value of an attribute, in order.
    pub fn values(&self, kind: AttrType) -> Vec<Vec<u8>> {
        let all = self.0.attributes.0.iter().filter(|attribute| attribute.typ == kind);
        all.map(|attribute| attribute.value.clone()).collect()
    }

    /// Whether MESSAGE-INTEGRITY is there and made with this password.
    pub fn is_signed_by(&self, user: &str, password: &str) -> bool {
        let key =
            MessageIntegrity::new_long_term_integrity(user.into(), server::REALM.into(), password.into());
        key.check(&mut self.0.clone()).is_ok()
    }
}

/// One line to the server, and the credentials it uses.
#[derive(Debug)]
pub struct Client {
    line: Line,
    /// Username and password of [`Self::signed`].
    pub user: (String, String),
    nonce: Vec<u8>,
}

impl Client {
    /// A client over UDP, on the loopback of the server's family.
    pub fn new(server: SocketAddr) -> Self {
        Self::on(Line::udp(server))
    }

    /// A client on a line that is there.
    pub fn on(line: Line) -> Self {
        let (name, password) = server::ALICE;
        Self { line, user: (name.into(), password.into()), nonce: Vec::new() }
    }

    /// A client of another user.
    #[must_use]
    pub fn with_user(mut self, (name, password): (&str, &str)) -> Self {
        self.user = (name.into(), password.into());
        self
    }

    /// A client that holds an allocation, and its relayed address.
    #[track_caller]
    pub fn allocated(server: SocketAddr) -> (Self, SocketAddr) {
        let mut client = Self::new(server);
        let relayed = client.ask_signed(Request::allocate()).relayed();
        (client, relayed)
    }

    /// Its own address.
    pub fn local(&self) -> SocketAddr {
        self.line.local()
    }

    /// What it talks over.
    pub const fn line(&self) -> &Line {
        &self.line
    }

    /// Gets an allocation; gives its relayed address.
    #[track_caller]
    pub fn allocate(&mut self) -> SocketAddr {
        self.ask_signed(Request::allocate()).relayed()
    }

    /// The nonce it was given last.
    pub fn nonce(&self) -> &[u8] {
        &self.nonce
    }

    /// Takes a nonce from elsewhere.
    pub fn set_nonce(&mut self, nonce: &[u8]) {
        self.nonce = nonce.to_vec();
    }

    /// Sends bytes as they are.
    pub fn send(&self, bytes: &[u8]) {
        self.line.send(bytes);
    }

    /// The next message, or `None` after `wait`.
    pub fn receive_within(&self, wait: Duration) -> Option<Vec<u8>> {
        self.line.receive_within(wait)
    }

    /// The next message.
    #[track_caller]
    pub fn receive(&self) -> Vec<u8> {
        self.receive_within(PATIENCE).expect("a message")
    }

    /// Sends a request once and gives the very next message, which must be its answer. Loopback loses nothing, so
    /// there is no retransmission: a second answer would be a defect to be seen.
    #[track_caller]
    pub fn ask(&self, request: &Request) -> Answer {
        self.send(request.bytes());
        let answer = decode(self.receive());
        assert_eq!(
            answer.0.transaction_id, request.0.transaction_id,
            "the answer to something else: {}",
            answer.0
        );
        assert_eq!(answer.0.typ.method, request.0.typ.method);
        answer
    }

    /// Signs a request with the user's password and the nonce; fetches a nonce first when there is none.
    #[track_caller]
    pub fn signed(&mut self, request: Request) -> Request {
        if self.nonce.is_empty() {
            let challenge = self.ask(&Request::allocate());
            assert_eq!(challenge.code(), 401);
            self.nonce = challenge.value(ATTR_NONCE).expect("a 401 carries NONCE");
        }
        request.signed(&self.user.0, &self.user.1, server::REALM, &self.nonce)
    }

    /// Signs a request and asks.
    #[track_caller]
    pub fn ask_signed(&mut self, request: Request) -> Answer {
        let request = self.signed(request);
        self.ask(&request)
    }

    /// Asserts that nothing that was sent before is answered: a Binding sent after it is answered first.
    ///
    /// One socket reaches one worker, which answers in order; so no waiting for silence.
    #[track_caller]
    pub fn hears_nothing(&self) {
        let answer = self.ask(&Request::new(METHOD_BINDING));
        assert_eq!(answer.code(), 0);
    }

    /// Sends ChannelData: unpadded over UDP, padded with zeros in a stream.
    pub fn send_channel_data(&self, number: u16, data: &[u8]) {
        let mut bytes = channel_data(number, data);
        if self.line.is_stream() {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        self.send(&bytes);
    }

    /// The next message as ChannelData: its number and data. Padding has to be zeros, and the least there can be.
    #[track_caller]
    pub fn receive_channel_data(&self) -> (u16, Vec<u8>) {
        let bytes = self.receive();
        let number = u16::from_be_bytes([bytes[0], bytes[1]]);
        assert!((0x4000..0x8000).contains(&number), "no ChannelData: {:02x?}", &bytes[..20.min(bytes.len())]);
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        let (data, padding) = bytes[4..].split_at(length);
        assert!(padding.len() < 4 && padding.iter().all(|byte| *byte == 0), "padded with {padding:02x?}");
        assert!(!self.line.is_stream() || bytes.len().is_multiple_of(4), "{} bytes in a stream", bytes.len());
        (number, data.to_vec())
    }

    /// The next message as a Data indication: peer and data.
    #[track_caller]
    pub fn receive_data(&self) -> (SocketAddr, Vec<u8>) {
        let indication = decode(self.receive());
        assert_eq!(indication.0.typ, MessageType::new(METHOD_DATA, CLASS_INDICATION));
        let peer = indication.address(ATTR_XOR_PEER_ADDRESS).expect("XOR-PEER-ADDRESS");
        (peer, indication.value(ATTR_DATA).expect("DATA"))
    }

    /// The same, whatever ICMP errors are told before it.
    #[track_caller]
    pub fn receive_data_between_errors(&self) -> (SocketAddr, Vec<u8>) {
        loop {
            let indication = decode(self.receive());
            if let Some(data) = indication.value(ATTR_DATA) {
                return (indication.address(ATTR_XOR_PEER_ADDRESS).expect("XOR-PEER-ADDRESS"), data);
            }
        }
    }

    /// The peer and the ICMP attribute of a Data indication.
    #[track_caller]
    pub fn receive_icmp(&self) -> (SocketAddr, Vec<u8>) {
        const ICMP: AttrType = AttrType(0x8004);
        let indication = decode(self.receive());
        assert_eq!(indication.0.typ, MessageType::new(METHOD_DATA, CLASS_INDICATION));
        assert_eq!(indication.value(ATTR_DATA), None, "ICMP and DATA exclude each other");
        let peer = indication.address(ATTR_XOR_PEER_ADDRESS).expect("XOR-PEER-ADDRESS");
        (peer, indication.value(ICMP).expect("ICMP"))
    }
}

/// A ChannelData message.
pub fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [&number.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
}

#[track_caller]
fn decode(bytes: Vec<u8>) -> Answer {
    let mut message = Message { raw: bytes, ..Message::default() };
    message.decode().unwrap_or_else(|error| panic!("{error}: {:02x?}", message.raw));
    Answer(message)
}

/// The key of a long-term credential with SHA-256 (RFC 8489 section 18.5.1.2).
pub fn sha256_key(user: &str, password: &str) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(format!("{user}:{}:{password}", server::REALM)).to_vec()
}

/// The key of a long-term credential with MD5 (RFC 8489 section 18.5.1.1).
pub fn md5_key(user: &str, password: &str) -> Vec<u8> {
    use md5::Digest as _;
    md5::Md5::digest(format!("{user}:{}:{password}", server::REALM)).to_vec()
}

/// USERHASH (RFC 8489 section 14.4).
pub fn userhash(user: &str) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(format!("{user}:{}", server::REALM)).to_vec()
}

fn hmac_sha256(key: &[u8], covered: &[u8]) -> [u8; 32] {
    use hmac::{KeyInit as _, Mac as _};
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(covered);
    mac.finalize().into_bytes().into()
}

/// A TURN REST credential that is valid for an hour: username and password.
pub fn rest_credential(user: &str, secret: &str, expires_in: Duration) -> (String, String) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    rest_credential_until(user, secret, now + expires_in)
}

/// A TURN REST credential that expires at a time since the epoch.
pub fn rest_credential_until(user: &str, secret: &str, expiry: Duration) -> (String, String) {
    use base64::Engine as _;
    use hmac::{KeyInit as _, Mac as _};
    let name = format!("{}:{user}", expiry.as_secs());
    let mut mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(name.as_bytes());
    let password = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    (name, password)
}

/// A peer that sends back what it gets. It lives on 127.0.0.2 (or ::1), away from the server's own address.
#[derive(Debug)]
pub struct EchoPeer {
    /// Where it listens.
    pub address: SocketAddr,
    thread: Option<JoinHandle<Vec<SocketAddr>>>,
}

impl EchoPeer {
    /// Starts one on 127.0.0.2.
    pub fn start() -> Self {
        Self::start_on("127.0.0.2")
    }

    /// Starts one on an address of this host.
    pub fn start_on(ip: &str) -> Self {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut sources = Vec::new();
            let mut buffer = [0; 65_536];
            while let Ok((length, source)) = socket.recv_from(&mut buffer) {
                // An empty datagram from the test itself ends it.
                if length == 0 && source.ip() == address.ip() {
                    break;
                }
                sources.push(source);
                let _ = socket.send_to(&buffer[..length], source);
            }
            sources
        });
        Self { address, thread: Some(thread) }
    }

    /// Stops it; gives the source of everything it got.
    pub fn stop(mut self) -> Vec<SocketAddr> {
        self.end().expect("it stops once")
    }

    fn end(&mut self) -> Option<Vec<SocketAddr>> {
        let thread = self.thread.take()?;
        UdpSocket::bind((self.address.ip(), 0)).and_then(|socket| socket.send_to(&[], self.address)).ok()?;
        thread.join().ok()
    }
}

impl Drop for EchoPeer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until `deadline` at most for a datagram on a plain socket.
pub fn receive_from(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = vec![0; 65_536];
    let deadline = Instant::now() + PATIENCE;
    socket.set_read_timeout(Some(deadline - Instant::now())).unwrap();
    let (length, source) = socket.recv_from(&mut buffer).ok()?;
    buffer.truncate(length);
    Some((buffer, source))
}
