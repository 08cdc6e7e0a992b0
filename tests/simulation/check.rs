//! Compares what a server sent and counted with what the model knows.

use std::net::SocketAddr;

use passerelle::stun::attribute::{self, Family};
use passerelle::stun::{Class, Message};
use passerelle::turn::{Config, Measure, Stats, Transport};

use super::cast::{Directory, REALM};
use super::model::{Answer, Content, Model, Pending, Token};

/// What is wrong, in a sentence.
pub type Wrong = String;

pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// An answer to a request. Returns the nonce or the token that only the server could draw.
pub fn answer(
    bytes: &[u8],
    wanted: &Answer,
    directory: &Directory,
    config: &Config,
) -> Result<Option<Vec<u8>>, Wrong> {
    let message = Message::parse(bytes).map_err(|error| format!("an answer that is no message: {error}"))?;
    let code = match (message.class(), message.first(attribute::ERROR_CODE)) {
        (Class::Success, None) => 0,
        (Class::Error, Some([0, 0, class, number, ..])) => u16::from(*class) * 100 + u16::from(*number),
        other => return Err(format!("{other:?} is no answer")),
    };
    ensure(code == wanted.code, || format!("{code} instead of {wanted:?}"))?;
    ensure(message.transaction().0 == wanted.transaction, || "another transaction".into())?;
    ensure(message.has_fingerprint() == wanted.fingerprint, || {
        "FINGERPRINT only where there was one".into()
    })?;
    let protection = (message.has_integrity_sha1(), message.has_integrity_sha256());
    let protected = match &wanted.proof {
        None => protection == (false, false),
        Some(proof) => {
            let key = directory.key(proof.credential, proof.algorithm);
            protection == (!proof.sha256, proof.sha256)
                && if proof.sha256 { message.verify_sha256(key) } else { message.verify_sha1(key) }
        }
    };
    ensure(protected, || format!("protection {protection:?} of {wanted:?}"))?;
    content(&message, wanted, config)
}

fn content(message: &Message<'_>, wanted: &Answer, config: &Config) -> Result<Option<Vec<u8>>, Wrong> {
    let bytes = |kind: u16| message.first(kind).map(<[u8]>::to_vec);
    let xor = |kind: u16| message.xor_address(kind).flatten();
    let lifetime = || bytes(attribute::LIFETIME).and_then(|value| attribute::read_u32(&value)).map(u64::from);
    let mut drawn = None;
    let right = match &wanted.content {
        Content::Nothing => true,
        Content::Mapped(mapped) => xor(attribute::XOR_MAPPED_ADDRESS) == Some(*mapped),
        Content::Lifetime(seconds) => lifetime() == Some(*seconds),
        Content::UnknownAttributes => bytes(attribute::UNKNOWN_ATTRIBUTES) == Some(vec![0x7A, 0xBC]),
        Content::Alternate(_) => bytes(attribute::ALTERNATE_SERVER).is_some(),
        Content::Challenge => {
            drawn = bytes(attribute::NONCE);
            message.text(attribute::REALM) == Some(REALM)
                && bytes(attribute::PASSWORD_ALGORITHMS) == Some(vec![0, 2, 0, 0, 0, 1, 0, 0])
        }
        Content::Allocated { relayed, mapped, lifetime: granted, token, family_error } => {
            let relayed_addresses: Vec<SocketAddr> = message
                .attributes()
                .filter(|(kind, _)| *kind == attribute::XOR_RELAYED_ADDRESS)
                .filter_map(|(_, value)| passerelle::stun::address::decode(value, &message.transaction()))
                .collect();
            drawn = bytes(attribute::RESERVATION_TOKEN);
            let token = match token {
                Token::No => drawn.is_none(),
                Token::Fresh => drawn.is_some(),
                Token::Known(known) => drawn.as_deref() == Some(known),
            };
            let error =
                family_error.map(|(family, code)| vec![family, 0, (code / 100) as u8, (code % 100) as u8]);
            token
                && relayed_addresses == *relayed
                && xor(attribute::XOR_MAPPED_ADDRESS) == Some(*mapped)
                && lifetime() == Some(*granted)
                && bytes(attribute::ADDRESS_ERROR_CODE) == error
        }
    };
    ensure(right, || format!("{:?} instead of {wanted:?}", message.attributes().collect::<Vec<_>>()))?;
    let software = wanted.code == 0 && wanted.proof.is_some() && config.software.is_some();
    ensure(bytes(attribute::SOFTWARE).is_some() == software, || "SOFTWARE".into())?;
    Ok(drawn)
}

/// The sockets of an Allocate: one a family, on free ports of the range, even where asked.
pub fn sockets(model: &Model, pending: &Pending, locals: &[SocketAddr]) -> Result<(), Wrong> {
    let families: Vec<Family> = locals.iter().map(|local| Family::of(local.ip())).collect();
    ensure(families == pending.families, || format!("{families:?} instead of {:?}", pending.families))?;
    if let Some(reserved) = pending.reserved {
        return ensure(locals == [reserved], || format!("{locals:?} instead of the reserved {reserved}"));
    }
    let leased: Vec<SocketAddr> = model.leased().collect();
    let range = model.config.ports;
    let free = |at: SocketAddr| (range.first..=range.last).contains(&at.port()) && !leased.contains(&at);
    for local in locals {
        let next = SocketAddr::new(local.ip(), local.port().wrapping_add(1));
        let fits = match pending.wants.even {
            None => true,
            Some(reserve) => local.port() % 2 == 0 && (!reserve || free(next)),
        };
        ensure(fits && free(*local), || format!("{local} is not free or does not fit {:?}", pending.wants))?;
    }
    Ok(())
}

/// What goes before a payload on its way to a client.
pub fn frame(
    prefix: &[u8],
    padding: u8,
    length: usize,
    transport: Transport,
    channel: Option<u16>,
    peer: SocketAddr,
) -> Result<(), Wrong> {
    let padded = length + usize::from(padding);
    match channel {
        Some(number) => {
            let header = [number.to_be_bytes(), (length as u16).to_be_bytes()].concat();
            let whole = if transport.is_stream() { length.next_multiple_of(4) } else { length };
            ensure(prefix == header && padded == whole, || {
                format!("{prefix:?} and {padding} for {number:#x}")
            })
        }
        None => {
            let mut bytes = prefix.to_vec();
            bytes.resize(prefix.len() + padded, 0);
            let message = Message::parse(&bytes).map_err(|error| format!("no Data indication: {error}"))?;
            let data = message.first(attribute::DATA).map(<[u8]>::len);
            let from = message.xor_address(attribute::XOR_PEER_ADDRESS).flatten();
            ensure((data, from) == (Some(length), Some(peer)), || format!("{data:?} bytes from {from:?}"))
        }
    }
}

/// A Data indication about an error.
pub fn icmp(bytes: &[u8], peer: SocketAddr) -> Result<(), Wrong> {
    let message = Message::parse(bytes).map_err(|error| format!("no Data indication: {error}"))?;
    let about = message.xor_address(attribute::XOR_PEER_ADDRESS).flatten();
    let error = message.first(attribute::ICMP);
    let right = message.class() == Class::Indication && message.first(attribute::DATA).is_none();
    ensure(right && about == Some(peer) && error == Some(&[0, 0, 6, 4, 0, 0, 5, 0]), || {
        format!("{error:?} of {about:?}")
    })
}

/// Every counter and gauge of a worker; `held` is what permissions and channels must read, if that is certain.
pub fn counters(model: &Model, worker: usize, stats: &Stats, held: Option<(u64, u64)>) -> Result<(), Wrong> {
    let mut wrong = None;
    stats.each(|measure, value| {
        let wanted = match measure {
            Measure::Allocations(transport, family) => {
                Some(model.allocation_gauge(worker, transport, family))
            }
            Measure::Permissions => held.map(|held| held.0),
            Measure::Channels => held.map(|held| held.1),
            counter => Some(model.counted(worker, counter)),
        };
        if wanted.is_some_and(|wanted| wanted != value) {
            wrong = Some(format!("{measure:?} reads {value} instead of {wanted:?}"));
        }
    });
    wrong.map_or(Ok(()), Err)
}
