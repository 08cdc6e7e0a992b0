//! The long-term credential mechanism (RFC 8489 section 9.2.4), in the RFC's order but for the nonce: a request that
//! has not proved its source address costs no look-up of a user.

use std::sync::Arc;

use smallvec::SmallVec;

use super::nonce::{Features, NonceKey, Verified};
use super::{Candidate, FiveTuple, Grant, Keys, Name, Now, Reject};
use crate::stun::{Algorithm, Key, Message, attribute, userhash};

/// PASSWORD-ALGORITHMS as every challenge offers it: SHA-256, then MD5, both without parameters.
pub(super) const PASSWORD_ALGORITHMS: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

/// Which integrity an answer carries: the one of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Integrity {
    Sha1,
    Sha256,
}

/// A verified request.
#[derive(Debug, Clone)]
pub(super) struct Authenticated {
    pub(super) grant: Arc<Grant>,
    pub(super) key: Key,
    pub(super) integrity: Integrity,
}

/// Verifies requests.
pub(super) struct Verifier<'a> {
    pub(super) keys: &'a dyn Keys,
    pub(super) realm: &'a str,
    pub(super) nonces: &'a NonceKey,
    pub(super) features: Features,
}

impl Verifier<'_> {
    /// Checks the credentials of a request. The nonce comes before anything that depends on the name.
    pub(super) fn verify(
        &self,
        from: &FiveTuple,
        message: &Message<'_>,
        now: Now,
    ) -> Result<Authenticated, Reject> {
        if !message.has_integrity_sha1() && !message.has_integrity_sha256() {
            return Err(Reject::NoCredentials);
        }
        let name = self.name(message)?;
        let nonce = message.first(attribute::NONCE).ok_or(Reject::IncompleteCredentials)?;
        let realm = message.text(attribute::REALM).ok_or(Reject::IncompleteCredentials)?;
        if self.nonces.verify(nonce, from.client, self.features, now.unix) == Verified::Stale {
            return Err(Reject::StaleNonce);
        }
        let algorithm = algorithm(message)?;
        let integrity = if message.has_integrity_sha256() { Integrity::Sha256 } else { Integrity::Sha1 };
        let candidates: SmallVec<[Candidate; 2]> = if realm == self.realm {
            self.keys.candidates(name, self.realm, algorithm)
        } else {
            SmallVec::new()
        };
        let matches = |key: &Key| match integrity {
            Integrity::Sha256 => message.verify_sha256(key),
            Integrity::Sha1 => message.verify_sha1(key),
        };
        if candidates.is_empty() {
            // The same work as for a known name: the time of an answer tells nothing.
            let _ = matches(&Key::long_term(algorithm, "", self.realm, ""));
            return Err(Reject::UnknownUser);
        }
        let verified = candidates.into_iter().find(|candidate| matches(&candidate.key));
        let Candidate { key, grant } = verified.ok_or(Reject::WrongPassword)?;
        Ok(Authenticated { grant, key, integrity })
    }

    fn name<'m>(&self, message: &Message<'m>) -> Result<Name<'m>, Reject> {
        if let Some(name) = message.first(attribute::USERNAME) {
            // A name that is no UTF-8 is nobody's; the empty name neither.
            return Ok(Name::Plain(std::str::from_utf8(name).unwrap_or_default()));
        }
        let hash = message.first(attribute::USERHASH).ok_or(Reject::IncompleteCredentials)?;
        hash.try_into().map(Name::Hashed).map_err(|_| Reject::Attribute("USERHASH"))
    }
}

/// The password algorithm a request uses, with the protection against bidding down: a client that knows of algorithms
/// returns the very list it was offered.
fn algorithm(message: &Message<'_>) -> Result<Algorithm, Reject> {
    match (message.first(attribute::PASSWORD_ALGORITHMS), message.first(attribute::PASSWORD_ALGORITHM)) {
        (None, None) => Ok(Algorithm::Md5),
        (Some(offered), Some([high, low, 0, 0])) if offered == PASSWORD_ALGORITHMS => {
            Algorithm::from_number(u16::from_be_bytes([*high, *low])).ok_or(Reject::BidDown)
        }
        _ => Err(Reject::BidDown),
    }
}

/// Whether a hashed name is `username`'s, for implementations of [`Keys`].
pub fn is_hash_of(hash: &[u8; 32], username: &str, realm: &str) -> bool {
    userhash(username, realm) == *hash
}
