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

/// What a caller shows to be let in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Presented<'a> {
    /// A token of the operator's application.
    pub token: Option<&'a str>,
    /// What an anonymous caller wants to be called; with a token the token's own names count.
    pub name: Option<&'a str>,
    /// The secret by which an anonymous caller stays the same user, 16 to 128 characters.
    pub anonymous_key: Option<&'a str>,
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
    /// The secret of an anonymous caller has the wrong length.
    #[error("anonymousKey has 16 to 128 characters")]
    AnonymousKey,
}

impl Denied {
    /// Wire code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing | Self::Invalid => "NOT_AUTHENTICATED",
            Self::Expired => "TOKEN_EXPIRED",
            Self::AnonymousKey => "VALIDATION_ERROR",
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
    ///
    /// # Errors
    /// [`Denied`].
    pub fn authenticate(
        &self,
        presented: Presented<'_>,
        peer: IpAddr,
        now_unix_ms: i64,
    ) -> Result<Caller, Denied> {
        let Presented { token, name, anonymous_key } = presented;
        let rules = self.0.load();
        match (token, &rules.verifier) {
            (Some(token), Some(verifier)) => verifier.verify(token, now_unix_ms),
            (Some(_), None) => Err(Denied::Invalid),
            (None, _) if rules.anonymous.admits(peer) => anonymous::caller(name, anonymous_key),
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
        let token = |token| Presented { token: Some(token), ..Presented::default() };
        let none = Presented::default();
        assert!(open.authenticate(none, peer, 0).unwrap().user.starts_with(anonymous::PREFIX));
        assert_eq!(open.authenticate(token("x.y.z"), peer, 0), Err(Denied::Invalid));
        assert_eq!(open.authenticate(token(""), peer, 0), Err(Denied::Invalid));
        assert_eq!(with_tokens(Mode::Off).authenticate(none, peer, 0), Err(Denied::Missing));
        let elsewhere = "192.0.2.1".parse().unwrap();
        assert_eq!(open.authenticate(none, elsewhere, 0), Err(Denied::Missing));
    }

    #[test]
    fn other_rules_hold_from_the_next_caller_on() {
        let (peer, authenticator) = ("127.0.0.1".parse().unwrap(), Authenticator::new(Mode::Loopback, None));
        assert!(authenticator.authenticate(Presented::default(), peer, 0).is_ok());
        let config = TokenConfig { secret: "x".repeat(32).into(), issuer: None, audience: None };
        authenticator.reconfigure(Mode::Off, Some(&config));
        assert_eq!(authenticator.authenticate(Presented::default(), peer, 0), Err(Denied::Missing));
        assert!(authenticator.takes_tokens());
    }

    #[test]
    fn without_a_configured_key_every_token_is_refused() {
        let authenticator = Authenticator::new(Mode::Any, None);
        let token = Presented { token: Some("a.b.c"), ..Presented::default() };
        assert_eq!(authenticator.authenticate(token, "::1".parse().unwrap(), 0), Err(Denied::Invalid));
    }
}
