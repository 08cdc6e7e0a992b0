//! The test of the test: every rule finds a violation planted for it, and leaves its honest neighbour alone.

use std::fs;

use crate::rules;
use crate::source::Tree;
use crate::{FILE_LINES, FUNCTION_LINES};

/// What the rules say about a tree of these files.
fn found(files: &[(&str, &str)]) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("//! Planted.\n{text}")).unwrap();
    }
    rules::check(&Tree::read(root.path())).iter().map(ToString::to_string).collect()
}

/// Asserts that each text, as the body of `path`, breaks exactly one rule, on its line and with these words.
#[track_caller]
fn finds(path: &str, text: &str, line: usize, words: &str) {
    let found = found(&[(path, text)]);
    let [violation] = found.as_slice() else {
        panic!("expected one violation of {text:?}, found {found:#?}")
    };
    assert!(violation.starts_with(&format!("src/{path}:{line}: ")), "{violation}");
    assert!(violation.contains(words), "{violation} does not speak of {words}");
}

#[track_caller]
fn finds_nothing(path: &str, text: &str) {
    assert_eq!(found(&[(path, text)]), Vec::<String>::new(), "{text}");
}

#[test]
fn an_import_outside_the_graph_is_found() {
    finds("turn/server.rs", "\nuse crate::net::Worker;", 3, "`turn` must not import `net`");
    finds("net/worker.rs", "use crate::{turn::Server, http::Service};", 2, "`net` must not import `http`");
    finds("stun/mod.rs", "use crate::turn as relay;", 2, "`stun` imports nothing");
    finds("observe.rs", "use crate::cli::*;", 2, "`observe` must not import `cli`");
}

#[test]
fn a_qualified_path_is_an_import_too() {
    finds("turn/server.rs", "fn f() { crate::net::run(); }", 2, "`turn` must not import `net`");
    finds("turn/server.rs", "struct S(Vec<crate::store::Row>);", 2, "`turn` must not import `store`");
    finds("signaling/hub.rs", "fn f() -> bool { matches!(x, crate::turn::Event::Made) }", 2, "import `turn`");
}

#[test]
fn a_detour_over_super_is_found() {
    finds("turn/server.rs", "use super::super::net::Worker;", 2, "`turn` must not import `net`");
    finds("turn/mod.rs", "use super::http;", 2, "`turn` must not import `http`");
    finds("turn/mod.rs", "mod inner { fn f() { super::super::http::serve(); } }", 2, "import `http`");
    finds_nothing("turn/methods/send.rs", "use super::super::server::Server;\nuse super::allocate;");
    finds_nothing("turn/mod.rs", "mod inner { use super::Server; }");
}

#[test]
fn the_binary_reaches_the_command_line_and_nothing_else() {
    finds_nothing("main.rs", "fn main() { passerelle::cli::run() }");
    finds("main.rs", "fn main() { passerelle::app::run() }", 2, "`main` must not import `app`");
}

#[test]
fn a_module_nobody_knows_is_found() {
    finds("billing/mod.rs", "", 1, "`billing` is not a module of the house");
    finds("lib.rs", "pub mod billing {}", 2, "`billing` is not a module of the house");
    finds("app.rs", "use crate::Thing;", 2, "name the module that owns it");
}

#[test]
fn a_cycle_is_found() {
    let graph: &[(&str, &[&str])] = &[("a", &["b"]), ("b", &["c"]), ("c", &["b"])];
    assert_eq!(rules::cycle(graph).unwrap(), ["a", "b", "c", "b"]);
    assert_eq!(rules::cycle(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]), None);
}

#[test]
fn every_kind_of_impurity_is_found() {
    for text in [
        "use tokio::sync::mpsc;",
        "async fn f() { tokio::task::yield_now().await }",
        "use tokio as t;",
        "extern crate tokio;",
        "use mio::Poll;",
        "use socket2::Socket;",
        "use std::net::{SocketAddr, UdpSocket};",
        "use std::net::*;",
        "fn f(stream: std::net::TcpStream) {}",
        "fn f() { std::net::TcpListener::bind(a); }",
        "use std::time::Instant; fn f() -> Instant { Instant::now() }",
        "use std::time::Instant as Clock; fn f() -> Clock { Clock::now() }",
        "use std::time; fn f() { time::SystemTime::now(); }",
        "fn f() { assert!(deadline < std::time::Instant::now()); }",
        "fn f() { jiff::Timestamp::now(); }",
        "fn f(since: std::time::Instant) { since.elapsed(); }",
        "fn f(since: std::time::Instant) { format!(\"{:?}\", since.elapsed()); }",
        "fn f() { rand::random::<u8>(); }",
        "use rand::Rng;",
        "use prometheus::IntCounter;",
        "fn f() { std::fs::read(p); }",
        "use std::{env, fmt};",
        "use tracing::info;",
        "fn f() { tracing::debug!(\"made\"); }",
        "#[tracing::instrument] fn f() {}",
        "fn f() { println!(\"made\"); }",
    ] {
        for module in ["stun", "turn", "signaling"] {
            finds(&format!("{module}/mod.rs"), text, 2, &format!("`{module}` is pure and must not use"));
        }
        if !text.contains("extern") {
            finds_nothing("net/worker.rs", text);
        }
    }
}

#[test]
fn what_is_pure_stays_allowed() {
    finds_nothing(
        "turn/server.rs",
        r#"
        use std::net::{IpAddr, SocketAddr};
        use std::time::{Duration, Instant, SystemTime};
        use tracing::trace;
        use crate::stun::Message;
        /// Not `tokio::spawn`, not `Instant::now()`.
        fn f(now: Instant) { // tokio::spawn
            trace!(reason = "tokio::spawn", "std::fs::read");
            now.duration_since(now);
        }
        "#,
    );
}

#[test]
fn tests_may_use_what_the_code_may_not() {
    finds_nothing(
        "turn/mod.rs",
        "#[cfg(test)]\nmod tests { use crate::auth::Users; fn f() { std::time::Instant::now(); } }",
    );
    let files = [
        ("turn/mod.rs", "#[cfg(test)]\nmod simulation;"),
        ("turn/simulation.rs", "use rand::Rng;"),
        ("turn/simulation/world.rs", "use rand::Rng;"),
    ];
    assert_eq!(found(&files), Vec::<String>::new());
}

#[test]
fn a_file_that_is_too_long_is_found() {
    let line = "/// Said.\n\n// why\nconst A: u8 = 0;\n/* why\nwhy */\n";
    finds_nothing("net/relay.rs", &line.repeat(FILE_LINES));
    finds("net/relay.rs", &line.repeat(FILE_LINES + 1), 1, "601 lines of code, more than 600");
    let tested = format!("{}#[cfg(test)]\nmod tests {{\n{line}}}\n", line.repeat(FILE_LINES));
    finds_nothing("net/relay.rs", &tested);
}

#[test]
fn a_function_that_is_too_long_is_found() {
    let body = "    // why\n\n    step();\n".repeat(FUNCTION_LINES - 2);
    finds_nothing("net/relay.rs", &format!("/// Said.\nfn drive() {{\n{body}}}"));
    finds("net/relay.rs", &format!("fn drive() {{\n{body}    step();\n}}"), 2, "`drive` has 81 lines");
    finds("net/relay.rs", &format!("impl Relay {{\nfn drive() {{\n{body}    step();\n}}\n}}"), 3, "81 lines");
    finds(
        "net/relay.rs",
        &format!("trait Relay {{\nfn drive() {{\n{body}    step();\n}}\n}}"),
        3,
        "81 lines",
    );
}

#[test]
fn unsafe_outside_its_two_places_is_found() {
    let text = "fn f() {\n    unsafe { read() }\n}";
    finds("net/worker.rs", text, 3, "`unsafe`");
    finds("http/mod.rs", "unsafe impl Send for S {}", 2, "`unsafe`");
    finds("net/worker.rs", "#[cfg(test)] mod tests { fn f() { unsafe { read() } } }", 2, "`unsafe`");
    finds_nothing("net/udp/sender.rs", text);
    finds("net/udp.rs", text, 3, "`unsafe`");
    finds_nothing("offload/bpf.rs", text);
    finds_nothing("net/worker.rs", "/// Nothing unsafe.\nconst A: &str = \"unsafe\";");
}

#[test]
fn names_that_say_nothing_are_found() {
    finds("net/utils.rs", "", 1, "`utils` names nothing");
    finds("http/common/mod.rs", "", 1, "`common` names nothing");
    finds("net/relay.rs", "fn get_port() {}", 2, "call it `port`");
}

#[test]
fn a_module_that_does_not_introduce_itself_is_found() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("net")).unwrap();
    fs::write(root.path().join("net/mod.rs"), "mod worker;\n").unwrap();
    let violations = rules::check(&Tree::read(root.path()));
    assert_eq!(violations.len(), 1);
    finds("net/mod.rs", &"//! On and on.\n".repeat(19), 1, "opens with 20 lines");
}
