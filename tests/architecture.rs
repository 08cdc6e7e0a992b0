//! The rules of the house, kept by the build: who may import whom, what is pure, how long a file and a function may
//! be, where `unsafe` may stand, which names are not used.
//!
//! The rules read `src/` as syntax (`syn`), not as text: comments and strings never trip them, aliases and macros do
//! not hide from them. Code under `#[cfg(test)]` is free of all but the rule on `unsafe`. A second half plants a
//! violation of every rule in a tree of its own and expects it to be found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "architecture/planted.rs"]
mod planted;
#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/source.rs"]
mod source;

use std::path::Path;

use source::Tree;

/// The modules at the top of `src/`, each with the modules it may import. Any other edge breaks the build.
const GRAPH: &[(&str, &[&str])] = &[
    ("stun", &[]),
    ("signaling", &[]),
    ("metrics", &[]),
    ("shutdown", &[]),
    ("logging", &[]),
    ("supervisor", &[]),
    ("turn", &["stun"]),
    ("auth", &["stun", "turn"]),
    ("store", &["signaling", "metrics"]),
    ("offload", &["turn"]),
    ("net", &["stun", "turn", "offload", "metrics", "shutdown"]),
    ("http", &["signaling", "auth", "store", "metrics", "shutdown", "logging"]),
    ("observe", &["turn", "signaling", "metrics", "store"]),
    ("link", &["turn", "signaling", "auth", "net"]),
    // The configurations of the parts, nothing else of them.
    ("config", &["auth", "net", "turn", "signaling", "store", "http", "link", "logging", "shutdown"]),
    // Hands every part its share of another configuration, so it knows all that have one.
    (
        "reload",
        &["turn", "signaling", "net", "http", "auth", "link", "logging", "shutdown", "supervisor", "config"],
    ),
    (
        "app",
        &[
            "stun",
            "turn",
            "signaling",
            "net",
            "http",
            "auth",
            "store",
            "offload",
            "link",
            "observe",
            "metrics",
            "logging",
            "shutdown",
            "supervisor",
            "config",
            "reload",
        ],
    ),
    ("cli", &["config", "app", "auth"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Modules without sockets, clocks, randomness, files or logs: time and a seeded generator come in as arguments.
const PURE: &[&str] = &["stun", "turn", "signaling"];

/// Files (or folders, with a slash at the end) in which `unsafe` may stand.
const UNSAFE: &[&str] = &["net/udp/", "offload/"];

/// Lines of code a file may have.
const FILE_LINES: usize = 600;

/// Lines of code a function may have.
const FUNCTION_LINES: usize = 80;

/// Names that say nothing about what a module holds.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "manager", "helper", "helpers", "prelude", "misc"];

#[test]
fn the_allowed_graph_has_no_cycle() {
    assert_eq!(rules::cycle(GRAPH), None);
}

#[test]
fn the_source_keeps_the_rules_of_the_house() {
    let tree = Tree::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(tree.files.len() > 10, "src/ was not found");
    let violations = rules::check(&tree);
    let list: String = violations.iter().map(|violation| format!("\n  {violation}")).collect();
    assert!(violations.is_empty(), "{} violations of docs/architecture.md:{list}\n", violations.len());
}
