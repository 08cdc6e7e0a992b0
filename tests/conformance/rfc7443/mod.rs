//! Application protocols of STUN and TURN over TLS.

use rustls::ClientConnection;
use stun::message::*;

use crate::support::{Client, Everywhere, Line, Request, Transport};

/// Connects with these protocols; gives the one that was agreed on, or `None` when the handshake fails.
fn negotiate(server: &Everywhere, protocols: &[&[u8]]) -> Option<Option<Vec<u8>>> {
    let mut client: ClientConnection = server.certificate.client(protocols);
    let mut socket = std::net::TcpStream::connect(server.tls[0]).unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut socket).ok()?;
    }
    let agreed = client.alpn_protocol().map(<[u8]>::to_vec);
    let line = Line::encrypted(socket, client);
    assert_eq!(Client::on(line).ask(&Request::new(METHOD_BINDING)).code(), 0);
    Some(agreed)
}

/// Section 3: A client that offers `stun.turn` or `stun.nat-discovery` is served under that name.
#[test]
fn both_protocols_of_stun_are_agreed_on() {
    let server = Everywhere::start("");
    for name in [&b"stun.turn"[..], b"stun.nat-discovery"] {
        assert_eq!(negotiate(&server, &[name]), Some(Some(name.to_vec())));
        assert_eq!(negotiate(&server, &[b"sip", name]), Some(Some(name.to_vec())));
    }
}

/// Section 3: A client that offers no application protocol is served too.
#[test]
fn a_client_without_application_protocols_is_served() {
    assert_eq!(negotiate(&Everywhere::start(""), &[]), Some(None));
}

/// Section 3: A client that offers other protocols only is refused in the handshake (RFC 7301 section 3.2).
#[test]
fn a_client_of_another_protocol_is_refused() {
    let server = Everywhere::start("");
    assert_eq!(negotiate(&server, &[b"h2", b"sip"]), None);
    server.await_metric("passerelle_turn_connections_refused_total", &[("reason", "handshake")], 1.0);
    assert_eq!(server.client(Transport::Tls).ask(&Request::new(METHOD_BINDING)).code(), 0);
}
