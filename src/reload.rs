//! Another configuration for the running service. Owns the order of a reload: read and check all of it, refuse what needs
//! a restart, prepare what can fail, and only then hand every part its share, which cannot fail. Must not know what the
//! parts do with it. Driven by `app`, which makes it, and by SIGHUP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::auth::{Authenticator, Credentials, SharedSecrets, Users};
use crate::config::{self, Change, Config, ConfigError, Host, Mode, Sources};
use crate::http::{Access, AccessLists, BadOrigin, Engine};
use crate::link::Link;
use crate::logging::{self, Log, LogError};
use crate::net;
use crate::shutdown::Shutdown;
use crate::supervisor;
use crate::turn::Keys;

/// Why the old configuration stays in use.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is no file.
    #[error("there is nothing to reload: the service was started without --config")]
    NoFile,
    /// The new one is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It changes what only a restart can.
    #[error("{} cannot change while the service runs: restart it, or put back the old value", .0.join(", "))]
    Restart(Vec<String>),
    /// An origin is none.
    #[error("http.origins: {0}")]
    Origin(#[from] BadOrigin),
    /// The filter of the log is none.
    #[error("log.level: {0}")]
    Log(#[from] LogError),
}

/// Loads the certificate again; what is wrong with it, if it cannot be used.
pub type ReloadCertificate = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The parts that take another configuration.
pub struct Parts {
    /// The relay.
    pub relay: Arc<net::Handle>,
    /// What mints credentials.
    pub link: Link,
    /// Who may open a session.
    pub authenticator: Arc<Authenticator>,
    /// From where.
    pub access: Arc<Access>,
    /// The call engine.
    pub engine: Arc<Engine>,
    /// The log.
    pub log: Log,
    /// The end of the process.
    pub shutdown: Shutdown,
    /// The certificate of the TLS listeners.
    pub certificate: ReloadCertificate,
    /// Counts what came of a reload: `applied` or `refused`.
    pub on_outcome: Box<dyn Fn(&'static str) + Send + Sync>,
    /// The service's own sockets, as bound: never a peer.
    pub bound: Vec<SocketAddr>,
}

/// Reloads the configuration.
pub struct Reload {
    sources: Sources,
    parts: Parts,
    current: Mutex<Config>,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").field("sources", &self.sources.file).finish_non_exhaustive()
    }
}

impl Reload {
    /// Remembers where the configuration in use came from.
    pub fn new(sources: Sources, current: Config, parts: Parts) -> Self {
        Self { sources, parts, current: Mutex::new(current) }
    }

    /// Reads the sources again and applies all that has changed, or nothing. Blocks for as long as the files take.
    ///
    /// # Errors
    /// [`ReloadError`]: nothing has changed.
    pub fn reload(&self) -> Result<Vec<Change>, ReloadError> {
        let outcome = self.try_reload();
        (self.parts.on_outcome)(if outcome.is_ok() { "applied" } else { "refused" });
        outcome
    }

    fn try_reload(&self) -> Result<Vec<Change>, ReloadError> {
        let current = &mut *self.current.lock();
        if current.mode == Mode::Development {
            return Err(ReloadError::NoFile);
        }
        let host = Host::read();
        let mut new = config::load(&self.sources, &host)?;
        let changes = current.changes(&new);
        let fixed: Vec<String> =
            changes.iter().filter(|change| change.needs_restart()).map(ToString::to_string).collect();
        if !fixed.is_empty() {
            return Err(ReloadError::Restart(fixed));
        }
        if new.turn.relay_addresses != current.turn.relay_addresses {
            tracing::warn!(
                "the addresses of this host have changed: only a restart relays from the new ones"
            );
            new.turn.relay_addresses.clone_from(&current.turn.relay_addresses);
        }
        if let Some(open_files) = host.open_files {
            let total = &mut new.turn.limits.allocations_total;
            *total = (*total).min(net::relay_sockets(open_files));
        }
        new.turn.peers.own_listeners.extend(&self.parts.bound);
        for notice in new.notices.iter().filter(|notice| !current.notices.contains(notice)) {
            tracing::warn!("{notice}");
        }
        self.apply(&new, &changes)?;
        *current = new;
        Ok(changes)
    }

    /// Hands every part its share, after the last thing that can fail, and says so in the log.
    fn apply(&self, new: &Config, changes: &[Change]) -> Result<(), ReloadError> {
        let Parts { relay, link, authenticator, access, engine, log, shutdown, .. } = &self.parts;
        let lists = AccessLists::parse(&new.http, new.auth.anonymous)?;
        let secrets = SharedSecrets::new(new.turn_secrets.clone());
        let users = Users::new(&new.turn.realm, &new.turn_users);
        let filter = logging::parse_filter(&new.logging.filter)?;

        // The relay first: nobody is given a credential that it does not know yet.
        let keys: Arc<dyn Keys> = Arc::new(Credentials::new(users, secrets.clone()));
        relay.reconfigure(new.turn.clone(), &keys);
        link.reconfigure(secrets, new.credential_ttl);
        access.replace(lists);
        authenticator.reconfigure(&new.auth);
        engine.reconfigure(new.signaling.clone());
        shutdown.reconfigure(new.shutdown);

        // Seen when either filter shows it, not only when both do.
        let is_seen = tracing::enabled!(tracing::Level::INFO);
        if is_seen {
            report(changes);
        }
        log.reconfigure(filter, new.logging.addresses);
        if !is_seen {
            report(changes);
        }
        Ok(())
    }

    /// Reloads, says in the log why not, and loads the certificate again.
    fn run(&self) {
        match self.reload() {
            Ok(_) => {}
            Err(ReloadError::Config(error)) => {
                for problem in &error.problems {
                    tracing::warn!("{problem}");
                }
                tracing::warn!("configuration not reloaded: the old one stays in use");
            }
            Err(error) => {
                tracing::warn!("{error}");
                tracing::warn!("configuration not reloaded: the old one stays in use");
            }
        }
        if let Err(error) = (self.parts.certificate)() {
            tracing::warn!("tls: {error}: the old certificate stays in use");
        }
    }
}

fn report(changes: &[Change]) {
    for Change { key, from, to } in changes {
        tracing::info!(key, from, to, "changed");
    }
    tracing::info!(changes = changes.len(), "configuration reloaded");
}

/// SIGHUP, heard from the moment it is made: from then on it does not end the process.
#[derive(Debug)]
pub struct Hangup(#[cfg(unix)] tokio::signal::unix::Signal);

impl Hangup {
    /// Installs the handler.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn hear() -> io::Result<Self> {
        #[cfg(unix)]
        return tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).map(Self);
        #[cfg(not(unix))]
        return Ok(Self());
    }

    /// Reloads at every signal.
    pub async fn drive(mut self, reload: Arc<Reload>) {
        while self.next().await {
            supervisor::reloading();
            let reload = Arc::clone(&reload);
            if let Err(error) = tokio::task::spawn_blocking(move || reload.run()).await {
                tracing::error!(%error, "the reload broke off");
            }
            supervisor::ready();
        }
    }

    async fn next(&mut self) -> bool {
        #[cfg(unix)]
        return self.0.recv().await.is_some();
        #[cfg(not(unix))]
        return std::future::pending().await;
    }
}
