//! Events that nobody asked for: what happens in the guilds, and faults by chance.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::discord::{Discord, State};
use crate::fault::InjectError;
use crate::world::{self, Place};

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
                state.happen(shard, None, discord.config.replay_limit);
            }
        }
        discord.changed(state);
        while faults_owed >= 1.0 {
            faults_owed -= 1.0;
            discord.random_fault();
        }
    }
}

/// Events to be made at once in the newest session of a shard: any, those of a name, or one payload.
#[derive(Clone, Copy)]
pub(crate) struct Emission<'a> {
    pub(crate) shard_id: u32,
    pub(crate) count: usize,
    pub(crate) event: Option<&'a str>,
    pub(crate) data: Option<&'a Value>,
}

impl Discord {
    /// Events in the newest session of a shard.
    pub(crate) fn emit(&self, emission: Emission<'_>) -> Result<(), InjectError> {
        let mut left = emission.count;
        while left > 0 {
            left -= self.emit_some(emission, left)?;
            std::thread::yield_now();
        }
        Ok(())
    }

    /// The same, with a turn for everybody else in between.
    pub(crate) async fn emit_in_turns(&self, emission: Emission<'_>) -> Result<(), InjectError> {
        let mut left = emission.count;
        while left > 0 {
            left -= self.emit_some(emission, left)?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The first events of those that are left, as long as they may hold up everybody else; returns how many they are.
    fn emit_some(&self, emission: Emission<'_>, left: usize) -> Result<usize, InjectError> {
        let Emission { shard_id, event, data, .. } = emission;
        let limit = self.config.replay_limit;
        let batch = left.min(EMITTED_AT_ONCE);
        let mut state = self.state();
        let id = state.newest.get(&shard_id).cloned().unwrap_or_default();
        if state.sessions.get(&id).is_none_or(|session| session.over) {
            return Err(InjectError::NoSession { shard_id });
        }
        match (event, data) {
            (Some(event), Some(data)) => {
                check_payload(event, data)?;
                for _ in 0..batch {
                    state.answer(&id, event, data.clone(), limit);
                }
            }
            (None, Some(_)) => return Err(InjectError::InvalidData),
            (Some(event), None) if !world::makes(event) => {
                return Err(InjectError::NoSuchEvent { event: event.to_owned() });
            }
            (event, None) => {
                for _ in 0..batch {
                    // What the intents filter out, or is not for this shard, is made up for by something else.
                    for _ in 0..100 {
                        if state.happen(shard_id, event, limit) {
                            break;
                        }
                    }
                }
            }
        }
        self.changed(state);
        Ok(batch)
    }
}

fn check_payload(event: &str, data: &Value) -> Result<(), InjectError> {
    let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if event.is_empty() || !event.bytes().all(is_plain) {
        return Err(InjectError::NoSuchEvent { event: event.to_owned() });
    }
    if data.is_object() { Ok(()) } else { Err(InjectError::InvalidData) }
}

impl State {
    /// Something happens in a guild of the shard's newest session; of this name, if one is given. Says whether that
    /// session got it.
    fn happen(&mut self, shard: u32, event: Option<&str>, limit: usize) -> bool {
        let Some(id) = self.newest.get(&shard).cloned() else { return false };
        let sequence = |state: &Self| state.sessions.get(&id).map(|session| session.sequence);
        let before = sequence(self);
        let Some(session) = self.sessions.get(&id).filter(|session| !session.over) else { return false };
        let Some(guild) = self.random.choice(&session.guilds).copied() else { return false };
        let number = self.world.next_event();
        let Some(happening) = self.world.happening(guild, number, event, &mut self.random) else {
            return false;
        };
        let place = (happening.place == Place::Guild).then_some(guild);
        self.publish(happening.event, place, &happening.data, limit);
        sequence(self) > before
    }
}
