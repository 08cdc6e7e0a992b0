//! docs/conformance.md is made of the doc comments of these tests, so that it cannot say what is not tested.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// What only a clock that a test turns by hand, or bytes without a server, can show: RFC, section, sentence, file, test.
const ELSEWHERE: &[(&str, &str, &str, &str, &str)] = &[
    (
        "RFC 5769",
        "2.1",
        "The sample request is read and verified.",
        "src/stun/vectors.rs",
        "the_sample_request_is_read_and_verified",
    ),
    (
        "RFC 5769",
        "2.2",
        "The sample IPv4 response is read and verified.",
        "src/stun/vectors.rs",
        "the_sample_responses_are_read_and_verified",
    ),
    (
        "RFC 5769",
        "2.3",
        "The sample IPv6 response is read and verified.",
        "src/stun/vectors.rs",
        "the_sample_responses_are_read_and_verified",
    ),
    (
        "RFC 5769",
        "2.4",
        "The sample request with long-term credentials is verified.",
        "src/stun/vectors.rs",
        "the_sample_request_with_long_term_credentials_is_verified",
    ),
    (
        "RFC 5769",
        "2",
        "No sample survives a change of one bit.",
        "src/stun/vectors.rs",
        "no_sample_survives_a_changed_bit",
    ),
    (
        "RFC 8656",
        "7.2",
        "A reservation is held for at least 30 seconds, and given back after them.",
        "src/turn/tests/allocations.rs",
        "a_reservation_token_gives_the_next_port_once_and_for_thirty_seconds",
    ),
    (
        "RFC 8656",
        "8",
        "An allocation that is not refreshed expires, and its port is free again.",
        "src/turn/tests/allocations.rs",
        "an_allocation_that_is_not_refreshed_expires_and_frees_its_port",
    ),
    (
        "RFC 8656",
        "8.1",
        "Each of two families is refreshed and expires by itself.",
        "src/turn/tests/allocations.rs",
        "each_of_two_families_has_its_own_time",
    ),
    (
        "RFC 8656",
        "9",
        "A permission lasts 300 seconds unless it is refreshed.",
        "src/turn/tests/relaying.rs",
        "a_permission_lasts_five_minutes_and_a_second_request_renews_it",
    ),
    (
        "RFC 8656",
        "11.5",
        "Data of a peer needs a permission even where a channel is bound.",
        "src/turn/tests/relaying.rs",
        "a_channel_without_its_permission_brings_nothing_from_the_peer",
    ),
    (
        "RFC 8656",
        "12",
        "A channel binding lasts 600 seconds unless it is refreshed.",
        "src/turn/channel.rs",
        "the_same_pair_can_be_bound_again_at_any_time",
    ),
    (
        "RFC 8656",
        "12",
        "A number and its peer are not bound to others for 5 minutes after a binding expired.",
        "src/turn/channel.rs",
        "a_number_and_its_peer_stay_together_for_five_minutes_after_expiry",
    ),
    (
        "RFC 8656",
        "14",
        "DSCP and ECN of relayed data are those of fresh packets and its TTL is the host's default, as the alternate \
         behaviour has it; the DF bit is set when DONT-FRAGMENT asks for it.",
        "tests/floods.rs",
        "packets_leave_with_a_full_ttl_and_no_marks",
    ),
    (
        "RFC 8656",
        "14",
        "What must not be fragmented and is too long is not sent; what may be is.",
        "tests/floods.rs",
        "dont_fragment_is_honoured",
    ),
    (
        "RFC 7065",
        "3",
        "`turn:` and `turns:` URIs name host, port and transport; IPv6 addresses stand in brackets.",
        "tests/config.rs",
        "a_nat_shows_in_relay_addresses_hosts_and_urls",
    ),
];

/// One line of the page.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Must {
    rfc: String,
    section: Vec<u32>,
    sentence: String,
    file: String,
    test: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn section(text: &str) -> Vec<u32> {
    text.split('.')
        .map(|number| number.parse().unwrap_or_else(|_| panic!("{text:?} is no section")))
        .collect()
}

/// The tests of a file: each `fn` behind `#[test]` with the doc comment before it.
fn tests(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut doc, mut is_test) = (String::new(), false);
    for line in text.lines() {
        if let Some(words) = line.strip_prefix("/// ") {
            doc = [doc.as_str(), words].join(" ").trim().to_owned();
        } else if line == "#[test]" {
            is_test = true;
        } else {
            if is_test {
                let name =
                    line.strip_prefix("fn ").and_then(|rest| rest.split_once('(')).expect("a function").0;
                found.push((name.to_owned(), doc.clone()));
            }
            (doc, is_test) = (String::new(), false);
        }
    }
    found
}

/// Every sentence, in the order of the RFCs.
fn musts() -> Vec<Must> {
    let mut musts = Vec::new();
    for folder in ["rfc8489", "rfc8656", "rfc7443"] {
        for entry in fs::read_dir(root().join("tests/conformance").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let file = path.strip_prefix(root()).unwrap().display().to_string();
            for (test, doc) in tests(&fs::read_to_string(&path).unwrap()) {
                let parts = doc.strip_prefix("Section ").and_then(|rest| rest.split_once(": "));
                let (number, sentence) = parts
                    .unwrap_or_else(|| panic!("{file}: {test} does not begin with `/// Section 1.2: …`"));
                musts.push(Must {
                    rfc: folder.replace("rfc", "RFC "),
                    section: section(number),
                    sentence: sentence.to_owned(),
                    file: file.clone(),
                    test,
                });
            }
        }
    }
    for (rfc, number, sentence, file, test) in ELSEWHERE {
        let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("fn {test}(")), "{file} has no test {test}");
        musts.push(Must {
            rfc: (*rfc).to_owned(),
            section: section(number),
            sentence: (*sentence).to_owned(),
            file: (*file).to_owned(),
            test: (*test).to_owned(),
        });
    }
    musts.sort();
    musts
}

fn page() -> String {
    let musts = musts();
    let mut page = format!(
        "# Conformance\n\n\
         Written from the tests by `REWRITE=1 cargo test --test conformance page`.\n\n\
         {} sentences of the RFCs, each with the test that asks for it. Most ask the program itself over UDP, TCP and\n\
         TLS; what needs hours or a broken clock is asked of its pure core, whose time a test turns by hand. The\n\
         sentences are in this project's words.\n",
        musts.len()
    );
    let mut rfc = "";
    for must in &musts {
        if must.rfc != rfc {
            rfc = &must.rfc;
            write!(page, "\n## {rfc}\n\n| section | sentence | test |\n|---|---|---|\n").unwrap();
        }
        let number: Vec<String> = must.section.iter().map(ToString::to_string).collect();
        let (file, test) = (&must.file, &must.test);
        writeln!(page, "| {} | {} | [`{test}`](../{file}) |", number.join("."), must.sentence).unwrap();
    }
    page
}

#[test]
fn the_page_is_what_the_tests_say() {
    let path = root().join("docs/conformance.md");
    let expected = page();
    if std::env::var_os("REWRITE").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == expected,
        "run REWRITE=1 cargo test --test conformance page"
    );
}
