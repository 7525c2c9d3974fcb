//! What can go wrong between a bot and the manager.

use std::time::Duration;

use shardkeeper_proto::shard::FatalClose;
pub use shardkeeper_proto::{
    CommandContentError, CommandQueueError, DurationError, PayloadSizeError, PresenceError, SessionMismatch,
    TokenError,
};
use shardkeeper_proto::{ShardCount, ShardId};
pub use shardkeeper_transport::{CertificateError, ConnectError};

use crate::chain::readable;
pub use crate::gateway_info::GatewayInfoError;

/// The manager has ended, so it cannot answer. [`Shardkeeper::wait`](crate::Shardkeeper::wait) returns the cause.
///
/// Every call of [`Shardkeeper`](crate::Shardkeeper) that needs the manager returns this error, alone or as the variant
/// `ManagerEnded` of its own error.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the manager has ended: Shardkeeper::wait() returns the cause; start a new one")]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to add: wait() has the cause")]
pub struct ManagerEnded;

/// A configuration cannot work.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The API's URL is none, or not one for HTTP.
    #[error("the API URL {url:?} is not an http or https URL")]
    ApiUrl {
        /// What was given.
        url: String,
    },
    /// A count of no shards.
    #[error("the shard count is zero: use at least one shard, or the recommended count")]
    NoShards,
    /// A shard that the layout does not have: ids are less than the count (GW-073).
    #[error("shard {shard} does not exist among {count} shards: ids go from 0 to {}", count.get() - 1)]
    NoSuchShard {
        /// The id.
        shard: ShardId,
        /// The layout.
        count: ShardCount,
    },
    /// Bits that no intent of a bot has (GW-178, GW-187).
    #[error("the intents have bits that no intent of a bot has: {bits:#x}")]
    Intents {
        /// Those bits.
        bits: u64,
    },
    /// `large_threshold` is out of bounds (GW-072).
    #[error("large_threshold is {value}: Discord takes 50 to 250")]
    LargeThreshold {
        /// What was given.
        value: u8,
    },
    /// The name of the library is too long.
    #[error("the library's name has {bytes} bytes, at most {limit} are possible")]
    LibraryName {
        /// Its length.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// More shards than any bot has.
    #[error("the shard count is {count}: at most {limit} are possible")]
    TooManyShards {
        /// What was given.
        count: u32,
        /// The bound.
        limit: u32,
    },
    /// A span of time is out of bounds.
    #[error(transparent)]
    Wait(#[from] DurationError),
    /// `max_message_bytes` is out of bounds.
    #[error("max_message_bytes is {value}: it has to be between {min} and {max}")]
    MaxMessageBytes {
        /// What was given.
        value: usize,
        /// The smallest bound that lets a shard get ready.
        min: usize,
        /// The largest possible bound.
        max: usize,
    },
    /// Payload compression exists for JSON only (GW-034).
    #[error("payload compression goes with the encoding json only: use zlib-stream, or none")]
    PayloadCompression,
    /// The first presence cannot be shown.
    #[error(transparent)]
    Presence(#[from] PresenceError),
}

/// The manager could not start.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `GET /gateway/bot` failed in a way that trying again does not mend.
    #[error("the gateway address cannot be had")]
    Gateway(#[source] GatewayInfoError),
    /// A shard was asked for that the recommended layout does not have.
    #[error("the layout does not fit")]
    Layout(#[source] ConfigError),
    /// What is left of the day's Identify does not suffice for all shards ([`Builder::require_full_start`](crate::Builder::require_full_start)).
    #[error(
        "{needed} shards have to identify, and {left} identifies are left of which {reserve} are kept: \
         wait {resets_after:.0?}, or let some of them start"
    )]
    Budget {
        /// How many shards have no session to resume.
        needed: usize,
        /// What is left.
        left: u32,
        /// What is never spent.
        reserve: u32,
        /// When everything is there again.
        resets_after: Duration,
    },
    /// `GET /gateway/bot` had no answer within [`Builder::start_timeout`](crate::Builder::start_timeout).
    #[error("no answer from the gateway within {after:?}: {error}")]
    Unreachable {
        /// The configured bound.
        after: Duration,
        /// What the last attempt said.
        error: String,
    },
    /// The actors could not be spawned, or the manager ended before it had started.
    #[error("the manager ended before it had started: the log says why")]
    ManagerEnded(#[from] ManagerEnded),
}

/// A command was not accepted.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It is none that Discord takes.
    #[error(transparent)]
    Invalid(#[from] CommandContentError),
    /// It is none that Discord would show.
    #[error(transparent)]
    Presence(#[from] PresenceError),
    /// The shard does not take it.
    #[error(transparent)]
    Queue(#[from] CommandQueueError),
    /// Another process runs the shard.
    #[error("shard {shard} is not run by this manager")]
    NoSuchShard {
        /// The shard.
        shard: ShardId,
    },
    /// Another process runs the shard that owns the guild.
    #[error("guild {guild_id} is on shard {shard}, which is not run by this manager")]
    GuildElsewhere {
        /// The guild.
        guild_id: u64,
        /// The shard that owns it.
        shard: ShardId,
    },
    /// The shard ended, or is about to come back from a crash.
    #[error("shard {shard} takes no commands now")]
    ShardEnded {
        /// The shard.
        shard: ShardId,
    },
    /// The layout is not known yet, so that no shard owns the guild.
    #[error("the manager is still asking discord for its layout")]
    Starting,
    /// The manager has ended.
    #[error(transparent)]
    ManagerEnded(#[from] ManagerEnded),
}

/// Shards were not added, removed or restarted: none of them.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShardChangeError {
    /// The layout has no such shard.
    #[error("shard {shard} does not exist among {count} shards: ids go from 0 to {}", count.get() - 1)]
    NotInLayout {
        /// The shard.
        shard: ShardId,
        /// The layout.
        count: ShardCount,
    },
    /// This manager runs it already.
    #[error("shard {shard} is run by this manager already")]
    AlreadyHere {
        /// The shard.
        shard: ShardId,
    },
    /// This manager does not run it.
    #[error("shard {shard} is not run by this manager")]
    NoSuchShard {
        /// The shard.
        shard: ShardId,
    },
    /// It is being removed.
    #[error("shard {shard} is being removed")]
    Leaving {
        /// The shard.
        shard: ShardId,
    },
    /// A session that none of the shards is to resume.
    #[error("a session of shard {shard} was given, which is not among the shards to add")]
    UnwantedSession {
        /// Its shard.
        shard: ShardId,
    },
    /// A session that its shard cannot resume.
    #[error("the session of shard {shard} cannot be resumed here")]
    Session {
        /// Its shard.
        shard: ShardId,
        /// What stands against it.
        source: SessionMismatch,
    },
    /// The layout is not known yet.
    #[error("the manager is still asking discord for its layout")]
    Starting,
    /// The manager has ended, or is about to.
    #[error(transparent)]
    ManagerEnded(#[from] ManagerEnded),
}

/// How a manager ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitReason {
    /// As it was told; the sessions are given up.
    Stopped,
    /// As it was told; the sessions can be resumed.
    Detached,
    /// Discord refuses the bot.
    Refused(FatalClose),
    /// It broke down, or was stopped or killed by its address.
    Crashed,
}

impl ExitReason {
    /// `Ok` when the bot ended because it was told to, otherwise the cause as an error.
    ///
    /// # Errors
    ///
    /// When Discord refused the bot, or the manager crashed.
    pub fn into_result(self) -> Result<(), ExitError> {
        match self {
            Self::Stopped | Self::Detached => Ok(()),
            Self::Refused(refusal) => Err(ExitError::Refused(refusal)),
            Self::Crashed => Err(ExitError::Crashed),
        }
    }
}

/// The bot ended without having been told to.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExitError {
    /// Discord refuses the bot.
    #[error(transparent)]
    Refused(#[from] FatalClose),
    /// The manager crashed, or its actor was stopped or killed.
    #[error("the manager crashed, or its actor was stopped or killed: the log says why")]
    Crashed,
}

readable!(CommandError, ConfigError, ExitError, ManagerEnded, ShardChangeError, StartError);

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn what_main_returns_is_printed_with_its_causes() {
        let empty = StartError::Config(ConfigError::Token(TokenError::Empty));
        let asked = StartError::Gateway(GatewayInfoError::Unauthorized);
        for (error, printed) in [
            (empty, "the token is empty: set it to the bot token of the developer portal"),
            (
                asked,
                "the gateway address cannot be had: discord does not accept the token (401): \
                 take a valid one from the developer portal",
            ),
        ] {
            let error: Box<dyn Error> = error.into();
            assert_eq!(format!("{error:?}"), printed);
        }
    }

    #[test]
    fn only_an_end_that_nobody_asked_for_is_an_error() {
        assert_eq!(ExitReason::Stopped.into_result(), Ok(()));
        assert_eq!(ExitReason::Detached.into_result(), Ok(()));
        assert_eq!(ExitReason::Crashed.into_result(), Err(ExitError::Crashed));
    }
}
