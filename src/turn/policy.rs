//! Which peers may be reached. One function decides, [`PeerPolicy::check`], and only it makes a [`PermittedPeer`], which
//! every way to a peer demands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::PeerRules;

/// Why a peer is denied: the label of `passerelle_peer_denied_total{rule}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenyRule {
    /// 0.0.0.0/8, ::.
    Unspecified,
    /// 127.0.0.0/8, ::1.
    Loopback,
    /// RFC 1918.
    Private,
    /// RFC 6598, 100.64.0.0/10.
    SharedAddress,
    /// 169.254.0.0/16, fe80::/10: cloud metadata among them.
    LinkLocal,
    /// RFC 4193, fc00::/7.
    UniqueLocal,
    /// 224.0.0.0/4, ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// RFC 5737, RFC 3849, RFC 9637.
    Documentation,
    /// RFC 2544, RFC 5180.
    Benchmarking,
    /// Everything else that is not globally reachable.
    Reserved,
    /// An address of this server, other than a live relayed transport address.
    OwnAddress,
    /// A listener of this server, its metrics, its database.
    OwnListener,
    /// A port below 1024 that is not listed, or port 0.
    Port,
    /// The operator's deny list.
    DenyList,
}

impl DenyRule {
    /// Every rule, in the order of `DenyRule::index`.
    pub const ALL: [Self; 15] = [
        Self::Unspecified,
        Self::Loopback,
        Self::Private,
        Self::SharedAddress,
        Self::LinkLocal,
        Self::UniqueLocal,
        Self::Multicast,
        Self::Broadcast,
        Self::Documentation,
        Self::Benchmarking,
        Self::Reserved,
        Self::OwnAddress,
        Self::OwnListener,
        Self::Port,
        Self::DenyList,
    ];

    /// Label of the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::SharedAddress => "shared_address",
            Self::LinkLocal => "link_local",
            Self::UniqueLocal => "unique_local",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Reserved => "reserved",
            Self::OwnAddress => "own_address",
            Self::OwnListener => "own_listener",
            Self::Port => "port",
            Self::DenyList => "deny_list",
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// A peer that [`PeerPolicy::check`] let pass. Nothing else can make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermittedPeer {
    ip: IpAddr,
}

impl PermittedPeer {
    /// Its address, as the client wrote it.
    pub const fn ip(self) -> IpAddr {
        self.ip
    }
}

/// A network, as the bits that are compared, and what becomes of a peer in it.
#[derive(Debug, Clone, Copy)]
struct Rule<Bits> {
    mask: Bits,
    network: Bits,
    verdict: Verdict,
}

impl<Bits: Copy + PartialEq + std::ops::BitAnd<Output = Bits>> Rule<Bits> {
    fn matches(&self, address: Bits) -> bool {
        address & self.mask == self.network
    }
}

/// The verdict of the first rule that matches.
fn first_match<Bits>(rules: &[Rule<Bits>], address: Bits) -> Verdict
where
    Bits: Copy + PartialEq + std::ops::BitAnd<Output = Bits>,
{
    let found = rules.iter().find(|rule| rule.matches(address));
    found.map_or(Verdict::Special(DenyRule::Reserved), |rule| rule.verdict)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The default for the internet at large.
    Public,
    /// The default for everything special.
    Special(DenyRule),
    /// The operator's list.
    Allowed,
    /// The operator's list.
    Denied,
}

impl Verdict {
    /// Between equal networks the operator outranks the defaults, and deny outranks allow.
    const fn rank(self) -> u8 {
        match self {
            Self::Public => 0,
            Self::Special(_) => 1,
            Self::Allowed => 2,
            Self::Denied => 3,
        }
    }
}

/// The peer filter: the defaults of RFC 6890's registries, the operator's lists, this server's own addresses.
#[derive(Debug)]
pub struct PeerPolicy {
    /// Most specific first, so that the first match decides.
    v4: Vec<Rule<u32>>,
    v6: Vec<Rule<u128>>,
    low_ports: Vec<u16>,
    own_listeners: Vec<SocketAddr>,
    own_addresses: Vec<IpAddr>,
}

impl PeerPolicy {
    /// Builds the filter from the operator's lists.
    pub fn new(rules: &PeerRules) -> Self {
        let defaults = DEFAULTS
            .iter()
            .filter_map(|(network, verdict)| network.parse().ok().map(|network: IpNet| (network, *verdict)));
        let listed = |networks: &[IpNet], verdict| {
            networks.iter().map(move |network| (network.trunc(), verdict)).collect::<Vec<_>>()
        };
        let mut all: Vec<(IpNet, Verdict)> = defaults
            .chain(listed(&rules.allow, Verdict::Allowed))
            .chain(listed(&rules.deny, Verdict::Denied))
            .collect();
        all.sort_by_key(|(network, verdict)| std::cmp::Reverse((network.prefix_len(), verdict.rank())));
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, verdict) in all {
            match network {
                IpNet::V4(net) => {
                    v4.push(Rule { mask: net.netmask().into(), network: net.network().into(), verdict });
                }
                IpNet::V6(net) => {
                    v6.push(Rule { mask: net.netmask().into(), network: net.network().into(), verdict });
                }
            }
        }
        Self {
            v4,
            v6,
            low_ports: rules.low_ports.clone(),
            own_listeners: rules.own_listeners.clone(),
            own_addresses: rules.own_addresses.iter().map(|ip| canonical(*ip)).collect(),
        }
    }

    /// Decides about a peer. Without a port (CreatePermission, which permits an address) the rules about ports wait
    /// for the data. `is_relayed` tells whether a transport address is a live relayed one of this server.
    ///
    /// # Errors
    /// The rule that denies it.
    pub fn check(
        &self,
        ip: IpAddr,
        port: Option<u16>,
        is_relayed: impl Fn(SocketAddr) -> bool,
    ) -> Result<PermittedPeer, DenyRule> {
        let address = canonical(ip);
        let own = self.own_addresses.contains(&address);
        if let Some(port) = port {
            if port == 0 || (port < 1024 && !self.low_ports.contains(&port)) {
                return Err(DenyRule::Port);
            }
            let same = |listener: &&SocketAddr| {
                let listens = canonical(listener.ip());
                let everywhere = listens.is_unspecified() && (own || address.is_loopback());
                listener.port() == port && (listens == address || everywhere)
            };
            if self.own_listeners.iter().any(|listener| same(&listener)) {
                return Err(DenyRule::OwnListener);
            }
        }
        let verdict = self.verdict(address);
        // A loopback address relays only where the operator allows it as a peer, so it is no exception here.
        if own && !address.is_loopback() && verdict != Verdict::Denied && verdict != Verdict::Allowed {
            let live = port.is_none_or(|port| is_relayed(SocketAddr::new(address, port)));
            return if live { Ok(PermittedPeer { ip }) } else { Err(DenyRule::OwnAddress) };
        }
        self.decide(address, verdict).map(|()| PermittedPeer { ip })
    }

    /// Whether the verdict on an address, and on every IPv4 address it carries inside, lets it pass.
    fn decide(&self, address: IpAddr, verdict: Verdict) -> Result<(), DenyRule> {
        let denied = |verdict| match verdict {
            Verdict::Public | Verdict::Allowed => Ok(()),
            Verdict::Special(rule) => Err(rule),
            Verdict::Denied => Err(DenyRule::DenyList),
        };
        denied(verdict)?;
        if let IpAddr::V6(v6) = address {
            for inner in embedded(v6).into_iter().flatten() {
                denied(self.verdict(inner.into()))?;
            }
        }
        Ok(())
    }

    fn verdict(&self, address: IpAddr) -> Verdict {
        match address {
            IpAddr::V4(ip) => first_match(&self.v4, u32::from(ip)),
            IpAddr::V6(ip) => first_match(&self.v6, u128::from(ip)),
        }
    }
}

/// The address that is really meant: an IPv4-mapped or IPv4-compatible address is its IPv4 address.
fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xFFFF, ..] => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => ip,
        [0, 0, 0, 0, 0, 0, high, low] => IpAddr::V4(join(high, low)),
        _ => ip,
    }
}

/// The IPv4 addresses that a transition mechanism would reach through an IPv6 address: NAT64 (RFC 6052), 6to4
/// (RFC 3056), Teredo's server and client (RFC 4380), ISATAP (RFC 5214).
fn embedded(v6: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    match v6.segments() {
        [0x64, 0xFF9B, 0, 0, 0, 0, high, low] => [Some(join(high, low)), None],
        [0x2002, high, low, ..] => [Some(join(high, low)), None],
        [0x2001, 0, s_high, s_low, _, _, c_high, c_low] => {
            [Some(join(s_high, s_low)), Some(join(!c_high, !c_low))]
        }
        [_, _, _, _, 0 | 0x0200, 0x5EFE, high, low] => [Some(join(high, low)), None],
        _ => [None, None],
    }
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

/// The special-purpose registries of IANA (RFC 6890), and what is left over.
const DEFAULTS: &[(&str, Verdict)] = &[
    ("0.0.0.0/0", Verdict::Public),
    ("0.0.0.0/8", Verdict::Special(DenyRule::Unspecified)),
    ("10.0.0.0/8", Verdict::Special(DenyRule::Private)),
    ("100.64.0.0/10", Verdict::Special(DenyRule::SharedAddress)),
    ("127.0.0.0/8", Verdict::Special(DenyRule::Loopback)),
    ("169.254.0.0/16", Verdict::Special(DenyRule::LinkLocal)),
    ("172.16.0.0/12", Verdict::Special(DenyRule::Private)),
    ("192.0.0.0/24", Verdict::Special(DenyRule::Reserved)),
    ("192.0.2.0/24", Verdict::Special(DenyRule::Documentation)),
    ("192.88.99.0/24", Verdict::Special(DenyRule::Reserved)),
    ("192.168.0.0/16", Verdict::Special(DenyRule::Private)),
    ("198.18.0.0/15", Verdict::Special(DenyRule::Benchmarking)),
    ("198.51.100.0/24", Verdict::Special(DenyRule::Documentation)),
    ("203.0.113.0/24", Verdict::Special(DenyRule::Documentation)),
    ("224.0.0.0/4", Verdict::Special(DenyRule::Multicast)),
    ("240.0.0.0/4", Verdict::Special(DenyRule::Reserved)),
    ("255.255.255.255/32", Verdict::Special(DenyRule::Broadcast)),
    ("::/0", Verdict::Special(DenyRule::Reserved)),
    ("::/128", Verdict::Special(DenyRule::Unspecified)),
    ("::1/128", Verdict::Special(DenyRule::Loopback)),
    ("64:ff9b::/96", Verdict::Public),
    ("2000::/3", Verdict::Public),
    ("2001:2::/48", Verdict::Special(DenyRule::Benchmarking)),
    ("2001:10::/28", Verdict::Special(DenyRule::Reserved)),
    ("2001:20::/28", Verdict::Special(DenyRule::Reserved)),
    ("2001:db8::/32", Verdict::Special(DenyRule::Documentation)),
    ("3fff::/20", Verdict::Special(DenyRule::Documentation)),
    ("fc00::/7", Verdict::Special(DenyRule::UniqueLocal)),
    ("fe80::/10", Verdict::Special(DenyRule::LinkLocal)),
    ("ff00::/8", Verdict::Special(DenyRule::Multicast)),
];

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> PeerPolicy {
        let parse = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
        PeerPolicy::new(&PeerRules {
            allow: parse(allow),
            deny: parse(deny),
            low_ports: vec![443, 3478],
            own_listeners: vec!["0.0.0.0:3478".parse().unwrap(), "9.9.9.9:9090".parse().unwrap()],
            own_addresses: vec!["9.9.9.9".parse().unwrap(), "10.9.9.9".parse().unwrap()],
        })
    }

    fn check(policy: &PeerPolicy, peer: &str) -> Result<(), DenyRule> {
        let peer: SocketAddr = peer.parse().unwrap();
        policy.check(peer.ip(), Some(peer.port()), |own| own.port() == 50_000).map(|_| ())
    }

    #[test]
    fn special_purpose_addresses_are_denied_by_default() {
        let policy = policy(&[], &[]);
        for (peer, rule) in [
            ("0.0.0.0:5000", DenyRule::Unspecified),
            ("127.0.0.1:5000", DenyRule::Loopback),
            ("10.1.2.3:5000", DenyRule::Private),
            ("172.31.0.1:5000", DenyRule::Private),
            ("192.168.1.1:5000", DenyRule::Private),
            ("100.64.0.1:5000", DenyRule::SharedAddress),
            ("169.254.169.254:5000", DenyRule::LinkLocal),
            ("224.0.0.1:5000", DenyRule::Multicast),
            ("255.255.255.255:5000", DenyRule::Broadcast),
            ("203.0.113.5:5000", DenyRule::Documentation),
            ("198.19.0.1:5000", DenyRule::Benchmarking),
            ("240.0.0.1:5000", DenyRule::Reserved),
            ("[::]:5000", DenyRule::Unspecified),
            ("[::1]:5000", DenyRule::Loopback),
            ("[fd00:ec2::254]:5000", DenyRule::UniqueLocal),
            ("[fe80::1]:5000", DenyRule::LinkLocal),
            ("[fec0::1]:5000", DenyRule::Reserved),
            ("[ff02::1]:5000", DenyRule::Multicast),
            ("[2001:db8::1]:5000", DenyRule::Documentation),
            ("[64:ff9b:1::a00:1]:5000", DenyRule::Reserved),
            ("[::ffff:127.0.0.1]:5000", DenyRule::Loopback),
            ("[::127.0.0.1]:5000", DenyRule::Loopback),
            ("[2002:7f00:1::]:5000", DenyRule::Loopback),
            ("[64:ff9b::10.0.0.1]:5000", DenyRule::Private),
        ] {
            assert_eq!(check(&policy, peer), Err(rule), "{peer}");
        }
        for peer in ["8.8.8.8:5000", "[2600::1]:5000", "[64:ff9b::808:808]:5000", "8.8.8.8:443"] {
            assert_eq!(check(&policy, peer), Ok(()), "{peer}");
        }
    }

    #[test]
    fn low_ports_are_denied_but_for_the_listed_ones() {
        let policy = policy(&[], &[]);
        for port in [0, 1, 53, 123, 161, 442, 1023] {
            assert_eq!(check(&policy, &format!("8.8.8.8:{port}")), Err(DenyRule::Port), "{port}");
        }
        assert_eq!(check(&policy, "8.8.8.8:3478"), Ok(()));
        assert_eq!(check(&policy, "8.8.8.8:1024"), Ok(()));
    }

    #[test]
    fn the_most_specific_list_entry_wins_and_deny_wins_a_tie() {
        let policy = policy(&["10.0.0.0/8", "8.8.0.0/16", "8.8.8.8/32"], &["10.1.0.0/16", "8.8.0.0/16"]);
        assert_eq!(check(&policy, "10.2.0.1:5000"), Ok(()));
        assert_eq!(check(&policy, "10.1.0.1:5000"), Err(DenyRule::DenyList));
        assert_eq!(check(&policy, "8.8.1.1:5000"), Err(DenyRule::DenyList));
        assert_eq!(check(&policy, "8.8.8.8:5000"), Ok(()));
    }

    #[test]
    fn allowing_everything_does_not_open_what_is_special() {
        let policy = policy(&["0.0.0.0/0", "::/0"], &[]);
        assert_eq!(check(&policy, "127.0.0.1:5000"), Err(DenyRule::Loopback));
        assert_eq!(check(&policy, "[fe80::1]:5000"), Err(DenyRule::LinkLocal));
    }

    #[test]
    fn own_addresses_are_reachable_only_at_live_relayed_ports() {
        let policy = policy(&[], &[]);
        for own in ["9.9.9.9", "10.9.9.9"] {
            assert_eq!(check(&policy, &format!("{own}:50000")), Ok(()));
            assert_eq!(check(&policy, &format!("{own}:50001")), Err(DenyRule::OwnAddress));
            assert_eq!(check(&policy, &format!("{own}:3478")), Err(DenyRule::OwnListener));
            assert!(policy.check(own.parse().unwrap(), None, |_| false).is_ok());
        }
        assert_eq!(check(&policy, "9.9.9.9:9090"), Err(DenyRule::OwnListener));
    }

    #[test]
    fn a_relay_on_loopback_does_not_open_loopback() {
        let relay = "127.0.0.1".parse().unwrap();
        let policy = PeerPolicy::new(&PeerRules { own_addresses: vec![relay], ..PeerRules::default() });
        assert_eq!(policy.check(relay, None, |_| true), Err(DenyRule::Loopback));
        assert_eq!(policy.check(relay, Some(50_000), |_| true), Err(DenyRule::Loopback));
    }

    #[test]
    fn own_listeners_stay_denied_where_their_network_is_allowed() {
        let policy = policy(&["127.0.0.0/8", "9.9.9.9/32"], &[]);
        assert_eq!(check(&policy, "127.0.0.1:3478"), Err(DenyRule::OwnListener));
        assert_eq!(check(&policy, "[::ffff:9.9.9.9]:9090"), Err(DenyRule::OwnListener));
        assert_eq!(check(&policy, "127.0.0.1:5000"), Ok(()));
    }

    /// What is denied by default of IPv4.
    static DENIED: LazyLock<Vec<Ipv4Net>> = LazyLock::new(|| {
        let special = DEFAULTS.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Special(_)));
        special.filter_map(|(network, _)| network.parse().ok()).collect()
    });

    static BY_DEFAULT: LazyLock<PeerPolicy> = LazyLock::new(|| PeerPolicy::new(&PeerRules::default()));

    /// An IPv4 address inside every form that could carry it.
    fn embeddings(v4: Ipv4Addr, noise: u64) -> Vec<Ipv6Addr> {
        let [a, b] = [(u32::from(v4) >> 16) as u16, u32::from(v4) as u16];
        let [n0, n1] = [(noise >> 16) as u16, noise as u16];
        vec![
            Ipv6Addr::new(0, 0, 0, 0, 0, 0xFFFF, a, b),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, a, b),
            Ipv6Addr::new(0x64, 0xFF9B, 0, 0, 0, 0, a, b),
            Ipv6Addr::new(0x64, 0xFF9B, 1, n0, n1, 0, a, b),
            Ipv6Addr::new(0x2002, a, b, n0, n1, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, a, b, 0, n0, !0x0808, !0x0808),
            Ipv6Addr::new(0x2001, 0, 0x0808, 0x0808, 0, n1, !a, !b),
            Ipv6Addr::new(0x2600, n0, n1, 0, 0, 0x5EFE, a, b),
            Ipv6Addr::new(0x2600, n0, n1, 0, 0x0200, 0x5EFE, a, b),
        ]
    }

    proptest! {
        // More where PROPTEST_CASES asks for more.
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(20_000)))]

        #[test]
        fn every_embedding_of_a_denied_ipv4_address_is_denied(which in 0..16usize, host: u32, noise: u64) {
            let network = DENIED[which % DENIED.len()];
            let v4 = Ipv4Addr::from(u32::from(network.network()) | (host & u32::from(network.hostmask())));
            prop_assert!(BY_DEFAULT.check(v4.into(), None, |_| true).is_err());
            for v6 in embeddings(v4, noise) {
                prop_assert!(BY_DEFAULT.check(v6.into(), None, |_| true).is_err(), "{v6} carries {v4}");
            }
        }

        #[test]
        fn the_verdict_equals_that_of_a_plain_longest_prefix_search(ip: IpAddr, nets in prop::collection::vec((any::<IpAddr>(), 0..=128u8, any::<bool>()), 0..8)) {
            let nets: Vec<(IpNet, bool)> = nets.into_iter()
                .map(|(ip, length, allow)| (IpNet::new_assert(ip, length % if ip.is_ipv4() { 33 } else { 129 }).trunc(), allow))
                .collect();
            let pick = |allowed: bool| nets.iter().filter(|(_, allow)| *allow == allowed).map(|(net, _)| *net).collect();
            let policy = PeerPolicy::new(&PeerRules { allow: pick(true), deny: pick(false), ..PeerRules::default() });
            let address = canonical(ip);
            let defaults = DEFAULTS.iter().map(|(net, verdict)| (net.parse::<IpNet>().unwrap(), *verdict));
            let listed = nets.iter().map(|(net, allow)| (*net, if *allow { Verdict::Allowed } else { Verdict::Denied }));
            let expected = defaults.chain(listed)
                .filter(|(net, _)| net.contains(&address))
                .max_by_key(|(net, verdict)| (net.prefix_len(), verdict.rank()))
                .map(|(_, verdict)| verdict);
            prop_assert_eq!(Some(policy.verdict(address)), expected);
        }
    }
}
