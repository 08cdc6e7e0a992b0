use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const OFFLOADS: [Offload; 2] = [Offload::Segmentation, Offload::None];

fn options(offload: Offload) -> Options {
    Options { receive_buffer: 4 << 20, offload }
}

fn bound(address: &str, offload: Offload) -> UdpSocket {
    bind(address.parse().unwrap(), Role::Relay, options(offload)).unwrap()
}

/// A datagram as it arrived.
type Arrived = (SocketAddr, u8, Vec<u8>);

/// Waits for a batch and gives its datagrams.
fn receive(receiver: &mut Receiver, socket: &UdpSocket) -> Vec<Arrived> {
    let deadline = Instant::now() + Duration::from_secs(10);
    receiver.clear();
    let count = loop {
        match receiver.receive(socket.as_raw_fd(), 64) {
            Ok(count) => break count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    };
    (0..count).flat_map(|index| datagrams(receiver, index)).collect()
}

fn datagrams(receiver: &Receiver, index: usize) -> Vec<Arrived> {
    let run = receiver.run(index).unwrap();
    (0..run.len()).map(|at| (run.source, run.traffic_class, run.datagram(at).to_vec())).collect()
}

fn receive_all(receiver: &mut Receiver, socket: &UdpSocket, count: usize) -> Vec<Arrived> {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(receive(receiver, socket));
    }
    seen
}

fn plain(socket: &UdpSocket, destination: SocketAddr) -> Message {
    Message {
        socket: socket.as_raw_fd(),
        destination,
        source: None,
        payload: None,
        padding: 0,
        traffic_class: 0,
        dont_fragment: false,
    }
}

fn flush(sender: &mut Sender, receiver: &Receiver) {
    sender.flush(receiver, Instant::now(), |unsent| panic!("{unsent:?}"));
}

#[test]
fn datagrams_of_every_size_arrive_whole_and_in_order() {
    for (offload, local) in OFFLOADS
        .into_iter()
        .flat_map(|offload| ["127.0.0.1:0", "[::1]:0"].into_iter().map(move |local| (offload, local)))
    {
        let [from, to] = [(); 2].map(|()| bound(local, offload));
        let mut sender = Sender::new(offload);
        let mut receiver = Receiver::new(offload);
        for sizes in [[0, 1, 1472, 1500], [9000, 3, 2, 65_507], [700; 4], [0; 4]] {
            let bodies: Vec<Vec<u8>> = sizes.iter().map(|size| vec![*size as u8; *size]).collect();
            bodies.iter().for_each(|body| sender.push(plain(&from, to.local_addr().unwrap()), body));
            flush(&mut sender, &receiver);
            let seen = receive_all(&mut receiver, &to, bodies.len());
            assert!(seen.iter().all(|(source, ..)| *source == from.local_addr().unwrap()));
            assert_eq!(seen.into_iter().map(|(.., bytes)| bytes).collect::<Vec<_>>(), bodies, "{offload:?}");
        }
    }
}

#[test]
fn a_wildcard_socket_tells_the_destination_and_answers_from_it() {
    for offload in OFFLOADS {
        for (wildcard, own) in [("0.0.0.0:0", "127.0.0.3"), ("[::]:0", "::1")] {
            let server = bound(wildcard, offload);
            let own: IpAddr = own.parse().unwrap();
            let client = UdpSocket::bind((if own.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
            let server_address = SocketAddr::new(own, server.local_addr().unwrap().port());
            client.send_to(b"ping", server_address).unwrap();
            let mut receiver = Receiver::new(offload);
            assert_eq!(receive(&mut receiver, &server).len(), 1);
            let run = receiver.run(0).unwrap();
            assert_eq!((run.destination, run.datagram(0)), (Some(own), b"ping".as_slice()));

            let mut sender = Sender::new(offload);
            let payload = Some(Payload { run: 0, range: 1..4 });
            let source = run.destination;
            let answer = Message { source, payload, padding: 1, ..plain(&server, run.source) };
            sender.push(answer.clone(), b"<");
            sender.push(answer, b">");
            flush(&mut sender, &receiver);
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            for expected in [b"<ing\0", b">ing\0"] {
                let mut answer = [0; 16];
                let (length, from) = client.recv_from(&mut answer).unwrap();
                assert_eq!((&answer[..length], from), (expected.as_slice(), server_address));
            }
        }
    }
}

#[test]
fn one_message_that_cannot_be_sent_does_not_hold_up_the_others() {
    for offload in OFFLOADS {
        let [from, to] = [(); 2].map(|()| bound("127.0.0.1:0", offload));
        let (mut sender, mut receiver) = (Sender::new(offload), Receiver::new(offload));
        let there = to.local_addr().unwrap();
        sender.push(plain(&from, there), b"one");
        sender.push(plain(&from, there), &vec![0; 65_536]);
        sender.push(Message { dont_fragment: true, ..plain(&from, there) }, b"two");
        sender.push(plain(&from, there), b"three");
        let mut unsent = Vec::new();
        sender.flush(&receiver, Instant::now(), |failed| unsent.push((failed.index, failed.code)));
        assert_eq!(unsent, [(1, libc::EMSGSIZE)]);
        let seen: Vec<_> = receive_all(&mut receiver, &to, 3).into_iter().map(|(.., bytes)| bytes).collect();
        assert_eq!(seen, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    }
}

#[test]
fn an_answer_leaves_before_the_data_of_its_batch() {
    for offload in OFFLOADS {
        let [from, to, other] = [(); 3].map(|()| bound("127.0.0.1:0", offload));
        let (mut sender, mut receiver) = (Sender::new(offload), Receiver::new(offload));
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"data", from.local_addr().unwrap()).unwrap();
        receive(&mut receiver, &from);
        let there = to.local_addr().unwrap();
        let data =
            |socket| Message { payload: Some(Payload { run: 0, range: 0..4 }), ..plain(socket, there) };
        for socket in [&other, &from, &other, &from] {
            sender.push(data(socket), b"");
        }
        sender.push(plain(&from, there), b"answer");
        flush(&mut sender, &receiver);
        let seen: Vec<_> = receive_all(&mut receiver, &to, 5).into_iter().map(|(.., bytes)| bytes).collect();
        assert_eq!(seen[0], b"answer", "{offload:?}");
    }
}

#[test]
fn what_a_full_buffer_loses_is_reported() {
    let small = Options { receive_buffer: 4096, ..options(Offload::Segmentation) };
    let to = bind("127.0.0.1:0".parse().unwrap(), Role::Relay, small).unwrap();
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |count| (0..count).for_each(|_| drop(from.send_to(&[0; 1000], to.local_addr().unwrap())));
    send(100);
    let mut receiver = Receiver::new(Offload::Segmentation);
    let kept = receive(&mut receiver, &to).len();
    send(1);
    receive(&mut receiver, &to);
    let lost = receiver.run(0).unwrap().overflow;
    assert_eq!(lost, Some(100 - kept as u32));
}

#[test]
fn a_batch_takes_from_several_sockets_until_it_is_full() {
    for offload in OFFLOADS {
        let sockets = [(); 3].map(|()| bound("127.0.0.1:0", offload));
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (index, socket) in sockets.iter().enumerate() {
            for _ in 0..30 {
                from.send_to(&[index as u8], socket.local_addr().unwrap()).unwrap();
            }
        }
        let mut receiver = Receiver::new(offload);
        let mut counts = Vec::new();
        for socket in &sockets {
            let room = receiver.room();
            counts.push(receiver.receive(socket.as_raw_fd(), room).unwrap());
        }
        assert_eq!((counts, receiver.room()), (vec![30, 30, 4], 0), "{offload:?}");
        let first: Vec<u8> = (0..64).map(|index| receiver.run(index).unwrap().datagram(0)[0]).collect();
        assert_eq!(first, [[0; 30].as_slice(), &[1; 30], &[2; 4]].concat());
    }
}

#[test]
fn a_burst_travels_as_one_run() {
    let [from, to] = [(); 2].map(|()| bound("127.0.0.1:0", Offload::Segmentation));
    let (mut sender, mut receiver) =
        (Sender::new(Offload::Segmentation), Receiver::new(Offload::Segmentation));
    for _ in 0..32 {
        sender.push(plain(&from, to.local_addr().unwrap()), &[7; 1000]);
    }
    sender.push(plain(&from, to.local_addr().unwrap()), &[8; 10]);
    flush(&mut sender, &receiver);
    assert_eq!(receive(&mut receiver, &to).len(), 33);
    assert_eq!(receiver.run(0).unwrap().len(), 33, "the kernel kept the group together");
}

#[test]
fn the_error_of_an_earlier_datagram_does_not_cost_a_later_one() {
    for offload in OFFLOADS {
        let [from, to] = [(); 2].map(|()| bound("127.0.0.1:0", offload));
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (mut sender, mut receiver) = (Sender::new(offload), Receiver::new(offload));
        let mut errors = IcmpErrors::new();
        for round in 0..10 {
            sender.push(plain(&from, nobody), b"to nobody");
            sender.push(plain(&from, to.local_addr().unwrap()), &[round]);
            flush(&mut sender, &receiver);
            drain_errors(from.as_raw_fd(), &mut errors);
        }
        let seen: Vec<_> = receive_all(&mut receiver, &to, 10).into_iter().map(|(.., bytes)| bytes).collect();
        assert_eq!(seen, (0..10).map(|round| vec![round]).collect::<Vec<_>>());
        let port_unreachable = crate::turn::IcmpError::v4(3, 3, 0).unwrap();
        assert_eq!(errors, vec![(nobody, port_unreachable); 10], "{offload:?}");
    }
}

#[test]
fn datagrams_too_large_to_be_grouped_arrive_all_the_same() {
    // Loopback takes 64 KiB at once: what is larger than a datagram may be cannot be tried here, but two of 40,000
    // bytes exceed a group, and each of them is fragmented.
    let [from, to] = [(); 2].map(|()| bound("127.0.0.1:0", Offload::Segmentation));
    let (mut sender, mut receiver) =
        (Sender::new(Offload::Segmentation), Receiver::new(Offload::Segmentation));
    for _ in 0..3 {
        sender.push(plain(&from, to.local_addr().unwrap()), &[7; 40_000]);
    }
    flush(&mut sender, &receiver);
    assert_eq!(receive_all(&mut receiver, &to, 3).len(), 3);
}

/// One message of the comparison.
#[derive(Debug, Clone)]
struct Step {
    socket: usize,
    destination: usize,
    head: Vec<u8>,
    /// Where in the received run the payload begins and how long it is.
    payload: Option<(usize, usize)>,
    padding: u8,
    traffic_class: u8,
    dont_fragment: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => Just(160usize), 4 => Just(1000), 2 => 0..1400usize, 1 => 1400..9000usize];
    (
        (0..2usize, 0..3usize),
        prop::collection::vec(any::<u8>(), 0..48),
        prop::option::weighted(0.9, (0..100usize, size)),
        prop_oneof![6 => Just(0u8), 1 => 0..4u8],
        prop_oneof![6 => Just(0u8), 1 => Just(0xB8)],
        prop::bool::weighted(0.05),
    )
        .prop_map(|((socket, destination), head, payload, padding, traffic_class, dont_fragment)| Step {
            socket,
            destination,
            head,
            payload,
            padding,
            traffic_class,
            dont_fragment,
        })
}

/// Repeats each step, as bursts do.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((step(), 1..40usize), 1..24).prop_map(|steps| {
        steps.into_iter().flat_map(|(step, times)| std::iter::repeat_n(step, times)).take(400).collect()
    })
}

/// What arrived, by way and by whether it was relayed: answers may overtake that, and only them.
type Flows = BTreeMap<(usize, usize, u8), Vec<(u8, Vec<u8>)>>;

/// Sends the steps and gives what arrived: in one flush, or one flush each.
fn relay(steps: &[Step], local: &str, offload: Offload, at_once: bool) -> Flows {
    let sources = [(); 2].map(|()| bound(local, offload));
    let targets = [(); 3].map(|()| bound(local, offload));
    let (mut sender, mut receiver) = (Sender::new(offload), Receiver::new(offload));
    let feed = UdpSocket::bind(local).unwrap();
    let body: Vec<u8> = (0..9200).map(|at| (at % 251) as u8).collect();
    feed.send_to(&body, sources[0].local_addr().unwrap()).unwrap();
    receive(&mut receiver, &sources[0]);
    let mut found = Receiver::new(offload);
    let mut flows = Flows::new();
    let mut expected = [0; 3];
    let mut collect = |expected: &mut [usize; 3]| {
        for (target, count) in expected.iter_mut().enumerate() {
            for (from, class, bytes) in receive_all(&mut found, &targets[target], std::mem::take(count)) {
                let socket = sources.iter().position(|socket| socket.local_addr().unwrap() == from).unwrap();
                flows.entry((socket, target, bytes[0])).or_default().push((class, bytes));
            }
        }
    };
    for step in steps {
        let message = Message {
            payload: step.payload.map(|(start, length)| Payload { run: 0, range: start..start + length }),
            padding: step.padding,
            traffic_class: step.traffic_class,
            dont_fragment: step.dont_fragment,
            ..plain(&sources[step.socket], targets[step.destination].local_addr().unwrap())
        };
        let relayed = u8::from(step.payload.is_some());
        sender.push(message, &[&[relayed], step.head.as_slice()].concat());
        expected[step.destination] += 1;
        if !at_once {
            flush(&mut sender, &receiver);
            collect(&mut expected);
        }
    }
    flush(&mut sender, &receiver);
    collect(&mut expected);
    flows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_relayed_in_batches_equals_what_is_relayed_one_by_one(steps in steps(), ipv6: bool) {
        let local = if ipv6 { "[::1]:0" } else { "127.0.0.1:0" };
        let batched = relay(&steps, local, Offload::Segmentation, true);
        prop_assert_eq!(&batched, &relay(&steps, local, Offload::None, false));
        prop_assert_eq!(batched.values().map(Vec::len).sum::<usize>(), steps.len());
    }
}
