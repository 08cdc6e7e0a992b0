//! The REST interface against its own description: a client generated from it (schemathesis) tries what it allows and what
//! it does not, and every answer has to be one that is described.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::process::Command;

use support::Server;

const API_KEY: &str = "an-api-key-that-is-long-enough-for-everyone";
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[test]
fn every_answer_is_one_that_is_described() {
    let server = Server::start(&format!("[auth]\napi_keys = [\"{API_KEY}\"]\n"));
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/py/.venv/bin/st");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(program)
        .current_dir(folder.path())
        .arg("run")
        .arg(format!("http://{}/api/v1/openapi.json", server.http))
        .args(["-H", &format!("Authorization: Bearer {API_KEY}")])
        // A server that drains answers nothing else.
        .args(["--exclude-path", "/api/v1/admin/drain"])
        .args(["--checks", CHECKS, "--max-examples", "15", "--no-color", "--seed", "1"])
        .output()
        .expect("schemathesis is missing: run tests/install.sh");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
