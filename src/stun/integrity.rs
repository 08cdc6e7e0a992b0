//! MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256, the keys of long-term credentials, USERHASH.

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroize;

/// Password algorithm of a long-term credential (RFC 8489 section 18.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// 0x0001.
    Md5,
    /// 0x0002.
    Sha256,
}

impl Algorithm {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha256 => 2,
        }
    }

    /// Reads a number from the wire.
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Md5),
            2 => Some(Self::Sha256),
            _ => None,
        }
    }
}

/// Key of a long-term credential: the hash of `username:realm:password`. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Key {
    bytes: [u8; 32],
    length: u8,
}

impl Key {
    /// Derives the key (RFC 8489 section 18.5.1).
    pub fn long_term(algorithm: Algorithm, username: &str, realm: &str, password: &str) -> Self {
        let parts = [username.as_bytes(), b":", realm.as_bytes(), b":", password.as_bytes()];
        match algorithm {
            Algorithm::Md5 => Self::from_md5(digest::<Md5, 16>(&parts)),
            Algorithm::Sha256 => Self { bytes: digest::<Sha256, 32>(&parts), length: 32 },
        }
    }

    /// A key of RFC 5389's short-term form: the password itself, at most 32 bytes (for the test vectors).
    #[cfg(test)]
    pub(crate) fn short_term(password: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes[..password.len()].copy_from_slice(password);
        Self { bytes, length: password.len() as u8 }
    }

    fn from_md5(hash: [u8; 16]) -> Self {
        let mut bytes = [0; 32];
        if let Some(head) = bytes.first_chunk_mut() {
            *head = hash;
        }
        Self { bytes, length: 16 }
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// HMAC-SHA1 over the parts.
    pub fn hmac_sha1(&self, parts: [&[u8]; 3]) -> [u8; 20] {
        // HMAC takes keys of any length: the error cannot happen, and a zero code would verify nothing.
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(self.as_slice()) else { return [0; 20] };
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    /// HMAC-SHA256 over the parts.
    pub fn hmac_sha256(&self, parts: [&[u8]; 3]) -> [u8; 32] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.as_slice()) else { return [0; 32] };
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// USERHASH: SHA-256 of `username:realm` (RFC 8489 section 14.4).
pub fn userhash(username: &str, realm: &str) -> [u8; 32] {
    digest::<Sha256, 32>(&[username.as_bytes(), b":", realm.as_bytes()])
}

fn digest<D: md5::Digest, const N: usize>(parts: &[&[u8]]) -> [u8; N]
where
    md5::digest::Output<D>: Into<[u8; N]>,
{
    let mut hash = D::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}
