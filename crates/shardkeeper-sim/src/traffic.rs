//! Events that nobody asked for: what happens in the guilds.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::discord::{Discord, State};
use crate::intents;

/// Generates events while traffic is on, at random shards.
pub(crate) async fn generate(discord: Arc<Discord>) {
    /// Events come in small batches: a timer per event would cost more than the event.
    const TICK: Duration = Duration::from_millis(10);
    let mut traffic = discord.traffic.subscribe();
    let mut over = discord.over.subscribe();
    let rate = discord.config.events_per_second.max(0.0);
    // Below one per tick, wait for the next event instead.
    let tick = if rate > 0.0 { TICK.max(Duration::from_secs_f64((1.0 / rate).min(86_400.0))) } else { TICK };
    let mut owed = 0.0;
    loop {
        if traffic.wait_for(|on| *on).await.is_err() || *over.borrow_and_update() || rate <= 0.0 {
            return;
        }
        let before = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(tick) => {}
            _ = over.changed() => return,
        }
        // However late the timer was, the rate is kept.
        owed += rate * before.elapsed().as_secs_f64();
        let mut state = discord.state();
        if !*traffic.borrow() {
            owed = 0.0;
            continue;
        }
        let shards: Vec<u32> = state.newest.keys().copied().collect();
        while owed >= 1.0 {
            owed -= 1.0;
            if let Some(shard) = state.random.choice(&shards).copied() {
                state.happen(shard, discord.config.replay_limit);
            }
        }
        discord.changed(state);
    }
}

impl Discord {
    /// So many events at once, in the newest session of a shard.
    pub(crate) fn emit(&self, shard_id: u32, count: usize) {
        let mut state = self.state();
        for _ in 0..count {
            // An event that the intents filter out is made up for by another one.
            for _ in 0..100 {
                if state.happen(shard_id, self.config.replay_limit) {
                    break;
                }
            }
        }
        self.changed(state);
    }
}

impl State {
    /// Something happens in a guild of the shard's newest session. Says whether it was sent.
    fn happen(&mut self, shard: u32, limit: usize) -> bool {
        let Some(session) = self.newest.get(&shard).and_then(|id| self.sessions.get_mut(id)) else {
            return false;
        };
        if session.over {
            return false;
        }
        self.happenings += 1;
        let content = session.intents & intents::MESSAGE_CONTENT != 0;
        let happening = self.world.happening(&session.guilds, self.happenings, content, &mut self.random);
        let Some((event, mut data)) = happening else { return false };
        if intents::needed(event) & !session.intents != 0 {
            return false;
        }
        data["_trace"] = json!([self.ledger.send(shard, session.ordinal)]);
        session.push(event, &data.to_string(), None, limit);
        true
    }
}
