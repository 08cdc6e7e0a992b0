//! The error queue of a socket: ICMP errors of what it sent, with the peer that could not be reached.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use crate::turn::IcmpError;

/// Errors read at once, so that a flood of them does not hold up data.
#[cfg(target_os = "linux")]
const LIMIT: usize = 32;

/// ICMP errors and the peers they are about.
pub(in crate::net) type IcmpErrors = Vec<(SocketAddr, IcmpError)>;

/// Empties the error queue of a socket into `found`; true when there may be more. Errors of this host itself are left
/// out: the call that caused them has reported them.
#[cfg(target_os = "linux")]
pub(in crate::net) fn drain_errors(socket: RawFd, found: &mut IcmpErrors) -> bool {
    use super::address::RawAddress;
    use super::call;
    use super::control::{self, Control, ROOM};

    for _ in 0..LIMIT {
        let (mut peer, mut control) = (RawAddress::empty(), Control::EMPTY);
        let mut slot = call::empty();
        slot.msg_hdr.msg_name = (&raw mut peer).cast();
        slot.msg_hdr.msg_namelen = RawAddress::SIZE;
        slot.msg_hdr.msg_control = (&raw mut control).cast();
        slot.msg_hdr.msg_controllen = ROOM as _;
        let received = call::uninterrupted(|| {
            // SAFETY: the header points to live buffers with their true lengths; the datagram that caused the error
            // is not asked for.
            unsafe { libc::recvmsg(socket, &raw mut slot.msg_hdr, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) }
        });
        if received.is_err() {
            return false;
        }
        let mut error = None;
        control::each(&slot.msg_hdr, |level, kind, value| {
            if matches!(
                (level, kind),
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
            ) {
                error = extended(value);
            }
        });
        found.extend(peer.read().zip(error));
    }
    true
}

/// Reads `sock_extended_err`: errno, origin, type, code, padding, information, data.
#[cfg(target_os = "linux")]
fn extended(value: &[u8]) -> Option<IcmpError> {
    let [_, _, _, _, origin, kind, code, _, information @ ..] = value else { return None };
    let information = information.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))?;
    match *origin {
        libc::SO_EE_ORIGIN_ICMP => IcmpError::v4(*kind, *code, information),
        libc::SO_EE_ORIGIN_ICMP6 => IcmpError::v6(*kind, *code, information),
        _ => None,
    }
}

/// Other systems keep no such queue.
#[cfg(not(target_os = "linux"))]
pub(in crate::net) fn drain_errors(_: RawFd, _: &mut IcmpErrors) -> bool {
    false
}
