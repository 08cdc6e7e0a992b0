//! The only place where calls and relay meet: credentials are minted for a call and end with it. Must not decide who
//! may call, nor what a relay does with a credential. Driven by `signaling` through [`IceMint`] and by `app`, which
//! hands it the running relay.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::auth::SharedSecrets;
use crate::signaling::{CallId, Event, IceMint, IceServer, IceServers, Now, UserId};
use crate::{net, turn};

/// URIs of this server's STUN and TURN, without credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IceUrls {
    /// `stun:` (RFC 7064).
    pub stun: Vec<String>,
    /// `turn:` and `turns:` (RFC 7065), in order of preference.
    pub turn: Vec<String>,
}

/// What mints credentials, and what ends them. Clones share the relay.
#[derive(Debug, Clone)]
pub struct Link {
    minter: Arc<ArcSwap<Minter>>,
    urls: Arc<IceUrls>,
    relay: Arc<OnceLock<Arc<net::Handle>>>,
    /// Live calls whose media is relayed.
    relayed: Arc<Mutex<HashSet<Arc<str>>>>,
}

/// What credentials are made with.
#[derive(Debug)]
struct Minter {
    secrets: SharedSecrets,
    ttl: Duration,
}

impl Link {
    /// Makes a link that mints credentials of this life; nothing is revoked before [`Link::connect`].
    pub fn new(secrets: SharedSecrets, urls: IceUrls, ttl: Duration) -> Self {
        let minter = Arc::new(ArcSwap::from_pointee(Minter { secrets, ttl }));
        Self { minter, urls: Arc::new(urls), relay: Arc::default(), relayed: Arc::default() }
    }

    /// Mints with other secrets, or for another life, from the next credential on.
    pub fn reconfigure(&self, secrets: SharedSecrets, ttl: Duration) {
        self.minter.store(Arc::new(Minter { secrets, ttl }));
    }

    /// Hands over the running relay, once.
    pub fn connect(&self, relay: &Arc<net::Handle>) {
        // A second relay in one process does not exist; the first one stays.
        let _ = self.relay.set(Arc::clone(relay));
    }

    /// Whether the relay has carried media of a call that is not over yet.
    pub fn has_relayed(&self, call: &CallId) -> bool {
        self.relayed.lock().contains(&call.0)
    }

    /// Takes an event of the call engine: the allocations of a call end with it.
    pub fn signaling(&self, event: &Event) {
        if let Event::CallEnded { call, .. } = event {
            self.relayed.lock().remove(&call.0);
            if let Some(relay) = self.relay.get() {
                relay.revoke_call(&call.0);
            }
        }
    }

    /// Takes an event of the relay.
    pub fn turn(&self, event: &turn::Event) {
        match event {
            turn::Event::CarriesMedia { grant } => {
                self.relayed.lock().extend(grant.call.iter().map(Arc::clone));
            }
            // Its call is over: what was noted after that is forgotten.
            turn::Event::AllocationEnded { grant, reason: turn::EndReason::Revoked, .. } => {
                if let Some(call) = &grant.call {
                    self.relayed.lock().remove(call);
                }
            }
            turn::Event::AllocationCreated { .. } | turn::Event::AllocationEnded { .. } => {}
        }
    }
}

impl IceMint for Link {
    fn mint(&mut self, user: &UserId, call: Option<&CallId>, relay: bool, now: Now) -> IceServers {
        let mut servers = Vec::with_capacity(2);
        if !self.urls.stun.is_empty() {
            servers.push(IceServer { urls: self.urls.stun.clone(), username: None, credential: None });
        }
        let minter = self.minter.load();
        let expires = (now.unix_ms / 1000).max(0).unsigned_abs().saturating_add(minter.ttl.as_secs());
        if relay
            && !self.urls.turn.is_empty()
            && let Some(minted) = minter.secrets.mint(&user.0, call.map(|call| &*call.0), expires)
        {
            servers.push(IceServer {
                urls: self.urls.turn.clone(),
                username: Some(minted.username),
                credential: Some(minted.password),
            });
        }
        IceServers { servers, ttl: minter.ttl }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn mint(relay: bool, call: Option<&CallId>) -> IceServers {
        let urls = IceUrls {
            stun: vec!["stun:relay.example:3478".into()],
            turn: vec!["turn:relay.example:3478?transport=udp".into()],
        };
        let secrets = SharedSecrets::new(vec!["north".into()]);
        let now = Now { instant: Instant::now(), unix_ms: 1_700_000_000_999 };
        Link::new(secrets, urls, Duration::from_secs(43_200)).mint(&UserId("ana".into()), call, relay, now)
    }

    #[test]
    fn a_credential_names_its_expiry_its_user_and_its_call() {
        let minted = mint(true, Some(&CallId("c1".into())));
        let [stun, turn] = &*minted.servers else { panic!("{minted:?}") };
        assert_eq!((stun.username.as_deref(), stun.credential.as_deref()), (None, None));
        assert_eq!(turn.username.as_deref(), Some("1700043200:ana:c1"));
        assert!(turn.credential.is_some());
    }

    #[test]
    fn a_rotated_secret_signs_the_next_credential() {
        let link = |secret: &str| {
            let urls = IceUrls { turn: vec!["turn:relay.example".into()], ..IceUrls::default() };
            Link::new(SharedSecrets::new(vec![secret.into()]), urls, Duration::from_secs(60))
        };
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        let mint = |link: &Link| link.clone().mint(&UserId("ana".into()), None, true, now);
        let (old, new) = (link("old"), link("new"));
        assert_ne!(mint(&old), mint(&new));
        old.reconfigure(SharedSecrets::new(vec!["new".into(), "old".into()]), Duration::from_secs(60));
        assert_eq!(mint(&old), mint(&new));
    }

    #[test]
    fn who_may_not_use_the_relay_gets_stun_only() {
        assert_eq!(mint(false, None).servers.len(), 1);
    }
}
