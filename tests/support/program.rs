//! Other people's programs as children: their output is kept, they are killed with the test.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::PATIENCE;

/// A program that runs beside the test.
#[derive(Debug)]
pub struct Beside(Child);

impl Beside {
    /// Starts it without output.
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}: run tests/install.sh")))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end, three times [`PATIENCE`] at most; gives its output, both streams together.
#[track_caller]
pub fn output(command: &mut Command) -> (bool, String) {
    let folder = tempfile::TempDir::new().unwrap();
    let file = std::fs::File::create(folder.path().join("output")).unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}: run tests/install.sh"));
    let read = || String::from_utf8_lossy(&std::fs::read(folder.path().join("output")).unwrap()).into_owned();
    let deadline = Instant::now() + 3 * PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.success(), read());
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not come to an end:\n{}", read());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
