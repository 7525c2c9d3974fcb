//! Errors that a bot can get from the builder and the manager.

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

/// Error of [`Builder::build`](crate::Builder::build): the configuration is not valid. Each variant names the
/// setting.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The token is not valid.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The API URL is not a valid `http` or `https` URL.
    #[error("the API URL {url:?} is not an http or https URL")]
    ApiUrl {
        /// URL that was given.
        url: String,
    },
    /// The shard count is zero.
    #[error(
        "the shard count is zero: use at least 1, or leave it out for the number that Discord recommends"
    )]
    NoShards,
    /// A shard id is not less than the shard count (GW-073: ids are counted from zero).
    #[error("shard {shard} does not exist among {count} shards: ids go from 0 to {}", count.get() - 1)]
    NoSuchShard {
        /// Shard id that was given.
        shard: ShardId,
        /// Shard count that was given.
        count: ShardCount,
    },
    /// The intents contain bits that Discord does not define for bots (GW-178, GW-187).
    #[error("the intents contain unknown bits: {bits:#x}")]
    Intents {
        /// The unknown bits.
        bits: u64,
    },
    /// `large_threshold` is out of bounds (GW-072: Discord accepts 50 to 250).
    #[error("large_threshold is {value}: Discord accepts 50 to 250")]
    LargeThreshold {
        /// Value that was given.
        value: u8,
    },
    /// The library name is too long.
    #[error("the library name has {bytes} bytes: at most {limit} are allowed")]
    LibraryName {
        /// Length of the name, in bytes.
        bytes: usize,
        /// Largest length, in bytes.
        limit: usize,
    },
    /// The shard count is larger than any bot needs.
    #[error("the shard count is {count}: at most {limit} are allowed")]
    TooManyShards {
        /// Shard count that was given.
        count: u32,
        /// Largest shard count.
        limit: u32,
    },
    /// A duration is out of bounds. The source names the setting.
    #[error(transparent)]
    Wait(#[from] DurationError),
    /// `max_message_bytes` is out of bounds.
    #[error("max_message_bytes is {value}: it has to be between {min} and {max}")]
    MaxMessageBytes {
        /// Value that was given, in bytes.
        value: usize,
        /// Smallest value with which a shard can still get ready, in bytes.
        min: usize,
        /// Largest possible value, in bytes.
        max: usize,
    },
    /// Payload compression is combined with an encoding other than JSON (GW-034: it exists only for JSON).
    #[error("payload compression works only with the json encoding: use zlib-stream, or no compression")]
    PayloadCompression,
    /// The first presence is not valid.
    #[error(transparent)]
    Presence(#[from] PresenceError),
}

/// Error of [`Builder::start`](crate::Builder::start): the manager did not start.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `GET /gateway/bot` failed, and trying again would not help. The source has the cause.
    #[error("cannot get the gateway address")]
    Gateway(#[source] GatewayInfoError),
    /// A configured shard does not exist in the layout that Discord recommends.
    #[error("the configured shards do not fit the shard count")]
    Layout(#[source] ConfigError),
    /// The identify budget is too small to start every shard, and
    /// [`Builder::require_full_start`](crate::Builder::require_full_start) is set.
    #[error(
        "the identify budget is too small: {needed} shards have to identify, {left} identifies are left, \
         {reserve} of them are reserved; wait {resets_after:.0?}, or turn require_full_start off"
    )]
    Budget {
        /// Number of shards that have no session to resume.
        needed: usize,
        /// Identifies left in the current period.
        left: u32,
        /// Identifies that are never spent ([`Builder::identify_reserve`](crate::Builder::identify_reserve)).
        reserve: u32,
        /// Time until Discord resets the budget.
        resets_after: Duration,
    },
    /// `GET /gateway/bot` did not succeed within [`Builder::start_timeout`](crate::Builder::start_timeout).
    #[error("no answer from the gateway within {after:?}: {error}")]
    Unreachable {
        /// Configured timeout.
        after: Duration,
        /// Error text of the last attempt.
        error: String,
    },
    /// The manager's actor could not be spawned, or ended during the start.
    #[error("the manager ended before it had started: see the log for the cause")]
    ManagerEnded(#[from] ManagerEnded),
}

/// Error of a command or presence that was not accepted.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The command is not valid: Discord would reject it.
    #[error(transparent)]
    Invalid(#[from] CommandContentError),
    /// The presence is not valid: Discord would not show it.
    #[error(transparent)]
    Presence(#[from] PresenceError),
    /// The shard does not accept the command.
    #[error(transparent)]
    Queue(#[from] CommandQueueError),
    /// This manager does not run the shard; perhaps another process does.
    #[error("shard {shard} is not run by this manager")]
    NoSuchShard {
        /// Id of the shard.
        shard: ShardId,
    },
    /// This manager does not run the shard that owns the guild; perhaps another process does.
    #[error("guild {guild_id} is on shard {shard}, which is not run by this manager")]
    GuildElsewhere {
        /// Id of the guild.
        guild_id: u64,
        /// Shard that owns the guild.
        shard: ShardId,
    },
    /// The shard has ended, or is waiting to restart after a crash.
    #[error("shard {shard} accepts no commands now: it has ended or is restarting")]
    ShardEnded {
        /// Id of the shard.
        shard: ShardId,
    },
    /// The layout is not known yet, so the owner of the guild is not known.
    #[error("the manager is still starting: its shard count is not known yet")]
    Starting,
    /// The manager has ended.
    #[error(transparent)]
    ManagerEnded(#[from] ManagerEnded),
}

/// Error of adding, removing or restarting shards. None of the shards given was changed.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShardChangeError {
    /// The layout has no shard with this id.
    #[error("shard {shard} does not exist among {count} shards: ids go from 0 to {}", count.get() - 1)]
    NotInLayout {
        /// Shard id that was given.
        shard: ShardId,
        /// Shard count of the layout.
        count: ShardCount,
    },
    /// This manager already runs the shard.
    #[error("shard {shard} is already run by this manager")]
    AlreadyHere {
        /// Id of the shard.
        shard: ShardId,
    },
    /// This manager does not run the shard.
    #[error("shard {shard} is not run by this manager")]
    NoSuchShard {
        /// Id of the shard.
        shard: ShardId,
    },
    /// The shard is being removed.
    #[error("shard {shard} is being removed")]
    Leaving {
        /// Id of the shard.
        shard: ShardId,
    },
    /// A reshard is running, which decides which shards there are.
    #[error("a reshard is running: wait for its end, or abort it first")]
    Resharding,
    /// A session was given for a shard that is not among the shards to add.
    #[error("a session of shard {shard} was given, which is not among the shards to add")]
    UnwantedSession {
        /// Shard of that session.
        shard: ShardId,
    },
    /// A session was given that its shard cannot resume.
    #[error("the session of shard {shard} cannot be resumed here")]
    Session {
        /// Shard of that session.
        shard: ShardId,
        /// Reason why the session cannot be resumed.
        source: SessionMismatch,
    },
    /// The layout is not known yet.
    #[error("the manager is still starting: its shard count is not known yet")]
    Starting,
    /// The manager has ended, or is about to end.
    #[error(transparent)]
    ManagerEnded(#[from] ManagerEnded),
}

/// Error of [`Shardkeeper::reshard`](crate::Shardkeeper::reshard) and of the calls that control a reshard:
/// nothing was changed.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReshardRejected {
    /// The bot has this shard count already.
    #[error("the bot has {count} shards already: use ReshardTarget::Same to start new sessions")]
    NothingToDo {
        /// Shard count of the bot.
        count: ShardCount,
    },
    /// A reshard is running. There is one at a time.
    #[error("a reshard from {count} to {next} shards is running: wait for its end, or abort it first")]
    AlreadyRunning {
        /// Shard count that the bot had before.
        count: ShardCount,
        /// Shard count that it will have.
        next: ShardCount,
    },
    /// An earlier reshard to another count stands half way: it was aborted or failed after some groups.
    #[error(
        "a reshard from {count} to {next} shards stands half way, {moved} groups are done: finish it first, \
         by resume_reshard() or with {next} as the count"
    )]
    HalfWay {
        /// Shard count of the groups that are not done.
        count: ShardCount,
        /// Shard count of the groups that are done.
        next: ShardCount,
        /// Number of groups that are done.
        moved: usize,
    },
    /// No reshard is running.
    #[error("no reshard is running")]
    NotRunning,
    /// With this count, a shard would have more than the 2500 guilds that Discord allows (GW-237).
    #[error(
        "{count} shards are too few: discord recommends {recommended} and allows no shard more than 2500 \
         guilds; choose at least {least}"
    )]
    TooFewShards {
        /// Shard count that was asked for.
        count: ShardCount,
        /// Smallest possible count.
        least: u32,
        /// Shard count that Discord recommends.
        recommended: u32,
    },
    /// The count is larger than any bot needs.
    #[error("{count} shards are too many: at most {limit} are allowed")]
    TooManyShards {
        /// Shard count that was asked for.
        count: u32,
        /// Largest shard count.
        limit: u32,
    },
    /// This process does not run all old shards of any group.
    #[error(
        "this process runs no group of the reshard from {count} to {next} shards whole: move the shards with \
         the same remainder by {groups} into one process, or choose a multiple of {count}"
    )]
    NoWholeGroup {
        /// Present shard count.
        count: ShardCount,
        /// Shard count that was asked for.
        next: ShardCount,
        /// Number of groups: shards whose ids leave the same remainder by it belong together.
        groups: u32,
        /// Remainders of the groups of which this process runs a part.
        residues: Vec<u32>,
    },
    /// The identify budget is too small.
    #[error(
        "the identify budget is too small: {needed} identifies are needed at once, {left} of {total} are left, \
         {reserve} of them are reserved; wait {resets_after:.0?}, lower ReshardPolicy::reserve, or choose a \
         multiple of the present count"
    )]
    Budget {
        /// Identifies that are needed within one period: those of one group, or of the whole reshard if it
        /// may not be [spread](crate::config::ReshardPolicy::spread).
        needed: u32,
        /// Identifies left in the current period.
        left: u32,
        /// Identifies allowed per period.
        total: u32,
        /// Identifies that a reshard leaves for other shards.
        reserve: u32,
        /// Time until Discord resets the budget.
        resets_after: Duration,
    },
    /// Discord's recommendation could not be asked for.
    #[error("the recommended shard count is not known: {error}; name a count, or try again later")]
    GatewayUnavailable {
        /// Error text of the request.
        error: String,
    },
    /// The layout is not known yet.
    #[error("the manager is still starting: its shard count is not known yet")]
    Starting,
    /// The manager has ended, or is about to end.
    #[error(transparent)]
    ManagerEnded(#[from] ManagerEnded),
}

/// How a manager ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitReason {
    /// Ended by [`stop`](crate::Shardkeeper::stop); the sessions are given up.
    Stopped,
    /// Ended by [`detach`](crate::Shardkeeper::detach); the sessions can be resumed.
    Detached,
    /// Discord refuses the bot.
    Refused(FatalClose),
    /// The manager crashed, or its actor was stopped or killed through its address.
    Crashed,
}

impl ExitReason {
    /// Converts the reason into a result: `Ok` when the bot ended on request, otherwise the cause as an
    /// error.
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

/// Error of a bot that ended without a request to end.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExitError {
    /// Discord refuses the bot.
    #[error(transparent)]
    Refused(#[from] FatalClose),
    /// The manager crashed, or its actor was stopped or killed.
    #[error("the manager crashed, or its actor was stopped or killed: see the log for the cause")]
    Crashed,
}

readable!(CommandError, ConfigError, ExitError, ManagerEnded, ReshardRejected, ShardChangeError, StartError);

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn what_main_returns_is_printed_with_its_causes() {
        let empty = StartError::Config(ConfigError::Token(TokenError::Empty));
        let asked = StartError::Gateway(GatewayInfoError::Unauthorized);
        for (error, printed) in [
            (empty, "the token is empty: set it to the bot token from the developer portal"),
            (
                asked,
                "cannot get the gateway address: discord does not accept the token (401): \
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
