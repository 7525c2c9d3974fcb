//! The manager's part of a reshard: it reads the facts, gives them to the [phases](crate::reshard::phases), and
//! carries out what they ask for on its table of shards.
//!
//! Nothing here waits or relies on the order of messages: every 250 ms a tick reads the state of shards and
//! overlap, and the phases decide. A fact that is missed at one tick is there at the next.

mod calls;
mod carry_out;
mod facts;
mod overlap;
mod triggers;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{ActorProcessingErr, ActorRef};
use shardkeeper_proto::{Intents, ShardCount};

use self::overlap::GroupOverlap;
use super::phase::Phase;
use super::{ManagerState, now};
use crate::dispatch::{Lifecycle, OverlapCounts};
use crate::layout::ShardKey;
use crate::message::ManagerMessage;
use crate::reshard::phases::{Input, Reshard, Side, Spans};
use crate::reshard::{Allowance, ReshardPlan, ReshardPolicy, forecast};
use crate::status::ReshardStatus;

pub(super) use self::calls::WaitingRequest;
pub(super) use self::triggers::Setback;

/// Interval of the ticks: a group takes some more time than its Identifies, and a look costs little.
const TICK: Duration = Duration::from_millis(250);
/// The same while a cut-over waits for a subscription, which may have taken everything for a moment only.
const BUSY_TICK: Duration = Duration::from_millis(10);

/// A reshard, until its last overlap is over.
pub(super) struct Resharding {
    plan: Arc<ReshardPlan>,
    machine: Reshard,
    /// Inputs that came between two ticks. Each operator's call and each refused shard adds one, and a tick
    /// takes all of them.
    inputs: Vec<Input>,
    /// The overlap of the group under way.
    current: Option<GroupOverlap>,
    /// The overlaps of groups whose old shards are closing or gone.
    tails: Vec<GroupOverlap>,
    /// The counts of the overlaps before these.
    ended: OverlapCounts,
    /// The shards that are closing.
    closing: Option<(Side, BTreeSet<ShardKey>)>,
    save: Option<Save>,
    began_at: Instant,
    /// The next group waits for the identify budget, and this was reported.
    waits_for_budget: bool,
    /// The last cut-over failed because a subscription had not taken everything from an old shard.
    is_behind: bool,
}

/// A layout that has to be in the session store before the old shards may stop.
struct Save {
    number: u64,
    /// When to ask the session keeper; `None` while it has been asked.
    ask_at: Option<Instant>,
}

impl Resharding {
    fn is_running(&self) -> bool {
        !self.machine.is_over() && self.machine.halted().is_none()
    }

    /// The number of groups that this process reshards, and how many of them are done.
    fn progress(&self) -> (usize, usize) {
        let groups = self.plan.groups.len();
        let is_done = |residue: &u32| self.machine.moved().contains(residue);
        let done = self.plan.groups.iter().filter(|group| is_done(&group.residue)).count();
        (groups, done)
    }

    /// What became of the events of all new shards so far.
    fn counts(&self) -> OverlapCounts {
        let overlaps = self.tails.iter().chain(&self.current);
        overlaps.map(|group| group.report.counts).fold(self.ended, add)
    }

    fn remaining(&self, allowance: &Allowance, policy: &ReshardPolicy) -> Duration {
        let under_way = self.current.as_ref().and(self.machine.group());
        let left: Vec<_> =
            under_way.into_iter().chain(self.machine.pending()).map(|group| (**group).clone()).collect();
        forecast(&left, allowance, policy).map_or(Duration::ZERO, |forecast| forecast.takes)
    }
}

impl ManagerState {
    /// Starts what was planned. The first group begins with the first tick.
    fn begin_reshard(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        plan: ReshardPlan,
        intents: Option<Intents>,
    ) {
        let Phase::Running(fleet) = &mut self.phase else { return };
        let policy = &self.config.settings.reshard;
        let moved = match &fleet.shards.layouts().next {
            Some(next) => next.moved.clone(),
            None => BTreeSet::new(),
        };
        let intents = intents.unwrap_or(self.config.settings.intents);
        if fleet.shards.layouts().next.is_none() {
            fleet.shards.begin_next(plan.next_count, intents);
        }
        // After a restart of the process, the group whose sessions were stored goes on.
        let mut groups = plan.groups.clone();
        groups.sort_by_key(|group| fleet.shards.group(group.residue, plan.next_generation).is_empty());
        let allowance = fleet.allowance(&self.config.settings);
        let pace = groups.iter().map(|group| allowance.pace(&group.new)).max().unwrap_or_default();
        let machine = Reshard::new(groups, moved, Spans::new(policy, pace), now());
        tracing::info!("{plan}");
        let plan = Arc::new(plan);
        self.live.hub.announce(&Lifecycle::ReshardBegun(Arc::clone(&plan)));
        let earlier = fleet.reshard.take();
        let is_ticking = earlier.is_some();
        fleet.reshard = Some(Box::new(Resharding {
            plan,
            machine,
            inputs: Vec::new(),
            current: None,
            tails: earlier.map(|earlier| earlier.tails).unwrap_or_default(),
            ended: OverlapCounts::default(),
            closing: None,
            save: None,
            began_at: now(),
            waits_for_budget: false,
            is_behind: false,
        }));
        if !is_ticking {
            let _ = myself.cast(ManagerMessage::ReshardTick);
        }
    }

    /// Whether shards may not be added or removed, because a reshard decides which there are.
    pub(super) fn is_resharding(&self) -> bool {
        let Phase::Running(fleet) = &self.phase else { return false };
        fleet.reshard.as_ref().is_some_and(|reshard| reshard.is_running())
    }

    /// Reads the facts, and does what follows from them.
    pub(super) async fn reshard_tick(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let Phase::Running(fleet) = &mut self.phase else { return Ok(()) };
        let Some(mut reshard) = fleet.reshard.take() else { return Ok(()) };
        let mut inputs = VecDeque::from(std::mem::take(&mut reshard.inputs));
        inputs.extend(reshard.closed(&fleet.shards).map(Input::Gone));
        self.carry_out_all(myself, &mut reshard, inputs).await?;
        self.ask_save(myself, &mut reshard);
        let Phase::Running(fleet) = &mut self.phase else { return Ok(()) };
        // Read after the inputs: a group may have ended with them, and the facts concern the next one.
        let look = Input::Look(fleet.reading(&mut reshard, &self.config.settings, &self.live.members));
        self.carry_out_all(myself, &mut reshard, VecDeque::from([look])).await?;
        let Phase::Running(fleet) = &mut self.phase else { return Ok(()) };
        reshard.end_tails(&mut fleet.shards);
        if reshard.machine.is_over() && reshard.tails.is_empty() {
            return Ok(());
        }
        let is_behind = std::mem::take(&mut reshard.is_behind);
        fleet.reshard = Some(reshard);
        let wait = if is_behind { BUSY_TICK } else { TICK };
        myself.send_after(wait, || ManagerMessage::ReshardTick);
        Ok(())
    }

    async fn carry_out_all(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        reshard: &mut Resharding,
        mut inputs: VecDeque<Input>,
    ) -> Result<(), ActorProcessingErr> {
        while let Some(input) = inputs.pop_front() {
            for action in reshard.machine.input(now(), input) {
                inputs.extend(self.carry_out(myself, reshard, action).await?);
            }
        }
        Ok(())
    }

    /// The part of the status that is about a reshard.
    pub(super) fn reshard_status(&self) -> Option<ReshardStatus> {
        let fleet = self.phase.fleet()?;
        let reshard = fleet.reshard.as_ref().filter(|reshard| !reshard.machine.is_over())?;
        let (groups, done) = reshard.progress();
        let allowance = fleet.allowance(&self.config.settings);
        let group = reshard.current.as_ref().and(reshard.machine.group());
        let sum = reshard.counts();
        let report = reshard.current.as_ref().map(|group| &group.report);
        Some(ReshardStatus {
            count: reshard.plan.count,
            next_count: reshard.plan.next_count,
            next_generation: reshard.plan.next_generation,
            groups,
            done,
            group: group.map(|group| group.residue),
            old: group.map(|group| group.old.clone()).unwrap_or_default(),
            new: group.map(|group| group.new.clone()).unwrap_or_default(),
            phase: reshard.machine.phase(),
            paused: reshard.machine.is_paused(),
            halted: reshard.machine.halted(),
            waits_for_budget: reshard.waits_for_budget,
            since: reshard.began_at,
            remaining: reshard.remaining(&allowance, &self.config.settings.reshard),
            warm: report.map(|report| report.warm.iter().copied().collect()).unwrap_or_default(),
            held_events: report.map_or(0, |report| report.held_events),
            held_bytes: report.map_or(0, |report| report.held_bytes),
            undecided: report.map_or(0, |report| report.undecided),
            lost: report.map(|report| report.frozen.iter().copied().collect()).unwrap_or_default(),
            matched: sum.matched,
            released: sum.released,
            guessed: sum.guessed,
            dropped: sum.dropped,
        })
    }
}

fn add(one: OverlapCounts, other: OverlapCounts) -> OverlapCounts {
    OverlapCounts {
        matched: one.matched + other.matched,
        released: one.released + other.released,
        guessed: one.guessed + other.guessed,
        dropped: one.dropped + other.dropped,
    }
}

/// The count that a bot with a count of its own wants to have.
pub(super) fn configured_count(config: &super::config::Config) -> Option<ShardCount> {
    match &config.layout {
        super::config::LayoutChoice::Recommended => None,
        super::config::LayoutChoice::All(count) | super::config::LayoutChoice::Some { count, .. } => {
            Some(*count)
        }
    }
}
