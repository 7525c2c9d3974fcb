//! What can be made to go wrong.

/// A fault of a live connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Heartbeats are acknowledged no more, until the connection ends.
    StopAcking,
    /// Op 7. Events go on until the client closes, or the grace is over.
    Reconnect,
    /// Op 9. With `false` the session is gone; what was sent in it before still arrives.
    InvalidSession {
        /// Whether the session stays resumable.
        resumable: bool,
    },
    /// A close frame with this code. 4007, 4009 and the like end the session too.
    Close {
        /// The code.
        code: u16,
    },
    /// The connection ends without a close frame.
    Cut,
    /// From now on nothing is read and nothing written; the connection stays open.
    HalfOpen,
    /// Op 1: the client shall send a heartbeat.
    RequestHeartbeat,
    /// Bytes that cannot be inflated, or text that is no JSON.
    Corrupt,
    /// Acknowledgements go on, dispatches stop; they stay in the session.
    Silence,
}

/// A fault of a connection that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectFault {
    /// The TCP connection ends before the WebSocket is open.
    Refuse,
    /// The request for a WebSocket is never answered.
    Hang,
    /// The WebSocket opens, and says nothing.
    NoHello,
    /// Op 7 comes instead of Hello (GW-104).
    ReconnectInsteadOfHello,
    /// Identify and Resume are never answered; heartbeats are.
    NoReady,
    /// A Resume is refused with op 9 `false`.
    RefuseResume,
    /// An Identify is refused with op 9 `false`; it counts (GW-152).
    InvalidIdentify,
    /// An Identify or Resume is answered with a close frame.
    Close {
        /// The code.
        code: u16,
    },
}

/// A fault of a REST request that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestFault {
    /// This status, with an empty JSON object.
    Status(u16),
    /// No answer.
    Hang,
    /// A page that is no JSON, with status 200.
    Garbage,
}

/// A fault could not be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InjectError {
    /// No connection of this shard is identified or resumed at the moment.
    #[error("shard {shard_id} has no connection with a session now")]
    NotConnected {
        /// The shard.
        shard_id: u32,
    },
}
