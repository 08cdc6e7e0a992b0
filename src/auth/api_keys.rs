//! Keys of the operator's own servers for REST.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The keys that are accepted; kept as hashes.
#[derive(Debug, Clone, Default)]
pub(super) struct ApiKeys(Vec<[u8; 32]>);

impl ApiKeys {
    /// Takes the keys over.
    #[must_use]
    pub(super) fn new(keys: &[SecretString]) -> Self {
        Self(keys.iter().map(|key| Sha256::digest(key.expose_secret().as_bytes()).into()).collect())
    }

    /// Whether this is one of them. Takes the same time whichever it is.
    #[must_use]
    pub(super) fn admits(&self, key: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let found = self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&digest));
        found.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_key_is_admitted() {
        let keys = ApiKeys::new(&["first key of the operator".into(), "second key of the operator".into()]);
        assert!(keys.admits("first key of the operator") && keys.admits("second key of the operator"));
        for wrong in
            ["", "first key of the operato", "first key of the operator ", "FIRST KEY OF THE OPERATOR"]
        {
            assert!(!keys.admits(wrong) && !ApiKeys::default().admits(wrong), "{wrong}");
        }
        assert!(!format!("{keys:?}").contains("operator"));
    }
}
