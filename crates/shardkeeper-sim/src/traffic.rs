//! Events that nobody asked for: what happens in the guilds, and faults by chance.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::discord::{Discord, State};
use crate::world::Place;

/// Events that are generated under one lock: some milliseconds' worth.
const EMITTED_AT_ONCE: usize = 256;

/// Generates events and faults while traffic is on, at random shards.
pub(crate) async fn generate(discord: Arc<Discord>) {
    /// Events come in small batches: a timer per event would cost more than the event.
    const TICK: Duration = Duration::from_millis(10);
    let mut traffic = discord.traffic.subscribe();
    let mut over = discord.over.subscribe();
    let rate = discord.config.events_per_second.max(0.0);
    let fault_rate = discord.config.faults_per_minute.max(0.0) / 60.0;
    let fastest = rate.max(fault_rate);
    // Below one per tick, wait for the next event instead.
    let tick =
        if fastest > 0.0 { TICK.max(Duration::from_secs_f64((1.0 / fastest).min(86_400.0))) } else { TICK };
    let (mut owed, mut faults_owed) = (0.0, 0.0);
    loop {
        // A simulator that is over generates nothing, whether traffic is on or not.
        tokio::select! {
            biased;
            _ = over.wait_for(|over| *over) => return,
            on = traffic.wait_for(|on| *on) => if on.is_err() || fastest <= 0.0 {
                return;
            },
        }
        let before = Instant::now();
        tokio::select! {
            biased;
            () = tokio::time::sleep(tick) => {}
            _ = over.changed() => return,
        }
        // However late the timer was, the rate is kept.
        owed += rate * before.elapsed().as_secs_f64();
        faults_owed += fault_rate * before.elapsed().as_secs_f64();
        let mut state = discord.state();
        if !*traffic.borrow() {
            (owed, faults_owed) = (0.0, 0.0);
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
        while faults_owed >= 1.0 {
            faults_owed -= 1.0;
            discord.random_fault();
        }
    }
}

impl Discord {
    /// So many events at once, in the newest session of a shard.
    pub(crate) fn emit(&self, shard_id: u32, count: usize) {
        let mut left = count;
        while left > 0 {
            left = self.emit_some(shard_id, left);
            std::thread::yield_now();
        }
    }

    /// The same, with a turn for everybody else in between.
    pub(crate) async fn emit_in_turns(&self, shard_id: u32, count: usize) {
        let mut left = count;
        while left > 0 {
            left = self.emit_some(shard_id, left);
            tokio::task::yield_now().await;
        }
    }

    /// The first events of so many, as long as they may hold up everybody else; returns how many are left.
    fn emit_some(&self, shard_id: u32, count: usize) -> usize {
        let mut state = self.state();
        // Nothing comes of an event for nobody.
        let has_session = state.newest.get(&shard_id).is_some_and(|id| state.sessions.contains_key(id));
        if !has_session {
            return 0;
        }
        let batch = count.min(EMITTED_AT_ONCE);
        for _ in 0..batch {
            // An event that the intents filter out, or that is not for this shard, is made up for by another one.
            for _ in 0..100 {
                if state.happen(shard_id, self.config.replay_limit) {
                    break;
                }
            }
        }
        self.changed(state);
        count - batch
    }
}

impl State {
    /// Something happens in a guild of the shard's newest session. Says whether that session got it.
    fn happen(&mut self, shard: u32, limit: usize) -> bool {
        let Some(id) = self.newest.get(&shard).cloned() else { return false };
        let sequence = |state: &Self| state.sessions.get(&id).map(|session| session.sequence);
        let before = sequence(self);
        let Some(session) = self.sessions.get(&id).filter(|session| !session.over) else { return false };
        let Some(guild) = self.random.choice(&session.guilds).copied() else { return false };
        self.happenings += 1;
        let Some(happening) = self.world.happening(guild, self.happenings, &mut self.random) else {
            return false;
        };
        let place = (happening.place == Place::Guild).then_some(guild);
        self.publish(happening.event, place, &happening.data, limit);
        sequence(self) > before
    }
}
