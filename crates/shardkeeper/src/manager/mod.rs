//! The manager: supervisor of one bot's shards.
//!
//! Input: requests of the bot, reports of the shards, and the ends of children. Output: children that are
//! started, ordered and restarted, and lifecycle events. The manager owns what outlives its children: layout,
//! sessions, presence, budget.

mod changing;
mod children;
pub(crate) mod config;
mod ending;
mod first_layout;
mod gateway;
mod phase;
mod reports;
mod resharding;
pub(crate) mod restart;
mod resumable;
mod sentinel;
mod services;
mod shards;
mod silence;
mod starting;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use shardkeeper_proto::PresenceUpdate;

use self::config::{Config, Live};
use self::phase::{Phase, StartStep, Starting};
use self::resharding::WaitingRequest;
use self::restart::CrashHistory;
use self::sentinel::AskLimits;
use crate::dispatch::Service;
use crate::error::{CommandError, ExitReason};
use crate::message::{ManagerMessage, SentinelMessage, ShutdownMode};
use crate::status::ManagerStatus;
use crate::store::StoreLease;

pub use self::config::ManagerArguments;
pub use self::restart::RestartPolicy;
pub use self::sentinel::{ReshardSentinel, SentinelArguments, SentinelState};

/// The manager of one bot's shards. Start it with [`Shardkeeper::builder`](crate::Shardkeeper::builder), or
/// like any actor: `Actor::spawn(None, ShardManager, config)`.
#[expect(clippy::exhaustive_structs, reason = "names the actor; what it knows is in its state")]
pub struct ShardManager;

/// The state of a [`ShardManager`]: what every phase needs.
pub struct ManagerState {
    config: Arc<Config>,
    live: Live,
    random: fastrand::Rng,
    /// Crashes of the children that serve all shards.
    services: CrashHistory<Service>,
    /// The presence of shards that are still to be added; `None` for Discord's default.
    presence: Option<PresenceUpdate>,
    /// Requests to reshard that wait for the gateway's answer. Each has a caller who waits.
    reshard_requests: Vec<WaitingRequest>,
    /// Runs until a shutdown begins.
    sentinel: Option<ActorRef<SentinelMessage>>,
    ask_limits: Arc<AskLimits>,
    /// Nobody else holds the session store. `None` without one, and once it is being closed.
    store: Option<Arc<StoreLease>>,
    phase: Phase,
}

impl Drop for ManagerState {
    fn drop(&mut self) {
        // After a crash too: subscribers must not wait for ever.
        self.live.hub.close();
    }
}

impl Actor for ShardManager {
    type Msg = ManagerMessage;
    type State = ManagerState;
    type Arguments = ManagerArguments;

    async fn pre_start(
        &self,
        _: ActorRef<ManagerMessage>,
        ManagerArguments { mut config, live }: ManagerArguments,
    ) -> Result<ManagerState, ActorProcessingErr> {
        let random = config.settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let store = config.settings.store.take().map(|store| Arc::new(StoreLease::new(store)));
        let step = match store {
            Some(_) => StartStep::AwaitStore { load: None, gateway: None },
            None => StartStep::default(),
        };
        Ok(ManagerState {
            presence: config.presence.clone(),
            services: CrashHistory::new(config.settings.restart_policy),
            config: Arc::new(config),
            live,
            random,
            reshard_requests: Vec::new(),
            sentinel: None,
            ask_limits: Arc::new(AskLimits::new()),
            store,
            phase: Phase::Starting(Starting { callers: Vec::new(), step }),
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<ManagerMessage>,
        state: &mut ManagerState,
    ) -> Result<(), ActorProcessingErr> {
        if let Phase::Starting(Starting { step: StartStep::AwaitStore { load, .. }, .. }) = &mut state.phase {
            let store = state.store.clone();
            *load = store.map(|store| starting::load_store(store, myself.clone()));
        }
        if let Some(info) = state.config.settings.gateway.clone() {
            let _ = myself.cast(ManagerMessage::Gateway(info));
        }
        state.sentinel = Some(state.spawn_sentinel(&myself).await?);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<ManagerMessage>,
        message: ManagerMessage,
        state: &mut ManagerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ManagerMessage::AwaitStart(reply) => match state.phase.starting_mut() {
                Some(starting) => starting.callers.push(reply),
                None => drop(reply.send(Ok(()))),
            },
            ManagerMessage::Stored(stored) => state.stored(&myself, stored).await?,
            ManagerMessage::Flushed | ManagerMessage::StoreClosed => state.finish_end(&myself),
            ManagerMessage::Gateway(info) => state.gateway(&myself, info).await?,
            ManagerMessage::Reshard(request, reply) => state.reshard_call(&myself, request, reply),
            ManagerMessage::ControlReshard(control, reply) => {
                let _ = reply.send(state.control_reshard(control));
            }
            ManagerMessage::ReshardTick => state.reshard_tick(&myself).await?,
            ManagerMessage::ReshardSaved { number, durable } => state.reshard_saved(number, durable),
            ManagerMessage::NoGateway { error, retry_after } => state.no_gateway(&myself, error, retry_after),
            ManagerMessage::Shard(shard, reply) => {
                let actor =
                    state.phase.fleet().and_then(|fleet| fleet.shards.actor(fleet.shards.active(shard)));
                let _ = reply.send(actor);
            }
            ManagerMessage::OwnerOf(guild_id, reply) => {
                let _ =
                    reply.send(state.phase.fleet().map(|fleet| fleet.shards.layouts().owner_of(guild_id).id));
            }
            ManagerMessage::OwnersOf(guild_id, reply) => {
                let owners = state.phase.fleet().map(|fleet| fleet.shards.layouts().owners_of(guild_id));
                let _ = reply.send(owners.unwrap_or_default());
            }
            ManagerMessage::Share(reply) => drop(reply.send(state.live.share())),
            ManagerMessage::Status(reply) => drop(reply.send(state.status())),
            ManagerMessage::ShardStatus(shard, reply) => {
                let status =
                    state.phase.fleet().and_then(|fleet| fleet.shards.status_of(fleet.shards.active(shard)));
                let _ = reply.send(status);
            }
            ManagerMessage::UpdatePresence(None, presence, reply) => {
                state.update_presence(presence);
                let _ = reply.send(Ok(()));
            }
            ManagerMessage::UpdatePresence(Some(shards), presence, reply) => {
                let _ = reply.send(match state.phase.fleet_mut() {
                    Some(fleet) => fleet.shards.update_presence(&shards, &presence),
                    None => Err(CommandError::Starting),
                });
            }
            ManagerMessage::AddShards(ids, sessions, reply) => {
                let _ = reply.send(state.add_shards(&myself, &ids, sessions).await?);
            }
            ManagerMessage::RemoveShards(ids, mode, reply) => {
                state.remove_shards(&myself, &ids, mode, reply);
            }
            ManagerMessage::RestartShard(shard, by, reply) => {
                let _ = reply.send(state.restart_shard(&myself, shard, by).await?);
            }
            ManagerMessage::Sessions(reply) => {
                let sessions = state.phase.fleet().map(|fleet| fleet.shards.sessions());
                let _ = reply.send(sessions.unwrap_or_default());
            }
            ManagerMessage::RemovalDeadline(number) => state.removal_deadline(number),
            ManagerMessage::Command(command, reply) => match state.phase.fleet_mut() {
                Some(fleet) => fleet.shards.command(command, reply),
                None => drop(reply.send(Err(CommandError::Starting))),
            },
            ManagerMessage::CommandsGivenUp { shard, commands } => {
                if let Some(fleet) = state.phase.fleet_mut() {
                    fleet.shards.take_over(shard, commands);
                }
            }
            ManagerMessage::Report { shard, incarnation, report } => {
                state.report(&myself, shard, incarnation, report);
            }
            ManagerMessage::Replace(service) => state.replace(&myself, service).await?,
            ManagerMessage::Restart { shard, incarnation } => {
                state.restart(&myself, shard, incarnation).await?
            }
            ManagerMessage::Look => state.check_shards(&myself),
            ManagerMessage::Shutdown(mode, reply) => {
                let reason = match mode {
                    ShutdownMode::Stop => ExitReason::Stopped,
                    ShutdownMode::Detach => ExitReason::Detached,
                };
                state.begin_shutdown(&myself, mode, reason, Some(reply));
            }
            ManagerMessage::ShutdownDeadline => {
                if let Some(fleet) = state.phase.fleet() {
                    fleet.shards.kill_all();
                }
                state.finish_end(&myself);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ManagerMessage>,
        event: SupervisionEvent,
        state: &mut ManagerState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(child, error) => {
                state.child_ended(&myself, &child, crate::chain::chain(error.as_ref())).await
            }
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                let reason = reason.unwrap_or_else(|| "stopped".to_owned());
                state.child_ended(&myself, &child, reason).await
            }
            _ => Ok(()),
        }
    }
}

impl ManagerState {
    fn status(&self) -> ManagerStatus {
        match self.phase.fleet() {
            Some(fleet) => ManagerStatus {
                shards: fleet.shards.status(),
                identify: fleet.ledger.status(),
                reshard: self.reshard_status(),
            },
            None => ManagerStatus::default(),
        }
    }

    /// Sets the presence of every shard, and of those that are added later.
    fn update_presence(&mut self, presence: PresenceUpdate) {
        if let Some(fleet) = self.phase.fleet_mut() {
            fleet.shards.update_every_presence(&presence);
        }
        self.presence = Some(presence);
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
