//! What is written about the program, held to the program: the page of the metrics is generated, links lead
//! somewhere, and no metric is declared that nothing touches.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use passerelle::metrics::CATALOGUE;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file with this extension under a folder of the repository.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

/// docs/metrics.md, as it must be.
fn metrics_page() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Written from `src/metrics.rs` by `REWRITE=1 cargo test --test docs`.\n\n\
         Everything is served in the Prometheus text format at `GET /metrics` on the addresses of `listen.metrics`, by\n\
         default loopback only. Counters of the relay move while the packets flow, not when an allocation ends. Labels\n\
         come from closed sets: no user, room, id or address is ever one. On Linux the usual `process_*` metrics are\n\
         there too.\n\n\
         | name | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for (name, kind, help, labels) in CATALOGUE {
        let kind = match *kind {
            "IntCounter" | "IntCounterVec" => "counter",
            "IntGauge" | "IntGaugeVec" => "gauge",
            "Histogram" | "HistogramVec" => "histogram",
            other => panic!("{name} is of a kind that this page cannot name: {other}"),
        };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(page, "| `{name}` | {kind} | {} | {} |", labels.join(", "), help.trim()).unwrap();
    }
    page
}

#[test]
fn the_page_of_the_metrics_is_what_the_code_declares() {
    let path = root().join("docs/metrics.md");
    let expected = metrics_page();
    if std::env::var_os("REWRITE").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == expected,
        "run REWRITE=1 cargo test --test docs"
    );
}

#[test]
fn every_configuration_in_a_page_can_be_read() {
    let mut blocks = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            blocks += 1;
            toml::from_str::<passerelle::config::File>(block)
                .unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        }
    }
    assert!(blocks > 0);
}

/// What people read: the pages of docs/ and the two at the top.
fn pages() -> Vec<PathBuf> {
    let mut pages = files(&root().join("docs"), "md");
    pages.extend(["README.md", "CHANGELOG.md"].map(|page| root().join(page)));
    pages
}

/// The fields of `Metrics` as src/metrics.rs declares them: `name: Kind = "…" […] BUCKETS;`.
fn fields() -> Vec<String> {
    let text = fs::read_to_string(root().join("src/metrics.rs")).unwrap();
    let fields: Vec<String> = text
        .lines()
        .filter(|line| line.contains(" = \"passerelle_"))
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect();
    assert_eq!(fields.len(), CATALOGUE.len());
    fields
}

#[test]
fn no_metric_is_declared_that_nothing_touches() {
    // Without white space, so that a broken line hides nothing: `self.metrics.calls.inc()`.
    let source: String = files(&root().join("src"), "rs")
        .iter()
        .filter(|path| !path.ends_with("src/metrics.rs"))
        .flat_map(|path| fs::read_to_string(path).unwrap().chars().collect::<Vec<_>>())
        .filter(|char| !char.is_whitespace())
        .collect();
    let touched = |field: &str| {
        let touch = format!("metrics.{field}");
        source.match_indices(&touch).any(|(at, _)| {
            !source[at + touch.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
        })
    };
    let idle: Vec<String> = fields().into_iter().filter(|field| !touched(field)).collect();
    assert!(
        idle.is_empty(),
        "declared in src/metrics.rs and touched nowhere as `metrics.…`: {}",
        idle.join(", ")
    );
}

#[test]
fn links_between_pages_lead_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let target = link.split('#').next().unwrap_or_default();
            let elsewhere = link.contains("://") || target.is_empty();
            if !elsewhere && !page.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(pages.len() > 5);
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn the_readme_is_read_in_one_go() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= 150, "{lines} lines");
}

/// The rows of the table under a heading of docs/security.md.
fn rows(heading: &str) -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect("a section of this name");
    let section = section.split("\n## ").next().unwrap();
    // A head, a line, and then rows.
    section.lines().filter(|line| line.starts_with('|')).skip(2).map(ToOwned::to_owned).collect()
}

/// The tests that a row names, all of which exist.
#[track_caller]
fn tests_of(row: &str) -> Vec<&str> {
    let named: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
    let tests: Vec<(&str, &str)> =
        named.windows(2).filter(|pair| pair[0].ends_with(".rs")).map(|pair| (pair[0], pair[1])).collect();
    assert!(!tests.is_empty(), "no test in {row}");
    for (file, test) in &tests {
        let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("fn {test}(")), "{row}: {file} has no test {test}");
    }
    tests.into_iter().map(|(_, test)| test).collect()
}

#[test]
fn the_catalogue_of_defects_names_tests_that_exist() {
    let rows = rows("What went wrong elsewhere, and the test that it does not here");
    for row in &rows {
        let number = row.split('|').nth(1).unwrap().trim().to_lowercase();
        // At least one carries the number of its row, unless another row's or table's test says it all.
        let numbered = tests_of(row).iter().any(|name| name.starts_with(&format!("{number}_")));
        let elsewhere = ["a2", "l1", "r3", "w5", "w6", "w10"].contains(&&*number);
        assert!(numbered || elsewhere, "{number} has no test of its own");
    }
    assert!(rows.len() >= 60, "{} rows", rows.len());
}

#[test]
fn every_limit_of_signaling_has_a_test_at_its_boundary() {
    let rows = rows("Limits of signaling");
    rows.iter().for_each(|row| drop(tests_of(row)));
    assert!(rows.len() >= 20, "{} rows", rows.len());
    let config = toml::Table::try_from(passerelle::signaling::Config::default()).unwrap();
    let keys = ["limits", "rates"].into_iter().flat_map(|group| {
        let keys = config[group].as_table().unwrap().keys();
        keys.map(move |key| format!("`{group}.{key}`"))
    });
    let missing: Vec<String> = keys.filter(|key| !rows.iter().any(|row| row.contains(key))).collect();
    assert_eq!(missing, Vec::<String>::new(), "limits without a row in docs/security.md");
}

#[test]
fn every_bug_that_others_shipped_has_a_test() {
    let rows = rows("Bugs that other servers of signaling shipped");
    rows.iter().for_each(|row| drop(tests_of(row)));
    assert_eq!(rows.len(), 14);
}
