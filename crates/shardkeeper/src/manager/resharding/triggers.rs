//! What begins a reshard without an operator: a recommendation, a refused Identify, a start that followed the
//! sessions of another layout, and a reshard that an earlier process had begun.

use std::time::{Duration, Instant};

use ractor::ActorRef;
use shardkeeper_proto::ShardCount;
use shardkeeper_proto::close::CloseCode;

use super::super::phase::Phase;
use super::super::{ManagerState, now};
use super::configured_count;
use crate::dispatch::Lifecycle;
use crate::error::ReshardRejected;
use crate::layout::{Role, ShardKey};
use crate::message::{ManagerMessage, SentinelMessage};
use crate::reshard::phases::Input;
use crate::reshard::{HaltReason, ReshardTarget};

/// How long the bot waits until it tries again to reshard by itself, after new shards were not ready in time.
/// Doubled by each further attempt.
const FIRST_WAIT: Duration = Duration::from_secs(3600);
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Why a reshard did not reach its end, and so when another one may begin without an operator.
#[derive(Clone, Copy)]
pub(in super::super) struct Setback {
    reason: HaltReason,
    count: ShardCount,
    at: Instant,
    wait: Duration,
}

impl Setback {
    pub(super) fn new(reason: HaltReason, count: ShardCount, earlier: Option<Self>, at: Instant) -> Self {
        let earlier = earlier.filter(|earlier| earlier.reason == HaltReason::Deadline);
        let wait = earlier.map_or(FIRST_WAIT, |earlier| LONGEST_WAIT.min(earlier.wait * 2));
        Self { reason, count, at, wait }
    }

    /// Whether the bot may reshard to this count by itself.
    fn allows(&self, count: u32, now: Instant) -> bool {
        match self.reason {
            // What an operator has aborted waits for the operator.
            HaltReason::Aborted => false,
            // Each attempt costs an Identify.
            HaltReason::Refused(_) => self.count.get() != count,
            HaltReason::Deadline => now >= self.at + self.wait,
        }
    }
}

impl ManagerState {
    /// Follows the gateway's latest recommendation, if that is worth it.
    pub(in super::super) fn consider_recommendation(&mut self, myself: &ActorRef<ManagerMessage>) {
        let policy = self.config.settings.reshard;
        let Phase::Running(fleet) = &mut self.phase else { return };
        if !policy.automatic {
            return;
        }
        let setback = fleet.setback;
        let allows = |count: u32| setback.is_none_or(|setback| setback.allows(count, now()));
        if let Some(reshard) = fleet.reshard.as_mut().filter(|reshard| reshard.machine.halted().is_some()) {
            if allows(reshard.plan.next_count.get()) {
                reshard.inputs.push(Input::Resume);
            }
            return;
        }
        let layouts = fleet.shards.layouts();
        let (count, recommended) = (layouts.current.count.get(), fleet.info.shards);
        let refused = fleet.shards.is_refused() && recommended > count;
        let wanted = refused || policy.follows(count, recommended);
        if layouts.next.is_none() && wanted && allows(recommended) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setback_says_when_the_bot_may_reshard_by_itself_again() {
        let count = ShardCount::new(8).unwrap();
        let now = Instant::now();
        let hours = |hours: u64| now + Duration::from_secs(3600 * hours);
        let aborted = Setback::new(HaltReason::Aborted, count, None, now);
        assert!(!aborted.allows(8, hours(1000)) && !aborted.allows(9, hours(1000)));
        let refused = Setback::new(HaltReason::Refused(CloseCode(4010)), count, Some(aborted), now);
        assert!(!refused.allows(8, hours(1000)) && refused.allows(9, now));
        let mut late = Some(refused);
        for wait in [1, 2, 4, 8, 16, 24, 24] {
            let setback = Setback::new(HaltReason::Deadline, count, late, now);
            assert!(
                !setback.allows(8, hours(wait) - Duration::from_secs(1)) && setback.allows(8, hours(wait))
            );
            late = Some(setback);
        }
    }
}
