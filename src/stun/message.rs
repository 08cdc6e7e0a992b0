//! A received message: its frame is checked once, its attributes are read in place.

use subtle::ConstantTimeEq as _;

use super::{Key, MAGIC_COOKIE, address, attribute};

/// Bytes of a STUN header.
pub const HEADER_LENGTH: usize = 20;

/// The 96 bits that pair an answer with its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// Class of a message (RFC 8489 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// A positive answer.
    Success,
    /// A negative answer.
    Error,
}

/// Methods this server knows (RFC 8489 section 18.2, RFC 8656 section 17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// 0x001.
    Binding,
    /// 0x003.
    Allocate,
    /// 0x004.
    Refresh,
    /// 0x006.
    Send,
    /// 0x007.
    Data,
    /// 0x008.
    CreatePermission,
    /// 0x009.
    ChannelBind,
    /// Any other number.
    Other(u16),
}

impl Method {
    const fn from_number(number: u16) -> Self {
        match number {
            0x001 => Self::Binding,
            0x003 => Self::Allocate,
            0x004 => Self::Refresh,
            0x006 => Self::Send,
            0x007 => Self::Data,
            0x008 => Self::CreatePermission,
            0x009 => Self::ChannelBind,
            other => Self::Other(other),
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::Binding => 0x001,
            Self::Allocate => 0x003,
            Self::Refresh => 0x004,
            Self::Send => 0x006,
            Self::Data => 0x007,
            Self::CreatePermission => 0x008,
            Self::ChannelBind => 0x009,
            Self::Other(number) => number,
        }
    }
}

/// The 14 bits of a message type: method with the class bits woven in (RFC 8489 figure 3).
pub(super) const fn message_type(method: Method, class: Class) -> u16 {
    let number = method.number();
    let class_bits = match class {
        Class::Request => 0x000,
        Class::Indication => 0x010,
        Class::Success => 0x100,
        Class::Error => 0x110,
    };
    (number & 0x000F) | ((number & 0x0070) << 1) | ((number & 0x0F80) << 2) | class_bits
}

/// Why bytes are no STUN message. Such bytes are dropped in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than a header, first bits not zero, or another magic cookie.
    #[error("not a STUN message")]
    NotStun,
    /// LENGTH is no multiple of four or does not match the bytes.
    #[error("length field does not match")]
    Length,
    /// An attribute reaches beyond the message, or FINGERPRINT is not the last one.
    #[error("attribute out of bounds")]
    Attribute,
    /// FINGERPRINT does not match.
    #[error("bad FINGERPRINT")]
    Fingerprint,
}

/// A borrowed view of a well-framed message. Attributes behind MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 do not
/// exist for its readers (RFC 8489 section 14.5), but for the second integrity and FINGERPRINT.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    method: Method,
    class: Class,
    /// End of the visible attributes.
    visible_end: usize,
    /// Offset of MESSAGE-INTEGRITY.
    sha1_at: Option<usize>,
    /// Offset of MESSAGE-INTEGRITY-SHA256.
    sha256_at: Option<usize>,
    fingerprint: bool,
}

impl<'a> Message<'a> {
    /// Checks the frame of exactly one message.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are not one whole STUN message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header: &[u8; HEADER_LENGTH] = bytes.first_chunk().ok_or(Malformed::NotStun)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, ..] = *header;
        let kind = u16::from_be_bytes([t0, t1]);
        if kind & 0xC000 != 0 || u32::from_be_bytes([c0, c1, c2, c3]) != MAGIC_COOKIE {
            return Err(Malformed::NotStun);
        }
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length % 4 != 0 || length + HEADER_LENGTH != bytes.len() {
            return Err(Malformed::Length);
        }
        let class = match kind & 0x0110 {
            0x000 => Class::Request,
            0x010 => Class::Indication,
            0x100 => Class::Success,
            _ => Class::Error,
        };
        let number = (kind & 0x000F) | ((kind & 0x00E0) >> 1) | ((kind & 0x3E00) >> 2);
        let mut message = Self {
            bytes,
            method: Method::from_number(number),
            class,
            visible_end: bytes.len(),
            sha1_at: None,
            sha256_at: None,
            fingerprint: false,
        };
        message.walk()?;
        Ok(message)
    }

    /// Checks every attribute's bounds and finds the border at the first integrity.
    fn walk(&mut self) -> Result<(), Malformed> {
        let mut at = HEADER_LENGTH;
        while at < self.bytes.len() {
            let (kind, value, next) = attribute_at(self.bytes, at).ok_or(Malformed::Attribute)?;
            let covered = self.sha1_at.is_none() && self.sha256_at.is_none();
            match kind {
                attribute::MESSAGE_INTEGRITY if covered => {
                    self.visible_end = at;
                    self.sha1_at = Some(at);
                }
                attribute::MESSAGE_INTEGRITY_SHA256 if self.sha256_at.is_none() => {
                    if covered {
                        self.visible_end = at;
                    }
                    self.sha256_at = Some(at);
                }
                attribute::FINGERPRINT => {
                    if next != self.bytes.len() {
                        return Err(Malformed::Attribute);
                    }
                    if attribute::read_u32(value)
                        != Some(fingerprint(self.bytes.get(..at).unwrap_or_default()))
                    {
                        return Err(Malformed::Fingerprint);
                    }
                    self.visible_end = self.visible_end.min(at);
                    self.fingerprint = true;
                }
                _ => {}
            }
            at = next;
        }
        Ok(())
    }

    /// Its method.
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Its class.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Its transaction id.
    pub fn transaction(&self) -> TransactionId {
        TransactionId(self.bytes.get(8..20).and_then(|id| id.try_into().ok()).unwrap_or_default())
    }

    /// Whether it carried a (correct) FINGERPRINT.
    pub const fn has_fingerprint(&self) -> bool {
        self.fingerprint
    }

    /// Whether it carries MESSAGE-INTEGRITY.
    pub const fn has_integrity_sha1(&self) -> bool {
        self.sha1_at.is_some()
    }

    /// Whether it carries MESSAGE-INTEGRITY-SHA256.
    pub const fn has_integrity_sha256(&self) -> bool {
        self.sha256_at.is_some()
    }

    /// The visible attributes in order: type and value without padding.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { bytes: self.bytes.get(..self.visible_end).unwrap_or_default(), at: HEADER_LENGTH }
    }

    /// The value of the first attribute of a type: later ones are ignored (RFC 8489 section 14).
    pub fn first(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// Where in the message the first value of a type lies.
    pub fn first_range(&self, kind: u16) -> Option<std::ops::Range<usize>> {
        let mut attributes = self.attributes();
        loop {
            let start = attributes.at + 4;
            let (found, value) = attributes.next()?;
            if found == kind {
                return Some(start..start + value.len());
            }
        }
    }

    /// The first value of a type as text.
    pub fn text(&self, kind: u16) -> Option<&'a str> {
        self.first(kind).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The first XORed address of a type; `Some(None)` when it is there but cannot be read.
    pub fn xor_address(&self, kind: u16) -> Option<Option<std::net::SocketAddr>> {
        self.first(kind).map(|value| address::decode(value, &self.transaction()))
    }

    /// The comprehension-required types this server does not understand, at most `out.len()` different ones.
    pub fn unknown_required<'o>(&self, out: &'o mut [u16]) -> &'o [u16] {
        let mut count = 0;
        for (kind, _) in self.attributes() {
            if !attribute::comprehension_required(kind) || attribute::understood(kind) {
                continue;
            }
            if out.iter().take(count).any(|seen| *seen == kind) {
                continue;
            }
            let Some(slot) = out.get_mut(count) else { break };
            *slot = kind;
            count += 1;
        }
        out.get(..count).unwrap_or_default()
    }

    /// Checks MESSAGE-INTEGRITY in constant time; false when there is none.
    pub fn verify_sha1(&self, key: &Key) -> bool {
        self.verify(self.sha1_at, |covered| key.hmac_sha1(covered))
    }

    /// Checks MESSAGE-INTEGRITY-SHA256 in constant time; false when there is none or it is truncated (no usage here
    /// allows truncation, RFC 8489 section 14.6).
    pub fn verify_sha256(&self, key: &Key) -> bool {
        self.verify(self.sha256_at, |covered| key.hmac_sha256(covered))
    }

    fn verify<const N: usize>(&self, at: Option<usize>, hmac: impl FnOnce([&[u8]; 3]) -> [u8; N]) -> bool {
        let Some((at, (_, value, next))) = at.and_then(|at| Some((at, attribute_at(self.bytes, at)?))) else {
            return false;
        };
        let (Some(kind), Some(rest)) = (self.bytes.get(..2), self.bytes.get(4..at)) else { return false };
        // The length counts up to and with the integrity attribute itself, whatever follows it.
        let length = ((next - HEADER_LENGTH) as u16).to_be_bytes();
        let expected = hmac([kind, &length, rest]);
        bool::from(expected.as_slice().ct_eq(value))
    }
}

/// Iterator over attributes inside bounds that were checked before.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, value, next) = attribute_at(self.bytes, self.at)?;
        self.at = next;
        Some((kind, value))
    }
}

/// The attribute at an offset and where the next one begins.
fn attribute_at(bytes: &[u8], at: usize) -> Option<(u16, &[u8], usize)> {
    let head: &[u8; 4] = bytes.get(at..)?.first_chunk()?;
    let kind = u16::from_be_bytes([head[0], head[1]]);
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let value = bytes.get(at + 4..at + 4 + length)?;
    let next = at + 4 + length.next_multiple_of(4);
    (next <= bytes.len()).then_some((kind, value, next))
}

/// FINGERPRINT over everything before it, with the LENGTH already counting it (RFC 8489 section 14.7).
pub(super) fn fingerprint(before: &[u8]) -> u32 {
    ::stun::fingerprint::fingerprint_value(before)
}
