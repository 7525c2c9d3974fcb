//! The overlap of one group: both sides' shards, from the first new one until nothing is left to compare.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::super::now;
use super::super::shards::Shards;
use super::Resharding;
use crate::dispatch::{Overlap, OverlapReport};
use crate::layout::ShardKey;
use crate::reshard::phases::Side;

pub(super) struct GroupOverlap {
    pub(super) old: BTreeSet<ShardKey>,
    pub(super) new: BTreeSet<ShardKey>,
    pub(super) overlap: Arc<Overlap>,
}

impl GroupOverlap {
    pub(super) fn report(&self, now: Instant) -> OverlapReport {
        self.overlap.report(now)
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
        self.tails.retain(|tail| {
            let is_over = tail.overlap.is_over(now()) && !tail.old.iter().any(|key| shards.runs(*key));
            if is_over {
                shards.end_overlap(&tail.new);
                ended = super::add(ended, tail.overlap.look(now()).counts);
            }
            !is_over
        });
        self.ended = ended;
    }
}
