//! Who a session belongs to, and the ids of the engine.

use std::sync::Arc;

/// A user as the authentication named it (token claim, or `anon:…`); at most 128 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub Arc<str>);

/// A call: 128 random bits as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub Arc<str>);

/// A session inside this process. Never leaves it: the wire has its own `sid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What a session may do (`psr` claim of a token).
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
    pub rooms: Option<Vec<Arc<str>>>,
    /// Kilobits a second its client may send to each other participant; `None` is what the network gives.
    pub max_kbps: Option<u32>,
}

/// The authenticated owner of a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Stable id of the user.
    pub user: UserId,
    /// Name shown to others.
    pub display_name: Option<Arc<str>>,
    /// Account name shown to others.
    pub username: Option<Arc<str>>,
    /// Picture shown to others (a URL, opaque here).
    pub avatar: Option<Arc<str>>,
    /// What it may do.
    pub grants: Grants,
    /// Expiry of the token in milliseconds since the epoch: no new calls after it.
    pub expires_unix_ms: Option<i64>,
}

/// What a token without the claim grants.
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

impl Grants {
    /// Whether a call or room of this name is within the rooms it is limited to. A call without a room is within
    /// none.
    pub fn allows_room(&self, room: Option<&str>) -> bool {
        match (&self.rooms, room) {
            (None, _) => true,
            (Some(rooms), Some(room)) => rooms.iter().any(|allowed| allowed.as_ref() == room),
            (Some(_), None) => false,
        }
    }
}

impl Identity {
    /// Whether its token no longer starts or joins calls.
    pub fn expired(&self, unix_ms: i64) -> bool {
        self.expires_unix_ms.is_some_and(|expiry| expiry <= unix_ms)
    }
}
