//! The relay's state.
pub mod config;
pub use config::{Config, ExpiryPolicy, Limits, PeerRules, PortRange, RelayAddress};
