//! The Discord Gateway protocol, version 10, as a state machine: no I/O, no clock, no randomness, no async
//! code.
//!
//! [`Shard`] is the state machine of one shard. Feed it events with the current time and perform the actions
//! that it returns; a `for` loop in a test drives it as well as a socket does. The tables and limits that it
//! uses are public too: [`EventName`], [`Intents`], [`CloseCode`], [`CommandLimiter`], [`IdentifyLimiter`],
//! [`Backoff`].
//!
//! Comments and tests cite the rules of the Gateway as `GW-nnn`; the repository's `docs/gateway-rules.md`
//! lists them.

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod backoff;
pub mod close;
mod command;
mod envelope;
#[cfg(feature = "etf")]
pub mod etf;
mod event;
mod identify;
mod ids;
mod intents;
mod limit;
mod opcode;
mod payload;
mod presence;
mod readable;
mod session;
pub mod shard;
mod timings;
mod token;
mod url;
mod wire;

pub use backoff::Backoff;
pub use close::CloseCode;
pub use command::{
    ChannelInfoField, Command, CommandClass, CommandContentError, CommandId, CommandQueueError,
    MAX_NONCE_BYTES, MAX_REQUESTED_MEMBERS, RequestMembers, VoiceStateUpdate,
};
pub use envelope::{Envelope, MalformedPayload};
pub use event::{EventGroup, EventName, EventSet};
pub use identify::{BUDGET_PERIOD, Grant, IdentifyBudget, IdentifyLimiter, IdentifyPermit, Priority};
pub use ids::{ShardCount, ShardId};
pub use intents::Intents;
pub use limit::{COMMANDS_PER_WINDOW, CommandLimiter, PRESENCES_PER_WINDOW, SlidingWindow, Urgency};
pub use opcode::Opcode;
pub use payload::{MAX_PAYLOAD_BYTES, MAX_PRESENCE_BYTES, Payload, PayloadSizeError, PresenceUpdate};
pub use presence::{Activity, MAX_ACTIVITY_CHARS, OnlineStatus, Presence, PresenceError};
pub use session::{Session, SessionMismatch};
pub use shard::{Input, Output, Shard, ShardConfig};
pub use timings::{DurationError, LONGEST_WAIT, Timings};
pub use token::{Token, TokenError};
pub use url::{GATEWAY_VERSION, gateway_url};
pub use wire::{Encoding, Wire};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
