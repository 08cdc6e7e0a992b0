//! Keys of token signatures. Each is pinned to one algorithm (RFC 8725 section 3.1): what a token says about itself
//! chooses among keys and never how a key is used.

use std::str::FromStr;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Bytes of an uncompressed point on P-256 and on P-384.
const P256_POINT: usize = 65;
const P384_POINT: usize = 97;

/// A key that is no use for tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No algorithm of this name.
    #[error(
        "{0:?} is no algorithm: use HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA"
    )]
    Algorithm(String),
    /// The key is of another kind than the algorithm.
    #[error("the key does not fit the algorithm {0}")]
    Mismatch(String),
    /// No PEM with a public key.
    #[error("holds no RSA, P-256, P-384 or Ed25519 public key in PEM")]
    Pem,
    /// A key of a set that is of no use here.
    #[error("an unusable key")]
    Unusable,
}

/// A key and the one algorithm it is good for.
#[derive(Clone)]
pub struct PinnedKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// Hash of what it was made of.
    digest: [u8; 32],
}

impl PartialEq for PinnedKey {
    fn eq(&self, other: &Self) -> bool {
        (self.algorithm, self.digest) == (other.algorithm, other.digest)
    }
}

impl std::fmt::Debug for PinnedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PinnedKey({:?})", self.algorithm)
    }
}

impl PinnedKey {
    /// A shared secret; HS256 unless another HMAC is named.
    ///
    /// # Errors
    /// The algorithm is none, or no HMAC.
    pub fn secret(secret: &SecretString, algorithm: Option<&str>) -> Result<Self, KeyError> {
        let secret = secret.expose_secret().as_bytes();
        let key = DecodingKey::from_secret(secret);
        Self::pin(key, secret, algorithm.map(named).transpose()?.unwrap_or(Algorithm::HS256))
    }

    /// A public key in PEM. Without an algorithm: RS256 for RSA, ES256 or ES384 by the curve, EdDSA for Ed25519.
    ///
    /// # Errors
    /// It is no public key, or of another kind than the algorithm.
    pub fn pem(pem: &str, algorithm: Option<&str>) -> Result<Self, KeyError> {
        let pem = pem.as_bytes();
        let key = DecodingKey::from_ed_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_rsa_pem(pem))
            .map_err(|_| KeyError::Pem)?;
        let natural = natural(&key).ok_or(KeyError::Pem)?;
        match algorithm.map(named).transpose()? {
            Some(wanted) if key.family() == AlgorithmFamily::Rsa => Self::pin(key, pem, wanted),
            Some(wanted) if wanted != natural => Err(KeyError::Mismatch(format!("{wanted:?}"))),
            _ => Self::pin(key, pem, natural),
        }
    }

    /// A key of a set (RFC 7517). Secrets have no place in a set that travels, nor have keys for encryption.
    ///
    /// # Errors
    /// [`KeyError::Unusable`].
    pub fn jwk(jwk: &Jwk) -> Result<Self, KeyError> {
        let signs = jwk.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        let natural = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => {
                Algorithm::ES384
            }
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDSA
            }
            _ => return Err(KeyError::Unusable),
        };
        let algorithm = match jwk.common.key_algorithm {
            Some(said) => Algorithm::from_str(&said.to_string()).map_err(|_| KeyError::Unusable)?,
            None => natural,
        };
        let fits = match natural {
            Algorithm::RS256 => algorithm.family() == AlgorithmFamily::Rsa,
            natural => algorithm == natural,
        };
        if !signs || !fits {
            return Err(KeyError::Unusable);
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|_| KeyError::Unusable)?;
        let source = serde_json::to_vec(jwk).map_err(|_| KeyError::Unusable)?;
        Self::pin(key, &source, algorithm)
    }

    fn pin(key: DecodingKey, source: &[u8], algorithm: Algorithm) -> Result<Self, KeyError> {
        if key.family() == algorithm.family() {
            Ok(Self { algorithm, key, digest: Sha256::digest(source).into() })
        } else {
            Err(KeyError::Mismatch(format!("{algorithm:?}")))
        }
    }
}

fn named(name: &str) -> Result<Algorithm, KeyError> {
    Algorithm::from_str(name).map_err(|_| KeyError::Algorithm(name.to_owned()))
}

/// What a public key is for when nobody says.
fn natural(key: &DecodingKey) -> Option<Algorithm> {
    match key.family() {
        AlgorithmFamily::Rsa => Some(Algorithm::RS256),
        AlgorithmFamily::Ed => Some(Algorithm::EdDSA),
        AlgorithmFamily::Ec => match key.try_get_as_bytes().ok()?.len() {
            P256_POINT => Some(Algorithm::ES256),
            P384_POINT => Some(Algorithm::ES384),
            _ => None,
        },
        AlgorithmFamily::Hmac => None,
    }
}
