//! A network on one machine: a server in the middle, two clients that each sit behind a router of their own.
//!
//! ```text
//!   a ── router a ──┐                 ┌── router b ── b
//!                   └──── server ─────┘
//! ```
//! Every box is a network namespace, every line a veth pair; the routers translate addresses with nftables. Needs
//! root, `ip` and `nft`. Names carry the process id, so that several runs live side by side, and whatever a killed
//! run left behind is swept by the next one.

#![allow(dead_code, reason = "each test takes its part")]

pub(crate) mod browser;
pub(crate) mod scene;
pub(crate) mod server;

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const PREFIX: &str = "passerelle-lab";
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The server's address, reachable from everywhere. Globally routable by its number, so that no peer policy minds.
pub(crate) const SERVER: &str = "25.0.0.1";

/// What the routers do to addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat {
    /// Nothing: the clients have public addresses.
    None,
    /// Endpoint-independent mapping that keeps the port, address-and-port-dependent filtering: a good home router.
    PortPreserving,
    /// A mapping per destination on a random port (symmetric): nothing but a relay gets through two of these.
    Symmetric,
    /// Port preserving, but no UDP crosses it: what many a company has.
    WithoutUdp,
    /// The same, and of TCP nothing to the port of TURN: what looks like HTTPS gets through.
    WebOnly,
}

impl Nat {
    fn ruleset(self) -> Option<String> {
        let masquerade = match self {
            Self::None => return None,
            Self::PortPreserving | Self::WithoutUdp | Self::WebOnly => "masquerade",
            Self::Symmetric => "masquerade random,fully-random",
        };
        let blocked = match self {
            Self::WithoutUdp => "meta l4proto udp drop\n",
            Self::WebOnly => "meta l4proto udp drop\n tcp dport 3478 drop\n",
            _ => "",
        };
        // Without the drop, a packet that comes too early would occupy the very mapping that the client is about to
        // make, and no hole could be punched.
        Some(format!(
            "table ip translation {{\n\
             chain leaving {{\n type nat hook postrouting priority srcnat\n oifname \"wan\" {masquerade}\n }}\n\
             chain arriving {{\n type filter hook input priority filter\n iifname \"wan\" ct state new drop\n }}\n\
             chain crossing {{\n type filter hook forward priority filter\n {blocked} iifname \"wan\" ct state new drop\n }}\n\
             }}\n"
        ))
    }

    /// The client's side of a router: its own network's first three bytes.
    fn inside(self, side: u8) -> String {
        match self {
            Self::None => format!("25.1.{side}"),
            _ => format!("10.77.{side}"),
        }
    }
}

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    /// The middle.
    Server,
    /// The first client.
    A,
    /// The second client.
    B,
}

/// The network; gone, with everything that runs in it, when dropped.
pub(crate) struct Lab {
    name: String,
}

impl Lab {
    /// Builds the network.
    ///
    /// # Panics
    /// When a command fails, which it does without root.
    pub(crate) fn new(nat: Nat) -> Self {
        sweep();
        let lab = Self {
            name: format!("{PREFIX}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)),
        };
        let server = lab.namespace("server");
        add_namespace(&server);
        in_namespace(&server, &format!("ip address add {SERVER}/32 dev lo"));
        in_namespace(&server, "sysctl -qw net.ipv4.ip_forward=1");
        in_namespace(&server, "sysctl -qw net.ipv4.ip_local_reserved_ports=49152-65535");
        // Private addresses lead nowhere, as on the Internet, where no sender is told that they do.
        for command in [
            "link add void type veth peer name nowhere",
            "link set nowhere up",
            "link set void up",
            "address add 25.255.0.1/30 dev void",
            "neighbour add 25.255.0.2 lladdr 02:00:00:00:00:02 dev void nud permanent",
            "route add 10.77.0.0/16 via 25.255.0.2",
        ] {
            run(&format!("ip -n {server} {command}"), "");
        }
        for (side, client) in [(1, "a"), (2, "b")] {
            lab.attach(nat, side, client);
        }
        lab
    }

    fn attach(&self, nat: Nat, side: u8, client: &str) {
        let (server, router, client) =
            (self.namespace("server"), self.namespace(&format!("router-{client}")), self.namespace(client));
        let (outside, inside) = (format!("25.0.{side}"), nat.inside(side));
        add_namespace(&router);
        add_namespace(&client);
        for command in [
            format!("-n {router} link add wan type veth peer name to{side} netns {server}"),
            format!("-n {router} link add lan type veth peer name eth0 netns {client}"),
            format!("-n {server} address add {outside}.1/24 dev to{side}"),
            format!("-n {router} address add {outside}.2/24 dev wan"),
            format!("-n {router} address add {inside}.1/24 dev lan"),
            format!("-n {client} address add {inside}.2/24 dev eth0"),
            format!("-n {server} link set to{side} up"),
            format!("-n {router} link set wan up"),
            format!("-n {router} link set lan up"),
            format!("-n {client} link set eth0 up"),
            format!("-n {router} route add default via {outside}.1"),
            format!("-n {client} route add default via {inside}.1"),
        ] {
            run(&format!("ip {command}"), "");
        }
        in_namespace(&router, "sysctl -qw net.ipv4.ip_forward=1");
        match nat.ruleset() {
            Some(ruleset) => run(&format!("ip netns exec {router} nft -f -"), &ruleset),
            None => run(&format!("ip -n {server} route add {inside}.0/24 via {outside}.2"), ""),
        }
    }

    /// Gives a client another address in its network, as when a laptop moves from one access point to the next. What was
    /// bound to the old one is cut off without a word.
    pub(crate) fn renumber(&self, nat: Nat, host: Host, last: u8) {
        let (client, side) = match host {
            Host::A => (self.namespace("a"), 1),
            Host::B => (self.namespace("b"), 2),
            Host::Server => panic!("the server stays where it is"),
        };
        let inside = nat.inside(side);
        for command in [
            "address flush dev eth0".to_owned(),
            format!("address add {inside}.{last}/24 dev eth0"),
            format!("route replace default via {inside}.1"),
        ] {
            run(&format!("ip -n {client} {command}"), "");
        }
    }

    /// A command that will run on a host of this network.
    pub(crate) fn command(&self, host: Host, program: impl AsRef<OsStr>) -> Command {
        let namespace = match host {
            Host::Server => self.namespace("server"),
            Host::A => self.namespace("a"),
            Host::B => self.namespace("b"),
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace]).arg(program);
        command
    }

    /// What the names of all its namespaces start with.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in namespaces().iter().filter(|name| name.starts_with(&format!("{}-", self.name))) {
            remove(namespace);
        }
    }
}

/// A few browsers are enough for one machine.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what killed runs left behind.
fn sweep() {
    for namespace in namespaces() {
        let owner = namespace.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&namespace);
        }
    }
}

/// Every network namespace of this machine that has a name.
pub(crate) fn namespaces() -> Vec<String> {
    let listed = Command::new("ip").args(["netns", "list"]).output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Ends every process in a namespace, then the namespace. Never fails: it runs while a test unwinds.
fn remove(namespace: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", namespace]).output() {
        for pid in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            let _ = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
        }
    }
    let _ = Command::new("ip").args(["netns", "delete", namespace]).stderr(Stdio::null()).status();
}

fn add_namespace(name: &str) {
    run(&format!("ip netns add {name}"), "");
    in_namespace(name, "ip link set lo up");
    in_namespace(name, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
}

fn in_namespace(name: &str, command: &str) {
    run(&format!("ip netns exec {name} {command}"), "");
}

/// Runs a command whose words hold no spaces.
fn run(command: &str, input: &str) {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap();
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {complaint} (namespaces need root, ip and nft)");
}
