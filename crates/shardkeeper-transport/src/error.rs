//! What can go wrong: while connecting, while connected, while inflating.
//!
//! `Display` names the culprit and what to check, never the source (walk [`std::error::Error::source`] for it) and
//! never any content.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError, ProtocolError};

/// Why no connection came to be. `peer` is always `host:port`.
#[derive(Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL's scheme is none of `ws`, `wss`, `http`, `https`.
    #[error("cannot connect to a URL of scheme {scheme:?}: use ws, wss, http or https")]
    UnsupportedScheme {
        /// The scheme as given.
        scheme: String,
    },
    /// The URL names no host, or the request for it cannot be written.
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
        /// What the resolver said.
        source: io::Error,
    },
    /// No address of the host accepted a TCP connection; the source is the last attempt's.
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
    /// A [`Dialer`](crate::Dialer) of somebody else failed; see [`ConnectError::dial`].
    #[error("cannot open a byte stream to {peer}")]
    Dial {
        /// `host:port`.
        peer: String,
        /// The dialer's own error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The time for the whole connect ran out.
    #[error("no connection to {peer} within {after:?}, given up while {phase}: check the network path to it")]
    Timeout {
        /// `host:port`.
        peer: String,
        /// The configured bound.
        after: Duration,
        /// What it was doing then.
        phase: Phase,
    },
    /// The peer answered the WebSocket request with an HTTP status other than 101. Redirects are not followed.
    #[error(
        "{peer} answered HTTP status {status} instead of a WebSocket: check the URL's version and parameters"
    )]
    Refused {
        /// `host:port`.
        peer: String,
        /// The HTTP status.
        status: u16,
        /// How long the peer asks to be left alone (`Retry-After` in seconds), if it does. As it was sent: bound it.
        retry_after: Option<Duration>,
    },
    /// The peer did not answer with a WebSocket handshake at all.
    #[error("{peer} did not complete the WebSocket handshake: check that the URL leads to a gateway")]
    Handshake {
        /// `host:port`.
        peer: String,
        /// What it did instead.
        source: HandshakeError,
    },
}

impl ConnectError {
    /// The error of a [`Dialer`](crate::Dialer) outside of this crate.
    pub fn dial(url: &url::Url, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Dial { peer: crate::dial::peer(url), source: source.into() }
    }

    /// Whether the same URL may work later. False only where the URL or the configuration is at fault.
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

    /// How long the peer asks to be left alone, if it answered so.
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
                    // A date, or a number that is no time, asks for nothing.
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
    /// The dialer was opening the byte stream: name, TCP, TLS.
    Dial,
    /// The byte stream was open and the WebSocket handshake had no answer.
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
    /// The answer breaks HTTP or RFC 6455.
    #[error("the answer is not that of a WebSocket server")]
    Misbehaved(#[source] PeerMisbehaved),
    /// The answer's headers are too many, too long, or dripping in.
    #[error("the answer's headers exceed the bounds")]
    TooLarge,
    /// The answer's headers cannot be read.
    #[error("the answer's headers cannot be read")]
    Garbled,
}

/// Why a connection ended, or why something was not queued.
///
/// Cloning shares the source.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The byte stream failed while reading or writing.
    #[error("the byte stream failed")]
    Io(#[source] Arc<io::Error>),
    /// The byte stream ended without a close frame (GW-093: the session may be resumed).
    #[error("the peer ended the byte stream without a close frame")]
    Disconnected,
    /// The peer broke RFC 6455.
    #[error("the peer broke the WebSocket protocol")]
    Misbehaved(#[source] PeerMisbehaved),
    /// A text frame or a close reason is not UTF-8.
    #[error("the peer sent text that is not UTF-8")]
    InvalidUtf8,
    /// A frame or message exceeds [`max_message_bytes`](crate::TransportConfig::max_message_bytes).
    #[error("the peer sent a message of {size} bytes, above the limit of {limit}")]
    TooLarge {
        /// The length announced or reached.
        size: usize,
        /// The configured bound.
        limit: usize,
    },
    /// The compressed stream cannot be followed any further (GW-053).
    #[error("the peer's compressed stream cannot be inflated")]
    Inflate(#[source] InflateError),
    /// More is queued than [`max_write_buffer_bytes`](crate::TransportConfig::max_write_buffer_bytes): the peer does
    /// not read.
    #[error("more than {limit} bytes are queued to a peer that does not read")]
    WriteBufferFull {
        /// The configured bound.
        limit: usize,
    },
    /// Nothing can be queued any more: a close frame is queued already, or the connection is closed.
    #[error("the connection is closing or closed")]
    Closing,
    /// The close code must not be sent, or its reason is longer than 123 bytes (RFC 6455, 5.5 and 7.4).
    #[error("a close frame of code {code} and {reason_bytes} bytes of reason is not allowed")]
    InvalidClose {
        /// The code asked for.
        code: u16,
        /// The length of the reason.
        reason_bytes: usize,
    },
}

impl TransportError {
    /// Whether what came in was at fault, rather than the way it took.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        match self {
            Self::Misbehaved(_) | Self::InvalidUtf8 | Self::TooLarge { .. } => true,
            Self::Inflate(error) => *error != InflateError::OutOfMemory,
            _ => false,
        }
    }

    /// The codec's error in our words. `ConnectionClosed` cannot come here: the caller treats it as an end.
    pub(crate) fn from_codec(error: WsError) -> Self {
        match error {
            // TLS without close_notify, and a TCP end in the middle of a frame, are the same as a plain end.
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
            // Not produced by a client that is connected. Not kept either: some variants carry a whole message.
            _ => Self::Io(Arc::new(io::Error::other("the WebSocket codec failed"))),
        }
    }
}

/// Which rule of HTTP or RFC 6455 the peer broke. Opaque: for logs, not for decisions.
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

/// Why a compressed stream cannot be followed any further. Each of them is final for the connection (GW-053).
///
/// `total_in` counts the compressed bytes that were understood before: those of the connection, or with
/// [`Compression::Payload`](crate::Compression::Payload) those of the message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InflateError {
    /// The bytes are not what the compression allows.
    #[error("corrupt compressed data after {total_in} compressed bytes")]
    Corrupt {
        /// How many compressed bytes were understood before.
        total_in: u64,
    },
    /// The stream declared its own end: with `zlib-stream`, where the connection's one stream has none (GW-043); with
    /// `zstd-stream`, where a message ended the stream and held no payload.
    #[error("the compressed stream ended itself after {total_in} compressed bytes")]
    StreamEnd {
        /// How many compressed bytes were understood before.
        total_in: u64,
    },
    /// A message ended before its payload did, or held none at all, though each message is one payload (GW-041,
    /// GW-049). Not with `zlib-stream`, where a payload may span messages.
    #[error("a message ended inside of its payload, after {total_in} compressed bytes")]
    Truncated {
        /// How many compressed bytes were understood before.
        total_in: u64,
    },
    /// One payload exceeds the bound, inflated or while its compressed parts are collected (GW-054).
    #[error("one payload exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The configured bound.
        limit: usize,
    },
    /// The stream needs more history in memory than is granted to a connection. Only with `zstd-stream`.
    #[error("the compressed stream needs a window above {limit} bytes")]
    WindowTooLarge {
        /// The largest window that is accepted.
        limit: u64,
    },
    /// The system refused the memory that the compressed stream needs. Only with `zstd-stream`.
    #[error("no memory for the window of the compressed stream")]
    OutOfMemory,
    /// An earlier push failed: the context is gone, and only a new connection has a new one.
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
