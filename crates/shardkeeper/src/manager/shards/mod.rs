//! The manager's table of shards: what each shard is, and what survives its actor.

mod commands;
mod entry;
mod generations;
mod life;
mod overlaps;
mod removal;
mod spawn;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ractor::ActorRef;
use shardkeeper_proto::{Intents, PresenceUpdate, Session, ShardCount, ShardId};
use shardkeeper_transport::Connector;
use url::Url;

use self::commands::HandOver;
use self::entry::Entry;
use self::removal::Removal;
use super::config::Config;
use super::first_layout::FirstLayout;
use super::restart::CrashHistory;
use super::resumable::Resumable;
use super::silence::Reading;
use crate::command::Calls;
use crate::dispatch::{Found, Hub};
use crate::error::{CommandError, ShardChangeError};
use crate::layout::{Layouts, ShardKey};
use crate::message::{Incarnation, ShardMessage, ShutdownMode};
use crate::session::{SessionTable, Writer};
use crate::shard::{Oddities, Pacer, Warnings};
use crate::status::ShardStatus;
use crate::store::LayoutRecord;

pub(super) struct Shards {
    config: Arc<Config>,
    hub: Arc<Hub>,
    gateway_url: Url,
    layouts: Layouts,
    /// What each generation asks Discord for, if a reshard changed it.
    intents: BTreeMap<u32, Intents>,
    connector: Connector,
    pacer: Arc<Pacer>,
    warnings: Arc<Warnings>,
    oddities: Arc<Oddities>,
    calls: Arc<Calls>,
    restarts: CrashHistory<ShardKey>,
    /// Shared with the session keeper.
    table: Arc<Mutex<SessionTable>>,
    entries: BTreeMap<ShardKey, Entry>,
    /// The hand-overs of commands that go on, at most one for each group.
    hand_overs: Vec<HandOver>,
    /// Open removals. Each shard is in one of them at most.
    removals: Vec<Removal>,
    last_removal: u64,
    /// The right to write of each shard that is or was here. A shard that is added again waits for a driver
    /// of its earlier time that still runs, since otherwise two drivers would use the same session.
    writers: BTreeMap<ShardKey, Writer>,
    /// Counted over all shards, so that a shard that was removed and added again has an incarnation of its
    /// own.
    last_incarnation: Incarnation,
}

fn end_message(mode: ShutdownMode) -> ShardMessage {
    match mode {
        ShutdownMode::Stop => ShardMessage::Stop,
        ShutdownMode::Detach => ShardMessage::Detach,
    }
}

impl Shards {
    pub(super) fn new(
        (config, hub): (Arc<Config>, Arc<Hub>),
        gateway_url: Url,
        (layouts, intents): (Layouts, BTreeMap<u32, Intents>),
        table: Arc<Mutex<SessionTable>>,
    ) -> Self {
        let rate = NonZeroU32::new(config.settings.connects_per_second).unwrap_or(NonZeroU32::MIN);
        Self {
            entries: BTreeMap::new(),
            hand_overs: Vec::new(),
            removals: Vec::new(),
            last_removal: 0,
            writers: BTreeMap::new(),
            last_incarnation: 0,
            connector: Connector::new(Arc::clone(&config.settings.dialer), config.settings.transport()),
            pacer: Arc::new(Pacer::new(rate)),
            warnings: Arc::new(Warnings::new()),
            oddities: Arc::default(),
            calls: Arc::default(),
            hub,
            restarts: CrashHistory::new(config.settings.restart_policy),
            config,
            gateway_url,
            layouts,
            intents,
            table,
        }
    }

    /// Adds the shards of a start with their sessions, without starting them.
    pub(super) fn add_first(
        &mut self,
        first: &FirstLayout,
        sessions: &mut Resumable,
        presence: Option<&PresenceUpdate>,
    ) {
        for &shard in &first.active {
            let session = sessions.take(shard, self.count_of(shard), true);
            self.insert(shard, session, presence);
        }
        for &shard in &first.warming {
            let session = sessions.take(shard, self.count_of(shard), false);
            self.insert(shard, session, presence);
            if let Some(entry) = self.entries.get(&shard) {
                entry.cell.hold();
            }
        }
    }

    /// Adds shards of this layout, without starting them: all of them, or none. Returns each of them once.
    pub(super) fn add(
        &mut self,
        ids: &[ShardId],
        sessions: Vec<Session>,
        presence: Option<&PresenceUpdate>,
    ) -> Result<BTreeSet<ShardKey>, ShardChangeError> {
        let mut new: BTreeMap<ShardKey, Option<Session>> = BTreeMap::new();
        for &shard in ids {
            let key = self.active(shard);
            if self.layouts.layout_with(key).is_none() {
                return Err(ShardChangeError::NotInLayout { shard, count: self.layouts.current.count });
            }
            if self.is_leaving(key) {
                return Err(ShardChangeError::Leaving { shard });
            }
            if self.entries.contains_key(&key) {
                return Err(ShardChangeError::AlreadyHere { shard });
            }
            new.insert(key, None);
        }
        for session in sessions {
            let shard = session.shard;
            let key = self.active(shard);
            session
                .check(&self.shard_config(key))
                .map_err(|source| ShardChangeError::Session { shard, source })?;
            *new.get_mut(&key).ok_or(ShardChangeError::UnwantedSession { shard })? = Some(session);
        }
        let added = new.keys().copied().collect();
        for (shard, session) in new {
            self.insert(shard, session, presence);
        }
        Ok(added)
    }

    fn insert(&mut self, shard: ShardKey, session: Option<Session>, presence: Option<&PresenceUpdate>) {
        let writer = Arc::clone(self.writers.entry(shard).or_default());
        let (count, role) = (self.count_of(shard), self.layouts.role(shard));
        let entry = Entry::new((shard, count, role), (session, writer), presence.cloned());
        self.table().slots.insert(shard, Arc::clone(&entry.cell));
        self.entries.insert(shard, entry);
    }

    fn table(&self) -> MutexGuard<'_, SessionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the address that new connections go to.
    pub(super) fn set_gateway_url(&mut self, url: &Url) {
        if self.gateway_url != *url {
            self.gateway_url = url.clone();
            self.for_each_actor(|actor| drop(actor.cast(ShardMessage::GatewayUrl(url.clone()))));
        }
    }

    pub(super) fn actor(&self, shard: ShardKey) -> Option<ActorRef<ShardMessage>> {
        self.entries.get(&shard)?.stage.actor().cloned()
    }

    pub(super) fn for_each_actor(&self, each: impl FnMut(&ActorRef<ShardMessage>)) {
        self.entries.values().filter_map(|entry| entry.stage.actor()).for_each(each);
    }

    /// Sets the presence of these shards: all of them, or none. A shard without an actor sends it after its
    /// restart.
    pub(super) fn update_presence(
        &mut self,
        shards: &[ShardId],
        presence: &PresenceUpdate,
    ) -> Result<(), CommandError> {
        for &shard in shards {
            let key = self.active(shard);
            if !self.entries.contains_key(&key) || self.is_leaving(key) {
                return Err(CommandError::NoSuchShard { shard });
            }
        }
        for key in shards.iter().flat_map(|shard| self.with_presence_of(*shard)).collect::<Vec<_>>() {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.set_presence(presence);
            }
        }
        Ok(())
    }

    pub(super) fn update_every_presence(&mut self, presence: &PresenceUpdate) {
        self.entries.values_mut().for_each(|entry| entry.set_presence(presence));
    }

    pub(super) fn layouts(&self) -> &Layouts {
        &self.layouts
    }

    /// The shard that callers mean by this id.
    pub(super) fn active(&self, shard: ShardId) -> ShardKey {
        self.layouts.active(shard)
    }

    /// The shard count of a shard's layout.
    pub(super) fn count_of(&self, shard: ShardKey) -> ShardCount {
        self.layouts.layout_with(shard).unwrap_or(self.layouts.current).count
    }

    /// The number of shards of a generation in this process.
    pub(super) fn len(&self, generation: u32) -> usize {
        self.of_generation(generation).count()
    }

    fn of_generation(&self, generation: u32) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.iter();
        entries.filter(move |(shard, _)| shard.generation == generation).map(|(_, entry)| entry)
    }

    /// How many shards have to identify.
    pub(super) fn without_session(&self) -> usize {
        self.entries.values().filter(|entry| entry.cell.load().is_none()).count()
    }

    /// The sessions as another process can resume them: those of the shards that own their guilds.
    pub(super) fn sessions(&self) -> Vec<Session> {
        let active = self.entries.iter().filter(|(shard, _)| self.layouts.active(shard.id) == **shard);
        active.filter_map(|(_, entry)| entry.cell.load_acknowledged()).collect()
    }

    /// Passes the layouts on to the session keeper, after each change.
    fn record_layouts(&self) {
        let mut table = self.table();
        let refused = table.layout.refused && table.layout.generation == self.layouts.current.generation;
        table.layout = LayoutRecord::of(&self.layouts, refused);
    }

    /// Notes that Discord has refused a shard because of the shard count: no later process follows its layout.
    pub(super) fn set_refused(&self, shard: ShardKey) {
        let mut table = self.table();
        table.layout.refused |= table.layout.generation == shard.generation;
    }

    /// What the [`SilenceWatch`](super::silence::SilenceWatch) compares.
    pub(super) fn readings(&self) -> Vec<Reading> {
        let reading = |(shard, entry): (&ShardKey, &Entry)| {
            let (ready, dispatches) = entry.board.activity();
            Reading { shard: *shard, ready, dispatches }
        };
        self.entries.iter().map(reading).collect()
    }

    /// Checks each watermark, and returns what there is to report.
    pub(super) fn watermarks(&self, now: Instant) -> Vec<(ShardKey, Found)> {
        let check = |(shard, entry): (&ShardKey, &Entry)| Some((*shard, entry.cell.watermark().look(now)?));
        self.entries.iter().filter_map(check).collect()
    }

    pub(super) fn status(&self) -> Vec<ShardStatus> {
        let mut held_up = self.hub.held_up();
        self.entries.iter().map(|(shard, entry)| entry.status(held_up.remove(shard))).collect()
    }

    pub(super) fn status_of(&self, shard: ShardKey) -> Option<ShardStatus> {
        Some(self.entries.get(&shard)?.status(self.hub.held_up().remove(&shard)))
    }
}

#[cfg(test)]
mod orders;
