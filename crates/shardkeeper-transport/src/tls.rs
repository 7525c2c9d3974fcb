//! TLS configuration and handshake.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;

/// The limit, in bytes, of ciphertext waiting for a blocked socket; the default of rustls is 64 KiB. What
/// does not fit stays in the connection's own bounded buffer.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// The TLS configuration of [`TcpDialer::new`](crate::TcpDialer::new): TLS 1.2 and 1.3 by `ring`, and the
/// root certificates of `webpki-roots`.
///
/// The configuration names its crypto provider, since rustls panics when it has to guess between two. Build
/// it once and share it: each copy holds its own roots, and its own store of resumable TLS sessions, which
/// makes a mass reconnect cheaper.
#[must_use]
pub fn client_config() -> Arc<ClientConfig> {
    with_roots(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
}

/// Returns [`client_config`] with additional trusted certificates, for example of a proxy or of a simulator.
/// `pem` may hold several.
///
/// # Errors
/// When the text is not PEM, holds no certificate, or holds one that cannot be a root.
pub fn client_config_trusting(pem: &[u8]) -> Result<Arc<ClientConfig>, CertificateError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let known = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| CertificateError::Pem)?;
        roots.add(certificate).map_err(CertificateError::NoRoot)?;
    }
    if roots.len() == known { Err(CertificateError::None) } else { Ok(with_roots(roots)) }
}

/// Why an additional certificate cannot be trusted.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The text is not in PEM format.
    #[error("the certificate is not in PEM format: it has to begin with -----BEGIN CERTIFICATE-----")]
    Pem,
    /// The text holds no certificate.
    #[error("the PEM text holds no certificate: it needs a section -----BEGIN CERTIFICATE-----")]
    None,
    /// The certificate cannot be a root, for example because it is malformed.
    #[error("the certificate cannot be a root of trust: use the CA certificate, in PEM format")]
    NoRoot(#[source] rustls::Error),
}

fn with_roots(roots: RootCertStore) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Performs the TLS handshake over an open TCP connection.
pub(crate) async fn handshake(
    config: Arc<ClientConfig>,
    host: Host<&str>,
    tcp: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = match host {
        Host::Domain(domain) => ServerName::try_from(domain.to_owned()).map_err(std::io::Error::other)?,
        Host::Ipv4(address) => ServerName::IpAddress(std::net::IpAddr::V4(address).into()),
        Host::Ipv6(address) => ServerName::IpAddress(std::net::IpAddr::V6(address).into()),
    };
    TlsConnector::from(config)
        .connect_with(name, tcp, |session| session.set_buffer_limit(Some(WRITE_BUFFER_BYTES)))
        .await
}
