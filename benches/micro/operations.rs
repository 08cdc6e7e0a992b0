//! The operations: each is prepared once and then repeated.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use passerelle::auth::{Credentials, SharedSecrets, Users};
use passerelle::stun::{Algorithm, Class, Key, Message, Method, TransactionId, Writer, attribute};
use passerelle::turn::{
    Config, FiveTuple, Now, RelayAddress, RelayId, Server, Settings, Shared, Transport, Verdict,
};
use secrecy::SecretString;

/// Every operation.
pub(crate) const NAMES: [&str; 9] = [
    "decode_request",
    "integrity_sha1",
    "integrity_sha256",
    "channel_to_peer",
    "channels_to_peer",
    "send_to_peer",
    "channel_to_client",
    "data_to_client",
    "binding",
];

const REALM: &str = "bench.test";
const CHANNEL: u16 = 0x4000;

/// A prepared operation.
pub(crate) type Operation = Box<dyn FnMut()>;

/// Prepares an operation and repeats it.
pub(crate) fn run(name: &str, count: u64) {
    let mut operation = prepare(name);
    (0..count).for_each(|_| operation());
}

/// Prepares an operation.
pub(crate) fn prepare(name: &str) -> Operation {
    match name {
        "decode_request" => {
            let request = signed(&[7; 40]);
            Box::new(move || {
                let _ = black_box(Message::parse(black_box(&request)));
            })
        }
        "integrity_sha1" => {
            let (request, key) = (signed(&[7; 40]), key());
            Box::new(move || {
                black_box(Message::parse(&request).unwrap().verify_sha1(black_box(&key)));
            })
        }
        "integrity_sha256" => {
            let key = key();
            let mut request = Vec::new();
            Writer::new(&mut request, Class::Request, Method::Refresh, TransactionId([1; 12]))
                .attribute(attribute::USERNAME, b"1800000000:user")
                .integrity_sha256(&key);
            Box::new(move || {
                black_box(Message::parse(&request).unwrap().verify_sha256(black_box(&key)));
            })
        }
        "channel_to_peer" => {
            let (mut world, client, _) = World::with_clients(1);
            let data = channel_data();
            Box::new(move || drop(black_box(world.server.on_client(&client(0), &data, world.now))))
        }
        "channels_to_peer" => {
            let (mut world, client, _) = World::with_clients(1000);
            let (data, mut turn) = (channel_data(), 0);
            Box::new(move || {
                turn = (turn + 1) % 1000;
                drop(black_box(world.server.on_client(&client(turn), &data, world.now)));
            })
        }
        "send_to_peer" => {
            let (mut world, client, _) = World::with_clients(1);
            let mut data = Vec::new();
            Writer::new(&mut data, Class::Indication, Method::Send, TransactionId([2; 12]))
                .xor_address(attribute::XOR_PEER_ADDRESS, peer())
                .attribute(attribute::DATA, &[7; 1000]);
            Box::new(move || drop(black_box(world.server.on_client(&client(0), &data, world.now))))
        }
        "channel_to_client" => {
            let (mut world, _, relay) = World::with_clients(1);
            Box::new(move || drop(black_box(world.server.on_peer(relay, peer(), 1000, world.now))))
        }
        "data_to_client" => {
            let (mut world, _, relay) = World::with_clients(1);
            let other = SocketAddr::new(peer().ip(), 6000);
            Box::new(move || drop(black_box(world.server.on_peer(relay, other, 1000, world.now))))
        }
        "binding" => {
            let mut world = World::new();
            let mut request = Vec::new();
            Writer::new(&mut request, Class::Request, Method::Binding, TransactionId([3; 12]));
            let client = client(0);
            Box::new(move || drop(black_box(world.server.on_client(&client, &request, world.now))))
        }
        other => panic!("no operation {other}"),
    }
}

fn peer() -> SocketAddr {
    SocketAddr::from(([8, 8, 4, 4], 5000))
}

fn client(number: u16) -> FiveTuple {
    FiveTuple {
        client: SocketAddr::from(([8, 8, 8, (number >> 8) as u8], 2000 + number)),
        server: SocketAddr::from(([9, 9, 9, 9], 3478)),
        transport: Transport::Udp,
    }
}

fn key() -> Key {
    Key::long_term(Algorithm::Md5, "user", REALM, "password")
}

fn signed(nonce: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    Writer::new(&mut request, Class::Request, Method::Allocate, TransactionId([1; 12]))
        .attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .attribute(attribute::USERNAME, b"user")
        .attribute(attribute::REALM, REALM.as_bytes())
        .attribute(attribute::NONCE, nonce)
        .integrity_sha1(&key())
        .fingerprint();
    request
}

fn channel_data() -> Vec<u8> {
    let mut data = CHANNEL.to_be_bytes().to_vec();
    data.extend(1000u16.to_be_bytes());
    data.resize(1004, 7);
    data
}

/// A server, and the time it believes it is.
struct World {
    server: Server,
    now: Now,
}

impl World {
    fn new() -> Self {
        let address = "9.9.9.9".parse().unwrap();
        let mut config = Config { realm: REALM.into(), ..Config::default() };
        config.relay_addresses = vec![RelayAddress { local: address, external: address }];
        config.limits.allocations_per_user = 100_000;
        config.limits.allocations_per_ip = 100_000;
        config.limits.unauthenticated_per_second = 0;
        config.limits.binding_per_second = 0;
        let users = Users::new(REALM, &[("user".into(), SecretString::from("password"))]);
        let keys = Arc::new(Credentials::new(users, SharedSecrets::default()));
        let shared = Shared::new(&config.relay_addresses, config.ports, [7; 32]);
        let now = Now { instant: Instant::now(), unix: 1_800_000_000 };
        let mut state = 1u8;
        let entropy = Box::new(move |bytes: &mut [u8]| {
            for byte in bytes {
                state = state.wrapping_mul(5).wrapping_add(113);
                *byte = state;
            }
        });
        Self { server: Server::new(shared, Settings::new(config), keys, entropy, now), now }
    }

    /// Clients with a channel to [`peer`]; the relay of the first.
    fn with_clients(count: u16) -> (Self, fn(u16) -> FiveTuple, RelayId) {
        let mut world = Self::new();
        let relays: Vec<RelayId> = (0..count).map(|number| world.allocate(&client(number))).collect();
        (world, client, *relays.first().unwrap())
    }

    fn ask(&mut self, from: &FiveTuple, request: &[u8]) -> (Vec<u8>, Option<RelayId>) {
        let mut relay = None;
        let mut verdict = self.server.on_client(from, request, self.now);
        while let Verdict::Bind(bind) = verdict {
            relay = bind.sockets.first().map(|(id, _)| *id);
            verdict = self.server.on_bound(bind, Ok(()), self.now);
        }
        while self.server.poll_output().is_some() {}
        (self.server.reply().to_vec(), relay)
    }

    fn allocate(&mut self, from: &FiveTuple) -> RelayId {
        let mut bare = Vec::new();
        Writer::new(&mut bare, Class::Request, Method::Allocate, TransactionId([9; 12]))
            .attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        let (challenge, _) = self.ask(from, &bare);
        let nonce = Message::parse(&challenge).unwrap().first(attribute::NONCE).unwrap().to_vec();
        let (_, relay) = self.ask(from, &signed(&nonce));
        let mut bind = Vec::new();
        Writer::new(&mut bind, Class::Request, Method::ChannelBind, TransactionId([8; 12]))
            .attribute(attribute::CHANNEL_NUMBER, &[0x40, 0, 0, 0])
            .xor_address(attribute::XOR_PEER_ADDRESS, peer())
            .attribute(attribute::USERNAME, b"user")
            .attribute(attribute::REALM, REALM.as_bytes())
            .attribute(attribute::NONCE, &nonce)
            .integrity_sha1(&key());
        let (bound, _) = self.ask(from, &bind);
        assert_eq!(Message::parse(&bound).unwrap().class(), Class::Success);
        relay.expect("an allocation")
    }
}
