//! What can be made to go wrong. In scripts and over HTTP each one has its name in `kebab-case`.

use serde::Deserialize;

use crate::odd::Odd;

/// A fault of a live connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
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
    /// The stream ends in the middle of a message.
    Truncate,
    /// Acknowledgements go on, dispatches stop; they stay in the session.
    Silence,
    /// Nothing that the client sends is read any more; writing goes on.
    StallReading,
    /// No more than this is written per second, until the connection ends.
    SlowWriting {
        /// At least 1.
        bytes_per_second: u32,
    },
    /// The newest events once more, as new dispatches (GW-023).
    Duplicate {
        /// How many.
        count: u32,
    },
    /// Two dispatches change their places on the wire.
    Reorder,
    /// Sequence numbers that no dispatch has (nothing forbids a gap, so clients accept it).
    Gap {
        /// How many.
        count: u32,
    },
    /// A dispatch of this size (GW-014).
    Huge {
        /// Of its data, at least.
        bytes: u32,
    },
    /// An opcode, an event and fields that nobody knows, and keys in an unusual order (GW-018, GW-021).
    Odd,
}

impl Fault {
    /// One of each kind, and each close code that Discord documents or has been seen to send: for tests of clients that
    /// have to go through all of them.
    pub fn every() -> Vec<Self> {
        let mut all = vec![
            Self::StopAcking,
            Self::Reconnect,
            Self::InvalidSession { resumable: true },
            Self::InvalidSession { resumable: false },
            Self::Cut,
            Self::HalfOpen,
            Self::RequestHeartbeat,
            Self::Corrupt,
            Self::Truncate,
            Self::Silence,
            Self::StallReading,
            Self::SlowWriting { bytes_per_second: 2_000 },
            Self::Duplicate { count: 3 },
            Self::Reorder,
            Self::Gap { count: 7 },
            Self::Huge { bytes: 1 << 20 },
            Self::Odd,
        ];
        all.extend(CLOSE_CODES.map(|code| Self::Close { code }));
        all
    }
}

/// The close codes that Discord sends, or has been seen to send (GW-076 to GW-094).
const CLOSE_CODES: [u16; 16] =
    [1000, 1001, 4000, 4001, 4002, 4003, 4004, 4005, 4007, 4008, 4009, 4010, 4011, 4012, 4013, 4014];

/// A fault of a connection that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ConnectFault {
    /// The TCP connection ends before the WebSocket is open.
    Refuse,
    /// The request for a WebSocket is never answered.
    Hang,
    /// It is answered with this HTTP status, and a page that is no JSON.
    Status {
        /// The status.
        status: u16,
    },
    /// The simulator answers with this HTTP status and `Retry-After`.
    RetryLater {
        /// The status.
        status: u16,
        /// How long the client shall wait.
        seconds: u32,
    },
    /// The WebSocket opens, and says nothing.
    NoHello,
    /// The WebSocket opens, and is closed with this code before Hello.
    CloseInsteadOfHello {
        /// The code.
        code: u16,
    },
    /// Op 7 comes instead of Hello (GW-104).
    ReconnectInsteadOfHello,
    /// Identify and Resume are never answered; heartbeats are.
    NoReady,
    /// A Resume is refused with op 9 `false`.
    RefuseResume,
    /// A Resume is answered with a close frame; an Identify is not concerned.
    CloseResume {
        /// The code.
        code: u16,
    },
    /// An Identify is refused with op 9 `false`; it counts (GW-152).
    InvalidIdentify,
    /// An Identify or Resume is answered with a close frame.
    Close {
        /// The code.
        code: u16,
    },
    /// The whole connection differs from Discord's in one way.
    Odd(Odd),
}

impl ConnectFault {
    /// One of each kind that Discord knows, and each close code that it documents or has been seen to send. [`Odd::ALL`] has the
    /// others.
    pub fn every() -> Vec<Self> {
        let mut all = vec![
            Self::Refuse,
            Self::Hang,
            Self::Status { status: 503 },
            Self::NoHello,
            Self::ReconnectInsteadOfHello,
            Self::NoReady,
            Self::RefuseResume,
            Self::InvalidIdentify,
            Self::RetryLater { status: 503, seconds: 2 },
        ];
        all.extend([1011, 4000].map(|code| Self::CloseInsteadOfHello { code }));
        all.extend([1012, 4000, 4009].map(|code| Self::CloseResume { code }));
        all.extend(CLOSE_CODES.map(|code| Self::Close { code }));
        all
    }
}

/// A fault of a REST request that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum RestFault {
    /// This status, with an empty JSON object.
    Status(u16),
    /// This status, with a page that is no JSON: what stands in front of Discord's API answers, not the API.
    Page(u16),
    /// No answer.
    Hang,
    /// The connection ends without an answer.
    Cut,
    /// A page that is no JSON, with status 200.
    Garbage,
    /// 429, as a limit of the resource or of the whole bot has it.
    RateLimited {
        /// How long to wait.
        retry_after_ms: u32,
        /// Whether it concerns every request of the token (GW-291).
        global: bool,
    },
}

/// A fault could not be injected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InjectError {
    /// No connection of this shard is identified or resumed at the moment.
    #[error("shard {shard_id} has no connection with a session now")]
    NotConnected {
        /// The shard.
        shard_id: u32,
    },
    /// Events were to be sent in a session of a shard that has none.
    #[error("shard {shard_id} has no session now")]
    NoSession {
        /// The shard.
        shard_id: u32,
    },
    /// An event was named that the simulator does not make by itself; or its name is not in capitals, digits and
    /// underscores.
    #[error("the simulator makes no event {event:?}: give its data too, and the name in capitals")]
    NoSuchEvent {
        /// The name.
        event: String,
    },
    /// The data of an event is no object, or stands without the event's name.
    #[error("the data of an event has to be an object, next to the event's name")]
    InvalidData,
    /// There is no such guild.
    #[error("there is no guild {guild}; they count from 0")]
    NoSuchGuild {
        /// Its number.
        guild: u32,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A new kind does not compile here until it has a number; then the lists have to have it.
    #[test]
    fn every_kind_is_in_its_list() {
        let live = |fault: &Fault| match fault {
            Fault::StopAcking => 0,
            Fault::Reconnect => 1,
            Fault::InvalidSession { .. } => 2,
            Fault::Close { .. } => 3,
            Fault::Cut => 4,
            Fault::HalfOpen => 5,
            Fault::RequestHeartbeat => 6,
            Fault::Corrupt => 7,
            Fault::Truncate => 8,
            Fault::Silence => 9,
            Fault::StallReading => 10,
            Fault::SlowWriting { .. } => 11,
            Fault::Duplicate { .. } => 12,
            Fault::Reorder => 13,
            Fault::Gap { .. } => 14,
            Fault::Huge { .. } => 15,
            Fault::Odd => 16,
        };
        let connect = |fault: &ConnectFault| match fault {
            ConnectFault::Refuse => 0,
            ConnectFault::Hang => 1,
            ConnectFault::Status { .. } => 2,
            ConnectFault::NoHello => 3,
            ConnectFault::ReconnectInsteadOfHello => 4,
            ConnectFault::NoReady => 5,
            ConnectFault::RefuseResume => 6,
            ConnectFault::InvalidIdentify => 7,
            ConnectFault::Close { .. } => 8,
            ConnectFault::RetryLater { .. } => 9,
            ConnectFault::CloseInsteadOfHello { .. } => 10,
            ConnectFault::CloseResume { .. } => 11,
            // What no Discord does; `Odd::ALL` is their list.
            ConnectFault::Odd(_) => 12,
        };
        let kinds: BTreeSet<usize> = Fault::every().iter().map(live).collect();
        assert_eq!(kinds, (0..17).collect());
        let kinds: BTreeSet<usize> = ConnectFault::every().iter().map(connect).collect();
        assert_eq!(kinds, (0..12).collect());
    }
}
