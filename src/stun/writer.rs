//! Writes one message into a buffer that is kept between messages.

use std::net::{IpAddr, SocketAddr};

use super::message::{fingerprint, message_type};
use super::{Class, HEADER_LENGTH, Key, MAGIC_COOKIE, Method, TransactionId, address, attribute};

/// Appends attributes to a message; its LENGTH is right after every call.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    transaction: TransactionId,
}

impl<'b> Writer<'b> {
    /// Clears the buffer and writes a header.
    pub fn new(out: &'b mut Vec<u8>, class: Class, method: Method, transaction: TransactionId) -> Self {
        out.clear();
        out.extend_from_slice(&message_type(method, class).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        out.extend_from_slice(&transaction.0);
        Self { out, transaction }
    }

    /// Appends an attribute, zero-padded to four bytes.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.attribute_of(kind, value, &[])
    }

    /// Appends an attribute whose value comes in two parts.
    fn attribute_of(&mut self, kind: u16, first: &[u8], second: &[u8]) -> &mut Self {
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&((first.len() + second.len()) as u16).to_be_bytes());
        self.out.extend_from_slice(first);
        self.out.extend_from_slice(second);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
        self.patch_length(0);
        self
    }

    /// Appends an attribute of 32 bits.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Appends a XORed address.
    pub fn xor_address(&mut self, kind: u16, address: SocketAddr) -> &mut Self {
        let mut value = [0; address::MAX_LENGTH];
        let length = address::encode(address, &self.transaction, &mut value);
        self.attribute(kind, value.get(..length).unwrap_or_default())
    }

    /// Appends an address as it is, not XORed (MAPPED-ADDRESS's form, RFC 8489 section 14.1).
    pub fn mapped_address(&mut self, kind: u16, address: SocketAddr) -> &mut Self {
        let port = address.port().to_be_bytes();
        match address.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                self.attribute(kind, &[0, 1, port[0], port[1], a, b, c, d])
            }
            IpAddr::V6(ip) => {
                let mut value = [0; 20];
                let (head, body) = value.split_at_mut(4);
                head.copy_from_slice(&[0, 2, port[0], port[1]]);
                body.copy_from_slice(&ip.octets());
                self.attribute(kind, &value)
            }
        }
    }

    /// Appends ERROR-CODE (RFC 8489 section 14.8); the reason may be empty.
    pub fn error(&mut self, code: u16, reason: &str) -> &mut Self {
        let number = [0, 0, (code / 100) as u8, (code % 100) as u8];
        self.attribute_of(attribute::ERROR_CODE, &number, reason.as_bytes())
    }

    /// Appends MESSAGE-INTEGRITY.
    pub fn integrity_sha1(&mut self, key: &Key) -> &mut Self {
        self.patch_length(24);
        let code = key.hmac_sha1([self.out.as_slice(), &[], &[]]);
        self.attribute(attribute::MESSAGE_INTEGRITY, &code)
    }

    /// Appends MESSAGE-INTEGRITY-SHA256.
    pub fn integrity_sha256(&mut self, key: &Key) -> &mut Self {
        self.patch_length(36);
        let code = key.hmac_sha256([self.out.as_slice(), &[], &[]]);
        self.attribute(attribute::MESSAGE_INTEGRITY_SHA256, &code)
    }

    /// Appends FINGERPRINT, which has to be the last attribute.
    pub fn fingerprint(&mut self) -> &mut Self {
        self.patch_length(8);
        let code = fingerprint(self.out);
        self.u32(attribute::FINGERPRINT, code)
    }

    /// Sets LENGTH to what is written plus what is about to be.
    fn patch_length(&mut self, more: usize) {
        let length = (self.out.len() + more).saturating_sub(HEADER_LENGTH) as u16;
        if let Some(field) = self.out.get_mut(2..4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}
