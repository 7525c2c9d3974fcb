//! What the gateway's answers to `GET /gateway/bot` lead to: a start, or new limits, a new address and
//! advice.

use std::time::Duration;

use ractor::{ActorProcessingErr, ActorRef};
use shardkeeper_proto::IdentifyBudget;

use super::phase::{Phase, StartStep, Starting};
use super::{ManagerState, now};
use crate::dispatch::Lifecycle;
use crate::error::StartError;
use crate::gateway_info::{GatewayInfo, GatewayInfoError, SessionStartLimit};
use crate::message::{ManagerMessage, QueueMessage};

impl ManagerState {
    pub(super) async fn gateway(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        info: GatewayInfo,
    ) -> Result<(), ActorProcessingErr> {
        match &mut self.phase {
            Phase::Starting(Starting { step, .. }) => match step {
                StartStep::AwaitStore { gateway, .. } => *gateway = Some(info),
                StartStep::AwaitGateway(contents) => {
                    let contents = std::mem::take(contents);
                    self.start(myself, info, contents).await?;
                }
                StartStep::Failed => {}
            },
            Phase::Running(_) => {
                self.refreshed(info);
                if !self.answer_reshard_requests(myself, None) {
                    self.consider_recommendation(myself);
                }
            }
            Phase::Stopping(_) => {}
        }
        Ok(())
    }

    pub(super) fn no_gateway(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        error: GatewayInfoError,
        retry_after: Option<Duration>,
    ) {
        match &self.phase {
            Phase::Starting(_) if !error.is_retryable() => {
                self.fail_start(myself, StartError::Gateway(error))
            }
            Phase::Starting(_) | Phase::Running(_) => {
                let error = crate::chain::chain(&error);
                self.answer_reshard_requests(myself, Some(error.clone()));
                self.live.hub.announce(&Lifecycle::GatewayUnavailable { error, retry_after });
            }
            Phase::Stopping(_) => {}
        }
    }

    /// Passes a later answer on to whoever depends on it.
    fn refreshed(&mut self, info: GatewayInfo) {
        let Phase::Running(fleet) = &mut self.phase else { return };
        let limit = info.session_start_limit;
        let budget = budget(&limit, self.config.settings.identify_reserve);
        let update = QueueMessage::Update { max_concurrency: limit.max_concurrency, budget };
        // At once: a reshard may be planned from it now, and after a crash of the queue nobody else does it.
        fleet.ledger.reconcile(now(), budget);
        let _ = fleet.queue.cast(update);
        fleet.shards.set_gateway_url(&info.url);
        fleet.info = info;
        self.announce_advice();
    }

    /// Announces that Discord recommends more shards than the layout has, once for each new maximum.
    pub(super) fn announce_advice(&mut self) {
        let Phase::Running(fleet) = &mut self.phase else { return };
        let (advised, count) = (fleet.info.shards, fleet.shards.layouts().newest().count);
        if advised > fleet.advised.max(count.get()) {
            fleet.advised = advised;
            self.live.hub.announce(&Lifecycle::MoreShardsAdvised { count, advised });
        }
    }
}

pub(super) fn budget(limit: &SessionStartLimit, reserve: u32) -> IdentifyBudget {
    let reset_after = Duration::from_millis(limit.reset_after_ms);
    IdentifyBudget::new(now(), limit.total, limit.remaining, reset_after, reserve)
}
