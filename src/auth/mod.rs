//! Who may. Owns secrets and users; answers the relay's question for keys (pure, per request) and the question of a
//! signaling session for an identity (once, when it opens). Driven by `net` through [`crate::turn::Keys`], by `http`
//! when a session opens, by `link` when credentials are minted.

pub mod anonymous;
mod authenticator;
pub mod shared_secret;
pub mod token;
pub mod users;

pub use anonymous::Mode;
pub use authenticator::{Authenticator, Caller, Denied, Grants};
pub use token::TokenConfig;
