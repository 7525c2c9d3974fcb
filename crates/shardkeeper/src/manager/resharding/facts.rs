//! The facts that the phases of a reshard decide by.

use super::super::config::Settings;
use super::super::now;
use super::super::phase::Fleet;
use super::Resharding;
use crate::command::MembersRequests;
use crate::dispatch::{OverlapPhase, Side};
use crate::layout::ShardKey;
use crate::reshard::phases::Reading;
use crate::reshard::{Allowance, GroupPhase};

impl Fleet {
    /// What is left to identify with.
    pub(super) fn allowance(&self, settings: &Settings) -> Allowance {
        let mut budget = self.ledger.budget();
        Allowance {
            total: budget.total(),
            left: budget.left(now()),
            resets_after: budget.resets_at(now()).saturating_duration_since(now()),
            // As the budget itself applies it.
            floor: settings.identify_reserve.min(budget.total() / 2),
            max_concurrency: self.info.session_start_limit.max_concurrency,
            window: settings.timings.identify_window + settings.timings.identify_margin,
        }
    }

    pub(super) fn reading(
        &mut self,
        reshard: &mut Resharding,
        settings: &Settings,
        members: &MembersRequests,
    ) -> Reading {
        let mut reading = Reading::default();
        let Some(group) = reshard.machine.group() else { return reading };
        reading.in_voice = !self.shards.guilds_in_voice(group.residue).is_empty();
        match &reshard.current {
            None => {
                let allowance = self.allowance(settings);
                let resumable = self.shards.with_session(group.residue, reshard.plan.next_generation);
                let needed = u32::try_from(group.new.len().saturating_sub(resumable)).unwrap_or(u32::MAX);
                let reserve = allowance.reserve(&settings.reshard);
                reading.affordable = needed == 0 || allowance.left >= needed.saturating_add(reserve);
                let idle = reshard.machine.phase().is_none() && reshard.machine.halted().is_none();
                reshard.waits_for_budget = idle && !reading.affordable;
            }
            Some(overlap) => {
                let report = overlap.report(now());
                for (side, shard, number) in &report.probes {
                    let shards = match side {
                        Side::Old => &overlap.old,
                        Side::New => &overlap.new,
                    };
                    self.shards.probe(shards, *shard, *number);
                }
                reading.warm = matches!(report.phase, OverlapPhase::Probing | OverlapPhase::Ready);
                reading.level = report.phase == OverlapPhase::Ready;
                if reshard.machine.phase() == Some(GroupPhase::Draining) {
                    let is_drained = |key: &ShardKey| {
                        let awaits_answers =
                            self.shards.awaits_answers(now(), *key) || members.are_awaited(*key);
                        self.shards.is_settled(*key) && !awaits_answers
                    };
                    reading.drained = overlap.old.iter().all(is_drained);
                }
            }
        }
        reading
    }
}
