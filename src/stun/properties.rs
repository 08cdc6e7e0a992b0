//! What holds for every message.

use proptest::prelude::*;

use crate::stun::{Algorithm, Class, Key, Malformed, Message, Method, TransactionId, Writer, attribute};

type Attribute = (u16, Vec<u8>);

/// Attributes of any kind that is none of the three with a meaning for the frame.
fn attributes(most: usize) -> impl Strategy<Value = Vec<Attribute>> {
    let framing = [attribute::MESSAGE_INTEGRITY, attribute::MESSAGE_INTEGRITY_SHA256, attribute::FINGERPRINT];
    let kind = any::<u16>().prop_filter("an ordinary attribute", move |kind| !framing.contains(kind));
    prop::collection::vec((kind, prop::collection::vec(any::<u8>(), 0..40)), 0..most)
}

fn class() -> impl Strategy<Value = Class> {
    prop::sample::select(vec![Class::Request, Class::Indication, Class::Success, Class::Error])
}

fn key(password: &str) -> Key {
    Key::long_term(Algorithm::Sha256, "ana", "example.org", password)
}

fn write(out: &mut Vec<u8>, attributes: &[Attribute], finish: impl FnOnce(&mut Writer<'_>)) {
    let mut writer = Writer::new(out, Class::Request, Method::Allocate, TransactionId([1; 12]));
    append(&mut writer, attributes);
    finish(&mut writer);
}

fn append(writer: &mut Writer<'_>, attributes: &[Attribute]) {
    for (kind, value) in attributes {
        writer.attribute(*kind, value);
    }
}

fn read(message: &Message<'_>) -> Vec<Attribute> {
    message.attributes().map(|(kind, value)| (kind, value.to_vec())).collect()
}

/// The frame of a message as RFC 8489 section 5 and 14 tell it, without a thought for speed: every attribute.
fn plainly(bytes: &[u8]) -> Option<Vec<Attribute>> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let well_framed = bytes.len() >= 20
        && bytes[0] < 0x40
        && bytes[4..8] == [0x21, 0x12, 0xA4, 0x42]
        && bytes.len().is_multiple_of(4)
        && usize::from(word(2)?) == bytes.len() - 20;
    let (mut found, mut at) = (Vec::new(), 20);
    while well_framed && at < bytes.len() {
        let (kind, length) = (word(at)?, usize::from(word(at + 2)?));
        found.push((kind, bytes.get(at + 4..at + 4 + length)?.to_vec()));
        let start = at;
        at += 4 + length.div_ceil(4) * 4;
        let intact = || {
            let value = bytes.get(start + 4..start + 8)?;
            let crc = crc(&bytes[..start]) ^ 0x5354_554E;
            (length == 4 && value == crc.to_be_bytes() && at == bytes.len()).then_some(())
        };
        if kind == attribute::FINGERPRINT {
            intact()?;
        }
    }
    (well_framed && at == bytes.len()).then_some(found)
}

/// CRC-32 of ITU V.42, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// A message with something changed, or nothing but noise behind a header.
fn nearly_a_message() -> impl Strategy<Value = Vec<u8>> {
    let written = (attributes(6), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(list, sha1, sha256, last)| {
            let mut bytes = Vec::new();
            write(&mut bytes, &list, |writer| {
                if sha1 {
                    writer.integrity_sha1(&key("secret"));
                }
                if sha256 {
                    writer.integrity_sha256(&key("secret"));
                }
                if last {
                    writer.fingerprint();
                }
            });
            bytes
        },
    );
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (written, changes, 0..8usize, any::<bool>()).prop_map(|(mut bytes, changes, cut, fix)| {
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut.saturating_sub(4));
        if fix && bytes.len() >= 4 {
            let length = (bytes.len().max(20) - 20) as u16;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        bytes
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        list in attributes(10), class in class(), number in 0..0x1000u16, id: [u8; 12], sha256: bool, fingerprint: bool
    ) {
        let mut bytes = vec![7; 3];
        let mut writer = Writer::new(&mut bytes, class, Method::Other(number), TransactionId(id));
        append(&mut writer, &list);
        if sha256 {
            writer.integrity_sha256(&key("secret"));
        } else {
            writer.integrity_sha1(&key("secret"));
        }
        if fingerprint {
            writer.fingerprint();
        }
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!((message.class(), message.method().number()), (class, number));
        prop_assert_eq!((message.transaction(), message.has_fingerprint()), (TransactionId(id), fingerprint));
        prop_assert_eq!(read(&message), list);
        prop_assert_eq!(message.verify_sha1(&key("secret")), !sha256);
        prop_assert_eq!(message.verify_sha256(&key("secret")), sha256);
        prop_assert!(!message.verify_sha1(&key("other")) && !message.verify_sha256(&key("other")));
    }

    #[test]
    fn a_message_reads_as_a_plain_reading_of_the_rfc_says(bytes in nearly_a_message()) {
        let border = [attribute::MESSAGE_INTEGRITY, attribute::MESSAGE_INTEGRITY_SHA256, attribute::FINGERPRINT];
        match (Message::parse(&bytes), plainly(&bytes)) {
            (Ok(message), Some(all)) => {
                let visible: Vec<_> = all.into_iter().take_while(|(kind, _)| !border.contains(kind)).collect();
                prop_assert_eq!(read(&message), visible);
            }
            (Err(_), None) => {}
            (ours, plain) => prop_assert!(false, "{ours:?} but {plain:?}"),
        }
    }

    #[test]
    fn what_stands_behind_the_integrity_does_not_exist(
        before in attributes(5), between in attributes(3), behind in attributes(3), fingerprint: bool
    ) {
        let mut bytes = Vec::new();
        write(&mut bytes, &before, |writer| {
            writer.integrity_sha1(&key("secret"));
            append(writer, &between);
            writer.integrity_sha256(&key("secret"));
            append(writer, &behind);
            if fingerprint {
                writer.fingerprint();
            }
        });
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!(&read(&message), &before);
        prop_assert!(message.verify_sha1(&key("secret")) && message.verify_sha256(&key("secret")));
        for (kind, _) in between.iter().chain(&behind) {
            prop_assert_eq!(message.first(*kind).is_some(), before.iter().any(|(found, _)| found == kind));
            prop_assert_eq!(message.first_range(*kind).is_some(), message.first(*kind).is_some());
        }
    }

    #[test]
    fn a_message_integrity_behind_that_of_sha256_does_not_exist_either(before in attributes(5)) {
        let mut bytes = Vec::new();
        write(&mut bytes, &before, |writer| {
            writer.integrity_sha256(&key("secret")).integrity_sha1(&key("secret"));
        });
        let message = Message::parse(&bytes).unwrap();
        prop_assert!(message.verify_sha256(&key("secret")) && !message.has_integrity_sha1());
        prop_assert!(!message.verify_sha1(&key("secret")));
    }

    #[test]
    fn nothing_can_change_before_the_integrity(list in attributes(5), sha256: bool, at: prop::sample::Index, flip in 1..=255u8) {
        let mut bytes = Vec::new();
        write(&mut bytes, &list, |writer| {
            if sha256 {
                writer.integrity_sha256(&key("secret"));
            } else {
                writer.integrity_sha1(&key("secret"));
            }
        });
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let verifies = Message::parse(&bytes)
            .is_ok_and(|message| message.verify_sha1(&key("secret")) || message.verify_sha256(&key("secret")));
        prop_assert!(!verifies);
    }

    #[test]
    fn a_truncated_integrity_verifies_nothing(list in attributes(3), length in 0..32usize) {
        let mut bytes = Vec::new();
        write(&mut bytes, &list, |writer| {
            writer.integrity_sha256(&key("secret"));
        });
        let start = bytes.len() - 36;
        let code = bytes[start + 4..].to_vec();
        write(&mut bytes, &list, |writer| {
            writer.attribute(attribute::MESSAGE_INTEGRITY_SHA256, &code[..length]);
        });
        let message = Message::parse(&bytes).unwrap();
        prop_assert!(message.has_integrity_sha256() && !message.verify_sha256(&key("secret")));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let parsed = Message::parse(&bytes);
        prop_assert!(parsed.is_ok() || matches!(parsed, Err(Malformed::NotStun | Malformed::Length)));
    }

    #[test]
    fn each_unknown_attribute_is_named_once_and_in_order(list in attributes(12)) {
        let mut bytes = Vec::new();
        write(&mut bytes, &list, |_| {});
        let mut expected = Vec::new();
        for (kind, _) in list {
            let unknown = attribute::comprehension_required(kind) && !attribute::understood(kind);
            if unknown && !expected.contains(&kind) {
                expected.push(kind);
            }
        }
        let message = Message::parse(&bytes).unwrap();
        let (mut many, mut few) = ([0; 16], [0; 2]);
        prop_assert_eq!(message.unknown_required(&mut many), &expected[..]);
        prop_assert_eq!(message.unknown_required(&mut few), &expected[..expected.len().min(2)]);
    }
}
