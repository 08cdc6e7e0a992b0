//! The only place where calls and relay meet: credentials are minted for a call and end with it. Must not decide who
//! may call, nor what a relay does with a credential. Driven by `signaling` through [`IceMint`] and by `app`, which
//! hands it the running relay.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::auth::{Leg, SharedSecrets};
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
    /// The last serial of a credential for a call: milliseconds since the Unix epoch or more, so that a process that
    /// starts again does not begin below what it had reached.
    serial: Arc<AtomicU64>,
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
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let serial = Arc::new(AtomicU64::new(u64::try_from(started).unwrap_or(0)));
        Self { minter, urls: Arc::new(urls), relay: Arc::default(), serial, relayed: Arc::default() }
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

    /// Takes an event of the call engine: the allocations of a call end with it, those of somebody who leaves it at
    /// once.
    pub fn signaling(&self, event: &Event) {
        match event {
            Event::CallEnded { call, .. } => {
                self.relayed.lock().remove(&call.0);
                self.relay.get().iter().for_each(|relay| relay.revoke_call(&call.0));
            }
            Event::Departed { call, user } => {
                let serial = self.serial.load(Ordering::Relaxed);
                let departure =
                    turn::Departure { call: Arc::clone(&call.0), user: Arc::clone(&user.0), serial };
                self.relay.get().iter().for_each(|relay| relay.revoke_departed(departure.clone()));
            }
            _ => {}
        }
    }

    /// A higher serial than every one before.
    fn next_serial(&self, now: Now) -> u64 {
        let clock = u64::try_from(now.unix_ms).unwrap_or(0);
        let next = |last: u64| last.saturating_add(1).max(clock);
        let last = self.serial.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        last.map_or(0, next)
    }

    /// Takes an event of the relay.
    pub fn turn(&self, event: &turn::Event) {
        match event {
            turn::Event::CarriesMedia { grant } => {
                self.relayed.lock().extend(grant.call.iter().map(Arc::clone));
            }
            // Where its call is over, what was noted after that is forgotten.
            turn::Event::AllocationEnded { grant, reason: turn::EndReason::Revoked, .. } => {
                let over = |call: &&Arc<str>| self.relay.get().is_some_and(|relay| relay.is_over(call));
                if let Some(call) = grant.call.as_ref().filter(over) {
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
        let leg = call.map(|call| Leg { call: &call.0, serial: self.next_serial(now) });
        if relay
            && !self.urls.turn.is_empty()
            && let Some(minted) = minter.secrets.mint(&user.0, leg, expires)
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
        let username = turn.username.as_deref().unwrap();
        let serial = username.strip_prefix("1700043200:ana:c1:").unwrap();
        assert!(serial.parse::<u64>().unwrap() >= 1_700_000_000_999, "{serial}");
        assert!(turn.credential.is_some());
    }

    #[test]
    fn no_two_credentials_for_a_call_have_one_serial_and_a_clock_that_is_set_back_changes_nothing() {
        let link = Link::new(SharedSecrets::default(), IceUrls::default(), Duration::from_secs(60));
        let instant = Instant::now();
        let mut last = 0;
        for unix_ms in [i64::MAX - 9, i64::MAX - 9, 0, -1] {
            let serial = link.next_serial(Now { instant, unix_ms });
            assert!(serial > last, "{serial} after {last}");
            last = serial;
        }
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
