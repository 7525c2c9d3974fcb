//! Changes of a shard's state, and their causes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Intents;
use crate::close::{CloseCode, Scope};

/// A change of a shard's state. A change is reported before the dispatches that belong to the new state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The shard waits in the identify queue until it may connect.
    Queued,
    /// The shard opens a connection.
    Connecting {
        /// Whether the shard will resume a session; otherwise it starts a new one.
        resuming: bool,
    },
    /// Opening the connection is delayed, because too many shards connect at once (GW-138: clients spread new
    /// connections).
    Paced {
        /// The delay before the connection is opened.
        wait: Duration,
    },
    /// Hello was received.
    Hello {
        /// The time between heartbeats.
        heartbeat_interval: Duration,
    },
    /// Identify was handed to the transport.
    Identifying,
    /// Resume was handed to the transport.
    Resuming {
        /// The last sequence number received: Discord replays the dispatches after it.
        sequence: u64,
    },
    /// A new session began.
    Ready,
    /// The session continues on this connection.
    Resumed {
        /// The number of replayed dispatches.
        replayed: u64,
    },
    /// The connection ended: it was lost, closed, or could not be opened.
    Disconnected {
        /// The cause of the end.
        reason: Reason,
        /// Details from the gateway or the transport, as text for people: the reason in the close frame, or
        /// why received data could not be read. Control characters are escaped. `None` when nothing more is
        /// known.
        detail: Option<Arc<str>>,
        /// The step that follows.
        next: Next,
    },
    /// The shard ended on request.
    Stopped,
    /// The shard ended because Discord refuses it.
    Refused(FatalClose),
}

/// The cause of the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Discord asked for a new connection (op 7).
    ReconnectRequested,
    /// Discord declared the session invalid (op 9).
    InvalidSession {
        /// Whether the session may still be resumable.
        resumable: bool,
    },
    /// A heartbeat was not acknowledged.
    Zombied,
    /// Discord closed the connection.
    Closed(CloseCode),
    /// The connection ended without a close frame.
    Lost,
    /// The connection could not be opened.
    ConnectFailed,
    /// The connection was not open in time.
    ConnectTimeout,
    /// Hello was not received in time.
    HelloTimeout,
    /// READY was not received in time.
    ReadyTimeout,
    /// The resume made no progress in time.
    ResumedTimeout,
    /// Received data could not be read.
    Unreadable,
    /// READY is for another shard than Identify was (GW-129: clients compare the two).
    OtherShard,
    /// The application requested a new connection.
    Requested,
    /// The shard stops, and its session ends.
    Stopping,
    /// The shard stops, and its session stays resumable.
    Detaching,
}

/// The side that ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Initiator {
    /// Discord ended the connection.
    Gateway,
    /// This shard ended the connection.
    Shard,
    /// The network or the transport lost the connection, or could not open it.
    Transport,
}

impl fmt::Display for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Shard => "shard",
            Self::Transport => "transport",
        })
    }
}

impl Reason {
    /// The close code that Discord sent; `None` if the connection ended for another reason.
    pub const fn close_code(self) -> Option<CloseCode> {
        match self {
            Self::Closed(code) => Some(code),
            _ => None,
        }
    }

    /// The side that ended the connection.
    pub const fn initiator(self) -> Initiator {
        match self {
            Self::ReconnectRequested | Self::InvalidSession { .. } | Self::Closed(_) => Initiator::Gateway,
            Self::Lost | Self::ConnectFailed | Self::ConnectTimeout => Initiator::Transport,
            _ => Initiator::Shard,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code) => write!(f, "closed by discord with {code}"),
            Self::InvalidSession { resumable: true } => f.write_str("session invalid, may be resumable"),
            Self::InvalidSession { resumable: false } => f.write_str("session invalid"),
            Self::ReconnectRequested => f.write_str("discord asked for a new connection"),
            Self::Zombied => f.write_str("zombied: a heartbeat was not acknowledged"),
            Self::Lost => f.write_str("connection lost"),
            Self::ConnectFailed => f.write_str("could not connect"),
            Self::ConnectTimeout => f.write_str("connecting took too long"),
            Self::HelloTimeout => f.write_str("no hello in time"),
            Self::ReadyTimeout => f.write_str("no answer to identify in time"),
            Self::ResumedTimeout => f.write_str("no answer to resume in time"),
            Self::Unreadable => f.write_str("received something unreadable"),
            Self::OtherShard => f.write_str("READY is for another shard"),
            Self::Requested => f.write_str("a reconnect was requested"),
            Self::Stopping => f.write_str("stopped"),
            Self::Detaching => f.write_str("detached"),
        }
    }
}

/// A difference from Discord's gateway that the shard tolerates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Oddity {
    /// A dispatch has no readable sequence number. The dispatch is delivered with the number of the one
    /// before.
    Unnumbered,
    /// READY has no usable URL for resuming. The session is resumed at the bootstrap URL.
    NoResumeUrl,
    /// The shard in READY cannot be read. The shard assumes that READY is for it.
    UnreadableShard,
    /// Payloads arrive uncompressed although the connection's URL asks for compression. They are processed.
    Uncompressed,
    /// Several payloads arrive in one message. They are processed in order.
    SeveralPayloads,
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unnumbered => {
                "dispatches come without a sequence number: after a resume they may come twice"
            }
            Self::NoResumeUrl => {
                "READY has no usable resume_gateway_url: sessions are resumed at the bootstrap URL"
            }
            Self::UnreadableShard => "the shard in READY cannot be read: the requested shard is assumed",
            Self::Uncompressed => {
                "payloads come uncompressed, though the URL asks for compression: \
                 the server does not support it, or a proxy decompresses them"
            }
            Self::SeveralPayloads => "several payloads come in one message: each is processed",
        })
    }
}

/// The step that follows a disconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// The shard connects again and resumes the session.
    Resume {
        /// The wait before that, counted from the end of the connection.
        after: Duration,
    },
    /// The shard starts a new session, through the identify queue.
    Identify {
        /// The wait before that, counted from the end of the connection.
        after: Duration,
    },
    /// The shard has ended and does nothing more.
    End,
}

/// Discord refused the shard permanently: never try again with the same parameters (GW-095).
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("discord refuses the connection: {code}{}", Culprits(*.code, *.intents))]
#[non_exhaustive]
pub struct FatalClose {
    /// The close code that Discord sent.
    pub code: CloseCode,
    /// The reach of the code: the layout, or the whole bot.
    pub scope: Scope,
    /// The intents that the shard requested.
    pub intents: Intents,
}

/// Lists the requested intents for 4013 (GW-089: unknown bits), and the privileged ones among them for 4014
/// (GW-090: an intent that is not enabled), since one of them is the cause.
struct Culprits(CloseCode, Intents);

impl fmt::Display for Culprits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.0 {
            4013 => write!(f, "; asked for: {}", self.1),
            4014 => write!(f, "; privileged among those asked for: {}", self.1 & Intents::PRIVILEGED),
            _ => Ok(()),
        }
    }
}
