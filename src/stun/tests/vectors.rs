//! The test vectors of RFC 5769.

use std::net::SocketAddr;

use crate::stun::{Algorithm, Class, Key, Message, Method, attribute};

/// RFC 5769 section 2.1.
const REQUEST: &str = "\
    000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74\
    002400046e0001ff80290008932ff9b151263b36000600096576746a3a6836765920202000080014\
    9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";

/// RFC 5769 section 2.2.
const IPV4_RESPONSE: &str = "\
    0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f722000200008\
    0001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";

/// RFC 5769 section 2.3.
const IPV6_RESPONSE: &str = "\
    010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f722000200014\
    0002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275\
    bfe3ed4180280004c8fb0b4c";

/// RFC 5769 section 2.4.
const LONG_TERM_REQUEST: &str = "\
    000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe3\
    82b900000015001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b\
    6578616d706c652e6f72670000080014f67024656dd64a3e02b8e0712e85c9a28ca89666";

/// The password of the first three.
const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// Every vector with its key.
fn vectors() -> [(Vec<u8>, Key); 4] {
    let short = || Key::short_term(PASSWORD);
    let long = Key::long_term(Algorithm::Md5, "マトリックス", "example.org", "TheMatrIX");
    [
        (bytes(REQUEST), short()),
        (bytes(IPV4_RESPONSE), short()),
        (bytes(IPV6_RESPONSE), short()),
        (bytes(LONG_TERM_REQUEST), long),
    ]
}

#[test]
fn rfc5769_2_1_the_sample_request_reads_and_verifies() {
    let bytes = bytes(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method::Binding));
    assert_eq!(message.text(attribute::SOFTWARE), Some("STUN test client"));
    assert_eq!(message.text(attribute::USERNAME), Some("evtj:h6vY"));
    assert!(message.has_fingerprint() && message.verify_sha1(&Key::short_term(PASSWORD)));
    assert!(message.unknown_required(&mut [0; 4]).is_empty(), "PRIORITY is ICE's and no stranger");
}

#[test]
fn rfc5769_2_2_and_2_3_the_sample_responses_read_and_verify() {
    for (hex, mapped) in
        [(IPV4_RESPONSE, "192.0.2.1:32853"), (IPV6_RESPONSE, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
    {
        let bytes = bytes(hex);
        let message = Message::parse(&bytes).unwrap();
        let mapped: SocketAddr = mapped.parse().unwrap();
        assert_eq!((message.class(), message.method()), (Class::Success, Method::Binding));
        assert_eq!(message.text(attribute::SOFTWARE), Some("test vector"));
        assert_eq!(message.xor_address(attribute::XOR_MAPPED_ADDRESS), Some(Some(mapped)));
        assert!(message.has_fingerprint() && message.verify_sha1(&Key::short_term(PASSWORD)));
    }
}

#[test]
fn rfc5769_2_4_the_sample_request_with_long_term_credentials_reads_and_verifies() {
    let [.., (bytes, key)] = vectors();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.text(attribute::USERNAME), Some("マトリックス"));
    assert_eq!(message.text(attribute::NONCE), Some("f//499k954d6OL34oL9FSTvy64sA"));
    assert_eq!(message.text(attribute::REALM), Some("example.org"));
    assert!(!message.has_fingerprint() && message.verify_sha1(&key));
}

#[test]
fn no_bit_of_a_vector_can_change_under_its_integrity() {
    for (mut bytes, key) in vectors() {
        if Message::parse(&bytes).unwrap().has_fingerprint() {
            // Without FINGERPRINT, which would notice first.
            bytes.truncate(bytes.len() - 8);
            bytes[3] -= 8;
        }
        assert!(Message::parse(&bytes).unwrap().verify_sha1(&key));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let verifies = Message::parse(&changed).is_ok_and(|message| message.verify_sha1(&key));
            assert!(!verifies, "bit {bit}");
        }
    }
}

#[test]
fn no_bit_of_a_vector_can_change_before_its_fingerprint() {
    for (bytes, _) in vectors().into_iter().take(3) {
        for bit in 0..(bytes.len() - 8) * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // A longer attribute may swallow the fingerprint, but not keep it.
            assert!(!Message::parse(&changed).is_ok_and(|message| message.has_fingerprint()), "bit {bit}");
        }
    }
}

#[test]
fn another_key_verifies_no_vector() {
    for (bytes, _) in vectors() {
        let message = Message::parse(&bytes).unwrap();
        assert!(!message.verify_sha1(&Key::short_term(b"VOkJxbRl1RmTxUk/WvJxBT")));
        assert!(!message.verify_sha256(&Key::short_term(PASSWORD)), "there is none");
    }
}
