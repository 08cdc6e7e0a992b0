//! What leaves the relay in groups is well formed on the wire: a client, a peer and a capture in a network of their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and tells why"
)]

mod lab;
mod support;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use lab::{Host, Lab, Nat, SERVER};
use support::{Client, Request, eventually};

/// The client's address in [`Lab`].
const CLIENT: &str = "25.1.1.2";
/// Expedited forwarding, as voice is marked.
const MARK: u32 = 0xB8;
const INSIDE: &str = "TEST_INSIDE_THE_LAB";

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn server(lab: &Lab, folder: &Path) -> Ended {
    let config = format!(
        "[listen]\nudp = [\"{SERVER}:3478\"]\ntcp = []\nhttp = []\nmetrics = [\"127.0.0.1:9090\"]\n\
         [turn]\nrealm = \"passerelle.test\"\nusers = [{{ name = \"alice\", password = \"correct horse battery staple\" }}]\n\
         [relay]\naddresses = [\"{SERVER}\"]\nworkers = 1\n[store]\nurl = \"sqlite::memory:\"\n"
    );
    let file = folder.join("passerelle.toml");
    fs::write(&file, config).unwrap();
    let mut command = lab.command(Host::Server, env!("CARGO_BIN_EXE_passerelle"));
    command.args(["run", "--config"]).arg(file).current_dir(folder);
    command.stdout(File::create(folder.join("server.log")).unwrap());
    command.stderr(File::create(folder.join("server.err")).unwrap());
    Ended(command.spawn().unwrap())
}

/// Runs this very test again beside the client.
fn inside(lab: &Lab, test: &str) {
    inside_phase(lab, test, "1");
}

/// The same for a test of several phases.
fn inside_phase(lab: &Lab, test: &str, phase: &str) {
    let mut command = lab.command(Host::A, std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(INSIDE, phase).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("1 passed"), "{out}");
}

fn on_server(lab: &Lab, command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = lab.command(Host::Server, words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A client with an allocation, once the server is up.
fn allocated() -> (Client, SocketAddr) {
    let server = format!("{SERVER}:3478").parse().unwrap();
    eventually("the server is up", || {
        let probe = UdpSocket::bind((CLIENT, 0)).unwrap();
        probe.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        probe.send_to(Request::new(stun::message::METHOD_BINDING).bytes(), server).unwrap();
        probe.recv(&mut [0; 64]).is_ok().then(|| Client::allocated(server))
    })
}

/// A client and its peer exchange bursts; everything arrives whole and in order.
fn exchange_bursts() {
    let (mut client, relayed) = allocated();
    let peer = UdpSocket::bind((CLIENT, 0)).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket2::SockRef::from(&peer).set_tos_v4(MARK).unwrap();
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.local_addr().unwrap())).code(), 0);
    for (round, size) in [1000, 160, 1200, 1001].into_iter().enumerate() {
        let data = |at: u8| vec![at ^ round as u8; size];
        (0..40).for_each(|at| client.send_channel_data(0x4000, &data(at)));
        let mut buffer = [0; 2048];
        for at in 0..40 {
            let (length, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!((from, &buffer[..length]), (relayed, &data(at)[..]), "{at} of {size} bytes");
        }
        (0..40).for_each(|at| assert_eq!(peer.send_to(&data(at), relayed).unwrap(), data(at).len()));
        (0..40).for_each(|at| assert_eq!(client.receive()[4..], data(at), "{at} of {size} bytes"));
    }
}

#[test]
fn every_checksum_is_right_and_marks_are_kept() {
    if std::env::var_os(INSIDE).is_some() {
        return exchange_bursts();
    }
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new(Nat::None);
    // Without checksum offload on the way out, what is captured is what a wire would carry.
    on_server(&lab, "ethtool -K to1 tx off");
    let _server = server(&lab, folder.path());
    let mut capture = lab.command(Host::A, "tcpdump");
    capture.args([
        "-i",
        "eth0",
        "-n",
        "-vv",
        "-l",
        "--immediate-mode",
        "-s",
        "1600",
        "-B",
        "16384",
        "udp and src host",
        SERVER,
    ]);
    let captured = folder.path().join("capture.txt");
    capture.stdout(File::create(&captured).unwrap()).stderr(Stdio::piped());
    let mut capture = capture.spawn().unwrap();
    let ready = BufReader::new(capture.stderr.take().unwrap())
        .lines()
        .any(|line| line.is_ok_and(|line| line.contains("listening on")));
    assert!(ready, "tcpdump does not start");
    let _capture = Ended(capture);
    inside(&lab, "every_checksum_is_right_and_marks_are_kept");
    let text = eventually("160 datagrams either way, each with a good checksum", || {
        let text = fs::read_to_string(&captured).unwrap();
        (text.matches("[udp sum ok]").count() >= 320).then_some(text)
    });
    assert_eq!(text.matches("bad udp cksum").count(), 0, "{text}");
    assert_eq!(text.matches("[no cksum]").count(), 0, "{text}");
    let marked = text.matches("tos 0xb8").count();
    assert!(marked >= 160, "{marked} of 160 datagrams of the peer kept their mark");
}

#[test]
fn a_route_too_small_for_groups_gets_every_datagram() {
    // What arrives just fits; behind the head of a Data indication it does not, and has to leave in fragments.
    const SIZE: usize = 1000;
    const MTU: usize = SIZE + 28 + 20;
    if std::env::var_os(INSIDE).is_some() {
        let (mut client, relayed) = allocated();
        let peer = UdpSocket::bind((CLIENT, 0)).unwrap();
        let address = peer.local_addr().unwrap();
        assert_eq!(client.ask_signed(Request::permission(&[address])).code(), 0);
        for round in 0..3 {
            let data = |at: u8| vec![at ^ round; SIZE];
            (0..40).for_each(|at| assert_eq!(peer.send_to(&data(at), relayed).unwrap(), data(at).len()));
            (0..40).for_each(|at| assert_eq!(client.receive_data(), (address, data(at)), "{at} of {round}"));
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new(Nat::None);
    on_server(&lab, &format!("ip link set to1 mtu {MTU}"));
    let _server = server(&lab, folder.path());
    inside(&lab, "a_route_too_small_for_groups_gets_every_datagram");
}

/// What a route cannot take now is dropped and counted, answers and other clients' media go on, and once there is room
/// again so does everything.
#[test]
fn a_full_queue_of_the_system_loses_data_and_nothing_else() {
    const THIN: &str = "tbf rate 2mbit burst 4kb limit 8kb";
    if let Some(phase) = std::env::var_os(INSIDE) {
        let (mut client, _) = allocated();
        let peer = UdpSocket::bind((CLIENT, 0)).unwrap();
        peer.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.local_addr().unwrap())).code(), 0);
        let mut arrived = 0;
        for _ in 0..4 {
            // Each larger than the one before: nothing is grouped, so the system says of each what became of it.
            (0..32).for_each(|at| client.send_channel_data(0x4000, &vec![7; 900 + at]));
            while peer.recv(&mut [0; 2048]).is_ok() {
                arrived += 1;
            }
            assert!(client.ask_signed(Request::refresh(600)).is_success(), "control goes on");
            if arrived > 0 && phase != "wide" {
                break;
            }
        }
        assert!(arrived > 0);
        assert!(phase != "wide" || arrived == 4 * 32, "{arrived} arrived");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new(Nat::None);
    let _server = server(&lab, folder.path());
    let test = "a_full_queue_of_the_system_loses_data_and_nothing_else";
    on_server(&lab, &format!("tc qdisc add dev to1 root {THIN}"));
    inside_phase(&lab, test, "thin");
    let lost = on_server(&lab, "curl -s http://127.0.0.1:9090/metrics");
    let lost = lost.lines().filter(|line| line.starts_with("passerelle_relay_dropped_total"));
    let lost: Vec<&str> = lost.filter(|line| !line.ends_with(" 0")).collect();
    assert!(!lost.is_empty(), "nothing was lost");
    assert!(lost.iter().all(|line| line.contains("send_buffer")), "{lost:?}");
    on_server(&lab, "tc qdisc del dev to1 root");
    inside_phase(&lab, test, "wide");
}
