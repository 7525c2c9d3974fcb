//! Connections within the process, of which it is known when the client wrote.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::Instant;

/// A client's end of a connection that [`Simulator::connect`](crate::Simulator::connect) made.
#[derive(Debug)]
pub struct MemoryStream {
    io: DuplexStream,
    last_write: LastWrite,
}

/// When the client last wrote. `None` before that, and for ever on a socket, where it is not known.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastWrite(Arc<Mutex<Option<Instant>>>);

impl LastWrite {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// When a message was written that was read at `read_at`: exactly, if the client wrote nothing behind it until then; else a
    /// little later, but never later than it was read.
    pub(crate) fn of_message(&self, read_at: Instant) -> Instant {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(read_at, |last| last.min(read_at))
    }
}

impl MemoryStream {
    pub(crate) const fn new(io: DuplexStream, last_write: LastWrite) -> Self {
        Self { io, last_write }
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

/// Each write is noted first: its reader may be on another thread.
impl AsyncWrite for MemoryStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.last_write.note();
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.last_write.note();
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
