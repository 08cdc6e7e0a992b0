//! Socket addresses as the kernel reads and writes them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{c_int, socklen_t};

/// An address of either family: a quarter of the size of `sockaddr_storage`, which matters when hundreds are written.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union RawAddress {
    any: libc::sockaddr,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddress {
    /// Bytes of the largest address.
    pub(super) const SIZE: socklen_t = size_of::<Self>() as socklen_t;

    /// No address.
    pub(super) const fn empty() -> Self {
        // SAFETY: a plain C structure for which zero bytes are valid.
        Self { v6: unsafe { std::mem::zeroed() } }
    }

    /// Reads it; `None` when it is no IP address.
    pub(super) fn read(&self) -> Option<SocketAddr> {
        // SAFETY: every variant begins with the family, which says which one the kernel has written; the value was
        // zeroed before.
        unsafe {
            match c_int::from(self.any.sa_family) {
                libc::AF_INET => {
                    let ip = Ipv4Addr::from(u32::from_be(self.v4.sin_addr.s_addr));
                    Some(SocketAddrV4::new(ip, u16::from_be(self.v4.sin_port)).into())
                }
                libc::AF_INET6 => {
                    let ip = Ipv6Addr::from(self.v6.sin6_addr.s6_addr);
                    Some(
                        SocketAddrV6::new(ip, u16::from_be(self.v6.sin6_port), 0, self.v6.sin6_scope_id)
                            .into(),
                    )
                }
                _ => None,
            }
        }
    }

    /// Writes it; gives its length too.
    pub(super) fn write(address: SocketAddr) -> (Self, socklen_t) {
        let mut raw = Self::empty();
        let length = match address {
            SocketAddr::V4(address) => {
                // SAFETY: as in `empty`.
                let mut v4: libc::sockaddr_in = unsafe { std::mem::zeroed() };
                v4.sin_family = libc::AF_INET as _;
                v4.sin_port = address.port().to_be();
                v4.sin_addr = libc::in_addr { s_addr: u32::from(*address.ip()).to_be() };
                raw.v4 = v4;
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(address) => {
                // SAFETY: as in `empty`.
                let mut v6: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
                v6.sin6_family = libc::AF_INET6 as _;
                v6.sin6_port = address.port().to_be();
                v6.sin6_addr = libc::in6_addr { s6_addr: address.ip().octets() };
                v6.sin6_scope_id = address.scope_id();
                raw.v6 = v6;
                size_of::<libc::sockaddr_in6>()
            }
        };
        (raw, length as socklen_t)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_survives_the_kernels_form(ip: std::net::IpAddr, port: u16) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(RawAddress::write(address).0.read(), Some(address));
        }
    }

    #[test]
    fn other_families_are_no_address() {
        assert_eq!(RawAddress::empty().read(), None);
    }
}
