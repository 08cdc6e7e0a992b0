//! Callers without a token.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::authenticator::{Caller, Grants, clean_name};

/// Prefix of the id of every anonymous caller. No token may claim an id that starts with it.
pub const PREFIX: &str = "anon:";

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

/// A new anonymous caller: an id of 128 random bits, everything granted but power over others.
#[must_use]
pub fn caller(name: Option<&str>) -> Caller {
    Caller {
        user: format!("{PREFIX}{:032x}", rand::random::<u128>()),
        display_name: name.and_then(clean_name),
        username: None,
        avatar: None,
        grants: Grants::default(),
        expires_unix_ms: None,
    }
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
        let (one, two) = (caller(None), caller(None));
        assert_ne!(one.user, two.user);
        assert_eq!(one.user.len(), PREFIX.len() + 32);
        assert!(one.grants.initiate && one.grants.join && one.grants.relay && one.grants.video);
        assert!(!one.grants.moderate && !one.grants.admin);
    }

    #[test]
    fn the_name_of_an_anonymous_caller_is_bounded_and_without_control_characters() {
        let name = caller(Some(&format!(" A\u{1b}[31m\nda{}", "x".repeat(100)))).display_name.unwrap();
        assert!(name.starts_with("A[31mda"), "{name:?}");
        assert_eq!(name.chars().count(), 64);
        assert_eq!(caller(Some(" \u{0}\n ")).display_name, None);
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
