//! Certificates for the TLS listener, and clients that trust them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tempfile::TempDir;

/// A self-signed certificate and its key in a folder of their own.
#[derive(Debug)]
pub struct Certificate {
    folder: TempDir,
}

impl Certificate {
    /// Makes one for `localhost` and the loopback addresses.
    pub fn new() -> Self {
        let certificate = Self { folder: TempDir::new().unwrap() };
        certificate.renew();
        certificate
    }

    /// Replaces the files by those of a new certificate. The two files are not replaced in one step: as with every
    /// real renewal there is a moment at which they do not belong together.
    pub fn renew(&self) {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        self.write(&made.cert.pem(), &made.signing_key.serialize_pem());
    }

    /// Writes these files.
    pub fn write(&self, cert: &str, key: &str) {
        std::fs::write(self.key(), key).unwrap();
        std::fs::set_permissions(self.key(), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(self.cert(), cert).unwrap();
    }

    /// The chain.
    pub fn cert(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// The private key.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// What is in the file now.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.cert()).unwrap()
    }

    /// The `[tls]` table that names the files.
    pub fn config(&self) -> String {
        format!("[tls]\ncert = {:?}\nkey = {:?}\n", self.cert(), self.key())
    }

    /// A TLS client that trusts what is in the file now, offering these application protocols.
    pub fn client(&self, protocols: &[&[u8]]) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
    }
}
