//! TURN REST credentials (draft-uberti-behave-turn-rest): `<expiry>[:<user>[:<call>[:<serial>]]]` and an HMAC over it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha1::Sha1;
use smallvec::SmallVec;

use crate::stun::{Algorithm, Key};
use crate::turn::{Candidate, Grant};

/// A credential handed to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minted {
    /// USERNAME: expiry, user and call.
    pub username: String,
    /// The password that goes with it.
    pub password: String,
}

/// What a credential is good for beside the user: one stay of it in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg<'a> {
    /// The call; its id has no colon.
    pub call: &'a str,
    /// Higher than that of every credential minted before, so that a later stay has credentials of its own.
    pub serial: u64,
}

/// The secrets of the operator: the first signs, all verify.
#[derive(Debug, Clone, Default)]
pub struct SharedSecrets(Vec<SecretString>);

impl SharedSecrets {
    /// Takes the secrets in the order of the configuration.
    pub const fn new(secrets: Vec<SecretString>) -> Self {
        Self(secrets)
    }

    /// Whether there is none, and nobody can be given a credential.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes a credential that starts allocations until `expires_unix` (seconds); `None` without a secret.
    pub fn mint(&self, user: &str, leg: Option<Leg<'_>>, expires_unix: u64) -> Option<Minted> {
        let secret = self.0.first()?;
        let user = escape(user);
        let username = match leg {
            Some(Leg { call, serial }) => format!("{expires_unix}:{user}:{call}:{serial}"),
            None => format!("{expires_unix}:{user}"),
        };
        let password = password(secret, &username);
        Some(Minted { username, password })
    }

    /// The keys of a name: one a secret, none when the name is not of this form.
    pub fn candidates(&self, username: &str, realm: &str, algorithm: Algorithm) -> SmallVec<[Candidate; 2]> {
        let Some(grant) = grant(username) else { return SmallVec::new() };
        let candidate = |secret| Candidate {
            key: Key::long_term(algorithm, username, realm, &password(secret, username)),
            grant: Arc::clone(&grant),
        };
        self.0.iter().map(candidate).collect()
    }
}

/// What a name of the form grants. Without a user part every credential is a user of its own.
fn grant(username: &str) -> Option<Arc<Grant>> {
    let (expiry, rest) = match username.split_once(':') {
        Some((expiry, rest)) => (expiry, Some(rest)),
        None => (username, None),
    };
    let digits = !expiry.is_empty() && expiry.bytes().all(|byte| byte.is_ascii_digit());
    let expires_unix = expiry.parse().ok().filter(|_| digits)?;
    let (user, leg) = match rest.map(|rest| rest.split_once(':')) {
        Some(Some((user, leg))) => (user, Some(leg)),
        Some(None) => (rest.unwrap_or_default(), None),
        None => ("", None),
    };
    let numbered = leg.and_then(|leg| leg.rsplit_once(':'));
    let numbered = numbered.and_then(|(call, serial)| Some((Some(call), serial.parse().ok()?)));
    let (call, serial) = numbered.unwrap_or((leg, 0));
    Some(Arc::new(Grant {
        username: username.into(),
        user: if user.is_empty() { username.into() } else { unescape(user).into() },
        call: call.filter(|call| !call.is_empty()).map(Into::into),
        serial,
        expires_unix: Some(expires_unix),
    }))
}

fn password(secret: &SecretString, username: &str) -> String {
    // HMAC takes keys of any length: the error cannot happen, and an empty password opens nothing.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.expose_secret().as_bytes()) else {
        return String::new();
    };
    mac.update(username.as_bytes());
    BASE64.encode(mac.finalize().into_bytes())
}

/// A user's id as a part of the name: a colon separates the parts.
fn escape(user: &str) -> String {
    user.replace('%', "%25").replace(':', "%3A")
}

/// The user's id of a part of the name.
fn unescape(part: &str) -> String {
    part.replace("%3A", ":").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(secrets: &[&str]) -> SharedSecrets {
        SharedSecrets::new(secrets.iter().map(|secret| SecretString::from(*secret)).collect())
    }

    fn grant_of(username: &str) -> Option<Grant> {
        grant(username).map(|grant| (*grant).clone())
    }

    #[test]
    fn a_credential_is_what_coturn_computes_for_the_same_secret() {
        // printf 1700000000:alice | openssl dgst -sha1 -hmac north -binary | base64
        let minted = secrets(&["north"]).mint("alice", None, 1_700_000_000).unwrap();
        assert_eq!(minted.username, "1700000000:alice");
        assert_eq!(minted.password, "Cd/49soE35ICqcJF/bCTn8Z4OyE=");
    }

    #[test]
    fn a_name_tells_expiry_user_and_call() {
        let grant = grant_of("1700000000:alice:c1").unwrap();
        assert_eq!(
            (grant.expires_unix, &*grant.user, grant.call.as_deref()),
            (Some(1_700_000_000), "alice", Some("c1"))
        );
        assert_eq!(grant.serial, 0);
        let grant = grant_of("1700000000:alice:c1:17").unwrap();
        assert_eq!((grant.call.as_deref(), grant.serial), (Some("c1"), 17));
        let grant = grant_of("1700000000:alice").unwrap();
        assert_eq!((&*grant.user, grant.call.as_deref()), ("alice", None));
        assert_eq!(&*grant_of("1700000000").unwrap().user, "1700000000");
        for none in ["", ":alice", "alice", "alice:1700000000", "-1:a", "+1:a", "99999999999999999999999:a"] {
            assert_eq!(grant_of(none), None, "{none}");
        }
    }

    #[test]
    fn a_colon_in_a_user_does_not_become_a_call() {
        let minted = secrets(&["north"]).mint("anon:50%", Some(Leg { call: "c1", serial: 9 }), 5).unwrap();
        let grant = grant_of(&minted.username).unwrap();
        assert_eq!((&*grant.user, grant.call.as_deref(), grant.serial), ("anon:50%", Some("c1"), 9));
    }

    #[test]
    fn every_secret_verifies_and_the_first_signs() {
        let old = secrets(&["old"]).mint("alice", None, 5).unwrap();
        let rotated = secrets(&["new", "old"]);
        let keys = rotated.candidates(&old.username, "realm", Algorithm::Md5);
        let expected = Key::long_term(Algorithm::Md5, &old.username, "realm", &old.password);
        let codes: Vec<_> = keys.iter().map(|candidate| candidate.key.hmac_sha1([b"x", &[], &[]])).collect();
        assert_eq!(codes.len(), 2);
        assert_eq!(codes[1], expected.hmac_sha1([b"x", &[], &[]]));
        assert_ne!(rotated.mint("alice", None, 5).unwrap().password, old.password);
    }
}
