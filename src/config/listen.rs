//! The part of the check that makes the listeners of the relay.

use std::fs::File as Opened;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::check::Check;
use super::file::{self, File};
use super::secret;
use crate::net::{self, Certificate};

/// Holds one frame of each kind: a ChannelData message, and a STUN message with the largest DATA.
const STREAM_QUEUE_MIN: usize = 16 * 1024;

impl Check<'_> {
    /// The sockets of the relay.
    pub(super) fn net(&mut self, file: &File) -> net::Config {
        let default = file::Listen::default();
        let udp = self.turn_sockets("listen.udp", &file.listen.udp, &default.udp);
        let tcp = self.turn_sockets("listen.tcp", &file.listen.tcp, &default.tcp);
        let tls = self.sockets("listen.tls", &file.listen.tls);
        for (index, socket) in tls.iter().enumerate() {
            if tcp.contains(socket) && socket.port() != 0 {
                self.fail(
                    &format!("listen.tls[{index}]"),
                    format!("{socket} is in listen.tcp too: remove one"),
                );
            }
        }
        let limits = &file.limits;
        self.stream_limits(limits);
        net::Config {
            udp,
            proxies: self.networks("listen.proxy_protocol_from", &file.listen.proxy_protocol_from),
            certificate: self.certificate(&file.tls, !tls.is_empty()),
            tcp,
            tls,
            connections_per_ip: limits.connections_per_ip,
            first_byte_timeout: limits.first_byte_timeout,
            unauthenticated_timeout: limits.unauthenticated_timeout,
            stream_queue: limits.stream_queue,
            workers: file.relay.workers,
            receive_buffer: file.relay.receive_buffer,
            segmentation: file.relay.segmentation,
        }
    }

    /// A list whose default fits hosts without IPv6 too.
    fn turn_sockets(&mut self, key: &str, written: &[String], default: &[String]) -> Vec<SocketAddr> {
        let mut sockets = self.sockets(key, written);
        if !self.host.ipv6 && written == default {
            sockets.retain(SocketAddr::is_ipv4);
            self.notices.push(format!("this host has no IPv6: {key} is IPv4 only"));
        }
        sockets
    }

    pub(super) fn sockets(&mut self, key: &str, written: &[String]) -> Vec<SocketAddr> {
        let mut sockets: Vec<SocketAddr> = Vec::new();
        for (index, text) in written.iter().enumerate() {
            let key = format!("{key}[{index}]");
            match text.parse() {
                Err(_) => self.fail(
                    &key,
                    format!("{text:?} is no socket address: write it like 0.0.0.0:3478 or [::]:3478"),
                ),
                Ok(socket) if sockets.contains(&socket) && socket.port() != 0 => {
                    self.fail(&key, format!("{text:?} is there twice: remove one"));
                }
                Ok(socket) => sockets.push(socket),
            }
        }
        sockets
    }

    fn stream_limits(&mut self, limits: &file::Limits) {
        if limits.connections_per_ip == 0 {
            self.fail(
                "limits.connections_per_ip",
                "0 would refuse everyone: write 1 or more, or empty listen.tcp and listen.tls",
            );
        }
        for (key, time) in [
            ("limits.first_byte_timeout", limits.first_byte_timeout),
            ("limits.unauthenticated_timeout", limits.unauthenticated_timeout),
        ] {
            if time < Duration::from_secs(1) {
                self.fail(key, "must be 1s or longer: clients are not all near");
            }
        }
        if limits.stream_queue < STREAM_QUEUE_MIN {
            self.fail(
                "limits.stream_queue",
                format!("must be {STREAM_QUEUE_MIN} or more: a message does not fit into less"),
            );
        }
    }

    fn certificate(&mut self, tls: &file::Tls, wanted: bool) -> Option<Certificate> {
        match (tls.cert.is_empty(), tls.key.is_empty()) {
            (true, true) => {
                if wanted {
                    self.fail("listen.tls", "needs a certificate: set tls.cert and tls.key, or empty it");
                }
                return None;
            }
            (false, true) => {
                self.fail("tls.key", "tls.cert has no key: set tls.key");
                return None;
            }
            (true, false) => {
                self.fail("tls.cert", "tls.key has no certificate: set tls.cert");
                return None;
            }
            (false, false) => {}
        }
        for (key, path) in [("tls.cert", &tls.cert), ("tls.key", &tls.key)] {
            if let Err(error) = Opened::open(path) {
                self.fail(key, format!("cannot read {path:?}: {error}"));
            }
        }
        if let Some(mode) = secret::readable_by_everyone(Path::new(&tls.key)) {
            let key = &tls.key;
            self.fail(
                "tls.key",
                format!("{key:?} is open to every user of this host (mode {mode:04o}): chmod 600 it"),
            );
        }
        if !wanted {
            self.notices.push("tls.cert does nothing, because listen.tls is empty".into());
        }
        Some(Certificate { cert: tls.cert.clone().into(), key: tls.key.clone().into() })
    }
}
