//! The manager's book of shards: what each one is, and what survives it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort};
use shardkeeper_proto::{Command, PresenceUpdate, Session, ShardConfig, ShardCount, ShardId};
use shardkeeper_transport::Connector;
use url::Url;

use super::config::Config;
use crate::command::AcceptedCommand;
use crate::dispatch::{Found, HeldUp, Hub, InheritedSpill, Publisher};
use crate::error::{CommandError, ShardChangeError};
use crate::message::{Incarnation, ManagerMessage, QueueMessage, RestartBy, ShardMessage, ShutdownMode};

use super::restart::{CrashHistory, Restart};
use super::silence::Reading;
use crate::command::{self, CommandSender};
use crate::session::SessionTable;
use crate::session::{SessionCell, Writer};
use crate::shard::board::StatusBoard;
use crate::shard::life::{Drivers, End, Life};
use crate::shard::{Oddities, Pacer, Parts, ShardActor, ShardArguments, Warnings};
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
    /// What the session keeper looks at.
    book: Arc<Mutex<SessionTable>>,
    entries: BTreeMap<ShardId, Entry>,
    /// Of each shard that is or was here. One that comes back waits for a driver of then that still runs, for otherwise two would
    /// use the same session.
    writers: BTreeMap<ShardId, Writer>,
    /// Over all shards: one that left and came back is told from what it was before.
    last_incarnation: Incarnation,
}

struct Entry {
    slot: Arc<SessionCell>,
    inherited_spill: Arc<InheritedSpill>,
    board: Arc<StatusBoard>,
    /// Of the actor that there is or was last.
    life: Arc<Life>,
    drivers: Drivers,
    actor: Option<ActorRef<ShardMessage>>,
    /// As long as there is the actor.
    commands: Option<CommandSender>,
    presence: Option<PresenceUpdate>,
    /// In an earlier life.
    was_ready: bool,
    /// It serves no more: refused, or ended as it was told.
    ended: bool,
    /// It is being removed; it takes nothing more.
    leaving: bool,
}

impl Entry {
    fn was_ready(&self) -> bool {
        self.was_ready || self.life.was_ready()
    }

    /// Whether nothing of it runs that has something left to do.
    fn is_gone(&self) -> bool {
        self.actor.is_none() && self.drivers.are_gone() || self.life.is_over()
    }

    fn status(&self, held_up: Option<HeldUp>) -> ShardStatus {
        ShardStatus {
            sequence: self.slot.load().map_or(0, |session| session.sequence),
            acknowledged: self.slot.load_acknowledged().map_or(0, |session| session.sequence),
            watermark_stuck: self.slot.watermark().stuck(),
            held_up,
            ..self.board.read()
        }
    }

    fn set_presence(&mut self, presence: &PresenceUpdate) {
        self.presence = Some(presence.clone());
        if let Some(actor) = &self.actor {
            let (reply, _) = ractor::concurrency::oneshot();
            let _ = actor.cast(ShardMessage::UpdatePresence(presence.clone(), reply.into()));
        }
    }
}

fn end(mode: ShutdownMode) -> ShardMessage {
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
        book: Arc<Mutex<SessionTable>>,
    ) -> Self {
        let rate = NonZeroU32::new(config.settings.connects_per_second).unwrap_or(NonZeroU32::MIN);
        Self {
            entries: BTreeMap::new(),
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
            book,
        }
    }

    /// Takes on the shards of a start, which are not started yet, with whichever of these sessions they can resume: the
    /// first of each.
    pub(super) fn add_first(
        &mut self,
        ids: &[ShardId],
        sessions: &[Session],
        presence: Option<&PresenceUpdate>,
    ) {
        let check = |session: &Session| session.check(&self.shard_config(session.shard));
        let misfits: Vec<_> = sessions.iter().filter_map(|session| check(session).err()).collect();
        if let Some(misfit) = misfits.first() {
            tracing::warn!(sessions = misfits.len(), "sessions cannot be resumed, the first since {misfit}");
        }
        for &shard in ids {
            let fits = |session: &&Session| session.check(&self.shard_config(shard)).is_ok();
            let session = sessions.iter().find(fits).cloned();
            self.insert(shard, session, presence);
        }
    }

    fn insert(&mut self, shard: ShardId, session: Option<Session>, presence: Option<&PresenceUpdate>) {
        let writer = Arc::clone(self.writers.entry(shard).or_default());
        let entry = Entry {
            slot: Arc::new(SessionCell::new(session, writer)),
            inherited_spill: Arc::default(),
            board: Arc::new(StatusBoard::new(shard, self.count, self.generation)),
            life: Arc::default(),
            drivers: Drivers::default(),
            actor: None,
            commands: None,
            presence: presence.cloned(),
            was_ready: false,
            ended: false,
            leaving: false,
        };
        self.book().slots.insert((self.count, shard), Arc::clone(&entry.slot));
        self.entries.insert(shard, entry);
    }

    fn book(&self) -> MutexGuard<'_, SessionTable> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard_config(&self, shard: ShardId) -> ShardConfig {
        ShardConfig {
            token: self.config.token.clone(),
            shard,
            count: self.count,
            intents: self.config.settings.intents,
            large_threshold: self.config.settings.large_threshold,
            library: self.config.settings.library.clone(),
            gateway_url: self.gateway_url.clone(),
            wire: self.config.settings.wire(),
            timings: self.config.settings.timings,
        }
    }

    /// Takes on shards of this layout, which are not started yet: all of them, or none. Returns each of them once.
    pub(super) fn add(
        &mut self,
        ids: &[ShardId],
        sessions: Vec<Session>,
        presence: Option<&PresenceUpdate>,
    ) -> Result<BTreeSet<ShardId>, ShardChangeError> {
        let mut new: BTreeMap<ShardId, Option<Session>> = BTreeMap::new();
        for &shard in ids {
            match self.entries.get(&shard) {
                _ if !self.count.contains(shard) => {
                    return Err(ShardChangeError::NotInLayout { shard, count: self.count });
                }
                Some(Entry { leaving: true, .. }) => return Err(ShardChangeError::Leaving { shard }),
                Some(_) => return Err(ShardChangeError::AlreadyHere { shard }),
                None => drop(new.insert(shard, None)),
            }
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

    /// Begins to remove shards: all of them, or none. Returns each of them once.
    pub(super) fn begin_removal(
        &mut self,
        ids: &[ShardId],
        mode: ShutdownMode,
    ) -> Result<BTreeSet<ShardId>, ShardChangeError> {
        for &shard in ids {
            match self.entries.get(&shard) {
                None => return Err(ShardChangeError::NoSuchShard { shard }),
                Some(Entry { leaving: true, .. }) => return Err(ShardChangeError::Leaving { shard }),
                Some(_) => {}
            }
        }
        let ids: BTreeSet<ShardId> = ids.iter().copied().collect();
        for shard in &ids {
            if let Some(entry) = self.entries.get_mut(shard) {
                entry.leaving = true;
                if let Some(actor) = entry.actor.as_ref().filter(|_| !entry.ended) {
                    let _ = actor.cast(end(mode));
                }
            }
        }
        Ok(ids)
    }

    /// Whether a shard that is being removed has nothing more to end. Once its time is up, a driver that does not come to
    /// its end is not waited for.
    pub(super) fn has_left(&self, shard: ShardId, overdue: bool) -> bool {
        let has_left = |entry: &Entry| entry.is_gone() || overdue && entry.actor.is_none();
        self.entries.get(&shard).is_none_or(has_left)
    }

    /// Forgets a shard, and returns its session as another process can resume it.
    pub(super) fn remove(&mut self, shard: ShardId) -> Option<Session> {
        let slot = (self.count, shard);
        let mut book = self.book();
        book.slots.remove(&slot);
        // Even if nobody knows what the store holds.
        book.held.insert(slot);
        drop(book);
        self.entries.remove(&shard)?.slot.load_acknowledged()
    }

    pub(super) fn is_leaving(&self, shard: ShardId) -> bool {
        self.entries.get(&shard).is_some_and(|entry| entry.leaving)
    }

    pub(super) fn kill(&self, shard: ShardId) {
        if let Some(actor) = self.actor(shard) {
            actor.kill();
        }
    }

    /// Lets a shard make another connection. `true` when it has no actor that could, and wants one now.
    pub(super) fn restart(&mut self, shard: ShardId, by: RestartBy) -> Result<bool, ShardChangeError> {
        let entry = self.entries.get_mut(&shard).ok_or(ShardChangeError::NoSuchShard { shard })?;
        if entry.leaving {
            return Err(ShardChangeError::Leaving { shard });
        }
        if let Some(actor) = entry.actor.as_ref().filter(|_| !entry.ended) {
            let _ = actor.cast(ShardMessage::Restart(by));
            return Ok(false);
        }
        // Refused by Discord once, or in quarantine after crashes.
        entry.ended = false;
        if by == RestartBy::Identify {
            self.last_incarnation += 1;
            entry.slot.empty(self.last_incarnation);
        }
        Ok(true)
    }

    /// Starts a shard's actor: its first, or the next one after a crash.
    pub(super) async fn spawn(
        &mut self,
        manager: &ActorRef<ManagerMessage>,
        shard: ShardId,
        queue: &ActorRef<QueueMessage>,
        random: fastrand::Rng,
    ) -> Result<(), ActorProcessingErr> {
        let config = self.shard_config(shard);
        let ledger = Arc::clone(&self.book().ledger);
        let Some(entry) = self.entries.get_mut(&shard) else { return Ok(()) };
        self.last_incarnation += 1;
        entry.was_ready = entry.was_ready();
        entry.life = Arc::new(Life::new(self.last_incarnation));
        entry.board.begin(self.last_incarnation);
        let (sender, inbox) = command::channel(shard);
        let parts = Parts {
            shard,
            life: Arc::clone(&entry.life),
            connector: self.connector.clone(),
            pacer: Arc::clone(&self.pacer),
            warnings: Arc::clone(&self.warnings),
            publisher: Publisher::new(
                Arc::clone(&self.hub),
                shard,
                self.generation,
                Arc::clone(entry.slot.watermark()),
                Arc::clone(&entry.inherited_spill),
            ),
            slot: Arc::clone(&entry.slot),
            board: Arc::clone(&entry.board),
            oddities: Arc::clone(&self.oddities),
            presence_fn: self.config.settings.presence_fn.clone(),
            ledger,
            random,
            tap: self.config.settings.tap.clone(),
            reconnect: self.config.settings.reconnect,
        };
        let arguments = ShardArguments {
            config,
            parts,
            commands: (sender.clone(), inbox),
            presence: entry.presence.clone(),
            queue: queue.clone(),
            manager: manager.clone(),
            running: entry.drivers.begin(shard, self.last_incarnation, manager.clone()),
        };
        let (actor, _) = Actor::spawn_linked(None, ShardActor, arguments, manager.get_cell()).await?;
        (entry.actor, entry.commands) = (Some(actor), Some(sender));
        Ok(())
    }

    /// From now on new connections go there.
    pub(super) fn set_gateway_url(&mut self, url: &Url) {
        if self.gateway_url != *url {
            self.gateway_url = url.clone();
            self.for_each_actor(|actor| drop(actor.cast(ShardMessage::GatewayUrl(url.clone()))));
        }
    }

    pub(super) fn actor(&self, shard: ShardId) -> Option<ActorRef<ShardMessage>> {
        self.entries.get(&shard)?.actor.clone()
    }

    pub(super) fn for_each_actor(&self, each: impl FnMut(&ActorRef<ShardMessage>)) {
        self.entries.values().filter_map(|entry| entry.actor.as_ref()).for_each(each);
    }

    /// Remembers the presence of these shards, and tells their actors. One that is down sends it when it is back.
    pub(super) fn update_presence(
        &mut self,
        shards: &[ShardId],
        presence: &PresenceUpdate,
    ) -> Result<(), CommandError> {
        for &shard in shards {
            if self.entries.get(&shard).is_none_or(|entry| entry.leaving) {
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

    /// Hands a command to the driver of the shard that owns its guild; that one answers.
    pub(super) fn command(
        &self,
        command: Command,
        reply: RpcReplyPort<Result<AcceptedCommand, CommandError>>,
    ) {
        let shard = command.shard(self.count);
        let elsewhere = match command.guild_id() {
            Some(guild_id) => CommandError::GuildElsewhere { guild_id, shard },
            None => CommandError::NoSuchShard { shard },
        };
        let entry = self.entries.get(&shard).filter(|entry| !entry.leaving);
        match entry.map(|entry| entry.commands.as_ref().filter(|_| !entry.ended)) {
            None => drop(reply.send(Err(elsewhere))),
            Some(None) => drop(reply.send(Err(CommandError::ShardEnded { shard }))),
            Some(Some(commands)) => commands.send(command, reply),
        }
    }

    pub(super) fn is_current(&self, shard: ShardId, incarnation: Incarnation) -> bool {
        self.incarnation(shard) == Some(incarnation)
    }

    pub(super) fn incarnation(&self, shard: ShardId) -> Option<Incarnation> {
        self.entries.get(&shard).map(|entry| entry.life.incarnation())
    }

    /// Whether a shard that crashed in this incarnation still waits to come back.
    pub(super) fn awaits_restart(&self, shard: ShardId, incarnation: Incarnation) -> bool {
        self.is_current(shard, incarnation)
            && self
                .entries
                .get(&shard)
                .is_some_and(|entry| entry.actor.is_none() && !entry.ended && !entry.leaving)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many have to identify.
    pub(super) fn without_session(&self) -> usize {
        self.entries.values().filter(|entry| entry.slot.load().is_none()).count()
    }

    /// How a shard has ended or is about to end; `None` when it goes on or has crashed, and when this was said before.
    pub(super) fn take_end(&mut self, shard: ShardId) -> Option<End> {
        let entry = self.entries.get_mut(&shard).filter(|entry| !entry.ended)?;
        let end = entry.life.end()?;
        entry.ended = true;
        Some(end)
    }

    pub(super) fn has_ended(&self, shard: ShardId) -> bool {
        self.entries.get(&shard).is_none_or(|entry| entry.ended)
    }

    /// A shard that was to end has ended, in whatever way: after a stop nothing is left of its session.
    pub(super) fn set_ended(&mut self, shard: ShardId, mode: ShutdownMode) {
        if let Some(entry) = self.entries.get_mut(&shard) {
            entry.ended = true;
            if mode == ShutdownMode::Stop {
                self.last_incarnation += 1;
                entry.slot.empty(self.last_incarnation);
            }
        }
    }

    /// The actor of this id is no more: which shard's it was.
    pub(super) fn lost(&mut self, actor: ActorId) -> Option<ShardId> {
        let is_it = |entry: &Entry| entry.actor.as_ref().is_some_and(|known| known.get_id() == actor);
        let (shard, entry) = self.entries.iter_mut().find(|(_, entry)| is_it(entry))?;
        (entry.actor, entry.commands) = (None, None);
        Some(*shard)
    }

    pub(super) fn crashed(&mut self, now: Instant, shard: ShardId, error: &str, random: f64) -> Restart {
        let restart = self.restarts.crashed(now, shard, random);
        if let Some(entry) = self.entries.get(&shard) {
            entry.board.crashed(now, error, restart.quarantined);
        }
        restart
    }

    pub(super) fn all_were_ready(&self) -> bool {
        self.entries.values().all(Entry::was_ready)
    }

    pub(super) fn any_was_ready(&self) -> bool {
        self.entries.values().any(Entry::was_ready)
    }

    pub(super) fn all_ended(&self) -> bool {
        self.entries.values().all(|entry| entry.ended)
    }

    /// As [`all_ended`](Self::all_ended), and each has done what is left to do at an end.
    pub(super) fn all_gone(&self) -> bool {
        self.entries.values().all(|entry| entry.ended && entry.is_gone())
    }

    /// Tells every shard to end. One that waits for its restart has nothing to end.
    pub(super) fn end_all(&mut self, mode: ShutdownMode) {
        self.last_incarnation += 1;
        for entry in self.entries.values_mut() {
            let told = entry.actor.as_ref().is_some_and(|actor| actor.cast(end(mode)).is_ok());
            if !told && mode == ShutdownMode::Stop {
                entry.slot.empty(self.last_incarnation);
            }
            entry.ended |= !told;
        }
    }

    pub(super) fn kill_all(&mut self) {
        self.for_each_actor(|actor| actor.kill());
    }

    /// The sessions as another process can resume them.
    pub(super) fn sessions(&self) -> Vec<Session> {
        self.entries.values().filter_map(|entry| entry.slot.load_acknowledged()).collect()
    }

    /// What the watch for silence looks at.
    pub(super) fn readings(&self) -> Vec<Reading> {
        let reading = |(shard, entry): (&ShardId, &Entry)| {
            let (ready, dispatches) = entry.board.activity();
            Reading { shard: *shard, ready, dispatches }
        };
        self.entries.iter().map(reading).collect()
    }

    /// Looks at each watermark, and returns what there is to report.
    pub(super) fn watermarks(&self, now: Instant) -> Vec<(ShardId, Found)> {
        let look = |(shard, entry): (&ShardId, &Entry)| Some((*shard, entry.slot.watermark().look(now)?));
        self.entries.iter().filter_map(look).collect()
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
#[path = "orders.rs"]
mod orders;
