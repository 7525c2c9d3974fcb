//! Commands for a guild: what a bot asks of Discord over a session, checked before it is sent (sections 12 to 14).

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use crate::payload::{self, MAX_PAYLOAD_BYTES, Payload};
use crate::{Intents, Opcode, PayloadTooLarge, ShardCount, ShardId};

/// The longest nonce, in bytes: Discord ignores a longer one without a word (GW-214).
pub const MAX_NONCE_BYTES: usize = 32;
/// So many members can be asked for by their ids, and found by a prefix (GW-211).
pub const MAX_REQUESTED_MEMBERS: usize = 100;
/// So many guilds fit into one request for sounds, with ids of 20 digits, in either encoding: 23 bytes each as JSON
/// (GW-027), 25 as ETF.
const GUILDS_PER_SOUNDS_REQUEST: usize = 160;

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
    ) -> Result<Self, PayloadTooLarge> {
        let payload = payload::command(opcode, data)?;
        Ok(Self { payload, address: Address::OwnerOf(guild_id), class, needs: Intents::empty() })
    }

    /// Whatever else Discord takes, for one shard: `data` is what the payload has as `d`. It waits with the bulk requests.
    ///
    /// # Errors
    ///
    /// When the opcode is not one for bots to send, or belongs to the session or the presence, which shardkeeper keeps
    /// itself; when `data` does not become JSON, or is larger than Discord takes.
    pub fn raw(shard: ShardId, opcode: u8, data: &impl Serialize) -> Result<Self, InvalidCommand> {
        use Opcode::{RequestChannelInfo, RequestGuildMembers, RequestSoundboardSounds, VoiceStateUpdate};
        let known = Opcode::from_number(opcode.into());
        let sendable = matches!(
            known,
            None | Some(
                VoiceStateUpdate | RequestGuildMembers | RequestSoundboardSounds | RequestChannelInfo
            )
        );
        if !sendable {
            return Err(InvalidCommand::ReservedOpcode { opcode });
        }
        let payload = payload::raw(opcode, data)?;
        Ok(Self {
            payload,
            address: Address::Shard(shard),
            class: CommandClass::Bulk,
            needs: Intents::empty(),
        })
    }

    /// The shard whose session it belongs on (GW-208, GW-215).
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandRefused {
    /// It belongs on another shard's session (GW-208, GW-215).
    #[error("the command belongs on shard {owner}, not on shard {shard}")]
    OtherShard {
        /// The shard that was asked.
        shard: ShardId,
        /// The shard that owns the guild.
        owner: ShardId,
    },
    /// Discord would not answer (GW-212, GW-213).
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

impl VoiceStateUpdate {
    /// Joins a channel, or moves to it, to speak and listen. Without the intent GUILD_VOICE_STATES the bot does not see
    /// its own voice state, and so not the id of its voice session (GW-206).
    pub const fn join(guild_id: u64, channel_id: u64) -> Self {
        Self { guild_id, channel_id: Some(channel_id), self_mute: false, self_deaf: false }
    }

    /// Leaves.
    pub const fn leave(guild_id: u64) -> Self {
        Self { guild_id, channel_id: None, self_mute: false, self_deaf: false }
    }

    /// Does not speak.
    #[must_use]
    pub const fn muted(self) -> Self {
        Self { self_mute: true, ..self }
    }

    /// Does not listen.
    #[must_use]
    pub const fn deafened(self) -> Self {
        Self { self_deaf: true, ..self }
    }
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
        let command = Command::new(Opcode::RequestGuildMembers, self.guild_id, CommandClass::Bulk, &data)?;
        let mut needs = Intents::empty();
        needs.set(Intents::GUILD_MEMBERS, self.is_for_all());
        needs.set(Intents::GUILD_PRESENCES, self.presences);
        Ok(Command { needs, ..command })
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

/// Tells the commands of a shard apart. Whoever feeds the machine numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// The commands that wait for a shard.
#[derive(Debug, Default)]
pub(crate) struct CommandQueue {
    voice: VecDeque<Waiting>,
    bulk: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: CommandId,
    payload: Payload,
    /// `None`: never.
    expires_at: Option<Instant>,
}

impl CommandQueue {
    fn of(&self, class: CommandClass) -> &VecDeque<Waiting> {
        match class {
            CommandClass::Voice => &self.voice,
            CommandClass::Bulk => &self.bulk,
        }
    }

    fn of_mut(&mut self, class: CommandClass) -> &mut VecDeque<Waiting> {
        match class {
            CommandClass::Voice => &mut self.voice,
            CommandClass::Bulk => &mut self.bulk,
        }
    }

    pub(crate) fn has_room(&self, class: CommandClass) -> bool {
        self.of(class).len() < class.capacity()
    }

    pub(crate) fn is_waiting(&self, class: CommandClass) -> bool {
        !self.of(class).is_empty()
    }

    /// The caller has seen that there is room, and gives each command of a class the same time to live.
    pub(crate) fn push(&mut self, now: Instant, id: CommandId, command: Command, lifetime: Duration) {
        let expires_at = now.checked_add(lifetime);
        self.of_mut(command.class).push_back(Waiting { id, payload: command.payload, expires_at });
    }

    pub(crate) fn pop(&mut self, class: CommandClass) -> Option<(CommandId, Payload)> {
        self.of_mut(class).pop_front().map(|waiting| (waiting.id, waiting.payload))
    }

    /// One whose time is over.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<CommandId> {
        let class = CommandClass::ALL
            .into_iter()
            .find(|class| self.expiry_of(*class).is_some_and(|expires_at| expires_at <= now))?;
        self.pop(class).map(|(id, _)| id)
    }

    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        CommandClass::ALL.into_iter().filter_map(|class| self.expiry_of(class)).min()
    }

    fn expiry_of(&self, class: CommandClass) -> Option<Instant> {
        self.of(class).front()?.expires_at
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
    fn a_queue_has_a_bound_and_a_lifetime_per_class() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut queue = CommandQueue::default();
        for number in 0..CommandClass::Voice.capacity() as u64 {
            assert!(queue.has_room(CommandClass::Voice));
            let at = start + second * u32::try_from(number).unwrap();
            queue.push(at, CommandId(number), VoiceStateUpdate::leave(1).into(), second * 60);
        }
        assert!(!queue.has_room(CommandClass::Voice) && queue.has_room(CommandClass::Bulk));
        assert_eq!(queue.next_expiry(), Some(start + second * 60));
        assert_eq!(queue.pop_expired(start + second * 59), None);
        let expired = std::iter::from_fn(|| queue.pop_expired(start + second * 61));
        assert_eq!(expired.collect::<Vec<_>>(), [CommandId(0), CommandId(1)]);
        assert_eq!(queue.pop(CommandClass::Voice).map(|(id, _)| id), Some(CommandId(2)));
        assert!(!queue.is_waiting(CommandClass::Bulk));
    }

    #[test]
    fn gw_212_213_a_request_knows_the_intents_it_needs() {
        let needs = |request: RequestMembers| request.command().unwrap().needs();
        assert_eq!(needs(RequestMembers::all(1)), Intents::GUILD_MEMBERS);
        assert_eq!(needs(RequestMembers::users(1, [2]).with_presences()), Intents::GUILD_PRESENCES);
        assert_eq!(needs(RequestMembers::prefix(1, "a", 5)), Intents::empty());
    }

    #[test]
    fn a_raw_payload_leaves_the_session_alone() {
        let raw = |opcode| Command::raw(ShardId(3), opcode, &serde_json::json!({"a": [1, null]}));
        let command = raw(200).unwrap();
        assert_eq!(text(&command), r#"{"op":200,"d":{"a":[1,null]}}"#);
        assert_eq!(command.shard(ShardCount::new(8).unwrap()), ShardId(3));
        assert_eq!((command.raw_shard(), command.guild_id()), (Some(ShardId(3)), None));
        for opcode in [4, 8, 31, 43, 5] {
            assert!(raw(opcode).is_ok(), "{opcode}");
        }
        for opcode in [0, 1, 2, 3, 6, 7, 9, 10, 11] {
            assert_eq!(raw(opcode), Err(InvalidCommand::ReservedOpcode { opcode }));
        }
        let large = Command::raw(ShardId(0), 8, &"x".repeat(5000)).unwrap_err();
        assert!(large.to_string().ends_with("bytes, at most 4096 are possible"), "{large}");
        let no_json = std::collections::BTreeMap::from([(vec![1], 2)]);
        assert!(matches!(Command::raw(ShardId(0), 8, &no_json), Err(InvalidCommand::Unencodable { .. })));
        let deep = (0..300).fold(serde_json::json!(0), |inner, _| serde_json::json!([inner]));
        assert!(matches!(Command::raw(ShardId(0), 8, &deep), Err(InvalidCommand::Unencodable { .. })));
    }
}
