//! The world is consistent: a cache that is built from events only never meets a contradiction, and agrees
//! with the GUILD_CREATE events of a new session.

use std::time::Duration;

use serde_json::{Value, json};
use shardkeeper_sim::{Action, Mix, Simulator};
use tokio::time::sleep;

use crate::cache::Cache;
use crate::support::*;

/// A client that keeps a cache of the events.
struct Believer {
    client: Client,
    cache: Cache,
    context: String,
}

impl Believer {
    async fn login(simulator: &Simulator, context: &str, shard: (u32, u32), intents: u64) -> Self {
        let mut client = Client::connect(simulator).await;
        client.until(10).await;
        let mut payload = identify(shard.0, shard.1);
        payload["d"]["intents"] = json!(intents);
        client.send(&payload).await;
        Self { client, cache: Cache::default(), context: context.to_owned() }
    }

    /// Applies one dispatch to the cache, and returns it.
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

    /// Compares the cache with a new session, which has only the current GUILD_CREATE events.
    async fn compare(&self, simulator: &Simulator, intents: u64) {
        sleep(Duration::from_secs(6)).await;
        let context = format!("{}, a new session", self.context);
        let mut other = Self::login(simulator, &context, (0, 1), intents).await;
        other.load(self.cache.guilds.len()).await;
        assert_eq!(self.cache.guilds.len(), other.cache.guilds.len());
        for (id, guild) in &self.cache.guilds {
            let differs = guild.differs(&other.cache.guilds[id]);
            assert!(differs.is_none(), "{}, guild {id}: {}", self.context, differs.unwrap());
        }
    }

    /// The bot posts, edits and reacts over REST.
    async fn speak(&mut self, simulator: &Simulator, guild: &str) {
        let channels = &self.cache.guilds[guild].channels;
        let is_open = |channel: &&Value| channel["type"] == 0 && channel["flags"] == 0;
        let channel = channels.values().find(is_open).unwrap()["id"].as_str().unwrap();
        let messages = format!("/api/v10/channels/{channel}/messages");
        let (_, _, posted) = request(simulator, "POST", &messages, &json!({"content": "one"})).await;
        let message = format!("{messages}/{}", posted["id"].as_str().unwrap());
        assert_eq!(request(simulator, "PATCH", &message, &json!({"content": "two"})).await.0, 200);
        let duck = format!("{message}/reactions/%F0%9F%A6%86/@me");
        assert_eq!(request(simulator, "PUT", &duck, &Value::Null).await.0, 204);
        for event in ["MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_REACTION_ADD"] {
            assert_eq!(self.take().await["t"], event);
        }
    }
}

const GUILDS: usize = 3;

struct Life {
    mix: Mix,
    seed: u64,
    events: usize,
    /// For the large guild.
    members: u32,
    intents: u64,
}

/// Events, outages, joins and the bot's own actions in one session.
async fn live(life: Life) {
    let simulator = simulator(|config| {
        config.guilds = GUILDS as u32;
        config.large_guild_members = life.members;
        config.mix = life.mix;
        config.seed = life.seed;
    });
    let context = format!("{:?}, {} members, seed {}", life.mix, life.members, life.seed);
    let mut believer = Believer::login(&simulator, &context, (0, 1), life.intents).await;
    believer.load(GUILDS).await;
    let guild = believer.cache.guilds.keys().next().unwrap().clone();
    let channels = &believer.cache.guilds[&guild].channels;
    let voice = channels.values().find(|channel| channel["type"] == 2).unwrap()["id"].clone();
    for round in 0..4 {
        let join = if round % 2 == 0 { voice.clone() } else { Value::Null };
        let join = json!({"guild_id": guild, "channel_id": join, "self_mute": false, "self_deaf": false});
        believer.client.send(&json!({"op": 4, "d": join})).await;
        believer.until("VOICE_STATE_UPDATE").await;
        simulator.emit(0, life.events / 4);
        believer.take_many(life.events / 4).await;
        believer.client.send(&json!({"op": 31, "d": {"guild_ids": [guild]}})).await;
        believer.client.send(&json!({"op": 43, "d": {"guild_id": guild, "fields": ["status"]}})).await;
        let all = json!({"guild_id": guild, "query": "", "limit": 0, "presences": true});
        believer.client.send(&json!({"op": 8, "d": all})).await;
        believer.until("GUILD_MEMBERS_CHUNK").await;
        let known = believer.cache.guilds.get_mut(&guild).unwrap();
        let chunked = std::mem::take(&mut known.chunked).len() as u64;
        assert!(chunked == known.member_count || !known.complete, "{chunked}, {}", known.member_count);
        believer.speak(&simulator, &guild).await;
        // One guild after another has an outage; the others are not affected.
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
    believer.compare(&simulator, life.intents).await;
}

#[tokio::test(start_paused = true)]
async fn the_world_of_a_busy_bot_holds_together() {
    for seed in 0..20 {
        live(Life { mix: Mix::Busy, seed, events: 2000, members: 40, intents: INTENTS }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_world_in_which_everything_happens_holds_together() {
    for seed in 0..20 {
        live(Life { mix: Mix::Everything, seed, events: 2000, members: 40, intents: INTENTS }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_guild_holds_together_for_those_who_do_not_see_all_of_it() {
    // All intents except GUILD_PRESENCES and MESSAGE_CONTENT.
    let some = INTENTS & !(1 << 8 | 1 << 15);
    for (seed, intents) in (0..8).flat_map(|seed| [(seed, INTENTS), (seed, some)]) {
        for mix in [Mix::Busy, Mix::Everything] {
            live(Life { mix, seed, events: 1000, members: 400, intents }).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_of_several_shards_sees_a_world_that_holds_together() {
    for (seed, mix) in (0..8).flat_map(|seed| [(seed, Mix::Busy), (seed, Mix::Everything)]) {
        let simulator = simulator(|config| {
            config.guilds = 4;
            config.max_concurrency = 2;
            config.mix = mix;
            config.seed = seed;
        });
        let context = |shard: u32| format!("{mix:?}, seed {seed}, shard {shard}");
        let mut first = Believer::login(&simulator, &context(0), (0, 2), INTENTS).await;
        let mut second = Believer::login(&simulator, &context(1), (1, 2), INTENTS).await;
        first.load(2).await;
        second.load(2).await;
        for _ in 0..10 {
            // Events outside of guilds that the second session causes come to the first one, which reads them
            // later.
            simulator.emit(1, 100);
            second.take_many(100).await;
            simulator.emit(0, 100);
            first.take_many(100).await;
        }
    }
}
