//! Errors while connecting, while connected and while inflating.
//!
//! `Display` names the culprit and what to check. It shows neither the source (use
//! [`std::error::Error::source`]) nor any content.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError, ProtocolError};

/// Why a connect failed. `peer` is always `host:port`.
#[derive(Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL's scheme is not `ws`, `wss`, `http` or `https`.
    #[error("cannot connect to a URL of scheme {scheme:?}: use ws, wss, http or https")]
    UnsupportedScheme {
        /// The scheme as given.
        scheme: String,
    },
    /// The URL names no host, or no request can be made from it.
    #[error("the URL cannot be connected to: check its host name and its query")]
    InvalidUrl,
    /// The configured `User-Agent` cannot be a header's value.
    #[error("the user agent cannot be sent: use printable ASCII characters only")]
    InvalidUserAgent,
    /// The host name did not resolve.
    #[error("cannot resolve {peer}: check the host name and this machine's DNS")]
    Resolve {
        /// `host:port`.
        peer: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// No address of the host accepted a TCP connection; the source is the last attempt's error.
    #[error("cannot open a TCP connection to {peer}: check that it listens and that no firewall is between")]
    Tcp {
        /// `host:port`.
        peer: String,
        /// The last attempt's error.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error(
        "the TLS handshake with {peer} failed: check its certificate, this machine's clock and any proxy between"
    )]
    Tls {
        /// `host:port`.
        peer: String,
        /// Wraps a [`rustls::Error`] where TLS itself refused.
        source: io::Error,
    },
    /// A custom [`Dialer`](crate::Dialer) failed; see [`ConnectError::dial`].
    #[error("cannot open a byte stream to {peer}")]
    Dial {
        /// `host:port`.
        peer: String,
        /// The dialer's own error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The connect exceeded its time limit.
    #[error(
        "no connection to {peer} within {after:?}, timed out while {phase}: check the network path to it"
    )]
    Timeout {
        /// `host:port`.
        peer: String,
        /// The configured time limit.
        after: Duration,
        /// The phase in which the time ran out.
        phase: Phase,
    },
    /// The peer answered the WebSocket request with an HTTP status other than 101. Redirects are not
    /// followed.
    #[error(
        "{peer} answered HTTP status {status} instead of a WebSocket: check the URL's version and parameters"
    )]
    Refused {
        /// `host:port`.
        peer: String,
        /// The HTTP status.
        status: u16,
        /// How long the peer asks clients to wait (`Retry-After` in seconds), if sent. The value is the
        /// peer's: limit it.
        retry_after: Option<Duration>,
    },
    /// The peer's answer was not a WebSocket handshake.
    #[error("{peer} did not complete the WebSocket handshake: check that the URL is that of a gateway")]
    Handshake {
        /// `host:port`.
        peer: String,
        /// What the peer sent instead.
        source: HandshakeError,
    },
}

impl ConnectError {
    /// Creates the error of a [`Dialer`](crate::Dialer) outside of this crate.
    pub fn dial(url: &url::Url, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Dial { peer: crate::dial::peer(url), source: source.into() }
    }

    /// Whether the same URL may work later. False only when the URL or the configuration is at fault.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::UnsupportedScheme { .. } | Self::InvalidUrl | Self::InvalidUserAgent)
    }

    /// The HTTP status, if the peer answered with one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// How long the peer asks clients to wait, if its answer says so. The value is the peer's: limit it.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn from_upgrade(peer: String, error: WsError) -> Self {
        let source = match error {
            WsError::Http(response) => {
                let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
                let retry_after = retry_after.and_then(|seconds| seconds.trim().parse::<f64>().ok());
                return Self::Refused {
                    peer,
                    status: response.status().as_u16(),
                    // A date, or a number that is not a valid duration, is ignored.
                    retry_after: retry_after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
                };
            }
            WsError::Url(_) | WsError::HttpFormat(_) => return Self::InvalidUrl,
            WsError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                HandshakeError::Disconnected
            }
            WsError::Io(error) => HandshakeError::Io(error),
            WsError::Protocol(ProtocolError::HandshakeIncomplete) => HandshakeError::Disconnected,
            WsError::Protocol(error) => HandshakeError::Misbehaved(PeerMisbehaved(error)),
            WsError::AttackAttempt | WsError::Capacity(_) => HandshakeError::TooLarge,
            _ => HandshakeError::Garbled,
        };
        Self::Handshake { peer, source }
    }
}

/// What a connect was doing when its time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Opening the byte stream: DNS, TCP, TLS.
    Dial,
    /// Waiting for the answer to the WebSocket handshake on an open byte stream.
    Upgrade,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dial => "opening the byte stream",
            Self::Upgrade => "waiting for the WebSocket handshake",
        })
    }
}

/// How the peer failed the WebSocket handshake.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The byte stream ended before the answer was complete.
    #[error("the peer ended the byte stream before its answer was complete")]
    Disconnected,
    /// The byte stream failed.
    #[error("the byte stream failed")]
    Io(#[source] io::Error),
    /// The answer violates HTTP or RFC 6455.
    #[error("the answer violates the WebSocket handshake (RFC 6455)")]
    Misbehaved(#[source] PeerMisbehaved),
    /// The answer's headers exceed 64 KiB, have too many entries, or arrive in too many small pieces.
    #[error("the answer's headers are too long, too many or too slow")]
    TooLarge,
    /// The answer's headers are malformed.
    #[error("the answer's headers are malformed")]
    Garbled,
}

/// Why a connection ended, or why a message was not queued.
///
/// Clones share the source error.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The byte stream failed while reading or writing.
    #[error("the byte stream failed")]
    Io(#[source] Arc<io::Error>),
    /// The byte stream ended without a close frame (GW-093: the session may be resumed).
    #[error("the peer ended the byte stream without a close frame")]
    Disconnected,
    /// The peer violated RFC 6455.
    #[error("the peer violated the WebSocket protocol (RFC 6455)")]
    Misbehaved(#[source] PeerMisbehaved),
    /// A text frame or a close reason is not UTF-8.
    #[error("the peer sent text that is not UTF-8")]
    InvalidUtf8,
    /// A frame or message exceeds [`max_message_bytes`](crate::TransportConfig::max_message_bytes).
    #[error("the peer sent a message of {size} bytes, above the limit of {limit}")]
    TooLarge {
        /// The length announced or reached, in bytes.
        size: usize,
        /// The configured limit, in bytes.
        limit: usize,
    },
    /// The compressed stream cannot be continued (GW-053: a decompression error loses the shared context).
    #[error("the peer's compressed stream cannot be inflated")]
    Inflate(#[source] InflateError),
    /// More is queued than [`max_write_buffer_bytes`](crate::TransportConfig::max_write_buffer_bytes),
    /// because the peer does not read.
    #[error("more than {limit} bytes are queued for a peer that does not read")]
    WriteBufferFull {
        /// The configured limit, in bytes.
        limit: usize,
    },
    /// Nothing more can be queued: a close frame is queued already, or the connection is closed.
    #[error("the connection is closing or closed")]
    Closing,
    /// The close code must not be sent, or its reason is longer than 123 bytes (RFC 6455, 5.5 and 7.4).
    #[error("a close frame of code {code} and {reason_bytes} bytes of reason is not allowed")]
    InvalidClose {
        /// The requested close code.
        code: u16,
        /// The length of the reason, in bytes; at most 123.
        reason_bytes: usize,
    },
}

impl TransportError {
    /// Whether the received data was at fault, rather than the connection.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        match self {
            Self::Misbehaved(_) | Self::InvalidUtf8 | Self::TooLarge { .. } => true,
            Self::Inflate(error) => *error != InflateError::OutOfMemory,
            _ => false,
        }
    }

    /// Converts the codec's error. The caller handles `ConnectionClosed` itself, as a normal end.
    pub(crate) fn from_codec(error: WsError) -> Self {
        match error {
            // TLS without close_notify, and a TCP end in the middle of a frame, count as a plain end.
            WsError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Disconnected,
            WsError::Io(error) => Self::Io(Arc::new(error)),
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake)
            | WsError::ConnectionClosed
            | WsError::AlreadyClosed => Self::Disconnected,
            WsError::Protocol(error) => Self::Misbehaved(PeerMisbehaved(error)),
            WsError::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                Self::TooLarge { size, limit: max_size }
            }
            WsError::Utf8(_) => Self::InvalidUtf8,
            // A connected client does not cause the other variants. They are not kept, because some carry a
            // whole message.
            _ => Self::Io(Arc::new(io::Error::other("the WebSocket codec failed"))),
        }
    }
}

/// Which rule of HTTP or RFC 6455 the peer violated. Opaque: meant for logs, not for decisions.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerMisbehaved(ProtocolError);

impl fmt::Display for PeerMisbehaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let mut letters = text.chars();
        match letters.next() {
            Some(first) => write!(f, "{}{}", first.to_lowercase(), letters.as_str()),
            None => f.write_str("unknown rule"),
        }
    }
}

impl fmt::Debug for PeerMisbehaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerMisbehaved({self})")
    }
}

impl StdError for PeerMisbehaved {}

/// Why a compressed stream cannot be continued. Every variant is final for the connection (GW-053).
///
/// `total_in` is the number of compressed bytes inflated before the error: since the start of the connection,
/// or of the message with [`Compression::Payload`](crate::Compression::Payload).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InflateError {
    /// The bytes are invalid for this compression.
    #[error("corrupt compressed data after {total_in} compressed bytes")]
    Corrupt {
        /// How many compressed bytes were inflated before the error.
        total_in: u64,
    },
    /// The stream ended itself. With `zlib-stream`, the connection's one stream never ends (GW-043); with
    /// `zstd-stream`, a message ended the stream and held no payload.
    #[error("the compressed stream ended itself after {total_in} compressed bytes")]
    StreamEnd {
        /// How many compressed bytes were inflated before the error.
        total_in: u64,
    },
    /// A message ended before its payload did, or held no payload, although each message is one payload
    /// (GW-041, GW-049). Does not occur with `zlib-stream`, where a payload may span messages.
    #[error("a message ended inside of its payload, after {total_in} compressed bytes")]
    Truncated {
        /// How many compressed bytes were inflated before the error.
        total_in: u64,
    },
    /// A payload exceeds the limit, inflated or while its compressed parts are collected (GW-054).
    #[error("one payload exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The configured limit, in bytes.
        limit: usize,
    },
    /// The stream needs a larger window than a connection allows. Occurs only with `zstd-stream`.
    #[error("the compressed stream needs a window above {limit} bytes")]
    WindowTooLarge {
        /// The largest accepted window, in bytes.
        limit: u64,
    },
    /// The system did not provide the memory for the window. Occurs only with `zstd-stream`.
    #[error("no memory for the window of the compressed stream")]
    OutOfMemory,
    /// An earlier push failed, so the compression context is lost; only a new connection has a new one.
    #[error("the compression context was lost by an earlier error")]
    ContextLost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_not_the_peers_fault() {
        assert!(!TransportError::Inflate(InflateError::OutOfMemory).is_unreadable());
        for error in [InflateError::Truncated { total_in: 0 }, InflateError::WindowTooLarge { limit: 1 }] {
            assert!(TransportError::Inflate(error).is_unreadable());
        }
        assert!(!TransportError::Disconnected.is_unreadable());
    }
}
