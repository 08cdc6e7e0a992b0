//! MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHMS, USERHASH, and the nonce that protects them from being bid down.

use base64::Engine as _;
use stun::attributes::*;

use crate::support::server::{ALICE, BOB, REALM};
use crate::support::stun_client::{md5_key, sha256_key, userhash};
use crate::support::{Answer, Client, Everywhere, PATIENCE, Request, Server, Transport};

/// Users alone, and no callers who would need a secret: nobody's name is unknown to the server, so it can offer
/// USERHASH.
const USERS_ONLY: &str = "[turn]\nsecrets = []\n[auth.jwt]\nsecret = \"\"\n";
/// SHA-256, then MD5, as PASSWORD-ALGORITHMS writes them.
const ALGORITHMS: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];
const SHA256: [u8; 4] = [0, 2, 0, 0];
const MD5: [u8; 4] = [0, 1, 0, 0];

/// A challenge's nonce and the 24 bits of its security features.
fn challenge(client: &Client) -> (Vec<u8>, u32, Answer) {
    let answer = client.ask(&Request::allocate());
    assert_eq!(answer.code(), 401);
    let nonce = answer.value(ATTR_NONCE).unwrap();
    assert!(nonce.starts_with(b"obMatJos2"), "no cookie in {nonce:02x?}");
    let bits = base64::engine::general_purpose::STANDARD.decode(&nonce[9..13]).unwrap();
    (nonce, u32::from_be_bytes([0, bits[0], bits[1], bits[2]]), answer)
}

/// USERNAME, REALM and NONCE of Alice.
fn named(request: Request, nonce: &[u8]) -> Request {
    request.with(ATTR_USERNAME, ALICE.0.as_bytes()).with(ATTR_REALM, REALM.as_bytes()).with(ATTR_NONCE, nonce)
}

/// The list and a choice from it.
fn choosing(request: Request, algorithm: [u8; 4]) -> Request {
    request.with(ATTR_PASSWORD_ALGORITHMS, &ALGORITHMS).with(ATTR_PASSWORD_ALGORITHM, &algorithm)
}

/// Section 9.2: A NONCE that carries security features starts with `obMatJos2` and four characters of base64; the
/// server sets the bits of what it offers, and lists its PASSWORD-ALGORITHMS beside it.
#[test]
fn the_nonce_tells_the_features_and_the_challenge_the_algorithms() {
    for (config, bits) in [("", 0x80_0000), (USERS_ONLY, 0xC0_0000)] {
        let server = Server::start(config);
        let (_, found, answer) = challenge(&Client::new(server.turn()));
        assert_eq!(found, bits, "{config:?}");
        assert_eq!(answer.value(ATTR_PASSWORD_ALGORITHMS), Some(ALGORITHMS.to_vec()));
    }
}

/// Section 9.2.4: The integrity of a response is of the kind of its request's, and there is one of them only.
#[test]
fn an_answer_is_protected_as_its_request_was() {
    let server = Everywhere::start("");
    for transport in Transport::ALL {
        let (md5, sha256) = (md5_key(ALICE.0, ALICE.1), sha256_key(ALICE.0, ALICE.1));
        type Seal = fn(Request, &[u8]) -> Request;
        let seals: [(Seal, bool); 3] = [
            (|request, key| request.integrity_sha1(key), false),
            (|request, key| request.integrity_sha256(key), true),
            // Both: the stronger one counts.
            (|request, key| request.integrity_sha1(key).integrity_sha256(key), true),
        ];
        for (seal, strong) in seals {
            for algorithm in [None, Some(SHA256), Some(MD5)] {
                let client = server.client(transport);
                let (nonce, ..) = challenge(&client);
                let request = named(Request::allocate(), &nonce);
                let (request, key) = match algorithm {
                    None => (request, &md5),
                    Some(MD5) => (choosing(request, MD5), &md5),
                    Some(other) => (choosing(request, other), &sha256),
                };
                let answer = client.ask(&seal(request, key));
                assert_eq!(answer.code(), 0, "{transport:?} {algorithm:?} {strong}");
                let kinds = [ATTR_MESSAGE_INTEGRITY, ATTR_MESSAGE_INTEGRITY_SHA256];
                assert_eq!(
                    kinds.map(|kind| answer.values(kind).len()),
                    [usize::from(!strong), usize::from(strong)]
                );
                if strong {
                    assert!(answer.is_sealed_by(key));
                } else {
                    assert!(
                        stun::integrity::MessageIntegrity(key.clone()).check(&mut answer.0.clone()).is_ok()
                    );
                }
                let free = named(Request::refresh(0), &nonce).integrity_sha1(&md5);
                assert_eq!(client.ask(&free).code(), 0);
            }
        }
    }
}

/// Section 9.2.4: A wrong MESSAGE-INTEGRITY-SHA256 is answered with 401 even beside a right MESSAGE-INTEGRITY.
#[test]
fn a_wrong_sha256_is_not_saved_by_a_right_sha1() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    let (nonce, ..) = challenge(&client);
    let request = named(Request::allocate(), &nonce).integrity_sha1(&md5_key(ALICE.0, ALICE.1));
    assert_eq!(client.ask(&request.integrity_sha256(b"wrong")).code(), 401);
}

/// Section 14.6: A MESSAGE-INTEGRITY-SHA256 that is cut short is valid only where the usage says so; here it does not.
#[test]
fn a_truncated_sha256_is_refused() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    let (nonce, ..) = challenge(&client);
    for length in [4, 16, 28] {
        let whole = named(Request::allocate(), &nonce).integrity_sha256(&md5_key(ALICE.0, ALICE.1));
        let mut bytes = whole.bytes().to_vec();
        let at = bytes.len() - 36;
        bytes.truncate(at + 4 + length);
        bytes[at + 2..at + 4].copy_from_slice(&(length as u16).to_be_bytes());
        let total = u16::try_from(bytes.len() - 20).unwrap();
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        client.send(&bytes);
        let answer = client.receive();
        assert_eq!((&answer[..2], &answer[24..28]), (&[1, 0x13][..], &[0, 0, 4, 1][..]), "{length} bytes");
    }
}

/// Section 9.2.4: Without PASSWORD-ALGORITHM and PASSWORD-ALGORITHMS the key is that of MD5; with one of them alone,
/// with another list than the one that was offered, or with an algorithm that is not in it, the answer is 400.
#[test]
fn a_list_of_algorithms_that_was_bid_down_is_a_bad_request() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    let (nonce, ..) = challenge(&client);
    let key = md5_key(ALICE.0, ALICE.1);
    let (list, choice) = (ATTR_PASSWORD_ALGORITHMS, ATTR_PASSWORD_ALGORITHM);
    let cases: [&[(AttrType, &[u8])]; 8] = [
        &[(list, &ALGORITHMS)],
        &[(choice, &MD5)],
        &[(list, &MD5), (choice, &MD5)],
        &[(list, &[0, 1, 0, 0, 0, 2, 0, 0]), (choice, &MD5)],
        &[(list, &[0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0]), (choice, &MD5)],
        &[(list, &ALGORITHMS), (choice, &[0, 3, 0, 0])],
        &[(list, &ALGORITHMS), (choice, &[0, 1])],
        &[(list, &[]), (choice, &MD5)],
    ];
    for case in cases {
        let request = case
            .iter()
            .fold(named(Request::allocate(), &nonce), |request, (kind, value)| request.with(*kind, value));
        assert_eq!(client.ask(&request.integrity_sha1(&key)).code(), 400, "{case:02x?}");
    }
    assert_eq!(client.ask(&named(Request::allocate(), &nonce).integrity_sha1(&key)).code(), 0);
}

/// Section 9.2.1: Security features that somebody cleared in the NONCE make it a NONCE that this server never gave.
#[test]
fn a_nonce_whose_features_were_cleared_is_stale() {
    let server = Server::start(USERS_ONLY);
    let client = Client::new(server.turn());
    let (nonce, ..) = challenge(&client);
    for features in [b"AAAA", b"gAAA", b"QAAA", b"////"] {
        let changed = [&nonce[..9], features, &nonce[13..]].concat();
        let request = named(Request::allocate(), &changed).integrity_sha1(&md5_key(ALICE.0, ALICE.1));
        let answer = client.ask(&request);
        assert_eq!(answer.code(), 438);
        assert_eq!(challenge(&client).1, 0xC0_0000, "what is offered does not change");
    }
}

/// Section 9.2.4: USERHASH names a user in place of USERNAME, who is found by SHA-256 of name and realm.
#[test]
fn a_user_may_be_named_by_a_hash() {
    let server = Everywhere::start(USERS_ONLY);
    for transport in Transport::ALL {
        for (user, password) in [ALICE, BOB] {
            let client = server.client(transport);
            let (nonce, ..) = challenge(&client);
            let hashed = |hash: &[u8]| {
                let request = Request::allocate().with(ATTR_USER_HASH, hash);
                choosing(request.with(ATTR_REALM, REALM.as_bytes()).with(ATTR_NONCE, &nonce), SHA256)
            };
            let key = sha256_key(user, password);
            assert_eq!(client.ask(&hashed(&userhash("nobody")).integrity_sha256(&key)).code(), 401);
            assert_eq!(client.ask(&hashed(b"short").integrity_sha256(&key)).code(), 400);
            let answer = client.ask(&hashed(&userhash(user)).integrity_sha256(&key));
            assert_eq!(answer.code(), 0, "{transport:?} {user}");
            assert!(answer.is_sealed_by(&key));
            assert_eq!(answer.value(ATTR_USER_HASH), None);
        }
    }
}

/// Section 14: Of several attributes of one type the first counts and the others are ignored.
#[test]
fn the_first_of_two_attributes_counts() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::refresh(1200).lifetime(0)).lifetime(), 1200);
    // Two lists of credentials: those of the stranger come second.
    let nonce = client.nonce().to_vec();
    let request = Request::refresh(600)
        .with(ATTR_USERNAME, ALICE.0.as_bytes())
        .with(ATTR_USERNAME, b"stranger")
        .with(ATTR_REALM, REALM.as_bytes())
        .with(ATTR_REALM, b"elsewhere")
        .with(ATTR_NONCE, &nonce)
        .with(ATTR_NONCE, b"invented");
    assert_eq!(client.ask(&request.integrity_sha1(&md5_key(ALICE.0, ALICE.1))).code(), 0);
}

/// Section 6.3.1: Unknown attributes of a request that has to be authenticated are told only after it was.
#[test]
fn a_420_comes_after_authentication_and_is_signed() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let unknown = |request: Request| request.with(AttrType(0x7F01), b"a").with(AttrType(0x0042), b"b");
    assert_eq!(client.ask(&unknown(Request::allocate())).code(), 401);
    let answer = client.ask_signed(unknown(Request::allocate()));
    assert_eq!(answer.code(), 420);
    assert_eq!(answer.unknown(), [0x7F01, 0x0042]);
    assert!(answer.is_signed_by(ALICE.0, ALICE.1));
    assert_eq!(server.scrape().sum("passerelle_turn_allocations_created_total", &[]), 0.0);
}

/// Section 14.7: FINGERPRINT follows the integrity, which does not cover it; the answer has both in this order.
#[test]
fn a_fingerprint_stands_behind_the_integrity() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let request = client.signed(Request::allocate()).fingerprint();
    let answer = client.ask(&request);
    assert_eq!(answer.code(), 0);
    stun::fingerprint::FINGERPRINT.check(&answer.0).unwrap();
    assert!(answer.is_signed_by(ALICE.0, ALICE.1));
    let kinds: Vec<u16> = answer.0.attributes.0.iter().map(|attribute| attribute.typ.value()).collect();
    let end = [ATTR_MESSAGE_INTEGRITY.value(), ATTR_FINGERPRINT.value()];
    assert_eq!(kinds[kinds.len() - 2..], end);
}

/// Section 9.2.4: A NONCE expires; the answer to an expired one is 438 with a fresh one, which works at once.
#[test]
fn an_expired_nonce_is_replaced_without_losing_the_allocation() {
    let server = Server::start("[turn]\nnonce_lifetime = \"2s\"");
    let (mut client, _) = Client::allocated(server.turn());
    let deadline = std::time::Instant::now() + PATIENCE;
    let stale = loop {
        let answer = client.ask_signed(Request::refresh(600));
        if answer.code() == 438 {
            break answer;
        }
        assert_eq!(answer.code(), 0);
        assert!(std::time::Instant::now() < deadline, "the nonce does not expire");
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert_eq!(stale.value(ATTR_REALM).as_deref(), Some(REALM.as_bytes()));
    assert_ne!(stale.value(ATTR_NONCE).as_deref(), Some(client.nonce()));
    client.set_nonce(&stale.value(ATTR_NONCE).unwrap());
    assert_eq!(client.ask_signed(Request::refresh(600)).code(), 0);
}
