//! Values from variables and flags: text that becomes the kind of value its key has.

use toml::{Table, Value};

/// Prefix of every variable.
pub(super) const PREFIX: &str = "PASSERELLE__";

/// The path of the key that a variable sets: `PASSERELLE__AUTH__JWT__SECRET` is `auth.jwt.secret`.
pub(super) fn path(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix(PREFIX)?;
    Some(rest.split("__").map(str::to_ascii_lowercase).collect::<Vec<_>>().join("."))
}

/// Sets the key at `path` of `table` to what `text` says. `defaults` holds every key there is.
///
/// # Errors
/// There is no such key, or the text is not of its kind: what is wrong, and the way out.
pub(super) fn set(table: &mut Table, defaults: &Table, path: &str, text: &str) -> Result<(), String> {
    let (section, key) = path.rsplit_once('.').ok_or_else(|| {
        format!("there is no such key: write {PREFIX}SECTION__KEY, like {PREFIX}LISTEN__HTTP")
    })?;
    let known = find(defaults, section)
        .ok_or_else(|| format!("there is no section {section}: there are {}", names(defaults)))?;
    let kind = match known.get(key) {
        Some(Value::Table(inner)) if !inner.is_empty() => {
            return Err(format!("{path} is a section: it knows {}", names(inner)));
        }
        Some(kind) => kind,
        None => return Err(format!("there is no such key: this section knows {}", names(known))),
    };
    let value = parse(kind, text).map_err(|expected| format!("expected {expected}"))?;
    let mut table = table;
    for part in section.split('.') {
        let inner = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = inner else { return Err(format!("{section} is no section")) };
        table = inner;
    }
    table.insert(key.to_owned(), value);
    Ok(())
}

fn find<'a>(table: &'a Table, section: &str) -> Option<&'a Table> {
    section.split('.').try_fold(table, |table, part| table.get(part)?.as_table())
}

fn names(table: &Table) -> String {
    table.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Reads `text` as a value of the kind of `default`.
fn parse(default: &Value, text: &str) -> Result<Value, &'static str> {
    let literal = |text: &str| text.trim().parse::<Value>();
    match default {
        Value::String(_) => Ok(Value::String(text.to_owned())),
        Value::Array(_) if text.trim_start().starts_with('[') => {
            literal(text).map_err(|_| "a list like [\"one\", \"two\"]")
        }
        Value::Array(defaults) => {
            let numbers = matches!(defaults.first(), Some(Value::Integer(_)));
            let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
            elements
                .map(|element| match numbers {
                    true => element.parse().map(Value::Integer).map_err(|_| "numbers separated by commas"),
                    false => Ok(Value::String(element.to_owned())),
                })
                .collect::<Result<_, _>>()
                .map(Value::Array)
        }
        Value::Integer(_) => text.trim().parse().map(Value::Integer).map_err(|_| "a whole number"),
        Value::Boolean(_) => text.trim().parse().map(Value::Boolean).map_err(|_| "true or false"),
        Value::Table(_) => literal(text).map_err(|_| "a table like { \"one\" = \"two\" }"),
        Value::Float(_) | Value::Datetime(_) => literal(text).map_err(|_| "another kind of value"),
    }
}
