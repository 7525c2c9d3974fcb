//! What a shard tells about itself: each change of state, and why.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Intents;
use crate::close::{CloseCode, Scope};

/// A change of state. Comes before the dispatches that belong to the new state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It waits in the identify queue for its turn to connect.
    Queued,
    /// It opens a connection.
    Connecting {
        /// Whether to resume a session, or to start one.
        resuming: bool,
    },
    /// Too many shards connect at once: opening the connection begins after this wait (GW-138).
    Paced {
        /// How long.
        wait: Duration,
    },
    /// Hello came.
    Hello {
        /// The time between heartbeats.
        heartbeat_interval: Duration,
    },
    /// Identify was handed to the transport.
    Identifying,
    /// Resume was handed to the transport.
    Resuming {
        /// From which sequence number on.
        sequence: u64,
    },
    /// A new session began.
    Ready,
    /// The session goes on.
    Resumed {
        /// How many dispatches were replayed.
        replayed: u64,
    },
    /// The connection is given up, or was lost.
    Disconnected {
        /// Why.
        reason: Reason,
        /// What the gateway or the transport said about it, in words and for people: the reason in the close frame, or
        /// the cause of what could not be read. Control characters are escaped. `None` when nothing more is known.
        detail: Option<Arc<str>>,
        /// What happens next.
        next: Next,
    },
    /// It will do nothing more, as it was told.
    Stopped,
    /// It will do nothing more, since Discord refuses it.
    Refused(FatalClose),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Discord asked for a new connection (op 7).
    ReconnectRequested,
    /// Discord declared the session invalid (op 9).
    InvalidSession {
        /// Whether it may still be resumable.
        resumable: bool,
    },
    /// A heartbeat was not acknowledged.
    Zombied,
    /// Discord closed it.
    Closed(CloseCode),
    /// It ended without a close frame.
    Lost,
    /// It could not be opened.
    ConnectFailed,
    /// It was not open in time.
    ConnectTimeout,
    /// Hello did not come in time.
    HelloTimeout,
    /// READY did not come in time.
    ReadyTimeout,
    /// The resume made no progress in time.
    ResumedTimeout,
    /// What came in could not be read.
    Unreadable,
    /// READY names another shard than Identify did (GW-129).
    OtherShard,
    /// The shard was told to make another one.
    Requested,
    /// The shard was told to stop, and gives the session up.
    Stopping,
    /// The shard was told to stop, and keeps the session.
    Detaching,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Initiator {
    /// Discord.
    Gateway,
    /// This shard.
    Shard,
    /// Whatever lies between.
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
    /// The close code that Discord sent, if it did.
    pub const fn close_code(self) -> Option<CloseCode> {
        match self {
            Self::Closed(code) => Some(code),
            _ => None,
        }
    }

    /// Who ended the connection.
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
            Self::OtherShard => f.write_str("the session begun is that of another shard"),
            Self::Requested => f.write_str("told to connect anew"),
            Self::Stopping => f.write_str("stopped"),
            Self::Detaching => f.write_str("detached"),
        }
    }
}

/// Something in which a gateway differs from Discord's, and which is put up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Oddity {
    /// A dispatch has no sequence number that can be read. It is delivered with that of the dispatch before it.
    Unnumbered,
    /// READY has no URL to resume at that can be used. The session is resumed at the bootstrap URL.
    NoResumeUrl,
    /// The shard in READY cannot be read. It is taken for the one that was asked for.
    UnreadableShard,
    /// Payloads come uncompressed on a connection whose URL asks for compression. They are taken as they are.
    Uncompressed,
    /// Several payloads come in one message. They are taken in their order.
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
            Self::UnreadableShard => "the shard in READY cannot be read: it is taken for the one asked for",
            Self::Uncompressed => {
                "payloads come uncompressed, though the URL asks for compression: the server does not know it, or something in between undoes it"
            }
            Self::SeveralPayloads => "several payloads come in one message: each is taken",
        })
    }
}

/// What follows a disconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// Another connection that resumes the session.
    Resume {
        /// After this wait, counted from the end of the connection.
        after: Duration,
    },
    /// Another session, through the identify queue.
    Identify {
        /// After this wait, counted from the end of the connection.
        after: Duration,
    },
    /// Nothing.
    End,
}

/// Discord refuses the shard for good: trying again unchanged is pointless (GW-095).
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("discord refuses the connection: {code}{}", Culprits(*.code, *.intents))]
#[non_exhaustive]
pub struct FatalClose {
    /// The close code.
    pub code: CloseCode,
    /// How far it reaches.
    pub scope: Scope,
    /// What the shard asked for.
    pub intents: Intents,
}

/// The intents among which the culprit is, when it is one (GW-089, GW-090).
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
