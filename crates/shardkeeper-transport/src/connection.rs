//! An open connection: queues outgoing messages, returns incoming whole payloads.
//!
//! ```text
//! enqueue ─▶ write buffer ─▶ byte stream ─▶ frames ─▶ (inflate) ─▶ Event::Message
//! ```
//!
//! The task that owns a connection polls both directions each time: a blocked write never stops reading, and
//! a pause in reading never stops writing. Liveness is not judged here: the caller detects a silent peer by
//! missing heartbeat ACKs (GW-015: WebSocket pings prove nothing).

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes, protocol::CloseFrame};

use crate::dial::BoxedIo;
use crate::frames::Held;
use crate::{Inflater, TransportConfig, TransportError};

/// The longest close reason: a control frame has 125 bytes, two of which are the code (RFC 6455, 5.5).
const MAX_REASON_BYTES: usize = 123;

/// Whether [`Connection::next`] reads further messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// Read and write.
    On,
    /// Write only, as back-pressure. The peer's bytes stay in the socket's buffers, pings are not answered,
    /// and neither a close frame nor the end of the stream is noticed. A failing write is noticed.
    Paused,
}

/// What happened on a connection.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "callers have to handle every event")]
pub enum Event<'a> {
    /// A whole payload, inflated if the connection is compressed. Borrowed until the next call, so copy
    /// what must last longer. At most [`max_message_bytes`](TransportConfig::max_message_bytes) long.
    Message(&'a [u8]),
    /// Everything queued before has been handed to the operating system. Reported once for all that was
    /// queued since the last report; close frames count, answers to pings do not.
    Flushed,
    /// The connection is over. Each later call returns this event again.
    Closed(Closed),
}

/// How a connection ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Closed {
    /// The code of the peer's close frame. `None` if there was no close frame, or no code in it (GW-093).
    pub code: Option<u16>,
    /// The reason in the peer's close frame, at most 123 bytes; empty without one. The peer chooses this
    /// text.
    pub reason: String,
    /// Which side ended the connection.
    pub by: Initiator,
    /// What went wrong. `None` when the peer's close frame ended the connection.
    pub error: Option<TransportError>,
}

/// Which side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Initiator {
    /// The peer, with a close frame.
    Peer,
    /// This side: a close frame was queued here, and then the peer answered it or the byte stream ended.
    Local,
    /// Neither: the byte stream ended or failed, or invalid data arrived.
    Transport,
}

/// What a connection has received so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes in WebSocket messages, before inflating; without frame headers and control frames.
    pub received_bytes: u64,
    /// Bytes in payloads handed over, after inflating.
    pub payload_bytes: u64,
    /// Payloads handed over.
    pub payloads: u64,
}

/// An open WebSocket connection.
///
/// Dropping it closes the byte stream and sends no close frame, so the session stays resumable (GW-099,
/// GW-100: only close codes 1000 and 1001 end it).
///
/// # Bounds
/// See [`TransportConfig`]. At rest a connection holds 4 to 17 KB, plus what its
/// [`Compression`](crate::Compression) takes; with TLS and `zlib-stream`, 77 KB were measured for a busy one.
/// The memory of a large payload is released at the next read, its read buffer after at most
/// [`read_buffer_bytes`](TransportConfig::read_buffer_bytes) of further traffic.
pub struct Connection {
    codec: WebSocketStream<BoxedIo>,
    /// `None` means that messages are uncompressed payloads.
    inflater: Option<Inflater>,
    uncompressed: bool,
    held: Held,
    unwritten: Unwritten,
    write_error: Option<TransportError>,
    close_queued: bool,
    closed: Option<Closed>,
    max_write_buffer_bytes: usize,
    traffic: Traffic,
}

/// What the codec may still have to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unwritten {
    Nothing,
    /// An answer to a ping: flushed, but not reported.
    Pong,
    /// An enqueued message or close frame: flushed and reported.
    Queued,
}

/// An [`Event`] without borrowed data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A message that is an uncompressed payload, stored in `held`.
    Plain,
    /// A payload in the inflater.
    Inflated,
    Flushed,
    Closed,
}

impl Connection {
    pub(crate) fn new(codec: WebSocketStream<BoxedIo>, config: &TransportConfig) -> Self {
        Self {
            codec,
            inflater: Inflater::new(config.compression, config.max_message_bytes),
            uncompressed: false,
            held: Held::default(),
            unwritten: Unwritten::Nothing,
            write_error: None,
            close_queued: false,
            closed: None,
            max_write_buffer_bytes: config.write_buffer_bytes(),
            traffic: Traffic::default(),
        }
    }

    /// Queues one text message without waiting. Only [`next`](Self::next) and the other polling methods write
    /// it.
    ///
    /// A `String` is taken without a copy. The Gateway's own limit of 4096 bytes is not checked here.
    ///
    /// # Errors
    /// [`Closing`](TransportError::Closing) after a close frame was queued or the connection ended;
    /// [`WriteBufferFull`](TransportError::WriteBufferFull) if the peer does not read, which also ends the
    /// connection: the next call to [`next`](Self::next) returns [`Event::Closed`].
    pub fn enqueue(&mut self, text: impl Into<String>) -> Result<(), TransportError> {
        self.queue_message(Message::Text(Utf8Bytes::from(text.into())))
    }

    /// Queues one binary message: a payload that is not JSON (GW-016). A `Vec<u8>` is taken without a copy.
    ///
    /// # Errors
    /// The same as [`enqueue`](Self::enqueue).
    pub fn enqueue_binary(&mut self, bytes: impl Into<Bytes>) -> Result<(), TransportError> {
        self.queue_message(Message::Binary(bytes.into()))
    }

    fn queue_message(&mut self, message: Message) -> Result<(), TransportError> {
        if self.close_queued || self.closed.is_some() {
            return Err(TransportError::Closing);
        }
        self.queue(message)
    }

    /// Queues a close frame; nothing can be queued after it. Messages that the peer sent before its answer
    /// are still returned, then [`Event::Closed`] with [`Initiator::Local`].
    ///
    /// The peer may never answer, so limit the wait and then drop the connection (GW-102). Codes 1000 and
    /// 1001 end a Discord session; any other code keeps it (GW-098 to GW-100).
    ///
    /// # Errors
    /// [`InvalidClose`](TransportError::InvalidClose) for a code that must not be sent or a reason above 123
    /// bytes (nothing is queued then), and the errors of [`enqueue`](Self::enqueue).
    pub fn enqueue_close(&mut self, code: u16, reason: &'static str) -> Result<(), TransportError> {
        if self.close_queued || self.closed.is_some() {
            return Err(TransportError::Closing);
        }
        let code_kind = CloseCode::from(code);
        if !code_kind.is_allowed() || reason.len() > MAX_REASON_BYTES {
            return Err(TransportError::InvalidClose { code, reason_bytes: reason.len() });
        }
        self.close_queued = true;
        let frame = CloseFrame { code: code_kind, reason: Utf8Bytes::from_static(reason) };
        self.queue(Message::Close(Some(frame)))
    }

    fn queue(&mut self, message: Message) -> Result<(), TransportError> {
        self.unwritten = Unwritten::Queued;
        match Pin::new(&mut self.codec).start_send(message) {
            Ok(()) => Ok(()),
            Err(WsError::WriteBufferFull(_)) => {
                let full = TransportError::WriteBufferFull { limit: self.max_write_buffer_bytes };
                self.closed = Some(self.broken(full.clone(), Initiator::Transport));
                Err(full)
            }
            // The frame is queued. `next` reports the failed stream, after what arrived before the failure.
            Err(error) => {
                self.write_error = Some(TransportError::from_codec(error));
                Ok(())
            }
        }
    }

    /// Waits for the next event and writes what is queued meanwhile.
    ///
    /// With [`Reading::Paused`] this only writes, and waits forever once nothing is left to write: use it as
    /// one branch of a `select!`. After [`Event::Closed`] each call returns that event again, at once.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped before it is ready.
    pub async fn next(&mut self, reading: Reading) -> Event<'_> {
        let step = poll_fn(|cx| self.poll_step(cx, reading)).await;
        self.event(step)
    }

    /// Polls for the next event, like [`next`](Self::next), for hand-written futures.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, reading: Reading) -> Poll<Event<'_>> {
        self.poll_step(cx, reading).map(|step| self.event(step))
    }

    /// Returns the next event if one is ready. Reads and writes as with [`Reading::On`]; meant for draining
    /// after a wake-up. Nothing wakes the task after `None`: go back to [`next`](Self::next). A peer that
    /// never pauses may never cause `None`, so limit the number of calls.
    pub fn try_next(&mut self) -> Option<Event<'_>> {
        match self.poll_step(&mut Context::from_waker(Waker::noop()), Reading::On) {
            Poll::Ready(step) => Some(self.event(step)),
            Poll::Pending => None,
        }
    }

    /// Closes the connection and waits for the peer's answer, up to `within`; then the byte stream is dropped
    /// either way (GW-102). What the peer still sends is discarded: to receive it, use
    /// [`enqueue_close`](Self::enqueue_close) and continue with [`next`](Self::next).
    ///
    /// Returns `None` when the peer did not answer in time, or when the close frame could not be queued.
    ///
    /// # Cancel safety
    /// Dropping the future drops the byte stream; the close frame may have been sent.
    pub async fn close(mut self, code: u16, reason: &'static str, within: Duration) -> Option<Closed> {
        self.enqueue_close(code, reason).ok()?;
        let answered = async {
            loop {
                if let Event::Closed(closed) = self.next(Reading::On).await {
                    return closed;
                }
            }
        };
        tokio::time::timeout(within, answered).await.ok()
    }

    /// Counts of what has been received so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Whether payloads arrived uncompressed although the connection asked for a compressed stream. Such
    /// payloads are accepted: the server does not support the compression, or a proxy removes it.
    #[must_use]
    pub fn is_uncompressed(&self) -> bool {
        self.uncompressed
    }

    /// Whether [`enqueue`](Self::enqueue) may still succeed: no close frame is queued and the connection is
    /// open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.close_queued && self.closed.is_none()
    }

    fn event(&self, step: Step) -> Event<'_> {
        match (step, &self.closed) {
            (Step::Plain, _) => Event::Message(self.held.current()),
            // `inflate` returns `Inflated` only with an inflater.
            (Step::Inflated, _) => Event::Message(self.inflater.as_ref().map_or(&[], Inflater::payload)),
            (Step::Closed, Some(closed)) => Event::Closed(closed.clone()),
            // `poll_step` returns `Closed` only with `closed` set.
            (Step::Flushed | Step::Closed, _) => Event::Flushed,
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>, reading: Reading) -> Poll<Step> {
        if self.closed.is_some() {
            return Poll::Ready(Step::Closed);
        }
        if self.poll_write(cx) {
            return Poll::Ready(Step::Flushed);
        }
        if reading == Reading::On
            && let Poll::Ready(step) = self.poll_read(cx)
        {
            return Poll::Ready(step);
        }
        // A failed write is reported after what arrived before it: the peer's close frame explains more than
        // the local error.
        match self.write_error.take() {
            Some(error) => Poll::Ready(self.finish_broken(error)),
            None => Poll::Pending,
        }
    }

    /// Writes what is queued, as far as the stream accepts it. Returns true if that completed something
    /// enqueued.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        if self.unwritten == Unwritten::Nothing || self.write_error.is_some() {
            return false;
        }
        match Pin::new(&mut self.codec).poll_flush(cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => {
                std::mem::replace(&mut self.unwritten, Unwritten::Nothing) == Unwritten::Queued
            }
            Poll::Ready(Err(error)) => {
                self.write_error = Some(TransportError::from_codec(error));
                false
            }
        }
    }

    /// Reads until a payload is complete, the connection ends, or no more data is available.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.held.before_read();
        if let Some(inflater) = &mut self.inflater {
            inflater.rest();
        }
        loop {
            let read = Pin::new(&mut self.codec).poll_next(cx);
            self.held.after_read();
            let message = match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(self.finish_broken(TransportError::from_codec(error)));
                }
                Poll::Ready(None) => return Poll::Ready(self.finish_broken(TransportError::Disconnected)),
            };
            match message {
                // Text is never compressed; a server that does not support the requested compression sends it
                // (GW-042).
                Message::Text(text) => {
                    self.uncompressed |= self.inflater.as_ref().is_some_and(Inflater::is_stream);
                    return Poll::Ready(self.accept(text.into()));
                }
                Message::Binary(bytes) => {
                    // A server that ignores the compression but has binary payloads is recognised by its
                    // first message.
                    if self.inflater.as_ref().is_some_and(|inflater| inflater.is_unused_by(&bytes)) {
                        self.uncompressed = true;
                        self.inflater = None;
                    }
                    if self.inflater.is_none() {
                        return Poll::Ready(self.accept(bytes));
                    }
                    if let Some(step) = self.inflate(bytes) {
                        return Poll::Ready(step);
                    }
                }
                // The codec has queued the pong and writes it with the next read. If the stream does not
                // accept it at once, `poll_write` flushes it, also while reading is paused.
                Message::Ping(_) => self.unwritten = self.unwritten.max(Unwritten::Pong),
                Message::Pong(_) | Message::Frame(_) => {}
                Message::Close(frame) => return Poll::Ready(self.finish_closed(cx, frame)),
            }
        }
    }

    /// Returns a message that is an uncompressed payload.
    fn accept(&mut self, message: Bytes) -> Step {
        self.traffic.received_bytes += message.len() as u64;
        self.traffic.payload_bytes += message.len() as u64;
        self.traffic.payloads += 1;
        self.held.set(message);
        Step::Plain
    }

    fn inflate(&mut self, frame: Bytes) -> Option<Step> {
        let inflater = self.inflater.as_mut()?;
        self.traffic.received_bytes += frame.len() as u64;
        let result = inflater.advance(&frame);
        let payload_bytes = inflater.payload().len() as u64;
        self.held.set(frame);
        match result {
            Ok(false) => None,
            Ok(true) => {
                self.traffic.payload_bytes += payload_bytes;
                self.traffic.payloads += 1;
                Some(Step::Inflated)
            }
            Err(error) => Some(self.finish(Closed {
                code: None,
                reason: String::new(),
                by: Initiator::Transport,
                error: Some(TransportError::Inflate(error)),
            })),
        }
    }

    /// Handles the peer's close frame: its own, or its answer to ours.
    fn finish_closed(&mut self, cx: &mut Context<'_>, frame: Option<CloseFrame>) -> Step {
        // One attempt: the codec echoes the frame. The connection does not wait for a peer that does not read
        // it (GW-102).
        let _ = Pin::new(&mut self.codec).poll_flush(cx);
        let by = if self.close_queued { Initiator::Local } else { Initiator::Peer };
        let (code, reason) = match frame {
            Some(frame) => (Some(frame.code.into()), frame.reason.to_string()),
            None => (None, String::new()),
        };
        self.finish(Closed { code, reason, by, error: None })
    }

    fn finish_broken(&mut self, error: TransportError) -> Step {
        let by = match error {
            TransportError::Disconnected | TransportError::Io(_) if self.close_queued => Initiator::Local,
            _ => Initiator::Transport,
        };
        let closed = self.broken(error, by);
        self.finish(closed)
    }

    fn broken(&self, error: TransportError, by: Initiator) -> Closed {
        Closed { code: None, reason: String::new(), by, error: Some(error) }
    }

    fn finish(&mut self, closed: Closed) -> Step {
        self.closed = Some(closed);
        Step::Closed
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("compressed", &self.inflater.is_some())
            .field("unwritten", &self.unwritten)
            .field("close_queued", &self.close_queued)
            .field("closed", &self.closed)
            .field("traffic", &self.traffic)
            .finish_non_exhaustive()
    }
}
