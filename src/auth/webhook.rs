//! Asking a service of the operator who a token belongs to. Fails closed: no answer lets nobody in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::{HeaderMap, StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::authenticator::{Caller, Denied, clean_name};
use super::outbound::Outbound;
use super::signature;
use super::token::{GrantClaims, MAX_TOKEN, picture, user_id};

/// How long the service may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most questions at once: who floods this server must not flood the service behind it.
const AT_ONCE: usize = 64;

/// Where to ask.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// URL that is asked.
    pub url: String,
    /// Signs the questions, so that the service knows who asks.
    pub secret: Option<SecretString>,
}

/// Asks the service.
#[derive(Debug)]
pub(super) struct Webhook {
    config: WebhookConfig,
    outbound: Outbound,
    places: Arc<Semaphore>,
}

/// The answer. What is not understood refuses the caller.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    allowed: bool,
    user_id: Option<serde_json::Value>,
    name: Option<String>,
    username: Option<String>,
    avatar: Option<serde_json::Value>,
    grants: Option<GrantClaims>,
    members: Option<BTreeMap<String, Vec<String>>>,
    /// Seconds since the Unix epoch.
    expires_at: Option<i64>,
    reason: Option<String>,
}

impl Webhook {
    pub(super) fn new(config: WebhookConfig, outbound: Outbound) -> Self {
        Self { config, outbound, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Who a token belongs to.
    pub(super) async fn ask(&self, token: &str, peer: IpAddr, now_unix_ms: i64) -> Result<Caller, Denied> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Denied::Invalid);
        }
        let body = json!({"token": token, "ip": peer.to_string()}).to_string();
        let mut headers = HeaderMap::new();
        if let Some(secret) = &self.config.secret {
            signature::sign(&mut headers, secret, now_unix_ms / 1000, body.as_bytes());
        }
        let asked = async {
            let Ok(_place) = self.places.acquire().await else { return Err(Denied::Unavailable) };
            self.outbound.post_json(&self.config.url, headers, body.into(), PATIENCE).await.map_err(|error| {
                tracing::warn!(%error, "the authentication service does not answer: nobody is let in");
                Denied::Unavailable
            })
        };
        match tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(Denied::Unavailable))? {
            (StatusCode::OK, body) => serde_json::from_slice::<Answer>(&body)
                .map_err(|error| {
                    tracing::warn!(%error, "the answer of the authentication service is malformed");
                    Denied::Unavailable
                })?
                .into_caller(now_unix_ms),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Err(Denied::Invalid),
            (status, _) => {
                let status = status.as_u16();
                tracing::warn!(status, "the authentication service fails: nobody is let in");
                Err(Denied::Unavailable)
            }
        }
    }
}

impl Answer {
    fn into_caller(self, now_unix_ms: i64) -> Result<Caller, Denied> {
        if !self.allowed {
            tracing::debug!(reason = self.reason, "the authentication service refused a caller");
            return Err(Denied::Invalid);
        }
        let expires_unix_ms = self.expires_at.map(|seconds| seconds.saturating_mul(1000));
        if expires_unix_ms.is_some_and(|expiry| expiry < now_unix_ms) {
            return Err(Denied::Expired);
        }
        let user = self.user_id.and_then(user_id).ok_or_else(|| {
            tracing::warn!("the authentication service names no usable userId");
            Denied::Unavailable
        })?;
        Ok(Caller {
            user,
            display_name: self.name.as_deref().and_then(clean_name),
            username: self.username.as_deref().and_then(clean_name),
            avatar: picture(self.avatar),
            grants: self.grants.map(GrantClaims::into_grants).transpose()?.unwrap_or_default(),
            members: self.members.unwrap_or_default(),
            expires_unix_ms,
        })
    }
}
