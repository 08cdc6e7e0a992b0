//! Configuration: the shipped files, the order of the sources, and every error with its place and the way out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use passerelle::auth::Mode as Anonymous;
use passerelle::config::{self, Config, File, Flag, Host, Mode, Sources, reference};
use passerelle::turn::ExpiryPolicy;
use proptest::prelude::*;
use secrecy::ExposeSecret as _;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn host() -> Host {
    Host {
        routed: vec!["198.18.0.5".parse().unwrap(), "2001:db8::5".parse().unwrap()],
        addresses: vec!["198.18.0.5".parse().unwrap(), "2001:db8::5".parse().unwrap()],
        subnets: vec!["198.18.0.0/24".parse().unwrap()],
        open_files: Some(1_000_000),
        ipv6: true,
    }
}

/// Writes `passerelle.toml` into a directory of its own.
fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("passerelle.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (directory, path)
}

fn load_with(text: &str, environment: &[(&str, &str)], flags: &[Flag]) -> Result<Config, String> {
    let (directory, path) = written(text);
    let sources = Sources {
        file: Some(path),
        environment: environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        flags: flags.to_vec(),
    };
    config::load(&sources, &host())
        .map_err(|error| error.to_string().replace(&format!("{}/", directory.path().display()), ""))
}

fn load(text: &str) -> Result<Config, String> {
    load_with(text, &[], &[])
}

/// A configuration without a mistake, and `more` behind it.
fn good(more: &str) -> String {
    format!("turn.secrets = [\"{SECRET}\"]\n{more}")
}

#[track_caller]
fn refuses(text: &str, expected: &str) {
    let error = load(text).expect_err("this loads");
    assert!(error.contains(expected), "expected: {expected}\n     got: {error}");
}

// --- shipped files

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

#[test]
fn the_reference_file_is_what_the_code_says() {
    let expected = reference().unwrap();
    let path = shipped("passerelle.toml");
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    assert!(found == expected, "run REWRITE=1 cargo test --test config (first difference: {differs:?})");
}

#[test]
fn the_reference_file_holds_the_defaults_of_every_key() {
    let read: toml::Table = toml::from_str(&reference().unwrap()).unwrap();
    let defaults = toml::Table::try_from(File::default()).unwrap();
    for (section, keys) in &defaults {
        assert_eq!(read.get(section), Some(keys), "[{section}]");
    }
    assert_eq!(read.len(), defaults.len());
}

#[test]
fn every_key_and_section_of_the_reference_file_is_explained() {
    let text = reference().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let entries = lines.windows(2).filter(|pair| !pair[1].starts_with('#') && !pair[1].is_empty());
    for pair in entries {
        assert!(pair[0].starts_with("# ") && pair[0].len() > 8, "no comment above: {}", pair[1]);
    }
    assert!(lines.iter().all(|line| line.chars().count() <= 120));
}

#[test]
fn every_shipped_file_loads_once_its_secrets_are_there() {
    for name in ["passerelle.toml", "minimal.toml", "production.toml"] {
        let (directory, _) = written("");
        let mut text = std::fs::read_to_string(shipped(name)).unwrap();
        for secret in ["turn.secret", "jwt.secret"] {
            let path = directory.path().join(secret);
            std::fs::write(&path, SECRET).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
            text = text.replace(&format!("/etc/passerelle/{secret}"), path.to_str().unwrap());
        }
        if name == "passerelle.toml" {
            text = text.replace("secrets = []", &format!("secrets = [\"{SECRET}\"]"));
        }
        let config = load(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(config.mode, Mode::File);
        assert_eq!(config.turn_secrets.len(), 1);
        assert_eq!(config.auth.token.is_some(), name != "passerelle.toml");
    }
}

// --- the order of the sources

#[test]
fn a_variable_wins_over_the_file_and_a_flag_over_both() {
    let text = good("listen.http = [\"127.0.0.1:1\"]\nlog.level = \"warn\"\nrelay.workers = 3\n");
    let environment = [("PASSERELLE__LISTEN__HTTP", "127.0.0.1:2"), ("PASSERELLE__LOG__LEVEL", "debug")];
    let flag = Flag { name: "--http", key: "listen.http", value: "127.0.0.1:3".into() };
    let config = load_with(&text, &environment, &[flag]).unwrap();
    assert_eq!(config.http.http, ["127.0.0.1:3".parse().unwrap()]);
    assert_eq!(config.logging.filter, "debug");
    assert_eq!(config.net.workers, 3);
    assert_eq!(config.http.metrics, ["127.0.0.1:9090".parse().unwrap()]);
}

#[test]
fn variables_hold_every_kind_of_value() {
    let environment = [
        ("PASSERELLE__LISTEN__UDP", "127.0.0.1:1000, [::1]:1000"),
        ("PASSERELLE__LISTEN__METRICS", ""),
        ("PASSERELLE__PUBLIC__EXTERNAL_IPS", "{ \"198.18.0.5\" = \"192.0.2.7\" }"),
        ("PASSERELLE__RELAY__PEER_PORTS", "443, 53"),
        ("PASSERELLE__RELAY__WORKERS", "2"),
        ("PASSERELLE__TURN__USERS", "[{ name = \"alice\", password = \"pw\" }]"),
        ("PASSERELLE__TURN__EXPIRY", "cut"),
        ("PASSERELLE__TURN__LIFETIME_MAX", "2h"),
        ("PASSERELLE__AUTH__JWT__SECRET", SECRET),
        ("PASSERELLE__AUTH__ANONYMOUS_IN_PUBLIC", "true"),
        ("PASSERELLE__SIGNALING__RATES__INITIATE__COUNT", "60"),
        ("PASSERELLE_LOG", "not one of ours"),
        ("HOME", "/root"),
    ];
    let config = load_with(&good(""), &environment, &[]).unwrap();
    assert_eq!(config.net.udp.len(), 2);
    assert!(config.http.metrics.is_empty());
    assert_eq!(config.public_hosts, ["192.0.2.7", "2001:db8::5"]);
    assert_eq!(config.turn.peers.low_ports, [443, 53]);
    assert_eq!(config.net.workers, 2);
    assert_eq!(config.turn_users[0].0, "alice");
    assert_eq!(config.turn.expiry, ExpiryPolicy::Cut);
    assert_eq!(config.turn.lifetime_max, Duration::from_secs(7200));
    assert_eq!((config.signaling.rates.initiate.count, config.signaling.rates.initiate.burst), (60, 5));
    assert_eq!(config.auth.token.unwrap().keys.len(), 1);
}

#[test]
fn an_unknown_or_wrong_variable_is_an_error_with_its_name() {
    for (name, value, expected) in [
        ("PASSERELLE__LISTEN__HTPP", "x", "PASSERELLE__LISTEN__HTPP: listen.htpp: there is no such key"),
        ("PASSERELLE__NOWHERE__X", "x", "PASSERELLE__NOWHERE__X: nowhere.x: there is no section nowhere"),
        ("PASSERELLE__AUTH__JWT", "x", "auth.jwt is a section: it knows"),
        ("PASSERELLE__X", "x", "there is no such key: write PASSERELLE__SECTION__KEY"),
        ("PASSERELLE__RELAY__WORKERS", "many", "relay.workers: expected a whole number"),
        ("PASSERELLE__RELAY__WORKERS", "-1", "PASSERELLE__RELAY__WORKERS: relay.workers: "),
        ("PASSERELLE__AUTH__ANONYMOUS", "some", "expected one of \"off\", \"loopback\", \"any\""),
        ("PASSERELLE__AUTH__ANONYMOUS_IN_PUBLIC", "yes", "expected true or false"),
        ("PASSERELLE__DRAIN__TIMEOUT", "soon", "PASSERELLE__DRAIN__TIMEOUT: drain.timeout: "),
        (
            "PASSERELLE__RELAY__DENY_PEERS",
            "10.0.0.0/33",
            "PASSERELLE__RELAY__DENY_PEERS: relay.deny_peers[0]: ",
        ),
    ] {
        let error = load_with(&good(""), &[(name, value)], &[]).expect_err(name);
        assert!(error.contains(expected), "expected: {expected}\n     got: {error}");
    }
}

// --- development mode

fn development(host: &Host) -> Config {
    config::load(&Sources::default(), host).unwrap()
}

#[test]
fn without_a_file_it_tries_out_on_one_machine() {
    let config = development(&host());
    assert_eq!(config.mode, Mode::Development);
    assert_eq!(config.auth.anonymous, Anonymous::Loopback);
    assert_eq!(config.net.udp, ["0.0.0.0:3478".parse().unwrap(), "[::]:3478".parse().unwrap()]);
    assert_eq!(config.http.http, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(config.turn.peers.allow, ["198.18.0.0/24".parse().unwrap()]);
    assert_eq!(config.turn_secrets[0].expose_secret().len(), 64);
    assert!(config.notices.iter().any(|notice| notice.contains("198.18.0.0/24")), "{:?}", config.notices);
    let other = development(&host());
    assert_ne!(config.turn_secrets[0].expose_secret(), other.turn_secrets[0].expose_secret());
}

#[test]
fn loopback_relays_only_where_there_is_nothing_else() {
    let isolated = Host { ipv6: true, ..Host::default() };
    let config = development(&isolated);
    let relays: Vec<String> = config.turn.relay_addresses.iter().map(|a| a.local.to_string()).collect();
    assert_eq!(relays, ["127.0.0.1", "::1"]);
    assert_eq!(config.turn.peers.allow.len(), 2);
    let without_route = Host { routed: Vec::new(), ..host() };
    assert_eq!(development(&without_route).turn.relay_addresses.len(), 2);
    let without_ipv6 = Host { ipv6: false, ..Host::default() };
    let net = development(&without_ipv6).net;
    assert_eq!((&net.udp, &net.tcp), (&vec!["0.0.0.0:3478".parse().unwrap()], &net.udp));
}

#[test]
fn a_file_allows_no_peer_that_it_does_not_name() {
    assert!(load(&good("")).unwrap().turn.peers.allow.is_empty());
}

// --- errors

#[test]
fn an_unknown_key_names_its_line_and_the_known_ones() {
    refuses(
        &good("[relay]\nprots = \"1-2\"\n"),
        "passerelle.toml:3: relay.prots: there is no such key: this section knows addresses, ports",
    );
    refuses("[nowhere]\n", "passerelle.toml:1: nowhere: there is no such key");
    refuses("[auth.jwt]\n\nkey = 1\n", "passerelle.toml:3: auth.jwt.key: there is no such key");
}

#[test]
fn a_value_of_another_type_names_its_key() {
    refuses(
        &good("relay.workers = \"two\"\n"),
        "passerelle.toml:2: relay.workers: invalid type: string \"two\"",
    );
    refuses(
        &good("[listen]\nudp = [\n  \"0.0.0.0:1\",\n  7,\n]\n"),
        "passerelle.toml:5: listen.udp[1]: invalid type",
    );
    refuses("a = \n", "passerelle.toml:1: ");
}

#[test]
fn an_error_about_a_secret_does_not_show_it() {
    let error = load("[turn]\nsecrets = \"hunter2hunter2\"\n").unwrap_err();
    assert!(!error.contains("hunter2"), "{error}");
    assert!(error.starts_with("passerelle.toml:2: turn.secrets: expected a sequence"), "{error}");
    let error = load_with(&good(""), &[("PASSERELLE__TURN__SECRETS", "[17171717]")], &[]).unwrap_err();
    assert!(!error.contains("1717"), "{error}");
}

#[test]
fn secrets_are_not_printed() {
    let more = format!(
        "auth.jwt.secret = \"{SECRET}\"\nturn.users = [{{ name = \"a\", password = \"hunter2\" }}]\n"
    );
    let config = load(&good(&more)).unwrap();
    let printed = format!("{config:?}");
    assert!(!printed.contains(SECRET) && !printed.contains("hunter2"), "{printed}");
    let file: File = toml::from_str(&good(&more)).unwrap();
    let printed = format!("{file:?}{}", toml::to_string(&file).unwrap());
    assert!(!printed.contains(SECRET) && !printed.contains("hunter2"), "{printed}");
}

#[test]
fn networks_addresses_and_ports_say_how_they_are_written() {
    for (more, expected) in [
        (
            "relay.deny_peers = [\"192.0.2.0/24\", \"10.0.0.0/33\"]",
            "passerelle.toml:2: relay.deny_peers[1]: \"10.0.0.0/33\" is no network: write it like 10.0.0.0/8",
        ),
        ("relay.allow_peers = [\"10.1.2.3/8\"]", "has bits behind its prefix: write it like 10.0.0.0/8"),
        ("relay.allow_peers = [\"10.1.2.3\"]", "is an address, no network: write it like 10.1.2.3/32"),
        ("listen.udp = [\"0.0.0.0\"]", "listen.udp[0]: \"0.0.0.0\" is no socket address: write it like"),
        ("listen.http = [\"localhost:80\"]", "listen.http[0]: \"localhost:80\" is no socket address"),
        ("listen.udp = [\"[::]:1\", \"[::]:1\"]", "listen.udp[1]: \"[::]:1\" is there twice"),
        (
            "relay.ports = \"50000-40000\"",
            "relay.ports: \"50000-40000\" is empty: write the smaller port first",
        ),
        ("relay.ports = \"50000\"", "relay.ports: \"50000\" is no range of ports: write it like 49152-65535"),
        ("relay.ports = \"1000-70000\"", "is no range of ports"),
        ("relay.ports = \"3000-4000\"", "contains the port of 0.0.0.0:3478 in listen.udp"),
        ("relay.addresses = [\"0.0.0.0\"]", "relay.addresses[0]: \"0.0.0.0\" names no single address"),
        ("relay.addresses = [\"eth0\"]", "relay.addresses[0]: \"eth0\" is no IP address"),
        ("relay.peer_ports = [0]", "relay.peer_ports: port 0 is never a peer"),
        ("public.hosts = [\"turn:example.org\"]", "public.hosts[0]: \"turn:example.org\" is no host"),
        (
            "public.external_ips = { \"10.9.9.9\" = \"192.0.2.1\" }",
            "public.external_ips.\"10.9.9.9\": 10.9.9.9 is no address of the relay",
        ),
        ("public.external_ips = { \"198.18.0.5\" = \"::1\" }", "both addresses must be IPv4, or both IPv6"),
        ("limits.permissions = 0", "limits.permissions: 0 would refuse everyone"),
        ("limits.connections_per_ip = 0", "limits.connections_per_ip: 0 would refuse everyone"),
        ("limits.first_byte_timeout = \"1ms\"", "limits.first_byte_timeout: must be 1s or longer"),
        ("limits.unauthenticated_timeout = \"0s\"", "limits.unauthenticated_timeout: must be 1s or longer"),
        ("limits.stream_queue = 100", "limits.stream_queue: must be 16384 or more"),
        (
            "listen.proxy_protocol_from = [\"10.0.0.1\"]",
            "listen.proxy_protocol_from[0]: \"10.0.0.1\" is an address",
        ),
        ("listen.tls = [\"0.0.0.0:3478\"]", "listen.tls[0]: 0.0.0.0:3478 is in listen.tcp too"),
        ("turn.lifetime_max = \"1m\"", "turn.lifetime_max: must be 10m or longer"),
        ("turn.alternate_server = \"other\"", "turn.alternate_server: \"other\" is no socket address"),
        ("turn.realm = \"\"", "turn.realm: has 1 to 509 bytes"),
        ("http.origins = [\"call.example.org\"]", "http.origins[0]: \"call.example.org\" is no origin"),
        ("store.url = \"calls.db\"", "store.url: \"calls.db\" is no database: write sqlite:PATH"),
        ("log.level = \"info,=x=\"", "log.level: "),
        ("signaling.ring_timeout = \"5s\"", "signaling.ring_timeout: must be between ring_timeout_min and"),
        ("signaling.grace = \"1s\"", "signaling.reconnecting_after: must not be longer than grace"),
        ("signaling.limits.participants = 9", "signaling.limits.participants: must be 2 to 8"),
        ("signaling.limits.sdp_bytes = 200000", "signaling.limits.frame_bytes: must not be less"),
        (
            "signaling.rates.join = { count = 1, per = \"0s\", burst = 1 }",
            "passerelle.toml:2: signaling.rates.join: would refuse everything",
        ),
    ] {
        refuses(&good(more), expected);
    }
}

#[test]
fn every_way_in_can_be_configured_and_what_does_nothing_is_refused() {
    let config = load(&good(&format!(
        "auth.api_keys = [\"{SECRET}\"]\n[auth.jwt]\nsecret = \"{SECRET}\"\nalgorithm = \"HS512\"\n\
         jwks_url = \"https://id.example.org/keys\"\njwks_kids = [\"a\"]\n\
         [auth.webhook]\nurl = \"https://example.org/auth\"\nsecret = \"{SECRET}\"\n"
    )))
    .unwrap();
    let token = config.auth.token.unwrap();
    assert_eq!((token.keys.len(), token.jwks.unwrap().kids), (1, vec!["a".to_owned()]));
    assert_eq!(config.auth.api_keys.len(), 1);
    assert!(config.auth.webhook.unwrap().secret.is_some());
    for (more, problem) in [
        ("auth.webhook.url = \"example.org\"".into(), "auth.webhook.url: \"example.org\" is no URL"),
        ("auth.jwt.jwks_url = \"https://u:p@example.org\"".into(), "auth.jwt.jwks_url: "),
        ("auth.jwt.jwks_kids = [\"a\"]".into(), "auth.jwt.jwks_kids: does nothing without"),
        ("auth.jwt.algorithm = \"HS256\"".into(), "auth.jwt.algorithm: does nothing without a key"),
        (format!("auth.webhook.secret = \"{SECRET}\""), "auth.webhook.secret: does nothing without"),
        ("auth.api_keys = [\"short\"]".into(), "auth.api_keys[0]: has 5 bytes"),
        (
            format!("auth.jwt.secret = \"{SECRET}\"\nauth.jwt.algorithm = \"RS256\""),
            "auth.jwt.algorithm: the key does not fit the algorithm RS256",
        ),
        ("auth.jwt.public_key_file = \"/nonexistent\"".into(), "auth.jwt.public_key_file: cannot read"),
    ] {
        refuses(&good(&more), problem);
    }
}

#[test]
fn every_problem_is_named_at_once() {
    let error =
        load(&good("relay.ports = \"9-1\"\nrelay.deny_peers = [\"x\"]\nstore.url = \"y\"\n")).unwrap_err();
    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn a_secret_that_could_be_guessed_is_refused() {
    refuses(
        "turn.secrets = [\"short\"]",
        "turn.secrets[0]: has 5 bytes and could be guessed: use at least 32",
    );
    refuses(&good("auth.jwt.secret = \"short\""), "passerelle.toml:2: auth.jwt.secret: has 5 bytes");
    refuses(&good("auth.jwt.issuer = \"me\""), "auth.jwt.issuer: does nothing without a key");
    refuses("[listen]\n", "turn.secrets: nobody could use the relay: set turn.secrets_file");
    assert!(load("listen.udp = []\nlisten.tcp = []").is_ok());
    assert!(load("turn.users = [{ name = \"alice\", password = \"pw\" }]").is_ok());
}

#[test]
fn a_secret_file_is_for_the_service_only() {
    let (directory, _) = written("");
    let path = directory.path().join("secret");
    let text = format!("turn.secrets_file = {:?}\nauth.jwt.secret_file = {0:?}\n", path.to_str().unwrap());
    refuses(&text, "passerelle.toml:1: turn.secrets_file: cannot read");
    std::fs::write(&path, format!("# the current one\n{SECRET}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    refuses(&text, "is open to every user of this host (mode 0644): chmod 600 it");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let config = load(&text).unwrap();
    assert_eq!(config.turn_secrets[0].expose_secret(), SECRET);
    assert_eq!(config.auth.token.unwrap().keys.len(), 1);
    std::fs::write(&path, format!("{SECRET}\n{SECRET}2\n")).unwrap();
    refuses(&text, "auth.jwt.secret_file: ");
    std::fs::write(&path, "\n").unwrap();
    refuses(&text, "holds no secret");
}

#[test]
fn a_tls_listener_needs_a_certificate_and_its_key() {
    let tls = "listen.tls = [\"0.0.0.0:5349\"]\n";
    refuses(&good(tls), "passerelle.toml:2: listen.tls: needs a certificate: set tls.cert and tls.key");
    refuses(&good("tls.cert = \"a.pem\""), "tls.key: tls.cert has no key");
    refuses(&good("tls.key = \"a.pem\""), "tls.cert: tls.key has no certificate");
    let (directory, _) = written("");
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let text = good(&format!("{tls}tls.cert = {:?}\ntls.key = {:?}\n", path("cert.pem"), path("key.pem")));
    refuses(&text, "passerelle.toml:3: tls.cert: cannot read");
    std::fs::write(path("cert.pem"), "").unwrap();
    refuses(&text, "passerelle.toml:4: tls.key: cannot read");
    std::fs::write(path("key.pem"), "").unwrap();
    std::fs::set_permissions(path("key.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
    refuses(&text, "tls.key: ");
    std::fs::set_permissions(path("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let net = load(&text).unwrap().net;
    assert_eq!(net.certificate.unwrap().key, Path::new(&path("key.pem")));
    let unused = load(&text.replace(tls, "")).unwrap();
    assert!(unused.notices.iter().any(|notice| notice.contains("tls.cert does nothing")));
}

#[test]
fn every_listener_is_closed_to_peers() {
    let config = load(&good("listen.tcp = [\"192.0.2.1:5000\"]\n")).unwrap();
    for address in ["0.0.0.0:3478", "192.0.2.1:5000", "127.0.0.1:8080", "127.0.0.1:9090"] {
        assert!(config.turn.peers.own_listeners.contains(&address.parse().unwrap()), "{address}");
    }
}

#[test]
fn a_file_with_secrets_that_everyone_may_read_is_noticed() {
    let (_directory, path) = written(&good(""));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let config = config::load(&Sources { file: Some(path), ..Sources::default() }, &host()).unwrap();
    assert!(config.notices.iter().any(|notice| notice.contains("chmod 600")), "{:?}", config.notices);
}

#[test]
fn static_users_have_one_name_and_one_password() {
    for (users, expected) in [
        ("{ name = \"a\" }", "turn.users[0]: needs either password or password_file"),
        ("{ name = \"\", password = \"p\" }", "turn.users[0]: name has 1 to 508 bytes"),
        ("{ name = \"1:a\", password = \"p\" }", "turn.users[0]: name has 1 to 508 bytes without a colon"),
        (
            "{ name = \"a\", password = \"p\" }, { name = \"a\", password = \"q\" }",
            "turn.users[1]: the user \"a\" is there twice",
        ),
        ("{ nam = \"a\" }", "turn.users[0].nam: there is no such key"),
    ] {
        refuses(&good(&format!("turn.users = [{users}]")), expected);
    }
}

#[test]
fn strangers_get_in_only_where_that_is_said_aloud() {
    let any = |more: &str| good(&format!("auth.anonymous = \"any\"\n{more}"));
    refuses(
        &any("listen.http = [\"0.0.0.0:8080\"]\n"),
        "passerelle.toml:2: auth.anonymous: \"any\" lets everyone who reaches 0.0.0.0:8080 call",
    );
    refuses(&any("listen.http = [\"8.8.8.8:8080\"]\n"), "everyone who reaches 8.8.8.8:8080");
    for private in ["", "listen.http = [\"10.0.0.5:8080\"]\n", "listen.http = [\"[fd00::5]:8080\"]\n"] {
        assert!(load(&any(private)).is_ok());
    }
    let meant = any("auth.anonymous_in_public = true\nlisten.http = [\"0.0.0.0:8080\"]\n");
    assert_eq!(load(&meant).unwrap().auth.anonymous, Anonymous::Any);
}

#[test]
fn a_proxy_does_not_make_strangers_local() {
    let loopback = |more: &str| good(&format!("auth.anonymous = \"loopback\"\n{more}"));
    refuses(
        &loopback("public.hosts = [\"call.example.org\"]\n"),
        "auth.anonymous: \"loopback\" would let in everyone",
    );
    refuses(
        &loopback("http.trusted_proxies = [\"0.0.0.0/0\"]\n"),
        "http.trusted_proxies[0]: trusts everyone",
    );
    let named = "public.hosts = [\"call.example.org\"]\nhttp.trusted_proxies = [\"127.0.0.1/32\"]\n";
    assert!(load(&loopback(named)).is_ok());
}

#[test]
fn x5_metrics_are_for_this_host_unless_said_otherwise() {
    for config in [config::load(&Sources::default(), &host()).unwrap(), load(&good("")).unwrap()] {
        assert!(!config.http.metrics.is_empty());
        assert!(config.http.metrics.iter().all(|socket| socket.ip().is_loopback()));
    }
}

#[test]
fn a_missing_file_says_so() {
    let sources = Sources { file: Some("/nowhere/passerelle.toml".into()), ..Sources::default() };
    let error = config::load(&sources, &host()).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/passerelle.toml: cannot read it: "), "{error}");
}

// --- what the parts get

#[test]
fn a_nat_shows_in_relay_addresses_hosts_and_urls() {
    let more =
        "relay.addresses = [\"198.18.0.5\"]\npublic.external_ips = { \"198.18.0.5\" = \"192.0.2.7\" }\n";
    let config = load(&good(more)).unwrap();
    assert_eq!(config.turn.relay_addresses[0].external.to_string(), "192.0.2.7");
    assert!(config.turn.peers.own_addresses.contains(&"192.0.2.7".parse().unwrap()));
    let bound = |addresses: &[&str]| -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    };
    let urls = config.ice_urls(&bound(&["0.0.0.0:3478", "[::]:3478"]), &[], &[]);
    assert_eq!(urls.stun, ["stun:192.0.2.7:3478"]);
    assert_eq!(urls.turn, ["turn:192.0.2.7:3478?transport=udp"]);
    let config = load(&good("public.hosts = [\"turn.example.org\", \"2001:db8::9\"]\n")).unwrap();
    let (udp, tcp) = (bound(&["[::]:5000"]), bound(&["0.0.0.0:5000", "[::]:5001"]));
    let urls = config.ice_urls(&udp, &tcp, &bound(&["0.0.0.0:443"]));
    assert_eq!(urls.stun, ["stun:turn.example.org:5000", "stun:[2001:db8::9]:5000"]);
    assert_eq!(
        urls.turn,
        [
            "turn:turn.example.org:5000?transport=udp",
            "turn:[2001:db8::9]:5000?transport=udp",
            "turn:turn.example.org:5000?transport=tcp",
            "turn:[2001:db8::9]:5000?transport=tcp",
            "turn:turn.example.org:5001?transport=tcp",
            "turn:[2001:db8::9]:5001?transport=tcp",
            "turns:turn.example.org:443?transport=tcp",
            "turns:[2001:db8::9]:443?transport=tcp",
        ]
    );
    assert_eq!(config.ice_urls(&[], &tcp, &[]).stun, [""; 0], "STUN is asked over UDP");
}

#[test]
fn the_total_of_allocations_is_what_ports_and_files_allow() {
    let total = |ports: &str, open_files| {
        let (_directory, path) = written(&good(&format!("relay.ports = \"{ports}\"")));
        let host = Host { open_files, ..host() };
        config::load(&Sources { file: Some(path), ..Sources::default() }, &host)
            .unwrap()
            .turn
            .limits
            .allocations_total
    };
    assert_eq!(total("50000-50099", Some(1_000_000)), 200);
    assert_eq!(total("50000-50099", None), 200);
    assert_eq!(total("49152-65535", Some(1024)), 768);
    assert_eq!(load(&good("limits.allocations_total = 7")).unwrap().turn.limits.allocations_total, 7);
}

// --- what a reload finds

#[test]
fn a_change_is_named_by_its_key_and_never_shows_a_secret() {
    let (directory, path) = written("");
    let (one, other) = ("a secret of more than thirty-two bytes", "another secret of more than thirty-two");
    let load = |text: &str, in_file: &str| {
        let file = directory.path().join("secret");
        std::fs::write(&file, in_file).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, text.replace("FILE", file.to_str().unwrap())).unwrap();
        config::load(&Sources { file: Some(path.clone()), ..Sources::default() }, &host()).unwrap()
    };
    let users = |password: &str| format!("turn.users = [{{ name = \"ana\", password = \"{password}\" }}]\n");
    let inline = |secret: &str| format!("turn.secrets = [\"{secret}\"]\n");
    let file = "turn.secrets_file = \"FILE\"\n";
    let jwt = "auth.jwt.secret_file = \"FILE\"\n";
    for (before, after, keys) in [
        ((inline(one), ""), (inline(one), ""), &[][..]),
        ((inline(one), ""), (inline(other), ""), &["turn.secrets"]),
        ((file.into(), one), (file.into(), other), &["turn.secrets_file"]),
        ((users("p"), ""), (users("q"), ""), &["turn.users"]),
        ((inline(one) + jwt, one), (inline(one) + jwt, other), &["auth.jwt.secret_file"]),
        (
            (inline(one), ""),
            (inline(one) + "relay.deny_peers = [\"10.1.0.0/16\"]\nlog.level = \"warn\"\n", ""),
            &["log.level", "relay.deny_peers"],
        ),
        (
            (inline(one), ""),
            (inline(one) + "public.external_ips = { \"198.18.0.5\" = \"192.0.2.7\" }\n", ""),
            &["public.external_ips.198.18.0.5"],
        ),
    ] {
        let (before, after) = (load(&before.0, before.1), load(&after.0, after.1));
        let changes = before.changes(&after);
        let found: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(found, keys);
        let shown = format!("{changes:?}");
        assert!(!shown.contains("thirty-two") && !shown.contains("ana"), "{shown}");
        let fixed = changes.iter().filter(|change| change.needs_restart()).count();
        assert_eq!(fixed, found.iter().filter(|key| key.starts_with("public")).count());
    }
}

#[test]
fn every_key_that_needs_a_restart_exists() {
    let text = std::fs::read_to_string("src/config/change.rs").unwrap();
    let list = text.split("const RESTART").nth(1).unwrap().split("];").next().unwrap();
    let defaults = toml::Table::try_from(File::default()).unwrap();
    let keys: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert!(keys.len() > 10, "{keys:?}");
    for key in keys {
        let mut parts = key.split('.');
        let first = defaults.get(parts.next().unwrap());
        let found = parts.fold(first, |value, part| value?.as_table()?.get(part));
        assert!(found.is_some(), "there is no key {key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever stands in a file or a variable: an error or a configuration, never a panic.
    #[test]
    fn no_text_makes_it_panic(text in "(\\[(turn|relay|listen)\\]\n|[a-z_]{1,8} ?= ?[\"\\[\\]0-9a-z:./, ]{0,20}\n){0,6}", value in ".{0,20}") {
        let _ = load_with(&text, &[("PASSERELLE__RELAY__DENY_PEERS", &value)], &[]);
        let _ = load_with(&good(""), &[("PASSERELLE__TURN__USERS", &value)], &[]);
    }

    /// A range is accepted exactly when it is one.
    #[test]
    fn a_range_of_ports_is_never_empty(first in 3479u16.., last in 3479u16..) {
        let config = load(&good(&format!("relay.ports = \"{first}-{last}\"")));
        prop_assert_eq!(config.is_ok(), first <= last);
    }
}
