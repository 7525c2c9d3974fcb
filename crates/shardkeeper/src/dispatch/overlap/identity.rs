//! Which dispatches two sessions have in common, and how to recognise one of them in the other session.
//!
//! Input: an envelope. Output: its [`Kind`]: bound to its session, or an event of a stream with a
//! fingerprint.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use serde::Deserialize;
use shardkeeper_proto::{Envelope, EventName, Intents, ShardId};

/// Streams that have an order of their own. Discord sends the events of one guild in one order to every
/// session; events of different guilds may come in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum StreamKey {
    Guild(u64),
    /// The events of a shard that belong to no guild, such as direct messages (only on shard 0, GW-228). The
    /// old and the new shard with the same id are compared.
    Shard(ShardId),
}

/// What an event is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Print {
    pub(super) hash: u64,
    /// Whether no second event can have this fingerprint.
    pub(super) unique: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Concerns only the session that received it, such as an answer to a request of that session.
    Session,
    Ready,
    Resumed,
    /// An event that every session of the guild receives, if its intents allow.
    Shared(Event),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) stream: StreamKey,
    pub(super) print: Print,
    /// For a GUILD_CREATE, and for a GUILD_DELETE: what may be part of the guilds' arrival after READY.
    pub(super) arrival: Option<Arrival>,
    /// Whether both sessions receive the event with their intents.
    pub(super) common: bool,
}

/// A GUILD_CREATE or GUILD_DELETE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// `marked`: whether the field `unavailable` is there. After READY it usually is, on a join it is not
    /// (GW-252).
    Create { marked: bool },
    /// GUILD_DELETE of a guild in an outage (GW-251).
    Outage,
}

/// Makes fingerprints. The hash is keyed at random, so that nobody can write events that are taken for each
/// other; with 64 bits, an accidental match is less likely than one in 10¹³ for a whole reshard.
#[derive(Debug, Default)]
pub(super) struct Prints {
    key: RandomState,
    old: Intents,
    new: Intents,
}

impl Prints {
    pub(super) fn new(old: Intents, new: Intents) -> Self {
        Self { key: RandomState::new(), old, new }
    }

    pub(super) fn new_side_has(&self, intents: Intents) -> bool {
        self.new.contains(intents)
    }

    /// Takes one pass over the data for the ids, and another for the hash.
    pub(super) fn kind_of(&self, shard: ShardId, envelope: &Envelope<'_>) -> Kind {
        let event = envelope.event_name();
        match event {
            Some(EventName::Ready) => return Kind::Ready,
            Some(EventName::Resumed) => return Kind::Resumed,
            Some(event) if is_of_session(event) => return Kind::Session,
            _ => {}
        }
        let ids: Ids = serde_json::from_slice(envelope.data).unwrap_or_default();
        let guild = match event {
            Some(EventName::GuildCreate | EventName::GuildUpdate | EventName::GuildDelete) => ids.id.number(),
            _ => ids.guild_id.number(),
        };
        let own_id = event.filter(|event| is_once_per_id(*event)).and_then(|_| ids.id.number());
        let mut hasher = self.key.build_hasher();
        envelope.event.hash(&mut hasher);
        let outage = ids.unavailable == Some(true);
        match (event, own_id) {
            // Their content depends on the session: `large_threshold` and the intents decide how much of the
            // guild is in it.
            (Some(EventName::GuildCreate | EventName::GuildDelete), _) => (guild, outage).hash(&mut hasher),
            (_, Some(id)) => id.hash(&mut hasher),
            (_, None) => envelope.data.hash(&mut hasher),
        }
        let print = Print { hash: hasher.finish(), unique: own_id.is_some() };
        let arrival = match event {
            Some(EventName::GuildCreate) => Some(Arrival::Create { marked: ids.unavailable.is_some() }),
            Some(EventName::GuildDelete) if outage => Some(Arrival::Outage),
            _ => None,
        };
        let stream = guild.map_or(StreamKey::Shard(shard), StreamKey::Guild);
        let common = event.is_none_or(|event| self.reaches_both(event, guild.is_some()));
        Kind::Shared(Event { stream, print, arrival, common })
    }

    fn reaches_both(&self, event: EventName, of_guild: bool) -> bool {
        let (direct, needed) = (Intents::DIRECT_MESSAGES, event.intents());
        let direct = direct | Intents::DIRECT_MESSAGE_REACTIONS;
        let direct = direct | Intents::DIRECT_MESSAGE_TYPING | Intents::DIRECT_MESSAGE_POLLS;
        let needed = match needed.intersection(direct) {
            // An event with both kinds of intents comes of guilds with the one, of direct messages with the
            // other.
            some if !some.is_empty() && !of_guild => some,
            _ => needed.difference(direct),
        };
        needed.is_empty() || needed.intersects(self.old) && needed.intersects(self.new)
    }
}

fn is_of_session(event: EventName) -> bool {
    use EventName::{ChannelInfo, GuildMembersChunk, RateLimited, SoundboardSounds, VoiceServerUpdate};
    matches!(event, RateLimited | GuildMembersChunk | SoundboardSounds | ChannelInfo | VoiceServerUpdate)
}

/// Events that come once for each `id` in their data, since they report that the thing was made or that it is
/// gone for good. They are recognised by name and id, whatever else the two sessions write.
///
/// Not in the list, because the same data may come again: every `…_UPDATE`, presences, voice states,
/// reactions, TYPING_START (its time has seconds, and a bot may type twice in one), THREAD_CREATE (comes again
/// when the bot is added to the thread), CHANNEL_CREATE and the members' events.
fn is_once_per_id(event: EventName) -> bool {
    use EventName::{
        AutoModerationRuleCreate, AutoModerationRuleDelete, ChannelDelete, EntitlementCreate,
        GuildAuditLogEntryCreate, GuildScheduledEventCreate, GuildScheduledEventDelete, InteractionCreate,
        MessageCreate, MessageDelete, StageInstanceCreate, StageInstanceDelete, ThreadDelete,
    };
    matches!(
        event,
        AutoModerationRuleCreate
            | AutoModerationRuleDelete
            | ChannelDelete
            | EntitlementCreate
            | GuildAuditLogEntryCreate
            | GuildScheduledEventCreate
            | GuildScheduledEventDelete
            | InteractionCreate
            | MessageCreate
            | MessageDelete
            | StageInstanceCreate
            | StageInstanceDelete
            | ThreadDelete
    )
}

#[derive(Default, Deserialize)]
struct Ids {
    #[serde(default)]
    id: Id,
    #[serde(default)]
    guild_id: Id,
    #[serde(default)]
    unavailable: Option<bool>,
}

/// An id as text or number, or anything else, which is no id.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
    #[default]
    #[serde(skip)]
    None,
    Other(serde::de::IgnoredAny),
}

impl Id {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            Self::None | Self::Other(_) => None,
        }
    }
}

/// The ids of the guilds that a READY lists, up to `limit`.
pub(super) fn guilds_of_ready(data: &[u8], limit: usize) -> Vec<u64> {
    #[derive(Deserialize)]
    struct Guild {
        #[serde(default)]
        id: Id,
    }
    #[derive(Deserialize)]
    struct Ready {
        #[serde(default)]
        guilds: Vec<Guild>,
    }
    let guilds = serde_json::from_slice::<Ready>(data).map_or_else(|_| Vec::new(), |ready| ready.guilds);
    guilds.iter().take(limit).filter_map(|guild| guild.id.number()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(prints: &Prints, name: &str, data: &str) -> Kind {
        let text = format!(r#"{{"t":"{name}","s":1,"op":0,"d":{data}}}"#);
        prints.kind_of(ShardId(3), &Envelope::split(text.as_bytes()).unwrap())
    }

    fn event(prints: &Prints, name: &str, data: &str) -> Event {
        let Kind::Shared(event) = kind(prints, name, data) else { panic!("{name} is of a session") };
        event
    }

    #[test]
    fn a_message_is_recognised_by_its_id_and_a_presence_by_all_of_it() {
        let prints = Prints::default();
        let print = |name: &str, data: &str| event(&prints, name, data).print;
        let message = print("MESSAGE_CREATE", r#"{"id":"5","guild_id":"7","content":"a"}"#);
        assert_eq!(message, print("MESSAGE_CREATE", r#"{"content":"b","guild_id":"7","id":"5"}"#));
        assert_ne!(message, print("MESSAGE_CREATE", r#"{"id":"6","guild_id":"7","content":"a"}"#));
        assert_ne!(message.hash, print("MESSAGE_DELETE", r#"{"id":"5","guild_id":"7","content":"a"}"#).hash);
        assert!(message.unique && !print("MESSAGE_CREATE", r#"{"guild_id":"7"}"#).unique);
        let presence = print("PRESENCE_UPDATE", r#"{"guild_id":"7","status":"idle"}"#);
        assert!(!presence.unique);
        assert_ne!(presence, print("PRESENCE_UPDATE", r#"{"guild_id":"7","status":"online"}"#));
        // GUILD_CREATE of one guild is the same however much of the guild each session gets.
        let join = print("GUILD_CREATE", r#"{"id":"7","members":[1]}"#);
        assert_eq!(join, print("GUILD_CREATE", r#"{"id":"7","members":[]}"#));
        assert_ne!(join, print("GUILD_CREATE", r#"{"id":"7","unavailable":true}"#));
    }

    #[test]
    fn streams_are_guilds_and_what_belongs_to_none_goes_by_the_shard() {
        let prints = Prints::default();
        let stream = |name: &str, data: &str| event(&prints, name, data).stream;
        assert_eq!(stream("TYPING_START", r#"{"guild_id":7}"#), StreamKey::Guild(7));
        assert_eq!(stream("GUILD_DELETE", r#"{"id":"7"}"#), StreamKey::Guild(7));
        for data in ["{}", "null", "[]", r#"{"guild_id":null}"#, r#"{"guild_id":{"x":1}}"#] {
            assert_eq!(stream("TYPING_START", data), StreamKey::Shard(ShardId(3)), "{data}");
        }
        for name in ["GUILD_MEMBERS_CHUNK", "VOICE_SERVER_UPDATE", "RATE_LIMITED", "CHANNEL_INFO"] {
            assert_eq!(kind(&prints, name, r#"{"guild_id":"7"}"#), Kind::Session, "{name}");
        }
    }

    #[test]
    fn an_event_that_only_one_side_has_an_intent_for_is_not_compared() {
        let direct = Intents::DIRECT_MESSAGES;
        let prints = Prints::new(direct, direct | Intents::GUILD_MESSAGES | Intents::GUILDS);
        let common = |name: &str, data: &str| event(&prints, name, data).common;
        assert!(common("MESSAGE_CREATE", r#"{"id":"1"}"#) && common("INTERACTION_CREATE", r#"{"id":"1"}"#));
        assert!(!common("MESSAGE_CREATE", r#"{"id":"1","guild_id":"2"}"#));
        assert!(!common("CHANNEL_UPDATE", r#"{"id":"1","guild_id":"2"}"#));
        assert!(common("SOMETHING_NEW", "{}"));
    }

    #[test]
    fn ready_lists_guilds_however_their_ids_are_written() {
        assert_eq!(guilds_of_ready(br#"{"guilds":[{"id":"1"},{"id":2},{},{"id":"x"}]}"#, 9), [1, 2]);
        assert_eq!(guilds_of_ready(br#"{"guilds":[{"id":"1"},{"id":"2"}]}"#, 1), [1]);
        assert!(guilds_of_ready(b"[]", 9).is_empty());
    }
}
