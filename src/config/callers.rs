//! `[auth]`: who may open a session.

use secrecy::SecretString;

use super::check::Check;
use super::file;
use super::secret::Secret;
use crate::auth::{self, JwksConfig, PinnedKey, TokenConfig, WebhookConfig, is_url};

impl Check<'_> {
    pub(super) fn auth(&mut self, written: &file::Auth) -> auth::Config {
        auth::Config {
            anonymous: written.anonymous,
            token: self.token(&written.jwt),
            webhook: self.webhook("auth.webhook", &written.webhook.url, |check| {
                let webhook = &written.webhook;
                check.secret_or_file("auth.webhook.secret", &webhook.secret, &webhook.secret_file)
            }),
            api_keys: self.api_keys(written),
        }
    }

    fn token(&mut self, jwt: &file::Jwt) -> Option<TokenConfig> {
        let keys: Vec<PinnedKey> = self.shared_key(jwt).into_iter().chain(self.public_key(jwt)).collect();
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let jwks = some(&jwt.jwks_url).map(|url| {
            if !is_url(&url) {
                self.fail("auth.jwt.jwks_url", format!("{url:?} is no URL: write https://host/path"));
            }
            JwksConfig { kids: jwt.jwks_kids.clone(), ..JwksConfig::new(url) }
        });
        if jwks.is_none() && !jwt.jwks_kids.is_empty() {
            self.fail("auth.jwt.jwks_kids", "does nothing without auth.jwt.jwks_url");
        }
        let written = [&jwt.secret_file, &jwt.public_key_file, &jwt.jwks_url];
        if jwt.secret.is_empty() && written.iter().all(|key| key.is_empty()) {
            for (key, used) in
                [("issuer", &jwt.issuer), ("audience", &jwt.audience), ("algorithm", &jwt.algorithm)]
            {
                if !used.is_empty() {
                    self.fail(
                        &format!("auth.jwt.{key}"),
                        "does nothing without a key: set auth.jwt.secret_file, public_key_file or jwks_url",
                    );
                }
            }
            return None;
        }
        Some(TokenConfig { keys, jwks, issuer: some(&jwt.issuer), audience: some(&jwt.audience) })
    }

    fn shared_key(&mut self, jwt: &file::Jwt) -> Option<PinnedKey> {
        let secret = self.secret_or_file("auth.jwt.secret", &jwt.secret, &jwt.secret_file)?;
        if !jwt.public_key_file.is_empty() {
            self.fail("auth.jwt.public_key_file", "auth.jwt.secret is set too: remove one");
            return None;
        }
        let algorithm = (!jwt.algorithm.is_empty()).then_some(jwt.algorithm.as_str());
        PinnedKey::secret(&secret, algorithm)
            .map_err(|error| self.fail("auth.jwt.algorithm", error.to_string()))
            .ok()
    }

    fn public_key(&mut self, jwt: &file::Jwt) -> Option<PinnedKey> {
        let path = &jwt.public_key_file;
        if path.is_empty() {
            return None;
        }
        let read = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path:?}: {error}"));
        let algorithm = (!jwt.algorithm.is_empty()).then_some(jwt.algorithm.as_str());
        let key = read
            .and_then(|pem| PinnedKey::pem(&pem, algorithm).map_err(|error| format!("{path:?}: {error}")));
        key.map_err(|message| self.fail("auth.jwt.public_key_file", message)).ok()
    }

    /// `[webhooks]`.
    pub(super) fn webhooks(&mut self, written: &file::Webhooks) -> Option<WebhookConfig> {
        self.webhook("webhooks", &written.url, |check| {
            check.secret_or_file("webhooks.secret", &written.secret, &written.secret_file)
        })
    }

    fn webhook(
        &mut self,
        section: &str,
        url: &str,
        secret: impl FnOnce(&mut Self) -> Option<SecretString>,
    ) -> Option<WebhookConfig> {
        let secret = secret(self);
        if url.is_empty() {
            if secret.is_some() {
                self.fail(&format!("{section}.secret"), format!("does nothing without {section}.url"));
            }
            return None;
        }
        if !is_url(url) {
            self.fail(&format!("{section}.url"), format!("{url:?} is no URL: write https://host/path"));
        }
        Some(WebhookConfig { url: url.to_owned(), secret })
    }

    fn api_keys(&mut self, written: &file::Auth) -> Vec<SecretString> {
        let mut keys = Vec::new();
        for (index, key) in written.api_keys.iter().enumerate() {
            keys.extend(self.strong(&format!("auth.api_keys[{index}]"), key.clone()));
        }
        if !written.api_keys_file.is_empty() {
            for key in self.secrets_of("auth.api_keys_file", &written.api_keys_file) {
                keys.extend(self.strong("auth.api_keys_file", key));
            }
        }
        keys
    }

    /// A secret that may be written in either of two keys.
    pub(super) fn secret_or_file(&mut self, key: &str, secret: &Secret, file: &str) -> Option<SecretString> {
        let file_key = format!("{key}_file");
        match (secret.is_empty(), file.is_empty()) {
            (true, true) => None,
            (false, false) => {
                self.fail(&file_key, format!("{key} is set too: remove one"));
                None
            }
            (false, true) => self.strong(key, secret.clone()),
            (true, false) => self.only_secret(&file_key, file),
        }
    }
}
