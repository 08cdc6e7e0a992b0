//! Asking servers of the operator over HTTP: bounded in time and size, no redirects.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Who asks.
const AGENT: &str = concat!("passerelle/", env!("CARGO_PKG_VERSION"));

/// A question without an answer.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The URL or a header is malformed.
    #[error("malformed request: {0}")]
    Malformed(#[from] hyper::http::Error),
    /// No connection, or it broke.
    #[error("{}", chain(.0))]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// The answer broke off, or is too large.
    #[error("unreadable answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The TLS library does not work here; the log has said why.
    #[error("TLS does not work on this host")]
    NoTls,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
}

/// An HTTP client. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Outbound(Option<Client<HttpsConnector<HttpConnector>, Full<Bytes>>>);

impl Default for Outbound {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbound {
    /// Makes a client that trusts what the system trusts.
    #[must_use]
    pub fn new() -> Self {
        let tls = tls().inspect_err(|error| tracing::error!(%error, "no TLS: nothing can be asked")).ok();
        Self(tls.map(|tls| {
            let connector =
                HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
            Client::builder(TokioExecutor::new()).build(connector)
        }))
    }

    /// Asks and reads the whole answer.
    ///
    /// # Errors
    /// [`OutboundError`]; a status that is no success is none.
    pub async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        within: Duration,
    ) -> Result<(StatusCode, Bytes), OutboundError> {
        let mut request = Request::builder().method(method).uri(url).body(Full::new(body))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let client = self.0.as_ref().ok_or(OutboundError::NoTls)?;
        let answer = async {
            let response = client.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER);
            let body = body.collect().await.map_err(OutboundError::Body)?.to_bytes();
            Ok((status, body))
        };
        tokio::time::timeout(within, answer).await.unwrap_or(Err(OutboundError::Timeout))
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// As [`Outbound::ask`].
    pub async fn post_json(
        &self,
        url: &str,
        mut headers: HeaderMap,
        body: Bytes,
        within: Duration,
    ) -> Result<(StatusCode, Bytes), OutboundError> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.ask(Method::POST, url, headers, body, within).await
    }
}

/// TLS with the certificates this system trusts.
fn tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        || ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = match builder()?.with_native_roots() {
        Ok(trusting) => trusting,
        Err(error) => {
            tracing::warn!(%error, "this system trusts no certificates: requests over https will fail");
            builder()?.with_root_certificates(RootCertStore::empty())
        }
    };
    Ok(builder.with_no_client_auth())
}

/// Whether a text is a URL that can be asked.
#[must_use]
pub fn is_url(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    })
}

/// An error with its causes: the outermost of the client says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
