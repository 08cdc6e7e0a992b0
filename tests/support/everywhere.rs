//! A server that listens on every transport, and clients for each.

use std::ops::Deref;

use super::stun_client::Client;
use super::{Certificate, Line, Server, Transport};

const LISTEN: &str = "[listen]\ntcp = [\"127.0.0.1:0\"]\ntls = [\"127.0.0.1:0\"]\n";

/// A server on UDP, TCP and TLS.
#[derive(Debug)]
pub struct Everywhere {
    server: Server,
    /// What it shows to TLS clients.
    pub certificate: Certificate,
}

impl Everywhere {
    /// Starts it; `config` goes over what [`Server::start`] starts from.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        let certificate = Certificate::new();
        let server = Server::start_with(&[LISTEN, &certificate.config(), config]);
        Self { server, certificate }
    }

    /// A line to its first listener of a transport.
    pub fn line(&self, transport: Transport) -> Line {
        match transport {
            Transport::Udp => Line::udp(self.server.turn()),
            Transport::Tcp => Line::tcp(self.server.tcp[0]),
            Transport::Tls => Line::tls(self.server.tls[0], self.certificate.client(&[b"stun.turn"])),
        }
    }

    /// A client over a transport.
    pub fn client(&self, transport: Transport) -> Client {
        Client::on(self.line(transport))
    }

    /// A client over a transport that holds an allocation, and its relayed address.
    #[track_caller]
    pub fn allocated(&self, transport: Transport) -> (Client, std::net::SocketAddr) {
        let mut client = self.client(transport);
        let relayed = client.allocate();
        (client, relayed)
    }

    /// Asks it to stop and asserts that it does, with exit code 0. Gives its whole log.
    #[track_caller]
    pub fn stop(self) -> String {
        self.server.stop()
    }
}

impl Deref for Everywhere {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
