//! Messages in a TCP or TLS connection.

use stun::attributes::*;
use stun::message::*;

use crate::support::stun_client::channel_data;
use crate::support::{Client, Everywhere, Request, Transport};

/// Section 6.2.2: Over TCP and TLS messages need no framing of their own: their length finds the next one.
#[test]
fn any_merge_and_any_split_of_a_stream_gives_the_same_messages() {
    let server = Everywhere::start("");
    for transport in Transport::STREAMS {
        let requests: Vec<Request> = (0..4)
            .map(|size| Request::new(METHOD_BINDING).with(ATTR_SOFTWARE, &vec![b's'; 7 * size]).fingerprint())
            .collect();
        let merged: Vec<u8> = requests.iter().flat_map(|request| request.bytes().to_vec()).collect();
        // One write for all, byte by byte, and every split into two writes.
        let splits = (1..merged.len()).step_by(5).map(|at| vec![at, merged.len() - at]);
        for pieces in [vec![merged.len()], vec![1; merged.len()]].into_iter().chain(splits) {
            let client = server.client(transport);
            let mut rest = &merged[..];
            for piece in pieces {
                let (now, later) = rest.split_at(piece);
                client.send(now);
                rest = later;
            }
            for request in &requests {
                assert_eq!(client.receive()[8..20], request.transaction(), "{transport:?}");
            }
        }
    }
}

/// Section 6.2.2: One connection may carry many transactions, and the server leaves it open.
#[test]
fn one_connection_carries_many_transactions() {
    let server = Everywhere::start("");
    for transport in Transport::STREAMS {
        let mut client = server.client(transport);
        let requests: Vec<Request> = (0..200).map(|_| Request::new(METHOD_BINDING)).collect();
        requests.iter().for_each(|request| client.send(request.bytes()));
        for request in &requests {
            assert_eq!(client.receive()[8..20], request.transaction());
        }
        assert_eq!(client.ask_signed(Request::allocate()).code(), 0);
        assert_eq!(client.ask_signed(Request::refresh(600)).code(), 0);
        assert!(!client.line().has_ended());
    }
}

/// Section 6.3.1.1: XOR-MAPPED-ADDRESS is the source transport address as the server sees it, on every transport.
#[test]
fn the_mapped_address_is_that_of_the_connection() {
    let server = Everywhere::start("");
    for transport in Transport::ALL {
        let client = server.client(transport);
        let answer = client.ask(&Request::new(METHOD_BINDING));
        assert_eq!(answer.address(ATTR_XORMAPPED_ADDRESS), Some(client.local()), "{transport:?}");
        let mut client = client;
        let answer = client.ask_signed(Request::allocate());
        assert_eq!(answer.address(ATTR_XORMAPPED_ADDRESS), Some(client.local()), "{transport:?}");
    }
}

/// Section 6.3: What is refused over UDP is refused with the same codes over TCP and TLS.
#[test]
fn answers_do_not_depend_on_the_transport() {
    let server = Everywhere::start("");
    for transport in Transport::ALL {
        let mut client = server.client(transport);
        let unknown = AttrType(0x7F01);
        assert_eq!(client.ask(&Request::new(METHOD_BINDING).with(unknown, b"what")).code(), 420);
        assert_eq!(client.ask(&Request::allocate()).code(), 401);
        assert_eq!(client.ask_signed(Request::refresh(600)).code(), 437);
        assert_eq!(client.ask_signed(Request::new(METHOD_ALLOCATE)).code(), 400);
        assert_eq!(client.ask_signed(Request::allocate().family(2)).code(), 440);
        client.set_nonce(b"invented");
        assert_eq!(client.ask_signed(Request::allocate()).code(), 438);
        let mut wrong = server.client(transport).with_user(("alice", "wrong"));
        assert_eq!(wrong.ask_signed(Request::allocate()).code(), 401);
        let answer = wrong.ask(&Request::new(METHOD_BINDING).fingerprint());
        stun::fingerprint::FINGERPRINT.check(&answer.0).unwrap();
        server.await_metric("passerelle_turn_allocations", &[("transport", transport.label())], 0.0);
    }
}

/// Section 6.3: A whole message that is wrong inside is discarded; the next one in the stream is answered.
#[test]
fn a_wrong_message_of_the_right_length_does_not_disturb_the_stream() {
    let server = Everywhere::start("");
    let mut bad_fingerprint = Request::new(METHOD_BINDING).fingerprint().bytes().to_vec();
    bad_fingerprint[27] ^= 1;
    let mut cut_attribute = Request::new(METHOD_BINDING).with(ATTR_SOFTWARE, b"test").bytes().to_vec();
    cut_attribute[23] = 200;
    let mut unknown_method = Request::new(METHOD_BINDING).bytes().to_vec();
    unknown_method[..2].copy_from_slice(&[0x3E, 0xEF]);
    for transport in Transport::STREAMS {
        let client = server.client(transport);
        for bytes in [&bad_fingerprint, &cut_attribute, &unknown_method] {
            client.send(bytes);
            client.hears_nothing();
        }
        client.send(Request::indication(METHOD_BINDING).bytes());
        client.hears_nothing();
        // ChannelData without an allocation, padded as it has to be.
        client.send(&[&channel_data(0x4000, b"to nobody")[..], &[0; 3]].concat());
        client.hears_nothing();
    }
}

/// Section 6.3: A stream whose next bytes cannot be a message has lost its frame for good, and is closed.
#[test]
fn what_cannot_be_a_message_closes_the_connection() {
    let server = Everywhere::start("");
    let binding = Request::new(METHOD_BINDING).bytes().to_vec();
    let changed = |at: usize, value: u8| {
        let mut bytes = binding.clone();
        bytes[at] = value;
        bytes
    };
    let cases = [
        // A ClientHello where there is no TLS, or where there is one around it already.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        changed(0, 0x80),
        changed(0, 0xC0),
        changed(5, 0x13),
        changed(3, 2),
    ];
    let mut closed = 0.0;
    for transport in Transport::STREAMS {
        for bytes in &cases {
            // At once, and behind a good message.
            let fresh = server.client(transport);
            fresh.send(bytes);
            fresh.line().is_closed();
            let used = server.client(transport);
            assert_eq!(used.ask(&Request::new(METHOD_BINDING)).code(), 0);
            used.send(bytes);
            used.line().is_closed();
            closed += 2.0;
        }
    }
    server.await_metric("passerelle_turn_connections_refused_total", &[("reason", "framing")], closed);
    server.await_metric("passerelle_turn_connections", &[], 0.0);
}

/// Section 6.2.1: A request that comes again and again is answered again and again, alike.
#[test]
fn seven_transmissions_of_a_request_get_the_same_answer() {
    let server = Everywhere::start("");
    let client: Client = server.client(Transport::Udp);
    let request = Request::new(METHOD_BINDING);
    let first = client.ask(&request).0.raw;
    for _ in 1..7 {
        assert_eq!(client.ask(&request).0.raw, first);
    }
}
