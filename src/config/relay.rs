//! The part of the check that makes the relay: its addresses, ports, peers and quotas.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::Mode;
use super::check::Check;
use super::file::{Expiry, File, Public};
use crate::http;
use crate::net;
use crate::turn::{self, ExpiryPolicy, PeerRules, PortRange, RelayAddress};

/// RFC 8656 section 7.2.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(600);

impl Check<'_> {
    pub(super) fn turn(
        &mut self,
        file: &File,
        net: &net::Config,
        http: &http::Config,
        external_ips: &BTreeMap<IpAddr, IpAddr>,
    ) -> turn::Config {
        let relay_addresses = self.relay_addresses(&file.relay.addresses, external_ips, net.relays());
        let ports = self.ports(&file.relay.ports, &net.udp);
        let mut limits = self.limits(file);
        if limits.allocations_total == 0 {
            limits.allocations_total = self.capacity(ports, relay_addresses.len());
        }
        if file.turn.realm.is_empty() || file.turn.realm.len() > 509 || file.turn.realm.contains(['"', '\\'])
        {
            self.fail(
                "turn.realm",
                "has 1 to 509 bytes without quotes and backslashes (RFC 8489 section 14.9)",
            );
        }
        if file.turn.software.len() > 509 {
            self.fail("turn.software", "has at most 509 bytes (RFC 8489 section 14.14)");
        }
        if file.turn.lifetime_max < LIFETIME_DEFAULT {
            self.fail("turn.lifetime_max", "must be 10m or longer (RFC 8656 section 7.2)");
        }
        if file.turn.nonce_lifetime < Duration::from_secs(1) {
            self.fail(
                "turn.nonce_lifetime",
                "must be 1s or longer, and better minutes: each costs a round trip",
            );
        }
        let peers = self.peers(file, net, http, &relay_addresses);
        turn::Config {
            realm: file.turn.realm.clone(),
            software: (!file.turn.software.is_empty()).then(|| file.turn.software.clone()),
            relay_addresses,
            ports,
            lifetime_default: LIFETIME_DEFAULT,
            lifetime_max: file.turn.lifetime_max,
            nonce_lifetime: file.turn.nonce_lifetime,
            expiry: match file.turn.expiry {
                Expiry::Keep => ExpiryPolicy::Keep,
                Expiry::Cut => ExpiryPolicy::Cut,
                Expiry::Grace => ExpiryPolicy::Grace,
            },
            expiry_grace: file.turn.expiry_grace,
            limits,
            peers,
            wide_channel_range: file.turn.wide_channel_range,
            alternate_server: self.alternate_server(&file.turn.alternate_server),
        }
    }

    fn alternate_server(&mut self, text: &str) -> Option<SocketAddr> {
        let parsed = (!text.is_empty()).then(|| text.parse())?;
        if parsed.is_err() {
            let message = format!("{text:?} is no socket address: write it like 198.51.100.8:3478");
            self.fail("turn.alternate_server", message);
        }
        parsed.ok()
    }

    fn relay_addresses(
        &mut self,
        written: &[String],
        external_ips: &BTreeMap<IpAddr, IpAddr>,
        relays: bool,
    ) -> Vec<RelayAddress> {
        let mut local: Vec<IpAddr> = Vec::new();
        for (index, text) in written.iter().enumerate() {
            let key = format!("relay.addresses[{index}]");
            match text.parse::<IpAddr>() {
                Err(_) => self.fail(&key, format!("{text:?} is no IP address: write it like 198.51.100.7")),
                Ok(ip) if ip.is_unspecified() => self.fail(
                    &key,
                    format!(
                        "{text:?} names no single address: write one of this host's, or leave the list empty"
                    ),
                ),
                Ok(ip) if local.contains(&ip) => {
                    self.fail(&key, format!("{text:?} is there twice: remove one"));
                }
                Ok(ip) => local.push(ip),
            }
        }
        if written.is_empty() {
            local = self.own_relay_addresses();
            if local.is_empty() && relays {
                self.fail(
                    "relay.addresses",
                    "this host has no address but loopback: name the one to relay from",
                );
            }
        }
        for ip in external_ips.keys().filter(|ip| !local.contains(ip) && !local.is_empty()) {
            let relays = local.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            self.fail(
                &format!("public.external_ips.{:?}", ip.to_string()),
                format!("{ip} is no address of the relay: those are {relays}"),
            );
        }
        let external = |local: &IpAddr| *external_ips.get(local).unwrap_or(local);
        local.iter().map(|local| RelayAddress { local: *local, external: external(local) }).collect()
    }

    /// One address a family.
    fn own_relay_addresses(&self) -> Vec<IpAddr> {
        let first = |ips: &[IpAddr]| -> Vec<IpAddr> {
            let v4 = ips.iter().find(|ip| ip.is_ipv4());
            v4.into_iter().chain(ips.iter().find(|ip| ip.is_ipv6())).copied().collect()
        };
        if !self.host.routed.is_empty() {
            return first(&self.host.routed);
        }
        if self.host.addresses.is_empty() && self.mode == Mode::Development {
            let v6 = self.host.ipv6.then_some(Ipv6Addr::LOCALHOST.into());
            return std::iter::once(Ipv4Addr::LOCALHOST.into()).chain(v6).collect();
        }
        first(&self.host.addresses)
    }

    fn ports(&mut self, text: &str, udp: &[SocketAddr]) -> PortRange {
        let parsed = text.split_once('-').and_then(|(first, last)| {
            Some(PortRange { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? })
        });
        let Some(ports) = parsed else {
            self.fail("relay.ports", format!("{text:?} is no range of ports: write it like 49152-65535"));
            return PortRange { first: 49152, last: 65535 };
        };
        if ports.first > ports.last {
            self.fail("relay.ports", format!("{text:?} is empty: write the smaller port first"));
        } else if ports.first == 0 {
            self.fail("relay.ports", "port 0 is no port: start at 1024 or above");
        }
        if let Some(socket) = udp.iter().find(|socket| (ports.first..=ports.last).contains(&socket.port())) {
            self.fail(
                "relay.ports",
                format!("{text:?} contains the port of {socket} in listen.udp: keep them apart"),
            );
        }
        ports
    }

    fn limits(&mut self, file: &File) -> turn::Limits {
        let limits = &file.limits;
        for (key, value) in [
            ("allocations_per_user", limits.allocations_per_user),
            ("allocations_per_ip", limits.allocations_per_ip),
            ("permissions", limits.permissions),
            ("channels", limits.channels),
        ] {
            if value == 0 {
                self.fail(
                    &format!("limits.{key}"),
                    "0 would refuse everyone: write 1 or more, or empty listen.udp, listen.tcp and listen.tls to turn the \
                     relay off",
                );
            }
        }
        turn::Limits {
            allocations_per_user: limits.allocations_per_user,
            allocations_per_ip: limits.allocations_per_ip,
            allocations_total: limits.allocations_total,
            permissions: limits.permissions,
            channels: limits.channels,
            bandwidth: (limits.bandwidth > 0).then_some(limits.bandwidth),
            unauthenticated_per_second: limits.unauthenticated_per_second,
            unauthenticated_burst: limits.unauthenticated_burst,
            binding_per_second: limits.binding_per_second,
        }
    }

    /// What ports and open files allow: an allocation takes one of each.
    fn capacity(&mut self, ports: PortRange, addresses: usize) -> usize {
        let by_ports = usize::from(ports.last.saturating_sub(ports.first)).saturating_add(1) * addresses;
        let Some(open_files) = self.host.open_files else { return by_ports };
        let by_files = net::relay_sockets(open_files);
        if by_files < by_ports.min(4096) {
            self.notices.push(format!(
                "room for {by_files} allocations only: this process may open {open_files} files (raise it with \
                 `ulimit -n` or LimitNOFILE)"
            ));
        }
        by_files.min(by_ports)
    }

    fn peers(
        &mut self,
        file: &File,
        net: &net::Config,
        http: &http::Config,
        relay: &[RelayAddress],
    ) -> PeerRules {
        let mut allow = self.networks("relay.allow_peers", &file.relay.allow_peers);
        let deny = self.networks("relay.deny_peers", &file.relay.deny_peers);
        if file.relay.peer_ports.contains(&0) {
            self.fail("relay.peer_ports", "port 0 is never a peer: remove it");
        }
        if self.mode == Mode::Development {
            allow.extend(self.development_peers());
        }
        let relayed = relay.iter().flat_map(|address| [address.local, address.external]);
        let mut own_addresses: Vec<IpAddr> = self.host.addresses.iter().copied().chain(relayed).collect();
        own_addresses.sort_unstable();
        own_addresses.dedup();
        PeerRules {
            allow,
            deny,
            low_ports: file.relay.peer_ports.clone(),
            own_listeners: net.listeners().chain(&http.http).chain(&http.metrics).copied().collect(),
            own_addresses,
        }
    }

    /// The networks this host is in; loopback only where there is nothing else.
    fn development_peers(&mut self) -> Vec<IpNet> {
        let mut networks = self.host.subnets.clone();
        if self.host.addresses.is_empty() {
            let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            networks.extend(loopback.map(IpNet::from));
        }
        let list = networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        self.notices.push(format!("development mode relays to the networks of this host: {list}"));
        networks
    }

    pub(super) fn external_ips(&mut self, public: &Public) -> BTreeMap<IpAddr, IpAddr> {
        let mut found = BTreeMap::new();
        for (local, external) in &public.external_ips {
            let key = format!("public.external_ips.{local:?}");
            match (local.parse::<IpAddr>(), external.parse::<IpAddr>()) {
                (Ok(local), Ok(external)) if local.is_ipv4() == external.is_ipv4() => {
                    found.insert(local, external);
                }
                (Ok(_), Ok(_)) => self.fail(&key, "both addresses must be IPv4, or both IPv6"),
                (Err(_), _) => self.fail(&key, format!("{local:?} is no IP address: write it like 10.0.0.5")),
                (_, Err(_)) => {
                    self.fail(&key, format!("{external:?} is no IP address: write it like 198.51.100.7"));
                }
            }
        }
        found
    }

    pub(super) fn public_hosts(&mut self, public: &Public, turn: &turn::Config) -> Vec<String> {
        for (index, host) in public.hosts.iter().enumerate() {
            let name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            if host.parse::<IpAddr>().is_err() && (host.is_empty() || !host.chars().all(name)) {
                self.fail(
                    &format!("public.hosts[{index}]"),
                    format!(
                        "{host:?} is no host: write only its name, like turn.example.org, or its IP address"
                    ),
                );
            }
        }
        if !public.hosts.is_empty() {
            return public.hosts.clone();
        }
        let mut hosts: Vec<String> =
            turn.relay_addresses.iter().map(|relay| relay.external.to_string()).collect();
        hosts.dedup();
        hosts
    }
}
