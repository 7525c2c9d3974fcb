//! How a shard's actor is started: its first one, and the next one after a crash or an operator's restart.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use shardkeeper_proto::ShardConfig;

use super::Shards;
use super::entry::Stage;
use crate::command;
use crate::dispatch::Publisher;
use crate::layout::ShardKey;
use crate::message::{ManagerMessage, QueueMessage};
use crate::shard::life::Life;
use crate::shard::{Parts, ShardActor, ShardArguments};

impl Shards {
    pub(super) fn shard_config(&self, shard: ShardKey) -> ShardConfig {
        let intents = self.intents.get(&shard.generation).copied().unwrap_or(self.config.settings.intents);
        self.config.shard(shard.id, self.count_of(shard), intents, &self.gateway_url)
    }

    /// Starts the next incarnation of a shard's actor.
    pub(crate) async fn spawn(
        &mut self,
        manager: &ActorRef<ManagerMessage>,
        shard: ShardKey,
        queue: &ActorRef<QueueMessage>,
        random: fastrand::Rng,
    ) -> Result<(), ActorProcessingErr> {
        let config = self.shard_config(shard);
        let ledger = Arc::clone(&self.table().ledger);
        let Some(entry) = self.entries.get_mut(&shard) else { return Ok(()) };
        self.last_incarnation += 1;
        entry.was_ready_before = entry.was_ready();
        entry.life = Arc::new(Life::new(self.last_incarnation));
        entry.board.begin(self.last_incarnation);
        let (commands, inbox) = command::channel(shard.id);
        let parts = Parts {
            shard,
            life: Arc::clone(&entry.life),
            connector: self.connector.clone(),
            pacer: Arc::clone(&self.pacer),
            warnings: Arc::clone(&self.warnings),
            publisher: Publisher::new(
                Arc::clone(&self.hub),
                shard,
                Arc::clone(entry.cell.watermark()),
                Arc::clone(&entry.inherited_spill),
                Arc::clone(&entry.overlap),
            ),
            cell: Arc::clone(&entry.cell),
            board: Arc::clone(&entry.board),
            oddities: Arc::clone(&self.oddities),
            calls: Arc::clone(&self.calls),
            presence_fn: self.config.settings.presence_fn.clone(),
            ledger,
            random,
            tap: self.config.settings.tap.clone(),
            reconnect: self.config.settings.reconnect,
        };
        let arguments = ShardArguments {
            config,
            parts,
            commands: (commands.clone(), inbox),
            presence: entry.presence.clone(),
            queue: queue.clone(),
            manager: manager.clone(),
            running: entry.drivers.begin(shard, self.last_incarnation, manager.clone()),
        };
        let (actor, _) = Actor::spawn_linked(None, ShardActor, arguments, manager.get_cell()).await?;
        entry.stage = Stage::Up { actor, commands };
        Ok(())
    }
}
