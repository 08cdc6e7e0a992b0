//! Writes answers: success with what the method returns, errors with what their code demands.

use std::net::SocketAddr;

use smallvec::SmallVec;

use super::allocation::{Allocation, Made};
use super::long_term::{Authenticated, Integrity, PASSWORD_ALGORITHMS};
use super::nonce;
use super::{Config, Reject};
use crate::stun::{Class, Key, Message, Method, TransactionId, Writer, attribute};

/// The longest list of UNKNOWN-ATTRIBUTES an answer carries.
pub(super) const MAX_UNKNOWN: usize = 16;

/// What a successful method returns.
#[derive(Debug)]
pub(super) enum Success {
    Allocate(Allocated),
    Refresh { lifetime: u32 },
    CreatePermission,
    ChannelBind,
}

/// The content of an Allocate success (RFC 8656 section 7.2).
#[derive(Debug)]
pub(super) struct Allocated {
    relayed: SmallVec<[SocketAddr; 2]>,
    mapped: SocketAddr,
    made_by: Made,
}

impl Allocated {
    pub(super) fn of(allocation: &Allocation) -> Self {
        Self {
            relayed: allocation.relayed.iter().map(|relayed| relayed.lease.external()).collect(),
            mapped: allocation.five_tuple.client,
            made_by: allocation.made_by,
        }
    }
}

/// What an answer is protected with.
pub(super) struct Protection<'a> {
    pub(super) key: &'a Key,
    pub(super) integrity: Integrity,
}

impl<'a> From<&'a Authenticated> for Protection<'a> {
    fn from(authenticated: &'a Authenticated) -> Self {
        Self { key: &authenticated.key, integrity: authenticated.integrity }
    }
}

/// What an answer answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) transaction: TransactionId,
    /// FINGERPRINT goes back to those who sent one.
    pub(super) fingerprint: bool,
}

impl Head {
    pub(super) fn of(message: &Message<'_>) -> Self {
        Self {
            method: message.method(),
            transaction: message.transaction(),
            fingerprint: message.has_fingerprint(),
        }
    }
}

/// XOR-MAPPED-ADDRESS and nothing else.
pub(super) fn binding(out: &mut Vec<u8>, head: Head, mapped: SocketAddr) {
    let mut writer = Writer::new(out, Class::Success, head.method, head.transaction);
    writer.xor_address(attribute::XOR_MAPPED_ADDRESS, mapped);
    if head.fingerprint {
        writer.fingerprint();
    }
}

pub(super) fn success(
    out: &mut Vec<u8>,
    head: Head,
    success: &Success,
    config: &Config,
    by: &Protection<'_>,
) {
    let mut writer = Writer::new(out, Class::Success, head.method, head.transaction);
    match success {
        Success::Allocate(Allocated { relayed, mapped, made_by }) => {
            for address in relayed {
                writer.xor_address(attribute::XOR_RELAYED_ADDRESS, *address);
            }
            writer.u32(attribute::LIFETIME, made_by.lifetime.as_secs() as u32);
            writer.xor_address(attribute::XOR_MAPPED_ADDRESS, *mapped);
            if let Some(token) = made_by.token {
                writer.attribute(attribute::RESERVATION_TOKEN, &token);
            }
            if let Some((family, code)) = made_by.family_error {
                let value = [family.number(), 0, (code / 100) as u8, (code % 100) as u8];
                writer.attribute(attribute::ADDRESS_ERROR_CODE, &value);
            }
        }
        Success::Refresh { lifetime } => {
            writer.u32(attribute::LIFETIME, *lifetime);
        }
        Success::CreatePermission | Success::ChannelBind => {}
    }
    if let Some(software) = &config.software {
        writer.attribute(attribute::SOFTWARE, software.as_bytes());
    }
    finish(&mut writer, head, Some(by));
}

/// A challenge of a 401 or 438.
pub(super) struct Challenge<'a> {
    pub(super) realm: &'a str,
    pub(super) nonce: [u8; nonce::LENGTH],
}

/// What an error answer carries beside its code.
#[derive(Default)]
pub(super) struct ErrorDetail<'a> {
    pub(super) challenge: Option<Challenge<'a>>,
    pub(super) unknown: &'a [u16],
    pub(super) alternate: Option<SocketAddr>,
    pub(super) protection: Option<Protection<'a>>,
}

/// An error. Those who have not authenticated get no reason phrase: their answer stays small.
pub(super) fn error(out: &mut Vec<u8>, head: Head, reject: Reject, detail: &ErrorDetail<'_>) {
    let mut writer = Writer::new(out, Class::Error, head.method, head.transaction);
    let reason = if detail.protection.is_some() { reject.to_string() } else { String::new() };
    writer.error(reject.code(), &reason);
    if let Some(challenge) = &detail.challenge {
        writer.attribute(attribute::REALM, challenge.realm.as_bytes());
        writer.attribute(attribute::NONCE, &challenge.nonce);
        writer.attribute(attribute::PASSWORD_ALGORITHMS, &PASSWORD_ALGORITHMS);
    }
    if reject == Reject::UnknownAttribute {
        let types: SmallVec<[u8; 2 * MAX_UNKNOWN]> =
            detail.unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
        writer.attribute(attribute::UNKNOWN_ATTRIBUTES, &types);
    }
    if let Some(alternate) = detail.alternate {
        writer.mapped_address(attribute::ALTERNATE_SERVER, alternate);
    }
    finish(&mut writer, head, detail.protection.as_ref());
}

fn finish(writer: &mut Writer<'_>, head: Head, protection: Option<&Protection<'_>>) {
    if let Some(protection) = protection {
        match protection.integrity {
            Integrity::Sha1 => writer.integrity_sha1(protection.key),
            Integrity::Sha256 => writer.integrity_sha256(protection.key),
        };
    }
    if head.fingerprint {
        writer.fingerprint();
    }
}
