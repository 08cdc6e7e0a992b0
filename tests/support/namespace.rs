//! A network of its own for a test: its addresses are whatever the test wants, and gone with it. Needs root.

use std::process::{Command, Stdio};

/// Says inside which test this process is.
const INSIDE: &str = "TEST_IN_ITS_OWN_NETWORK";

/// Runs the test named `test` again, alone in a network namespace that has these addresses on its loopback interface.
/// True inside; false outside, when it has passed there.
#[track_caller]
pub fn alone(test: &str, addresses: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        ip("link set lo up");
        for address in addresses {
            ip(&format!("address add {address} dev lo"));
        }
        return true;
    }
    let again = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.arg("--net").arg(again).args(["--exact", test, "--nocapture"]).env(INSIDE, test);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "in a network of its own (needs root):\n{said}"
    );
    false
}

/// Runs `ip` with these words.
#[track_caller]
pub fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}
