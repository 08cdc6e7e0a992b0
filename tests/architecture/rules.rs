//! The rules. Each takes facts and gives violations that say where, what, and how to mend it.

use std::fmt;

use crate::source::{File, Name, Tree};
use crate::{EMPTY_NAMES, FILE_LINES, FUNCTION_LINES, GRAPH, PURE, UNSAFE};

/// One broken rule.
#[derive(Debug)]
pub(crate) struct Violation {
    file: String,
    line: usize,
    what: String,
    mend: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}; {}", self.file, self.line, self.what, self.mend)
    }
}

/// Every violation of a tree, in the order of its files.
pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in &tree.files {
        for rule in [imports, purity, sizes, unsafe_code, names, opening] {
            rule(file, &mut found);
        }
    }
    found
}

/// A cycle of the graph as a path that ends where it began.
pub(crate) fn cycle(graph: &[(&str, &[&str])]) -> Option<Vec<String>> {
    fn visit(graph: &[(&str, &[&str])], at: &str, path: &mut Vec<String>) -> bool {
        let seen = path.iter().any(|step| step == at);
        path.push(at.to_owned());
        if seen {
            return true;
        }
        let next = graph.iter().find(|(name, _)| *name == at).map_or(&[][..], |(_, targets)| targets);
        if next.iter().any(|target| visit(graph, target, path)) {
            return true;
        }
        path.pop();
        false
    }
    graph.iter().find_map(|(start, _)| {
        let mut path = Vec::new();
        visit(graph, start, &mut path).then_some(path)
    })
}

fn violation(file: &File, line: usize, what: String, mend: String) -> Violation {
    Violation { file: file.path.clone(), line, what, mend }
}

fn allowed(module: &str) -> Option<&'static [&'static str]> {
    GRAPH.iter().find(|(name, _)| *name == module).map(|(_, targets)| *targets)
}

fn imports(file: &File, found: &mut Vec<Violation>) {
    let Some(allowed_here) = allowed(&file.module) else {
        let mend = "add it to GRAPH in tests/architecture.rs and to docs/architecture.md".to_owned();
        found.push(violation(file, 1, format!("`{}` is not a module of the house", file.module), mend));
        return;
    };
    if file.module == "lib" {
        for (line, name) in &file.modules {
            if allowed(name).is_none() {
                let mend = "add it to GRAPH in tests/architecture.rs and to docs/architecture.md".to_owned();
                found.push(violation(file, *line, format!("`{name}` is not a module of the house"), mend));
            }
        }
    }
    for Name { line, path, .. } in &file.names {
        let (Some("crate"), Some(target)) = (path.first().map(String::as_str), path.get(1)) else { continue };
        if *target == file.module || allowed_here.contains(&target.as_str()) {
            continue;
        }
        let what = format!("`{}` must not import `{target}`", file.module);
        let mend = if allowed(target).is_none() {
            "name the module that owns it, not the root of the crate".to_owned()
        } else if allowed_here.is_empty() {
            format!("`{}` imports nothing: let it take a value or a trait of its own", file.module)
        } else {
            format!("`{}` may import {}; pass it in from `app`", file.module, allowed_here.join(", "))
        };
        found.push(violation(file, *line, what, mend));
    }
}

/// What a pure module must not name, and what it does instead.
const IMPURE: &[(&str, &str)] = &[
    ("tokio", "the shell drives the core: return an output instead"),
    ("tokio_util", "the shell drives the core: return an output instead"),
    ("futures_util", "the shell drives the core: return an output instead"),
    ("axum", "the shell drives the core: return an output instead"),
    ("hyper", "the shell drives the core: return an output instead"),
    ("sqlx", "the shell drives the core: return an output instead"),
    ("mio", "sockets belong to `net`"),
    ("socket2", "sockets belong to `net`"),
    ("libc", "system calls belong to `net`"),
    ("std::net::UdpSocket", "sockets belong to `net`"),
    ("std::net::TcpStream", "sockets belong to `net`"),
    ("std::net::TcpListener", "sockets belong to `net`"),
    ("std::os", "sockets belong to `net`"),
    ("std::time::Instant::now", "take `now` as an argument"),
    ("std::time::SystemTime::now", "take the wall clock as an argument"),
    ("rand", "take a seeded generator as an argument"),
    ("getrandom", "take a seeded generator as an argument"),
    ("prometheus", "return an event; `observe` counts it"),
    ("std::fs", "take the contents as an argument"),
    ("std::env", "take the value as an argument"),
    ("std::process", "take the value as an argument"),
    ("std::thread", "the shell drives the core: return an output instead"),
    ("println", "return an event; `observe` logs it"),
    ("eprintln", "return an event; `observe` logs it"),
];

/// What a pure module may use of `tracing`.
const TRACE: &[&str] = &["trace", "trace_span"];

fn purity(file: &File, found: &mut Vec<Violation>) {
    if !PURE.contains(&file.module.as_str()) {
        return;
    }
    for name in &file.names {
        let path = name.path.join("::").replace("core::time::", "std::time::");
        if let Some((_, mend)) = IMPURE.iter().find(|(impure, _)| {
            path == *impure
                || path.strip_prefix(impure).is_some_and(|rest| rest.starts_with("::"))
                || name.glob && impure.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with("::"))
        }) {
            found.push(violation(file, name.line, impure(file, &path), (*mend).to_owned()));
        } else if name.path.len() > 1 && name.path.last().is_some_and(|last| last == "now") {
            found.push(violation(
                file,
                name.line,
                impure(file, &path),
                "take `now` as an argument".to_owned(),
            ));
        } else if name.path.first().is_some_and(|first| first == "tracing")
            && !name.path.get(1).is_some_and(|what| TRACE.contains(&what.as_str()))
        {
            let mend = "only `trace!` is allowed here: return an event, `observe` logs it".to_owned();
            found.push(violation(file, name.line, impure(file, &path), mend));
        }
    }
    for (line, method) in &file.methods {
        if method == "elapsed" {
            let mend = "it reads the clock: subtract from the `now` that came in".to_owned();
            found.push(violation(file, *line, impure(file, ".elapsed()"), mend));
        }
    }
}

fn impure(file: &File, what: &str) -> String {
    format!("`{}` is pure and must not use `{what}`", file.module)
}

fn sizes(file: &File, found: &mut Vec<Violation>) {
    if file.lines > FILE_LINES {
        let what = format!("{} lines of code, more than {FILE_LINES}", file.lines);
        found.push(violation(file, 1, what, "move a concern into a file of its own".to_owned()));
    }
    for (line, name, lines) in &file.functions {
        if *lines > FUNCTION_LINES {
            let what = format!("`{name}` has {lines} lines of code, more than {FUNCTION_LINES}");
            found.push(violation(file, *line, what, "give a step of it a name".to_owned()));
        }
    }
}

fn unsafe_code(file: &File, found: &mut Vec<Violation>) {
    let free = UNSAFE
        .iter()
        .any(|place| if place.ends_with('/') { file.path.starts_with(place) } else { file.path == *place });
    for line in file.unsafes.iter().filter(|_| !free) {
        let mend = format!("it may stand in {} only", UNSAFE.join(" and "));
        found.push(violation(file, *line, "`unsafe`".to_owned(), mend));
    }
}

fn names(file: &File, found: &mut Vec<Violation>) {
    let mut part_names = file.path.split('/').map(|part| part.trim_end_matches(".rs"));
    if let Some(name) = part_names.find(|part| EMPTY_NAMES.contains(part)) {
        let mend = "name the file after the thing it holds".to_owned();
        found.push(violation(file, 1, format!("`{name}` names nothing"), mend));
    }
    for (line, name, _) in &file.functions {
        if name.starts_with("get_") {
            let mend = format!("call it `{}`", name.trim_start_matches("get_"));
            found.push(violation(file, *line, format!("`{name}` begins with `get_`"), mend));
        }
    }
}

fn opening(file: &File, found: &mut Vec<Violation>) {
    if file.opening == 0 || (file.path.ends_with("/mod.rs") && file.opening >= 20) {
        let what = format!("the file opens with {} lines of `//!`", file.opening);
        let mend = "say what it owns, what it must not do and who drives it, in under 20 lines".to_owned();
        found.push(violation(file, 1, what, mend));
    }
}
