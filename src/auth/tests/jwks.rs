//! Keys that are published, rotate, disappear.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::get;
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{NOW_S, Signer, serve};
use crate::auth::token::Verifier;
use crate::auth::{Caller, Denied, JwksConfig, Outbound, TokenConfig};

/// An identity provider: what it publishes, and how often it was asked.
#[derive(Clone, Default)]
struct Provider {
    published: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    fn publish(&self, keys: &[Value]) {
        *self.published.lock() = Some(json!({"keys": keys}));
    }

    async fn verifier(&self, adjust: impl FnOnce(&mut JwksConfig)) -> Verifier {
        let this = self.clone();
        let answer = move || async move {
            this.asked.fetch_add(1, Ordering::SeqCst);
            match &*this.published.lock() {
                Some(set) => (StatusCode::OK, set.to_string()),
                None => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
            }
        };
        let url = serve(axum::Router::new().route("/keys", get(answer))).await;
        let mut jwks = JwksConfig { pause: Duration::ZERO, ..JwksConfig::new(format!("{url}/keys")) };
        adjust(&mut jwks);
        let config = TokenConfig { keys: Vec::new(), jwks: Some(jwks), issuer: None, audience: None };
        Verifier::new(&config, &Outbound::new())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn check(verifier: &Verifier, token: &str) -> Result<Caller, Denied> {
    verifier.verify(token, NOW_S * 1000).await
}

#[tokio::test]
async fn a_published_key_is_fetched_once_and_found_by_its_id() {
    let (old, new) = (Signer::p256(), Signer::new(&rcgen::PKCS_ED25519, Algorithm::EdDSA));
    let provider = Provider::default();
    provider.publish(&[old.jwk("old"), new.jwk("new"), json!({"kty": "future"}), json!(7)]);
    let verifier = provider.verifier(|_| {}).await;
    for _ in 0..5 {
        assert_eq!(check(&verifier, &old.token("ada", Some("old"))).await.unwrap().user, "ada");
        assert_eq!(check(&verifier, &new.token("bob", Some("new"))).await.unwrap().user, "bob");
    }
    assert_eq!(provider.asked(), 1);
    for (token, why) in [
        (old.token("ada", Some("new")), "the id of another key"),
        (old.token("ada", None), "no id among several keys"),
        (Signer::p256().token("ada", Some("old")), "another key with the same id"),
    ] {
        assert_eq!(check(&verifier, &token).await, Err(Denied::Invalid), "{why}");
    }
}

#[tokio::test]
async fn a_rotated_key_is_fetched_when_the_first_token_names_it() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let provider = Provider::default();
    provider.publish(&[old.jwk("old")]);
    let verifier = provider.verifier(|_| {}).await;
    assert!(check(&verifier, &old.token("ada", Some("old"))).await.is_ok());
    provider.publish(&[new.jwk("new")]);
    assert!(check(&verifier, &new.token("ada", Some("new"))).await.is_ok());
    assert_eq!(check(&verifier, &old.token("ada", Some("old"))).await, Err(Denied::Invalid));
}

#[tokio::test]
async fn tokens_with_invented_ids_do_not_make_this_server_ask_again_and_again() {
    let signer = Signer::p256();
    let provider = Provider::default();
    provider.publish(&[signer.jwk("k")]);
    let verifier = provider.verifier(|jwks| jwks.pause = Duration::from_hours(1)).await;
    for n in 0..50 {
        let token = signer.token("ada", Some(&format!("invented-{n}")));
        assert_eq!(check(&verifier, &token).await, Err(Denied::Invalid));
    }
    assert!(check(&verifier, &signer.token("ada", Some("k"))).await.is_ok());
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn known_keys_outlive_their_provider_for_a_while_and_not_for_ever() {
    let signer = Signer::p256();
    let token = signer.token("ada", Some("k"));
    for (stale, accepted) in [(Duration::from_hours(1), true), (Duration::ZERO, false)] {
        let provider = Provider::default();
        provider.publish(&[signer.jwk("k")]);
        let verifier = provider
            .verifier(|jwks| {
                jwks.refresh = Duration::ZERO;
                jwks.stale = stale;
            })
            .await;
        // The first fetch; with no time to be believed not even that helps.
        let first = check(&verifier, &token).await;
        *provider.published.lock() = None;
        let later = check(&verifier, &token).await;
        assert_eq!((first.is_ok(), later.is_ok()), (accepted, accepted));
        if !accepted {
            assert_eq!(later, Err(Denied::Unavailable));
        }
    }
}

#[tokio::test]
async fn a_provider_that_answers_rubbish_lets_nobody_in() {
    let signer = Signer::p256();
    let secret = json!({"kty": "oct", "kid": "k", "alg": "HS256", "k": "c2VjcmV0"});
    let encryption = {
        let mut jwk = signer.jwk("k");
        jwk["use"] = json!("enc");
        jwk
    };
    let confused = {
        let mut jwk = signer.jwk("k");
        jwk["alg"] = json!("RS256");
        jwk
    };
    for published in [
        json!({"keys": [secret]}),
        json!({"keys": [encryption]}),
        json!({"keys": [confused]}),
        json!({"keys": []}),
        json!([]),
        json!({"keys": "x"}),
    ] {
        let provider = Provider::default();
        *provider.published.lock() = Some(published.clone());
        let verifier = provider.verifier(|_| {}).await;
        let outcome = check(&verifier, &signer.token("ada", Some("k"))).await;
        assert_eq!(outcome, Err(Denied::Unavailable), "{published}");
    }
}

#[tokio::test]
async fn only_listed_ids_may_sign() {
    let (listed, other) = (Signer::p256(), Signer::p256());
    let provider = Provider::default();
    provider.publish(&[listed.jwk("listed"), other.jwk("other")]);
    let verifier = provider.verifier(|jwks| jwks.kids = vec!["listed".into()]).await;
    assert!(check(&verifier, &listed.token("ada", Some("listed"))).await.is_ok());
    assert_eq!(check(&verifier, &other.token("ada", Some("other"))).await, Err(Denied::Invalid));
}
