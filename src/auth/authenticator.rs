//! Who a session belongs to: asked once, when it opens.

use std::net::IpAddr;

use arc_swap::ArcSwap;

use super::anonymous::{self, Mode};
use super::token::{TokenConfig, Verifier};

/// Longest name shown to others, in characters.
const NAME_CHARS: usize = 64;

/// What a caller may do (the `psr` claim of a token). The default is everything but power over others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// May start calls.
    pub initiate: bool,
    /// May join calls.
    pub join: bool,
    /// May act on other participants.
    pub moderate: bool,
    /// May administrate through REST.
    pub admin: bool,
    /// Gets TURN servers.
    pub relay: bool,
    /// May take part in video calls.
    pub video: bool,
    /// Rooms it is limited to; `None` is every room.
    pub rooms: Option<Vec<String>>,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            initiate: true,
            join: true,
            moderate: false,
            admin: false,
            relay: true,
            video: true,
            rooms: None,
        }
    }
}

/// Someone who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Stable id, at most 128 bytes; `anon:…` without a token.
    pub user: String,
    /// Name shown to others.
    pub display_name: Option<String>,
    /// Account name shown to others.
    pub username: Option<String>,
    /// Picture shown to others, an `http` or `https` URL.
    pub avatar: Option<String>,
    /// What it may do.
    pub grants: Grants,
    /// Expiry of the token in milliseconds since the Unix epoch.
    pub expires_unix_ms: Option<i64>,
}

/// Why someone was not let in. Says nothing about why a token is bad: that would only help to forge one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No token, and none is not enough here.
    #[error("a token is required")]
    Missing,
    /// A token that is not ours, or not meant for us.
    #[error("the token is not valid")]
    Invalid,
    /// A genuine token after its time.
    #[error("the token has expired")]
    Expired,
}

impl Denied {
    /// Wire code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing | Self::Invalid => "NOT_AUTHENTICATED",
            Self::Expired => "TOKEN_EXPIRED",
        }
    }
}

/// Tells who a caller is, from its token or from having none.
#[derive(Debug)]
pub struct Authenticator(ArcSwap<Rules>);

/// What a reload replaces as a whole.
#[derive(Debug)]
struct Rules {
    anonymous: Mode,
    verifier: Option<Verifier>,
}

impl Authenticator {
    /// `token` is `None` where no JSON Web Tokens are configured.
    #[must_use]
    pub fn new(anonymous: Mode, token: Option<&TokenConfig>) -> Self {
        Self(ArcSwap::from_pointee(Rules { anonymous, verifier: token.map(Verifier::new) }))
    }

    /// Goes on with other rules, from the next caller on; whoever is in stays.
    pub fn reconfigure(&self, anonymous: Mode, token: Option<&TokenConfig>) {
        self.0.store(Rules { anonymous, verifier: token.map(Verifier::new) }.into());
    }

    /// Who may call without a token.
    #[must_use]
    pub fn anonymous(&self) -> Mode {
        self.0.load().anonymous
    }

    /// Whether any token can be accepted at all.
    #[must_use]
    pub fn takes_tokens(&self) -> bool {
        self.0.load().verifier.is_some()
    }

    /// Lets a caller in or not. A token is always checked when there is one: a bad token never falls back to anonymous.
    /// `name` is what an anonymous caller wants to be called; with a token the token's own names count.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn authenticate(
        &self,
        token: Option<&str>,
        name: Option<&str>,
        peer: IpAddr,
        now_unix_ms: i64,
    ) -> Result<Caller, Denied> {
        let rules = self.0.load();
        match (token, &rules.verifier) {
            (Some(token), Some(verifier)) => verifier.verify(token, now_unix_ms),
            (Some(_), None) => Err(Denied::Invalid),
            (None, _) if rules.anonymous.admits(peer) => Ok(anonymous::caller(name)),
            (None, _) => Err(Denied::Missing),
        }
    }
}

/// A name as it may be shown: trimmed, without control characters, at most 64 characters; `None` when nothing is left.
pub(super) fn clean_name(name: &str) -> Option<String> {
    let cleaned: String = name.chars().filter(|c| !c.is_control()).collect();
    let bounded: String = cleaned.trim().chars().take(NAME_CHARS).collect();
    (!bounded.is_empty()).then_some(bounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_tokens(anonymous: Mode) -> Authenticator {
        let config = TokenConfig { secret: "x".repeat(32).into(), issuer: None, audience: None };
        Authenticator::new(anonymous, Some(&config))
    }

    #[test]
    fn a_missing_token_is_anonymous_where_allowed_and_a_bad_one_is_refused() {
        let peer = "127.0.0.1".parse().unwrap();
        let open = with_tokens(Mode::Loopback);
        assert!(open.authenticate(None, None, peer, 0).unwrap().user.starts_with(anonymous::PREFIX));
        assert_eq!(open.authenticate(Some("x.y.z"), None, peer, 0), Err(Denied::Invalid));
        assert_eq!(open.authenticate(Some(""), None, peer, 0), Err(Denied::Invalid));
        assert_eq!(with_tokens(Mode::Off).authenticate(None, None, peer, 0), Err(Denied::Missing));
        let elsewhere = "192.0.2.1".parse().unwrap();
        assert_eq!(open.authenticate(None, None, elsewhere, 0), Err(Denied::Missing));
    }

    #[test]
    fn other_rules_hold_from_the_next_caller_on() {
        let (peer, authenticator) = ("127.0.0.1".parse().unwrap(), Authenticator::new(Mode::Loopback, None));
        assert!(authenticator.authenticate(None, None, peer, 0).is_ok());
        let config = TokenConfig { secret: "x".repeat(32).into(), issuer: None, audience: None };
        authenticator.reconfigure(Mode::Off, Some(&config));
        assert_eq!(authenticator.authenticate(None, None, peer, 0), Err(Denied::Missing));
        assert!(authenticator.takes_tokens());
    }

    #[test]
    fn without_a_configured_key_every_token_is_refused() {
        let authenticator = Authenticator::new(Mode::Any, None);
        assert_eq!(
            authenticator.authenticate(Some("a.b.c"), None, "::1".parse().unwrap(), 0),
            Err(Denied::Invalid)
        );
    }
}
