//! Long-term credentials (RFC 8489 section 9.2).

use super::harness::{Ask, REALM, World, client, config};
use crate::stun::{Algorithm, Class, Key, Message, Method, TransactionId, Writer, attribute, userhash};
use crate::turn::{DropReason, FiveTuple, Measure, Verdict};

const ALGORITHMS: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];

/// A request with every part of its credentials chosen by the test.
struct Credentials<'a> {
    name: Option<(u16, &'a [u8])>,
    realm: Option<&'a [u8]>,
    nonce: Option<&'a [u8]>,
    algorithms: Option<&'a [u8]>,
    algorithm: Option<&'a [u8]>,
    key: Key,
    sha256: bool,
}

impl Credentials<'_> {
    fn send(&self, world: &mut World, from: &FiveTuple) -> (u16, Vec<u8>) {
        let transaction = world.next_transaction();
        let mut bytes = Vec::new();
        let ask = Ask::allocate();
        let mut writer = ask.write(&mut bytes, transaction);
        let (kind, name) = self.name.unzip();
        let parts = [
            (kind.unwrap_or_default(), name),
            (attribute::REALM, self.realm),
            (attribute::NONCE, self.nonce),
            (attribute::PASSWORD_ALGORITHMS, self.algorithms),
            (attribute::PASSWORD_ALGORITHM, self.algorithm),
        ];
        for (kind, value) in parts {
            if let Some(value) = value {
                writer.attribute(kind, value);
            }
        }
        if self.sha256 {
            writer.integrity_sha256(&self.key)
        } else {
            writer.integrity_sha1(&self.key)
        };
        let answer = world.answer(from, &bytes);
        (answer.code(), answer.0)
    }
}

fn md5(user: &str, password: &str) -> Key {
    Key::long_term(Algorithm::Md5, user, REALM, password)
}

/// What a client of RFC 5389 sends as `ana`.
fn plain(nonce: &[u8]) -> Credentials<'_> {
    Credentials {
        name: Some((attribute::USERNAME, b"ana")),
        realm: Some(REALM.as_bytes()),
        nonce: Some(nonce),
        algorithms: None,
        algorithm: None,
        key: md5("ana", "ana"),
        sha256: false,
    }
}

#[test]
fn a_request_without_credentials_gets_a_small_challenge() {
    let mut world = World::new(config());
    let mut bytes = Vec::new();
    Ask::allocate().write(&mut bytes, TransactionId([3; 12]));
    let answer = world.answer(&client(1), &bytes);
    assert_eq!(answer.code(), 401);
    assert_eq!(answer.bytes(attribute::REALM).unwrap(), REALM.as_bytes());
    assert!(answer.bytes(attribute::NONCE).unwrap().starts_with(b"obMatJos2wAAA"));
    assert_eq!(answer.bytes(attribute::PASSWORD_ALGORITHMS).unwrap(), ALGORITHMS);
    assert!(answer.0.len() <= 92, "{} bytes", answer.0.len());
    assert_eq!(world.server.len(), 0);
}

#[test]
fn wrong_password_unknown_user_and_expired_credential_look_alike() {
    let mut world = World::new(config());
    world.sleep(200);
    let nonce = world.nonce(&client(1));
    let mut answers = Vec::new();
    for (name, key) in
        [("ana", md5("ana", "wrong")), ("nobody", md5("nobody", "x")), ("old", md5("old", "old"))]
    {
        let name = Some((attribute::USERNAME, name.as_bytes()));
        let (code, bytes) = Credentials { name, key, ..plain(&nonce) }.send(&mut world, &client(1));
        assert_eq!(code, 401);
        let kinds: Vec<_> =
            Message::parse(&bytes).unwrap().attributes().map(|(kind, value)| (kind, value.len())).collect();
        answers.push((bytes.len(), kinds));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[test]
fn integrity_without_name_realm_or_nonce_is_400() {
    let mut world = World::new(config());
    let nonce = world.nonce(&client(1));
    for broken in [
        Credentials { name: None, ..plain(&nonce) },
        Credentials { realm: None, ..plain(&nonce) },
        Credentials { nonce: None, ..plain(&nonce) },
    ] {
        assert_eq!(broken.send(&mut world, &client(1)).0, 400);
    }
}

#[test]
fn a_stale_or_foreign_nonce_is_438_with_a_new_one() {
    let mut world = World::new(config());
    let nonce = world.nonce(&client(1));
    let (code, bytes) = plain(&nonce).send(&mut world, &client(2));
    assert_eq!(code, 438, "the nonce of another address");
    let fresh = Message::parse(&bytes).unwrap().first(attribute::NONCE).unwrap().to_vec();
    assert_eq!(plain(&fresh).send(&mut world, &client(2)).0, 0);
    world.sleep(601);
    assert_eq!(plain(&nonce).send(&mut world, &client(1)).0, 438);
    assert_eq!(plain(b"deadbeef").send(&mut world, &client(1)).0, 438);
}

#[test]
fn sha256_and_userhash_are_understood_and_answered_in_kind() {
    let mut world = World::new(config());
    let nonce = world.nonce(&client(1));
    let hash = userhash("ana", REALM);
    let key = Key::long_term(Algorithm::Sha256, "ana", REALM, "ana");
    let modern = Credentials {
        name: Some((attribute::USERHASH, &hash)),
        algorithms: Some(ALGORITHMS),
        algorithm: Some(&[0, 2, 0, 0]),
        key: key.clone(),
        sha256: true,
        ..plain(&nonce)
    };
    let (code, bytes) = modern.send(&mut world, &client(1));
    assert_eq!(code, 0);
    let answer = Message::parse(&bytes).unwrap();
    assert!(answer.verify_sha256(&key) && !answer.has_integrity_sha1());
}

#[test]
fn a_list_of_algorithms_that_was_not_offered_is_a_bid_down() {
    let mut world = World::new(config());
    let nonce = world.nonce(&client(1));
    let md5: &[u8] = &[0, 1, 0, 0];
    let unknown: &[u8] = &[0, 9, 0, 0];
    for (algorithms, algorithm) in [
        (Some(md5), Some(md5)),
        (Some(ALGORITHMS), None),
        (None, Some(md5)),
        (Some(ALGORITHMS), Some(unknown)),
    ] {
        let bid = Credentials { algorithms, algorithm, ..plain(&nonce) };
        assert_eq!(bid.send(&mut world, &client(1)).0, 400, "{algorithms:?} {algorithm:?}");
    }
}

#[test]
fn attributes_after_the_integrity_are_ignored() {
    let mut world = World::new(config());
    world.allocated(1);
    let nonce = world.nonce(&client(1));
    let mut bytes = Vec::new();
    let transaction = world.next_transaction();
    Ask::refresh(600)
        .write(&mut bytes, transaction)
        .attribute(attribute::USERNAME, b"ana")
        .attribute(attribute::REALM, REALM.as_bytes())
        .attribute(attribute::NONCE, &nonce)
        .integrity_sha1(&md5("ana", "ana"))
        .u32(attribute::LIFETIME, 0)
        .attribute(0x7FFF, &[])
        .fingerprint();
    let answer = world.answer(&client(1), &bytes);
    assert_eq!((answer.code(), answer.lifetime()), (0, 600));
    assert!(answer.message().has_fingerprint());
    assert_eq!(world.server.len(), 1);
}

#[test]
fn a_binding_needs_no_credentials_and_its_answer_is_as_small_as_can_be() {
    let mut world = World::new(config());
    let mut bytes = Vec::new();
    Writer::new(&mut bytes, Class::Request, Method::Binding, TransactionId([1; 12]));
    let answer = world.answer(&client(1), &bytes);
    assert_eq!(answer.0.len(), 32);
    assert_eq!(answer.message().xor_address(attribute::XOR_MAPPED_ADDRESS), Some(Some(client(1).client)));
    Writer::new(&mut bytes, Class::Request, Method::Binding, TransactionId([1; 12]))
        .attribute(0x7FFF, &[])
        .attribute(0x7FFE, &[]);
    let answer = world.answer(&client(1), &bytes);
    assert_eq!(answer.code(), 420);
    assert_eq!(answer.bytes(attribute::UNKNOWN_ATTRIBUTES).unwrap(), [0x7F, 0xFF, 0x7F, 0xFE]);
}

#[test]
fn a_flood_of_challenges_is_cut_and_those_who_follow_up_are_not() {
    let mut tight = config();
    tight.limits.unauthenticated_burst = 10;
    tight.limits.unauthenticated_per_second = 1;
    let mut world = World::new(tight);
    let mut bytes = Vec::new();
    for round in 0..50u8 {
        assert_ne!(world.ask(&client(1), "ana", &Ask::refresh(u32::from(round))).code(), 401);
    }
    Ask::allocate().write(&mut bytes, TransactionId([0; 12]));
    let answered = (0..100).filter(|_| matches!(world.send(&client(2), &bytes), Verdict::Reply)).count();
    assert_eq!(answered, 10);
    let limited = Measure::Dropped(crate::turn::Direction::ToPeer, DropReason::RateLimited);
    assert_eq!(world.measure(limited), 90);
}

#[test]
fn what_is_no_request_is_dropped_in_silence_with_its_reason() {
    let mut world = World::new(config());
    let message = |class, method| {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, class, method, TransactionId([1; 12]));
        bytes
    };
    let mut bad_fingerprint = message(Class::Request, Method::Binding);
    bad_fingerprint.extend_from_slice(&[0x80, 0x28, 0, 4, 1, 2, 3, 4]);
    bad_fingerprint[3] = 8;
    let mut odd = message(Class::Request, Method::Binding);
    odd[3] = 2;
    odd.extend_from_slice(&[0, 0]);
    let cases = [
        (Vec::new(), DropReason::NotStun),
        (vec![0x80; 20], DropReason::NotStun),
        (vec![0; 20], DropReason::NotStun),
        (vec![0; 19], DropReason::NotStun),
        (odd, DropReason::Malformed),
        (bad_fingerprint, DropReason::Fingerprint),
        (message(Class::Success, Method::Binding), DropReason::Unexpected),
        (message(Class::Error, Method::Allocate), DropReason::Unexpected),
        (message(Class::Indication, Method::Data), DropReason::Unexpected),
        (message(Class::Request, Method::Send), DropReason::Unexpected),
        (message(Class::Request, Method::Other(0x0FF)), DropReason::UnknownMethod),
        (message(Class::Indication, Method::Binding), DropReason::KeepAlive),
        (message(Class::Indication, Method::Send), DropReason::Incomplete),
        (vec![0x40, 0, 0, 5, 1, 2, 3, 4], DropReason::ChannelLength),
        (vec![0x40, 0, 0, 4, 1, 2, 3, 4], DropReason::NoAllocation),
    ];
    for (bytes, reason) in cases {
        match world.send(&client(1), &bytes) {
            Verdict::Drop(found) => assert_eq!(found, reason, "{bytes:?}"),
            other => panic!("{other:?} for {bytes:?}"),
        }
    }
    let mut nowhere = client(1);
    nowhere.client.set_port(0);
    let binding = message(Class::Request, Method::Binding);
    assert!(matches!(world.send(&nowhere, &binding), Verdict::Drop(DropReason::SourcePort)));
}
