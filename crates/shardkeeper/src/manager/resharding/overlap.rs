//! The overlap of one group: both sides' shards, from the first new one until nothing is left to compare.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use shardkeeper_proto::Session;

use super::super::now;
use super::super::shards::Shards;
use super::Resharding;
use crate::dispatch::{self, Overlap, OverlapReport};
use crate::layout::ShardKey;
use crate::reshard::phases::Side;

pub(super) struct GroupOverlap {
    pub(super) old: BTreeSet<ShardKey>,
    pub(super) new: BTreeSet<ShardKey>,
    pub(super) overlap: Arc<Overlap>,
    pub(super) cut_at: Option<Instant>,
    /// State of the overlap at the last tick. Only ticks ask for it, since each question to a shard is in one
    /// report alone.
    pub(super) report: OverlapReport,
    /// The sessions of the old shards as they were when the new ones became warm; `None` while they are not.
    delivered: Option<Vec<(ShardKey, Session)>>,
}

impl GroupOverlap {
    pub(super) fn new(old: BTreeSet<ShardKey>, new: BTreeSet<ShardKey>, overlap: Arc<Overlap>) -> Self {
        let report = overlap.report(now());
        Self { old, new, overlap, cut_at: None, report, delivered: None }
    }

    /// Brings the report up to date, and asks the shards what it wants to know.
    pub(super) fn look(&mut self, shards: &Shards) {
        self.report = self.overlap.report(now());
        for (side, shard, number) in &self.report.probes {
            let side = match side {
                dispatch::Side::Old => &self.old,
                dispatch::Side::New => &self.new,
            };
            shards.probe(side, *shard, *number);
        }
        if self.report.warm.len() < self.new.len() {
            self.delivered = None;
        } else if self.delivered.is_none() {
            self.delivered = Some(shards.sessions_of(&self.old));
        }
    }

    /// Whether everything is acknowledged that the old shards had delivered when the new ones became warm.
    /// After the cut-over a restart of the process resumes the new sessions alone, which begin there.
    pub(super) fn is_acknowledged(&self, shards: &Shards) -> bool {
        let delivered = self.delivered.as_ref();
        delivered.is_some_and(|all| all.iter().all(|(key, session)| shards.has_acknowledged(*key, session)))
    }
}

impl Resharding {
    /// The side whose shards have closed and are forgotten, once.
    pub(super) fn closed(&mut self, shards: &Shards) -> Option<Side> {
        let is_closed =
            |(_, keys): &mut (Side, BTreeSet<ShardKey>)| !keys.iter().any(|key| shards.runs(*key));
        self.closing.take_if(is_closed).map(|(side, _)| side)
    }

    /// Ends the overlaps that have nothing left to compare and whose old shards are gone. From then on the new
    /// sessions are stored as far as they are acknowledged.
    pub(super) fn end_tails(&mut self, shards: &mut Shards) {
        let mut ended = self.ended;
        self.tails.retain_mut(|tail| {
            tail.look(shards);
            let is_over = tail.overlap.is_over(now()) && !tail.old.iter().any(|key| shards.runs(*key));
            if is_over {
                shards.end_overlap(&tail.new);
                ended = super::add(ended, tail.report.counts);
            }
            !is_over
        });
        self.ended = ended;
    }
}
