//! Commands for a guild: what a bot asks of Discord over a session, checked before it is sent (sections 12 to 14).

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

/// A command that was checked, for the shard that owns its guild. Its `Debug` shows the opcode and size, and no content.
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

/// How urgent a command is. Voice goes before presences, those go before bulk requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommandClass {
    /// Somebody waits for the bot to speak.
    Voice,
    /// Requests for much that comes later, and raw payloads.
    Bulk,
}

impl CommandClass {
    pub(crate) const ALL: [Self; 2] = [Self::Voice, Self::Bulk];

    /// So many commands of the class may wait for a shard. The limit lets at most 115 pass in a minute, 105 of them bulk:
    /// more would not be sent before they [expire](crate::Timings::voice_lifetime).
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

    /// Whatever else Discord takes, for one shard: `data` is what the payload has as `d`. It waits with the bulk requests.
    ///
    /// # Errors
    ///
    /// When the opcode is not one for bots to send, or belongs to the session or the presence, which shardkeeper keeps
    /// itself; when `data` does not become JSON, or is larger than Discord takes.
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

    /// The shard that has to send the command: on other sessions than that of its guild, Discord does not answer
    /// (GW-208, GW-215).
    pub fn shard(&self, count: ShardCount) -> ShardId {
        match self.address {
            Address::OwnerOf(guild_id) => count.owner_of(guild_id),
            Address::Shard(shard) => shard,
        }
    }

    /// The guild that it is for; `None` for a raw payload.
    pub fn guild_id(&self) -> Option<u64> {
        match self.address {
            Address::OwnerOf(guild_id) => Some(guild_id),
            Address::Shard(_) => None,
        }
    }

    /// The shard that a raw payload is for; `None` for a command for a guild.
    pub fn raw_shard(&self) -> Option<ShardId> {
        match self.address {
            Address::OwnerOf(_) => None,
            Address::Shard(shard) => Some(shard),
        }
    }

    /// The intents without which Discord does not answer it.
    pub fn needs(&self) -> Intents {
        self.needs
    }

    /// How urgent it is.
    pub fn class(&self) -> CommandClass {
        self.class
    }

    /// What it is.
    pub fn opcode(&self) -> u8 {
        self.payload.opcode
    }
}

/// A shard does not take a command.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandQueueError {
    /// Another shard owns the guild, and Discord answers on that shard's session only (GW-208, GW-215).
    #[error("the command belongs on shard {owner}, not on shard {shard}")]
    OtherShard {
        /// The shard that was asked.
        shard: ShardId,
        /// The shard that owns the guild.
        owner: ShardId,
    },
    /// An intent is missing: GUILD_MEMBERS for all members (GW-212), GUILD_PRESENCES for presences (GW-213).
    #[error("the command needs {missing}, which the bot did not ask for when it started")]
    MissingIntents {
        /// What is missing.
        missing: Intents,
    },
    /// So many of its class wait already.
    #[error("shard {shard} has {capacity} {class} commands waiting")]
    QueueFull {
        /// The shard.
        shard: ShardId,
        /// The class.
        class: CommandClass,
        /// How many may wait.
        capacity: usize,
    },
}

/// A command cannot be sent.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandContentError {
    /// The nonce is too long: Discord ignores one of more than 32 bytes (GW-214).
    #[error("the nonce has {bytes} bytes, at most {MAX_NONCE_BYTES} are possible")]
    NonceTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Too many ids: Discord returns at most 100 members (GW-211).
    #[error("{count} user ids are asked for, at most {MAX_REQUESTED_MEMBERS} are possible in one request")]
    TooManyUsers {
        /// How many.
        count: usize,
    },
    /// No ids at all.
    #[error("no user ids are asked for")]
    NoUsers,
    /// A prefix without text asks for all members.
    #[error("the prefix is empty: ask for all members instead")]
    EmptyPrefix,
    /// The limit is 0, or above the 100 members that Discord returns (GW-211).
    #[error("the limit is {limit}: 1 to {MAX_REQUESTED_MEMBERS} are possible")]
    Limit {
        /// What was given.
        limit: usize,
    },
    /// One that bots do not send, or that the session itself sends.
    #[error("opcode {opcode} is not for commands: presences and the session have ways of their own")]
    ReservedOpcode {
        /// What was given.
        opcode: u8,
    },
    /// The data of a raw payload cannot be encoded.
    #[error("the data does not become a payload: {reason}")]
    Unencodable {
        /// What stands against it.
        reason: String,
    },
    /// It is larger than Discord takes.
    #[error(transparent)]
    TooLarge(#[from] PayloadSizeError),
}

/// An id, as JSON has it.
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
        assert!(large.to_string().ends_with("bytes, at most 4096 are possible"), "{large}");
        let no_json = std::collections::BTreeMap::from([(vec![1], 2)]);
        assert!(matches!(
            Command::raw(ShardId(0), 8, &no_json),
            Err(CommandContentError::Unencodable { .. })
        ));
        let deep = (0..300).fold(serde_json::json!(0), |inner, _| serde_json::json!([inner]));
        assert!(matches!(Command::raw(ShardId(0), 8, &deep), Err(CommandContentError::Unencodable { .. })));
    }
}
