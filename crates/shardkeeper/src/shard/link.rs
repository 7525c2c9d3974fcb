//! The link of a driver: its connection, in every state from down to up.

use futures_util::future::BoxFuture;
use shardkeeper_transport::{ConnectError, Connection, Event, Reading};
use tokio::time::{Instant, sleep_until};
use url::Url;

/// A connection, or the attempt to open one.
pub(super) enum Link {
    Down,
    /// The pacer delays opening the connection.
    Paced {
        until: Instant,
        url: Url,
    },
    Opening(BoxFuture<'static, Result<Box<Connection>, ConnectError>>),
    Up(Box<Connection>),
}

pub(super) enum LinkEvent<'a> {
    PaceOver(Url),
    Opened(Result<Box<Connection>, ConnectError>),
    Connection(Event<'a>),
}

impl Link {
    /// Waits for the next event of the link.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, since everything it awaits is.
    pub(super) async fn next(&mut self, reading: Reading) -> LinkEvent<'_> {
        match self {
            Self::Down => std::future::pending().await,
            Self::Paced { until, url } => {
                sleep_until(*until).await;
                LinkEvent::PaceOver(url.clone())
            }
            Self::Opening(opening) => LinkEvent::Opened(opening.await),
            Self::Up(connection) => LinkEvent::Connection(connection.next(reading).await),
        }
    }
}
