//! The test vectors of RFC 5769.

use super::attribute::{self, XOR_MAPPED_ADDRESS};
use super::message::fingerprint;
use super::{Algorithm, Class, Key, Malformed, Message, Method};

const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
const TRANSACTION: &str = "b7e7a701bc34d686fa87dfae";

/// Section 2.1, a request.
const REQUEST: &str = "
    00010058 2112a442 b7e7a701 bc34d686 fa87dfae
    80220010 5354554e 20746573 7420636c 69656e74
    00240004 6e0001ff
    80290008 932ff9b1 51263b36
    00060009 6576746a 3a683676 59202020
    00080014 9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2
    80280004 e57a3bcf";
/// Section 2.2, a response with an IPv4 address.
const RESPONSE_V4: &str = "
    0101003c 2112a442 b7e7a701 bc34d686 fa87dfae
    8022000b 74657374 20766563 746f7220
    00200008 0001a147 e112a643
    00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7
    80280004 c07d4c96";
/// Section 2.3, a response with an IPv6 address.
const RESPONSE_V6: &str = "
    01010048 2112a442 b7e7a701 bc34d686 fa87dfae
    8022000b 74657374 20766563 746f7220
    00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9
    00080014 a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41
    80280004 c8fb0b4c";
/// Section 2.4, a request with long-term credentials.
const LONG_TERM: &str = "
    00010060 2112a442 78ad3433 c6ad72c0 29da412e
    00060012 e3839ee3 8388e383 aae38383 e382afe3 82b90000
    0015001c 662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 36347341
    0014000b 6578616d 706c652e 6f726700
    00080014 f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666";

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|digit| !digit.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect()
}

/// Every change of one bit.
fn flipped(whole: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    (0..whole.len() * 8).map(|bit| {
        let mut changed = whole.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        (bit / 8, changed)
    })
}

#[test]
fn the_sample_request_is_read_and_verified() {
    let bytes = bytes(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method::Binding));
    assert_eq!(message.transaction().0.as_slice(), self::bytes(TRANSACTION));
    assert_eq!(message.text(attribute::USERNAME), Some("evtj:h6vY"));
    assert_eq!(message.text(attribute::SOFTWARE), Some("STUN test client"));
    assert!(message.has_fingerprint());
    assert!(message.verify_sha1(&Key::short_term(PASSWORD)));
    assert!(!message.verify_sha1(&Key::short_term(b"VOkJxbRl1RmTxUk/WvJxBT")));
}

#[test]
fn the_sample_responses_are_read_and_verified() {
    for (text, mapped) in
        [(RESPONSE_V4, "192.0.2.1:32853"), (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
    {
        let bytes = bytes(text);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class(), message.method()), (Class::Success, Method::Binding));
        assert_eq!(message.xor_address(XOR_MAPPED_ADDRESS), Some(mapped.parse().ok()));
        assert_eq!(message.text(attribute::SOFTWARE), Some("test vector"));
        assert!(message.verify_sha1(&Key::short_term(PASSWORD)) && message.has_fingerprint());
    }
}

#[test]
fn the_sample_request_with_long_term_credentials_is_verified() {
    let bytes = bytes(LONG_TERM);
    let message = Message::parse(&bytes).unwrap();
    let (user, realm) = ("\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}", "example.org");
    assert_eq!(message.text(attribute::USERNAME), Some(user));
    assert_eq!(message.text(attribute::REALM), Some(realm));
    assert_eq!(message.text(attribute::NONCE), Some("f//499k954d6OL34oL9FSTvy64sA"));
    // Its password is "TheMatrIX" after preparation.
    let key = |password| Key::long_term(Algorithm::Md5, user, realm, password);
    assert!(message.verify_sha1(&key("TheMatrIX")));
    assert!(!message.verify_sha1(&key("TheMatrix")));
}

#[test]
fn no_sample_survives_a_changed_bit() {
    for text in [REQUEST, RESPONSE_V4, RESPONSE_V6] {
        for (at, changed) in flipped(&bytes(text)) {
            let good = Message::parse(&changed).is_ok_and(|message| message.has_fingerprint());
            assert!(!good, "byte {at} is not covered by FINGERPRINT");
        }
    }
    let whole = bytes(LONG_TERM);
    let key = Key::long_term(
        Algorithm::Md5,
        "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}",
        "example.org",
        "TheMatrIX",
    );
    for (at, changed) in flipped(&whole) {
        let verified = Message::parse(&changed).is_ok_and(|message| message.verify_sha1(&key));
        assert!(!verified, "byte {at} is not covered by MESSAGE-INTEGRITY");
    }
}

#[test]
fn the_fingerprint_of_a_sample_is_the_one_in_it() {
    let whole = bytes(REQUEST);
    assert_eq!(fingerprint(&whole[..whole.len() - 8]), 0xE57A_3BCF);
    let mut wrong = whole;
    wrong.pop();
    wrong.push(0);
    assert_eq!(Message::parse(&wrong).err(), Some(Malformed::Fingerprint));
}
