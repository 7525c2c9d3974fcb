//! The manager: supervisor of one bot's shards.
//!
//! Input: the bot's wishes, reports of the shards, the deaths of children. Output: children started, told and
//! restarted; lifecycle changes. It owns what must survive them: layout, sessions, presence, budget.

mod shards;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use shardkeeper_proto::close::Scope;
use shardkeeper_proto::shard::Refusal;
use shardkeeper_proto::{IdentifyBudget, PresenceUpdate, Session, ShardCount, ShardId};
use tokio::task::AbortHandle;

use self::shards::Shards;
use crate::config::{Layout, ManagerConfig};
use crate::error::{CommandRejected, ConfigError, Ended, ShardsRejected, StartError};
use crate::gateway_info::{GatewayInfo, GatewayInfoError, SessionStartLimit, gateway_info};
use crate::identify_gate::Asking;
use crate::identify_queue::{IdentifyQueue, Ledger, QueueArguments};
use crate::message::{
    Farewell, Incarnation, ManagerMessage, QueueMessage, RestartBy, Servant, ShardMessage, ShardReport,
};
use crate::restart::RestartBook;
use crate::session_keeper::{Book, KeeperArguments, KeeperMessage, SessionKeeper, Slot};
use crate::silence::{LOOK_EVERY, SilenceWatch};
use crate::status::{IdentifyStatus, ManagerStatus};
use crate::store::{self, BudgetRecord, SessionRecord, SessionStore, StoreError, Stored};
use crate::task::catching;
use crate::{Lifecycle, Shardkeeper};

/// So often the gateway is asked again, at most, for shards that cannot reach it. An outage lasts minutes.
const REFRESH_AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// So long the session store may take to say what it holds; it is asked again meanwhile.
const LOAD_DEADLINE: Duration = Duration::from_secs(10);
const LOAD_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The only generation, until the bot can be resharded.
const GENERATION: u32 = 1;

/// The manager of one bot's shards. Start it with [`Shardkeeper::builder`](crate::Shardkeeper::builder), or like
/// any actor: `Actor::spawn(None, ShardManager, config)`.
pub struct ShardManager;

/// The state of a [`ShardManager`].
pub struct ManagerState {
    config: Arc<ManagerConfig>,
    random: fastrand::Rng,
    servants: RestartBook<Servant>,
    presence: Option<PresenceUpdate>,
    starting: Vec<RpcReplyPort<Result<(), StartError>>>,
    /// Requests to `GET /gateway/bot` that failed in a row.
    failed_requests: u32,
    request: Option<AbortHandle>,
    /// When the last one was made.
    asked_at: Option<tokio::time::Instant>,
    /// From the first answer of `GET /gateway/bot` on.
    fleet: Option<Fleet>,
    /// What the session store holds; `None` until it has said so.
    stored: Option<Stored>,
    /// The gateway's answer, as long as the store has not answered.
    answer: Option<GatewayInfo>,
    stopping: Option<Stopping>,
}

/// What there is once the layout is known.
struct Fleet {
    info: GatewayInfo,
    queue: ActorRef<QueueMessage>,
    ledger: Arc<Mutex<Ledger>>,
    book: Arc<Mutex<Book>>,
    /// With a session store only.
    keeper: Option<ActorRef<KeeperMessage>>,
    shards: Shards,
    all_ready_announced: bool,
    silence: SilenceWatch,
    removals: Vec<Removal>,
    last_removal: u64,
}

/// Shards that are on their way out.
struct Removal {
    number: u64,
    waiting: BTreeSet<ShardId>,
    sessions: Vec<Session>,
    reply: RpcReplyPort<Result<Vec<Session>, ShardsRejected>>,
}

struct Stopping {
    farewell: Farewell,
    outcome: Ended,
    /// Every shard has ended, and the store takes what is left.
    flushing: bool,
    replies: Vec<RpcReplyPort<Vec<Session>>>,
}

impl Drop for ManagerState {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            request.abort();
        }
        // However it ended: subscribers must not wait for ever.
        self.config.hub.close();
    }
}

impl Actor for ShardManager {
    type Msg = ManagerMessage;
    type State = ManagerState;
    type Arguments = ManagerConfig;

    async fn pre_start(
        &self,
        _: ActorRef<ManagerMessage>,
        config: ManagerConfig,
    ) -> Result<ManagerState, ActorProcessingErr> {
        let random = config.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Ok(ManagerState {
            presence: config.presence.clone(),
            servants: RestartBook::new(config.restart_policy),
            config: Arc::new(config),
            random,
            starting: Vec::new(),
            failed_requests: 0,
            request: None,
            asked_at: None,
            fleet: None,
            stored: None,
            answer: None,
            stopping: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<ManagerMessage>,
        state: &mut ManagerState,
    ) -> Result<(), ActorProcessingErr> {
        match &state.config.store {
            Some(store) => load_store(Arc::clone(store), myself.clone()),
            None => state.stored = Some(Stored::default()),
        }
        match state.config.gateway.clone() {
            Some(info) => drop(myself.cast(ManagerMessage::Gateway(Ok(info)))),
            None => state.request_gateway(&myself, Duration::ZERO),
        }
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
            ManagerMessage::Flushed => state.finish_end(&myself),
            ManagerMessage::Gateway(answer) => state.gateway(&myself, answer).await?,
            ManagerMessage::Shard(shard, reply) => {
                let actor = state.fleet.as_ref().and_then(|fleet| fleet.shards.actor(shard));
                let _ = reply.send(actor);
            }
            ManagerMessage::OwnerOf(guild_id, reply) => {
                let _ = reply.send(state.fleet.as_ref().map(|fleet| fleet.shards.owner_of(guild_id)));
            }
            ManagerMessage::Handle(reply) => drop(reply.send(Shardkeeper::of(myself, &state.config))),
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
                    None => Err(CommandRejected::Starting),
                });
            }
            ManagerMessage::AddShards(ids, sessions, reply) => {
                let _ = reply.send(state.add_shards(&myself, &ids, sessions).await?);
            }
            ManagerMessage::RemoveShards(ids, reply) => state.remove_shards(&myself, &ids, reply),
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
                None => drop(reply.send(Err(CommandRejected::Starting))),
            },
            ManagerMessage::Report { shard, incarnation, report } => {
                state.report(&myself, shard, incarnation, report);
            }
            ManagerMessage::Replace(servant) => state.replace(&myself, servant).await?,
            ManagerMessage::Restart { shard, incarnation } => {
                state.restart(&myself, shard, incarnation).await?
            }
            ManagerMessage::Look => state.look(&myself),
            ManagerMessage::End(farewell, reply) => {
                let outcome = match farewell {
                    Farewell::Stop => Ended::Stopped,
                    Farewell::Detach => Ended::Detached,
                };
                state.begin_end(&myself, farewell, outcome, Some(reply));
            }
            ManagerMessage::EndDeadline => {
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
                state.child_ended(&myself, &child, crate::error::chain(error.as_ref())).await
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
    // ── Starting ────────────────────────────────────────────────────────────────────────────────────────────

    fn request_gateway(&mut self, myself: &ActorRef<ManagerMessage>, wait: Duration) {
        let (config, myself) = (Arc::clone(&self.config), myself.clone());
        let request = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let answer = gateway_info(config.dialer.as_ref(), &config.api_url, &config.token).await;
            let _ = myself.cast(ManagerMessage::Gateway(answer));
        });
        self.request = Some(request.abort_handle());
        self.asked_at = Some(tokio::time::Instant::now() + wait);
    }

    async fn gateway(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        answer: Result<GatewayInfo, GatewayInfoError>,
    ) -> Result<(), ActorProcessingErr> {
        if self.stopping.is_some() {
            return Ok(());
        }
        if self.fleet.is_some() {
            self.refreshed(answer);
            return Ok(());
        }
        match answer {
            Ok(info) if self.stored.is_none() => self.answer = Some(info),
            Ok(info) => match self.layout(&info) {
                Ok((count, ids)) => {
                    self.start_fleet(myself, info, count, ids).await?;
                    self.starting.drain(..).for_each(|reply| drop(reply.send(Ok(()))));
                }
                Err(error) => self.refuse_start(myself, StartError::Layout(error)),
            },
            Err(error) if error.is_retryable() => {
                self.failed_requests += 1;
                let wait = self.config.timings.reconnect.delay(self.failed_requests, self.random.f64());
                let wait = error.retry_after().map_or(wait, |asked| asked.max(wait));
                let error = crate::error::chain(&error);
                let lifecycle = Lifecycle::GatewayUnavailable { error, retry_after: wait };
                tracing::warn!("{lifecycle}");
                self.config.hub.announce(&lifecycle);
                self.request_gateway(myself, wait);
            }
            Err(error) => self.refuse_start(myself, StartError::Gateway(error)),
        }
        Ok(())
    }

    /// What the store holds is known, or will not be.
    async fn stored(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        stored: Result<Stored, StoreError>,
    ) -> Result<(), ActorProcessingErr> {
        self.stored = Some(stored.unwrap_or_else(|error| {
            let error = crate::error::chain(error.as_ref());
            let lifecycle = Lifecycle::StoreFailed { error, retry_after: Duration::ZERO };
            tracing::error!("starting without the stored sessions: {lifecycle}");
            self.config.hub.announce(&lifecycle);
            Stored::default()
        }));
        match self.answer.take() {
            Some(info) => self.gateway(myself, Ok(info)).await,
            None => Ok(()),
        }
    }

    fn refuse_start(&mut self, myself: &ActorRef<ManagerMessage>, error: StartError) {
        tracing::error!(error = crate::error::chain(&error), "cannot start");
        // One reason for everybody who waits; more than one hardly ever does.
        let mut waiting = self.starting.drain(..);
        if let Some(first) = waiting.next() {
            let _ = first.send(Err(error));
        }
        drop(waiting);
        myself.stop(None);
    }

    fn layout(&self, info: &GatewayInfo) -> Result<(ShardCount, Vec<ShardId>), ConfigError> {
        match &self.config.layout {
            Layout::Recommended => {
                let count = ShardCount::new(info.shards).ok_or(ConfigError::NoShards)?;
                Ok((count, count.ids().collect()))
            }
            Layout::All(count) => Ok((*count, count.ids().collect())),
            Layout::Some { ids, count } => Ok((*count, ids.iter().copied().collect())),
        }
    }

    async fn start_fleet(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        info: GatewayInfo,
        count: ShardCount,
        ids: Vec<ShardId>,
    ) -> Result<(), ActorProcessingErr> {
        let stored = self.stored.take().unwrap_or_default();
        let mut limit = info.session_start_limit;
        if let Some(spent) = stored.budget.filter(|_| self.config.gateway.is_some()) {
            limit.remaining = limit.remaining.min(remaining(&spent, &limit));
        }
        let last_identify = stored.budget.and_then(|budget| budget.last_identify_ms);
        let last_identify = last_identify.and_then(|at| now().checked_sub(store::from_wall(at)));
        let mut budget = budget(&limit, self.config.identify_reserve);
        let ledger = Ledger { status: IdentifyStatus::default(), budget, last_identify };
        let ledger = Arc::new(Mutex::new(ledger));
        tracing::info!(
            shards = ids.len(),
            count = count.get(),
            max_concurrency = limit.max_concurrency,
            remaining = limit.remaining,
            "starting"
        );
        let book = Book { slots: BTreeMap::new(), generation: GENERATION, ledger: Arc::clone(&ledger) };
        let book = Arc::new(Mutex::new(book));
        let sessions = self.usable(&stored.sessions);
        // What belongs to shards of other processes is theirs.
        let ours = |record: &&SessionRecord| {
            let (of, shard) = record.slot();
            (of == count && ids.contains(&shard)) || record.check(self.config.max_session_age).is_err()
        };
        let known = stored.sessions.iter().filter(ours).map(SessionRecord::slot).collect();
        let config = Arc::clone(&self.config);
        let mut shards = Shards::new(config, info.url.clone(), (GENERATION, count), Arc::clone(&book));
        shards.add_first(&ids, &sessions, self.presence.as_ref());
        let needed = shards.without_session();
        if self.config.whole_start && needed > 0 && !budget.affords(now(), needed - 1) {
            let resets_after = budget.resets_at(now()).saturating_duration_since(now());
            let left = limit.remaining;
            let reserve = self.config.identify_reserve;
            self.refuse_start(myself, StartError::Budget { needed, left, reserve, resets_after });
            return Ok(());
        }
        let queue = self.spawn_queue(myself, &info, &ledger, last_identify).await?;
        let keeper = self.spawn_keeper(myself, &book, known).await?;
        let silence = SilenceWatch::default();
        let fleet = self.fleet.insert(Fleet {
            info,
            queue,
            ledger,
            book,
            keeper,
            shards,
            all_ready_announced: false,
            silence,
            removals: Vec::new(),
            last_removal: 0,
        });
        for shard in ids {
            fleet.shards.spawn(myself, shard, &fleet.queue, self.random.fork()).await?;
        }
        myself.send_after(LOOK_EVERY, || ManagerMessage::Look);
        Ok(())
    }

    async fn spawn_queue(
        &self,
        myself: &ActorRef<ManagerMessage>,
        info: &GatewayInfo,
        ledger: &Arc<Mutex<Ledger>>,
        last_identify: Option<Instant>,
    ) -> Result<ActorRef<QueueMessage>, ActorProcessingErr> {
        let timings = &self.config.timings;
        let asking = self.config.identify_gate.as_ref().map(|gate| {
            let random = self.config.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
            Asking::new(Arc::clone(gate), timings.reconnect, random)
        });
        let arguments = QueueArguments {
            max_concurrency: info.session_start_limit.max_concurrency,
            window: timings.identify_window + timings.identify_margin,
            ledger: Arc::clone(ledger),
            hub: Arc::clone(&self.config.hub),
            last_identify,
            asking,
        };
        let (queue, _) = Actor::spawn_linked(None, IdentifyQueue, arguments, myself.get_cell()).await?;
        Ok(queue)
    }

    /// The sessions to start from, those that the bot was given before those that were stored.
    fn usable(&self, stored: &[SessionRecord]) -> Vec<Session> {
        let mut sessions = self.config.sessions.clone();
        let mut refused = Vec::new();
        for record in stored {
            match record.check(self.config.max_session_age) {
                Ok(()) => sessions.push(record.session.clone()),
                Err(reason) => refused.push(reason),
            }
        }
        if let Some(reason) = refused.first() {
            tracing::warn!(
                sessions = refused.len(),
                "stored sessions are not used, the first since {reason}"
            );
        }
        sessions
    }

    async fn spawn_keeper(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        book: &Arc<Mutex<Book>>,
        known: Vec<Slot>,
    ) -> Result<Option<ActorRef<KeeperMessage>>, ActorProcessingErr> {
        let Some(store) = self.config.store.clone() else { return Ok(None) };
        let (book, hub) = (Arc::clone(book), Arc::clone(&self.config.hub));
        let arguments = KeeperArguments { store, book, hub, random: self.random.fork(), known };
        let (keeper, _) = Actor::spawn_linked(None, SessionKeeper, arguments, myself.get_cell()).await?;
        Ok(Some(keeper))
    }

    // ── Running ─────────────────────────────────────────────────────────────────────────────────────────────

    fn status(&self) -> ManagerStatus {
        match &self.fleet {
            Some(fleet) => ManagerStatus {
                shards: fleet.shards.status(),
                identify: fleet.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner).status,
            },
            None => ManagerStatus::default(),
        }
    }

    fn update_presence(&mut self, presence: PresenceUpdate) {
        if let Some(fleet) = &mut self.fleet {
            fleet.shards.update_every_presence(&presence);
        }
        self.presence = Some(presence);
    }

    fn report(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        shard: ShardId,
        incarnation: Incarnation,
        report: ShardReport,
    ) {
        let Some(fleet) = &mut self.fleet else { return };
        if !fleet.shards.is_current(shard, incarnation) {
            return;
        }
        match report {
            ShardReport::Ready => {
                fleet.shards.set_ready(shard);
                if let Some(keeper) = &fleet.keeper {
                    let _ = keeper.cast(KeeperMessage::LookNow);
                }
                self.announce_if_all_ready();
            }
            ShardReport::Refused(refusal) => {
                fleet.shards.set_ended(shard);
                self.finish_removals();
                self.refused(myself, shard, refusal);
            }
            ShardReport::AskGateway => self.refresh_gateway(myself),
            ShardReport::Ended => {
                fleet.shards.set_ended(shard);
                self.finish_removals();
                self.end_if_all_ended(myself);
            }
        }
    }

    fn announce_if_all_ready(&mut self) {
        let Some(fleet) = &mut self.fleet else { return };
        let shards = fleet.shards.len();
        if !fleet.all_ready_announced && shards > 0 && fleet.shards.all_were_ready() {
            fleet.all_ready_announced = true;
            let lifecycle = Lifecycle::AllReady { generation: GENERATION, shards };
            tracing::info!("{lifecycle}");
            self.config.hub.announce(&lifecycle);
        }
    }

    /// Asks for the gateway again, for a shard that could not reach it; not more often than it may help.
    fn refresh_gateway(&mut self, myself: &ActorRef<ManagerMessage>) {
        let recent = self.asked_at.is_some_and(|at| at.elapsed() < REFRESH_AT_MOST_EVERY);
        if self.stopping.is_none() && !recent {
            self.request_gateway(myself, Duration::ZERO);
        }
    }

    /// What the gateway said when it was asked again.
    fn refreshed(&mut self, answer: Result<GatewayInfo, GatewayInfoError>) {
        let Some(fleet) = &mut self.fleet else { return };
        match answer {
            Ok(info) => {
                let limit = info.session_start_limit;
                let budget = budget(&limit, self.config.identify_reserve);
                let update = QueueMessage::Update { max_concurrency: limit.max_concurrency, budget };
                let _ = fleet.queue.cast(update);
                fleet.shards.set_gateway_url(&info.url);
                fleet.info = info;
            }
            Err(error) => {
                let error = crate::error::chain(&error);
                tracing::warn!(error, "gateway address not available, going on with the one known");
            }
        }
    }

    /// Looks for shards that have fallen silent.
    fn look(&mut self, myself: &ActorRef<ManagerMessage>) {
        let Some(fleet) = self.fleet.as_mut().filter(|_| self.stopping.is_none()) else { return };
        for (shard, quiet_for) in fleet.silence.look(now(), &fleet.shards.readings()) {
            let lifecycle = Lifecycle::Silent { shard, quiet_for };
            tracing::warn!("{lifecycle}");
            self.config.hub.announce(&lifecycle);
        }
        myself.send_after(LOOK_EVERY, || ManagerMessage::Look);
    }

    /// Discord refuses a shard: what that means for the others (GW-096).
    fn refused(&mut self, myself: &ActorRef<ManagerMessage>, shard: ShardId, refusal: Refusal) {
        let Some(fleet) = &self.fleet else { return };
        if refusal.scope == Scope::Layout {
            let lifecycle =
                Lifecycle::LayoutRefused { shard, count: fleet.shards.count(), code: refusal.code };
            tracing::error!("{lifecycle}");
            self.config.hub.announce(&lifecycle);
        }
        let hopeless = match refusal.scope {
            Scope::Bot => true,
            // A layout under which no shard ever was ready is wrong as a whole; do not spend identifies on it.
            Scope::Layout => !fleet.shards.any_was_ready() || fleet.shards.all_ended(),
        };
        if hopeless {
            let _ = fleet.queue.cast(QueueMessage::Freeze);
            let lifecycle = Lifecycle::Refused(refusal);
            self.config.hub.announce(&lifecycle);
            // The other sessions stay good, should the operator mend it within minutes.
            self.begin_end(myself, Farewell::Detach, Ended::Refused(refusal), None);
        }
    }

    async fn child_ended(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        child: &ActorCell,
        error: String,
    ) -> Result<(), ActorProcessingErr> {
        let Some(fleet) = &mut self.fleet else { return Ok(()) };
        if child.get_id() == fleet.queue.get_id() {
            return self.servant_crashed(myself, Servant::IdentifyQueue, error).await;
        }
        if fleet.keeper.as_ref().is_some_and(|keeper| keeper.get_id() == child.get_id()) {
            return self.servant_crashed(myself, Servant::SessionKeeper, error).await;
        }
        let Some(shard) = fleet.shards.lost(child.get_id()) else { return Ok(()) };
        let _ = fleet.queue.cast(QueueMessage::Gone { shard });
        let leaving = fleet.shards.is_leaving(shard);
        if leaving || self.stopping.is_some() {
            fleet.shards.set_ended(shard);
            self.finish_removals();
            self.end_if_all_ended(myself);
            return Ok(());
        }
        let restart = fleet.shards.crashed(now(), shard, &error, self.random.f64());
        let lifecycle = Lifecycle::Crashed {
            shard,
            error,
            restart_after: restart.after,
            quarantined: restart.quarantined,
        };
        tracing::error!("{lifecycle}");
        self.config.hub.announce(&lifecycle);
        let incarnation = fleet.shards.incarnation(shard);
        if restart.after.is_zero() {
            return self.restart(myself, shard, incarnation).await;
        }
        myself.send_after(restart.after, move || ManagerMessage::Restart { shard, incarnation });
        Ok(())
    }

    async fn restart(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        shard: ShardId,
        incarnation: Incarnation,
    ) -> Result<(), ActorProcessingErr> {
        match &mut self.fleet {
            Some(fleet) if self.stopping.is_none() && fleet.shards.is_current(shard, incarnation) => {
                fleet.shards.spawn(myself, shard, &fleet.queue, self.random.fork()).await
            }
            _ => Ok(()),
        }
    }

    /// A child that serves all shards broke down: it is replaced at once, unless it does so again and again.
    async fn servant_crashed(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        servant: Servant,
        error: String,
    ) -> Result<(), ActorProcessingErr> {
        let restart_after = self.servants.crashed(now(), servant, self.random.f64()).after;
        let lifecycle = match servant {
            Servant::IdentifyQueue => Lifecycle::QueueCrashed { error, restart_after },
            Servant::SessionKeeper => Lifecycle::KeeperCrashed { error, restart_after },
        };
        tracing::error!("{lifecycle}");
        self.config.hub.announce(&lifecycle);
        if restart_after.is_zero() {
            return self.replace(myself, servant).await;
        }
        myself.send_after(restart_after, move || ManagerMessage::Replace(servant));
        Ok(())
    }

    async fn replace(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        servant: Servant,
    ) -> Result<(), ActorProcessingErr> {
        let Some(fleet) = self.fleet.as_ref().filter(|_| self.stopping.is_none()) else { return Ok(()) };
        match servant {
            Servant::IdentifyQueue => {
                // What the old one has let through in its last moment is not known.
                let queue = self.spawn_queue(myself, &fleet.info, &fleet.ledger, Some(now())).await?;
                let tell = |actor: &ActorRef<_>| drop(actor.cast(ShardMessage::QueueReplaced(queue.clone())));
                fleet.shards.for_each_actor(tell);
                self.fleet.iter_mut().for_each(|fleet| fleet.queue = queue.clone());
            }
            Servant::SessionKeeper => {
                // Nor is known what the old one has stored.
                let book = Arc::clone(&fleet.book);
                let known = fleet.shards.slots();
                let keeper = self.spawn_keeper(myself, &book, known).await?;
                self.fleet.iter_mut().for_each(|fleet| fleet.keeper = keeper.clone());
            }
        }
        Ok(())
    }

    // ── Changing the set of shards ──────────────────────────────────────────────────────────────────────────

    async fn add_shards(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        ids: &[ShardId],
        sessions: Vec<Session>,
    ) -> Result<Result<(), ShardsRejected>, ActorProcessingErr> {
        let fleet = match &mut self.fleet {
            _ if self.stopping.is_some() => return Ok(Err(ShardsRejected::ManagerEnded)),
            None => return Ok(Err(ShardsRejected::Starting)),
            Some(fleet) => fleet,
        };
        let added = match fleet.shards.add(ids, sessions, self.presence.as_ref()) {
            Ok(added) => added,
            Err(rejected) => return Ok(Err(rejected)),
        };
        tracing::info!(shards = added.len(), "adding shards");
        for shard in added {
            fleet.shards.spawn(myself, shard, &fleet.queue, self.random.fork()).await?;
        }
        Ok(Ok(()))
    }

    fn remove_shards(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        ids: &[ShardId],
        reply: RpcReplyPort<Result<Vec<Session>, ShardsRejected>>,
    ) {
        let begun = match &mut self.fleet {
            _ if self.stopping.is_some() => Err(ShardsRejected::ManagerEnded),
            None => Err(ShardsRejected::Starting),
            Some(fleet) => fleet.shards.begin_removal(ids).map(|waiting| (fleet, waiting)),
        };
        match begun {
            Ok((fleet, waiting)) => {
                tracing::info!(shards = waiting.len(), "removing shards");
                fleet.last_removal += 1;
                let number = fleet.last_removal;
                fleet.removals.push(Removal { number, waiting, sessions: Vec::new(), reply });
                myself.send_after(self.config.end_deadline, move || ManagerMessage::RemovalDeadline(number));
                self.finish_removals();
            }
            Err(rejected) => drop(reply.send(Err(rejected))),
        }
    }

    /// Lets go of the shards that have closed, and answers for removals that are complete.
    fn finish_removals(&mut self) {
        let Some(fleet) = &mut self.fleet else { return };
        if fleet.removals.is_empty() || self.stopping.is_some() {
            return;
        }
        for removal in &mut fleet.removals {
            let left = removal.waiting.iter().copied().filter(|shard| fleet.shards.has_left(*shard));
            for shard in left.collect::<Vec<_>>() {
                removal.waiting.remove(&shard);
                removal.sessions.extend(fleet.shards.remove(shard));
            }
        }
        for removal in fleet.removals.extract_if(.., |removal| removal.waiting.is_empty()) {
            let _ = removal.reply.send(Ok(removal.sessions));
        }
        // The last one that the others waited for may be gone.
        self.announce_if_all_ready();
    }

    fn removal_deadline(&mut self, number: u64) {
        let Some(fleet) = &self.fleet else { return };
        for removal in fleet.removals.iter().filter(|removal| removal.number == number) {
            removal.waiting.iter().for_each(|shard| fleet.shards.kill(*shard));
        }
    }

    async fn restart_shard(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        shard: ShardId,
        by: RestartBy,
    ) -> Result<Result<(), ShardsRejected>, ActorProcessingErr> {
        let fleet = match &mut self.fleet {
            _ if self.stopping.is_some() => return Ok(Err(ShardsRejected::ManagerEnded)),
            None => return Ok(Err(ShardsRejected::Starting)),
            Some(fleet) => fleet,
        };
        match fleet.shards.restart(shard, by) {
            Ok(true) => fleet.shards.spawn(myself, shard, &fleet.queue, self.random.fork()).await?,
            Ok(false) => {}
            Err(rejected) => return Ok(Err(rejected)),
        }
        Ok(Ok(()))
    }

    // ── Ending ──────────────────────────────────────────────────────────────────────────────────────────────

    fn begin_end(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        farewell: Farewell,
        outcome: Ended,
        reply: Option<RpcReplyPort<Vec<Session>>>,
    ) {
        if let Some(stopping) = &mut self.stopping {
            // It is under way; a stop on top of a detach does not take the sessions back.
            stopping.replies.extend(reply);
            return;
        }
        self.stopping =
            Some(Stopping { farewell, outcome, flushing: false, replies: reply.into_iter().collect() });
        if let Some(request) = &self.request {
            request.abort();
        }
        if let Some(fleet) = &mut self.fleet {
            fleet.shards.end_all(farewell);
        }
        myself.send_after(self.config.end_deadline, || ManagerMessage::EndDeadline);
        self.end_if_all_ended(myself);
    }

    fn end_if_all_ended(&mut self, myself: &ActorRef<ManagerMessage>) {
        let ended = self.fleet.as_ref().is_none_or(|fleet| fleet.shards.all_ended());
        let Some(stopping) = self.stopping.as_mut().filter(|stopping| ended && !stopping.flushing) else {
            return;
        };
        let Some(keeper) = self.fleet.as_ref().and_then(|fleet| fleet.keeper.as_ref()) else {
            self.finish_end(myself);
            return;
        };
        // The last word on each session goes into the store; until the deadline.
        stopping.flushing = true;
        let (reply, flushed) = ractor::concurrency::oneshot();
        let _ = keeper.cast(KeeperMessage::Flush(reply.into()));
        let myself = myself.clone();
        tokio::spawn(async move {
            let _ = flushed.await;
            let _ = myself.cast(ManagerMessage::Flushed);
        });
    }

    fn finish_end(&mut self, myself: &ActorRef<ManagerMessage>) {
        let Some(stopping) = &mut self.stopping else { return };
        let sessions = match (stopping.farewell, &self.fleet) {
            (Farewell::Detach, Some(fleet)) => fleet.shards.sessions(),
            // Stopped before it had begun: what it was given is as good as before.
            (Farewell::Detach, None) => self.config.sessions.clone(),
            (Farewell::Stop, _) => Vec::new(),
        };
        self.config.hub.announce(&Lifecycle::Ended);
        self.config.ended.send_replace(Some(stopping.outcome));
        stopping.replies.drain(..).for_each(|reply| drop(reply.send(sessions.clone())));
        myself.stop(None);
    }
}

fn budget(limit: &SessionStartLimit, reserve: u32) -> IdentifyBudget {
    let reset_after = Duration::from_millis(limit.reset_after_ms);
    IdentifyBudget::new(now(), limit.total, limit.remaining, reset_after, reserve)
}

/// What is left of a budget by our own count: everything, when its period is over.
fn remaining(spent: &BudgetRecord, limit: &SessionStartLimit) -> u32 {
    let counts = spent.total == limit.total && spent.resets_at_ms > store::wall_ms();
    if counts { spent.remaining } else { limit.remaining }
}

/// Asks the store what it holds, several times if need be: to start without its sessions costs an Identify for each.
fn load_store(store: Arc<dyn SessionStore>, manager: ActorRef<ManagerMessage>) {
    tokio::spawn(async move {
        let deadline = tokio::time::Instant::now() + LOAD_DEADLINE;
        let stored = loop {
            let loading = catching(async { store.load().await });
            match tokio::time::timeout_at(deadline, loading).await {
                Ok(Err(_)) if tokio::time::Instant::now() + LOAD_AGAIN_AFTER < deadline => {
                    tokio::time::sleep(LOAD_AGAIN_AFTER).await;
                }
                Ok(stored) => break stored,
                Err(elapsed) => break Err(elapsed.into()),
            }
        };
        let _ = manager.cast(ManagerMessage::Stored(stored));
    });
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
