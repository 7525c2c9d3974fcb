//! What begins a reshard without an operator: a recommendation, a refused Identify, a start that followed the
//! sessions of another layout, and a reshard that an earlier process had begun.

use ractor::ActorRef;
use shardkeeper_proto::close::CloseCode;

use super::super::ManagerState;
use super::super::phase::Phase;
use super::configured_count;
use crate::dispatch::Lifecycle;
use crate::error::ReshardRejected;
use crate::layout::{Role, ShardKey};
use crate::message::{ManagerMessage, SentinelMessage};
use crate::reshard::phases::Input;
use crate::reshard::{HaltReason, ReshardTarget};

impl ManagerState {
    /// Follows the gateway's latest recommendation, if that is worth it.
    pub(in super::super) fn consider_recommendation(&mut self, myself: &ActorRef<ManagerMessage>) {
        let policy = self.config.settings.reshard;
        let Phase::Running(fleet) = &mut self.phase else { return };
        if !policy.automatic {
            return;
        }
        if let Some(reshard) = &mut fleet.reshard
            && let Some(reason) = reshard.machine.halted()
        {
            // One attempt per check. What an operator has aborted waits for the operator.
            if reason != HaltReason::Aborted {
                reshard.inputs.push(Input::Resume);
            }
            return;
        }
        let layouts = fleet.shards.layouts();
        let (count, recommended) = (layouts.current.count.get(), fleet.info.shards);
        let refused = fleet.shards.is_refused() && recommended > count;
        if layouts.next.is_none() && (refused || policy.follows(count, recommended)) {
            self.begin_by_itself(myself, ReshardTarget::Recommended);
        }
    }

    /// Begins a reshard that nobody has called for, or announces why that is not possible.
    fn begin_by_itself(&mut self, myself: &ActorRef<ManagerMessage>, target: ReshardTarget) -> bool {
        match self.plan(target) {
            Ok(plan) => {
                self.begin_reshard(myself, plan, None);
                true
            }
            // The next check finds it done.
            Err(ReshardRejected::AlreadyRunning { .. }) => true,
            Err(error) => {
                self.live.hub.announce(&Lifecycle::ReshardRejected(error));
                false
            }
        }
    }

    /// Goes on with the reshard of an earlier process.
    pub(in super::super) fn continue_reshard(&mut self, myself: &ActorRef<ManagerMessage>) {
        let Phase::Running(fleet) = &self.phase else { return };
        if let Some(next) = &fleet.shards.layouts().next {
            let target = ReshardTarget::Count(next.layout.count);
            self.begin_by_itself(myself, target);
        }
    }

    /// Reshards to the count that the bot wants to have, after a start that followed stored sessions: once all
    /// of them are resumed.
    pub(in super::super) fn follow_wish(&mut self, myself: &ActorRef<ManagerMessage>) {
        let configured = configured_count(&self.config);
        let policy = self.config.settings.reshard;
        let Phase::Running(fleet) = &mut self.phase else { return };
        let current = fleet.shards.layouts().current;
        if fleet.reshard.is_some() || !fleet.shards.all_were_ready(current.generation) {
            return;
        }
        let Some(wanted) = fleet.wanted.take() else { return };
        if configured.is_some() || policy.automatic && policy.follows(current.count.get(), wanted.get()) {
            self.begin_by_itself(myself, ReshardTarget::Count(wanted));
        }
    }

    /// Whether a reshard deals with the refusal of this shard: its own new shards are withdrawn, and a layout
    /// that has become too small is replaced (GW-087, GW-096).
    pub(in super::super) fn reshard_instead(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        shard: ShardKey,
        code: CloseCode,
    ) -> bool {
        const TOKEN_IS_INVALID: CloseCode = CloseCode(4004);
        let automatic = self.config.settings.reshard.automatic;
        let is_layout = matches!(code, CloseCode(4010 | 4011));
        let Phase::Running(fleet) = &mut self.phase else { return false };
        let role = fleet.shards.layouts().role(shard);
        if let Some(reshard) = fleet.reshard.as_mut().filter(|reshard| !reshard.machine.is_over()) {
            if role == Role::Warming && code != TOKEN_IS_INVALID {
                // The old shards need neither the new count nor the new intents.
                reshard.inputs.push(Input::Refused(code));
                return true;
            }
            if is_layout && reshard.is_running() {
                // The guilds of an old shard are served again once their group has moved.
                return role != Role::Active || shard.generation == reshard.plan.generation;
            }
        }
        if !(is_layout && automatic) {
            return false;
        }
        match self.plan(ReshardTarget::Recommended) {
            // The recommendation may be hours old.
            Err(ReshardRejected::NothingToDo { .. } | ReshardRejected::TooFewShards { .. }) => {
                if let Some(sentinel) = &self.sentinel {
                    let _ = sentinel.cast(SentinelMessage::Ask);
                }
                false
            }
            _ => self.begin_by_itself(myself, ReshardTarget::Recommended),
        }
    }
}
