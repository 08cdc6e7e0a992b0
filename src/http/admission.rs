//! Who comes in: addresses behind trusted proxies, origins, connection rates, authentication.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::config::{Config, Limits};
use super::engine::now;
use super::origin::{BadOrigin, Origins, Verdict};
use super::refusal::Refusal;
use crate::auth::{self, Authenticator, Mode, Presented};
use crate::metrics::Metrics;
use crate::signaling::{Grants, Identity, UserId};

/// Most addresses remembered by one table. Beyond it, newcomers share one entry.
const MAX_ADDRESSES: usize = 65_536;
/// The longest an authentication is delayed.
const MAX_DELAY: Duration = Duration::from_secs(4);

/// Everything that decides whether a request may go on.
#[derive(Debug)]
pub(crate) struct Admission {
    authenticator: Arc<Authenticator>,
    access: Arc<Access>,
    connections: Mutex<Table<Bucket>>,
    failures: Mutex<Table<Failures>>,
    unauthenticated: Arc<Semaphore>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

/// The lists that decide where a request may come from.
#[derive(Debug, Clone)]
pub struct AccessLists {
    origins: Origins,
    proxies: Vec<IpNet>,
}

impl AccessLists {
    /// Reads origins and proxies. Where callers on this host need no token, the server's own origin counts as its own
    /// under a loopback name only.
    ///
    /// # Errors
    /// An origin of the configuration is none.
    pub fn parse(config: &Config, anonymous: Mode) -> Result<Self, BadOrigin> {
        let origins = Origins::parse(&config.origins, anonymous == Mode::Loopback)?;
        Ok(Self { origins, proxies: config.trusted_proxies.clone() })
    }
}

/// The lists in use.
#[derive(Debug)]
pub struct Access(ArcSwap<AccessLists>);

impl Access {
    /// Starts with these.
    #[must_use]
    pub fn new(lists: AccessLists) -> Self {
        Self(ArcSwap::from_pointee(lists))
    }

    /// Goes on with these, from the next request on.
    pub fn replace(&self, lists: AccessLists) {
        self.0.store(Arc::new(lists));
    }
}

/// Where a request comes from; an extension of every request that passed [`visit`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visitor {
    /// The client, as far as trusted proxies tell.
    pub(crate) peer: IpAddr,
    /// Whether the origin of its page demands a token.
    pub(crate) token_only: bool,
}

/// One of the places for transports that have not authenticated. Given back when they have, or when they go.
#[derive(Debug, Clone)]
pub(crate) struct Place(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Place {
    /// Gives the place back. False when it was given back before.
    pub(crate) fn leave(&self) -> bool {
        self.0.lock().take().is_some()
    }
}

/// Why an authentication failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAdmitted {
    /// The page of another origin came without a token.
    #[error("pages of this origin need a token")]
    Origin,
    /// The authenticator said no.
    #[error(transparent)]
    Denied(#[from] auth::Denied),
}

impl NotAdmitted {
    /// Wire code.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Origin => "PERMISSION_DENIED",
            Self::Denied(denied) => denied.code(),
        }
    }
}

impl Admission {
    /// Makes empty tables.
    pub(crate) fn new(
        limits: &Limits,
        access: Arc<Access>,
        authenticator: Arc<Authenticator>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            access,
            authenticator,
            connections: Mutex::default(),
            failures: Mutex::default(),
            unauthenticated: Arc::new(Semaphore::new(limits.unauthenticated)),
            limits: limits.clone(),
            metrics,
        }
    }

    /// Where a request comes from, or the refusal of its origin.
    fn visitor(&self, request: &Request) -> Result<Visitor, Refusal> {
        let headers = request.headers();
        let peer = request
            .extensions()
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
        let peer = client(peer, headers, &self.access.0.load().proxies);
        let verdict = self.origin(headers);
        let token_only = verdict == Verdict::TokenOnly;
        if verdict == Verdict::Refused || (token_only && !self.authenticator.takes_tokens()) {
            return Err(Refusal::origin());
        }
        Ok(Visitor { peer, token_only })
    }

    fn origin(&self, headers: &HeaderMap) -> Verdict {
        // A header that is no text is an origin all the same: none that is listed.
        let origin = headers.get(header::ORIGIN).map(|value| value.to_str().unwrap_or("null"));
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        self.access.0.load().origins.check(origin, host)
    }

    /// Whether the answer to a request from this origin may be read by the page.
    pub(crate) fn shares_with(&self, origin: &str, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        match self.access.0.load().origins.check(Some(origin), host) {
            Verdict::Allowed => true,
            Verdict::TokenOnly => self.authenticator.takes_tokens(),
            Verdict::Refused => false,
        }
    }

    /// Counts a new transport or session of an address.
    ///
    /// # Errors
    /// The address opens too many.
    pub(crate) fn count(&self, peer: IpAddr) -> Result<(), Refusal> {
        let (rate, burst) = (self.limits.connections_per_second, self.limits.connections_burst);
        let moment = Instant::now();
        let mut table = self.connections.lock();
        let bucket = table.entry(network(peer), |bucket| bucket.is_full(moment, rate));
        if bucket.take(moment, rate, burst) {
            return Ok(());
        }
        self.metrics.signaling_rate_limited.with_label_values(&["connections"]).inc();
        Err(Refusal::connections())
    }

    /// Admits a new transport of an address.
    ///
    /// # Errors
    /// The address opens too many, or too many of all addresses have not authenticated yet.
    pub(crate) fn connect(&self, peer: IpAddr) -> Result<Place, Refusal> {
        self.count(peer)?;
        match Arc::clone(&self.unauthenticated).try_acquire_owned() {
            Ok(permit) => Ok(Place(Arc::new(Mutex::new(Some(permit))))),
            Err(_) => {
                self.metrics.signaling_rate_limited.with_label_values(&["unauthenticated"]).inc();
                Err(Refusal::capacity())
            }
        }
    }

    /// Authenticates a caller, after a delay when its address has failed too often. An expired but genuine token is
    /// no attempt to guess one.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub(crate) async fn authenticate(
        &self,
        presented: Presented<'_>,
        visitor: Visitor,
    ) -> Result<Admitted, NotAdmitted> {
        if presented.token.is_none() && visitor.token_only {
            return Err(NotAdmitted::Origin);
        }
        let address = network(visitor.peer);
        let window = self.limits.failure_window;
        let delay = {
            let mut table = self.failures.lock();
            table.map.get_mut(&address).map_or(Duration::ZERO, |failures| {
                failures.delay(Instant::now(), window, self.limits.failures)
            })
        };
        if !delay.is_zero() {
            self.metrics.signaling_rate_limited.with_label_values(&["authentication"]).inc();
            tokio::time::sleep(delay).await;
        }
        let caller = self.authenticator.authenticate(presented, visitor.peer, now().unix_ms).await;
        if presented.token.is_some() && caller == Err(auth::Denied::Invalid) {
            self.failed(visitor.peer);
        }
        Ok(admitted(caller?))
    }

    /// Whether this is a key of the operator's own servers.
    pub(crate) fn is_api_key(&self, key: &str) -> bool {
        self.authenticator.is_api_key(key)
    }

    /// Counts an attempt to get in with what is not its own.
    pub(crate) fn failed(&self, peer: IpAddr) {
        let (moment, window) = (Instant::now(), self.limits.failure_window);
        let mut table = self.failures.lock();
        table.entry(network(peer), |failures| failures.is_over(moment, window)).count(moment, window);
    }
}

/// Middleware: finds out where a request comes from, refuses foreign origins, leaves a [`Visitor`].
pub(crate) async fn visit(
    State(admission): State<Arc<Admission>>,
    mut request: Request,
    next: Next,
) -> Response {
    match admission.visitor(&request) {
        Ok(visitor) => {
            request.extensions_mut().insert(visitor);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// The credential in the head of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Credential {
    /// A token.
    pub(crate) token: Option<String>,
    /// The secret of an anonymous caller.
    pub(crate) anonymous_key: Option<String>,
}

impl Credential {
    /// What is presented, with a name for anonymous callers.
    pub(crate) fn presented<'a>(&'a self, name: Option<&'a str>) -> Presented<'a> {
        Presented { token: self.token.as_deref(), name, anonymous_key: self.anonymous_key.as_deref() }
    }
}

/// The credential of a request: `Authorization: Bearer` or `Anonymous`, else the `access_token` parameter of the query.
///
/// # Errors
/// An `Authorization` header of another kind: it is a credential, and not one of ours.
pub(crate) fn credential(headers: &HeaderMap, query: Option<&str>) -> Result<Credential, auth::Denied> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let value = value.to_str().map_err(|_| auth::Denied::Invalid)?;
        let (scheme, secret) = value.split_once(' ').ok_or(auth::Denied::Invalid)?;
        let secret = Some(secret.trim().to_owned());
        return match () {
            () if scheme.eq_ignore_ascii_case("bearer") => {
                Ok(Credential { token: secret, anonymous_key: None })
            }
            () if scheme.eq_ignore_ascii_case("anonymous") => {
                Ok(Credential { token: None, anonymous_key: secret })
            }
            () => Err(auth::Denied::Invalid),
        };
    }
    // A token is base64url and dots: nothing in it is ever percent-encoded.
    let token =
        query.into_iter().flat_map(|q| q.split('&')).find_map(|pair| pair.strip_prefix("access_token="));
    Ok(Credential { token: token.map(ToOwned::to_owned), anonymous_key: None })
}

/// The client of a connection: what `X-Forwarded-For` says as far as the proxies that wrote it are trusted.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    let mut client = peer.to_canonical();
    let values: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    let mut hops = values.iter().rev().flat_map(|value| value.rsplit(','));
    while is_trusted(client) {
        let Some(hop) = hops.next().and_then(|hop| hop.trim().parse::<IpAddr>().ok()) else { break };
        client = hop.to_canonical();
    }
    client
}

/// What limits count by: an IPv4 address, or the /64 of an IPv6 address.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (!0 << 64))),
    }
}

/// Someone who was let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) identity: Identity,
    /// Members of rooms, as the authentication service told them.
    pub(crate) members: BTreeMap<String, Vec<String>>,
}

fn admitted(caller: auth::Caller) -> Admitted {
    let auth::Caller { user, display_name, username, avatar, grants, members, expires_unix_ms } = caller;
    let auth::Grants { initiate, join, moderate, admin, relay, video, rooms, max_kbps } = grants;
    let identity = Identity {
        user: UserId(user.into()),
        display_name: display_name.map(Into::into),
        username: username.map(Into::into),
        avatar: avatar.map(Into::into),
        grants: Grants {
            initiate,
            join,
            moderate,
            admin,
            relay,
            video,
            rooms: rooms.map(|rooms| rooms.into_iter().map(Into::into).collect()),
            max_kbps,
        },
        expires_unix_ms,
    };
    Admitted { identity, members }
}

/// A bounded table by address.
#[derive(Debug)]
struct Table<T> {
    map: HashMap<IpAddr, T>,
    overflow: T,
}

impl<T: Default> Default for Table<T> {
    fn default() -> Self {
        Self { map: HashMap::new(), overflow: T::default() }
    }
}

impl<T: Default> Table<T> {
    /// The entry of an address. When the table is full, entries that say nothing any more make room; when none does,
    /// newcomers share one.
    fn entry(&mut self, address: IpAddr, is_idle: impl Fn(&T) -> bool) -> &mut T {
        if self.map.len() >= MAX_ADDRESSES && !self.map.contains_key(&address) {
            self.map.retain(|_, entry| !is_idle(entry));
            if self.map.len() >= MAX_ADDRESSES {
                return &mut self.overflow;
            }
        }
        self.map.entry(address).or_default()
    }
}

/// A token bucket; empty state means full.
#[derive(Debug, Default)]
struct Bucket {
    used: f64,
    at: Option<Instant>,
}

impl Bucket {
    fn used(&self, now: Instant, rate: f64) -> f64 {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (self.used - since.as_secs_f64() * rate).max(0.0)
    }

    fn is_full(&self, now: Instant, rate: f64) -> bool {
        self.used(now, rate) <= 0.0
    }

    fn take(&mut self, now: Instant, rate: f64, burst: f64) -> bool {
        self.used = self.used(now, rate);
        self.at = Some(now);
        let admitted = self.used + 1.0 <= burst;
        if admitted {
            self.used += 1.0;
        }
        admitted
    }
}

/// Failed authentications of an address within a window that starts with the first.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    first: Option<Instant>,
}

impl Failures {
    fn is_over(&self, now: Instant, window: Duration) -> bool {
        self.first.is_none_or(|first| now.saturating_duration_since(first) >= window)
    }

    fn count(&mut self, now: Instant, window: Duration) {
        if self.is_over(now, window) {
            *self = Self { count: 0, first: Some(now) };
        }
        self.count = self.count.saturating_add(1);
    }

    /// One second after the allowed number, twice as much with each further one.
    fn delay(&self, now: Instant, window: Duration, allowed: u32) -> Duration {
        if self.is_over(now, window) || self.count < allowed {
            return Duration::ZERO;
        }
        Duration::from_secs(1 << (self.count - allowed).min(8)).min(MAX_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (header::HeaderName::from_static("x-forwarded-for"), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn forwarded_addresses_count_only_as_far_as_proxies_are_trusted() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        for (peer, values, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::1", &["127.0.0.1, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["127.0.0.1", "198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["127.0.0.1, rubbish"], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ] {
            let found = client(peer.parse().unwrap(), &forwarded(values), &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {values:?}");
        }
    }

    #[test]
    fn an_ipv6_subnet_counts_as_one_address() {
        let of = |ip: &str| network(ip.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert_eq!((0..100).filter(|_| bucket.take(start, 10.0, 60.0)).count(), 60);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| bucket.take(later, 10.0, 60.0)).count(), 10);
        assert!(bucket.is_full(later + Duration::from_secs(7), 10.0));
    }

    #[test]
    fn failures_delay_after_ten_and_are_forgotten_after_the_window() {
        let (window, start) = (Duration::from_mins(30), Instant::now());
        let mut failures = Failures::default();
        for _ in 0..9 {
            failures.count(start, window);
        }
        assert_eq!(failures.delay(start, window, 10), Duration::ZERO);
        failures.count(start, window);
        assert_eq!(failures.delay(start, window, 10), Duration::from_secs(1));
        for _ in 0..1_000 {
            failures.count(start, window);
        }
        assert_eq!(failures.delay(start, window, 10), MAX_DELAY);
        assert_eq!(failures.delay(start + window, window, 10), Duration::ZERO);
    }

    #[test]
    fn two_thousand_of_all_addresses_may_be_unauthenticated_and_no_more() {
        let config = Config::default();
        let authenticator = Authenticator::new(&auth::Config::default(), auth::Outbound::new());
        let access = Arc::new(Access::new(AccessLists::parse(&config, Mode::Off).unwrap()));
        let metrics = Arc::new(Metrics::new().unwrap());
        let admission = Admission::new(&config.limits, access, Arc::new(authenticator), metrics);
        let connect = |n: u32| admission.connect(IpAddr::V4((0x0a00_0000 + n).into()));
        let places: Vec<Place> = (0..2_000).map(|n| connect(n).unwrap()).collect();
        assert_eq!(connect(2_000).unwrap_err().code, "CAPACITY_EXCEEDED");
        assert!(places[7].leave());
        assert!(connect(2_001).is_ok());
    }

    #[test]
    fn a_full_table_makes_newcomers_share_one_entry() {
        let mut table = Table::<u32>::default();
        for n in 0..u32::try_from(MAX_ADDRESSES).unwrap() {
            *table.entry(IpAddr::V4(n.into()), |_| false) += 1;
        }
        for n in 0..3 {
            *table.entry(IpAddr::V6(Ipv6Addr::from_bits(n)), |_| false) += 1;
        }
        assert_eq!((table.overflow, table.map.len()), (3, MAX_ADDRESSES));
        *table.entry(IpAddr::V6(Ipv6Addr::from_bits(9)), |count| *count == 1) += 1;
        assert_eq!((table.overflow, table.map.len()), (3, 1));
    }

    #[test]
    fn a_token_comes_from_the_header_or_the_query() {
        let header = |value: &str| -> HeaderMap {
            [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect()
        };
        let none = HeaderMap::new();
        let bearer = |headers: &HeaderMap, query| credential(headers, query).map(|shown| shown.token);
        assert_eq!(bearer(&none, None), Ok(None));
        assert_eq!(bearer(&header("bearer a.b.c"), Some("access_token=x")), Ok(Some("a.b.c".into())));
        assert_eq!(bearer(&none, Some("EIO=4&access_token=a.b.c&t=1")), Ok(Some("a.b.c".into())));
        assert_eq!(bearer(&none, Some("xaccess_token=a")), Ok(None));
        assert_eq!(bearer(&none, Some("access_token=")), Ok(Some(String::new())));
        assert_eq!(bearer(&header("Basic dTpw"), None), Err(auth::Denied::Invalid));
        let anonymous = credential(&header("Anonymous s3cret"), Some("access_token=x")).unwrap();
        assert_eq!((anonymous.token, anonymous.anonymous_key.as_deref()), (None, Some("s3cret")));
    }
}
