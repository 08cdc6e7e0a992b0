//! What the relay allocates on the heap: nothing for a packet, nothing for a stranger, little for an allocation, and
//! nothing that stays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use passerelle::stun::{Algorithm, Class, Key, Message, Method, TransactionId, Writer, attribute};
use passerelle::turn::{
    Candidate, Config, FiveTuple, Grant, Keys, Name, Now, Output, PortRange, RelayAddress, RelayId, Server,
    Settings, Shared, Transport, Verdict,
};
use smallvec::{SmallVec, smallvec};

/// The system's allocator, counting for each thread by itself: tests run side by side.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static WATCHED_HERE: Cell<bool> = const { Cell::new(false) };
    static LIVE_BYTES: Cell<i64> = const { Cell::new(0) };
}

/// Allocations of threads that were [`watch`]ed.
static WATCHED: AtomicU64 = AtomicU64::new(0);

/// Counts what this thread allocates from now on where other threads can see it.
fn watch() {
    WATCHED_HERE.set(true);
}

fn count(allocations: u64, bytes: i64) {
    if allocations > 0 && WATCHED_HERE.try_with(Cell::get).unwrap_or(false) {
        WATCHED.fetch_add(allocations, Ordering::SeqCst);
    }
    // A thread that is going away counts no more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + allocations));
    let _ = LIVE_BYTES.try_with(|live| live.set(live.get() + bytes));
}

#[allow(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call goes on to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread allocated, and how many bytes more it holds, after `act`.
fn measured(act: impl FnOnce()) -> (u64, i64) {
    let before = (ALLOCATIONS.get(), LIVE_BYTES.get());
    act();
    (ALLOCATIONS.get() - before.0, LIVE_BYTES.get() - before.1)
}

const REALM: &str = "example.org";
const ROUNDS: usize = 1000;

/// One user whose quota is boundless.
struct OneUser(Key, Arc<Grant>);

impl Keys for OneUser {
    fn candidates(&self, _: Name<'_>, _: &str, _: Algorithm) -> SmallVec<[Candidate; 2]> {
        smallvec![Candidate { key: self.0.clone(), grant: Arc::clone(&self.1) }]
    }

    fn supports_userhash(&self) -> bool {
        false
    }
}

/// A server, its clock and a buffer that requests are written into.
struct Relay {
    server: Server,
    shared: Arc<Shared>,
    key: Key,
    now: Now,
    bytes: Vec<u8>,
}

fn client(number: u32) -> FiveTuple {
    let ip = Ipv4Addr::from(0x0505_0000 + number / 50);
    FiveTuple {
        client: SocketAddr::from((ip, 4000 + (number % 50) as u16)),
        server: "9.9.9.9:3478".parse().unwrap(),
        transport: Transport::Udp,
    }
}

fn peer(number: u8) -> SocketAddr {
    SocketAddr::from(([8, 8, 8, number], 5000))
}

impl Relay {
    fn new() -> Self {
        let ip = "9.9.9.9".parse().unwrap();
        let mut config = Config { realm: REALM.into(), ..Config::default() };
        config.relay_addresses = vec![RelayAddress { local: ip, external: ip }];
        config.ports = PortRange { first: 20_000, last: 65_535 };
        config.limits.allocations_per_user = usize::MAX;
        config.limits.allocations_per_ip = usize::MAX;
        config.limits.unauthenticated_per_second = 0;
        config.limits.binding_per_second = 0;
        let key = Key::long_term(Algorithm::Md5, "ana", REALM, "secret");
        let name = || Arc::from("ana");
        let grant = Arc::new(Grant {
            username: name(),
            user: name(),
            call: Some(name()),
            serial: 1,
            expires_unix: None,
        });
        let shared = Shared::new(&config.relay_addresses, config.ports, [7; 32]);
        let mut state = 1u64;
        let entropy = Box::new(move |bytes: &mut [u8]| {
            for byte in bytes {
                state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                *byte = (state >> 56) as u8;
            }
        });
        let now = Now { instant: Instant::now(), unix: 1_700_000_000 };
        let keys = Arc::new(OneUser(key.clone(), grant));
        let server = Server::new(Arc::clone(&shared), Settings::new(config), keys, entropy, now);
        Self { server, shared, key, now, bytes: Vec::with_capacity(2048) }
    }

    /// Writes a request, with credentials where there is a nonce.
    fn write(&mut self, method: Method, nonce: Option<&[u8]>, attributes: impl FnOnce(&mut Writer<'_>)) {
        let mut writer = Writer::new(&mut self.bytes, Class::Request, method, TransactionId([3; 12]));
        attributes(&mut writer);
        if let Some(nonce) = nonce {
            writer
                .attribute(attribute::USERNAME, b"ana")
                .attribute(attribute::REALM, REALM.as_bytes())
                .attribute(attribute::NONCE, nonce)
                .integrity_sha1(&self.key);
        }
    }

    /// Sends what is written and expects an answer of this class.
    fn answer(&mut self, from: &FiveTuple, class: Class) {
        let mut verdict = self.server.on_client(from, &self.bytes, self.now);
        if let Verdict::Bind(bind) = verdict {
            verdict = self.server.on_bound(bind, Ok(()), self.now);
        }
        assert!(matches!(verdict, Verdict::Reply), "{verdict:?}");
        assert_eq!(Message::parse(self.server.reply()).unwrap().class(), class);
    }

    fn nonce(&mut self, from: &FiveTuple) -> [u8; 29] {
        self.write(Method::Allocate, None, |_| {});
        self.answer(from, Class::Error);
        let message = Message::parse(self.server.reply()).unwrap();
        message.first(attribute::NONCE).unwrap().try_into().unwrap()
    }

    fn allocate(&mut self, from: &FiveTuple) -> [u8; 29] {
        let nonce = self.nonce(from);
        self.write(Method::Allocate, Some(&nonce), |writer| {
            writer.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        });
        self.answer(from, Class::Success);
        nonce
    }

    fn bind_channel(&mut self, from: &FiveTuple, nonce: &[u8], number: u16, peer: SocketAddr) {
        self.write(Method::ChannelBind, Some(nonce), |writer| {
            writer.u32(attribute::CHANNEL_NUMBER, u32::from(number) << 16);
            writer.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        });
        self.answer(from, Class::Success);
    }

    fn permit(&mut self, from: &FiveTuple, nonce: &[u8], peer: SocketAddr) {
        self.write(Method::CreatePermission, Some(nonce), |writer| {
            writer.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        });
        self.answer(from, Class::Success);
    }

    /// Drains the outputs as the shell does: a closed socket frees its port.
    fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            if let Output::Close { lease, .. } = output {
                drop(lease);
            }
        }
    }

    /// A client with a channel to one peer and a permission for another; its relayed address.
    fn established(&mut self) -> RelayId {
        let from = client(0);
        let nonce = self.allocate(&from);
        self.bind_channel(&from, &nonce, 0x4000, peer(1));
        self.permit(&from, &nonce, peer(2));
        self.drain();
        RelayId { slot: 0, family: attribute::Family::V4 }
    }

    /// Sends what is written a thousand times: every time a packet to a peer, never an allocation.
    fn relays_without_allocating(&mut self) {
        let from = client(0);
        let (allocations, bytes) = measured(|| {
            for _ in 0..ROUNDS {
                assert!(matches!(
                    self.server.on_client(&from, &self.bytes, self.now),
                    Verdict::ToPeer { .. }
                ));
            }
        });
        assert_eq!((allocations, bytes), (0, 0));
    }

    fn returns_without_allocating(&mut self, relay: RelayId, peer: SocketAddr) {
        // The first packet of more than checks is an event.
        self.server.on_peer(relay, peer, 60_000, self.now);
        self.drain();
        let (allocations, bytes) = measured(|| {
            for _ in 0..ROUNDS {
                let verdict = self.server.on_peer(relay, peer, 1200, self.now);
                assert!(matches!(verdict, Verdict::ToClient { .. }));
            }
        });
        assert_eq!((allocations, bytes), (0, 0));
    }
}

#[test]
fn a_binding_request_allocates_nothing() {
    let mut relay = Relay::new();
    relay.write(Method::Binding, None, |_| {});
    let (allocations, bytes) =
        measured(|| (0..ROUNDS as u32).for_each(|at| relay.answer(&client(at), Class::Success)));
    assert_eq!((allocations, bytes), (0, 0));
}

#[test]
fn channel_data_allocates_nothing_in_either_direction() {
    let mut relay = Relay::new();
    let relayed = relay.established();
    relay.bytes.clear();
    relay.bytes.extend_from_slice(&[0x40, 0x00, 0x04, 0xB0]);
    relay.bytes.resize(1204, 7);
    relay.relays_without_allocating();
    relay.returns_without_allocating(relayed, peer(1));
}

#[test]
fn send_and_data_indications_allocate_nothing() {
    let mut relay = Relay::new();
    let relayed = relay.established();
    Writer::new(&mut relay.bytes, Class::Indication, Method::Send, TransactionId([4; 12]))
        .xor_address(attribute::XOR_PEER_ADDRESS, peer(2))
        .attribute(attribute::DATA, &[7; 1200]);
    relay.relays_without_allocating();
    relay.returns_without_allocating(relayed, peer(2));
}

#[test]
fn d1_two_hundred_thousand_strangers_cost_no_memory() {
    let mut relay = Relay::new();
    relay.write(Method::Allocate, None, |writer| {
        writer.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    let (allocations, bytes) =
        measured(|| (0..200_000).for_each(|at| relay.answer(&client(at), Class::Error)));
    assert_eq!((allocations, bytes), (0, 0));
    assert_eq!((relay.server.len(), relay.shared.ports_used()), (0, 0));
}

#[test]
fn d1_invented_and_borrowed_nonces_cost_no_memory() {
    let mut relay = Relay::new();
    let borrowed = relay.nonce(&client(0));
    for nonce in [borrowed, [b'x'; 29]] {
        relay.write(Method::Allocate, Some(&nonce), |_| {});
        let (allocations, bytes) =
            measured(|| (1..10_000).for_each(|at| relay.answer(&client(at), Class::Error)));
        assert_eq!((allocations, bytes), (0, 0));
    }
}

#[test]
fn a_refused_stranger_allocates_nothing_whatever_it_sends() {
    let mut relay = Relay::new();
    relay.write(Method::Allocate, None, |writer| {
        (0x7F00..0x7F20).for_each(|unknown| {
            writer.u32(unknown, 0);
        });
    });
    let (allocations, bytes) = measured(|| (0..1000).for_each(|at| relay.answer(&client(at), Class::Error)));
    assert_eq!((allocations, bytes), (0, 0));
}

#[test]
fn an_allocation_with_two_permissions_and_two_channels_fits_into_a_kibibyte() {
    const COUNT: u32 = 4096;
    let mut relay = Relay::new();
    let (_, bytes) = measured(|| {
        for at in 0..COUNT {
            let from = client(at);
            let nonce = relay.allocate(&from);
            relay.bind_channel(&from, &nonce, 0x4000, peer(1));
            relay.bind_channel(&from, &nonce, 0x4001, peer(2));
            relay.drain();
        }
    });
    let each = bytes / i64::from(COUNT);
    assert!(each <= 1024, "{each} bytes an allocation");
}

#[test]
fn ten_thousand_allocations_made_used_and_freed_leave_nothing_behind() {
    let mut relay = Relay::new();
    let mut levels = Vec::new();
    for _ in 0..3 {
        let (_, bytes) = measured(|| {
            for at in 0..10_000 {
                let from = client(at);
                let nonce = relay.allocate(&from);
                relay.bind_channel(&from, &nonce, 0x4000, peer(1));
                relay.permit(&from, &nonce, peer(2));
                relay.drain();
            }
            // Half of them are deleted, half of them run out.
            for at in 0..5_000 {
                let from = client(at);
                let nonce = relay.nonce(&from);
                relay.write(Method::Refresh, Some(&nonce), |writer| {
                    writer.u32(attribute::LIFETIME, 0);
                });
                relay.answer(&from, Class::Success);
                relay.drain();
            }
            // Four turns of the wheel of timers: each round meets the same slots.
            relay.now.instant += Duration::from_secs(4096);
            relay.now.unix += 4096;
            relay.server.on_timeout(relay.now);
            relay.drain();
            assert_eq!((relay.server.len(), relay.shared.ports_used()), (0, 0));
        });
        levels.push(bytes);
    }
    // The first round grows the tables to their size; every further one finds them as it left them.
    assert_eq!(levels[1..], [0, 0], "{levels:?}");
}

/// The sockets' side: batches in, groups out, both directions, through the worker's own thread.
#[test]
fn a_worker_relays_without_allocating() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let config = passerelle::net::Config {
        udp: vec!["127.0.0.1:0".parse().unwrap()],
        tcp: Vec::new(),
        tls: Vec::new(),
        proxies: Vec::new(),
        certificate: None,
        connections_per_ip: 1,
        first_byte_timeout: Duration::from_secs(1),
        unauthenticated_timeout: Duration::from_secs(1),
        stream_queue: 1 << 16,
        workers: 1,
        receive_buffer: 4 << 20,
        segmentation: true,
    };
    let relay = passerelle::net::Relay::bind(config).unwrap();
    let server = relay.listeners()[0].1;
    let mut turn = Config { realm: REALM.into(), ..Config::default() };
    let ip = "127.0.0.7".parse().unwrap();
    turn.relay_addresses = vec![RelayAddress { local: ip, external: ip }];
    turn.peers.allow = vec!["127.0.0.0/8".parse().unwrap()];
    let key = Key::long_term(Algorithm::Md5, "ana", REALM, "secret");
    let grant = Arc::new(Grant {
        username: "ana".into(),
        user: "ana".into(),
        call: None,
        serial: 0,
        expires_unix: None,
    });
    let handle = relay
        .start(passerelle::net::Parts {
            turn,
            keys: Arc::new(OneUser(key.clone(), grant)),
            metrics: Arc::new(passerelle::metrics::Metrics::new().unwrap()),
            // Called by the worker.
            on_event: Arc::new(|_| watch()),
            http: None,
            on_failure: Box::new(|what| panic!("{what}")),
        })
        .unwrap();
    let socket = |ip: &str| {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    };
    let (client, peer) = (socket("127.0.0.1"), socket("127.0.0.2"));
    client.connect(server).unwrap();
    let relayed = bind_over(&client, &key, peer.local_addr().unwrap());
    let mut buffer = [0; 2048];
    let mut exchange = |rounds: usize| {
        let mut packet = [7; 1204];
        packet[..4].copy_from_slice(&[0x40, 0x00, 0x04, 0xB0]);
        for _ in 0..rounds {
            (0..16).for_each(|_| drop(client.send(&packet)));
            (0..16).for_each(|_| assert_eq!(peer.recv(&mut buffer).unwrap(), 1200));
            (0..16).for_each(|_| drop(peer.send_to(&packet[4..], relayed)));
            (0..16).for_each(|_| assert_eq!(client.recv(&mut buffer).unwrap(), 1204));
        }
    };
    // The worker's own buffers grow to what a batch needs.
    exchange(50);
    let before = WATCHED.load(Ordering::SeqCst);
    assert!(before > 0, "the worker is watched");
    exchange(200);
    assert_eq!(WATCHED.load(Ordering::SeqCst) - before, 0);
    handle.stop();
}

/// Makes an allocation and binds channel 0x4000 to the peer; gives the relayed address.
fn bind_over(client: &UdpSocket, key: &Key, peer: SocketAddr) -> SocketAddr {
    let mut bytes = Vec::new();
    let mut ask = |method, nonce: Option<&[u8]>, fill: &dyn Fn(&mut Writer<'_>)| {
        let mut writer = Writer::new(&mut bytes, Class::Request, method, TransactionId([5; 12]));
        fill(&mut writer);
        if let Some(nonce) = nonce {
            writer.attribute(attribute::USERNAME, b"ana").attribute(attribute::REALM, REALM.as_bytes());
            writer.attribute(attribute::NONCE, nonce).integrity_sha1(key);
        }
        client.send(&bytes).unwrap();
        let mut answer = vec![0; 2048];
        let length = client.recv(&mut answer).unwrap();
        answer.truncate(length);
        answer
    };
    let udp = |writer: &mut Writer<'_>| {
        writer.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    };
    let challenge = ask(Method::Allocate, None, &udp);
    let nonce = Message::parse(&challenge).unwrap().first(attribute::NONCE).unwrap().to_vec();
    let answer = ask(Method::Allocate, Some(&nonce), &udp);
    let relayed = Message::parse(&answer).unwrap().xor_address(attribute::XOR_RELAYED_ADDRESS);
    let bound = ask(Method::ChannelBind, Some(&nonce), &|writer| {
        writer.u32(attribute::CHANNEL_NUMBER, 0x4000 << 16).xor_address(attribute::XOR_PEER_ADDRESS, peer);
    });
    assert_eq!(Message::parse(&bound).unwrap().class(), Class::Success);
    relayed.flatten().unwrap()
}
