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
    /// Other servers. One that relays and has no credentials of its own gets those made here: it knows the secret.
    pub others: Vec<IceServer>,
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
    /// What was revoked before there was a relay.
    early: Arc<Mutex<Vec<Revoked>>>,
    /// Live calls whose media is relayed.
    relayed: Arc<Mutex<HashSet<Arc<str>>>>,
}

/// Credentials that are good for nothing any more.
#[derive(Debug, Clone)]
enum Revoked {
    /// Those of calls.
    Calls(Arc<[Arc<str>]>),
    /// Those of somebody who has left one.
    Leg(turn::Departure),
}

/// What credentials are made with.
#[derive(Debug)]
struct Minter {
    secrets: SharedSecrets,
    ttl: Duration,
}

impl Link {
    /// Makes a link that mints credentials of this life; what is revoked before [`Link::connect`] waits for it.
    pub fn new(secrets: SharedSecrets, urls: IceUrls, ttl: Duration) -> Self {
        let minter = Arc::new(ArcSwap::from_pointee(Minter { secrets, ttl }));
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let serial = Arc::new(AtomicU64::new(u64::try_from(started).unwrap_or(0)));
        Self {
            minter,
            urls: Arc::new(urls),
            relay: Arc::default(),
            early: Arc::default(),
            serial,
            relayed: Arc::default(),
        }
    }

    /// Mints with other secrets, or for another life, from the next credential on.
    pub fn reconfigure(&self, secrets: SharedSecrets, ttl: Duration) {
        self.minter.store(Arc::new(Minter { secrets, ttl }));
    }

    /// Hands over the running relay, once.
    pub fn connect(&self, relay: &Arc<net::Handle>) {
        // A second relay in one process does not exist; the first one stays.
        let _ = self.relay.set(Arc::clone(relay));
        let early = std::mem::take(&mut *self.early.lock());
        early.into_iter().for_each(|revoked| self.revoke(revoked));
    }

    /// Calls of an earlier process are over, the oldest first: what it gave out for them starts nothing here either.
    pub fn over(&self, calls: &[CallId]) {
        self.revoke(Revoked::Calls(calls.iter().map(|call| Arc::clone(&call.0)).collect()));
    }

    fn revoke(&self, revoked: Revoked) {
        // Nothing is put there once the relay has been handed over.
        let mut early = self.early.lock();
        let Some(relay) = self.relay.get() else { return early.push(revoked) };
        drop(early);
        match revoked {
            Revoked::Calls(calls) => relay.revoke_calls(&calls),
            Revoked::Leg(departure) => relay.revoke_departed(departure),
        }
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
                self.revoke(Revoked::Calls([Arc::clone(&call.0)].into()));
            }
            Event::Departed { call, user } => {
                let serial = self.serial.load(Ordering::Relaxed);
                let (call, user) = (Arc::clone(&call.0), Arc::clone(&user.0));
                self.revoke(Revoked::Leg(turn::Departure { call, user, serial }));
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
        let minted = if relay { minter.secrets.mint(&user.0, leg, expires) } else { None };
        let with_minted = |urls: &Vec<String>| {
            let (username, credential) = minted.clone().map(|minted| (minted.username, minted.password))?;
            Some(IceServer { urls: urls.clone(), username: Some(username), credential: Some(credential) })
        };
        if !self.urls.turn.is_empty() {
            servers.extend(with_minted(&self.urls.turn));
        }
        for other in &self.urls.others {
            match (other.relays(), &other.username) {
                (false, _) => servers.push(other.clone()),
                (true, Some(_)) if relay => servers.push(other.clone()),
                (true, None) => servers.extend(with_minted(&other.urls)),
                (true, Some(_)) => {}
            }
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
            ..IceUrls::default()
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
    fn other_servers_follow_with_credentials_of_their_own_or_ours() {
        let other = |url: &str, own: Option<&str>| IceServer {
            urls: vec![url.into()],
            username: own.map(Into::into),
            credential: own.map(Into::into),
        };
        let others = vec![
            other("stun:b.example", None),
            other("turn:b.example", None),
            other("turns:c.example", Some("own")),
        ];
        let urls = IceUrls { others, ..IceUrls::default() };
        let mut link = Link::new(SharedSecrets::new(vec!["north".into()]), urls, Duration::from_secs(60));
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        let call = CallId("c1".into());
        let minted = link.mint(&UserId("ana".into()), Some(&call), true, now);
        let names: Vec<_> = minted.servers.iter().map(|server| server.username.clone()).collect();
        assert_eq!((names.len(), &names[0], names[2].as_deref()), (3, &None, Some("own")));
        assert!(names[1].as_deref().is_some_and(|name| name.starts_with("60:ana:c1:")), "{names:?}");
        let stun_only = link.mint(&UserId("ana".into()), Some(&call), false, now);
        assert_eq!(stun_only.servers, [other("stun:b.example", None)]);
    }

    #[test]
    fn who_may_not_use_the_relay_gets_stun_only() {
        assert_eq!(mint(false, None).servers.len(), 1);
    }
}
