//! Public keys of every kind, and the confusion they must not cause.

use futures_util::FutureExt as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::{NOW_S, Signer};
use crate::auth::token::Verifier;
use crate::auth::{Caller, Denied, Outbound, PinnedKey, TokenConfig};

fn verify(key: PinnedKey, token: &str) -> Result<Caller, Denied> {
    let config = TokenConfig { keys: vec![key], jwks: None, issuer: None, audience: None };
    let verifier = Verifier::new(&config, &Outbound::new());
    verifier.verify(token, NOW_S * 1000).now_or_never().unwrap()
}

#[test]
fn a_public_key_of_every_kind_verifies_its_own_tokens_and_no_others() {
    let signers = [
        Signer::new(&rcgen::PKCS_RSA_SHA256, Algorithm::RS256),
        Signer::p256(),
        Signer::new(&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::ES384),
        Signer::new(&rcgen::PKCS_ED25519, Algorithm::EdDSA),
    ];
    for (index, signer) in signers.iter().enumerate() {
        let key = PinnedKey::pem(&signer.public_pem(), None).unwrap();
        assert_eq!(key.algorithm, signer.algorithm);
        for (other, stranger) in signers.iter().enumerate() {
            let outcome = verify(key.clone(), &stranger.token("ada", None));
            assert_eq!(outcome.is_ok(), index == other, "{:?} and {:?}", key, stranger.algorithm);
        }
        assert!(verify(key, &Signer::p256().token("ada", None)).is_err());
    }
}

#[test]
fn an_rsa_key_is_good_for_the_one_algorithm_it_is_pinned_to() {
    let mut signer = Signer::new(&rcgen::PKCS_RSA_SHA256, Algorithm::RS256);
    let names = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    for pinned in names {
        let key = PinnedKey::pem(&signer.public_pem(), Some(pinned)).unwrap();
        for signed in names {
            signer.algorithm = signed.parse().unwrap();
            let outcome = verify(key.clone(), &signer.token("ada", None));
            assert_eq!(outcome.is_ok(), pinned == signed, "{pinned} {signed}");
        }
    }
}

#[test]
fn every_hmac_is_good_for_itself_only() {
    let secret = "s".repeat(64);
    let names = ["HS256", "HS384", "HS512"];
    for pinned in names {
        let key = PinnedKey::secret(&secret.as_str().into(), Some(pinned)).unwrap();
        for signed in names {
            let claims = json!({"sub": "ada", "exp": NOW_S + 100});
            let private = EncodingKey::from_secret(secret.as_bytes());
            let token =
                jsonwebtoken::encode(&Header::new(signed.parse().unwrap()), &claims, &private).unwrap();
            assert_eq!(verify(key.clone(), &token).is_ok(), pinned == signed, "{pinned} {signed}");
        }
    }
}

#[test]
fn a_public_key_used_as_a_shared_secret_signs_nothing() {
    let signer = Signer::new(&rcgen::PKCS_RSA_SHA256, Algorithm::RS256);
    let pem = signer.public_pem();
    let key = PinnedKey::pem(&pem, None).unwrap();
    let claims = json!({"sub": "admin", "exp": NOW_S + 100});
    for secret in [pem.as_bytes(), pem.trim().as_bytes(), signer.pair.public_key_raw()] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let private = EncodingKey::from_secret(secret);
            let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, &private).unwrap();
            assert_eq!(verify(key.clone(), &token), Err(Denied::Invalid));
        }
    }
}

#[test]
fn a_key_that_does_not_fit_its_algorithm_is_refused_at_start() {
    let p256 = Signer::p256().public_pem();
    for wrong in ["RS256", "ES384", "EdDSA", "HS256", "none", "es256", ""] {
        assert!(PinnedKey::pem(&p256, Some(wrong)).is_err(), "{wrong}");
    }
    let rsa = Signer::new(&rcgen::PKCS_RSA_SHA256, Algorithm::RS256).public_pem();
    assert!(PinnedKey::pem(&rsa, Some("ES256")).is_err());
    assert!(PinnedKey::secret(&"x".into(), Some("RS256")).is_err());
    for no_pem in ["", "x", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"] {
        assert!(PinnedKey::pem(no_pem, None).is_err(), "{no_pem:?}");
    }
    assert!(PinnedKey::pem(&Signer::p256().pair.serialize_pem(), None).is_err(), "a private key");
}
