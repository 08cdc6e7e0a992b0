//! Signatures of the requests this server makes: HMAC-SHA256 over the time and the body, so that a receiver knows the
//! sender and that the request is not an old one.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// Header of the time, in seconds since the Unix epoch.
pub const TIMESTAMP: &str = "passerelle-timestamp";
/// Header of the signature: `v1=` and the HMAC in hexadecimal.
pub const SIGNATURE: &str = "passerelle-signature";

/// Signs a request.
pub fn sign(headers: &mut HeaderMap, secret: &SecretString, unix_s: i64, body: &[u8]) {
    if let Ok(signature) = HeaderValue::try_from(signature(secret, unix_s, body)) {
        headers.insert(TIMESTAMP, HeaderValue::from(unix_s));
        headers.insert(SIGNATURE, signature);
    }
}

/// `v1=` and the HMAC-SHA256 of `<seconds>.<body>`.
#[must_use]
pub fn signature(secret: &SecretString, unix_s: i64, body: &[u8]) -> String {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()) else {
        return String::new();
    };
    mac.update(unix_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().fold(String::from("v1="), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_every_library_computes() {
        let secret = SecretString::from("key");
        // printf '1.{}' | openssl dgst -sha256 -hmac key
        assert_eq!(
            signature(&secret, 1, b"{}"),
            "v1=1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224"
        );
        assert_ne!(signature(&secret, 2, b"{}"), signature(&secret, 1, b"{}"));
    }
}
