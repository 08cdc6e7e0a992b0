//! Binding, and what is answered with silence.

use stun::attributes::*;
use stun::message::*;

use crate::support::stun_client::channel_data;
use crate::support::{Client, Request, Server};

/// Section 6.3.1.1: A success response to a Binding carries XOR-MAPPED-ADDRESS with the source transport address of
/// the request.
#[test]
fn a_binding_is_answered_with_the_mapped_address_and_nothing_else() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    let answer = client.ask(&Request::new(METHOD_BINDING));
    assert_eq!(answer.code(), 0);
    assert_eq!(answer.address(ATTR_XORMAPPED_ADDRESS), Some(client.local()));
    assert_eq!(answer.0.attributes.0.len(), 1);
    assert!(answer.0.raw.len() <= 32, "{} bytes", answer.0.raw.len());
    server.await_metric("passerelle_stun_requests_total", &[("method", "binding")], 1.0);
    server.stop();
}

/// Section 14.2: XOR-MAPPED-ADDRESS of an IPv6 client is XORed with the magic cookie and the transaction id.
#[test]
fn a_binding_over_ipv6_is_answered_in_44_bytes() {
    let server = Server::start("[listen]\nudp = [\"[::1]:0\"]");
    let client = Client::new(server.turn());
    let answer = client.ask(&Request::new(METHOD_BINDING));
    assert_eq!(answer.address(ATTR_XORMAPPED_ADDRESS), Some(client.local()));
    assert!(answer.0.raw.len() <= 44, "{} bytes", answer.0.raw.len());
}

/// Section 6.3.1.2: The response is sent from the address and port that the request was sent to.
#[test]
fn the_answer_leaves_from_the_address_that_was_asked() {
    let server = Server::start("[listen]\nudp = [\"0.0.0.0:0\"]");
    for host in [[127, 0, 0, 1], [127, 0, 0, 3]] {
        // A connected socket hears its server only.
        let client = Client::new((host, server.turn().port()).into());
        assert_eq!(client.ask(&Request::new(METHOD_BINDING)).code(), 0);
    }
}

/// Section 6.3.1.2: The response goes back over what the request came over.
#[test]
fn every_listener_answers() {
    let server = Server::start("[listen]\nudp = [\"127.0.0.1:0\", \"127.0.0.3:0\", \"[::1]:0\"]");
    assert_eq!(server.udp.len(), 3);
    for address in &server.udp {
        assert_eq!(Client::new(*address).ask(&Request::new(METHOD_BINDING)).code(), 0);
    }
}

/// Section 7: An agent that finds FINGERPRINT in a request puts it into its answer.
#[test]
fn a_fingerprint_is_answered_with_a_fingerprint() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    let answer = client.ask(&Request::new(METHOD_BINDING).fingerprint());
    assert_eq!(answer.code(), 0);
    stun::fingerprint::FINGERPRINT.check(&answer.0).unwrap();
}

/// Section 6.3.1: Unknown comprehension-required attributes of a request are answered with 420 and listed in
/// UNKNOWN-ATTRIBUTES.
#[test]
fn an_unknown_required_attribute_is_named_in_a_420() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    let request = Request::new(METHOD_BINDING)
        .with(AttrType(0x7F01), b"what")
        .with(AttrType(0xFF01), b"optional")
        .with(AttrType(0x7F02), b"else");
    let answer = client.ask(&request);
    assert_eq!(answer.code(), 420);
    assert_eq!(answer.unknown(), [0x7F01, 0x7F02]);
}

/// Section 14: Comprehension-optional attributes that are not understood are ignored.
#[test]
fn an_unknown_optional_attribute_is_ignored() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    assert_eq!(client.ask(&Request::new(METHOD_BINDING).with(AttrType(0xFF01), b"what")).code(), 0);
}

/// Section 6.3: A message whose method is not understood is discarded in silence.
#[test]
fn an_unknown_method_does_no_harm() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    let mut request = Request::new(METHOD_BINDING).bytes().to_vec();
    request[..2].copy_from_slice(&[0x3E, 0xEF]);
    client.send(&request);
    // Silence, or an error of that method; then service as before.
    let binding = Request::new(METHOD_BINDING);
    client.send(binding.bytes());
    let mut answer = client.receive();
    if answer[8..20] == request[8..20] {
        assert_eq!(answer[..2], [0x3F, 0xFF]);
        answer = client.receive();
    }
    assert_eq!(answer[8..20], binding.bytes()[8..20]);
}

/// A datagram that deserves no answer.
fn junk() -> Vec<(&'static str, Vec<u8>)> {
    let binding = Request::new(METHOD_BINDING).with(ATTR_SOFTWARE, b"test").bytes().to_vec();
    let changed = |at: usize, value: u8| {
        let mut bytes = binding.clone();
        bytes[at] = value;
        bytes
    };
    let mut bad_fingerprint = Request::new(METHOD_BINDING).fingerprint().bytes().to_vec();
    bad_fingerprint[20 + 7] ^= 1;
    vec![
        ("not STUN", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("one byte", vec![0]),
        ("first bits set", changed(0, 0x80)),
        ("another magic cookie", changed(4, 0x22)),
        ("a header cut short", binding[..19].to_vec()),
        ("cut in an attribute", binding[..binding.len() - 4].to_vec()),
        ("bytes behind the end", [&binding[..], &[0; 4]].concat()),
        ("a length that is no multiple of four", [&changed(3, 9)[..], &[0]].concat()),
        ("an attribute longer than the message", changed(23, 200)),
        ("a bad FINGERPRINT", bad_fingerprint),
        ("a success", changed(0, 0x01)),
        ("an error", {
            let mut bytes = changed(0, 0x01);
            bytes[1] = 0x11;
            bytes
        }),
        ("ChannelData without an allocation", channel_data(0x4000, b"data")),
    ]
}

/// Section 6.3: What fails the checks of a message — first bits, magic cookie, length, FINGERPRINT — is discarded in
/// silence, and so are responses to nothing.
#[test]
fn what_is_not_a_request_is_dropped_in_silence_and_counted() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    let junk = junk();
    for (sent, (what, bytes)) in junk.iter().enumerate() {
        client.send(bytes);
        client.hears_nothing();
        let dropped = server_dropped(&server, sent + 1);
        assert_eq!(dropped, sent + 1, "{what} is not counted");
    }
}

/// Waits for `count` drops, and gives the count when it is reached or passed.
fn server_dropped(server: &Server, count: usize) -> usize {
    crate::support::eventually("drops are counted", || {
        let dropped = server.scrape().sum("passerelle_relay_dropped_total", &[]) as usize;
        (dropped >= count).then_some(dropped)
    })
}

/// Section 6.3.2: No response is generated for an indication.
#[test]
fn a_binding_indication_keeps_a_mapping_alive_and_is_not_answered() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    client.send(Request::indication(METHOD_BINDING).bytes());
    client.hears_nothing();
}

/// Section 6.3.2: An indication with unknown comprehension-required attributes is discarded.
#[test]
fn an_indication_with_an_unknown_required_attribute_is_dropped() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    client.send(Request::indication(METHOD_SEND).with(AttrType(0x7F01), b"what").bytes());
    client.hears_nothing();
    assert_eq!(server_dropped(&server, 1), 1);
}
