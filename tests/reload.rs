//! Another configuration for a running server: applied whole or not at all, without a lost packet.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use serde_json::Value;
use stun::attributes::AttrType;
use stun::message::METHOD_BINDING;
use support::server::{ALICE, BOB, LOOPBACK_PEERS, SECRET, TOKEN_SECRET};
use support::stun_client::rest_credential;
use support::{Client, EchoPeer, PATIENCE, Request, Server, eventually, http_get};

const NEW_SECRET: &str = "another shared secret that is just as long";
const HOUR: Duration = Duration::from_secs(3600);

/// The code of an Allocate of a client that has no allocation yet.
#[track_caller]
fn allocates(server: &Server, user: (&str, &str)) -> u16 {
    Client::new(server.turn()).with_user(user).ask_signed(Request::allocate()).code()
}

/// A user of the TURN REST kind.
fn rest(user: &str, secret: &str) -> (String, String) {
    rest_credential(user, secret, HOUR)
}

fn pair(user: &(String, String)) -> (&str, &str) {
    (&user.0, &user.1)
}

/// A client with a channel to an echoing peer.
#[track_caller]
fn relaying(server: &Server) -> (Client, EchoPeer) {
    let peer = EchoPeer::start();
    let (mut client, _) = Client::allocated(server.turn());
    assert_eq!(client.ask_signed(Request::channel_bind(0x4000, peer.address)).code(), 0);
    (client, peer)
}

fn secrets(secrets: &[&str]) -> String {
    format!("[turn]\nsecrets = {secrets:?}\n")
}

#[test]
fn twenty_reloads_lose_no_packet() {
    let server = Server::start(LOOPBACK_PEERS);
    let (mut client, _peer) = relaying(&server);
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20 {
                let limits = format!("[limits]\npermissions = {}\n[turn]\n", 10 + round);
                let users = format!("users = [{{ name = \"alice\", password = \"{}\" }}]\n", ALICE.1);
                let deny = format!(
                    "[relay]\nallow_peers = [\"127.0.0.0/8\"]\ndeny_peers = [\"127.9.{round}.0/24\"]\n"
                );
                server.reloaded(&format!("{limits}{users}{deny}"));
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut sent = 0_u32;
        while !done.load(Ordering::Relaxed) {
            // Several on their way at any time, and each one of them back.
            for number in sent..sent + 16 {
                client.send_channel_data(0x4000, &number.to_be_bytes());
            }
            for number in sent..sent + 16 {
                let echoed = client.receive();
                assert_eq!(echoed.get(4..8), Some(&number.to_be_bytes()[..]), "after {sent}");
            }
            sent += 16;
        }
        sent
    });
    assert!(sent >= 20, "the load was no load: {sent}");
    assert_eq!(client.ask_signed(Request::refresh(600)).code(), 0);
    server.await_metric("passerelle_relay_dropped_total", &[], 0.0);
    server.await_metric("passerelle_turn_allocations", &[], 1.0);
}

#[test]
fn a_wrong_configuration_changes_nothing_and_says_what_is_wrong() {
    let server = Server::start(LOOPBACK_PEERS);
    let file = server.folder().join("passerelle.toml");
    let new = rest("new", NEW_SECRET);
    let with_secret = secrets(&[NEW_SECRET]);
    let mut nonsense = 0;
    for (wrong, expected) in [
        ("[relay]\ndeny_peers = [\"10.0.0.0/33\"]\n", "relay.deny_peers[0]: "),
        ("[relay]\nprots = \"1-2\"\n", "relay.prots: there is no such key"),
        ("[limits]\nchannels = \"many\"\n", "limits.channels: invalid type"),
        ("[log]\nlevel = \"info,=x=\"\n", "log.level: "),
        ("[http]\norigins = [\"https://[::1\"]\n", "http.origins"),
        ("[auth.jwt]\nsecret = \"short\"\n", "auth.jwt.secret: has 5 bytes"),
    ] {
        let said = server.not_reloaded(&format!("{with_secret}{wrong}"));
        assert!(said.contains(expected), "expected: {expected}\n{said}");
        assert!(!said.contains(NEW_SECRET));
        nonsense += 1;
        assert_eq!(allocates(&server, pair(&new)), 401, "{wrong}");
    }
    for broken in ["", "not = toml = at all", "\u{0}\u{0}", "[turn]\nsecrets = []\n[listen]\nudp = []\n"] {
        std::fs::write(&file, broken).unwrap();
        let count = |log: String| log.matches("configuration not reloaded").count();
        server.signal("HUP");
        nonsense += 1;
        eventually("it is refused", || (count(server.log()) == nonsense).then_some(()));
    }
    std::fs::remove_file(&file).unwrap();
    server.signal("HUP");
    eventually("a missing file is named", || server.log().contains("cannot read it").then_some(()));
    assert_eq!(allocates(&server, pair(&rest("old", SECRET))), 0);
    // And a good one is taken after all that.
    let count = |result| server.scrape().sum("passerelle_config_reloads_total", &[("result", result)]);
    let refused = count("refused");
    assert!(refused >= 1.0 && count("applied") == 0.0);
    server.reloaded(&with_secret);
    assert_eq!(allocates(&server, pair(&new)), 0);
    assert_eq!((count("refused"), count("applied")), (refused, 1.0));
}

#[test]
fn a_key_that_needs_a_restart_is_named_and_nothing_is_applied() {
    let server = Server::start("");
    for (section, key) in [
        ("[listen]\nhttp = [\"127.0.0.1:1\"]\n", "listen.http"),
        ("[relay]\nports = \"50000-50010\"\n", "relay.ports"),
        ("[relay]\naddresses = [\"127.0.0.3\"]\n", "relay.addresses"),
        ("[relay]\nworkers = 1\n", "relay.workers"),
        ("[store]\nurl = \"sqlite:other.db\"\n", "store.url"),
        ("[public]\nhosts = [\"turn.example.org\"]\n", "public.hosts"),
        ("[log]\nformat = \"text\"\n", "log.format"),
    ] {
        let said = server.not_reloaded(&format!("{}{section}", secrets(&[NEW_SECRET])));
        assert!(said.contains(&format!("{key} cannot change while the service runs")), "{key}: {said}");
    }
    let both = server.not_reloaded("[relay]\nworkers = 1\n[listen]\nmetrics = []\n");
    assert!(both.contains("listen.metrics, relay.workers cannot change"), "{both}");
    assert_eq!(allocates(&server, pair(&rest("new", NEW_SECRET))), 401);
    assert_eq!(allocates(&server, pair(&rest("old", SECRET))), 0);
}

#[test]
fn a_tightened_policy_ends_permissions_within_a_second() {
    let server = Server::start(LOOPBACK_PEERS);
    let (client, peer) = relaying(&server);
    client.send_channel_data(0x4000, b"open");
    assert_eq!(client.receive().get(4..), Some(&b"open"[..]));
    let deny = format!("{LOOPBACK_PEERS}deny_peers = [\"127.0.0.2/32\"]\n");
    let said = server.reloaded(&deny);
    let applied = Instant::now();
    assert!(said.contains("relay.deny_peers"), "{said}");
    loop {
        client.send_channel_data(0x4000, b"still open?");
        if client.receive_within(Duration::from_millis(200)).is_none() {
            break;
        }
        assert!(applied.elapsed() < Duration::from_secs(1), "the permission outlives its policy");
    }
    server.await_metric("passerelle_turn_permissions", &[], 0.0);
    server.await_metric("passerelle_turn_channels", &[], 0.0);
    let mut client = client;
    assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 403);
    server.reloaded(LOOPBACK_PEERS);
    assert_eq!(client.ask_signed(Request::permission(&[peer.address])).code(), 0);
}

#[test]
fn a_rotated_secret_signs_first_and_the_old_one_verifies_until_it_is_removed() {
    let anonymous = "[auth]\nanonymous = \"loopback\"\n";
    let server = Server::start(anonymous);
    let (old, new) = (rest("ana", SECRET), rest("ana", NEW_SECRET));
    assert_eq!(allocates(&server, pair(&new)), 401);
    let mut running = Client::new(server.turn()).with_user(pair(&old));
    running.ask_signed(Request::allocate()).relayed();

    let said = server.reloaded(&format!("{anonymous}{}", secrets(&[NEW_SECRET, SECRET])));
    assert!(said.contains("turn.secrets"), "{said}");
    assert!(!said.contains(SECRET) && !said.contains(NEW_SECRET), "a secret is in the log");
    assert_eq!((allocates(&server, pair(&old)), allocates(&server, pair(&new))), (0, 0));
    assert_eq!(running.ask_signed(Request::refresh(600)).code(), 0);
    let (status, body) = http_get::get(server.http, "/api/v1/ice-servers").unwrap();
    assert_eq!(status, 200, "{body}");
    let minted: Value = serde_json::from_str(&body).unwrap();
    let minted = &minted["iceServers"][1];
    let user = (minted["username"].as_str().unwrap(), minted["credential"].as_str().unwrap());
    let answer = Client::new(server.turn()).with_user(user).ask_signed(Request::allocate());
    assert_eq!(answer.code(), 0);

    server.reloaded(&format!("{anonymous}{}", secrets(&[NEW_SECRET])));
    assert_eq!((allocates(&server, pair(&old)), allocates(&server, pair(&new))), (401, 0));
    assert_eq!(allocates(&server, user), 0, "minted with the new secret before the old one was removed");
    assert_eq!(running.ask_signed(Request::refresh(600)).code(), 401);
}

#[test]
fn users_and_quotas_follow() {
    let quota = |count: u32| format!("[limits]\nallocations_per_user = {count}\n");
    let server = Server::start(&quota(1));
    let (mut first, _) = Client::allocated(server.turn());
    assert_eq!(allocates(&server, ALICE), 486);
    server.reloaded(&quota(2));
    let (_second, _) = Client::allocated(server.turn());
    assert_eq!(allocates(&server, ALICE), 486);
    assert_eq!(allocates(&server, BOB), 0);
    let only_alice = format!("[turn]\nusers = [{{ name = \"alice\", password = \"{}\" }}]\n", ALICE.1);
    let said = server.reloaded(&only_alice);
    assert!(said.contains("turn.users") && said.contains("limits.allocations_per_user"), "{said}");
    assert!(!said.contains("alice"), "a user is in the log: {said}");
    assert_eq!(allocates(&server, BOB), 401);
    assert_eq!(first.ask_signed(Request::refresh(600)).code(), 0);
}

#[test]
fn the_level_of_the_log_follows() {
    let level = |level: &str| format!("[log]\nlevel = \"{level}\"\n");
    let server = Server::start(&level("info"));
    let client = Client::new(server.turn());
    let asks = || assert_eq!(client.ask(&Request::new(METHOD_BINDING).with(AttrType(0x7F), &[])).code(), 420);
    asks();
    assert!(!server.log().contains("\"level\":\"TRACE\""));
    server.reloaded(&level("info,passerelle::turn=trace"));
    eventually("a refusal is traced", || {
        asks();
        server.log().contains("\"level\":\"TRACE\"").then_some(())
    });
    server.reloaded(&level("warn"));
    server.reloaded(&level("info"));
}

#[test]
fn who_may_call_follows() {
    let server = Server::start("[auth]\nanonymous = \"loopback\"\n");
    let asks = || http_get::get(server.http, "/api/v1/ice-servers").unwrap().0;
    assert_eq!(asks(), 200);
    server.reloaded("[auth]\nanonymous = \"off\"\n");
    assert_eq!(asks(), 401);
    let claims = serde_json::json!({"sub": "ana", "exp": 4_000_000_000_u64});
    let token = |secret: &str| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let with = |secret: &str| {
        let path = format!("/api/v1/ice-servers?access_token={}", token(secret));
        http_get::get(server.http, &path).unwrap().0
    };
    assert_eq!((with(TOKEN_SECRET), with(NEW_SECRET)), (200, 401));
    let said = server.reloaded(&format!("[auth.jwt]\nsecret = \"{NEW_SECRET}\"\n"));
    assert!(said.contains("auth.jwt.secret") && !said.contains(NEW_SECRET), "{said}");
    assert_eq!((with(TOKEN_SECRET), with(NEW_SECRET)), (401, 200));
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_passerelle"));
    for name in ["LISTEN__UDP", "LISTEN__HTTP", "LISTEN__METRICS"] {
        command.env(format!("PASSERELLE__{name}"), "127.0.0.1:0");
    }
    command.env("PASSERELLE__LISTEN__TCP", "").env("PASSERELLE__STORE__URL", "sqlite::memory:");
    let file = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut child = command.current_dir(&folder).stderr(file).spawn().unwrap();
    let log = || std::fs::read_to_string(folder.path().join("log")).unwrap();
    let signal = |name: &str| {
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    };
    eventually("it is ready", || log().contains("\"ready\"").then_some(()));
    signal("HUP");
    eventually("it says so", || log().contains("there is nothing to reload").then_some(()));
    signal("TERM");
    let status = eventually("it stops", || child.try_wait().unwrap());
    assert!(status.success(), "{}", log());
}

#[test]
fn the_service_manager_hears_of_start_reload_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];
    let server = Server::start_in("", &environment);
    let hears = |what: &str| {
        let mut buffer = [0; 1024];
        loop {
            let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("no {what}: {error}"));
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if said.lines().any(|line| line == what) {
                return said;
            }
        }
    };
    hears("READY=1");
    hears("WATCHDOG=1");
    server.reloaded("[limits]\nchannels = 7\n");
    assert!(hears("RELOADING=1").contains("MONOTONIC_USEC="));
    hears("READY=1");
    server.signal("TERM");
    assert!(hears("STOPPING=1").contains("EXTEND_TIMEOUT_USEC="));
    server.stopped();
}

/// A certificate for `localhost` with its key, in the files that the server reads; gives the certificate.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    let key = folder.join("key.pem");
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    made.cert.der().clone()
}

/// A TLS connection of a client that trusts this certificate alone.
fn connect(address: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<Tls> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection =
        rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut tls = rustls::StreamOwned::new(connection, socket);
    tls.conn.complete_io(&mut tls.sock)?;
    Ok(tls)
}

type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// Sends a Binding request and reads the head of its answer.
#[track_caller]
fn binds(tls: &mut Tls) {
    tls.write_all(Request::new(METHOD_BINDING).bytes()).unwrap();
    let mut head = [0; 20];
    tls.read_exact(&mut head).unwrap();
    assert_eq!(head[..2], [0x01, 0x01], "a success of Binding");
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    tls.read_exact(&mut rest).unwrap();
}

#[test]
fn a_renewed_certificate_is_taken_without_a_dropped_connection_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let first = certify(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let config = format!(
        "[listen]\ntls = [\"127.0.0.1:0\"]\n[tls]\ncert = {:?}\nkey = {:?}\n",
        path("cert.pem"),
        path("key.pem")
    );
    let server = Server::start(&config);
    let address = eventually("the TLS listener logs its address", || {
        let log = server.log();
        let line = log.lines().find(|line| line.contains("\"listener\":\"tls\""))?;
        let line: Value = serde_json::from_str(line).unwrap();
        line["address"].as_str()?.parse::<SocketAddr>().ok()
    });
    let mut connected = connect(address, &first).unwrap();
    binds(&mut connected);

    let second = certify(folder.path());
    server.reloaded(&config);
    // The file watch may be on its way too, so the reload's own is not the only chance.
    let mut renewed = eventually("the new certificate is shown", || connect(address, &second).ok());
    binds(&mut renewed);
    assert!(connect(address, &first).is_err(), "the old certificate is still shown");
    binds(&mut connected);

    std::fs::write(path("cert.pem"), "no certificate at all").unwrap();
    server.reload(&config);
    eventually("the broken one is named", || {
        server.log().contains("the old certificate stays in use").then_some(())
    });
    binds(&mut connect(address, &second).unwrap());
    binds(&mut connected);
}
