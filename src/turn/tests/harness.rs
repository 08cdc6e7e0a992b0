//! A server with one clock, and a client's side of the messages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::{SmallVec, smallvec};

use crate::stun::{Algorithm, Class, Key, Message, Method, TransactionId, Writer, attribute, userhash};
use crate::turn::{
    BindFailure, Candidate, Config, FiveTuple, Grant, Keys, Measure, Name, Now, Output, RelayAddress,
    RelayId, Server, Settings, Shared, Transport, Verdict,
};

pub(super) const REALM: &str = "example.org";
/// Unix time at which every test starts.
pub(super) const START: u64 = 1_700_000_000;

/// Users `ana` and `ben`, whose password is their name, and `old`, whose credential expires 100 s after the start.
struct Directory;

impl Keys for Directory {
    fn candidates(&self, name: Name<'_>, realm: &str, algorithm: Algorithm) -> SmallVec<[Candidate; 2]> {
        let known = ["ana", "ben", "old", "cyd-1", "cyd-2"].into_iter().find(|known| match name {
            Name::Plain(name) => *known == name,
            Name::Hashed(hash) => userhash(known, realm) == *hash,
        });
        let Some(name) = known else { return SmallVec::new() };
        let grant = Arc::new(Grant {
            username: name.into(),
            user: name.split('-').next().unwrap_or_default().into(),
            call: (name == "ana" || name.starts_with("cyd")).then(|| "call-1".into()),
            serial: if name == "cyd-2" { 2 } else { 1 },
            expires_unix: (name == "old").then_some(START + 100),
        });
        smallvec![Candidate { key: Key::long_term(algorithm, name, realm, name), grant }]
    }

    fn supports_userhash(&self) -> bool {
        true
    }
}

/// A server and its time.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) shared: Arc<Shared>,
    pub(super) now: Now,
    start: Instant,
    /// How many of the next binds fail, and how.
    pub(super) failures: Vec<BindFailure>,
    /// Sockets that are open.
    pub(super) open: Vec<(RelayId, SocketAddr)>,
    /// Ports that may be reserved for a token, beside the sockets.
    pub(super) reserved: usize,
    transactions: u8,
}

pub(super) fn config() -> Config {
    let address = |ip: &str| RelayAddress { local: ip.parse().unwrap(), external: ip.parse().unwrap() };
    let mut config = Config { realm: REALM.into(), ..Config::default() };
    config.relay_addresses = vec![address("9.9.9.9"), address("2600::9")];
    config.peers.own_addresses = config.relay_addresses.iter().map(|address| address.local).collect();
    config
}

/// The 5-tuple of the client with this number.
pub(super) fn client(number: u8) -> FiveTuple {
    FiveTuple {
        client: SocketAddr::from(([8, 8, 8, number], 4000)),
        server: SocketAddr::from(([9, 9, 9, 9], 3478)),
        transport: Transport::Udp,
    }
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An answer, owned.
#[derive(Debug, Clone)]
pub(super) struct Answer(pub(super) Vec<u8>);

impl Answer {
    pub(super) fn message(&self) -> Message<'_> {
        Message::parse(&self.0).unwrap()
    }

    /// 0 for success.
    pub(super) fn code(&self) -> u16 {
        let message = self.message();
        match message.class() {
            Class::Success => 0,
            Class::Error => match message.first(attribute::ERROR_CODE) {
                Some([_, _, class, number, ..]) => u16::from(*class) * 100 + u16::from(*number),
                other => panic!("no code in {other:?}"),
            },
            other => panic!("{other:?} is no answer"),
        }
    }

    pub(super) fn bytes(&self, kind: u16) -> Option<Vec<u8>> {
        self.message().first(kind).map(<[u8]>::to_vec)
    }

    pub(super) fn relayed(&self) -> SocketAddr {
        self.message().xor_address(attribute::XOR_RELAYED_ADDRESS).flatten().unwrap()
    }

    pub(super) fn lifetime(&self) -> u32 {
        attribute::read_u32(&self.bytes(attribute::LIFETIME).unwrap()).unwrap()
    }
}

/// A request being built. Everything is authenticated as `user` unless told otherwise.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) attributes: Vec<(u16, Vec<u8>)>,
    pub(super) peers: Vec<SocketAddr>,
    pub(super) transaction: Option<TransactionId>,
}

impl Ask {
    pub(super) fn new(method: Method) -> Self {
        Self { method, attributes: Vec::new(), peers: Vec::new(), transaction: None }
    }

    pub(super) fn allocate() -> Self {
        Self::new(Method::Allocate).with(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
    }

    pub(super) fn refresh(lifetime: u32) -> Self {
        Self::new(Method::Refresh).with(attribute::LIFETIME, &lifetime.to_be_bytes())
    }

    pub(super) fn permission(peers: &[&str]) -> Self {
        let mut ask = Self::new(Method::CreatePermission);
        ask.peers = peers.iter().map(|peer| address(peer)).collect();
        ask
    }

    pub(super) fn channel(number: u16, peer: &str) -> Self {
        let [high, low] = number.to_be_bytes();
        let mut ask = Self::new(Method::ChannelBind).with(attribute::CHANNEL_NUMBER, &[high, low, 0, 0]);
        ask.peers.push(address(peer));
        ask
    }

    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.attributes.push((kind, value.to_vec()));
        self
    }

    pub(super) fn transaction(mut self, id: u8) -> Self {
        self.transaction = Some(TransactionId([id; 12]));
        self
    }

    /// Writes the request up to its credentials.
    pub(super) fn write<'b>(&self, out: &'b mut Vec<u8>, transaction: TransactionId) -> Writer<'b> {
        let mut writer = Writer::new(out, Class::Request, self.method, transaction);
        for (kind, value) in &self.attributes {
            writer.attribute(*kind, value);
        }
        for peer in &self.peers {
            writer.xor_address(attribute::XOR_PEER_ADDRESS, *peer);
        }
        writer
    }
}

impl World {
    pub(super) fn new(config: Config) -> Self {
        let start = Instant::now();
        let now = Now { instant: start, unix: START };
        let shared = Shared::new(&config.relay_addresses, config.ports, [7; 32]);
        let mut seed = 1u64;
        let entropy = Box::new(move |bytes: &mut [u8]| {
            for byte in bytes {
                seed = seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                *byte = (seed >> 56) as u8;
            }
        });
        let server =
            Server::new(Arc::clone(&shared), Settings::new(config), Arc::new(Directory), entropy, now);
        Self {
            server,
            shared,
            now,
            start,
            failures: Vec::new(),
            open: Vec::new(),
            reserved: 0,
            transactions: 100,
        }
    }

    /// Moves the clocks and runs the timers on the way.
    pub(super) fn sleep(&mut self, seconds: u64) {
        let target = self.now.instant + Duration::from_secs(seconds);
        while let Some(at) = self.server.poll_timeout().filter(|at| *at <= target) {
            self.set(at);
            self.server.on_timeout(self.now);
            self.drain();
        }
        self.set(target);
    }

    fn set(&mut self, instant: Instant) {
        self.now = Now { instant, unix: START + instant.duration_since(self.start).as_secs() };
    }

    /// Sends bytes as a client and carries out what they ask for.
    pub(super) fn send(&mut self, from: &FiveTuple, bytes: &[u8]) -> Verdict {
        let mut verdict = self.server.on_client(from, bytes, self.now);
        while let Verdict::Bind(bind) = verdict {
            let result = match self.failures.pop() {
                Some(failure) => Err(failure),
                None => {
                    self.open.extend(bind.sockets.iter().copied());
                    Ok(())
                }
            };
            verdict = self.server.on_bound(bind, result, self.now);
        }
        self.drain();
        verdict
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            if let Output::Close { relay, lease } = output {
                self.open.retain(|(open, _)| *open != relay);
                drop(lease);
            }
        }
        let leased = self.open.len()..=self.open.len() + self.reserved;
        assert!(leased.contains(&self.shared.ports_used()), "every leased port has a socket");
    }

    pub(super) fn reconfigure(&mut self, settings: Settings) {
        self.server.reconfigure(settings, Arc::new(Directory));
        self.drain();
    }

    /// Sends bytes that have to be answered.
    pub(super) fn answer(&mut self, from: &FiveTuple, bytes: &[u8]) -> Answer {
        match self.send(from, bytes) {
            Verdict::Reply => Answer(self.server.reply().to_vec()),
            other => panic!("{other:?} is no reply"),
        }
    }

    pub(super) fn next_transaction(&mut self) -> TransactionId {
        self.transactions = self.transactions.wrapping_add(1);
        TransactionId([self.transactions; 12])
    }

    /// The nonce of a fresh challenge.
    pub(super) fn nonce(&mut self, from: &FiveTuple) -> Vec<u8> {
        let mut bytes = Vec::new();
        Ask::allocate().write(&mut bytes, TransactionId([0; 12]));
        let answer = self.answer(from, &bytes);
        assert_eq!(answer.code(), 401);
        answer.bytes(attribute::NONCE).unwrap()
    }

    /// Sends an authenticated request and checks that its answer is protected.
    pub(super) fn ask(&mut self, from: &FiveTuple, user: &str, ask: &Ask) -> Answer {
        let nonce = self.nonce(from);
        let transaction = ask.transaction.unwrap_or_else(|| self.next_transaction());
        let mut bytes = Vec::new();
        let key = Key::long_term(Algorithm::Md5, user, REALM, user);
        ask.write(&mut bytes, transaction)
            .attribute(attribute::USERNAME, user.as_bytes())
            .attribute(attribute::REALM, REALM.as_bytes())
            .attribute(attribute::NONCE, &nonce)
            .integrity_sha1(&key);
        let answer = self.answer(from, &bytes);
        assert_eq!(answer.message().transaction(), transaction);
        let challenged = matches!(answer.code(), 401 | 438);
        assert_eq!(answer.message().verify_sha1(&key), !challenged, "{} {}", user, answer.code());
        answer
    }

    /// An allocation of `ana` for a client; its relayed address.
    pub(super) fn allocated(&mut self, number: u8) -> SocketAddr {
        let answer = self.ask(&client(number), "ana", &Ask::allocate());
        assert_eq!(answer.code(), 0);
        answer.relayed()
    }

    /// The value of one of the server's numbers.
    pub(super) fn measure(&self, wanted: Measure) -> u64 {
        let mut found = None;
        self.server.stats().each(|measure, value| {
            if measure == wanted {
                found = Some(value);
            }
        });
        found.unwrap()
    }

    /// The socket of a relayed address.
    pub(super) fn relay(&self, relayed: SocketAddr) -> RelayId {
        self.open.iter().find(|(_, local)| *local == relayed).unwrap().0
    }
}
