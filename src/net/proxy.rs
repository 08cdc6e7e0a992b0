//! The PROXY protocol, versions 1 and 2: who is really there, told by a load balancer before anything else.
//!
//! Public for the sake of the fuzzers, which compile this file alone.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// First bytes of a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, its line end included.
const MAX_LINE: usize = 107;
/// The longest header of version 2 that is read: addresses and a few TLVs.
const MAX_BINARY: usize = 1024;

/// Reads exactly one header. `None` when the load balancer speaks for itself (a health check).
///
/// # Errors
/// There is no header, or it is malformed or too long, or the connection ends within it.
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        let [_, _, high, low] = rest;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_BINARY {
            return Err(invalid("too long"));
        }
        header.extend_from_slice(&rest);
        let start = header.len();
        header.resize(start + length, 0);
        stream.read_exact(header.get_mut(start..).unwrap_or_default()).await?;
    } else if header.starts_with(b"PROXY ") {
        // Byte by byte: what follows the line belongs to the client.
        while !header.ends_with(b"\r\n") {
            if header.len() == MAX_LINE {
                return Err(invalid("too long"));
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(invalid("missing"));
    }
    let (parsed, _) =
        ProxyHeader::parse(&header, ParseConfig::default()).map_err(|_| invalid("malformed"))?;
    Ok(parsed.proxied_address().map(|address| address.source))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("PROXY header {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_header::ProxiedAddress;

    async fn read(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let mut stream = bytes;
        let result = read_header(&mut stream).await;
        (result, stream.to_vec())
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_what_follows() {
        for (source, destination) in [("9.9.9.9:1234", "8.8.8.8:3478"), ("[2600::1]:1234", "[2600::2]:3478")]
        {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let header = ProxyHeader::with_address(ProxiedAddress::stream(source, destination));
            let (mut one, mut two) = (Vec::new(), Vec::new());
            header.encode_v1(&mut one).unwrap();
            header.encode_v2(&mut two).unwrap();
            for mut bytes in [one, two] {
                bytes.extend_from_slice(b"\x00\x01rest");
                let (found, rest) = read(&bytes).await;
                assert_eq!((found.unwrap(), rest.as_slice()), (Some(source), b"\x00\x01rest".as_slice()));
            }
        }
    }

    #[tokio::test]
    async fn a_health_check_names_nobody() {
        assert_eq!(read(b"PROXY UNKNOWN\r\n").await.0.unwrap(), None);
        let mut local = Vec::new();
        ProxyHeader::with_local().encode_v2(&mut local).unwrap();
        assert_eq!(read(&local).await.0.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let mut long = SIGNATURE.to_vec();
        long.extend_from_slice(&[0x21, 0x11, 0xFF, 0xFF]);
        let line = format!("PROXY TCP4 {}\r\n", "1".repeat(100));
        let cases: [&[u8]; 6] = [
            b"",
            b"PROXY",
            b"\x00\x01\x00\x00\x21\x12\xa4\x42\0\0\0\0",
            &long,
            line.as_bytes(),
            b"PROXY TCP4 x y\r\n",
        ];
        for bytes in cases {
            assert!(read(bytes).await.0.is_err(), "{bytes:?}");
        }
    }
}
