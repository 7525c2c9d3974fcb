//! The world holds together: a cache that is kept from the events alone never meets a contradiction, and agrees with
//! what a new session is told.

use std::time::Duration;

use serde_json::{Value, json};
use shardkeeper_sim::{Action, Mix, Simulator};
use tokio::time::sleep;

use crate::cache::Cache;
use crate::support::*;

/// A client that believes what it is told, until it is told something else.
struct Believer {
    client: Client,
    cache: Cache,
    context: String,
}

impl Believer {
    async fn login(simulator: &Simulator, context: String) -> Self {
        let mut client = Client::connect(simulator).await;
        client.until(10).await;
        client.identify(0, 1).await;
        Self { client, cache: Cache::default(), context }
    }

    /// Takes one dispatch, and returns it.
    async fn take(&mut self) -> Value {
        loop {
            let mut payload = self.client.next().await.unwrap();
            let mut data = payload["d"].take();
            data.as_object_mut().map(|data| data.remove("_trace"));
            let Some(event) = payload["t"].as_str() else { continue };
            if let Err(why) = self.cache.take(event, &data) {
                panic!("{}, dispatch {}: {event}: {why} in {data}", self.context, payload["s"]);
            }
            payload["d"] = data;
            return payload;
        }
    }

    async fn take_many(&mut self, count: usize) {
        for _ in 0..count {
            self.take().await;
        }
    }

    async fn until(&mut self, event: &str) -> Value {
        loop {
            let mut payload = self.take().await;
            if payload["t"] == event {
                return payload["d"].take();
            }
        }
    }

    async fn load(&mut self, guilds: usize) {
        self.take_many(1 + guilds).await;
    }

    /// A second session knows nothing but what it is told now; both have to agree.
    async fn compare(&self, simulator: &Simulator) {
        sleep(Duration::from_secs(6)).await;
        let mut other = Self::login(simulator, format!("{}, a new session", self.context)).await;
        other.load(self.cache.guilds.len()).await;
        assert_eq!(self.cache.guilds.len(), other.cache.guilds.len());
        for (id, guild) in &self.cache.guilds {
            let differs = guild.differs(&other.cache.guilds[id]);
            assert!(differs.is_none(), "{}, guild {id}: {}", self.context, differs.unwrap());
        }
    }
}

const GUILDS: usize = 3;

fn world(mix: Mix, seed: u64) -> (Simulator, String) {
    let simulator = simulator(|config| {
        config.guilds = GUILDS as u32;
        config.large_guild_members = 40;
        config.mix = mix;
        config.seed = seed;
    });
    (simulator, format!("{mix:?}, seed {seed}"))
}

/// Events, outages, joins and what the bot itself asks for, in one life.
async fn a_life(mix: Mix, seed: u64, events: usize) {
    let (simulator, context) = world(mix, seed);
    let mut believer = Believer::login(&simulator, context).await;
    believer.load(GUILDS).await;
    let guild = believer.cache.guilds.keys().next().unwrap().clone();
    let channels = &believer.cache.guilds[&guild].channels;
    let voice = channels.values().find(|channel| channel["type"] == 2).unwrap()["id"].clone();
    for round in 0..4 {
        let join = if round % 2 == 0 { voice.clone() } else { Value::Null };
        let join = json!({"guild_id": guild, "channel_id": join, "self_mute": false, "self_deaf": false});
        believer.client.send(&json!({"op": 4, "d": join})).await;
        believer.until("VOICE_STATE_UPDATE").await;
        simulator.emit(0, events / 4);
        believer.take_many(events / 4).await;
        believer.client.send(&json!({"op": 31, "d": {"guild_ids": [guild]}})).await;
        believer.client.send(&json!({"op": 43, "d": {"guild_id": guild, "fields": ["status"]}})).await;
        let all = json!({"guild_id": guild, "query": "", "limit": 0, "presences": true});
        believer.client.send(&json!({"op": 8, "d": all})).await;
        believer.until("GUILD_MEMBERS_CHUNK").await;
        let known = believer.cache.guilds.get_mut(&guild).unwrap();
        assert_eq!(std::mem::take(&mut known.chunked).len() as u64, known.member_count);
        // Of one guild after another; the others go on.
        simulator.act(&Action::GuildOutage { guild: round % 3, lasts_ms: 500 }).unwrap();
        believer.until("GUILD_DELETE").await;
        simulator.emit(0, 50);
        believer.take_many(50).await;
        believer.until("GUILD_CREATE").await;
        simulator.act(&Action::GuildLeave { guild: 1 }).unwrap();
        simulator.emit(0, 50);
        believer.take_many(51).await;
        simulator.act(&Action::GuildJoin { guild: 1 }).unwrap();
        believer.until("GUILD_CREATE").await;
        sleep(Duration::from_secs(31)).await;
        believer.client.send(&heartbeat(Value::Null)).await;
    }
    simulator.act(&Action::RevealChannel { guild: 0 }).unwrap();
    simulator.emit(0, 50);
    believer.take_many(51).await;
    believer.compare(&simulator).await;
}

#[tokio::test(start_paused = true)]
async fn the_world_of_a_busy_bot_holds_together() {
    for seed in 0..12 {
        a_life(Mix::Busy, seed, 2000).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_world_in_which_everything_happens_holds_together() {
    for seed in 0..12 {
        a_life(Mix::Everything, seed, 2000).await;
    }
}
