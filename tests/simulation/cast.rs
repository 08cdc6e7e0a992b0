//! Who takes part: users and their credentials, peers that may and may not be reached, the relay's own addresses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use passerelle::stun::{Algorithm, Key, userhash};
use passerelle::turn::{Candidate, DenyRule, Grant, Keys, Name};
use smallvec::SmallVec;

use super::clock::START;

pub const REALM: &str = "example.org";

/// What a user logs in with.
#[derive(Debug)]
pub struct Credential {
    pub username: &'static str,
    /// The user part: what quotas go by.
    pub user: &'static str,
    pub call: Option<&'static str>,
    pub expires: Option<u64>,
}

/// Every credential; its password is its name.
pub const CREDENTIALS: [Credential; 6] = [
    Credential { username: "ana:call-1", user: "ana", call: Some("call-1"), expires: None },
    Credential { username: "ana:call-2", user: "ana", call: Some("call-2"), expires: None },
    Credential { username: "ben:call-1", user: "ben", call: Some("call-1"), expires: None },
    Credential { username: "cleo", user: "cleo", call: None, expires: None },
    Credential { username: "dora:late", user: "dora", call: None, expires: Some(START + 900) },
    Credential { username: "dora:soon", user: "dora", call: Some("call-2"), expires: Some(START + 200) },
];

/// The keys of one credential: what it verifies with under each algorithm, and a key of a secret rotated away.
struct Entry {
    hash: [u8; 32],
    grant: Arc<Grant>,
    keys: [Key; 2],
    rotated: Key,
}

/// Everyone's keys, as `auth` would know them.
pub struct Directory(Vec<Entry>);

impl Directory {
    pub fn new() -> Self {
        let entry = |credential: &Credential| Entry {
            hash: userhash(credential.username, REALM),
            grant: Arc::new(Grant {
                username: credential.username.into(),
                user: credential.user.into(),
                call: credential.call.map(Into::into),
                serial: 0,
                expires_unix: credential.expires,
            }),
            keys: [Algorithm::Md5, Algorithm::Sha256]
                .map(|algorithm| right_key(credential.username, algorithm)),
            rotated: Key::long_term(Algorithm::Md5, credential.username, REALM, "of yesterday"),
        };
        Self(CREDENTIALS.iter().map(entry).collect())
    }

    /// The key a credential's owner computes.
    pub fn key(&self, credential: usize, algorithm: Algorithm) -> &Key {
        &self.0[credential].keys[usize::from(algorithm == Algorithm::Sha256)]
    }
}

fn right_key(username: &str, algorithm: Algorithm) -> Key {
    Key::long_term(algorithm, username, REALM, username)
}

impl Keys for Directory {
    fn candidates(&self, name: Name<'_>, _: &str, algorithm: Algorithm) -> SmallVec<[Candidate; 2]> {
        let entry = self.0.iter().find(|entry| match name {
            Name::Plain(name) => *entry.grant.username == *name,
            Name::Hashed(hash) => entry.hash == *hash,
        });
        let Some(entry) = entry else { return SmallVec::new() };
        let own = &entry.keys[usize::from(algorithm == Algorithm::Sha256)];
        [&entry.rotated, own]
            .map(|key| Candidate { key: key.clone(), grant: Arc::clone(&entry.grant) })
            .into_iter()
            .collect()
    }

    fn supports_userhash(&self) -> bool {
        true
    }
}

/// Peers anyone may reach, two of them on one address.
pub const PEERS: [&str; 6] =
    ["8.8.8.8:5000", "8.8.8.8:6000", "8.8.4.4:5000", "1.1.1.1:7000", "[2600::1]:5000", "[2600::2]:5000"];

/// The network that a tightened policy denies; one of [`PEERS`] lives there.
pub const TIGHTENED: &str = "8.8.4.0/24";

/// Peers nobody may reach, and the rule about their address.
pub const SPECIAL: [(&str, DenyRule); 6] = [
    ("10.0.9.9:50002", DenyRule::Private),
    ("127.0.0.1:5000", DenyRule::Loopback),
    ("10.0.0.7:5000", DenyRule::Private),
    ("169.254.169.254:8080", DenyRule::LinkLocal),
    ("[::1]:5000", DenyRule::Loopback),
    ("[64:ff9b::a00:7]:5000", DenyRule::Private),
];

/// Peers whose port is denied.
pub const LOW_PORTS: [&str; 2] = ["8.8.8.8:53", "8.8.8.8:0"];

/// The server's own listener on its relay address.
pub const LISTENER: &str = "9.9.9.9:3478";

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
