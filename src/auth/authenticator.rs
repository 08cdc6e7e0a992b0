//! Who a session belongs to: asked once, when it opens.

use std::collections::BTreeMap;
use std::net::IpAddr;

use arc_swap::ArcSwap;
use secrecy::SecretString;

use super::anonymous::{self, Mode};
use super::api_keys::ApiKeys;
use super::outbound::Outbound;
use super::token::{TokenConfig, Verifier};
use super::webhook::{Webhook, WebhookConfig};

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
    /// Kilobits a second its client may send; `None` is what the network gives.
    pub max_kbps: Option<u32>,
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
            max_kbps: None,
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
    /// Members of conversations, as the authentication service told them.
    pub members: BTreeMap<String, Vec<String>>,
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
    /// Nobody can say now whether the token is good.
    #[error("authentication is not available now: try again")]
    Unavailable,
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
            Self::Unavailable => "INTERNAL",
        }
    }
}

/// Who is let in, and how. The ways are combinable.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Callers without a token.
    pub anonymous: Mode,
    /// JSON Web Tokens.
    pub token: Option<TokenConfig>,
    /// A service that knows the other tokens.
    pub webhook: Option<WebhookConfig>,
    /// Keys of the operator's own servers, for REST.
    pub api_keys: Vec<SecretString>,
}

/// Tells who a caller is, from its token or from having none.
#[derive(Debug)]
pub struct Authenticator {
    rules: ArcSwap<Rules>,
    outbound: Outbound,
}

/// What a reload replaces as a whole.
#[derive(Debug)]
struct Rules {
    anonymous: Mode,
    verifier: Option<Verifier>,
    webhook: Option<Webhook>,
    api_keys: ApiKeys,
}

impl Rules {
    fn new(config: &Config, outbound: &Outbound) -> Self {
        Self {
            anonymous: config.anonymous,
            verifier: config.token.as_ref().map(|token| Verifier::new(token, outbound)),
            webhook: config.webhook.clone().map(|webhook| Webhook::new(webhook, outbound.clone())),
            api_keys: ApiKeys::new(&config.api_keys),
        }
    }
}

impl Authenticator {
    /// Prepares every way in.
    #[must_use]
    pub fn new(config: &Config, outbound: Outbound) -> Self {
        Self { rules: ArcSwap::from_pointee(Rules::new(config, &outbound)), outbound }
    }

    /// Goes on with other rules, from the next caller on; whoever is in stays.
    pub fn reconfigure(&self, config: &Config) {
        self.rules.store(Rules::new(config, &self.outbound).into());
    }

    /// Whether this is a key of the operator's own servers.
    #[must_use]
    pub fn is_api_key(&self, key: &str) -> bool {
        self.rules.load().api_keys.admits(key)
    }

    /// Who may call without a token.
    #[must_use]
    pub fn anonymous(&self) -> Mode {
        self.rules.load().anonymous
    }

    /// Whether any token can be accepted at all.
    #[must_use]
    pub fn takes_tokens(&self) -> bool {
        let rules = self.rules.load();
        rules.verifier.is_some() || rules.webhook.is_some()
    }

    /// Lets a caller in or not. A token is always checked when there is one: a bad token never falls back to anonymous.
    /// The service is asked about tokens that no key of ours has signed.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn authenticate(
        &self,
        presented: Presented<'_>,
        peer: IpAddr,
        now_unix_ms: i64,
    ) -> Result<Caller, Denied> {
        let Presented { token, name, anonymous_key } = presented;
        let rules = self.rules.load_full();
        let Some(token) = token else {
            return match rules.anonymous.admits(peer) {
                true => anonymous::caller(name, anonymous_key),
                false => Err(Denied::Missing),
            };
        };
        let verified = match &rules.verifier {
            Some(verifier) => verifier.verify(token, now_unix_ms).await,
            None => Err(Denied::Invalid),
        };
        match (verified, &rules.webhook) {
            (Err(Denied::Invalid | Denied::Unavailable), Some(webhook)) => {
                webhook.ask(token, peer, now_unix_ms).await
            }
            (verified, _) => verified,
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
    use crate::auth::PinnedKey;

    fn with_tokens(anonymous: Mode) -> Authenticator {
        let key = PinnedKey::secret(&"x".repeat(32).into(), None).unwrap();
        let token = TokenConfig { keys: vec![key], jwks: None, issuer: None, audience: None };
        let config = Config { anonymous, token: Some(token), ..Config::default() };
        Authenticator::new(&config, Outbound::new())
    }

    #[tokio::test]
    async fn a_missing_token_is_anonymous_where_allowed_and_a_bad_one_is_refused() {
        let peer = "127.0.0.1".parse().unwrap();
        let open = with_tokens(Mode::Loopback);
        let token = |token| Presented { token: Some(token), ..Presented::default() };
        let none = Presented::default();
        let anonymous = open.authenticate(none, peer, 0).await.unwrap();
        assert!(anonymous.user.starts_with(anonymous::PREFIX));
        assert_eq!(open.authenticate(token("x.y.z"), peer, 0).await, Err(Denied::Invalid));
        assert_eq!(open.authenticate(token(""), peer, 0).await, Err(Denied::Invalid));
        assert_eq!(with_tokens(Mode::Off).authenticate(none, peer, 0).await, Err(Denied::Missing));
        let elsewhere = "192.0.2.1".parse().unwrap();
        assert_eq!(open.authenticate(none, elsewhere, 0).await, Err(Denied::Missing));
    }

    #[tokio::test]
    async fn other_rules_hold_from_the_next_caller_on() {
        let (peer, authenticator) = ("127.0.0.1".parse().unwrap(), with_tokens(Mode::Loopback));
        assert!(authenticator.authenticate(Presented::default(), peer, 0).await.is_ok());
        authenticator.reconfigure(&Config::default());
        assert_eq!(authenticator.authenticate(Presented::default(), peer, 0).await, Err(Denied::Missing));
        assert!(!authenticator.takes_tokens());
    }

    #[tokio::test]
    async fn without_a_configured_key_every_token_is_refused() {
        let open = Config { anonymous: Mode::Any, ..Config::default() };
        let authenticator = Authenticator::new(&open, Outbound::new());
        let token = Presented { token: Some("a.b.c"), ..Presented::default() };
        let outcome = authenticator.authenticate(token, "::1".parse().unwrap(), 0).await;
        assert_eq!(outcome, Err(Denied::Invalid));
    }
}
