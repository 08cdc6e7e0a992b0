//! Callers without a token.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use sha2::{Digest, Sha256};

use super::authenticator::{Caller, Denied, Grants, clean_name};

/// Prefix of the id of every anonymous caller. No token may claim an id that starts with it.
pub const PREFIX: &str = "anon:";
/// Separates this use of SHA-256 from every other. Fixed: an id has to survive a restart of the server.
const DOMAIN: &[u8] = b"passerelle/anonymous-id/1\0";
/// Fewest and most characters of a key.
const KEY_CHARS: std::ops::RangeInclusive<usize> = 16..=128;

/// Who may call without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nobody.
    #[default]
    Off,
    /// Callers whose address is a loopback address: development on one machine.
    Loopback,
    /// Everybody.
    Any,
}

impl Mode {
    /// Whether a caller from this address may come without a token.
    #[must_use]
    pub fn admits(self, peer: IpAddr) -> bool {
        match self {
            Self::Off => false,
            Self::Loopback => peer.to_canonical().is_loopback(),
            Self::Any => true,
        }
    }
}

/// An anonymous caller with everything granted but power over others. Its id is 128 bits of the hash of the secret it
/// chose, so that who comes back with the secret is the same user; without one it is random.
///
/// # Errors
/// [`Denied::AnonymousKey`] for a secret of the wrong length.
pub fn caller(name: Option<&str>, key: Option<&str>) -> Result<Caller, Denied> {
    let id = match key {
        Some(key) if KEY_CHARS.contains(&key.chars().count()) => derived(key),
        Some(_) => return Err(Denied::AnonymousKey),
        None => rand::random(),
    };
    Ok(Caller {
        user: format!("{PREFIX}{id:032x}"),
        display_name: name.and_then(clean_name),
        username: None,
        avatar: None,
        grants: Grants::default(),
        members: std::collections::BTreeMap::new(),
        expires_unix_ms: None,
    })
}

/// The first 128 bits of the hash. Nobody finds the secret from the id others see.
fn derived(key: &str) -> u128 {
    let digest = Sha256::new().chain_update(DOMAIN).chain_update(key.as_bytes()).finalize();
    let mut id = [0; 16];
    id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    u128::from_be_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_admits_every_spelling_of_loopback_and_nothing_else() {
        for (address, admitted) in [
            ("127.0.0.1", true),
            ("127.8.9.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("192.168.1.1", false),
            ("::ffff:192.168.1.1", false),
        ] {
            let peer = address.parse().unwrap();
            assert_eq!(Mode::Loopback.admits(peer), admitted, "{address}");
            assert!(!Mode::Off.admits(peer) && Mode::Any.admits(peer));
        }
    }

    #[test]
    fn two_anonymous_callers_never_share_an_id_and_have_no_power_over_others() {
        let (one, two) = (caller(None, None).unwrap(), caller(None, None).unwrap());
        assert_ne!(one.user, two.user);
        assert_eq!(one.user.len(), PREFIX.len() + 32);
        assert!(one.grants.initiate && one.grants.join && one.grants.relay && one.grants.video);
        assert!(!one.grants.moderate && !one.grants.admin);
    }

    #[test]
    fn the_name_of_an_anonymous_caller_is_bounded_and_without_control_characters() {
        let named = |name: &str| caller(Some(name), None).unwrap().display_name;
        let name = named(&format!(" A\u{1b}[31m\nda{}", "x".repeat(100))).unwrap();
        assert!(name.starts_with("A[31mda"), "{name:?}");
        assert_eq!(name.chars().count(), 64);
        assert_eq!(named(" \u{0}\n "), None);
    }

    #[test]
    fn who_comes_back_with_its_secret_is_the_same_user() {
        let id = |key: &str| caller(None, Some(key)).unwrap().user;
        let key = "0123456789abcdef";
        // Fixed for ever: a change would make strangers of everyone after an update.
        assert_eq!(id(key), "anon:ca4652e6fedb67f0e35b39ece779f114");
        assert_ne!(id(key), id("0123456789abcdeF"));
    }

    #[test]
    fn a_secret_has_sixteen_to_a_hundred_and_twenty_eight_characters() {
        for (length, good) in [(0, false), (15, false), (16, true), (128, true), (129, false)] {
            let outcome = caller(None, Some(&"é".repeat(length)));
            assert_eq!(outcome.is_ok(), good, "{length}");
        }
    }

    #[test]
    fn modes_are_lower_case_in_a_configuration() {
        for (text, mode) in [("\"off\"", Mode::Off), ("\"loopback\"", Mode::Loopback), ("\"any\"", Mode::Any)]
        {
            assert_eq!(serde_json::from_str::<Mode>(text).unwrap(), mode);
        }
        assert!(serde_json::from_str::<Mode>("\"Any\"").is_err());
    }
}
