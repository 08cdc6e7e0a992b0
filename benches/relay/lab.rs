//! Two namespaces and a veth pair between them; gone when dropped.

use std::fs;
use std::process::Command;

/// Address of the generator: clients and peers.
pub(crate) const GENERATOR: &str = "25.77.0.2";
/// Address of the server under test. Globally routable by its number, so that no peer policy minds.
pub(crate) const RELAY: &str = "25.77.0.1";
/// The core of the generator.
pub(crate) const GENERATOR_CORE: &str = "0";
/// The core of the server.
pub(crate) const RELAY_CORE: &str = "1";

/// One queue, so that one thread receives everything.
const QUEUES: &str = "numtxqueues 1 numrxqueues 1";
/// Real-time priority of all that is measured, where that is asked for: what else runs on the machine takes nothing
/// from it then, but neither do the threads of one core take turns as they usually do.
const PRIORITY: &str = "10";

/// What is missing to run at all.
pub(crate) fn missing() -> Option<String> {
    for program in ["ip", "ethtool", "taskset", "chrt"] {
        if Command::new("which").arg(program).output().is_ok_and(|output| !output.status.success()) {
            return Some(format!("{program} is not installed"));
        }
    }
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return Some("two cores are needed".into());
    }
    let id = Command::new("id").arg("-u").output().ok()?;
    (id.stdout.trim_ascii() != b"0").then(|| "root is needed for network namespaces".into())
}

/// The network.
pub(crate) struct Lab {
    name: String,
    owned: bool,
    realtime: bool,
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
}

impl Lab {
    /// Builds it.
    pub(crate) fn new(realtime: bool) -> Self {
        let lab = Self { name: format!("passerelle-bench-{}", std::process::id()), owned: true, realtime };
        let (generator, relay) = (lab.generator(), lab.relay());
        for command in [
            format!("ip netns add {generator}"),
            format!("ip netns add {relay}"),
            format!("ip -n {relay} link add r0 {QUEUES} type veth peer name g0 {QUEUES} netns {generator}"),
            format!("ip -n {relay} address add {RELAY}/24 dev r0"),
            format!("ip -n {generator} address add {GENERATOR}/24 dev g0"),
            format!("ip -n {relay} link set lo up"),
            format!("ip -n {generator} link set lo up"),
            format!("ip netns exec {relay} ethtool -K r0 gro on gso off tso off tx-udp-segmentation off"),
            format!("ip netns exec {generator} ethtool -K g0 gro on gso off tso off tx-udp-segmentation off"),
            format!("ip -n {relay} link set r0 up"),
            format!("ip -n {generator} link set g0 up"),
            format!("ip netns exec {relay} sysctl -qw net.ipv4.ip_local_reserved_ports=20000-60000"),
            format!("ip netns exec {generator} sysctl -qw net.ipv4.ip_local_port_range=10000\t65000"),
        ] {
            if command.contains("port_range") {
                // The value holds a space.
                let (head, tail) = command.split_once('\t').unwrap();
                let output = Command::new("sh").args(["-c", &format!("{head}' {tail}'")]).output().unwrap();
                assert!(output.status.success(), "{command}");
            } else {
                run(&command);
            }
        }
        for (namespace, device, core) in [(&relay, "r0", RELAY_CORE), (&generator, "g0", GENERATOR_CORE)] {
            let file = format!("/sys/class/net/{device}/threaded");
            let command = format!("ip netns exec {namespace} sh -c \"echo 1 > {file}\"");
            let _ = Command::new("sh").args(["-c", &command]).output();
            for thread in napi_threads(device) {
                run(&format!("taskset -pc {core} {thread}"));
                if realtime {
                    run(&format!("chrt -f -p {PRIORITY} {thread}"));
                }
            }
        }
        lab
    }

    /// The same, seen from inside.
    pub(crate) fn inside(name: &str, realtime: bool) -> Self {
        Self { name: name.to_owned(), owned: false, realtime }
    }

    /// What a measured program is started with: its namespace, its priority, its core.
    fn prefix(&self, namespace: &str, core: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]);
        if self.realtime {
            command.args(["chrt", "-f", PRIORITY]);
        }
        command.args(["taskset", "-c", core]);
        command
    }

    /// Runs this program again in the generator's namespace, on its core.
    pub(crate) fn run_inside(&self) {
        let program = std::env::current_exe().unwrap();
        let status = self
            .prefix(&self.generator(), GENERATOR_CORE)
            .arg(program)
            .args(std::env::args().skip(1))
            .args(["--inside", &self.name])
            .status()
            .unwrap();
        assert!(status.success(), "the measurement failed");
    }

    fn generator(&self) -> String {
        format!("{}-g", self.name)
    }

    fn relay(&self) -> String {
        format!("{}-r", self.name)
    }

    /// A command that runs beside the server, on its core.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.prefix(&self.relay(), RELAY_CORE);
        command.arg(program);
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned {
            for namespace in [self.generator(), self.relay()] {
                let _ = Command::new("ip").args(["netns", "delete", &namespace]).output();
            }
        }
    }
}

/// The kernel threads that poll a device. The newest ones: another run may have a device of that name.
pub(crate) fn napi_threads(device: &str) -> Vec<u32> {
    let prefix = format!("napi/{device}-");
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
        name.starts_with(&prefix).then_some(id)
    });
    processes.max().into_iter().collect()
}

/// Bytes in the kernel's caches of sockets, files and their event registrations.
pub(crate) fn kernel_sockets() -> u64 {
    const CACHES: [&str; 9] = [
        "UDP ",
        "UDPv6 ",
        "sock_inode_cache ",
        "dentry ",
        "filp ",
        "eventpoll_epi ",
        "eventpoll_pwq ",
        "ep_head ",
        "fdtable ",
    ];
    let text = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let bytes = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let active: u64 = words.next()?.parse().ok()?;
        let size: u64 = words.nth(1)?.parse().ok()?;
        Some(active * size)
    };
    text.lines().filter(|line| CACHES.iter().any(|cache| line.starts_with(cache))).filter_map(bytes).sum()
}
