//! ICE servers handed to clients. Who mints the credentials is outside: calls and relay meet in `link` only.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{CallId, Now, UserId};

/// One entry of `RTCConfiguration.iceServers`.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct IceServer {
    /// `stun:`, `turn:` and `turns:` URIs (RFC 7064, RFC 7065).
    pub urls: Vec<String>,
    /// TURN REST username, absent for STUN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// TURN REST password, absent for STUN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl IceServer {
    /// Whether it is a TURN server.
    pub fn relays(&self) -> bool {
        self.urls.iter().any(|url| url.starts_with("turn:") || url.starts_with("turns:"))
    }
}

/// ICE servers and how long their credentials may start an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceServers {
    /// In order of preference, UDP first.
    pub servers: Vec<IceServer>,
    /// Life of the credentials.
    pub ttl: Duration,
}

/// Mints the ICE servers of a user, bound to a call where there is one.
pub trait IceMint: Send {
    /// Makes fresh credentials. Without `relay` (the user's grant) there are no `turn:` and `turns:` servers.
    fn mint(&mut self, user: &UserId, call: Option<&CallId>, relay: bool, now: Now) -> IceServers;
}
