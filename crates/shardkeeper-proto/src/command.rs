//! Commands for a guild: what a bot asks of Discord over a session, checked before it is sent (sections 12 to 14).

use std::collections::VecDeque;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::payload::{self, MAX_PAYLOAD_BYTES, Payload};
use crate::{Opcode, PayloadTooLarge, ShardCount, ShardId};

/// The longest nonce, in bytes: Discord ignores a longer one without a word (GW-214).
pub const MAX_NONCE_BYTES: usize = 32;
/// So many members can be asked for by their ids, and found by a prefix (GW-211).
pub const MAX_REQUESTED_MEMBERS: usize = 100;
/// So many commands of a class may wait for a shard: about two minutes of all that the limit lets pass.
pub const COMMANDS_WAITING: usize = 256;
/// So many guilds fit into one request for sounds, with ids of 20 digits, in either encoding: 23 bytes each as JSON
/// (GW-027), 25 as ETF.
const GUILDS_PER_SOUNDS_REQUEST: usize = 160;

/// A command that was checked, for the shard that owns its guild. Its `Debug` shows the opcode and size alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    payload: Payload,
    guild_id: u64,
    class: CommandClass,
}

/// How urgent a command is. Voice goes before presences, those go before bulk requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommandClass {
    /// Somebody waits for the bot to speak.
    Voice,
    /// Requests for much that comes later.
    Bulk,
}

impl Command {
    fn new(
        opcode: Opcode,
        guild_id: u64,
        class: CommandClass,
        data: &impl Serialize,
    ) -> Result<Self, PayloadTooLarge> {
        let payload = payload::command(opcode, data)?;
        Ok(Self { payload, guild_id, class })
    }

    /// The shard whose session it belongs on (GW-208, GW-215).
    pub fn shard(&self, count: ShardCount) -> ShardId {
        count.owner_of(self.guild_id)
    }

    /// How urgent it is.
    pub fn class(&self) -> CommandClass {
        self.class
    }

    /// What it is.
    pub fn opcode(&self) -> Opcode {
        self.payload.opcode
    }
}

/// A command cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCommand {
    /// The nonce is too long (GW-214).
    #[error("the nonce has {bytes} bytes, at most {MAX_NONCE_BYTES} are possible")]
    NonceTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Too many ids at once (GW-211).
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
    /// A limit that Discord does not take (GW-211).
    #[error("the limit is {limit}: 1 to {MAX_REQUESTED_MEMBERS} are possible")]
    Limit {
        /// What was given.
        limit: usize,
    },
    /// It is larger than Discord takes.
    #[error(transparent)]
    TooLarge(#[from] PayloadTooLarge),
}

/// An id, as JSON has it.
#[derive(Clone, Copy)]
struct Id(u64);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Joins a voice channel, moves to another one, or leaves (GW-059, GW-201).
///
/// The answer is a VOICE_STATE_UPDATE and, when joining, a VOICE_SERVER_UPDATE, in any order (GW-202); from a full
/// channel none at all (GW-205), so wait with a time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoiceStateUpdate {
    /// The guild.
    pub guild_id: u64,
    /// The channel; `None` leaves.
    pub channel_id: Option<u64>,
    /// Whether the bot does not speak.
    pub self_mute: bool,
    /// Whether the bot does not listen.
    pub self_deaf: bool,
}

impl From<VoiceStateUpdate> for Command {
    fn from(update: VoiceStateUpdate) -> Self {
        #[derive(Serialize)]
        struct Data {
            guild_id: Id,
            channel_id: Option<Id>,
            self_mute: bool,
            self_deaf: bool,
        }
        let data = Data {
            guild_id: Id(update.guild_id),
            channel_id: update.channel_id.map(Id),
            self_mute: update.self_mute,
            self_deaf: update.self_deaf,
        };
        Self::new(Opcode::VoiceStateUpdate, update.guild_id, CommandClass::Voice, &data)
            .expect("two ids and two flags are far below the limit")
    }
}

/// Asks for members of a guild (GW-062). They come as GUILD_MEMBERS_CHUNK events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestMembers {
    guild_id: u64,
    whom: Whom,
    presences: bool,
    nonce: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Whom {
    All,
    Prefix { prefix: String, limit: usize },
    Users(Vec<u64>),
}

impl RequestMembers {
    /// Every member. Needs the intent GUILD_MEMBERS (GW-212), and is possible once in 30 s per guild (GW-162).
    pub fn all(guild_id: u64) -> Self {
        Self::whom(guild_id, Whom::All)
    }

    /// The members whose names begin so; at most `limit` of them, which is 1 to 100.
    pub fn prefix(guild_id: u64, prefix: impl Into<String>, limit: usize) -> Self {
        Self::whom(guild_id, Whom::Prefix { prefix: prefix.into(), limit })
    }

    /// These users, as far as they are members: at most 100.
    pub fn users(guild_id: u64, users: impl IntoIterator<Item = u64>) -> Self {
        Self::whom(guild_id, Whom::Users(users.into_iter().collect()))
    }

    fn whom(guild_id: u64, whom: Whom) -> Self {
        Self { guild_id, whom, presences: false, nonce: None }
    }

    /// With their presences. Needs the intent GUILD_PRESENCES (GW-213).
    #[must_use]
    pub fn with_presences(mut self) -> Self {
        self.presences = true;
        self
    }

    /// Comes back in each chunk; at most 32 bytes.
    #[must_use]
    pub fn nonce(mut self, nonce: impl Into<String>) -> Self {
        self.nonce = Some(nonce.into());
        self
    }

    /// The guild.
    pub fn guild_id(&self) -> u64 {
        self.guild_id
    }

    /// Whether it asks for every member.
    pub fn is_for_all(&self) -> bool {
        self.whom == Whom::All
    }

    /// Checks it.
    ///
    /// # Errors
    ///
    /// The first thing that Discord would not take, or would silently ignore.
    pub fn command(&self) -> Result<Command, InvalidCommand> {
        #[derive(Serialize)]
        struct Data<'a> {
            guild_id: Id,
            #[serde(skip_serializing_if = "Option::is_none")]
            query: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            limit: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            user_ids: Option<Vec<Id>>,
            presences: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            nonce: Option<&'a str>,
        }
        if let Some(nonce) = self.nonce.as_ref().filter(|nonce| nonce.len() > MAX_NONCE_BYTES) {
            return Err(InvalidCommand::NonceTooLong { bytes: nonce.len() });
        }
        let mut data = Data {
            guild_id: Id(self.guild_id),
            query: None,
            limit: None,
            user_ids: None,
            presences: self.presences,
            nonce: self.nonce.as_deref(),
        };
        match &self.whom {
            Whom::All => (data.query, data.limit) = (Some(""), Some(0)),
            Whom::Prefix { prefix, .. } if prefix.is_empty() => return Err(InvalidCommand::EmptyPrefix),
            Whom::Prefix { limit, .. } if !(1..=MAX_REQUESTED_MEMBERS).contains(limit) => {
                return Err(InvalidCommand::Limit { limit: *limit });
            }
            Whom::Prefix { prefix, limit } => {
                (data.query, data.limit) = (Some(prefix.as_str()), Some(*limit));
            }
            Whom::Users(users) if users.is_empty() => return Err(InvalidCommand::NoUsers),
            Whom::Users(users) if users.len() > MAX_REQUESTED_MEMBERS => {
                return Err(InvalidCommand::TooManyUsers { count: users.len() });
            }
            Whom::Users(users) => data.user_ids = Some(users.iter().copied().map(Id).collect()),
        }
        Ok(Command::new(Opcode::RequestGuildMembers, self.guild_id, CommandClass::Bulk, &data)?)
    }
}

/// Asks for the sounds of guilds that one shard owns (GW-066): in as many commands as the size of one needs (GW-222).
/// They come as one SOUNDBOARD_SOUNDS event per guild.
pub fn request_soundboard_sounds(guild_ids: &[u64]) -> Vec<Command> {
    #[derive(Serialize)]
    struct Data {
        guild_ids: Vec<Id>,
    }
    let command = |ids: &[u64]| {
        let data = Data { guild_ids: ids.iter().copied().map(Id).collect() };
        Command::new(Opcode::RequestSoundboardSounds, ids[0], CommandClass::Bulk, &data)
            .expect("so many ids fit")
    };
    guild_ids.chunks(GUILDS_PER_SOUNDS_REQUEST).map(command).collect()
}

/// What can be asked of a guild's channels that is no part of them (GW-224).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChannelInfoField {
    /// The status of a voice channel.
    Status,
    /// Since when somebody is in a voice channel.
    VoiceStartTime,
}

/// Asks for these fields of a guild's channels (GW-067). They come as a CHANNEL_INFO event.
pub fn request_channel_info(guild_id: u64, fields: &[ChannelInfoField]) -> Command {
    #[derive(Serialize)]
    struct Data<'a> {
        guild_id: Id,
        fields: &'a [ChannelInfoField],
    }
    let wanted = |field: &ChannelInfoField| fields.contains(field);
    let fields: Vec<ChannelInfoField> =
        [ChannelInfoField::Status, ChannelInfoField::VoiceStartTime].into_iter().filter(wanted).collect();
    let data = Data { guild_id: Id(guild_id), fields: &fields };
    Command::new(Opcode::RequestChannelInfo, guild_id, CommandClass::Bulk, &data).expect("two fields fit")
}

/// The commands that wait for a shard.
#[derive(Debug, Default)]
pub(crate) struct CommandQueue {
    voice: VecDeque<Command>,
    bulk: VecDeque<Command>,
}

impl CommandQueue {
    pub(crate) fn has_room(&self, class: CommandClass) -> bool {
        let waiting = match class {
            CommandClass::Voice => &self.voice,
            CommandClass::Bulk => &self.bulk,
        };
        waiting.len() < COMMANDS_WAITING
    }

    /// Beyond its bound nothing is taken: ask [`has_room`](Self::has_room) first.
    pub(crate) fn push(&mut self, command: Command) {
        if !self.has_room(command.class) {
            return;
        }
        match command.class {
            CommandClass::Voice => self.voice.push_back(command),
            CommandClass::Bulk => self.bulk.push_back(command),
        }
    }

    pub(crate) fn is_waiting(&self, class: CommandClass) -> bool {
        match class {
            CommandClass::Voice => !self.voice.is_empty(),
            CommandClass::Bulk => !self.bulk.is_empty(),
        }
    }

    pub(crate) fn pop(&mut self, class: CommandClass) -> Option<Payload> {
        let command = match class {
            CommandClass::Voice => self.voice.pop_front(),
            CommandClass::Bulk => self.bulk.pop_front(),
        };
        command.map(|command| command.payload)
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

const _: () =
    assert!(MAX_PAYLOAD_BYTES >= GUILDS_PER_SOUNDS_REQUEST * 25 + 64, "every list of guilds has to fit");

#[cfg(test)]
mod tests {
    use super::*;

    fn text(command: &Command) -> &str {
        &command.payload.text
    }

    #[test]
    fn gw_059_201_voice_state_has_all_four_fields() {
        let update = VoiceStateUpdate { guild_id: 7, channel_id: Some(8), self_mute: false, self_deaf: true };
        let join = Command::from(update);
        let expected = r#"{"op":4,"d":{"guild_id":"7","channel_id":"8","self_mute":false,"self_deaf":true}}"#;
        assert_eq!((text(&join), join.class()), (expected, CommandClass::Voice));
        let leave = Command::from(VoiceStateUpdate { channel_id: None, ..update });
        assert!(text(&leave).contains(r#""channel_id":null"#));
    }

    #[test]
    fn gw_062_209_210_members_by_exactly_one_of_query_and_ids() {
        let all = RequestMembers::all(7).nonce("n").command().unwrap();
        let expected = r#"{"op":8,"d":{"guild_id":"7","query":"","limit":0,"presences":false,"nonce":"n"}}"#;
        assert_eq!(text(&all), expected);
        let some = RequestMembers::prefix(7, "ma", 5).with_presences().command().unwrap();
        assert_eq!(text(&some), r#"{"op":8,"d":{"guild_id":"7","query":"ma","limit":5,"presences":true}}"#);
        let users = RequestMembers::users(7, [1, 2]).command().unwrap();
        assert_eq!(text(&users), r#"{"op":8,"d":{"guild_id":"7","user_ids":["1","2"],"presences":false}}"#);
    }

    #[test]
    fn gw_211_214_what_discord_would_ignore_is_refused_here() {
        let nonce = |nonce: &str| RequestMembers::all(7).nonce(nonce).command().map(drop);
        assert_eq!(nonce(&"n".repeat(32)), Ok(()));
        assert_eq!(nonce(&"n".repeat(33)), Err(InvalidCommand::NonceTooLong { bytes: 33 }));
        assert_eq!(nonce(&"ü".repeat(17)), Err(InvalidCommand::NonceTooLong { bytes: 34 }));
        let users = |count: u64| RequestMembers::users(7, 0..count).command().map(drop);
        assert_eq!((users(0), users(100)), (Err(InvalidCommand::NoUsers), Ok(())));
        assert_eq!(users(101), Err(InvalidCommand::TooManyUsers { count: 101 }));
        let prefix = |prefix: &str, limit| RequestMembers::prefix(7, prefix, limit).command().map(drop);
        assert_eq!(prefix("", 5), Err(InvalidCommand::EmptyPrefix));
        assert_eq!(prefix("a", 0), Err(InvalidCommand::Limit { limit: 0 }));
        assert_eq!(prefix("a", 101), Err(InvalidCommand::Limit { limit: 101 }));
        let long = RequestMembers::prefix(7, "a".repeat(5000), 1).command().unwrap_err();
        assert!(matches!(long, InvalidCommand::TooLarge(PayloadTooLarge { limit: 4096, .. })), "{long}");
    }

    #[test]
    fn gw_027_the_largest_requests_fit() {
        let ids = 10_000_000_000_000_000_000_u64..;
        let users = RequestMembers::users(u64::MAX, ids.take(100)).with_presences().nonce("n".repeat(32));
        assert_eq!(text(&users.command().unwrap()).len(), 2421);
    }

    #[test]
    fn gw_066_222_sounds_of_many_guilds_are_asked_for_in_parts() {
        let guilds: Vec<u64> = (0..400).map(|number| u64::MAX - number).collect();
        let commands = request_soundboard_sounds(&guilds);
        assert_eq!(commands.len(), 3);
        assert!(commands.iter().all(|command| text(command).len() <= MAX_PAYLOAD_BYTES));
        assert_eq!(text(&commands[0]).len(), 160 * 23 + 29);
        assert_eq!(text(&request_soundboard_sounds(&[5])[0]), r#"{"op":31,"d":{"guild_ids":["5"]}}"#);
        assert_eq!(request_soundboard_sounds(&[]), []);
    }

    #[test]
    fn gw_067_224_channel_info() {
        use ChannelInfoField::{Status, VoiceStartTime};
        let both = request_channel_info(7, &[VoiceStartTime, Status, Status]);
        assert_eq!(text(&both), r#"{"op":43,"d":{"guild_id":"7","fields":["status","voice_start_time"]}}"#);
    }

    #[test]
    fn gw_208_215_a_command_belongs_on_the_shard_of_its_guild() {
        let count = ShardCount::new(16).unwrap();
        let command = request_channel_info(41_771_983_423_143_937, &[ChannelInfoField::Status]);
        assert_eq!(command.shard(count), ShardId(6));
    }

    #[test]
    fn a_queue_has_a_bound_per_class() {
        let voice = Command::from(VoiceStateUpdate {
            guild_id: 1,
            channel_id: None,
            self_mute: false,
            self_deaf: false,
        });
        let mut queue = CommandQueue::default();
        for _ in 0..COMMANDS_WAITING + 5 {
            queue.push(voice.clone());
        }
        assert!(!queue.has_room(CommandClass::Voice) && queue.has_room(CommandClass::Bulk));
        assert_eq!(std::iter::from_fn(|| queue.pop(CommandClass::Voice)).count(), COMMANDS_WAITING);
        assert!(!queue.is_waiting(CommandClass::Voice));
    }
}
