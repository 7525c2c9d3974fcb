//! TLS with a generated certificate.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream to a client.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Accepts connections, with TLS or without.
#[derive(Clone)]
pub(crate) enum Acceptor {
    Plain,
    #[cfg(feature = "tls")]
    Tls(tokio_rustls::TlsAcceptor),
}

impl Acceptor {
    /// Performs the TLS handshake. `None` if it fails, for example because the client does not trust the
    /// certificate; the client reports that.
    pub(crate) async fn accept(self, stream: TcpStream) -> Option<Box<dyn Stream>> {
        match self {
            Self::Plain => Some(Box::new(stream)),
            #[cfg(feature = "tls")]
            Self::Tls(acceptor) => Some(Box::new(acceptor.accept(stream).await.ok()?)),
        }
    }
}

#[cfg(feature = "tls")]
pub(crate) use self::generated::generate;

#[cfg(feature = "tls")]
mod generated {
    use std::io;
    use std::net::IpAddr;
    use std::sync::Arc;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::ServerConfig;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::Acceptor;

    /// Generates a certificate for `localhost` and this address. Returns an acceptor and the certificate in
    /// PEM.
    pub(crate) fn generate(ip: IpAddr) -> io::Result<(Acceptor, String)> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned(), ip.to_string()])
                .map_err(io::Error::other)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .map_err(io::Error::other)?;
        Ok((Acceptor::Tls(Arc::new(config).into()), cert.pem()))
    }
}
