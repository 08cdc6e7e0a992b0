//! Two browsers on their hosts, and the server between them.

use std::path::Path;
use std::sync::MutexGuard;

use serde_json::Value;

use super::browser::Browser;
use super::server::Server;
use super::{Host, Lab, Nat, SERVER, one_at_a_time};

/// A few seconds of video.
pub(crate) const FRAMES: u64 = 45;

/// Ana and Bruno. Browsers end before the server, the server before its network.
pub(crate) struct Scene {
    pub(crate) ana: Browser,
    pub(crate) bruno: Browser,
    pub(crate) server: Server,
    pub(crate) lab: Lab,
    pub(crate) scratch: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    /// Starts everything, and Ana calls Bruno, who accepts. `environment`: variables of the server, like
    /// `PASSERELLE__TURN__CREDENTIAL_TTL=1m`. `pages`: what else the pages of the two are opened with, like `token=…`.
    #[track_caller]
    pub(crate) fn start(nat: Nat, environment: &str, pages: [&str; 2]) -> Self {
        let turn = one_at_a_time();
        let scratch = tempfile::tempdir().unwrap();
        let lab = Lab::new(nat);
        let mut server = Server::start_with(&lab, scratch.path(), environment);
        let mut ana = Browser::start(&lab, Host::A, scratch.path());
        let mut bruno = Browser::start(&lab, Host::B, scratch.path());
        server.wait_until_ready(&mut ana);
        for ((browser, name), page) in [(&mut ana, "Ana"), (&mut bruno, "Bruno")].into_iter().zip(pages) {
            browser.ask(format!("open http://{SERVER}:8080/ {name} blue {page}").trim());
        }
        ana.rings(&mut bruno);
        Self { ana, bruno, server, lab, scratch, _turn: turn }
    }

    /// Both.
    pub(crate) fn both(&mut self) -> [&mut Browser; 2] {
        [&mut self.ana, &mut self.bruno]
    }

    /// Both see and hear each other from now on.
    #[track_caller]
    pub(crate) fn media_goes_on(&mut self) {
        for browser in self.both() {
            browser.goes_on_seeing();
            browser.wait_for("connected", connected);
        }
    }

    /// Ana hangs up, which Bruno hears of.
    #[track_caller]
    pub(crate) fn hang_up(&mut self) {
        self.ana.ask("hangup");
        for browser in self.both() {
            browser.wait_for("hung up", |state| state["state"] == "idle" && state["lastEnd"] == "completed");
        }
    }

    /// Call records.
    pub(crate) fn database(&self) -> &Path {
        &self.server.database
    }
}

/// Whether a page is in a call that runs.
pub(crate) fn connected(state: &Value) -> bool {
    state["state"] == "connected"
}
