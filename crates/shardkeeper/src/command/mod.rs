//! Commands on their way to Discord, and their outcome.
//!
//! Input: commands of the bot. Output: the same commands at the driver of the shard that sends them, and for
//! the bot the news that they were written, or why not.

mod accepted;
mod calls;
mod channel;
mod members;

pub use shardkeeper_proto::{
    ChannelInfoField, Command, CommandClass, PresenceUpdate, RequestMembers, VoiceStateUpdate,
};

pub use self::accepted::{AcceptedCommand, WriteError};
pub(crate) use self::accepted::{Receipt, receipt};
pub(crate) use self::calls::Calls;
pub(crate) use self::channel::{
    CAPACITY, CommandInbox, CommandSender, Origin, Parcel, PendingCommand, channel, full,
};
pub(crate) use self::members::{
    ALL_MEMBERS_WINDOW, AwaitedAnswer, MembersAnswer, MembersRequests, SharedAnswer,
};
pub use self::members::{Members, MembersChunk, MembersError};
