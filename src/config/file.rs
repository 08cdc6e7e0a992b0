//! The configuration as it is written: every key, its default, and the comment it gets in `config/passerelle.toml`.
//!
//! Values stay as written (text) where an error should say more than a parser does; `check` makes them typed.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::Secret;
use crate::auth::Mode;
use crate::{logging, signaling};

/// Every section.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// Socket addresses to listen on. An empty list turns a listener off; port 0 picks a free one and logs it.
    pub listen: Listen,
    /// How this server is reached from outside.
    pub public: Public,
    /// STUN and TURN: who may use the relay, and for how long.
    pub turn: Turn,
    /// Relayed addresses, and the peers that may be reached through them.
    pub relay: Relay,
    /// Quotas of the relay.
    pub limits: Limits,
    /// Web clients: signaling, REST, pages.
    pub http: Http,
    /// The call engine: how long calls ring, wait and last.
    pub signaling: signaling::Config,
    /// Certificate of the TLS listeners.
    pub tls: Tls,
    /// Who may open a signaling session.
    pub auth: Auth,
    /// Where call records are kept.
    pub store: Store,
    /// Telling a service of yours what happens to calls.
    pub webhooks: Webhooks,
    /// What is logged, and how.
    pub log: Log,
    /// How the server stops.
    pub drain: Drain,
}

/// `[listen]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// STUN and TURN over UDP.
    pub udp: Vec<String>,
    /// TURN over TCP, for clients whose network lets no UDP out.
    pub tcp: Vec<String>,
    /// TURN over TLS, for clients whose network lets only HTTPS out, and HTTPS itself (signaling, REST, pages) on the same
    /// port; needs `[tls]`, e.g. `["0.0.0.0:443"]`.
    pub tls: Vec<String>,
    /// Networks of load balancers whose connections to `tcp` and `tls` start with a PROXY header (v1 or v2). Theirs must
    /// have one, nobody else's may.
    pub proxy_protocol_from: Vec<String>,
    /// Signaling, REST and pages, as plain HTTP: put a proxy with TLS in front where others reach it.
    pub http: Vec<String>,
    /// Prometheus metrics. Whoever reaches this address may read them.
    pub metrics: Vec<String>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            udp: vec!["0.0.0.0:3478".into(), "[::]:3478".into()],
            tcp: vec!["0.0.0.0:3478".into(), "[::]:3478".into()],
            tls: Vec::new(),
            proxy_protocol_from: Vec::new(),
            http: vec!["127.0.0.1:8080".into()],
            metrics: vec!["127.0.0.1:9090".into()],
        }
    }
}

/// `[public]`
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Public {
    /// Names or addresses written into `iceServers`. Empty: the external addresses of the relay.
    pub hosts: Vec<String>,
    /// One-to-one NAT: what the world sees of an address of the relay, e.g. `{ "10.0.0.5" = "198.51.100.7" }`.
    pub external_ips: BTreeMap<String, String>,
    /// Other servers that clients may use too, e.g. `[{ urls = ["stun:stun.example.org"] }]`. A TURN server without
    /// `username` and `credential` has to share `turn.secrets`.
    pub ice_servers: Vec<IceServer>,
}

/// Another STUN or TURN server.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IceServer {
    /// `stun:`, `turn:` and `turns:` URIs.
    pub urls: Vec<String>,
    /// Username of a TURN server.
    pub username: String,
    /// Its password.
    pub credential: Secret,
}

/// `[turn]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// Realm of the long-term credentials (RFC 8489 section 9.2).
    pub realm: String,
    /// Shared secrets of TURN REST credentials, at least 32 bytes each. The first signs, all verify: to rotate, put the
    /// new one first and remove the old one when its credentials have expired.
    pub secrets: Vec<Secret>,
    /// The same from a file that only this service can read, one a line. Comes after `secrets`.
    pub secrets_file: String,
    /// Static users, e.g. `[{ name = "alice", password = "…" }]`, or with `password_file`.
    pub users: Vec<User>,
    /// Longest lifetime of an allocation that is granted at once; clients refresh it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub lifetime_max: Duration,
    /// How long a nonce is accepted.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub nonce_lifetime: Duration,
    /// What becomes of an allocation when its credential expires: `keep` lets it be refreshed, `cut` ends it with the
    /// credential, `grace` lets it be refreshed for `expiry_grace` more.
    pub expiry: Expiry,
    /// See `expiry`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub expiry_grace: Duration,
    /// How long the credentials in `iceServers` may start allocations.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub credential_ttl: Duration,
    /// Also accept channel numbers 0x5000 to 0x7FFF, as clients of RFC 5766 bind them (coturn's turnutils_uclient 4.6).
    pub wide_channel_range: bool,
    /// Where clients are sent while this server drains (ALTERNATE-SERVER), like `198.51.100.8:3478`. Empty: nowhere.
    pub alternate_server: String,
    /// Value of SOFTWARE in authenticated answers. Empty: none is sent.
    pub software: String,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            realm: "passerelle".into(),
            secrets: Vec::new(),
            secrets_file: String::new(),
            users: Vec::new(),
            lifetime_max: Duration::from_secs(3600),
            nonce_lifetime: Duration::from_secs(600),
            expiry: Expiry::Keep,
            expiry_grace: Duration::from_secs(3600),
            credential_ttl: Duration::from_secs(12 * 3600),
            wide_channel_range: false,
            alternate_server: String::new(),
            software: String::new(),
        }
    }
}

/// A static user.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    /// Username.
    pub name: String,
    /// Password.
    pub password: Secret,
    /// File with the password.
    pub password_file: String,
}

/// See [`Turn::expiry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "explained where it is used")]
pub enum Expiry {
    Keep,
    Cut,
    Grace,
}

/// `[relay]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// IP addresses to relay from. Empty: those of the interfaces that carry the default routes.
    pub addresses: Vec<String>,
    /// Ports to relay from, both ends included. Keep them out of the kernel's own range (ip_local_reserved_ports).
    pub ports: String,
    /// Threads that relay. 0: one per core.
    pub workers: usize,
    /// Receive buffer of every socket in bytes; more than net.core.rmem_max needs CAP_NET_ADMIN.
    pub receive_buffer: usize,
    /// Leave joining and cutting runs of datagrams to the kernel (UDP GRO and GSO). `false` is one system call for each
    /// datagram: for network drivers that get it wrong.
    pub segmentation: bool,
    /// Networks that may be peers although they are denied by default (loopback, private, link-local, multicast and the
    /// other special ones), e.g. `["10.1.0.0/16"]`. The most specific network wins.
    pub allow_peers: Vec<String>,
    /// Networks that may not be peers, beyond those denied by default. Wins over `allow_peers` in a tie.
    pub deny_peers: Vec<String>,
    /// Ports below 1024 that a peer may have all the same.
    pub peer_ports: Vec<u16>,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            ports: "49152-65535".into(),
            workers: 0,
            receive_buffer: 1 << 20,
            segmentation: true,
            allow_peers: Vec::new(),
            deny_peers: Vec::new(),
            peer_ports: vec![443, 3478],
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Allocations a user may hold.
    pub allocations_per_user: usize,
    /// Allocations an address (IPv4 address or IPv6 /64) may hold: an office behind one NAT shares it.
    pub allocations_per_ip: usize,
    /// Allocations of the server. 0: what its ports and file descriptors allow.
    pub allocations_total: usize,
    /// Permissions an allocation may hold.
    pub permissions: usize,
    /// Channels an allocation may hold.
    pub channels: usize,
    /// Bytes a second an allocation may relay in each direction. 0: no limit.
    pub bandwidth: u64,
    /// Error answers a second to one network (/24 or /56) that has not proved its address, sustained. Whoever follows a
    /// challenge up gives its answer back, so that this cuts floods and not clients. 0: no limit.
    pub unauthenticated_per_second: u32,
    /// Burst of the same.
    pub unauthenticated_burst: u32,
    /// Binding answers a second to one network. 0: no limit.
    pub binding_per_second: u32,
    /// TCP and TLS connections an address (IPv4 address or IPv6 /64) may hold before they are authenticated.
    pub connections_per_ip: usize,
    /// How long a connection may take for its first byte, TLS handshake included.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub first_byte_timeout: Duration,
    /// How long a connection may stay without an allocation.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub unauthenticated_timeout: Duration,
    /// Bytes that wait for a slow TCP or TLS client before media to it is dropped.
    pub stream_queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let core = crate::turn::Limits::default();
        Self {
            allocations_per_user: core.allocations_per_user,
            allocations_per_ip: core.allocations_per_ip,
            allocations_total: 0,
            permissions: core.permissions,
            channels: core.channels,
            bandwidth: core.bandwidth.unwrap_or(0),
            unauthenticated_per_second: core.unauthenticated_per_second,
            unauthenticated_burst: core.unauthenticated_burst,
            binding_per_second: core.binding_per_second,
            connections_per_ip: 64,
            first_byte_timeout: Duration::from_secs(10),
            unauthenticated_timeout: Duration::from_secs(30),
            stream_queue: 64 * 1024,
        }
    }
}

/// `[http]`
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Origins whose pages may connect, e.g. `["https://call.example.org"]`. Empty: any origin with a token, the same
    /// origin without one. `*`: any origin.
    pub origins: Vec<String>,
    /// Networks of the proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<String>,
}

/// `[tls]`
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificate chain. It may be replaced while the server runs.
    pub cert: String,
    /// PEM file with the private key, which only this service can read.
    pub key: String,
}

/// `[auth]`
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Who may call without a token: `off` nobody, `loopback` callers on this host, `any` everyone who reaches
    /// `listen.http`.
    pub anonymous: Mode,
    /// Says that `anonymous = "any"` is meant although `listen.http` is a public address: whoever reaches it may call
    /// and use the relay.
    pub anonymous_in_public: bool,
    /// Keys of your own servers for REST, at least 32 bytes each: they see and may do everything there.
    pub api_keys: Vec<Secret>,
    /// The same from a file that only this service can read, one a line. Comes after `api_keys`.
    pub api_keys_file: String,
    /// JSON Web Tokens. The user id is the first claim of `sub`, `userId`, `user_id`, `id`.
    pub jwt: Jwt,
    /// Asking a service of yours about tokens that none of the keys above has signed.
    pub webhook: Webhook,
}

/// `[auth.jwt]`
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// Shared key of the signature (HS256, HS384, HS512), at least 32 bytes.
    pub secret: Secret,
    /// The same from a file that only this service can read.
    pub secret_file: String,
    /// PEM file with the public key of the signature: RSA, P-256, P-384 or Ed25519.
    pub public_key_file: String,
    /// The one algorithm that `secret` or `public_key_file` is good for. Empty: HS256 for a secret, RS256, ES256, ES384
    /// or EdDSA by the kind of the public key.
    pub algorithm: String,
    /// URL where your identity provider publishes its keys (JWK Set). They are cached and followed when they rotate.
    pub jwks_url: String,
    /// Ids (`kid`) of the published keys that may sign. Empty: all.
    pub jwks_kids: Vec<String>,
    /// Value `iss` must have. Empty: it is not checked.
    pub issuer: String,
    /// Value `aud` must have. Empty: it is not checked.
    pub audience: String,
}

/// `[auth.webhook]`
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// URL that gets `POST {token, ip}` and answers `{allowed, userId, name?, grants?, members?, reason?}` within 5 s.
    /// Without an answer nobody is let in.
    pub url: String,
    /// Signs the questions (HMAC-SHA256, header `passerelle-signature`). Empty: they are not signed.
    pub secret: Secret,
    /// The same from a file that only this service can read.
    pub secret_file: String,
}

/// `[store]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// `sqlite:PATH`, `postgres://user:password@host/database`, or `sqlite::memory:`, which forgets every call when the
    /// server stops.
    pub url: String,
    /// Days the record of a call is kept.
    pub retention_days: u16,
    /// Days the steps of a call (rung, answered, joined, left) are kept for `GET /api/v1/calls/{id}/events`. 0: none.
    pub events_days: u16,
    /// Keep with a call the networks (/24, /48) of the peers that the relay talked to for it.
    pub peer_networks: bool,
}

/// `[webhooks]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Webhooks {
    /// URL that gets a POST for each step of a call (`call.initiated`, `call.ringing`, `call.answered`,
    /// `call.participant_joined`, `call.participant_left`, `call.missed`, `call.ended`), again for 24 h until it answers
    /// 2xx. Empty: nobody is told.
    pub url: String,
    /// Signs what is sent (HMAC-SHA256, header `passerelle-signature`), at least 32 bytes.
    pub secret: Secret,
    /// The same from a file that only this service can read.
    pub secret_file: String,
    /// Events that may wait while the service is away. Beyond it the oldest are dropped, and counted.
    pub max_waiting: u32,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            url: String::new(),
            secret: Secret::default(),
            secret_file: String::new(),
            max_waiting: 100_000,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { url: "sqlite:passerelle.db".into(), retention_days: 90, events_days: 7, peer_networks: true }
    }
}

/// `[log]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text`, `json`, or `auto`: text on a terminal, JSON otherwise.
    pub format: logging::Format,
    /// `error`, `warn`, `info`, `debug`, `trace`; or parts on their own: `info,passerelle::turn=debug`.
    pub level: String,
    /// Addresses of clients and peers: `short` cuts them to /24 and /48, `full` writes them out.
    pub addresses: logging::Addresses,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: logging::Format::Auto, level: "info".into(), addresses: logging::Addresses::Short }
    }
}

/// `[drain]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// Longest time running calls are served after the first SIGTERM or SIGINT. A second one stops at once.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30) }
    }
}
