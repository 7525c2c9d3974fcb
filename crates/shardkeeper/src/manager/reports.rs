//! What shards report, and what follows when one ends or is refused by Discord.

use ractor::ActorRef;
use shardkeeper_proto::close::Scope;
use shardkeeper_proto::shard::FatalClose;

use super::ManagerState;
use crate::dispatch::Lifecycle;
use crate::error::ExitReason;
use crate::layout::ShardKey;
use crate::message::{Incarnation, ManagerMessage, QueueMessage, SentinelMessage, ShardReport, ShutdownMode};
use crate::session::KeeperMessage;
use crate::shard::life::End;

impl ManagerState {
    pub(super) fn report(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        shard: ShardKey,
        incarnation: Incarnation,
        report: ShardReport,
    ) {
        let Some(fleet) = self.phase.fleet() else { return };
        match report {
            // From any incarnation: the sentinel limits how often it asks.
            ShardReport::AskGateway => {
                if let Some(sentinel) = &self.sentinel {
                    let _ = sentinel.cast(SentinelMessage::Doubt);
                }
            }
            // From any incarnation: a removal waits for all drivers of its shards.
            ShardReport::DriverGone => {
                self.finish_removals();
                self.end_if_all_ended(myself);
            }
            // How an earlier incarnation ended was read from its `Life` when its actor ended.
            _ if !fleet.shards.is_current(shard, incarnation) => {}
            ShardReport::Ready => {
                if let Some(keeper) = &fleet.keeper {
                    let _ = keeper.cast(KeeperMessage::LookNow);
                }
                self.announce_if_all_ready();
            }
            ShardReport::Refused(_) | ShardReport::Ended => self.shard_ended(myself, shard),
        }
    }

    /// Handles that a shard has ended or is about to end. Called at its report and at the end of its actor,
    /// which come in either order: only the first call has an effect.
    pub(super) fn shard_ended(&mut self, myself: &ActorRef<ManagerMessage>, shard: ShardKey) {
        let end = self.phase.fleet_mut().and_then(|fleet| fleet.shards.take_end(shard));
        if let Some(End::Refused(refusal)) = end {
            self.refused(myself, shard, refusal);
        }
        let mode = self.phase.stopping().map(|stopping| stopping.mode);
        if let (Some(_), Some(fleet), Some(mode)) = (end, self.phase.fleet_mut(), mode) {
            // A driver that was too busy to take its order was aborted, and may have kept its session.
            fleet.shards.set_ended(shard, mode);
        }
        // The shard's report that it was ready may not have arrived yet.
        self.announce_if_all_ready();
        self.finish_removals();
        self.end_if_all_ended(myself);
    }

    pub(super) fn announce_if_all_ready(&mut self) {
        let Some(fleet) = self.phase.fleet_mut() else { return };
        let generation = fleet.shards.layouts().current.generation;
        let shards = fleet.shards.len(generation);
        if generation > fleet.all_ready_announced && shards > 0 && fleet.shards.all_were_ready(generation) {
            fleet.all_ready_announced = generation;
            self.live.hub.announce(&Lifecycle::AllReady { generation, shards });
        }
    }

    /// Discord refuses a shard. If the code concerns the token, every shard ends; otherwise the layout is
    /// wrong (GW-096).
    fn refused(&mut self, myself: &ActorRef<ManagerMessage>, shard: ShardKey, refusal: FatalClose) {
        let Some(fleet) = self.phase.fleet() else { return };
        if refusal.scope == Scope::Layout {
            let count = fleet.shards.count_of(shard);
            fleet.shards.set_refused(shard);
            if let Some(keeper) = &fleet.keeper {
                let _ = keeper.cast(KeeperMessage::LookNow);
            }
            self.live.hub.announce(&Lifecycle::LayoutRefused { shard: shard.id, count, code: refusal.code });
        }
        if self.reshard_instead(myself, shard, refusal.code) {
            return;
        }
        let Some(fleet) = self.phase.fleet() else { return };
        let hopeless = match refusal.scope {
            Scope::Bot => true,
            // More Identifies would be wasted. A layout that a reshard leads to can be given up instead.
            Scope::Layout => fleet.shards.is_wrong_as_a_whole(shard.generation),
        };
        // Several shards may be refused before the first refusal has stopped them.
        let stopping = self.phase.stopping();
        let known = stopping.is_some_and(|stopping| matches!(stopping.reason, ExitReason::Refused(_)));
        if hopeless && !known {
            let _ = fleet.queue.cast(QueueMessage::Freeze);
            self.live.hub.announce(&Lifecycle::Refused(refusal));
            // The other sessions stay resumable, in case the operator fixes the cause within minutes.
            self.begin_shutdown(myself, ShutdownMode::Detach, ExitReason::Refused(refusal), None);
        }
    }
}
