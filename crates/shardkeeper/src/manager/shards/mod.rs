//! The manager's table of shards: what each shard is, and what survives its actor.

mod entry;
mod life;
mod removal;
mod spawn;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ractor::{ActorRef, RpcReplyPort};
use shardkeeper_proto::{Command, PresenceUpdate, Session, ShardCount, ShardId};
use shardkeeper_transport::Connector;
use url::Url;

use self::entry::{Entry, Stage};
use self::removal::Removal;
use super::config::Config;
use super::restart::CrashHistory;
use super::silence::Reading;
use crate::command::AcceptedCommand;
use crate::dispatch::{Found, Hub};
use crate::error::{CommandError, ShardChangeError};
use crate::layout::ShardKey;
use crate::message::{Incarnation, ShardMessage, ShutdownMode};
use crate::session::{SessionTable, Writer};
use crate::shard::{Oddities, Pacer, Warnings};
use crate::status::ShardStatus;

pub(super) struct Shards {
    config: Arc<Config>,
    hub: Arc<Hub>,
    gateway_url: Url,
    generation: u32,
    count: ShardCount,
    connector: Connector,
    pacer: Arc<Pacer>,
    warnings: Arc<Warnings>,
    oddities: Arc<Oddities>,
    restarts: CrashHistory<ShardId>,
    /// Shared with the session keeper.
    table: Arc<Mutex<SessionTable>>,
    entries: BTreeMap<ShardId, Entry>,
    /// Open removals. Each shard is in one of them at most.
    removals: Vec<Removal>,
    last_removal: u64,
    /// The right to write of each shard that is or was here. A shard that is added again waits for a driver
    /// of its earlier time that still runs, since otherwise two drivers would use the same session.
    writers: BTreeMap<ShardId, Writer>,
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
        (generation, count): (u32, ShardCount),
        table: Arc<Mutex<SessionTable>>,
    ) -> Self {
        let rate = NonZeroU32::new(config.settings.connects_per_second).unwrap_or(NonZeroU32::MIN);
        Self {
            entries: BTreeMap::new(),
            removals: Vec::new(),
            last_removal: 0,
            writers: BTreeMap::new(),
            last_incarnation: 0,
            connector: Connector::new(Arc::clone(&config.settings.dialer), config.settings.transport()),
            pacer: Arc::new(Pacer::new(rate)),
            warnings: Arc::new(Warnings::new()),
            oddities: Arc::default(),
            hub,
            restarts: CrashHistory::new(config.settings.restart_policy),
            config,
            gateway_url,
            generation,
            count,
            table,
        }
    }

    /// Adds the shards of a start, without starting them. Each gets the first of these sessions that it can
    /// resume.
    pub(super) fn add_first(
        &mut self,
        ids: &[ShardId],
        sessions: &[Session],
        presence: Option<&PresenceUpdate>,
    ) {
        let check = |session: &Session| session.check(&self.shard_config(session.shard));
        let misfits: Vec<_> = sessions.iter().filter_map(|session| check(session).err()).collect();
        if let Some(misfit) = misfits.first() {
            tracing::warn!(
                sessions = misfits.len(),
                "sessions cannot be resumed, the first because {misfit}"
            );
        }
        for &shard in ids {
            let fits = |session: &&Session| session.check(&self.shard_config(shard)).is_ok();
            let session = sessions.iter().find(fits).cloned();
            self.insert(shard, session, presence);
        }
    }

    /// Adds shards of this layout, without starting them: all of them, or none. Returns each of them once.
    pub(super) fn add(
        &mut self,
        ids: &[ShardId],
        sessions: Vec<Session>,
        presence: Option<&PresenceUpdate>,
    ) -> Result<BTreeSet<ShardId>, ShardChangeError> {
        let mut new: BTreeMap<ShardId, Option<Session>> = BTreeMap::new();
        for &shard in ids {
            if !self.count.contains(shard) {
                return Err(ShardChangeError::NotInLayout { shard, count: self.count });
            }
            if self.is_leaving(shard) {
                return Err(ShardChangeError::Leaving { shard });
            }
            if self.entries.contains_key(&shard) {
                return Err(ShardChangeError::AlreadyHere { shard });
            }
            new.insert(shard, None);
        }
        for session in sessions {
            let shard = session.shard;
            session
                .check(&self.shard_config(shard))
                .map_err(|source| ShardChangeError::Session { shard, source })?;
            *new.get_mut(&shard).ok_or(ShardChangeError::UnwantedSession { shard })? = Some(session);
        }
        let added = new.keys().copied().collect();
        for (shard, session) in new {
            self.insert(shard, session, presence);
        }
        Ok(added)
    }

    fn insert(&mut self, shard: ShardId, session: Option<Session>, presence: Option<&PresenceUpdate>) {
        let writer = Arc::clone(self.writers.entry(shard).or_default());
        let of = (shard, self.count, self.generation);
        let entry = Entry::new(of, (session, writer), presence.cloned());
        let slot = ShardKey { id: shard, generation: self.generation };
        self.table().slots.insert(slot, Arc::clone(&entry.cell));
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

    pub(super) fn actor(&self, shard: ShardId) -> Option<ActorRef<ShardMessage>> {
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
            if !self.entries.contains_key(&shard) || self.is_leaving(shard) {
                return Err(CommandError::NoSuchShard { shard });
            }
        }
        for shard in shards {
            if let Some(entry) = self.entries.get_mut(shard) {
                entry.set_presence(presence);
            }
        }
        Ok(())
    }

    pub(super) fn update_every_presence(&mut self, presence: &PresenceUpdate) {
        self.entries.values_mut().for_each(|entry| entry.set_presence(presence));
    }

    pub(super) fn count(&self) -> ShardCount {
        self.count
    }

    pub(super) fn owner_of(&self, guild_id: u64) -> ShardId {
        self.count.owner_of(guild_id)
    }

    /// Passes a command to the driver of the shard that owns its guild. The driver answers.
    pub(super) fn command(
        &self,
        command: Command,
        reply: RpcReplyPort<Result<AcceptedCommand, CommandError>>,
    ) {
        let shard = command.shard(self.count);
        match self.entries.get(&shard).filter(|_| !self.is_leaving(shard)).map(|entry| &entry.stage) {
            Some(Stage::Up { commands, .. }) => commands.send(command, reply),
            Some(_) => drop(reply.send(Err(CommandError::ShardEnded { shard }))),
            None => {
                let elsewhere = match command.guild_id() {
                    Some(guild_id) => CommandError::GuildElsewhere { guild_id, shard },
                    None => CommandError::NoSuchShard { shard },
                };
                let _ = reply.send(Err(elsewhere));
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many shards have to identify.
    pub(super) fn without_session(&self) -> usize {
        self.entries.values().filter(|entry| entry.cell.load().is_none()).count()
    }

    /// The sessions as another process can resume them.
    pub(super) fn sessions(&self) -> Vec<Session> {
        self.entries.values().filter_map(|entry| entry.cell.load_acknowledged()).collect()
    }

    /// What the [`SilenceWatch`](super::silence::SilenceWatch) compares.
    pub(super) fn readings(&self) -> Vec<Reading> {
        let reading = |(shard, entry): (&ShardId, &Entry)| {
            let (ready, dispatches) = entry.board.activity();
            Reading { shard: *shard, ready, dispatches }
        };
        self.entries.iter().map(reading).collect()
    }

    /// Checks each watermark, and returns what there is to report.
    pub(super) fn watermarks(&self, now: Instant) -> Vec<(ShardId, Found)> {
        let check = |(shard, entry): (&ShardId, &Entry)| Some((*shard, entry.cell.watermark().look(now)?));
        self.entries.iter().filter_map(check).collect()
    }

    pub(super) fn status(&self) -> Vec<ShardStatus> {
        let mut held_up = self.hub.held_up();
        self.entries.iter().map(|(shard, entry)| entry.status(held_up.remove(shard))).collect()
    }

    pub(super) fn status_of(&self, shard: ShardId) -> Option<ShardStatus> {
        Some(self.entries.get(&shard)?.status(self.hub.held_up().remove(&shard)))
    }
}

#[cfg(test)]
mod orders;
