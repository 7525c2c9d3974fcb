//! Both ends of a connection in memory.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod samples;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use shardkeeper_transport::{Closed, Compression, Connection, Event, Io, Reading, TransportConfig};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::timeout;
use tokio_tungstenite::{WebSocketStream, accept_async};
use url::Url;

pub(crate) type Server = WebSocketStream<DuplexStream>;

pub(crate) fn url() -> Url {
    "ws://gateway.test/?v=10&encoding=json&secret=hunter2".parse().unwrap()
}

pub(crate) fn config(compression: Compression) -> TransportConfig {
    let mut config = TransportConfig::default();
    config.compression = compression;
    config
}

pub(crate) async fn pair(config: &TransportConfig) -> (Connection, Server) {
    pair_with_buffer(config, 64 << 10).await
}

pub(crate) async fn pair_with_buffer(config: &TransportConfig, bytes: usize) -> (Connection, Server) {
    let (client, server) = tokio::io::duplex(bytes);
    pair_over(client, server, config).await
}

pub(crate) async fn pair_over(
    client: impl Io,
    server: DuplexStream,
    config: &TransportConfig,
) -> (Connection, Server) {
    let url = url();
    let (connection, server) = tokio::join!(Connection::from_io(client, &url, config), accept_async(server));
    (connection.unwrap(), server.unwrap())
}

/// The next event, which must be a message.
pub(crate) async fn message(connection: &mut Connection) -> Vec<u8> {
    match connection.next(Reading::On).await {
        Event::Message(payload) => payload.to_vec(),
        other => panic!("no message but {other:?}"),
    }
}

/// The next event, which must be the end of the connection.
pub(crate) async fn closed(connection: &mut Connection) -> Closed {
    // Under the paused clock, a missing end is reported at once.
    let event = timeout(Duration::from_secs(3600), connection.next(Reading::On)).await;
    match event.expect("the connection is at its end") {
        Event::Closed(closed) => closed,
        other => panic!("not closed but {other:?}"),
    }
}

pub(crate) async fn flushed(connection: &mut Connection, reading: Reading) {
    let event = connection.next(reading).await;
    assert!(matches!(event, Event::Flushed), "not flushed but {event:?}");
}

/// A stream whose writes fail from some time on, while its reads keep waiting.
pub(crate) struct Breakable {
    pub(crate) inner: DuplexStream,
    pub(crate) broken: Arc<AtomicBool>,
}

impl AsyncRead for Breakable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Breakable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.broken.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
