//! The certificate of the TLS listeners: loaded once, checked against its key, replaced without a dropped connection.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::config::Certificate;

/// ALPN of STUN and TURN over TLS (RFC 7443), and of HTTP on the same port.
const PROTOCOLS: [&[u8]; 3] = [b"stun.turn", b"stun.nat-discovery", b"http/1.1"];

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Why a certificate is not used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read as PEM.
    #[error("{path}: {error}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        error: rustls_pki_types::pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{0}: no certificate in it")]
    Empty(PathBuf),
    /// Certificate and key do not belong together, or the key is of a kind that TLS does not use.
    #[error("certificate and key: {0}")]
    Mismatch(#[from] rustls::Error),
    /// The certificate's own fields cannot be read.
    #[error("{0}: its validity cannot be read")]
    Unreadable(PathBuf),
}

/// A loaded certificate.
#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    /// End of its validity in seconds since the Unix epoch.
    expires_unix: i64,
}

/// The certificate in use. New handshakes get the newest one; what is connected keeps its own.
#[derive(Debug)]
pub struct Certificates {
    files: Certificate,
    current: ArcSwap<Loaded>,
}

/// What tells that a file has changed.
type Stamp = Vec<Option<(SystemTime, u64)>>;

impl Certificates {
    /// Loads the files.
    ///
    /// # Errors
    /// [`CertificateError`] says which file, and why.
    pub fn load(files: Certificate) -> Result<Arc<Self>, CertificateError> {
        let current = ArcSwap::from_pointee(read(&files)?);
        Ok(Arc::new(Self { files, current }))
    }

    /// Loads the files again. The old certificate stays in use when they are no good.
    ///
    /// # Errors
    /// [`CertificateError`] says which file, and why.
    pub fn reload(&self) -> Result<(), CertificateError> {
        self.current.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    /// End of the validity of the certificate in use, in seconds since the Unix epoch.
    pub fn expires_unix(&self) -> i64 {
        self.current.load().expires_unix
    }

    /// Identifies the content of the files without reading it.
    pub(super) fn stamp(&self) -> Stamp {
        let stamp = |path| {
            let found = fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        vec![stamp(&self.files.cert), stamp(&self.files.key)]
    }

    /// The configuration of handshakes that use these certificates.
    ///
    /// # Errors
    /// The cryptography does not do TLS 1.2 and 1.3: a defect of the build.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Arc::new(config))
    }
}

/// Loads the files again whenever they change, until the task is aborted.
pub(super) async fn watch(certificates: Arc<Certificates>, expiry: IntGauge) {
    let mut seen = certificates.stamp();
    expiry.set(certificates.expires_unix());
    loop {
        tokio::time::sleep(LOOK).await;
        let now = certificates.stamp();
        if now == seen {
            // A reload by hand may have changed it.
            expiry.set(certificates.expires_unix());
            continue;
        }
        seen = now;
        match certificates.reload() {
            Ok(()) => {
                expiry.set(certificates.expires_unix());
                tracing::info!(expires_unix = certificates.expires_unix(), "certificate loaded again");
            }
            Err(error) => tracing::warn!(%error, "the new certificate is no good: the old one stays in use"),
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read(files: &Certificate) -> Result<Loaded, CertificateError> {
    let in_file = |path: &PathBuf| {
        let path = path.clone();
        move |error| CertificateError::File { path, error }
    };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(in_file(&files.cert))?;
    let first = chain.first().ok_or_else(|| CertificateError::Empty(files.cert.clone()))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(first)
        .map_err(|_| CertificateError::Unreadable(files.cert.clone()))?;
    let expires_unix = parsed.validity().not_after.timestamp();
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(in_file(&files.key))?;
    let key = Arc::new(CertifiedKey::from_der(chain, key, &provider())?);
    Ok(Loaded { key, expires_unix })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &tempfile::TempDir, name: &str) -> Certificate {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let files = Certificate { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        fs::write(&files.cert, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_new_certificate_replaces_the_old_one_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates::load(write(&folder, "one.example")).unwrap();
        let in_use = || certificates.current.load().key.cert.clone();
        let (first, stamp) = (in_use(), certificates.stamp());
        let files = write(&folder, "two.example.with-a-longer-name");
        assert_ne!(certificates.stamp(), stamp);
        certificates.reload().unwrap();
        let second = in_use();
        assert_ne!(first, second);
        assert!(certificates.expires_unix() > 0);

        let good = fs::read(&files.cert).unwrap();
        let foreign = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        for (cert, wrong) in [
            (b"".to_vec(), "no certificate in it"),
            (b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n".to_vec(), "cert.pem"),
            (foreign.cert.pem().into_bytes(), "certificate and key"),
        ] {
            fs::write(&files.cert, cert).unwrap();
            let error = certificates.reload().unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
            assert_eq!(in_use(), second);
        }
        fs::write(&files.cert, good).unwrap();
        certificates.reload().unwrap();
    }
}
