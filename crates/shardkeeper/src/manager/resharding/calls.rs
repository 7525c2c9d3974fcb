//! What an operator can call: reshard, pause, resume, abort.

use ractor::{ActorRef, RpcReplyPort};

use super::super::ManagerState;
use super::super::phase::Phase;
use crate::error::{ManagerEnded, ReshardRejected};
use crate::message::{ManagerMessage, ReshardControl, SentinelMessage};
use crate::reshard::phases::Input;
use crate::reshard::{HalfWay, ReshardPlan, ReshardRequest, ReshardTarget, Situation, plan};

/// A request that waits for the gateway's answer.
pub(in super::super) struct WaitingRequest {
    request: ReshardRequest,
    reply: RpcReplyPort<Result<ReshardPlan, ReshardRejected>>,
}

impl ManagerState {
    /// Asks the gateway first, because the recommendation and the budget may be hours old (GW-237).
    pub(in super::super) fn reshard_call(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        request: ReshardRequest,
        reply: RpcReplyPort<Result<ReshardPlan, ReshardRejected>>,
    ) {
        if let Err(error) = self.reshardable() {
            let _ = reply.send(Err(error));
            return;
        }
        self.reshard_requests.push(WaitingRequest { request, reply });
        let asked = self.ask_limits.may_ask()
            && self.sentinel.as_ref().is_some_and(|sentinel| sentinel.cast(SentinelMessage::Ask).is_ok());
        if !asked {
            self.answer_reshard_requests(myself, Some("it may not be asked now".to_owned()));
        }
    }

    fn reshardable(&self) -> Result<(), ReshardRejected> {
        match &self.phase {
            Phase::Starting(_) => Err(ReshardRejected::Starting),
            Phase::Running(_) => Ok(()),
            Phase::Stopping(_) => Err(ManagerEnded.into()),
        }
    }

    /// Plans the requests that wait, with the gateway's new answer or, after this error, with the last one.
    /// Returns whether somebody only wanted to see a plan: then nothing else is to follow from the answer.
    pub(in super::super) fn answer_reshard_requests(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        error: Option<String>,
    ) -> bool {
        let only_planned = self.reshard_requests.iter().any(|waiting| waiting.request.dry_run);
        for WaitingRequest { request, reply } in std::mem::take(&mut self.reshard_requests) {
            let answer = match (&error, request.target) {
                (Some(error), ReshardTarget::Recommended) => {
                    Err(ReshardRejected::GatewayUnavailable { error: error.clone() })
                }
                _ => self.plan(request.target),
            };
            if let Ok(plan) = &answer
                && !request.dry_run
            {
                self.begin_reshard(myself, plan.clone(), request.intents);
                if let Phase::Running(fleet) = &mut self.phase {
                    fleet.setback = None;
                }
            }
            let _ = reply.send(answer);
        }
        only_planned
    }

    /// Plans a reshard from the present state.
    pub(super) fn plan(&self, target: ReshardTarget) -> Result<ReshardPlan, ReshardRejected> {
        self.reshardable()?;
        let Phase::Running(fleet) = &self.phase else { return Err(ReshardRejected::Starting) };
        let layouts = fleet.shards.layouts();
        let half_way = layouts.next.as_ref().map(|next| HalfWay {
            generation: next.layout.generation,
            count: next.layout.count,
            moved: &next.moved,
        });
        let owned = fleet.shards.ids_of(layouts.current.generation);
        let situation = Situation {
            generation: layouts.current.generation,
            count: layouts.current.count,
            half_way,
            running: self.is_resharding(),
            owned: &owned,
            recommended: fleet.info.shards,
            allowance: fleet.allowance(&self.config.settings),
        };
        plan(target, &situation, &self.config.settings.reshard)
    }

    pub(in super::super) fn control_reshard(
        &mut self,
        control: ReshardControl,
    ) -> Result<(), ReshardRejected> {
        self.reshardable()?;
        let Phase::Running(fleet) = &mut self.phase else { return Err(ReshardRejected::NotRunning) };
        let reshard = fleet.reshard.as_mut().filter(|reshard| !reshard.machine.is_over());
        let reshard = reshard.ok_or(ReshardRejected::NotRunning)?;
        // The next tick takes it. A tick comes every 250 ms, and equal orders have no further effect.
        let input = match control {
            ReshardControl::Pause => Input::Pause,
            ReshardControl::Resume => Input::Resume,
            ReshardControl::Abort => Input::Abort,
        };
        if reshard.inputs.last() != Some(&input) {
            reshard.inputs.push(input);
        }
        Ok(())
    }
}
