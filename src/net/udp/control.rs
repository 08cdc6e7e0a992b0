//! Control messages: what the kernel says about a datagram beside its bytes, and what we say about one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::{c_int, cmsghdr, msghdr};

/// Room for the control messages of one run: packet information, traffic class, segment size, overflow counter; or the
/// extended error with the address of who reported it.
pub(super) const ROOM: usize = 128;

/// The control message with the IPv4 address a datagram was sent to, which is also the one that names the address to
/// send from: an in_pktinfo (interface, local address, destination), or on BSD the bare address.
#[cfg(not(any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd")))]
pub(super) const IPV4_DESTINATION: c_int = libc::IP_PKTINFO;
#[cfg(any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd"))]
pub(super) const IPV4_DESTINATION: c_int = libc::IP_RECVDSTADDR;
/// Where in that message the source address lies, and how long it is. The destination is always its end.
const IPV4_SOURCE: (usize, usize) =
    if cfg!(any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd")) {
        (0, 4)
    } else {
        (4, 12)
    };

/// Control messages have to be aligned like their header.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control(pub(super) [u8; ROOM]);

impl Control {
    pub(super) const EMPTY: Self = Self([0; ROOM]);
}

/// What the control messages of a received run say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Information {
    /// Where it was sent to.
    pub(super) destination: Option<IpAddr>,
    /// DSCP and ECN bits.
    pub(super) traffic_class: u8,
    /// Bytes of each datagram of a run that the kernel joined.
    pub(super) stride: Option<usize>,
    /// Datagrams lost so far.
    pub(super) overflow: Option<u32>,
}

/// Calls `each` with level, type and value of every control message.
pub(super) fn each(header: &msghdr, mut each: impl FnMut(c_int, c_int, &[u8])) {
    // SAFETY: the kernel has filled the control buffer and set its length; the macros stay inside it, and a message's
    // value ends where its own length says.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = at.as_ref() {
            #[allow(clippy::unnecessary_cast, reason = "the type is another one on other systems")]
            let length = (head.cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            each(
                head.cmsg_level,
                head.cmsg_type,
                std::slice::from_raw_parts(libc::CMSG_DATA(at).cast_const(), length),
            );
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
}

fn integer(value: &[u8]) -> Option<c_int> {
    value.first_chunk().map(|bytes| c_int::from_ne_bytes(*bytes))
}

/// Reads the control messages of a received run.
pub(super) fn information(header: &msghdr) -> Information {
    let mut found = Information::default();
    each(header, |level, kind, value| match (level, kind) {
        (libc::IPPROTO_IP, IPV4_DESTINATION) => {
            let octets: Option<[u8; 4]> = value.last_chunk().copied();
            found.destination = octets.map(|octets| Ipv4Addr::from(octets).into());
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let octets: Option<&[u8; 16]> = value.first_chunk();
            found.destination = octets.map(|octets| Ipv6Addr::from(*octets).into());
        }
        (libc::IPPROTO_IP, libc::IP_TOS) => found.traffic_class = value.first().copied().unwrap_or_default(),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
            found.traffic_class = integer(value).unwrap_or_default() as u8;
        }
        #[cfg(target_os = "linux")]
        (libc::SOL_UDP, libc::UDP_GRO) => {
            found.stride =
                integer(value).and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        }
        #[cfg(target_os = "linux")]
        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => found.overflow = integer(value).map(|count| count as u32),
        _ => {}
    });
    found
}

/// Writes control messages one behind the other.
pub(super) struct Writer<'a> {
    control: &'a mut Control,
    length: usize,
}

impl<'a> Writer<'a> {
    pub(super) const fn new(control: &'a mut Control) -> Self {
        Self { control, length: 0 }
    }

    /// Bytes written.
    pub(super) const fn length(&self) -> usize {
        self.length
    }

    /// The address a datagram leaves from.
    pub(super) fn source(&mut self, source: IpAddr) {
        match source {
            IpAddr::V4(ip) => {
                let mut value = [0; IPV4_SOURCE.1];
                value[IPV4_SOURCE.0..IPV4_SOURCE.0 + 4].copy_from_slice(&ip.octets());
                self.push(libc::IPPROTO_IP, IPV4_DESTINATION, &value);
            }
            IpAddr::V6(ip) => {
                let mut value = [0; 20];
                value[..16].copy_from_slice(&ip.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &value);
            }
        }
    }

    /// DSCP and ECN bits.
    pub(super) fn traffic_class(&mut self, class: u8, ipv6: bool) {
        let (level, kind) =
            if ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) } else { (libc::IPPROTO_IP, libc::IP_TOS) };
        self.push(level, kind, &c_int::from(class).to_ne_bytes());
    }

    /// Bytes of each datagram of a group, for the kernel to cut at.
    #[cfg(target_os = "linux")]
    pub(super) fn segment(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    fn push(&mut self, level: c_int, kind: c_int, value: &[u8]) {
        let size = value.len() as libc::c_uint;
        // SAFETY: a pure computation.
        let (length, space) = unsafe { (libc::CMSG_LEN(size), libc::CMSG_SPACE(size) as usize) };
        let Some(room) = self.control.0.get_mut(self.length..self.length + space) else { return };
        // SAFETY: the room is as long as one message of this size needs; the buffer is aligned for a header and every
        // message's space is a multiple of that alignment.
        unsafe {
            let head = room.as_mut_ptr().cast::<cmsghdr>();
            (*head).cmsg_len = length as _;
            (*head).cmsg_level = level;
            (*head).cmsg_type = kind;
            libc::CMSG_DATA(head).copy_from_nonoverlapping(value.as_ptr(), value.len());
        }
        self.length += space;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_fits_and_reads_back() {
        let mut control = Control::EMPTY;
        let mut writer = Writer::new(&mut control);
        writer.source("2001:db8::1".parse().unwrap());
        writer.traffic_class(0xB9, true);
        writer.segment(1200);
        let length = writer.length();
        // SAFETY: a plain C structure for which zero bytes are valid.
        let mut header: msghdr = unsafe { std::mem::zeroed() };
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = length as _;
        let found = information(&header);
        assert_eq!(found.destination, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(found.traffic_class, 0xB9);
        let mut segment = None;
        each(&header, |level, kind, value| {
            if (level, kind) == (libc::SOL_UDP, libc::UDP_SEGMENT) {
                segment = value.try_into().ok().map(u16::from_ne_bytes);
            }
        });
        assert_eq!(segment, Some(1200));
        let mut writer = Writer::new(&mut control);
        writer.source("9.8.7.6".parse().unwrap());
        writer.traffic_class(0x2E << 2, false);
        assert!(writer.length() < length);
    }
}
