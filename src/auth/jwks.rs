//! Keys that the operator's identity provider publishes (JWK Set, RFC 7517): fetched, cached, rotated.
//!
//! A token that names an unknown key causes a fetch, at most one in a while: strangers decide what tokens say.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::{HeaderMap, Method, StatusCode};
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::key::PinnedKey;
use super::outbound::Outbound;

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most keys of a set that are looked at.
const MAX_KEYS: usize = 64;

/// Where the keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksConfig {
    /// URL of the set.
    pub url: String,
    /// Ids of the keys that may sign; empty: all.
    pub kids: Vec<String>,
    /// When the set is looked at again.
    pub refresh: Duration,
    /// The least time between two fetches, whatever tokens say.
    pub pause: Duration,
    /// How long keys are believed that cannot be looked at again.
    pub stale: Duration,
}

impl JwksConfig {
    /// Every key of a set, looked at every ten minutes, at most every ten seconds, believed for a day.
    #[must_use]
    pub fn new(url: String) -> Self {
        Self {
            url,
            kids: Vec::new(),
            refresh: Duration::from_mins(10),
            pause: Duration::from_secs(10),
            stale: Duration::from_hours(24),
        }
    }
}

/// No keys to check against, so nothing is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unavailable;

/// A cached set.
#[derive(Debug, Clone)]
pub(super) struct Jwks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: JwksConfig,
    outbound: Outbound,
    known: ArcSwap<Known>,
    /// When the last fetch started. Whoever fetches holds it.
    last: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Known {
    keys: Vec<(Option<String>, PinnedKey)>,
    fetched: Option<Instant>,
}

impl Known {
    fn age(&self) -> Option<Duration> {
        self.fetched.map(|at| at.elapsed())
    }

    /// The key of this id for this algorithm. A token that names none means the only key there is.
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&PinnedKey> {
        let mut fitting = self.keys.iter().filter(|(_, key)| key.algorithm == algorithm);
        match kid {
            Some(kid) => fitting.find(|(known, _)| known.as_deref() == Some(kid)).map(|(_, key)| key),
            None => fitting.next().filter(|_| self.keys.len() == 1).map(|(_, key)| key),
        }
    }
}

/// A set whose keys are read one by one: one this server does not understand must not take the others with it.
#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

impl Jwks {
    pub(super) fn new(config: JwksConfig, outbound: Outbound) -> Self {
        Self(Arc::new(Shared { config, outbound, known: ArcSwap::default(), last: Mutex::default() }))
    }

    /// The key a token names.
    pub(super) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Option<PinnedKey>, Unavailable> {
        let config = &self.0.config;
        let known = self.0.known.load_full();
        let found = known.find(kid, algorithm).cloned();
        match (found, known.age()) {
            (Some(key), Some(age)) if age < config.refresh => Ok(Some(key)),
            (Some(key), Some(age)) if age < config.stale => {
                // Old keys serve while new ones are fetched.
                let this = self.clone();
                tokio::spawn(async move { this.fetch().await });
                Ok(Some(key))
            }
            _ => {
                self.fetch().await;
                let known = self.0.known.load();
                match known.age() {
                    Some(age) if age < config.stale => Ok(known.find(kid, algorithm).cloned()),
                    _ => Err(Unavailable),
                }
            }
        }
    }

    /// Fetches the set, unless somebody has just done so.
    async fn fetch(&self) {
        let Shared { config, outbound, known, last } = &*self.0;
        let mut last = last.lock().await;
        if last.is_some_and(|last| last.elapsed() < config.pause) {
            return;
        }
        *last = Some(Instant::now());
        let answer =
            outbound.ask(Method::GET, &config.url, HeaderMap::new(), bytes::Bytes::new(), PATIENCE).await;
        match answer {
            Ok((StatusCode::OK, body)) => match read(&body, &config.kids) {
                Some(keys) => {
                    tracing::debug!(keys = keys.len(), "token keys fetched");
                    known.store(Arc::new(Known { keys, fetched: Some(Instant::now()) }));
                }
                None => tracing::warn!(url = config.url, "the token keys are no JWK Set with a usable key"),
            },
            Ok((status, _)) => {
                tracing::warn!(url = config.url, status = status.as_u16(), "token keys are refused");
            }
            Err(error) => tracing::warn!(url = config.url, %error, "token keys cannot be fetched"),
        }
    }
}

/// The usable keys of a set; `None` when there is none.
fn read(body: &[u8], kids: &[String]) -> Option<Vec<(Option<String>, PinnedKey)>> {
    let set: Set = serde_json::from_slice(body).ok()?;
    let jwks = set.keys.into_iter().take(MAX_KEYS).filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let set = JwkSet { keys: jwks.collect() };
    let keys: Vec<_> = set
        .keys
        .iter()
        .filter(|jwk| kids.is_empty() || jwk.common.key_id.as_ref().is_some_and(|kid| kids.contains(kid)))
        .filter_map(|jwk| Some((jwk.common.key_id.clone(), PinnedKey::jwk(jwk).ok()?)))
        .collect();
    (!keys.is_empty()).then_some(keys)
}
