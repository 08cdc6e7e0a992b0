//! The demo page and the client module as files: what a strict content security policy and a machine without a network
//! ask of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

#[test]
fn the_page_holds_nothing_inline() {
    let page = read("index.html");
    for tag in tags(&page) {
        let name = tag.split_whitespace().next().unwrap_or_default();
        assert_ne!(name, "style", "an inline style sheet");
        assert!(name != "script" || tag.contains(" src="), "an inline script: <{tag}>");
        let mut attributes = tag.split_whitespace().filter_map(|word| word.split_once('='));
        let inline = attributes.any(|(name, _)| name == "style" || name.starts_with("on"));
        assert!(!inline, "an inline style or handler: <{tag}>");
    }
}

#[test]
fn nothing_comes_from_another_host() {
    for path in files() {
        let text = std::fs::read_to_string(&path).unwrap().replace("http://www.w3.org/2000/svg", "");
        let code = text.lines().filter(|line| !line.trim_start().starts_with('*'));
        for line in code {
            assert!(!line.contains("//") || !line.contains("http"), "{}: {line}", path.display());
        }
    }
}

#[test]
fn everything_that_is_referred_to_is_there() {
    let mut references = 0;
    for path in files() {
        let text = std::fs::read_to_string(&path).unwrap();
        for (before, after) in [("from './", "'"), ("src=\"", "\""), ("href=\"", "\"")] {
            for rest in text.split(before).skip(1) {
                let name = rest.split(after).next().unwrap();
                if name.starts_with('#') || name.contains('$') {
                    continue;
                }
                references += 1;
                assert!(folder().join(name).is_file(), "{} refers to {name}", path.display());
            }
        }
    }
    assert!(references > 8, "only {references} references were found");
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web")
}

/// What a browser loads.
fn files() -> Vec<PathBuf> {
    let loaded = |path: &PathBuf| {
        path.extension().is_some_and(|kind| ["html", "js", "css", "svg"].iter().any(|known| kind == *known))
    };
    let all = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = all.filter(loaded).collect();
    assert!(files.len() > 8);
    files
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// What stands between `<` and `>`.
fn tags(page: &str) -> impl Iterator<Item = &str> {
    page.split('<').skip(1).filter_map(|rest| rest.split('>').next())
}
