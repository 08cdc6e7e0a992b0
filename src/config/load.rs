//! From the sources to a checked configuration.

use std::path::PathBuf;

use toml::Table;

use super::check::check;
use super::environment::{self, PREFIX};
use super::file::File;
use super::host::Host;
use super::origin::{ConfigError, Origins, Problem, readable};
use super::secret;
use super::{Config, Mode, Values};

/// What stands in for a file in development mode.
const DEVELOPMENT: &str = "[auth]\nanonymous = \"loopback\"\n";

/// Where values come from, the weakest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file; `None` is development mode.
    pub file: Option<PathBuf>,
    /// Variables, of which those that start with `PASSERELLE__` count.
    pub environment: Vec<(String, String)>,
    /// Flags.
    pub flags: Vec<Flag>,
}

/// A flag of the command line that sets a key.
#[derive(Debug, Clone)]
pub struct Flag {
    /// As written: `--http`.
    pub name: &'static str,
    /// The key it sets: `listen.http`.
    pub key: &'static str,
    /// Its value.
    pub value: String,
}

/// Loads and checks the configuration of this host.
///
/// # Errors
/// Everything that is wrong, each with its key, where it stands and the way out.
pub fn load(sources: &Sources, host: &Host) -> Result<Config, ConfigError> {
    let (text, mut origins, mode) = match &sources.file {
        None => (DEVELOPMENT.to_owned(), Origins::default(), Mode::Development),
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| Problem {
                origin: Some(name.clone()),
                key: None,
                message: format!("cannot read it: {error}"),
            })?;
            let origins = Origins::of_file(name, &text);
            (text, origins, Mode::File)
        }
    };
    let written: File = toml::from_str(&text).map_err(|error| origins.of_toml(&error))?;
    let secrets_inside = !written.turn.secrets.is_empty()
        || !written.auth.jwt.secret.is_empty()
        || !written.auth.webhook.secret.is_empty()
        || !written.auth.api_keys.is_empty()
        || !written.webhooks.secret.is_empty()
        || written.public.ice_servers.iter().any(|server| !server.credential.is_empty())
        || written.turn.users.iter().any(|user| !user.password.is_empty());
    let file = overlay(written, &text, &mut origins, sources)?;
    let values = Table::try_from(&file).map_err(|error| internal(&error))?;
    let mut config = check(file, &origins, mode, host)?;
    config.values = Values::of(&values);
    if let (true, Some(path)) = (secrets_inside, &sources.file)
        && let Some(mode) = secret::readable_by_everyone(path)
    {
        let path = path.display();
        config.notices.push(format!(
            "{path} holds secrets and is open to every user of this host (mode {mode:04o}): chmod 600 it"
        ));
    }
    Ok(config)
}

/// Puts variables and flags over what is written, one by one: an error is then the last one's.
fn overlay(written: File, text: &str, origins: &mut Origins, sources: &Sources) -> Result<File, ConfigError> {
    let variables = sources
        .environment
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .map(|(name, value)| (name.as_str(), environment::path(name).unwrap_or_default(), value));
    let flags = sources.flags.iter().map(|flag| (flag.name, flag.key.to_owned(), &flag.value));
    let defaults = Table::try_from(File::default()).map_err(|error| internal(&error))?;
    let mut table = defaults.clone();
    merge(&mut table, toml::from_str(text).map_err(|error| origins.of_toml(&error))?);
    let mut file = written;
    for (name, path, value) in variables.chain(flags) {
        origins.overlay(&path, name);
        environment::set(&mut table, &defaults, &path, value)
            .map_err(|message| origins.problem(&path, message))?;
        file = File::deserialize_table(&table)
            .map_err(|error| origins.problem(&path, readable(Some(&path), error.message())))?;
    }
    Ok(file)
}

/// A value cannot be written as TOML: a defect of `config::file`.
fn internal(error: &toml::ser::Error) -> Problem {
    Problem { origin: None, key: None, message: error.to_string() }
}

fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

impl File {
    fn deserialize_table(table: &Table) -> Result<Self, toml::de::Error> {
        table.clone().try_into()
    }
}
