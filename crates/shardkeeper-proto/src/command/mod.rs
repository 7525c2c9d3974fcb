//! Commands for a guild, validated before they are sent (GW-192 to GW-226).

mod guild_data;
mod members;
mod queue;
mod voice;

use std::fmt;

use serde::{Serialize, Serializer};

pub use self::guild_data::ChannelInfoField;
pub use self::members::{MAX_NONCE_BYTES, MAX_REQUESTED_MEMBERS, RequestMembers};
pub use self::queue::CommandId;
pub(crate) use self::queue::CommandQueue;
pub use self::voice::VoiceStateUpdate;
use crate::payload::{self, Payload};
use crate::{Intents, Opcode, PayloadSizeError, ShardCount, ShardId};

/// A validated command for the shard that owns its guild. `Debug` shows the opcode and size, but no content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    payload: Payload,
    address: Address,
    class: CommandClass,
    needs: Intents,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    OwnerOf(u64),
    Shard(ShardId),
}

/// How urgent a command is. Voice commands are sent before presences, and those before bulk requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommandClass {
    /// Voice commands: a user waits for the bot to join or leave.
    Voice,
    /// Requests with large answers, and raw payloads.
    Bulk,
}

impl CommandClass {
    pub(crate) const ALL: [Self; 2] = [Self::Voice, Self::Bulk];

    /// How many commands of the class may wait for a shard. The limit allows at most 115 per minute, 105 of
    /// them bulk; more would [expire](crate::Timings::voice_lifetime) before they are sent.
    pub const fn capacity(self) -> usize {
        match self {
            Self::Voice => 128,
            Self::Bulk => 512,
        }
    }
}

impl Command {
    fn new(
        opcode: Opcode,
        guild_id: u64,
        class: CommandClass,
        data: &impl Serialize,
    ) -> Result<Self, PayloadSizeError> {
        let payload = payload::command(opcode, data)?;
        Ok(Self { payload, address: Address::OwnerOf(guild_id), class, needs: Intents::empty() })
    }

    /// Creates any other payload that Discord accepts, for one shard: `data` becomes the payload's `d`. Raw
    /// payloads wait with the bulk requests.
    ///
    /// # Errors
    ///
    /// When the opcode is not for bots to send, or belongs to the session or the presence, which shardkeeper
    /// sends itself; when `data` cannot be encoded as JSON, or is larger than Discord accepts.
    pub fn raw(
        shard: impl Into<ShardId>,
        opcode: u8,
        data: &impl Serialize,
    ) -> Result<Self, CommandContentError> {
        use Opcode::{RequestChannelInfo, RequestGuildMembers, RequestSoundboardSounds, VoiceStateUpdate};
        let known = Opcode::from_number(opcode.into());
        let sendable = matches!(
            known,
            None | Some(
                VoiceStateUpdate | RequestGuildMembers | RequestSoundboardSounds | RequestChannelInfo
            )
        );
        if !sendable {
            return Err(CommandContentError::ReservedOpcode { opcode });
        }
        let payload = payload::raw(opcode, data)?;
        Ok(Self {
            payload,
            address: Address::Shard(shard.into()),
            class: CommandClass::Bulk,
            needs: Intents::empty(),
        })
    }

    /// The shard that has to send the command: Discord answers only on the session of the guild's shard
    /// (GW-208, GW-215).
    pub fn shard(&self, count: ShardCount) -> ShardId {
        match self.address {
            Address::OwnerOf(guild_id) => count.owner_of(guild_id),
            Address::Shard(shard) => shard,
        }
    }

    /// The guild of the command; `None` for a raw payload.
    pub fn guild_id(&self) -> Option<u64> {
        match self.address {
            Address::OwnerOf(guild_id) => Some(guild_id),
            Address::Shard(_) => None,
        }
    }

    /// The shard of a raw payload; `None` for a command for a guild.
    pub fn raw_shard(&self) -> Option<ShardId> {
        match self.address {
            Address::OwnerOf(_) => None,
            Address::Shard(shard) => Some(shard),
        }
    }

    /// Whether a shard of another layout can send the command instead. A request for sounds lists several guilds
    /// of one shard, which may have different owners there.
    pub fn can_move(&self) -> bool {
        !self.payload.is(Opcode::RequestSoundboardSounds)
    }

    /// The intents without which Discord does not answer the command.
    pub fn needs(&self) -> Intents {
        self.needs
    }

    /// How urgent the command is.
    pub fn class(&self) -> CommandClass {
        self.class
    }

    /// The opcode's number.
    pub fn opcode(&self) -> u8 {
        self.payload.opcode
    }
}

/// Why a shard does not accept a command.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandQueueError {
    /// Another shard owns the guild, and Discord answers only on that shard's session (GW-208, GW-215).
    #[error("the command belongs on shard {owner}, not on shard {shard}")]
    OtherShard {
        /// The shard that received the command.
        shard: ShardId,
        /// The shard that owns the guild.
        owner: ShardId,
    },
    /// An intent is missing: GUILD_MEMBERS for all members (GW-212), GUILD_PRESENCES for presences (GW-213).
    #[error("the command needs {missing}, which the bot did not ask for when it started")]
    MissingIntents {
        /// The missing intents.
        missing: Intents,
    },
    /// The queue of this class is full.
    #[error("the queue of shard {shard} is full: {capacity} {class} commands are waiting; retry later")]
    QueueFull {
        /// The shard that received the command.
        shard: ShardId,
        /// The class of the command.
        class: CommandClass,
        /// The capacity of the queue, in commands.
        capacity: usize,
    },
}

/// Why a command cannot be sent.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandContentError {
    /// The nonce is too long: Discord ignores one of more than 32 bytes (GW-214).
    #[error("the nonce has {bytes} bytes, above the limit of {MAX_NONCE_BYTES}")]
    NonceTooLong {
        /// The length of the nonce, in bytes.
        bytes: usize,
    },
    /// Too many user ids: Discord returns at most 100 members (GW-211).
    #[error("{count} user ids exceed the limit of {MAX_REQUESTED_MEMBERS} per request: split the request")]
    TooManyUsers {
        /// The number of requested user ids.
        count: usize,
    },
    /// The list of user ids is empty.
    #[error("the list of user ids is empty: name at least one user")]
    NoUsers,
    /// The prefix is empty, which would request all members.
    #[error("the prefix is empty: to request all members, use RequestMembers::all")]
    EmptyPrefix,
    /// The limit is not within 1 to 100, the most members that Discord returns (GW-211).
    #[error("the limit is {limit}: it must be between 1 and {MAX_REQUESTED_MEMBERS}")]
    Limit {
        /// The given limit.
        limit: usize,
    },
    /// The opcode is not for bots to send, or shardkeeper sends it itself.
    #[error(
        "opcode {opcode} cannot be sent as a raw command: shardkeeper sends session and presence payloads \
         itself, and other opcodes are not for bots"
    )]
    ReservedOpcode {
        /// The given opcode.
        opcode: u8,
    },
    /// The data of a raw payload cannot be encoded.
    #[error("the data cannot be encoded as a payload: {reason}")]
    Unencodable {
        /// The reason, from the encoder.
        reason: String,
    },
    /// The payload is larger than Discord accepts.
    #[error(transparent)]
    TooLarge(#[from] PayloadSizeError),
}

/// An id, written as a string in JSON.
#[derive(Clone, Copy)]
struct Id(u64);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl fmt::Display for CommandClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Voice => "voice",
            Self::Bulk => "bulk",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_208_215_a_command_belongs_on_the_shard_of_its_guild() {
        let count = ShardCount::new(16).unwrap();
        let command = Command::channel_info(41_771_983_423_143_937, &[ChannelInfoField::Status]);
        assert_eq!(command.shard(count), ShardId(6));
    }

    #[test]
    fn a_raw_payload_leaves_the_session_alone() {
        let raw = |opcode| Command::raw(ShardId(3), opcode, &serde_json::json!({"a": [1, null]}));
        let command = raw(200).unwrap();
        assert_eq!(command.payload.text, r#"{"op":200,"d":{"a":[1,null]}}"#);
        assert_eq!(command.shard(ShardCount::new(8).unwrap()), ShardId(3));
        assert_eq!((command.raw_shard(), command.guild_id()), (Some(ShardId(3)), None));
        for opcode in [4, 8, 31, 43, 5] {
            assert!(raw(opcode).is_ok(), "{opcode}");
        }
        for opcode in [0, 1, 2, 3, 6, 7, 9, 10, 11] {
            assert_eq!(raw(opcode), Err(CommandContentError::ReservedOpcode { opcode }));
        }
        let large = Command::raw(ShardId(0), 8, &"x".repeat(5000)).unwrap_err();
        assert!(large.to_string().ends_with("bytes, above the limit of 4096"), "{large}");
        let no_json = std::collections::BTreeMap::from([(vec![1], 2)]);
        assert!(matches!(
            Command::raw(ShardId(0), 8, &no_json),
            Err(CommandContentError::Unencodable { .. })
        ));
        let deep = (0..300).fold(serde_json::json!(0), |inner, _| serde_json::json!([inner]));
        assert!(matches!(Command::raw(ShardId(0), 8, &deep), Err(CommandContentError::Unencodable { .. })));
    }
}
