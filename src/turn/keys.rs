//! What the relay asks of authentication: keys for a name. Synchronous and pure; implemented in `auth`.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::stun::{Algorithm, Key};

/// The name in a request.
#[derive(Debug, Clone, Copy)]
pub enum Name<'a> {
    /// USERNAME.
    Plain(&'a str),
    /// USERHASH (RFC 8489 section 14.4).
    Hashed(&'a [u8; 32]),
}

/// Who a verified name is, and for how long it may start allocations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The whole name, compared by RFC 8656 section 5's 441 rule.
    pub username: Arc<str>,
    /// The user part: what quotas, logs and metrics go by.
    pub user: Arc<str>,
    /// The call the credential was minted for.
    pub call: Option<Arc<str>>,
    /// Its place among the credentials minted for the calls of this server: those minted later have higher numbers. 0
    /// without one.
    pub serial: u64,
    /// Unix time in seconds from which the credential starts no allocation.
    pub expires_unix: Option<u64>,
}

/// One key a name may have; several during the rotation of a shared secret.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The long-term key.
    pub key: Key,
    /// What it grants once it verified.
    pub grant: Arc<Grant>,
}

/// The keys of long-term credentials.
pub trait Keys: Send + Sync {
    /// Every key the name may have in the realm under the algorithm; empty for an unknown name. Expired names are
    /// answered too: whether that matters is decided by the method.
    fn candidates(&self, name: Name<'_>, realm: &str, algorithm: Algorithm) -> SmallVec<[Candidate; 2]>;

    /// Whether every user can be found by USERHASH, so that the server may ask for it.
    fn supports_userhash(&self) -> bool;
}
