//! The connection of a driver, or what there is of it.

use futures_util::future::BoxFuture;
use shardkeeper_transport::{ConnectError, Connection, Event, Reading};
use tokio::time::{Instant, sleep_until};
use url::Url;

/// The connection, or what there is of it.
pub(super) enum Link {
    Down,
    /// Waits for the pacer.
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
    /// # Cancel safety
    ///
    /// Safe: each of its parts is.
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
