//! From a URL to an open byte stream: DNS, TCP, TLS.
//!
//! WebSocket is a separate stage, so that a test or a proxy can replace only this one.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::{Host, Url};

use crate::resolve::Resolver;
use crate::{ConnectError, tls};

/// How long one address may take before the next is tried in parallel (RFC 8305 recommends 250 ms).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A byte stream in both directions. Implemented for every type that meets the bounds.
///
/// A write of a non-empty buffer must not return `Ok(0)`.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A boxed byte stream of any type.
pub type BoxedIo = Box<dyn Io>;

/// Opens byte streams. [`TcpDialer`] opens real ones; tests supply in-memory streams, others connect through
/// a proxy.
pub trait Dialer: Send + Sync + 'static {
    /// Opens the byte stream for the URL: encrypted for `wss` and `https`, plain for `ws` and `http`.
    ///
    /// A dialer needs no timeout of its own: the [`Connector`](crate::Connector) limits the time.
    ///
    /// # Cancel safety
    /// Dropping the future must abandon the attempt and leave nothing open.
    fn dial<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<BoxedIo, ConnectError>>;
}

impl<T: Dialer + ?Sized> Dialer for Arc<T> {
    fn dial<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<BoxedIo, ConnectError>> {
        (**self).dial(url)
    }
}

/// Dials over TCP, with TLS for `wss` and `https`.
///
/// Nagle's algorithm is off, because otherwise a heartbeat could wait for the acknowledgement of the command
/// before it. Addresses are tried 250 ms apart, alternating between IPv6 and IPv4, so that a broken IPv6
/// route delays a connect instead of failing it. Clones share one TLS configuration and one DNS cache: at
/// most one look-up per host name runs at a time, and an answer is used for 10 s. A failed look-up is
/// repeated by the next dial.
#[derive(Clone)]
pub struct TcpDialer {
    tls: Arc<ClientConfig>,
    resolver: Arc<Resolver>,
}

impl TcpDialer {
    /// Creates a dialer with the TLS configuration of [`client_config`](crate::client_config).
    #[must_use]
    pub fn new() -> Self {
        Self::with_tls(tls::client_config())
    }

    /// Creates a dialer with a custom TLS configuration: other roots, another crypto provider.
    #[must_use]
    pub fn with_tls(tls: Arc<ClientConfig>) -> Self {
        Self { tls, resolver: Arc::new(Resolver::system()) }
    }
}

impl TcpDialer {
    async fn resolve(&self, host: &Host<&str>, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(match *host {
            Host::Domain(domain) => self.resolver.addresses(domain, port).await?,
            Host::Ipv4(address) => vec![(address, port).into()],
            Host::Ipv6(address) => vec![(address, port).into()],
        })
    }
}

impl Default for TcpDialer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TcpDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpDialer").finish_non_exhaustive()
    }
}

impl Dialer for TcpDialer {
    fn dial<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<BoxedIo, ConnectError>> {
        Box::pin(async move {
            let scheme = Scheme::of(url)?;
            let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
                return Err(ConnectError::InvalidUrl);
            };
            let tcp = async {
                let addresses = self.resolve(&host, port).await.map_err(|source| (true, source))?;
                let tcp = connect_any(in_turn(addresses)).await.map_err(|source| (false, source))?;
                tcp.set_nodelay(true).map_err(|source| (false, source))?;
                Ok(tcp)
            };
            let tcp = tcp.await.map_err(|(resolving, source)| match resolving {
                true => ConnectError::Resolve { peer: peer(url), source },
                false => ConnectError::Tcp { peer: peer(url), source },
            })?;
            if scheme == Scheme::Plain {
                return Ok(Box::new(tcp) as BoxedIo);
            }
            let stream = tls::handshake(Arc::clone(&self.tls), host, tcp)
                .await
                .map_err(|source| ConnectError::Tls { peer: peer(url), source })?;
            Ok(Box::new(stream) as BoxedIo)
        })
    }
}

/// Whether a URL asks for TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Plain,
    Tls,
}

impl Scheme {
    pub(crate) fn of(url: &Url) -> Result<Self, ConnectError> {
        match url.scheme() {
            "ws" | "http" => Ok(Self::Plain),
            "wss" | "https" => Ok(Self::Tls),
            other => Err(ConnectError::UnsupportedScheme { scheme: other.to_owned() }),
        }
    }
}

/// The URL's `host:port`. The rest of the URL may hold secrets, which must not be logged.
pub(crate) fn peer(url: &Url) -> String {
    let host = url.host_str().unwrap_or("(no host)");
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Alternates between the address families, beginning with the resolver's first choice.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return ordered;
        }
        ordered.extend(pair.into_iter().flatten());
    }
}

/// Connects to the first address that answers. Each further attempt starts when one failed or after
/// [`ATTEMPT_DELAY`].
async fn connect_any(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut last_error = None;
    loop {
        running.extend(waiting.next().map(TcpStream::connect));
        if running.is_empty() {
            return Err(last_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
        }
        tokio::select! {
            biased;
            Some(attempt) = running.next() => match attempt {
                Ok(tcp) => return Ok(tcp),
                Err(error) => last_error = Some(error),
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
            else => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn peer_names_host_and_port_only() {
        assert_eq!(peer(&url("wss://gateway.discord.gg/?token=secret")), "gateway.discord.gg:443");
        assert_eq!(peer(&url("ws://user:secret@localhost/x")), "localhost:80");
        assert_eq!(peer(&url("http://[::1]:7000/")), "[::1]:7000");
    }

    #[test]
    fn schemes() {
        assert_eq!(Scheme::of(&url("ws://a")).unwrap(), Scheme::Plain);
        assert_eq!(Scheme::of(&url("http://a")).unwrap(), Scheme::Plain);
        assert_eq!(Scheme::of(&url("wss://a")).unwrap(), Scheme::Tls);
        assert_eq!(Scheme::of(&url("https://a")).unwrap(), Scheme::Tls);
        let error = Scheme::of(&url("ftp://a")).unwrap_err();
        assert!(error.to_string().contains("\"ftp\""), "{error}");
        assert!(!error.is_retryable());
    }

    #[test]
    fn families_take_turns() {
        let list = |text: &str| -> Vec<SocketAddr> { text.split(' ').map(|a| a.parse().unwrap()).collect() };
        assert_eq!(
            in_turn(list("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1 1.1.1.2:1")),
            list("[::1]:1 1.1.1.1:1 [::2]:1 1.1.1.2:1 [::3]:1")
        );
        assert_eq!(in_turn(list("1.1.1.1:1 [::1]:1 1.1.1.2:1")), list("1.1.1.1:1 [::1]:1 1.1.1.2:1"));
        assert_eq!(in_turn(Vec::new()), Vec::new());
    }

    #[tokio::test]
    async fn a_refusing_address_gives_way_to_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            other.local_addr().unwrap()
        };
        assert_eq!(connect_any(vec![closed, open]).await.unwrap().peer_addr().unwrap(), open);
        assert_eq!(connect_any(vec![closed]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect_any(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
