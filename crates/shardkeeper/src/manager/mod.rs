//! The manager: supervisor of one bot's shards.
//!
//! Input: the bot's wishes, reports of the shards, the deaths of children. Output: children started, told and
//! restarted; lifecycle changes. It owns what must survive them: layout, sessions, presence, budget.

mod changing;
mod children;
pub(crate) mod config;
mod ending;
pub(crate) mod restart;
mod running;
mod sentinel;
mod shards;
mod silence;
mod starting;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use shardkeeper_proto::{PresenceUpdate, Session, ShardId};

use self::config::{Config, Live};
use self::restart::CrashHistory;
use self::sentinel::AskLimits;
use self::shards::Shards;
use self::silence::SilenceWatch;
use crate::dispatch::Service;
use crate::error::{CommandError, ExitReason, ShardChangeError, StartError};
use crate::gateway_info::GatewayInfo;
use crate::identify::IdentifyLedger;
use crate::message::{ManagerMessage, QueueMessage, SentinelMessage, ShutdownMode};
use crate::session::{KeeperMessage, SessionTable};
use crate::store::{StoreLease, Stored};
use crate::task::AbortOnDrop;

pub use self::config::ManagerArguments;
pub use self::restart::RestartPolicy;
pub use self::sentinel::{ReshardSentinel, SentinelArguments, SentinelState};

/// The only generation, until the bot can be resharded.
const GENERATION: u32 = 1;

/// The manager of one bot's shards. Start it with [`Shardkeeper::builder`](crate::Shardkeeper::builder), or like
/// any actor: `Actor::spawn(None, ShardManager, config)`.
#[expect(clippy::exhaustive_structs, reason = "names the actor; what it knows is in its state")]
pub struct ShardManager;

/// The state of a [`ShardManager`].
pub struct ManagerState {
    config: Arc<Config>,
    live: Live,
    random: fastrand::Rng,
    services: CrashHistory<Service>,
    presence: Option<PresenceUpdate>,
    starting: Vec<RpcReplyPort<Result<(), StartError>>>,
    /// From the start to the beginning of the end.
    sentinel: Option<ActorRef<SentinelMessage>>,
    ask_limits: Arc<AskLimits>,
    /// From the first answer of `GET /gateway/bot` on.
    fleet: Option<Fleet>,
    /// Until the end. Nobody else holds the store.
    store: Option<Arc<StoreLease>>,
    /// Asks the store what it holds.
    loading: Option<AbortOnDrop>,
    /// What the session store holds; `None` until it has said so.
    stored: Option<Stored>,
    /// It was told that the store does not work.
    storeless: bool,
    /// The gateway's answer, as long as the store has not answered.
    answer: Option<GatewayInfo>,
    stopping: Option<Stopping>,
}

/// What there is once the layout is known.
struct Fleet {
    info: GatewayInfo,
    queue: ActorRef<QueueMessage>,
    ledger: Arc<IdentifyLedger>,
    book: Arc<Mutex<SessionTable>>,
    /// With a session store only, and not while it waits to be replaced.
    keeper: Option<ActorRef<KeeperMessage>>,
    shards: Shards,
    all_ready_announced: bool,
    /// The largest number of shards that was told as advised.
    advised: u32,
    silence: SilenceWatch,
    removals: Vec<Removal>,
    last_removal: u64,
}

/// Shards that are on their way out. They leave together: until then, an end takes them along.
struct Removal {
    number: u64,
    shards: BTreeSet<ShardId>,
    mode: ShutdownMode,
    /// The deadline has passed.
    overdue: bool,
    reply: RpcReplyPort<Result<Vec<Session>, ShardChangeError>>,
}

struct Stopping {
    mode: ShutdownMode,
    outcome: ExitReason,
    /// Every shard has ended, and the store takes what is left: from the keeper that there is, or the next one.
    flushing: bool,
    replies: Vec<RpcReplyPort<Vec<Session>>>,
}

impl Drop for ManagerState {
    fn drop(&mut self) {
        // However it ended: subscribers must not wait for ever.
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
        Ok(ManagerState {
            store: config.settings.store.take().map(|store| Arc::new(StoreLease::new(store))),
            loading: None,
            presence: config.presence.clone(),
            services: CrashHistory::new(config.settings.restart_policy),
            config: Arc::new(config),
            live,
            random,
            starting: Vec::new(),
            sentinel: None,
            ask_limits: Arc::new(AskLimits::new()),
            fleet: None,
            stored: None,
            storeless: false,
            answer: None,
            stopping: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<ManagerMessage>,
        state: &mut ManagerState,
    ) -> Result<(), ActorProcessingErr> {
        match &state.store {
            Some(store) => state.loading = Some(starting::load_store(Arc::clone(store), myself.clone())),
            None => state.stored = Some(Stored::default()),
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
            ManagerMessage::AwaitStart(reply) => {
                if state.fleet.is_some() {
                    let _ = reply.send(Ok(()));
                } else {
                    state.starting.push(reply);
                }
            }
            ManagerMessage::Stored(stored) => state.stored(&myself, stored).await?,
            ManagerMessage::Flushed | ManagerMessage::StoreClosed => state.finish_end(&myself),
            ManagerMessage::Gateway(info) => state.gateway(&myself, info).await?,
            ManagerMessage::NoGateway { error, retry_after } => state.no_gateway(&myself, error, retry_after),
            ManagerMessage::Shard(shard, reply) => {
                let actor = state.fleet.as_ref().and_then(|fleet| fleet.shards.actor(shard));
                let _ = reply.send(actor);
            }
            ManagerMessage::OwnerOf(guild_id, reply) => {
                let _ = reply.send(state.fleet.as_ref().map(|fleet| fleet.shards.owner_of(guild_id)));
            }
            ManagerMessage::Share(reply) => drop(reply.send(state.live.share())),
            ManagerMessage::Status(reply) => drop(reply.send(state.status())),
            ManagerMessage::ShardStatus(shard, reply) => {
                let status = state.fleet.as_ref().and_then(|fleet| fleet.shards.status_of(shard));
                let _ = reply.send(status);
            }
            ManagerMessage::UpdatePresence(None, presence, reply) => {
                state.update_presence(presence);
                let _ = reply.send(Ok(()));
            }
            ManagerMessage::UpdatePresence(Some(shards), presence, reply) => {
                let _ = reply.send(match &mut state.fleet {
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
                let sessions = state.fleet.as_ref().map(|fleet| fleet.shards.sessions());
                let _ = reply.send(sessions.unwrap_or_default());
            }
            ManagerMessage::RemovalDeadline(number) => state.removal_deadline(number),
            ManagerMessage::Command(command, reply) => match &state.fleet {
                Some(fleet) => fleet.shards.command(command, reply),
                None => drop(reply.send(Err(CommandError::Starting))),
            },
            ManagerMessage::Report { shard, incarnation, report } => {
                state.report(&myself, shard, incarnation, report);
            }
            ManagerMessage::Replace(service) => state.replace(&myself, service).await?,
            ManagerMessage::Restart { shard, incarnation } => {
                state.restart(&myself, shard, incarnation).await?
            }
            ManagerMessage::Look => state.look(&myself),
            ManagerMessage::Shutdown(mode, reply) => {
                let outcome = match mode {
                    ShutdownMode::Stop => ExitReason::Stopped,
                    ShutdownMode::Detach => ExitReason::Detached,
                };
                state.begin_shutdown(&myself, mode, outcome, Some(reply));
            }
            ManagerMessage::ShutdownDeadline => {
                if let Some(fleet) = &mut state.fleet {
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

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
