//! Which pages may talk to this server. A browser sends its page's origin with every WebSocket handshake and enforces
//! nothing itself: without this check any page could open a session in the name of its visitor.

use std::net::{IpAddr, Ipv6Addr};

/// An origin (RFC 6454), compared as a whole: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// A configured origin that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an origin: write scheme://host or scheme://host:port, without a path, international names in punycode"
)]
pub struct BadOrigin(pub String);

/// What a page of an origin may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything its caller may.
    Allowed,
    /// Only what a token allows: nothing anonymous.
    TokenOnly,
    /// Nothing.
    Refused,
}

/// The allow list.
#[derive(Debug, Clone)]
pub(crate) struct Origins {
    any: bool,
    allowed: Vec<Origin>,
    own_must_be_loopback: bool,
}

impl Origins {
    /// Reads the allow list. With `own_must_be_loopback` the server's own origin counts as its own only under a
    /// loopback name, so that a page whose name was rebound to 127.0.0.1 does not.
    ///
    /// # Errors
    /// [`BadOrigin`] names the first entry that is none.
    pub(crate) fn parse(list: &[String], own_must_be_loopback: bool) -> Result<Self, BadOrigin> {
        let mut allowed = Vec::with_capacity(list.len());
        let mut any = false;
        for entry in list {
            match entry.as_str() {
                "*" => any = true,
                entry => allowed.push(Origin::parse(entry).ok_or_else(|| BadOrigin(entry.to_owned()))?),
            }
        }
        Ok(Self { any, allowed, own_must_be_loopback })
    }

    /// Judges a request by its `Origin` and `Host` headers. What is not a browser sends no origin and is allowed.
    pub(crate) fn check(&self, origin: Option<&str>, host: Option<&str>) -> Verdict {
        let Some(origin) = origin else { return Verdict::Allowed };
        if self.any {
            return Verdict::Allowed;
        }
        let origin = Origin::parse(origin);
        if !self.allowed.is_empty() {
            let listed = origin.is_some_and(|origin| self.allowed.contains(&origin));
            return if listed { Verdict::Allowed } else { Verdict::Refused };
        }
        match (origin, host) {
            (Some(origin), Some(host)) if self.is_own(&origin, host) => Verdict::Allowed,
            _ => Verdict::TokenOnly,
        }
    }

    fn is_own(&self, origin: &Origin, host: &str) -> bool {
        let own = Origin::parse(&format!("{}://{host}", origin.scheme));
        own.is_some_and(|own| own == *origin) && (!self.own_must_be_loopback || origin.is_loopback())
    }
}

impl Origin {
    /// Parses `scheme://host[:port]`; the default port of the scheme is filled in.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme_byte = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        if scheme.is_empty() || !scheme.bytes().all(scheme_byte) {
            return None;
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                address.parse::<Ipv6Addr>().ok()?;
                let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
                (authority.get(..address.len() + 2)?, port)
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if host.is_empty() || !(host.starts_with('[') || host.bytes().all(host_byte)) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let port = match port {
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse().ok()?),
            Some(_) => return None,
            None => match scheme.as_str() {
                "http" | "ws" => Some(80),
                "https" | "wss" => Some(443),
                _ => None,
            },
        };
        Some(Self { scheme, host: host.to_ascii_lowercase(), port })
    }

    fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(list: &[&str]) -> Origins {
        Origins::parse(&list.iter().map(ToString::to_string).collect::<Vec<_>>(), false).unwrap()
    }

    #[test]
    fn only_listed_origins_pass_an_allow_list() {
        let list = origins(&[
            "https://app.example.org",
            "http://dev.example.org:8080",
            "https://xn--bcher-kva.example",
        ]);
        for (origin, verdict) in [
            (None, Verdict::Allowed),
            (Some("https://app.example.org"), Verdict::Allowed),
            (Some("https://app.example.org:443"), Verdict::Allowed),
            (Some("HTTPS://APP.example.ORG"), Verdict::Allowed),
            (Some("https://xn--bcher-kva.example"), Verdict::Allowed),
            (Some("http://dev.example.org:8080"), Verdict::Allowed),
            (Some("null"), Verdict::Refused),
            (Some(""), Verdict::Refused),
            (Some("http://app.example.org"), Verdict::Refused),
            (Some("https://app.example.org:8443"), Verdict::Refused),
            (Some("http://dev.example.org"), Verdict::Refused),
            (Some("https://app.example.org.evil.example"), Verdict::Refused),
            (Some("https://evil-app.example.org"), Verdict::Refused),
            (Some("https://app.example.org@evil.example"), Verdict::Refused),
            (Some("https://app.example.org/"), Verdict::Refused),
            (Some("https://app.example.org:"), Verdict::Refused),
            (Some("https://app.example.org:+443"), Verdict::Refused),
            (Some("https://bücher.example"), Verdict::Refused),
            (Some("https://app.example.org, https://evil.example"), Verdict::Refused),
            (Some("https://localhost:8080"), Verdict::Refused),
        ] {
            assert_eq!(list.check(origin, Some("localhost:8080")), verdict, "{origin:?}");
        }
    }

    #[test]
    fn without_a_list_only_the_servers_own_origin_needs_no_token() {
        let none = origins(&[]);
        for (origin, host, verdict) in [
            (None, Some("a.example"), Verdict::Allowed),
            (Some("https://a.example"), Some("a.example"), Verdict::Allowed),
            (Some("https://a.example"), Some("A.example:443"), Verdict::Allowed),
            (Some("http://a.example:8080"), Some("a.example:8080"), Verdict::Allowed),
            (Some("http://[::1]:8080"), Some("[::1]:8080"), Verdict::Allowed),
            (Some("http://[::1]"), Some("[::1]x"), Verdict::TokenOnly),
            (Some("http://a.example:8080"), Some("a.example:8081"), Verdict::TokenOnly),
            (Some("http://a.example"), Some("a.example.evil.example"), Verdict::TokenOnly),
            (Some("http://b.example"), Some("a.example"), Verdict::TokenOnly),
            (Some("null"), Some("null"), Verdict::TokenOnly),
            (Some("null"), Some("a.example"), Verdict::TokenOnly),
            (Some("http://a.example"), None, Verdict::TokenOnly),
        ] {
            assert_eq!(none.check(origin, host), verdict, "{origin:?} {host:?}");
        }
    }

    #[test]
    fn a_name_rebound_to_loopback_is_not_our_own_origin_in_development() {
        let development = Origins::parse(&[], true).unwrap();
        for (authority, verdict) in [
            ("localhost:8080", Verdict::Allowed),
            ("127.0.0.1:8080", Verdict::Allowed),
            ("[::1]:8080", Verdict::Allowed),
            ("app.localhost:8080", Verdict::Allowed),
            ("evil.example:8080", Verdict::TokenOnly),
            ("evillocalhost:8080", Verdict::TokenOnly),
        ] {
            assert_eq!(development.check(Some(&format!("http://{authority}")), Some(authority)), verdict);
        }
    }

    #[test]
    fn a_bad_entry_is_named() {
        for entry in
            ["", "example.org", "https://", "https://a.example/path", "https://*.example.org", "null"]
        {
            let error = Origins::parse(&[entry.to_owned()], false).unwrap_err();
            assert!(error.to_string().contains(&format!("`{entry}`")));
        }
        assert_eq!(origins(&["*"]).check(Some("null"), None), Verdict::Allowed);
    }
}
