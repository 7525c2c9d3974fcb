//! What the phases of a reshard ask for, done on the table of shards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorProcessingErr, ActorRef};

use super::super::phase::Phase;
use super::super::{ManagerState, now};
use super::overlap::GroupOverlap;
use super::{Resharding, Save, Setback};
use crate::dispatch::{Lifecycle, NotYet};
use crate::layout::ShardKey;
use crate::message::{ManagerMessage, ShutdownMode};
use crate::reshard::phases::{Action, Input, Side};
use crate::reshard::{GroupPhase, HaltReason, ReshardGroup};
use crate::session::KeeperMessage;

/// How long to wait before the session keeper is asked again to save the layout.
const SAVE_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl ManagerState {
    pub(super) async fn carry_out(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        reshard: &mut Resharding,
        action: Action,
    ) -> Result<Option<Input>, ActorProcessingErr> {
        match action {
            Action::Warm(group) => self.warm_up(myself, reshard, &group).await?,
            Action::CutOver(group) => return Ok(Some(Input::CutOver(self.cut_over(reshard, &group)))),
            Action::Save(number) => {
                reshard.save = Some(Save { number, ask_at: Some(now()) });
                self.ask_save(myself, reshard);
            }
            Action::StopOld(_) => {
                if let Some(overlap) = reshard.current.take() {
                    self.close(myself, reshard, Side::Old, overlap.old.clone());
                    reshard.tails.push(overlap);
                }
            }
            Action::StopNew(_) => {
                if let Some(overlap) = reshard.current.take() {
                    overlap.overlap.withdraw();
                    // The withdrawal has dropped what was held.
                    reshard.ended = super::add(reshard.ended, overlap.overlap.look(now()).counts);
                    let Phase::Running(fleet) = &mut self.phase else { return Ok(None) };
                    fleet.shards.end_overlap(&overlap.old);
                    self.close(myself, reshard, Side::New, overlap.new);
                }
            }
            Action::Announce(group, phase) => self.announce_group(reshard, &group, phase),
            Action::Halt(reason) => {
                self.note_setback(reshard, reason);
                let (groups, done) = reshard.progress();
                self.live.hub.announce(&Lifecycle::ReshardHalted { reason, done, groups });
            }
            Action::Finish => self.finish_reshard(reshard),
            Action::Withdraw(reason) => self.withdraw_reshard(reshard, reason),
        }
        Ok(None)
    }

    /// Records what the old shards publish, and starts the new ones. The new ones come second, so that the
    /// record begins before the first of them has a session.
    async fn warm_up(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        reshard: &mut Resharding,
        group: &Arc<ReshardGroup>,
    ) -> Result<(), ActorProcessingErr> {
        let Phase::Running(fleet) = &mut self.phase else { return Ok(()) };
        fleet.shards.add_group(group.residue, self.presence.as_ref());
        let keys = |fleet: &super::super::phase::Fleet, generation| -> BTreeSet<ShardKey> {
            fleet.shards.group(group.residue, generation).into_iter().collect()
        };
        let (old, new) = (keys(fleet, reshard.plan.generation), keys(fleet, reshard.plan.next_generation));
        let overlap = fleet.shards.begin_overlap(&old, &new);
        reshard.current = Some(GroupOverlap::new(old, new.clone(), overlap));
        for shard in new {
            fleet.shards.spawn(myself, shard, &fleet.queue, self.random.fork()).await?;
        }
        if let Some(keeper) = &fleet.keeper {
            let _ = keeper.cast(KeeperMessage::LookNow);
        }
        Ok(())
    }

    /// Switches a group: delivery and routing in one handler, so that no call sees one without the other.
    fn cut_over(&mut self, reshard: &mut Resharding, group: &ReshardGroup) -> bool {
        let Phase::Running(fleet) = &mut self.phase else { return false };
        let Some(overlap) = &mut reshard.current else { return false };
        if !overlap.new.iter().all(|key| fleet.shards.is_ready(*key)) {
            return false;
        }
        match overlap.overlap.cut_over(now()) {
            Ok(()) => {
                overlap.cut_at = Some(now());
                fleet.shards.cut_over(group.residue);
                true
            }
            Err(reason) => {
                reshard.is_behind = matches!(reason, NotYet::Behind(_));
                tracing::debug!(group = group.residue, "the new shards cannot take over yet: {reason}");
                false
            }
        }
    }

    fn close(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        reshard: &mut Resharding,
        side: Side,
        shards: BTreeSet<ShardKey>,
    ) {
        let Phase::Running(fleet) = &mut self.phase else { return };
        reshard.closing = Some((side, shards.clone()));
        // Nobody waits for the answer: the ticks see that the shards are gone.
        let (reply, _) = ractor::concurrency::oneshot();
        let number = fleet.shards.begin_removal(shards, ShutdownMode::Stop, reply.into());
        myself.send_after(self.config.settings.shutdown_timeout, move || {
            ManagerMessage::RemovalDeadline(number)
        });
        self.finish_removals();
    }

    /// Asks the session keeper to save the layout, unless it has been asked. Without a store nothing has to be
    /// saved.
    pub(super) fn ask_save(&mut self, myself: &ActorRef<ManagerMessage>, reshard: &mut Resharding) {
        let Some(save) = reshard.save.as_mut().filter(|save| save.ask_at.is_some_and(|at| now() >= at))
        else {
            return;
        };
        let number = save.number;
        if self.store.is_none() {
            reshard.save = None;
            reshard.inputs.push(Input::Saved(number));
            return;
        }
        let Some(keeper) = self.phase.fleet().and_then(|fleet| fleet.keeper.as_ref()) else { return };
        let (reply, saved) = ractor::concurrency::oneshot();
        if keeper.cast(KeeperMessage::Flush(reply.into())).is_err() {
            return;
        }
        save.ask_at = None;
        let myself = myself.clone();
        tokio::spawn(async move {
            // A keeper that crashes does not answer, and its replacement is asked.
            let durable = saved.await.unwrap_or(false);
            let _ = myself.cast(ManagerMessage::ReshardSaved { number, durable });
        });
    }

    pub(crate) fn reshard_saved(&mut self, number: u64, durable: bool) {
        let Phase::Running(fleet) = &mut self.phase else { return };
        let Some(reshard) = &mut fleet.reshard else { return };
        let Some(save) = reshard.save.as_mut().filter(|save| save.number == number) else { return };
        if durable {
            reshard.save = None;
            reshard.inputs.push(Input::Saved(number));
        } else {
            save.ask_at = Some(now() + SAVE_AGAIN_AFTER);
        }
    }

    fn announce_group(&self, reshard: &Resharding, group: &ReshardGroup, phase: GroupPhase) {
        let Some(fleet) = self.phase.fleet() else { return };
        let (groups, done) = reshard.progress();
        let settings = &self.config.settings;
        let remaining = reshard.remaining(&fleet.allowance(settings), &settings.reshard);
        let residue = group.residue;
        self.live.hub.announce(&Lifecycle::ReshardGroup { group: residue, phase, done, groups, remaining });
    }

    fn note_setback(&mut self, reshard: &Resharding, reason: HaltReason) {
        let Phase::Running(fleet) = &mut self.phase else { return };
        fleet.setback = Some(Setback::new(reason, reshard.plan.next_count, fleet.setback, now()));
    }

    fn finish_reshard(&mut self, reshard: &Resharding) {
        let Phase::Running(fleet) = &mut self.phase else { return };
        fleet.setback = None;
        if reshard.plan.split_groups.is_empty() {
            fleet.shards.finish();
        }
        self.live.hub.announce(&Lifecycle::ReshardFinished {
            generation: reshard.plan.next_generation,
            count: reshard.plan.next_count,
            took: now().saturating_duration_since(reshard.began_at),
            left_out: reshard.plan.split_groups.len(),
        });
        self.announce_if_all_ready();
    }

    fn withdraw_reshard(&mut self, reshard: &Resharding, reason: HaltReason) {
        self.note_setback(reshard, reason);
        let Phase::Running(fleet) = &mut self.phase else { return };
        fleet.shards.withdraw();
        self.live.hub.announce(&Lifecycle::ReshardWithdrawn { count: reshard.plan.count, reason });
    }
}
