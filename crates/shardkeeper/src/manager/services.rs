//! How the children that serve all shards are started: sentinel, identify queue and session keeper.

use std::sync::{Arc, Mutex};

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::ManagerState;
use super::phase::{Phase, StartStep, Starting};
use super::sentinel::{ReshardSentinel, SentinelArguments};
use crate::gateway_info::GatewayInfo;
use crate::identify::{GateClient, IdentifyLedger, IdentifyQueue, QueueArguments};
use crate::message::{ManagerMessage, QueueMessage, SentinelMessage};
use crate::session::{KeeperArguments, KeeperMessage, SessionKeeper, SessionTable};
use crate::store::StoreLease;

impl ManagerState {
    pub(super) async fn spawn_sentinel(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
    ) -> Result<ActorRef<SentinelMessage>, ActorProcessingErr> {
        let arguments = SentinelArguments {
            config: Arc::clone(&self.config),
            manager: myself.clone(),
            random: self.random.fork(),
            awaited: self.awaits_gateway(),
            limits: Arc::clone(&self.ask_limits),
        };
        let (sentinel, _) = Actor::spawn_linked(None, ReshardSentinel, arguments, myself.get_cell()).await?;
        Ok(sentinel)
    }

    /// Whether a start waits for the sentinel's first answer.
    fn awaits_gateway(&self) -> bool {
        let Phase::Starting(Starting { step, .. }) = &self.phase else { return false };
        let has_answer = matches!(step, StartStep::AwaitStore { gateway: Some(_), .. });
        !has_answer && self.config.settings.gateway.is_none()
    }

    pub(super) async fn spawn_queue(
        &self,
        myself: &ActorRef<ManagerMessage>,
        info: &GatewayInfo,
        ledger: &Arc<IdentifyLedger>,
    ) -> Result<ActorRef<QueueMessage>, ActorProcessingErr> {
        let timings = &self.config.settings.timings;
        let gate = self.config.settings.identify_gate.as_ref().map(|gate| {
            let random = self.config.settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
            GateClient::new(Arc::clone(gate), timings.reconnect, random)
        });
        let arguments = QueueArguments {
            max_concurrency: info.session_start_limit.max_concurrency,
            window: timings.identify_window + timings.identify_margin,
            ledger: Arc::clone(ledger),
            hub: Arc::clone(&self.live.hub),
            gate,
        };
        let (queue, _) = Actor::spawn_linked(None, IdentifyQueue, arguments, myself.get_cell()).await?;
        Ok(queue)
    }

    pub(super) async fn spawn_keeper(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        store: Arc<StoreLease>,
        table: Arc<Mutex<SessionTable>>,
    ) -> Result<ActorRef<KeeperMessage>, ActorProcessingErr> {
        let arguments = KeeperArguments {
            store,
            book: table,
            hub: Arc::clone(&self.live.hub),
            random: self.random.fork(),
            max_age: self.config.settings.max_session_age,
            wall_clock: Arc::clone(&self.config.settings.wall_clock),
        };
        let (keeper, _) = Actor::spawn_linked(None, SessionKeeper, arguments, myself.get_cell()).await?;
        Ok(keeper)
    }
}
