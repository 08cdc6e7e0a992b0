//! Where a value comes from, so that an error can name the file and line, the variable or the flag.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The configuration cannot be used: everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

/// One thing that is wrong, and the way out: `passerelle.toml:12: relay.deny_peers[1]: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `file:line`, the name of a variable, a flag; `None` for a default.
    pub origin: Option<String>,
    /// Path of the key, `relay.deny_peers[1]`.
    pub key: Option<String>,
    /// What is wrong, and the way out.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.origin, &self.key].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// The origin of every key.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// Name of the file, as the operator wrote it.
    file: Option<String>,
    /// Keys of the file.
    entries: Vec<Entry>,
    /// Offset of the start of each line but the first.
    lines: Vec<usize>,
    /// Keys that a variable or a flag set, and its name.
    overlays: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Entry {
    path: String,
    key: Range<usize>,
    value: Range<usize>,
}

impl Origins {
    /// Remembers where the keys of `text` stand.
    pub(super) fn of_file(name: String, text: &str) -> Self {
        let mut entries = Vec::new();
        if let Ok(table) = DeTable::parse(text) {
            walk(table.get_ref(), "", &mut entries);
        }
        let lines = text.match_indices('\n').map(|(offset, _)| offset + 1).collect();
        Self { file: Some(name), entries, lines, overlays: BTreeMap::new() }
    }

    /// Remembers that `key` was set by `origin` (a variable or a flag).
    pub(super) fn overlay(&mut self, key: &str, origin: &str) {
        self.overlays.insert(key.to_owned(), origin.to_owned());
    }

    /// Makes a problem with the value of `key`.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        Problem { origin: self.of(key), key: Some(key.to_owned()), message: message.into() }
    }

    /// Makes a problem of an error of the TOML parser.
    pub(super) fn of_toml(&self, error: &toml::de::Error) -> Problem {
        let at = error.span().map(|span| span.start);
        let key = at.and_then(|at| self.key_at(at));
        let origin = match (&self.file, at) {
            (Some(file), Some(at)) => Some(format!("{file}:{}", self.line(at))),
            (file, _) => file.clone(),
        };
        let message = readable(key.as_deref(), error.message());
        Problem { origin, key, message }
    }

    fn of(&self, key: &str) -> Option<String> {
        if let Some(overlay) = ancestors(key).find_map(|path| self.overlays.get(path)) {
            return Some(overlay.clone());
        }
        for path in ancestors(key) {
            if let Some(entry) = self.entries.iter().find(|entry| entry.path == path) {
                let file = self.file.as_deref()?;
                // A table has its line from its header, everything else from its value.
                let table = self.entries.iter().any(|other| is_child(path, &other.path));
                let at = if table { entry.key.start } else { entry.value.start };
                return Some(format!("{file}:{}", self.line(at)));
            }
        }
        self.file.clone()
    }

    fn key_at(&self, at: usize) -> Option<String> {
        let covers = |entry: &&Entry| entry.key.contains(&at) || entry.value.contains(&at);
        self.entries.iter().filter(covers).max_by_key(|entry| entry.path.len()).map(|e| e.path.clone())
    }

    fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at) + 1
    }
}

fn walk(table: &DeTable<'_>, prefix: &str, entries: &mut Vec<Entry>) {
    for (key, value) in table {
        let name = key.get_ref();
        let name = if name.contains('.') { format!("{name:?}") } else { name.to_string() };
        let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        descend(value, path, key.span(), entries);
    }
}

fn descend(value: &Spanned<DeValue<'_>>, path: String, key: Range<usize>, entries: &mut Vec<Entry>) {
    match value.get_ref() {
        DeValue::Table(table) => walk(table, &path, entries),
        DeValue::Array(array) => {
            for (index, element) in array.iter().enumerate() {
                descend(element, format!("{path}[{index}]"), element.span(), entries);
            }
        }
        _ => {}
    }
    entries.push(Entry { path, key, value: value.span() });
}

fn is_child(parent: &str, path: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.'))
}

/// `a.b[1]`, `a.b`, `a`.
fn ancestors(key: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(key), |key| {
        key.rfind(['.', '[']).and_then(|end| key.get(..end)).filter(|parent| !parent.is_empty())
    })
}

/// Says it in the words of an operator, and without the value when that may be a secret.
pub(super) fn readable(key: Option<&str>, message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let known = rest.split_once("expected ").map_or("", |(_, known)| known).trim_start_matches("one of ");
        return format!("there is no such key: this section knows {}", known.replace('`', ""));
    }
    if key.is_some_and(|key| key.contains("secret") || key.contains("password")) {
        let expected = message.rsplit_once(", expected ").map_or("another value", |(_, expected)| expected);
        return format!("expected {expected}");
    }
    message.replace('`', "\"")
}
