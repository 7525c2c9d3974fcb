//! What a subscriber wants to hear.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shardkeeper_proto::{Envelope, EventGroup, EventName, EventSet, Intents, ShardId};

/// The bot's own code, at work in a shard's task.
struct Predicate {
    holds: Box<dyn Fn(&Envelope<'_>) -> bool + Send + Sync>,
    panicked: AtomicBool,
}

impl Predicate {
    /// One that panicked is not asked again, and holds: rather too much than too little.
    fn holds(&self, envelope: &Envelope<'_>) -> bool {
        if self.panicked.load(Ordering::Relaxed) {
            return true;
        }
        panic::catch_unwind(AssertUnwindSafe(|| (self.holds)(envelope))).unwrap_or_else(|_| {
            self.panicked.store(true, Ordering::Relaxed);
            tracing::error!(
                "the predicate of a topic panicked: from now on everything comes that it would have judged"
            );
            true
        })
    }
}

/// A set of dispatch events, of everything or of some shards or guilds; and whether lifecycle changes are wanted.
///
/// What no topic wants is not copied from the wire. A choice by shard costs nothing per event; one by guild costs a pass
/// over the data of each event of its set, and one by predicate whatever the predicate does, in the shard's own task.
#[derive(Clone)]
pub struct Topic {
    events: EventSet,
    /// Those of them that the bot named one by one, and so counts on.
    named: EventSet,
    lifecycle: bool,
    shards: Option<Arc<[ShardId]>>,
    guilds: Option<Arc<BTreeSet<u64>>>,
    predicate: Option<Arc<Predicate>>,
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic")
            .field("events", &self.events)
            .field("lifecycle", &self.lifecycle)
            .field("shards", &self.shards)
            .field("guilds", &self.guilds)
            .field("predicate", &self.predicate.is_some())
            .finish()
    }
}

impl Topic {
    fn of(events: EventSet) -> Self {
        Self { events, named: EventSet::EMPTY, lifecycle: false, shards: None, guilds: None, predicate: None }
    }

    /// Every dispatch, also those whose names nobody knows yet.
    pub fn all() -> Self {
        Self::of(EventSet::ALL)
    }

    /// These events.
    pub fn events(events: impl IntoIterator<Item = EventName>) -> Self {
        let events = EventSet::of(events);
        Self { named: events, ..Self::of(events) }
    }

    /// The events of these parts of the protocol.
    pub fn groups(groups: impl IntoIterator<Item = EventGroup>) -> Self {
        Self::of(EventSet::of_groups(&groups.into_iter().collect::<Vec<_>>()))
    }

    /// The events that any of these intents brings. Those that need none, such as INTERACTION_CREATE, are not among them.
    pub fn intents(intents: Intents) -> Self {
        Self::of(EventSet::of_intents(intents))
    }

    /// No dispatches, but everything that happens to the shards and the bot. A subscription to this alone never holds a shard
    /// up: instead of [`Overflow::Wait`](crate::Overflow::Wait) it drops the oldest changes when it is full.
    pub fn lifecycle() -> Self {
        Self { lifecycle: true, ..Self::of(EventSet::EMPTY) }
    }

    /// What the other topic has, too. Its choice of shards, guilds or predicate is not taken over.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.events = self.events.union(other.events);
        self.named = self.named.union(other.named);
        self.lifecycle |= other.lifecycle;
        self
    }

    /// Lifecycle changes too, in order with the dispatches of their shard.
    #[must_use]
    pub fn with_lifecycle(mut self) -> Self {
        self.lifecycle = true;
        self
    }

    /// Of these shards only. Lifecycle changes that concern the whole bot come all the same.
    #[must_use]
    pub fn of_shards(mut self, shards: impl IntoIterator<Item = impl Into<ShardId>>) -> Self {
        self.shards = Some(shards.into_iter().map(Into::into).collect());
        self
    }

    /// Dispatches of these guilds only; those that belong to no guild do not come.
    #[must_use]
    pub fn of_guilds(mut self, guilds: impl IntoIterator<Item = u64>) -> Self {
        self.guilds = Some(Arc::new(guilds.into_iter().collect()));
        self
    }

    /// Only the dispatches that the predicate holds for. It runs for each dispatch that is wanted otherwise, in the
    /// shard's own task, so it must not wait. When it panics, the log says so once, and from then on everything comes.
    #[must_use]
    pub fn matching(mut self, predicate: impl Fn(&Envelope<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.predicate =
            Some(Arc::new(Predicate { holds: Box::new(predicate), panicked: AtomicBool::new(false) }));
        self
    }

    /// The events that a bot with these intents waits for in vain: those that were named one by one; or all of them, when
    /// none of the topic can come. A group or `all` in which some do not come is no mistake.
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

    /// Whether it wants any dispatch at all.
    pub(super) fn brings_dispatches(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether a dispatch of a wanted name is wanted by its content.
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

/// A dispatch that somebody may want. What several topics ask of it is found once.
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
        // Some of a group, or of everything, come without the rest.
        assert_eq!(with(Topic::groups([EventGroup::Members, EventGroup::Messages]).and(Topic::all())), []);
        assert_eq!(with(Topic::lifecycle()), []);
        assert_eq!(with(Topic::groups([EventGroup::Voice])), []);
        assert_eq!(with(Topic::intents(Intents::GUILD_INVITES)).len(), 2);
        assert_eq!(with(Topic::all().and(Topic::events([GuildMemberAdd]))), [GuildMemberAdd]);
    }

    #[test]
    fn topics_narrow_to_guilds_and_by_predicate() {
        let payload = br#"{"t":"TYPING_START","s":1,"op":0,"d":{"guild_id":"7","user_id":"3"}}"#;
        let envelope = Envelope::split(payload).expect("it is one");
        let admits = |topic: Topic| topic.admits(&mut Candidate::new(&envelope));
        assert!(admits(Topic::all()) && admits(Topic::all().of_guilds([6, 7])));
        assert!(!admits(Topic::all().of_guilds([6])));
        let short = |envelope: &Envelope<'_>| envelope.data.len() < 10;
        assert!(!admits(Topic::all().of_guilds([7]).matching(short)));
        assert!(admits(Topic::all().matching(move |envelope| !short(envelope))));
    }

    #[test]
    fn a_predicate_that_panics_is_not_asked_again_and_lets_everything_come() {
        let envelope = Envelope::split(br#"{"t":"X","s":1,"op":0,"d":{}}"#).expect("it is one");
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
