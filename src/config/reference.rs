//! `config/passerelle.toml`: every key with its default and its comment, made from [`File`].

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::file::File;

const HEAD: &str = "\
# Every key of passerelle, with its default. Generated from the code: `REWRITE=1 cargo test --test config`.
#
# A variable PASSERELLE__SECTION__KEY wins over this file, a flag over both. A relative path starts at the working
# directory. An unknown key is an error.
";

/// Renders the file.
///
/// # Errors
/// A default cannot be written as TOML: a defect of `config::file`, found by its test.
pub fn reference() -> Result<String, toml::ser::Error> {
    let schema = SchemaSettings::default()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<File>()
        .to_value();
    let written = toml::to_string(&File::default())?;
    let mut text = HEAD.to_owned();
    let mut section = String::new();
    let mut lines = written.lines().filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        if let Some(path) = header(line) {
            let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
            let inline = is_map(&schema, path) || parent.contains('.');
            let opens = if inline { parent } else { path };
            if opens != section {
                opens.clone_into(&mut section);
                text.push('\n');
                entry(&mut text, describe(&schema, opens), &format!("[{opens}]"));
            }
            if inline {
                let mut inner = Vec::new();
                while let Some(pair) = lines.next_if(|line| header(line).is_none()) {
                    inner.push(pair);
                }
                let inner = if inner.is_empty() { String::new() } else { format!(" {} ", inner.join(", ")) };
                entry(&mut text, describe(&schema, path), &format!("{key} = {{{inner}}}"));
            }
        } else if let Some((key, _)) = line.split_once(" = ") {
            entry(&mut text, describe(&schema, &format!("{section}.{key}")), line);
        }
    }
    Ok(text)
}

fn header(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.strip_suffix(']')
}

fn entry(text: &mut String, description: &str, line: &str) {
    for comment in wrap(description, 116) {
        let _ = writeln!(text, "# {comment}");
    }
    let _ = writeln!(text, "{line}");
}

fn find<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(schema, |schema, key| schema.get("properties")?.get(key))
}

fn describe<'a>(schema: &'a Value, path: &str) -> &'a str {
    find(schema, path).and_then(|key| key.get("description")).and_then(Value::as_str).unwrap_or_default()
}

/// Whether the keys of a table are the operator's own.
fn is_map(schema: &Value, path: &str) -> bool {
    find(schema, path).is_some_and(|key| {
        key.get("properties").is_none() && key.get("additionalProperties").is_some_and(Value::is_object)
    })
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
