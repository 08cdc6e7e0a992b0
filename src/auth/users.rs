//! Static users of the relay, keys derived once.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use secrecy::{ExposeSecret as _, SecretString};
use smallvec::{SmallVec, smallvec};

use crate::stun::{Algorithm, Key, userhash};
use crate::turn::{Candidate, Grant, Name};

/// The users of a realm.
#[derive(Debug, Default)]
pub struct Users {
    by_name: HashMap<Arc<str>, User, RandomState>,
    by_hash: HashMap<[u8; 32], Arc<str>, RandomState>,
}

#[derive(Debug)]
struct User {
    md5: Key,
    sha256: Key,
    grant: Arc<Grant>,
}

impl Users {
    /// Derives the keys of every user.
    pub fn new(realm: &str, users: &[(String, SecretString)]) -> Self {
        let mut all = Self::default();
        for (name, password) in users {
            let key = |algorithm| Key::long_term(algorithm, name, realm, password.expose_secret());
            let name: Arc<str> = name.as_str().into();
            let grant = Grant {
                username: Arc::clone(&name),
                user: Arc::clone(&name),
                call: None,
                serial: 0,
                expires_unix: None,
            };
            all.by_hash.insert(userhash(&name, realm), Arc::clone(&name));
            let (md5, sha256) = (key(Algorithm::Md5), key(Algorithm::Sha256));
            all.by_name.insert(name, User { md5, sha256, grant: Arc::new(grant) });
        }
        all
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The key of a user, by name or by USERHASH.
    pub fn candidates(&self, name: Name<'_>, algorithm: Algorithm) -> SmallVec<[Candidate; 2]> {
        let user = match name {
            Name::Plain(name) => self.by_name.get(name),
            Name::Hashed(hash) => self.by_hash.get(hash).and_then(|name| self.by_name.get(name)),
        };
        let Some(user) = user else { return SmallVec::new() };
        let key = match algorithm {
            Algorithm::Md5 => user.md5.clone(),
            Algorithm::Sha256 => user.sha256.clone(),
        };
        smallvec![Candidate { key, grant: Arc::clone(&user.grant) }]
    }
}
