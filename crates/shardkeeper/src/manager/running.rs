//! What the manager does while everything goes on: answers, reports of shards, the gateway asked again.

use std::time::Duration;

use ractor::ActorRef;
use shardkeeper_proto::close::Scope;
use shardkeeper_proto::shard::FatalClose;
use shardkeeper_proto::{IdentifyBudget, PresenceUpdate, ShardId};

use super::silence::LOOK_EVERY;
use super::{GENERATION, ManagerState, now};
use crate::dispatch::Lifecycle;
use crate::dispatch::{Found, WatermarkStuck};
use crate::error::ExitReason;
use crate::gateway_info::{GatewayInfo, SessionStartLimit};
use crate::message::{Incarnation, ManagerMessage, QueueMessage, SentinelMessage, ShardReport, ShutdownMode};
use crate::session::KeeperMessage;
use crate::shard::life::End;
use crate::status::ManagerStatus;

impl ManagerState {
    pub(super) fn status(&self) -> ManagerStatus {
        match &self.fleet {
            Some(fleet) => ManagerStatus { shards: fleet.shards.status(), identify: fleet.ledger.status() },
            None => ManagerStatus::default(),
        }
    }

    pub(super) fn update_presence(&mut self, presence: PresenceUpdate) {
        if let Some(fleet) = &mut self.fleet {
            fleet.shards.update_every_presence(&presence);
        }
        self.presence = Some(presence);
    }

    pub(super) fn report(
        &mut self,
        myself: &ActorRef<ManagerMessage>,
        shard: ShardId,
        incarnation: Incarnation,
        report: ShardReport,
    ) {
        let Some(fleet) = &mut self.fleet else { return };
        match report {
            // Whoever doubts, it is asked.
            ShardReport::AskGateway => {
                if let Some(sentinel) = &self.sentinel {
                    let _ = sentinel.cast(SentinelMessage::Doubt);
                }
            }
            // Of whichever incarnation: a removal waits for every driver of its shards.
            ShardReport::DriverGone => {
                self.finish_removals();
                self.end_if_all_ended(myself);
            }
            // What an earlier incarnation had to say stands in its life, and was read at its end.
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

    /// Takes note of how a shard has ended or is about to end: at its report or at the end of its actor, whichever comes
    /// first.
    pub(super) fn shard_ended(&mut self, myself: &ActorRef<ManagerMessage>, shard: ShardId) {
        let end = self.fleet.as_mut().and_then(|fleet| fleet.shards.take_end(shard));
        if let Some(End::Refused(refusal)) = end {
            self.refused(myself, shard, refusal);
        }
        if let (Some(_), Some(fleet), Some(stopping)) = (end, &mut self.fleet, &self.stopping) {
            // A driver that was too busy to be told has been aborted instead, and may have kept its session.
            fleet.shards.set_ended(shard, stopping.mode);
        }
        // A report that it was ready may be on its way still.
        self.announce_if_all_ready();
        self.finish_removals();
        self.end_if_all_ended(myself);
    }

    pub(super) fn announce_if_all_ready(&mut self) {
        let Some(fleet) = &mut self.fleet else { return };
        let shards = fleet.shards.len();
        if !fleet.all_ready_announced && shards > 0 && fleet.shards.all_were_ready() {
            fleet.all_ready_announced = true;
            self.live.hub.announce(&Lifecycle::AllReady { generation: GENERATION, shards });
        }
    }

    /// What the gateway said when it was asked again.
    pub(super) fn refreshed(&mut self, info: GatewayInfo) {
        let Some(fleet) = &mut self.fleet else { return };
        let limit = info.session_start_limit;
        let budget = budget(&limit, self.config.settings.identify_reserve);
        let update = QueueMessage::Update { max_concurrency: limit.max_concurrency, budget };
        if fleet.queue.cast(update).is_err() {
            // The next one begins with what is in the ledger.
            fleet.ledger.reconcile(now(), budget);
        }
        fleet.shards.set_gateway_url(&info.url);
        fleet.info = info;
        self.announce_advice();
    }

    /// Says so when Discord advises more shards than there are, and than it ever did.
    pub(super) fn announce_advice(&mut self) {
        let Some(fleet) = &mut self.fleet else { return };
        let (advised, count) = (fleet.info.shards, fleet.shards.count());
        if advised > fleet.advised.max(count.get()) {
            fleet.advised = advised;
            self.live.hub.announce(&Lifecycle::MoreShardsAdvised { count, advised });
        }
    }

    /// Looks for shards that have fallen silent, and for watermarks that are stuck.
    pub(super) fn look(&mut self, myself: &ActorRef<ManagerMessage>) {
        let Some(fleet) = self.fleet.as_mut().filter(|_| self.stopping.is_none()) else { return };
        for (shard, quiet_for) in fleet.silence.look(now(), &fleet.shards.readings()) {
            self.live.hub.announce(&Lifecycle::Silent { shard, quiet_for });
        }
        for (shard, found) in fleet.shards.watermarks(now()) {
            let lifecycle = match found {
                Found::Stuck(WatermarkStuck { subscription, sequence, since }) => {
                    let stuck_for = now().saturating_duration_since(since);
                    Lifecycle::WatermarkStuck { shard, subscription, sequence, stuck_for }
                }
                Found::Moves => Lifecycle::WatermarkMoves { shard },
            };
            self.live.hub.announce(&lifecycle);
        }
        myself.send_after(LOOK_EVERY, || ManagerMessage::Look);
    }

    /// Discord refuses a shard. If the code concerns the token, every shard ends; otherwise the layout is wrong (GW-096).
    pub(super) fn refused(&mut self, myself: &ActorRef<ManagerMessage>, shard: ShardId, refusal: FatalClose) {
        let Some(fleet) = &self.fleet else { return };
        if refusal.scope == Scope::Layout {
            let lifecycle =
                Lifecycle::LayoutRefused { shard, count: fleet.shards.count(), code: refusal.code };
            self.live.hub.announce(&lifecycle);
        }
        let hopeless = match refusal.scope {
            Scope::Bot => true,
            // A layout under which no shard ever was ready is wrong as a whole; do not spend identifies on it.
            Scope::Layout => !fleet.shards.any_was_ready() || fleet.shards.all_ended(),
        };
        // Several shards may be refused before the first refusal has stopped them.
        let known =
            self.stopping.as_ref().is_some_and(|stopping| matches!(stopping.outcome, ExitReason::Refused(_)));
        if hopeless && !known {
            let _ = fleet.queue.cast(QueueMessage::Freeze);
            self.live.hub.announce(&Lifecycle::Refused(refusal));
            // The other sessions stay good, should the operator mend it within minutes.
            self.begin_shutdown(myself, ShutdownMode::Detach, ExitReason::Refused(refusal), None);
        }
    }
}

pub(super) fn budget(limit: &SessionStartLimit, reserve: u32) -> IdentifyBudget {
    let reset_after = Duration::from_millis(limit.reset_after_ms);
    IdentifyBudget::new(now(), limit.total, limit.remaining, reset_after, reserve)
}
