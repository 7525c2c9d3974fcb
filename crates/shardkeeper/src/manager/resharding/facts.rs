//! The facts that the phases of a reshard decide by.

use std::time::Duration;

use super::super::config::Settings;
use super::super::now;
use super::super::phase::Fleet;
use super::Resharding;
use crate::command::MembersRequests;
use crate::dispatch::OverlapPhase;
use crate::layout::ShardKey;
use crate::reshard::phases::Reading;
use crate::reshard::{Allowance, GroupPhase};

/// How long an old shard stays after the cut-over at least: answers to the last requests of the bot arrive
/// within a round trip.
const ANSWERS_TAKE: Duration = Duration::from_secs(1);

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
        let Some(overlap) = &mut reshard.current else {
            let allowance = self.allowance(settings);
            let resumable = self.shards.with_session(group.residue, reshard.plan.next_generation);
            let needed = u32::try_from(group.new.len().saturating_sub(resumable)).unwrap_or(u32::MAX);
            let reserve = allowance.reserve(&settings.reshard);
            // Sessions that are not resumed at once are lost, and an Identify with each.
            let affordable = resumable > 0 || allowance.left >= needed.saturating_add(reserve);
            let idle = reshard.machine.phase().is_none() && reshard.machine.halted().is_none();
            reshard.waits_for_budget = idle && !affordable;
            let old = self.shards.group(group.residue, reshard.plan.generation);
            let in_tail = |key: &ShardKey| reshard.tails.iter().any(|tail| tail.new.contains(key));
            reading.affordable = affordable && !old.iter().any(in_tail);
            return reading;
        };
        overlap.look(&self.shards);
        let report = &overlap.report;
        reading.warm = matches!(report.phase, OverlapPhase::Probing | OverlapPhase::Ready)
            && overlap.new.iter().all(|key| self.shards.is_ready(*key));
        reading.frozen = !report.frozen.is_empty();
        reading.level = report.phase == OverlapPhase::Ready && overlap.is_acknowledged(&self.shards);
        if reshard.machine.phase() == Some(GroupPhase::Draining) {
            let waited = overlap.cut_at.is_some_and(|at| now() >= at + ANSWERS_TAKE);
            // The answer to a request for all members may last longer than answers take.
            let awaits_answers =
                |key: &ShardKey| self.shards.awaits_answers(now(), *key) || members.are_awaited(*key);
            let is_done = |key: &ShardKey| self.shards.is_settled(*key) && !awaits_answers(key);
            reading.drained = waited && overlap.old.iter().all(is_done);
        }
        reading
    }
}
