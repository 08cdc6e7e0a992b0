//! Secrets: never printed, never serialised, and read only from files that nobody else can read.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Fewest bytes of a secret that others could otherwise guess.
pub(super) const MIN_BYTES: usize = 32;

/// A secret as written in the file: empty when unset.
#[derive(Clone, Default)]
pub struct Secret(SecretString);

impl Secret {
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.expose_secret().len()
    }

    /// The secret itself.
    pub fn into_inner(self) -> SecretString {
        self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(SecretString::from(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Secret(unset)" } else { "Secret(***)" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { "***" })
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }

    fn inline_schema() -> bool {
        true
    }
}

/// Reads the secrets of a file: one a line, empty lines and lines that start with `#` left out.
///
/// # Errors
/// A sentence that says what is wrong and the way out.
pub(super) fn read(path: &str) -> Result<Vec<Secret>, String> {
    let cannot = |error| format!("cannot read {path:?}: {error}");
    let file = fs::metadata(path).map_err(cannot)?;
    if let Some(mode) = open_to_everyone(&file) {
        return Err(format!("{path:?} is open to every user of this host (mode {mode:04o}): chmod 600 it"));
    }
    let text = SecretString::from(fs::read_to_string(path).map_err(cannot)?);
    let secrets: Vec<Secret> = text
        .expose_secret()
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| Secret::from(line.to_owned()))
        .collect();
    if secrets.is_empty() {
        return Err(format!("{path:?} holds no secret: write one a line, like `openssl rand -hex 32` makes"));
    }
    Ok(secrets)
}

/// Whether every user of this host can read the file at `path`; its mode when so.
pub(super) fn readable_by_everyone(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().as_ref().and_then(open_to_everyone)
}

#[cfg(unix)]
fn open_to_everyone(file: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = file.permissions().mode() & 0o7777;
    (mode & 0o007 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn open_to_everyone(_file: &fs::Metadata) -> Option<u32> {
    None
}

/// A fresh secret of 256 bits, as hexadecimal text.
pub(super) fn generate() -> SecretString {
    let bytes: [u8; 32] = rand::random();
    SecretString::from(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}
