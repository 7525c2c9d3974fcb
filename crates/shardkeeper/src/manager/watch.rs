//! What the manager checks at intervals: shards that have fallen silent, and watermarks that are stuck.

use ractor::ActorRef;

use super::phase::Phase;
use super::silence::CHECK_EVERY;
use super::{ManagerState, now};
use crate::dispatch::{Found, Lifecycle, WatermarkStuck};
use crate::layout::ShardKey;
use crate::message::ManagerMessage;

impl ManagerState {
    pub(super) fn check_shards(&mut self, myself: &ActorRef<ManagerMessage>) {
        let Phase::Running(fleet) = &mut self.phase else { return };
        for (shard, quiet_for) in fleet.silence.check(now(), &fleet.shards.readings()) {
            self.live.hub.announce(&Lifecycle::Silent {
                shard: shard.id,
                generation: shard.generation,
                quiet_for,
            });
        }
        for (ShardKey { id: shard, generation }, found) in fleet.shards.watermarks(now()) {
            let lifecycle = match found {
                Found::Stuck(WatermarkStuck { subscription, sequence, since }) => {
                    let stuck_for = now().saturating_duration_since(since);
                    Lifecycle::WatermarkStuck { shard, generation, subscription, sequence, stuck_for }
                }
                Found::Moves => Lifecycle::WatermarkMoves { shard, generation },
            };
            self.live.hub.announce(&lifecycle);
        }
        self.follow_wish(myself);
        myself.send_after(CHECK_EVERY, || ManagerMessage::Look);
    }
}
