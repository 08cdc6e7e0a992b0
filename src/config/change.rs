//! What differs between two configurations, by key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use toml::{Table, Value};

use super::Config;

/// Keys, and sections as a whole, that a running server cannot change: they are sockets, threads and files that are
/// open, or what clients were told already.
const RESTART: &[&str] = &[
    "limits.connections_per_ip",
    "limits.first_byte_timeout",
    "limits.stream_queue",
    "limits.unauthenticated_timeout",
    "listen",
    "log.format",
    "public",
    "relay.addresses",
    "relay.ports",
    "relay.receive_buffer",
    "relay.workers",
    "signaling.limits.frame_bytes",
    "signaling.limits.json_depth",
    "store",
    "tls",
    "turn.realm",
    "webhooks",
];

/// Every key and its value as text. Secrets are masked, so that they can only be told apart by the parts that use them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<String, String>);

impl Values {
    pub(super) fn of(table: &Table) -> Self {
        let mut values = BTreeMap::new();
        flatten("", table, &mut values);
        Self(values)
    }

    fn is_set(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|value| !matches!(value.as_str(), "\"\"" | "[]"))
    }
}

fn flatten(prefix: &str, table: &Table, values: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => flatten(&key, inner, values),
            value => {
                values.insert(key, value.to_string());
            }
        }
    }
}

/// A key whose value is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Path of the key, `relay.deny_peers`.
    pub key: String,
    /// Its value before, as the log may show it.
    pub from: String,
    /// Its value now, as the log may show it.
    pub to: String,
}

impl Change {
    /// Whether only a restart can apply it.
    pub fn needs_restart(&self) -> bool {
        RESTART.iter().any(|fixed| {
            self.key.strip_prefix(fixed).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

impl Config {
    /// What differs in `new`, in the order of the keys. The content of a secret's file counts, not only its name.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let (before, after) = (&self.values.0, &new.values.0);
        let mut keys: BTreeSet<&str> = before
            .keys()
            .chain(after.keys())
            .filter(|key| before.get(*key) != after.get(*key))
            .map(String::as_str)
            .collect();
        let source = |inline: &'static str, file: &'static str| {
            if new.values.is_set(file) { file } else { inline }
        };
        if !same(&self.turn_secrets, &new.turn_secrets) {
            keys.insert(source("turn.secrets", "turn.secrets_file"));
        }
        if !same(self.turn_users.iter().map(|user| &user.1), new.turn_users.iter().map(|user| &user.1)) {
            keys.insert("turn.users");
        }
        let token = |config: &Self| config.auth.token.as_ref().map(|token| token.keys.clone());
        if token(self) != token(new) {
            let public = new.values.is_set("auth.jwt.public_key_file");
            let secret = source("auth.jwt.secret", "auth.jwt.secret_file");
            keys.insert(if public { "auth.jwt.public_key_file" } else { secret });
        }
        if !same(&self.auth.api_keys, &new.auth.api_keys) {
            keys.insert(source("auth.api_keys", "auth.api_keys_file"));
        }
        let webhook = |config: &Self| config.auth.webhook.as_ref().and_then(|webhook| webhook.secret.clone());
        if !same(&webhook(self), &webhook(new)) {
            keys.insert(source("auth.webhook.secret", "auth.webhook.secret_file"));
        }
        let change = |key: &str| Change {
            key: key.to_owned(),
            from: shown(key, before.get(key)),
            to: shown(key, after.get(key)),
        };
        keys.into_iter().map(change).collect()
    }
}

fn same<'a>(
    one: impl IntoIterator<Item = &'a SecretString>,
    other: impl IntoIterator<Item = &'a SecretString>,
) -> bool {
    one.into_iter().map(SecretString::expose_secret).eq(other.into_iter().map(SecretString::expose_secret))
}

/// A value as the log may show it: nothing of secrets, of the names of users, of URLs that may hold a password.
fn shown(key: &str, value: Option<&String>) -> String {
    let hidden = ["secret", "password", "users", "url", "api_keys"].iter().any(|part| key.contains(part));
    match value {
        Some(_) if hidden => "(not shown)".into(),
        Some(value) => value.clone(),
        None => "(unset)".into(),
    }
}
