//! From a URL to a [`Connection`], within a bounded time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use url::Url;

use crate::dial::{BoxedIo, Dialer, Io, Scheme, peer};
use crate::{ConnectError, Connection, Phase, TransportConfig, upgrade};

/// Opens connections with one dialer and one configuration. Cheap to clone; all shards share one.
#[derive(Clone)]
pub struct Connector {
    dialer: Arc<dyn Dialer>,
    config: TransportConfig,
}

impl Connector {
    /// Creates a connector that dials with `dialer`.
    pub fn new(dialer: impl Dialer, config: TransportConfig) -> Self {
        Self { dialer: Arc::new(dialer), config }
    }

    /// The configuration used for every connection.
    #[must_use]
    pub fn config(&self) -> &TransportConfig {
        &self.config
    }

    /// Returns a connector with the same dialer and another configuration.
    #[must_use]
    pub fn with_config(&self, config: TransportConfig) -> Self {
        Self { dialer: Arc::clone(&self.dialer), config }
    }

    /// Dials the URL and performs the WebSocket handshake, both within
    /// [`connect_timeout`](TransportConfig::connect_timeout).
    ///
    /// The URL is used unchanged: the caller adds `v`, `encoding` and `compress` (GW-010), and `compress`
    /// must match [`compression`](TransportConfig::compression). Redirects are not followed.
    ///
    /// # Errors
    /// See [`ConnectError`]. A failed attempt is not repeated.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt and closes what was open.
    pub async fn connect(&self, url: &Url) -> Result<Connection, ConnectError> {
        Scheme::of(url)?;
        let started = Instant::now();
        let limit = self.config.connect_timeout;
        let io = within(limit, limit, Phase::Dial, url, self.dialer.dial(url)).await?;
        let left = limit.saturating_sub(started.elapsed());
        within(left, limit, Phase::Upgrade, url, upgrade(io, url, &self.config)).await
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Connection {
    /// Performs the client's WebSocket handshake over an open byte stream, within
    /// [`connect_timeout`](TransportConfig::connect_timeout). The URL supplies the path, the query and the
    /// `Host`.
    ///
    /// # Errors
    /// The same as [`Connector::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the byte stream.
    pub async fn from_io(io: impl Io, url: &Url, config: &TransportConfig) -> Result<Self, ConnectError> {
        let limit = config.connect_timeout;
        within(limit, limit, Phase::Upgrade, url, upgrade(Box::new(io), url, config)).await
    }
}

async fn upgrade(io: BoxedIo, url: &Url, config: &TransportConfig) -> Result<Connection, ConnectError> {
    let scheme = match Scheme::of(url)? {
        Scheme::Plain => "ws",
        Scheme::Tls => "wss",
    };
    let mut request = url.clone();
    // `set_scheme` cannot fail between schemes that both have a host; the handshake would reject any other.
    request.set_scheme(scheme).map_err(|()| ConnectError::InvalidUrl)?;
    let user_agent = config.user_agent.as_deref().map(HeaderValue::from_str).transpose();
    let user_agent = user_agent.map_err(|_| ConnectError::InvalidUserAgent)?;
    let codec = upgrade::upgrade(io, &request, user_agent, config)
        .await
        .map_err(|error| ConnectError::from_upgrade(peer(url), error))?;
    Ok(Connection::new(codec, config))
}

async fn within<T>(
    left: Duration,
    after: Duration,
    phase: Phase,
    url: &Url,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    match timeout(left, work).await {
        Ok(result) => result,
        Err(_elapsed) => Err(ConnectError::Timeout { peer: peer(url), after, phase }),
    }
}
