//! What a load balancer says before its client speaks: read as PROXY headers are written, and not a byte further.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use passerelle::net::proxy::read_header;
use tokio::io::{AsyncRead, ReadBuf};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Gives at most so many bytes at a time.
struct Dripping<'a>(&'a [u8], usize);

impl AsyncRead for Dripping<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.1.min(to.remaining()).min(self.0.len());
        let (now, later) = self.0.split_at(length);
        to.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

/// What is read, and how many bytes of the stream.
fn read(bytes: &[u8], step: usize) -> (Option<Option<SocketAddr>>, usize) {
    let mut stream = Dripping(bytes, step);
    let outcome = match pin!(read_header(&mut stream)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome.ok(),
        Poll::Pending => panic!("a stream that has everything is waited for"),
    };
    (outcome, bytes.len() - stream.0.len())
}

pub(super) fn run(bytes: &[u8]) {
    let (outcome, taken) = read(bytes, usize::MAX);
    let (dripped, dripped_taken) = read(bytes, 1);
    assert_eq!((&outcome, taken), (&dripped, dripped_taken), "the pieces make no difference");
    let Some(source) = outcome else {
        assert!(taken <= 16 + 1024, "nobody is read further than the longest header");
        return;
    };
    let header = &bytes[..taken];
    if header.starts_with(SIGNATURE) {
        assert_eq!(taken, 16 + usize::from(u16::from_be_bytes([header[14], header[15]])));
        assert!(matches!(header[12], 0x20 | 0x21), "version 2, LOCAL or PROXY");
        if let Some(source) = source {
            assert_eq!((header[12], source), (0x21, binary(header)));
        }
    } else {
        assert!(taken <= 107 && header.ends_with(b"\r\n") && header.starts_with(b"PROXY "));
        // What follows UNKNOWN is anybody's.
        let line = String::from_utf8_lossy(header);
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        match source {
            None => assert!(words[1].starts_with("UNKNOWN")),
            Some(source) => {
                assert_eq!(words[1], if source.is_ipv4() { "TCP4" } else { "TCP6" });
                let said: (IpAddr, u16) = (words[2].parse().unwrap(), words[4].parse().unwrap());
                assert_eq!((source.ip(), source.port()), said);
            }
        }
    }
}

/// The source in a header of version 2.
fn binary(header: &[u8]) -> SocketAddr {
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    match header[13] >> 4 {
        1 => SocketAddr::from((
            <Ipv4Addr as From<[u8; 4]>>::from(header[16..20].try_into().unwrap()),
            port(24),
        )),
        2 => SocketAddr::from((
            <Ipv6Addr as From<[u8; 16]>>::from(header[16..32].try_into().unwrap()),
            port(48),
        )),
        family => panic!("family {family} has an address of TCP or UDP"),
    }
}
