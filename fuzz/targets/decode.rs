//! A datagram: read by every accessor, and compared with how another codec reads it.

use passerelle::stun::{Algorithm, Class, Key, Message, Method, attribute};

/// What the other codec calls by its new number (drafts of RFC 5389 had 0x8020).
const OLD_XOR_MAPPED_ADDRESS: u16 = 0x8020;

pub(super) fn run(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    let visible: Vec<(u16, &[u8])> = message.attributes().collect();
    for (kind, _) in &visible {
        let first = message.first(*kind);
        let range = message.first_range(*kind);
        assert_eq!(first, range.and_then(|range| bytes.get(range)));
        assert_eq!(first, visible.iter().find(|(found, _)| found == kind).map(|(_, value)| *value));
        let _ = (message.text(*kind), message.xor_address(*kind));
    }
    let mut unknown = [0; 4];
    assert!(message.unknown_required(&mut unknown).len() <= 4);
    let key = Key::long_term(Algorithm::Md5, "nobody", "nowhere", "knows");
    assert!(!message.verify_sha1(&key) && !message.verify_sha256(&key));
    agrees_with_the_stun_crate(bytes, &message, &visible);
}

fn agrees_with_the_stun_crate(bytes: &[u8], message: &Message<'_>, visible: &[(u16, &[u8])]) {
    use stun::message as other;

    let mut found = other::Message::new();
    found.raw = bytes.to_vec();
    found.decode().expect("what is well framed here is well framed there");
    assert_eq!(found.transaction_id.0, message.transaction().0);
    let class = match message.class() {
        Class::Request => other::CLASS_REQUEST,
        Class::Indication => other::CLASS_INDICATION,
        Class::Success => other::CLASS_SUCCESS_RESPONSE,
        Class::Error => other::CLASS_ERROR_RESPONSE,
    };
    assert_eq!((found.typ.class, Some(&found.typ.value().to_be_bytes()[..])), (class, bytes.get(..2)));
    assert_eq!(found.typ.method == other::METHOD_BINDING, message.method() == Method::Binding);
    assert_eq!(found.typ.method == other::METHOD_CHANNEL_BIND, message.method() == Method::ChannelBind);
    assert!(found.attributes.0.len() >= visible.len());
    for (theirs, (kind, value)) in found.attributes.0.iter().zip(visible) {
        let renamed = *kind == OLD_XOR_MAPPED_ADDRESS && theirs.typ.0 == attribute::XOR_MAPPED_ADDRESS;
        assert!(theirs.typ.0 == *kind || renamed);
        assert_eq!(theirs.value, *value);
    }
}
