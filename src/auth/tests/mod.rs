//! Ways to be let in that need keys of every kind, or a server of the operator.

mod jwks;
mod keys;
mod webhook;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::json;

/// Seconds since the Unix epoch of these tests.
const NOW_S: i64 = 1_800_000_000;

/// A private key of the operator's application.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    pair: KeyPair,
}

impl Signer {
    fn new(kind: &'static rcgen::SignatureAlgorithm, algorithm: Algorithm) -> Self {
        let pair = KeyPair::generate_for(kind).unwrap();
        let der = pair.serialize_der();
        let key = match algorithm.family() {
            jsonwebtoken::AlgorithmFamily::Ec => EncodingKey::from_ec_der(&der),
            jsonwebtoken::AlgorithmFamily::Ed => EncodingKey::from_ed_der(&der),
            _ => EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap(),
        };
        Self { algorithm, key, pair }
    }

    fn p256() -> Self {
        Self::new(&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256)
    }

    fn public_pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// A token of a user.
    fn token(&self, user: &str, kid: Option<&str>) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = kid.map(Into::into);
        let claims = json!({"sub": user, "exp": NOW_S + 100});
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }

    /// Its public half as a member of a JWK Set.
    fn jwk(&self, kid: &str) -> serde_json::Value {
        if self.algorithm == Algorithm::EdDSA {
            let x = URL_SAFE_NO_PAD.encode(self.pair.public_key_raw());
            return json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x});
        }
        let mut jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(kid.into());
        serde_json::to_value(jwk).unwrap()
    }
}

/// Serves a router on a free port; its address.
async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}
