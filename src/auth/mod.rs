//! Who may. Owns secrets and users; answers the relay's question for keys (pure, per request) and the question of a
//! signaling session for an identity (once, when it opens). Driven by `net` through [`crate::turn::Keys`], by `http`
//! when a session opens, by `link` when credentials are minted.

pub mod anonymous;
mod api_keys;
mod authenticator;
mod jwks;
mod key;
mod outbound;
pub mod shared_secret;
pub mod signature;
#[cfg(test)]
mod tests;
pub mod token;
pub mod users;
mod webhook;

use smallvec::SmallVec;

pub use anonymous::Mode;
pub use authenticator::{Authenticator, Caller, Config, Denied, Grants, Presented};
pub use jwks::JwksConfig;
pub use key::{KeyError, PinnedKey};
pub use outbound::{Outbound, OutboundError, is_url};
pub use shared_secret::{Leg, Minted, SharedSecrets};
pub use token::TokenConfig;
pub use users::Users;
pub use webhook::WebhookConfig;

use crate::stun::Algorithm;
use crate::turn::{Candidate, Keys, Name};

/// The relay's credentials: static users first, then TURN REST names.
#[derive(Debug, Default)]
pub struct Credentials {
    users: Users,
    secrets: SharedSecrets,
}

impl Credentials {
    /// Puts both kinds together.
    pub const fn new(users: Users, secrets: SharedSecrets) -> Self {
        Self { users, secrets }
    }
}

impl Keys for Credentials {
    fn candidates(&self, name: Name<'_>, realm: &str, algorithm: Algorithm) -> SmallVec<[Candidate; 2]> {
        let known = self.users.candidates(name, algorithm);
        match name {
            Name::Plain(name) if known.is_empty() => self.secrets.candidates(name, realm, algorithm),
            _ => known,
        }
    }

    fn supports_userhash(&self) -> bool {
        self.secrets.is_empty() && !self.users.is_empty()
    }
}
