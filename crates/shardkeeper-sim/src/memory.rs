//! Streams in memory that record when the client wrote what the simulator reads.
//!
//! A busy machine may run the tasks that read two connections in another order than the client wrote to them.
//! If the simulator judged by the time of reading, it would blame the client for that.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::Instant;

/// The capacity of a stream in each direction.
const CAPACITY_BYTES: usize = 64 * 1024;

/// The client's end of a connection in memory, made by [`Simulator::connect`](crate::Simulator::connect).
#[derive(Debug)]
pub struct MemoryStream {
    io: DuplexStream,
    writes: Writes,
}

/// The simulator's end of a connection. Each read returns bytes of one write only.
pub(crate) struct Accepted {
    io: DuplexStream,
    writes: Writes,
}

/// The time at which the client wrote the bytes that were read last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrival(Option<Writes>);

#[derive(Clone, Debug, Default)]
struct Writes(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The time and length of each write that was not read yet. There are no more entries than bytes in the
    /// stream.
    unread: VecDeque<(Instant, usize)>,
    last_read: Option<Instant>,
}

/// The two ends of a new connection.
pub(crate) fn stream() -> (MemoryStream, Accepted) {
    let (ours, theirs) = tokio::io::duplex(CAPACITY_BYTES);
    let writes = Writes::default();
    (MemoryStream { io: ours, writes: writes.clone() }, Accepted { io: theirs, writes })
}

impl Accepted {
    pub(crate) fn arrival(&self) -> Arrival {
        Arrival(Some(self.writes.clone()))
    }
}

impl Arrival {
    /// When the bytes that were read last were written. For a TCP connection, where that is not known, the
    /// current time.
    pub(crate) fn at(&self) -> Instant {
        let written = self.0.as_ref().and_then(|writes| writes.state().last_read);
        written.unwrap_or_else(Instant::now)
    }
}

impl Writes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let writes = self.writes.clone();
        // Locked during the write, so that nothing is read before its time is recorded.
        let mut state = writes.state();
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        let at = Instant::now();
        match state.unread.back_mut() {
            Some((last, bytes)) if *last == at => *bytes += written,
            _ if written == 0 => {}
            _ => state.unread.push_back((at, written)),
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
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

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let writes = self.writes.clone();
        let mut state = writes.state();
        let Some(&(at, unread)) = state.unread.front() else {
            // Only the end of the stream can be read.
            return Pin::new(&mut self.io).poll_read(cx, buf);
        };
        let room = unread.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        state.last_read = Some(at);
        match state.unread.front_mut() {
            Some((_, bytes)) if *bytes > read => *bytes -= read,
            _ => drop(state.unread.pop_front()),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_read_late_keeps_the_time_of_its_writing() {
        let (mut client, mut accepted) = stream();
        let arrival = accepted.arrival();
        let begun = Instant::now();
        client.write_all(b"one").await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        client.write_all(b"two").await.unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        drop(client);
        let mut buffer = [0; 16];
        for (text, seconds) in [("one", 0), ("two", 1)] {
            let read = accepted.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..read], text.as_bytes());
            assert_eq!(arrival.at() - begun, Duration::from_secs(seconds));
        }
        assert_eq!(accepted.read(&mut buffer).await.unwrap(), 0, "the end");
    }

    #[tokio::test(start_paused = true)]
    async fn over_a_network_the_time_of_reading_counts() {
        assert_eq!(Arrival::default().at(), Instant::now());
    }
}
