//! Selection of the events that a subscriber wants.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shardkeeper_proto::{Envelope, EventGroup, EventName, EventSet, Intents, ShardId};

/// A filter function of the bot, which runs in a shard's task.
struct Predicate {
    holds: Box<dyn Fn(&Envelope<'_>) -> bool + Send + Sync>,
    panicked: AtomicBool,
}

impl Predicate {
    /// Whether the filter accepts the dispatch. After a panic the filter is not called again and accepts
    /// everything: too much is better than too little.
    fn holds(&self, envelope: &Envelope<'_>) -> bool {
        if self.panicked.load(Ordering::Relaxed) {
            return true;
        }
        panic::catch_unwind(AssertUnwindSafe(|| (self.holds)(envelope))).unwrap_or_else(|_| {
            self.panicked.store(true, Ordering::Relaxed);
            tracing::error!("the predicate of a topic panicked: from now on every event passes it");
            true
        })
    }
}

/// A set of dispatch events, of all or of some shards or guilds, with or without lifecycle changes.
///
/// Events that no topic wants are not copied from the wire. A selection by shard costs nothing per event. A
/// selection by guild costs a pass over the data of each event in the set. A predicate costs its own run
/// time, in the shard's task.
#[derive(Clone)]
pub struct Topic {
    events: EventSet,
    /// Events that the bot named one by one, and therefore relies on.
    named: EventSet,
    lifecycle: bool,
    warming: bool,
    shards: Option<Arc<[ShardId]>>,
    guilds: Option<Arc<BTreeSet<u64>>>,
    predicate: Option<Arc<Predicate>>,
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic")
            .field("events", &self.events)
            .field("lifecycle", &self.lifecycle)
            .field("warming", &self.warming)
            .field("shards", &self.shards)
            .field("guilds", &self.guilds)
            .field("predicate", &self.predicate.is_some())
            .finish()
    }
}

impl Topic {
    fn of(events: EventSet) -> Self {
        let (named, lifecycle, warming) = (EventSet::EMPTY, false, false);
        Self { events, named, lifecycle, warming, shards: None, guilds: None, predicate: None }
    }

    /// Every dispatch, including names that this library does not know.
    pub fn all() -> Self {
        Self::of(EventSet::ALL)
    }

    /// Exactly these events.
    pub fn events(events: impl IntoIterator<Item = EventName>) -> Self {
        let events = EventSet::of(events);
        Self { named: events, ..Self::of(events) }
    }

    /// All events of these groups.
    pub fn groups(groups: impl IntoIterator<Item = EventGroup>) -> Self {
        Self::of(EventSet::of_groups(&groups.into_iter().collect::<Vec<_>>()))
    }

    /// The events that any of these intents enables. Events that need no intent, such as INTERACTION_CREATE,
    /// are not included.
    pub fn intents(intents: Intents) -> Self {
        Self::of(EventSet::of_intents(intents))
    }

    /// All lifecycle changes of the shards and the bot, and no dispatches. A subscription to this topic never
    /// holds up a shard: instead of [`Overflow::Wait`](crate::Overflow::Wait) it drops the oldest changes
    /// when it is full.
    pub fn lifecycle() -> Self {
        Self { lifecycle: true, ..Self::of(EventSet::EMPTY) }
    }

    /// Adds the events of another topic. The other topic's selection of shards, guilds or predicate is
    /// ignored.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.events = self.events.union(other.events);
        self.named = self.named.union(other.named);
        self.lifecycle |= other.lifecycle;
        self.warming |= other.warming;
        self
    }

    /// Adds lifecycle changes, in order with the dispatches of their shard.
    #[must_use]
    pub fn with_lifecycle(mut self) -> Self {
        self.lifecycle = true;
        self
    }

    /// Adds the initial load of the new shards during a reshard: their READY, and the GUILD_CREATE of each
    /// guild, as far as the topic has these events.
    ///
    /// The load is marked ([`Dispatch::is_warming`](crate::Dispatch::is_warming)) and comes before the new
    /// shards deliver anything else, while the old shards still deliver the events of the same guilds. It
    /// brings nothing that a bot does not know already, so by default it is left out. Use it for a cache that
    /// is kept for each generation. No acknowledgement is owed for it.
    #[must_use]
    pub fn with_warming(mut self) -> Self {
        self.warming = true;
        self
    }

    /// Limits the topic to these shards. Lifecycle changes that concern the whole bot are still delivered.
    #[must_use]
    pub fn of_shards(mut self, shards: impl IntoIterator<Item = impl Into<ShardId>>) -> Self {
        self.shards = Some(shards.into_iter().map(Into::into).collect());
        self
    }

    /// Limits dispatches to these guilds. Dispatches that belong to no guild are not delivered.
    #[must_use]
    pub fn of_guilds(mut self, guilds: impl IntoIterator<Item = u64>) -> Self {
        self.guilds = Some(Arc::new(guilds.into_iter().collect()));
        self
    }

    /// Limits dispatches to those for which the predicate returns `true`.
    ///
    /// The predicate runs for each dispatch that passes the other limits, in the shard's own task, so it must
    /// not wait. When it panics, the panic is logged once, and from then on every dispatch passes.
    #[must_use]
    pub fn matching(mut self, predicate: impl Fn(&Envelope<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.predicate =
            Some(Arc::new(Predicate { holds: Box::new(predicate), panicked: AtomicBool::new(false) }));
        self
    }

    /// Returns the events that never come with these intents: those that were named one by one, or all of
    /// them when no event of the topic can come. A group or `all` of which only a part can come is not a
    /// mistake.
    pub(super) fn awaited_in_vain(&self, intents: Intents) -> Vec<EventName> {
        let lost = self.events.unreachable_with(intents);
        let is_all =
            !self.events.contains(None) && self.events.known().all(|event| lost.contains(Some(event)));
        lost.known().filter(|event| is_all || self.named.contains(Some(*event))).collect()
    }

    /// The dispatch events wanted of this shard, as far as the name decides.
    pub(super) fn events_of(&self, shard: ShardId) -> EventSet {
        if self.covers(Some(shard)) { self.events } else { EventSet::EMPTY }
    }

    /// Whether the topic has the load of new shards.
    pub(super) fn wants_warming(&self) -> bool {
        self.warming
    }

    /// Whether the topic contains any dispatch.
    pub(super) fn brings_dispatches(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether a dispatch with a wanted name is also wanted by its content.
    pub(super) fn admits(&self, candidate: &mut Candidate<'_>) -> bool {
        let of_guild = self.guilds.as_ref().is_none_or(|guilds| {
            let guild = candidate.guild_id();
            guild.is_some_and(|guild| guilds.contains(&guild))
        });
        of_guild && self.predicate.as_ref().is_none_or(|predicate| predicate.holds(candidate.envelope))
    }

    /// Whether a lifecycle change of this shard, or of the whole bot, is wanted.
    pub(super) fn wants_lifecycle(&self, shard: Option<ShardId>) -> bool {
        self.lifecycle && self.covers(shard)
    }

    fn covers(&self, shard: Option<ShardId>) -> bool {
        match (&self.shards, shard) {
            (Some(shards), Some(shard)) => shards.contains(&shard),
            _ => true,
        }
    }
}

/// A dispatch that a subscriber may want. Facts that several topics need are computed once.
pub(super) struct Candidate<'a> {
    envelope: &'a Envelope<'a>,
    guild_id: Option<Option<u64>>,
}

impl<'a> Candidate<'a> {
    pub(super) fn new(envelope: &'a Envelope<'a>) -> Self {
        Self { envelope, guild_id: None }
    }

    fn guild_id(&mut self) -> Option<u64> {
        *self.guild_id.get_or_insert_with(|| self.envelope.guild_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_narrow_to_shards() {
        let topic = Topic::events([EventName::Ready]).with_lifecycle().of_shards([ShardId(1)]);
        assert!(topic.events_of(ShardId(1)).contains(Some(EventName::Ready)));
        assert!(!topic.events_of(ShardId(1)).contains(Some(EventName::Resumed)));
        assert!(topic.events_of(ShardId(2)).is_empty());
        assert!(topic.wants_lifecycle(None) && topic.wants_lifecycle(Some(ShardId(1))));
        assert!(!topic.wants_lifecycle(Some(ShardId(2))));
        assert!(Topic::all().events_of(ShardId(7)).contains(None));
    }

    #[test]
    fn topics_are_made_of_groups_and_intents_and_each_other() {
        let topic = Topic::groups([EventGroup::Members]).and(Topic::intents(Intents::GUILD_VOICE_STATES));
        let events = topic.events_of(ShardId(0));
        assert!(events.contains(Some(EventName::GuildMemberAdd)));
        assert!(events.contains(Some(EventName::VoiceStateUpdate)));
        assert!(!events.contains(Some(EventName::VoiceServerUpdate)));
    }

    #[test]
    fn gw_180_events_that_the_intents_cannot_bring_are_awaited_in_vain() {
        use EventName::{GuildMemberAdd, InteractionCreate, MessageCreate, Ready};
        let with = |topic: Topic| topic.awaited_in_vain(Intents::GUILDS | Intents::DIRECT_MESSAGES);
        assert_eq!(with(Topic::events([Ready, InteractionCreate, MessageCreate])), []);
        assert_eq!(with(Topic::events([MessageCreate, GuildMemberAdd])), [GuildMemberAdd]);
        // A group, or everything, of which only a part can come is accepted.
        assert_eq!(with(Topic::groups([EventGroup::Members, EventGroup::Messages]).and(Topic::all())), []);
        assert_eq!(with(Topic::lifecycle()), []);
        assert_eq!(with(Topic::groups([EventGroup::Voice])), []);
        assert_eq!(with(Topic::intents(Intents::GUILD_INVITES)).len(), 2);
        assert_eq!(with(Topic::all().and(Topic::events([GuildMemberAdd]))), [GuildMemberAdd]);
    }

    #[test]
    fn topics_narrow_to_guilds_and_by_predicate() {
        let payload = br#"{"t":"TYPING_START","s":1,"op":0,"d":{"guild_id":"7","user_id":"3"}}"#;
        let envelope = Envelope::split(payload).expect("the payload is an envelope");
        let admits = |topic: Topic| topic.admits(&mut Candidate::new(&envelope));
        assert!(admits(Topic::all()) && admits(Topic::all().of_guilds([6, 7])));
        assert!(!admits(Topic::all().of_guilds([6])));
        let short = |envelope: &Envelope<'_>| envelope.data.len() < 10;
        assert!(!admits(Topic::all().of_guilds([7]).matching(short)));
        assert!(admits(Topic::all().matching(move |envelope| !short(envelope))));
    }

    #[test]
    fn a_predicate_that_panics_is_not_asked_again_and_lets_everything_come() {
        let envelope =
            Envelope::split(br#"{"t":"X","s":1,"op":0,"d":{}}"#).expect("the payload is an envelope");
        let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let topic = Topic::all().matching(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            panic!("the bot's own fault")
        });
        for _ in 0..3 {
            assert!(topic.admits(&mut Candidate::new(&envelope)));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
