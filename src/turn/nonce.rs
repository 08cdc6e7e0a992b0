//! The stateless nonce: nothing is kept for a challenge (RFC 8489 section 9.2).
//!
//! `obMatJos2` + four characters of security features + base64 of expiry and a truncated HMAC over expiry, features and
//! the client's address. Of one address it is worthless at another.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Start of a nonce that carries security features (RFC 8489 section 9.2).
const COOKIE: &[u8; 9] = b"obMatJos2";
/// The cookie and four characters of features.
const HEAD_LENGTH: usize = COOKIE.len() + 4;
const EXPIRY_LENGTH: usize = 4;
const TAG_LENGTH: usize = 8;

/// Bytes of a nonce.
pub(super) const LENGTH: usize = HEAD_LENGTH + 16;

/// Security features, bit 0 leftmost (RFC 8489 section 18.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Features(u32);

impl Features {
    const PASSWORD_ALGORITHMS: u32 = 0x80_0000;
    const USERNAME_ANONYMITY: u32 = 0x40_0000;

    /// What this server offers: password algorithms always, USERHASH where every user can be found by it.
    pub(super) const fn offered(userhash: bool) -> Self {
        Self(Self::PASSWORD_ALGORITHMS | if userhash { Self::USERNAME_ANONYMITY } else { 0 })
    }

    fn bytes(self) -> [u8; 3] {
        let [_, high, middle, low] = self.0.to_be_bytes();
        [high, middle, low]
    }

    /// The cookie and the features as text.
    fn head(self) -> [u8; HEAD_LENGTH] {
        let mut head = [0; HEAD_LENGTH];
        let (cookie, text) = head.split_at_mut(COOKIE.len());
        cookie.copy_from_slice(COOKIE);
        let _ = BASE64.encode_slice(self.bytes(), text);
        head
    }
}

/// What a nonce of a request is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verified {
    /// Ours, for this client, not expired.
    Valid,
    /// Expired, of another client, of another server or invented.
    Stale,
}

/// The key of every nonce of the process.
#[derive(Clone)]
pub(super) struct NonceKey([u8; 32]);

impl NonceKey {
    pub(super) const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Makes a nonce for a client that lasts until `expires` (Unix seconds).
    pub(super) fn mint(&self, client: SocketAddr, features: Features, expires: u64) -> [u8; LENGTH] {
        let expiry = (expires as u32).to_be_bytes();
        let tag = self.tag(client, features, expiry);
        let mut secret = [0; EXPIRY_LENGTH + TAG_LENGTH];
        for (byte, value) in secret.iter_mut().zip(expiry.iter().chain(&tag)) {
            *byte = *value;
        }
        let mut nonce = [0; LENGTH];
        let (head, text) = nonce.split_at_mut(HEAD_LENGTH);
        head.copy_from_slice(&features.head());
        let _ = BASE64.encode_slice(secret, text);
        nonce
    }

    /// Checks a nonce in constant time. Its features have to be those offered now.
    pub(super) fn verify(&self, nonce: &[u8], client: SocketAddr, features: Features, now: u64) -> Verified {
        let Some((head, secret)) = nonce.split_at_checked(HEAD_LENGTH) else { return Verified::Stale };
        let mut decoded = [0; EXPIRY_LENGTH + TAG_LENGTH];
        if BASE64.decode_slice(secret, &mut decoded) != Ok(decoded.len()) {
            return Verified::Stale;
        }
        let [e0, e1, e2, e3, tag @ ..] = decoded;
        let expiry = [e0, e1, e2, e3];
        let tag_matches = self.tag(client, features, expiry).ct_eq(&tag);
        let genuine = tag_matches & features.head().as_slice().ct_eq(head);
        if bool::from(genuine) && now < u64::from(u32::from_be_bytes(expiry)) {
            Verified::Valid
        } else {
            Verified::Stale
        }
    }

    fn tag(&self, client: SocketAddr, features: Features, expiry: [u8; EXPIRY_LENGTH]) -> [u8; TAG_LENGTH] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return [0; TAG_LENGTH] };
        mac.update(&expiry);
        mac.update(&features.bytes());
        match client.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&client.port().to_be_bytes());
        let code: [u8; 32] = mac.finalize().into_bytes().into();
        code.first_chunk().copied().unwrap_or_default()
    }
}

impl std::fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NonceKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FEATURES: Features = Features::offered(true);

    fn key() -> NonceKey {
        NonceKey::new([7; 32])
    }

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_nonce_is_good_for_its_client_until_it_expires() {
        let nonce = key().mint(client(1), FEATURES, 1000);
        assert!(nonce.starts_with(b"obMatJos2wAAA"));
        assert_eq!(key().verify(&nonce, client(1), FEATURES, 999), Verified::Valid);
        assert_eq!(key().verify(&nonce, client(1), FEATURES, 1000), Verified::Stale);
        assert_eq!(key().verify(&nonce, client(2), FEATURES, 999), Verified::Stale);
        assert_eq!(NonceKey::new([8; 32]).verify(&nonce, client(1), FEATURES, 999), Verified::Stale);
    }

    proptest! {
        #[test]
        fn a_changed_nonce_is_stale(at in 0..LENGTH, bit in 0..8u8) {
            let mut nonce = key().mint(client(1), FEATURES, 1000);
            nonce[at] ^= 1 << bit;
            prop_assert_eq!(key().verify(&nonce, client(1), FEATURES, 1), Verified::Stale);
        }

        #[test]
        fn any_bytes_are_checked_without_a_panic(nonce: Vec<u8>) {
            prop_assert_eq!(key().verify(&nonce, client(1), FEATURES, 1), Verified::Stale);
        }
    }
}
