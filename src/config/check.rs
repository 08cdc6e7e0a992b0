//! From what is written to what the parts need. Every problem is collected, so that one run names them all.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};

use super::file::{self, File};
use super::host::Host;
use super::origin::{ConfigError, Origins, Problem};
use super::secret::{self, MIN_BYTES, Secret};
use super::{Config, Mode, Values};
use crate::store::Retention;
use crate::{auth, http, logging, shutdown, signaling, store, turn};

/// The state of a check.
pub(super) struct Check<'a> {
    pub(super) mode: Mode,
    pub(super) host: &'a Host,
    pub(super) notices: Vec<String>,
    origins: &'a Origins,
    problems: Vec<Problem>,
}

/// Checks everything.
///
/// # Errors
/// All that is wrong.
pub(super) fn check(file: File, origins: &Origins, mode: Mode, host: &Host) -> Result<Config, ConfigError> {
    let mut check = Check { mode, host, origins, problems: Vec::new(), notices: Vec::new() };
    if mode == Mode::Development {
        check.notices.push(
            "development mode, because no --config was given: callers from this host need no token, secrets live as \
             long as this process"
                .into(),
        );
    }
    let net = check.net(&file);
    let http = check.http(&file);
    check.anonymous(&file, &http);
    let auth = check.auth(&file.auth);
    let callers = file.auth.anonymous != auth::Mode::Off || auth.token.is_some() || auth.webhook.is_some();
    let turn_users = check.users(&file.turn.users);
    let turn_secrets = check.turn_secrets(&file, callers, net.relays(), !turn_users.is_empty());
    let external_ips = check.external_ips(&file.public);
    let turn = check.turn(&file, &net, &http, &external_ips);
    let ice_servers = check.ice_servers(&file.public.ice_servers);
    let public_hosts = check.public_hosts(&file.public, &turn);
    check.signaling(&file.signaling);
    if file.turn.credential_ttl < Duration::from_secs(10) {
        check.fail("turn.credential_ttl", "must be 10s or longer: a call takes its time to begin");
    }
    let store = store::Config::parse(&file.store.url)
        .map_err(|message| check.fail("store.url", message))
        .unwrap_or(store::Config::Memory);
    let days = |days: u16| Duration::from_secs(u64::from(days) * 24 * 3600);
    let retention =
        Retention { calls: days(file.store.retention_days), events: days(file.store.events_days) };
    if retention.calls.is_zero() {
        check.fail("store.retention_days", "must be 1 or more: calls that run are records too");
    }
    let webhooks = check.webhooks(&file.webhooks);
    if file.webhooks.max_waiting == 0 {
        check.fail("webhooks.max_waiting", "must be 1 or more: every event waits for a moment");
    }
    if let Err(error) = logging::parse_filter(&file.log.level) {
        check.fail("log.level", error.to_string());
    }
    let Check { problems, notices, .. } = check;
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    Ok(Config {
        mode,
        net,
        turn,
        turn_secrets,
        turn_users,
        credential_ttl: file.turn.credential_ttl,
        public_hosts,
        ice_servers,
        external_ips,
        http,
        signaling: file.signaling,
        auth,
        store,
        retention,
        peer_networks: file.store.peer_networks,
        webhooks,
        webhook_events: file.webhooks.max_waiting,
        logging: logging::Config {
            format: file.log.format,
            filter: file.log.level,
            addresses: file.log.addresses,
        },
        shutdown: shutdown::Config { timeout: file.drain.timeout },
        values: Values::default(),
        notices,
    })
}

impl Check<'_> {
    pub(super) fn fail(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(self.origins.problem(key, message));
    }

    pub(super) fn networks(&mut self, key: &str, written: &[String]) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (index, text) in written.iter().enumerate() {
            match network(text) {
                Ok(network) => networks.push(network),
                Err(message) => self.fail(&format!("{key}[{index}]"), message),
            }
        }
        networks
    }

    fn ice_servers(&mut self, written: &[file::IceServer]) -> Vec<signaling::IceServer> {
        let mut servers = Vec::new();
        for (index, server) in written.iter().enumerate() {
            let key = format!("public.ice_servers[{index}]");
            let known =
                |url: &String| ["stun:", "turn:", "turns:"].iter().any(|scheme| url.starts_with(scheme));
            if server.urls.is_empty() || !server.urls.iter().all(known) {
                self.fail(
                    &key,
                    "needs urls like stun:stun.example.org or turn:turn.example.org?transport=udp",
                );
            }
            if server.username.is_empty() != server.credential.is_empty() {
                self.fail(&key, "needs both username and credential, or neither");
            }
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            servers.push(signaling::IceServer {
                urls: server.urls.clone(),
                username: text(&server.username),
                credential: text(server.credential.clone().into_inner().expose_secret()),
            });
        }
        servers
    }

    fn http(&mut self, file: &File) -> http::Config {
        for (index, origin) in file.http.origins.iter().enumerate() {
            if origin != "*" && !is_origin(origin) {
                self.fail(
                    &format!("http.origins[{index}]"),
                    format!(
                        "{origin:?} is no origin: write it like https://call.example.org, without a path"
                    ),
                );
            }
        }
        let metrics = self.sockets("listen.metrics", &file.listen.metrics);
        if let Some(open) = metrics.iter().find(|socket| !socket.ip().is_loopback()) {
            self.notices.push(format!("whoever reaches {open} may read the metrics"));
        }
        http::Config {
            http: self.sockets("listen.http", &file.listen.http),
            metrics,
            origins: file.http.origins.clone(),
            trusted_proxies: self.networks("http.trusted_proxies", &file.http.trusted_proxies),
            limits: http::Limits {
                frame: file.signaling.limits.frame_bytes,
                json_depth: file.signaling.limits.json_depth,
                ..http::Limits::default()
            },
        }
    }

    fn anonymous(&mut self, file: &File, http: &http::Config) {
        match file.auth.anonymous {
            auth::Mode::Any if !file.auth.anonymous_in_public => {
                if let Some(public) = http.http.iter().find(|socket| is_public(socket.ip())) {
                    self.fail(
                        "auth.anonymous",
                        format!(
                            "\"any\" lets everyone who reaches {public} call and use the relay: give out tokens \
                             (auth.jwt), listen on a private address, or say auth.anonymous_in_public = true"
                        ),
                    );
                }
            }
            auth::Mode::Loopback => {
                let only_loopback = http.http.iter().all(|socket| socket.ip().is_loopback());
                self.loopback(file, http, only_loopback);
            }
            auth::Mode::Any | auth::Mode::Off => {}
        }
    }

    /// What makes strangers look like callers on this host: a proxy whose X-Forwarded-For is not believed, one that
    /// anybody may play, and pages of others in a browser on this host.
    fn loopback(&mut self, file: &File, http: &http::Config, only_loopback: bool) {
        if let Some(index) = http.origins.iter().position(|origin| origin == "*") {
            self.fail(
                &format!("http.origins[{index}]"),
                "lets every page that is open in a browser on this host call without a token: name the origins, or set \
                 auth.anonymous = \"off\"",
            );
        }
        if let Some(index) = http.trusted_proxies.iter().position(|network| network.prefix_len() == 0) {
            self.fail(
                &format!("http.trusted_proxies[{index}]"),
                "trusts everyone to name the address of a caller, also 127.0.0.1, which auth.anonymous = \"loopback\" \
                 lets in: name the proxy's own address, or set auth.anonymous = \"off\"",
            );
        }
        if only_loopback && !file.public.hosts.is_empty() && http.trusted_proxies.is_empty() {
            self.fail(
                "auth.anonymous",
                "\"loopback\" would let in everyone who comes through the proxy that makes public.hosts reachable: \
                 name the proxy in http.trusted_proxies, or set auth.anonymous = \"off\"",
            );
        }
    }

    fn turn_secrets(&mut self, file: &File, callers: bool, relays: bool, users: bool) -> Vec<SecretString> {
        let mut secrets = Vec::new();
        for (index, secret) in file.turn.secrets.iter().enumerate() {
            secrets.extend(self.strong(&format!("turn.secrets[{index}]"), secret.clone()));
        }
        if !file.turn.secrets_file.is_empty() {
            for secret in self.secrets_of("turn.secrets_file", &file.turn.secrets_file) {
                secrets.extend(self.strong("turn.secrets_file", secret));
            }
        }
        let written = !file.turn.secrets.is_empty() || !file.turn.secrets_file.is_empty();
        if written || !relays {
            return secrets;
        }
        if self.mode == Mode::Development {
            secrets.push(secret::generate());
        } else if callers || !users {
            self.fail(
                "turn.secrets",
                "nobody could use the relay: set turn.secrets_file to a file with one secret a line, like \
                 `openssl rand -hex 32` makes, or empty listen.udp, listen.tcp and listen.tls to turn the relay off",
            );
        }
        secrets
    }

    fn users(&mut self, users: &[file::User]) -> Vec<(String, SecretString)> {
        let mut found: Vec<(String, SecretString)> = Vec::new();
        for (index, user) in users.iter().enumerate() {
            let key = format!("turn.users[{index}]");
            if user.name.is_empty() || user.name.len() > 508 || user.name.contains(':') {
                self.fail(&key, "name has 1 to 508 bytes without a colon (those are TURN REST credentials)");
            } else if found.iter().any(|(name, _)| *name == user.name) {
                self.fail(&key, format!("the user {:?} is there twice: remove one", user.name));
            }
            let password = match (user.password.is_empty(), user.password_file.is_empty()) {
                (false, true) => Some(user.password.clone().into_inner()),
                (true, false) => {
                    let read = self.secrets_of(&key, &user.password_file);
                    read.into_iter().next().map(Secret::into_inner)
                }
                _ => {
                    self.fail(&key, "needs either password or password_file");
                    None
                }
            };
            found.extend(password.map(|password| (user.name.clone(), password)));
        }
        found
    }

    fn signaling(&mut self, signaling: &signaling::Config) {
        let ring = signaling.ring_timeout_min..=signaling.ring_timeout_max;
        if !ring.contains(&signaling.ring_timeout) {
            self.fail("signaling.ring_timeout", "must be between ring_timeout_min and ring_timeout_max");
        }
        if signaling.reconnecting_after > signaling.grace {
            self.fail("signaling.reconnecting_after", "must not be longer than grace");
        }
        let limits = &signaling.limits;
        if !(2..=8).contains(&limits.participants) {
            self.fail("signaling.limits.participants", "must be 2 to 8: each one sends to every other");
        }
        if limits.sdp_bytes.max(limits.metadata_bytes) > limits.frame_bytes {
            self.fail("signaling.limits.frame_bytes", "must not be less than sdp_bytes and metadata_bytes");
        }
        let rates = &signaling.rates;
        for (name, rate) in [
            ("frames", rates.frames),
            ("signals", rates.signals),
            ("candidates", rates.candidates),
            ("initiate", rates.initiate),
            ("join", rates.join),
            ("leave", rates.leave),
            ("toggle", rates.toggle),
        ] {
            if rate.count > 0 && (rate.per.is_zero() || rate.burst == 0) {
                self.fail(
                    &format!("signaling.rates.{name}"),
                    "would refuse everything: per and burst must not be 0 (count = 0 turns the limit off)",
                );
            }
        }
    }

    pub(super) fn secrets_of(&mut self, key: &str, path: &str) -> Vec<Secret> {
        secret::read(path).map_err(|message| self.fail(key, message)).unwrap_or_default()
    }

    pub(super) fn only_secret(&mut self, key: &str, path: &str) -> Option<SecretString> {
        let mut secrets = self.secrets_of(key, path);
        if secrets.len() > 1 {
            self.fail(key, format!("{path:?} holds several secrets: leave one"));
        }
        let secret = secrets.pop()?;
        self.strong(key, secret)
    }

    pub(super) fn strong(&mut self, key: &str, secret: Secret) -> Option<SecretString> {
        if secret.len() < MIN_BYTES {
            self.fail(
                key,
                format!(
                    "has {} bytes and could be guessed: use at least {MIN_BYTES}, like `openssl rand -hex 32` makes",
                    secret.len()
                ),
            );
            return None;
        }
        Some(secret.into_inner())
    }
}

/// Whether the internet at large may reach a listener: all addresses at once, or one that is no special-purpose one.
fn is_public(ip: IpAddr) -> bool {
    let policy = turn::PeerPolicy::new(&turn::PeerRules::default());
    ip.is_unspecified() || policy.check(ip, None, |_| false).is_ok()
}

/// A network; the way out where it is none.
fn network(text: &str) -> Result<IpNet, String> {
    let like = |network: IpNet| format!("{text:?} has bits behind its prefix: write it like {network}");
    if let Ok(network) = text.parse::<IpNet>() {
        return if network == network.trunc() { Ok(network) } else { Err(like(network.trunc())) };
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(format!("{text:?} is an address, no network: write it like {}", IpNet::from(ip)));
    }
    let example = if text.contains(':') { "2001:db8::/32" } else { "10.0.0.0/8" };
    Err(format!("{text:?} is no network: write it like {example}"))
}

/// `scheme://host[:port]` as browsers send it.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    matches!(scheme, "http" | "https")
        && !host.is_empty()
        && host.chars().all(|c| c.is_ascii_graphic() && !c.is_ascii_uppercase() && !"/?#@\\*".contains(c))
}
