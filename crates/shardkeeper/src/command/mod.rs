//! Commands on their way to Discord, and what becomes of them.
//!
//! Input: commands of the bot. Output: the same commands, at the driver of the shard that sends them; and to the bot the news
//! that they were written, or why not.

mod accepted;
mod channel;
mod members;

pub use self::accepted::{Accepted, NotWritten};
pub(crate) use self::accepted::{Receipt, receipt};
pub(crate) use self::channel::{CommandInbox, CommandSender, Pending, channel};
pub(crate) use self::members::{ALL_MEMBERS_WINDOW, MembersAnswer, MembersDesk, SharedAnswer};
pub use self::members::{Members, MembersChunk, MembersError};
