//! The faults that the simulator can make. In JSON and TOML their names are in `kebab-case`.

use serde::Deserialize;

use crate::odd::Odd;
use crate::settings::SessionFilter;

/// A fault of a live connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// Stops acknowledging heartbeats until the connection ends.
    StopAcking,
    /// Sends op 7. Events continue until the client closes the connection, or until
    /// [`SimTimings::reconnect_grace`](crate::SimTimings::reconnect_grace) is over.
    Reconnect,
    /// Sends op 9, after the events that the session already has. With `false` the session is over.
    InvalidSession {
        /// Whether the session stays resumable.
        resumable: bool,
    },
    /// Closes the connection with this code. 4003, 4004, 4006, 4007 and 4009 to 4014 end the session too.
    Close {
        /// The close code.
        code: u16,
    },
    /// Ends the connection without a close frame.
    Cut,
    /// Stops reading and writing; the connection stays open.
    HalfOpen,
    /// Sends op 1, which asks the client for a heartbeat.
    RequestHeartbeat,
    /// Sends bytes that cannot be decompressed, or text that is not JSON.
    Corrupt,
    /// Ends the stream in the middle of a message.
    Truncate,
    /// Stops sending dispatches, which stay in the session. Heartbeats are still acknowledged.
    Silence,
    /// Stops reading what the client sends. Writing continues.
    StallReading,
    /// Limits how many bytes are written per second, until the connection ends.
    SlowWriting {
        /// At least 1.
        bytes_per_second: u32,
    },
    /// Sends the newest events again, with new sequence numbers (GW-023: events may arrive twice).
    Duplicate {
        /// The number of events.
        count: u32,
    },
    /// Sends the next two dispatches in reverse order.
    Reorder,
    /// Skips sequence numbers. A gap is not an error.
    Gap {
        /// How many numbers are skipped.
        count: u32,
    },
    /// Sends a very large dispatch (GW-014: clients need a generous limit for incoming messages).
    Huge {
        /// The least size of its data.
        bytes: u32,
    },
    /// Sends an unknown opcode, an unknown event, unknown fields, and keys in an unusual order (GW-018,
    /// GW-021).
    Odd,
}

impl Fault {
    /// One fault of each kind, and every close code that Discord documents or was observed to send. For tests
    /// that take a client through all of them.
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

/// The close codes that Discord documents or was observed to send (GW-076 to GW-094).
const CLOSE_CODES: [u16; 16] =
    [1000, 1001, 4000, 4001, 4002, 4003, 4004, 4005, 4007, 4008, 4009, 4010, 4011, 4012, 4013, 4014];

/// A fault of a future Gateway connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ConnectFault {
    /// Ends the TCP connection before the WebSocket is open.
    Refuse,
    /// Never answers the WebSocket handshake.
    Hang,
    /// Answers the handshake with this HTTP status and a page that is not JSON.
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// Answers the handshake with this HTTP status and a `Retry-After` header.
    RetryLater {
        /// The HTTP status.
        status: u16,
        /// The value of `Retry-After`, in seconds.
        seconds: u32,
    },
    /// Opens the WebSocket and never sends Hello.
    NoHello,
    /// Opens the WebSocket and closes it with this code before Hello.
    CloseInsteadOfHello {
        /// The close code.
        code: u16,
    },
    /// Sends op 7 instead of Hello (GW-104).
    ReconnectInsteadOfHello,
    /// Never answers Identify and Resume. Heartbeats are still acknowledged.
    NoReady,
    /// Refuses a Resume with op 9 `false`.
    RefuseResume,
    /// Answers a Resume with a close frame. An Identify is not affected.
    CloseResume {
        /// The close code.
        code: u16,
    },
    /// Refuses an Identify with op 9 `false`. It counts towards the limit (GW-152).
    InvalidIdentify,
    /// Answers an Identify or Resume with a close frame.
    Close {
        /// The close code.
        code: u16,
    },
    /// Makes the whole connection differ from Discord's in one way.
    Odd(Odd),
}

impl ConnectFault {
    /// One fault of each kind that occurs at Discord, and every close code that Discord documents or was
    /// observed to send. [`Odd::ALL`] has the kinds that do not occur there.
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

/// A fault of a future REST request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum RestFault {
    /// Answers with this status and an empty JSON object.
    Status(u16),
    /// Answers with this status and a page that is not JSON, like a proxy in front of Discord's API.
    Page(u16),
    /// Never answers.
    Hang,
    /// Ends the connection without an answer.
    Cut,
    /// Answers with status 200 and a page that is not JSON.
    Garbage,
    /// Answers with 429.
    RateLimited {
        /// How long the client has to wait, in milliseconds.
        retry_after_ms: u32,
        /// Whether the limit concerns all requests of the bot (GW-291) or only this resource.
        global: bool,
    },
}

/// The reason why an action could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InjectError {
    /// The shard has no connection that is identified or resumed.
    #[error("shard {shard_id} has no connection with a session now")]
    NotConnected {
        /// The shard.
        shard_id: u32,
    },
    /// No session that the filter includes has a connection, or can receive events.
    #[error("no session has a connection now and fits {of:?}")]
    NoSuchSession {
        /// The filter.
        of: SessionFilter,
    },
    /// The shard has no session to send events in.
    #[error("shard {shard_id} has no session now")]
    NoSession {
        /// The shard.
        shard_id: u32,
    },
    /// The simulator does not generate events of this name, or the name has other characters than capitals,
    /// digits and underscores.
    #[error(
        "the simulator cannot generate the event {event:?}: give its data too, and write the name in capitals"
    )]
    NoSuchEvent {
        /// The name of the event.
        event: String,
    },
    /// The data of an event is not an object, or the name of the event is missing.
    #[error("the data of an event has to be a JSON object, and needs the event's name")]
    InvalidData,
    /// No guild has this number.
    #[error("there is no guild {guild}: guilds are numbered from 0")]
    NoSuchGuild {
        /// The number of the guild, from 0.
        guild: u32,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A new kind does not compile until it has a number here, and then the lists have to contain it.
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
            // `Odd::ALL` lists these.
            ConnectFault::Odd(_) => 12,
        };
        let kinds: BTreeSet<usize> = Fault::every().iter().map(live).collect();
        assert_eq!(kinds, (0..17).collect());
        let kinds: BTreeSet<usize> = ConnectFault::every().iter().map(connect).collect();
        assert_eq!(kinds, (0..12).collect());
    }
}
