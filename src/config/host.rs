//! What this host has: addresses, networks, file descriptors. Read without a system call of its own kind: the routing
//! decision of a connected UDP socket (no packet is sent), and Linux's `/proc`. Elsewhere `/proc` is missing and what it
//! would add stays empty.

use std::fs::read_to_string;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What the configuration needs to know about the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Addresses of the interfaces that carry the default routes.
    pub routed: Vec<IpAddr>,
    /// Every address but loopback and link-local ones.
    pub addresses: Vec<IpAddr>,
    /// Networks that are reached without a router.
    pub subnets: Vec<IpNet>,
    /// Open files this process may have: its hard limit, which the relay raises itself to.
    pub open_files: Option<usize>,
    /// Whether sockets can be IPv6.
    pub ipv6: bool,
}

impl Host {
    /// Looks at this host.
    pub fn read() -> Self {
        let routed: Vec<IpAddr> =
            ["198.51.100.1:9", "[2001:db8::1]:9"].into_iter().filter_map(routed).collect();
        let proc = |path| read_to_string(path).unwrap_or_default();
        let (mut addresses, mut subnets) = inet6(&proc("/proc/net/if_inet6"));
        addresses.splice(0..0, local_ipv4(&proc("/proc/net/fib_trie")));
        subnets.splice(0..0, connected_ipv4(&proc("/proc/net/route")));
        for ip in &routed {
            if !addresses.contains(ip) {
                addresses.push(*ip);
            }
        }
        Self {
            routed,
            addresses,
            subnets,
            open_files: open_files(&proc("/proc/self/limits")),
            ipv6: UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(),
        }
    }
}

/// The address this host would send from to `destination`.
fn routed(destination: &str) -> Option<IpAddr> {
    let destination: SocketAddr = destination.parse().ok()?;
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(destination).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    usable(ip).then_some(ip)
}

fn usable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(link_local || ip.is_loopback() || ip.is_unspecified())
}

/// Local addresses in `/proc/net/fib_trie`: a leaf `|-- 192.0.2.2`, and below it `/32 host LOCAL`.
fn local_ipv4(trie: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut leaf = None;
    for line in trie.lines().map(str::trim) {
        if let Some(ip) = line.strip_prefix("|-- ") {
            leaf = ip.parse::<IpAddr>().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(ip) = leaf.filter(|ip| usable(*ip))
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    found
}

/// Networks without a gateway in `/proc/net/route`; its numbers are in host order of a network-order address.
fn connected_ipv4(routes: &str) -> Vec<IpNet> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(|n| Ipv4Addr::from(n.to_ne_bytes()));
    let mut found = Vec::new();
    for line in routes.lines().skip(1) {
        let mut columns = line.split_whitespace().skip(1);
        let (Some(destination), Some(gateway)) = (columns.next(), columns.next()) else { continue };
        let (Some(network), Some(Ipv4Addr::UNSPECIFIED)) = (number(destination), number(gateway)) else {
            continue;
        };
        let Some(mask) = columns.nth(4).and_then(number) else { continue };
        let Ok(network) = Ipv4Net::with_netmask(network, mask) else { continue };
        if network.prefix_len() > 0 && usable(network.network().into()) && !found.contains(&network.into()) {
            found.push(network.into());
        }
    }
    found
}

/// Addresses and networks of `/proc/net/if_inet6`: address, interface, prefix length, scope (`00` global), flags, name.
fn inet6(interfaces: &str) -> (Vec<IpAddr>, Vec<IpNet>) {
    let mut addresses = Vec::new();
    let mut subnets = Vec::new();
    for line in interfaces.lines() {
        let mut columns = line.split_whitespace();
        let Some(ip) = columns.next().and_then(|hex| u128::from_str_radix(hex, 16).ok()) else { continue };
        let ip = Ipv6Addr::from(ip);
        if !usable(ip.into()) {
            continue;
        }
        addresses.push(ip.into());
        let prefix = columns.nth(1).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(network) = prefix.and_then(|prefix| Ipv6Net::new(ip, prefix).ok()) {
            subnets.push(network.trunc().into());
        }
    }
    (addresses, subnets)
}

/// The hard limit in `/proc/self/limits`.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_routing_trie() {
        let trie = "Main:\n  |-- 127.0.0.1\n   /32 host LOCAL\n  |-- 192.0.2.0\n   /24 link UNICAST\n  \
                    |-- 192.0.2.2\n   /32 host LOCAL\n  |-- 169.254.3.4\n   /32 host LOCAL\nLocal:\n  \
                    |-- 192.0.2.2\n   /32 host LOCAL\n";
        assert_eq!(local_ipv4(trie), ["192.0.2.2".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn connected_networks_are_those_without_a_gateway() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                      eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                      eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(connected_ipv4(routes), ["192.0.2.0/24".parse::<IpNet>().unwrap()]);
    }

    #[test]
    fn link_local_and_loopback_are_no_ipv6_addresses_of_the_host() {
        let lines = "fd000000000000000000000000000002 04 40 00 82     eth0\n\
                     00000000000000000000000000000001 01 80 10 80       lo\n\
                     fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n";
        let (addresses, subnets) = inet6(lines);
        assert_eq!(addresses, ["fd00::2".parse::<IpAddr>().unwrap()]);
        assert_eq!(subnets, ["fd00::/64".parse::<IpNet>().unwrap()]);
    }

    #[test]
    fn the_limit_of_open_files_is_the_hard_one() {
        let limits =
            "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024      1048576   files\n";
        assert_eq!(open_files(limits), Some(1_048_576));
        assert_eq!(open_files("Max open files            unlimited   unlimited   files"), None);
    }
}
