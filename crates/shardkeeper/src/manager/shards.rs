//! The manager's book of shards: what each one is, and what survives it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort};
use shardkeeper_proto::{Command, PresenceUpdate, Session, ShardConfig, ShardCount, ShardId};
use shardkeeper_transport::Connector;
use url::Url;

use crate::config::ManagerConfig;
use crate::dispatch::Publisher;
use crate::error::CommandRejected;
use crate::message::{Farewell, Incarnation, ManagerMessage, QueueMessage, ShardMessage};
use crate::pacer::Pacer;
use crate::restart::{Restart, RestartBook};
use crate::shard::board::Board;
use crate::shard::slot::SessionSlot;
use crate::shard::{ShardActor, ShardArguments};
use crate::silence::Reading;
use crate::status::ShardStatus;

type Reply = RpcReplyPort<Result<(), CommandRejected>>;

pub(super) struct Shards {
    config: Arc<ManagerConfig>,
    gateway_url: Url,
    generation: u32,
    count: ShardCount,
    connector: Connector,
    pacer: Arc<Pacer>,
    restarts: RestartBook,
    entries: BTreeMap<ShardId, Entry>,
}

struct Entry {
    slot: Arc<SessionSlot>,
    board: Arc<Board>,
    incarnation: Incarnation,
    actor: Option<ActorRef<ShardMessage>>,
    presence: Option<PresenceUpdate>,
    was_ready: bool,
    ended: bool,
}

impl Shards {
    pub(super) fn new(
        config: Arc<ManagerConfig>,
        gateway_url: Url,
        (generation, count, ids): (u32, ShardCount, &[ShardId]),
        presence: Option<&PresenceUpdate>,
    ) -> Self {
        let entry = |shard: ShardId| {
            let fits = |session: &&Session| session.shard == shard && session.count == count;
            let session = config.sessions.iter().find(fits).cloned();
            let entry = Entry {
                slot: Arc::new(SessionSlot::new(session)),
                board: Arc::new(Board::new(shard, count, generation)),
                incarnation: 0,
                actor: None,
                presence: presence.cloned(),
                was_ready: false,
                ended: false,
            };
            (shard, entry)
        };
        let rate = NonZeroU32::new(config.connects_per_second).unwrap_or(NonZeroU32::MIN);
        Self {
            entries: ids.iter().copied().map(entry).collect(),
            connector: Connector::new(Arc::clone(&config.dialer), config.transport()),
            pacer: Arc::new(Pacer::new(rate)),
            restarts: RestartBook::new(config.restart_policy),
            config,
            gateway_url,
            generation,
            count,
        }
    }

    /// Starts a shard's actor: its first, or the next one after a crash.
    pub(super) async fn spawn(
        &mut self,
        manager: &ActorRef<ManagerMessage>,
        shard: ShardId,
        queue: &ActorRef<QueueMessage>,
        random: fastrand::Rng,
    ) -> Result<(), ActorProcessingErr> {
        let Some(entry) = self.entries.get_mut(&shard) else { return Ok(()) };
        entry.incarnation += 1;
        let arguments = ShardArguments {
            incarnation: entry.incarnation,
            config: ShardConfig {
                token: self.config.token.clone(),
                shard,
                count: self.count,
                intents: self.config.intents,
                large_threshold: self.config.large_threshold,
                library: self.config.library.clone(),
                gateway_url: self.gateway_url.clone(),
                wire: self.config.wire(),
                max_failed_resumes: self.config.max_failed_resumes,
                timings: self.config.timings,
            },
            connector: self.connector.clone(),
            pacer: Arc::clone(&self.pacer),
            publisher: Publisher::new(
                Arc::clone(&self.config.hub),
                shard,
                self.generation,
                Arc::clone(entry.slot.watermark()),
            ),
            slot: Arc::clone(&entry.slot),
            board: Arc::clone(&entry.board),
            presence: entry.presence.clone(),
            queue: queue.clone(),
            manager: manager.clone(),
            random,
        };
        let (actor, _) = Actor::spawn_linked(None, ShardActor, arguments, manager.get_cell()).await?;
        entry.actor = Some(actor);
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

    /// Remembers the shard's presence, and lets its actor answer for the sending. One that is down sends it when it
    /// is back.
    pub(super) fn update_presence(&mut self, shard: ShardId, presence: PresenceUpdate, reply: Reply) {
        let Some(entry) = self.entries.get_mut(&shard).filter(|entry| !entry.ended) else {
            let _ = reply.send(Err(CommandRejected::NoSuchShard { shard }));
            return;
        };
        entry.presence = Some(presence.clone());
        match &entry.actor {
            // An actor that is just ending drops the reply, which the asker takes for a refusal.
            Some(actor) => drop(actor.cast(ShardMessage::UpdatePresence(presence, reply))),
            None => drop(reply.send(Ok(()))),
        }
    }

    pub(super) fn update_every_presence(&mut self, presence: &PresenceUpdate) {
        for entry in self.entries.values_mut() {
            entry.presence = Some(presence.clone());
            if let Some(actor) = &entry.actor {
                let (reply, _) = ractor::concurrency::oneshot();
                let _ = actor.cast(ShardMessage::UpdatePresence(presence.clone(), reply.into()));
            }
        }
    }

    pub(super) fn owner_of(&self, guild_id: u64) -> ShardId {
        self.count.owner_of(guild_id)
    }

    /// Hands a command to the shard that owns its guild; that one answers.
    pub(super) fn command(&self, command: Command, reply: Reply) {
        let shard = command.shard(self.count);
        let entry = self.entries.get(&shard).filter(|entry| !entry.ended);
        match entry.map(|entry| &entry.actor) {
            None => drop(reply.send(Err(CommandRejected::NoSuchShard { shard }))),
            Some(None) => drop(reply.send(Err(CommandRejected::ShardEnded { shard }))),
            // An actor that is just ending drops the reply, which the asker takes for a refusal.
            Some(Some(actor)) => drop(actor.cast(ShardMessage::Command(command, reply))),
        }
    }

    pub(super) fn is_current(&self, shard: ShardId, incarnation: Incarnation) -> bool {
        self.entries.get(&shard).is_some_and(|entry| entry.incarnation == incarnation)
    }

    pub(super) fn incarnation(&self, shard: ShardId) -> Incarnation {
        self.entries.get(&shard).map_or(0, |entry| entry.incarnation)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn set_ready(&mut self, shard: ShardId) {
        if let Some(entry) = self.entries.get_mut(&shard) {
            entry.was_ready = true;
        }
    }

    pub(super) fn set_ended(&mut self, shard: ShardId) {
        if let Some(entry) = self.entries.get_mut(&shard) {
            entry.ended = true;
        }
    }

    /// The actor of this id is no more: which shard's it was, unless that shard had ended.
    pub(super) fn lost(&mut self, actor: ActorId) -> Option<ShardId> {
        let is_it = |entry: &Entry| entry.actor.as_ref().is_some_and(|known| known.get_id() == actor);
        let (shard, entry) = self.entries.iter_mut().find(|(_, entry)| is_it(entry))?;
        entry.actor = None;
        (!entry.ended).then_some(*shard)
    }

    pub(super) fn crashed(&mut self, now: Instant, shard: ShardId, error: &str, random: f64) -> Restart {
        let restart = self.restarts.crashed(now, shard, random);
        if let Some(entry) = self.entries.get(&shard) {
            entry.board.crashed(now, error, restart.quarantined);
        }
        restart
    }

    pub(super) fn all_were_ready(&self) -> bool {
        self.entries.values().all(|entry| entry.was_ready)
    }

    pub(super) fn any_was_ready(&self) -> bool {
        self.entries.values().any(|entry| entry.was_ready)
    }

    pub(super) fn all_ended(&self) -> bool {
        self.entries.values().all(|entry| entry.ended)
    }

    /// Tells every shard to end. One that waits for its restart has nothing to end.
    pub(super) fn end_all(&mut self, farewell: Farewell) {
        for entry in self.entries.values_mut() {
            let message = match farewell {
                Farewell::Stop => ShardMessage::Stop,
                Farewell::Detach => ShardMessage::Detach,
            };
            let told = entry.actor.as_ref().is_some_and(|actor| actor.cast(message).is_ok());
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

    pub(super) fn status(&self) -> Vec<ShardStatus> {
        self.entries
            .values()
            .map(|entry| entry.board.read(entry.slot.load().map_or(0, |session| session.sequence)))
            .collect()
    }
}
