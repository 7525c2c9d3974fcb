//! Guilds that come, go and fail; who hears of what.

use std::time::Duration;

use serde_json::{Value, json};
use shardkeeper_sim::{Action, Mix};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn gw_249_251_252_outages_removals_and_joins_are_told_apart() {
    let simulator = simulator(|config| config.guilds = 2);
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    let first = client.until_event("GUILD_CREATE").await["d"].take();
    assert_eq!(first["unavailable"], false);
    client.until_event("GUILD_CREATE").await;

    simulator.act(&Action::GuildOutage { guild: 0, lasts_ms: 5000 }).unwrap();
    let gone = client.until_event("GUILD_DELETE").await["d"].take();
    assert_eq!((&gone["id"], &gone["unavailable"]), (&first["id"], &json!(true)));
    assert_eq!(client.until_event("GUILD_CREATE").await["d"]["id"], first["id"]);

    simulator.act(&Action::GuildLeave { guild: 0 }).unwrap();
    let left = client.until_event("GUILD_DELETE").await["d"].take();
    assert!(left["id"] == first["id"] && left.get("unavailable").is_none());
    simulator.act(&Action::GuildJoin { guild: 0 }).unwrap();
    let joined = client.until_event("GUILD_CREATE").await["d"].take();
    assert!(joined["id"] == first["id"] && joined.get("unavailable").is_none());
    let error = simulator.act(&Action::GuildJoin { guild: 9 }).unwrap_err();
    assert_eq!(error.to_string(), "there is no guild 9; they count from 0");
}

#[tokio::test(start_paused = true)]
async fn gw_249_250_an_outage_at_the_login_shows_in_either_event() {
    let simulator = simulator(|config| config.guilds = 2);
    for guild in 0..2 {
        simulator.act(&Action::GuildOutage { guild, lasts_ms: 20_000 }).unwrap();
    }
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    let mut events = Vec::new();
    for _ in 0..2 {
        let payload = client.next().await.unwrap();
        assert_eq!(payload["d"]["unavailable"], true);
        assert!(payload["d"].get("name").is_none());
        events.push(payload["t"].as_str().unwrap().to_owned());
    }
    assert_eq!(events, ["GUILD_DELETE", "GUILD_CREATE"]);
    // And nothing happens in it.
    simulator.emit(0, 10);
    assert!(client.until_event("GUILD_CREATE").await["d"].get("name").is_some());
}

#[tokio::test(start_paused = true)]
async fn gw_231_232_sessions_of_any_layout_hear_of_their_guilds() {
    let simulator = simulator(|config| {
        config.guilds = 6;
        config.max_concurrency = 16;
    });
    let mut whole = Client::connect(&simulator).await;
    whole.login(0, 1).await;
    let mut part = Client::connect(&simulator).await;
    part.until(10).await;
    part.identify(2, 3).await;
    part.until_event("READY").await;
    simulator.emit(2, 40);
    let name = |payload: &Value| {
        let data = &payload["d"];
        format!("{} {} {} {}", payload["t"], data["id"], data["user_id"], data["guild_id"])
    };
    let mut seen = Vec::new();
    while seen.len() < 40 {
        let payload = part.next().await.unwrap();
        if payload["t"] != "GUILD_CREATE" {
            seen.push(name(&payload));
        }
    }
    let mut also = Vec::new();
    while also.len() < 40 {
        let payload = whole.next().await.unwrap();
        if payload["t"] != "GUILD_CREATE" && payload["d"].get("guild_id").is_some() {
            also.push(name(&payload));
        }
    }
    let in_guilds: Vec<&String> = seen.iter().filter(|name| !name.ends_with("null")).collect();
    assert!(in_guilds.iter().all(|name| also.contains(name)));
}

#[tokio::test(start_paused = true)]
async fn gw_228_what_has_no_guild_goes_to_shard_0() {
    let simulator = simulator(|config| {
        config.guilds = 4;
        config.max_concurrency = 16;
        config.mix = Mix::Everything;
    });
    let mut first = Client::connect(&simulator).await;
    first.login(0, 2).await;
    let mut second = Client::connect(&simulator).await;
    second.login(1, 2).await;
    simulator.emit(1, 400);
    let mut others = 0;
    for _ in 0..400 {
        let payload = second.next().await.unwrap();
        let data = &payload["d"];
        let of_guild = data.get("guild_id").is_some()
            || payload["t"] == "GUILD_CREATE"
            || payload["t"] == "GUILD_UPDATE";
        assert!(of_guild, "{payload}");
        others += 1;
    }
    assert_eq!(others, 400);
    for event in ["ENTITLEMENT_CREATE", "SUBSCRIPTION_UPDATE", "USER_UPDATE"] {
        first.until_event(event).await;
    }
}

#[tokio::test(start_paused = true)]
async fn gw_260_every_documented_event_can_come() {
    let simulator = simulator(|config| {
        config.guilds = 2;
        config.mix = Mix::Everything;
    });
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    let guild = client.until_event("GUILD_CREATE").await["d"].take();
    let channels = guild["channels"].as_array().unwrap();
    let voice = &channels.iter().find(|channel| channel["type"] == 2).unwrap()["id"];
    let join = json!({"guild_id": guild["id"], "channel_id": voice, "self_mute": false, "self_deaf": false});
    client.send(&json!({"op": 4, "d": join})).await;
    client.send(&json!({"op": 31, "d": {"guild_ids": [guild["id"]]}})).await;
    client.send(&json!({"op": 43, "d": {"guild_id": guild["id"], "fields": ["status"]}})).await;
    for _ in 0..2 {
        client.send(&json!({"op": 8, "d": {"guild_id": guild["id"], "query": "", "limit": 0}})).await;
    }
    let known = ["READY", "RESUMED", "GUILD_CREATE"].map(str::to_owned);
    let mut seen = std::collections::BTreeSet::from(known);
    while !seen.contains("RATE_LIMITED") {
        let payload = client.next().await.unwrap();
        seen.extend(payload["t"].as_str().map(str::to_owned));
    }
    simulator.emit(0, 2500);
    simulator.act(&Action::GuildLeave { guild: 1 }).unwrap();
    while !seen.contains("GUILD_DELETE") {
        let payload = client.next().await.unwrap();
        seen.extend(payload["t"].as_str().map(str::to_owned));
    }
    // What nobody documented comes too (GW-273).
    seen.remove("GUILD_APPLICATION_COMMAND_INDEX_UPDATE");
    seen.remove("GUILD_JOIN_REQUEST_UPDATE");
    assert_eq!(seen.len(), 79, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn gw_189_withdrawing_an_intent_ends_sessions_with_4003_and_then_4014() {
    let simulator = simulator(|config| config.guilds = 1);
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    simulator.act(&Action::AllowIntents { intents: INTENTS & !(1 << 15) }).unwrap();
    assert_eq!(client.end().await, Some(4003));
    sleep(Duration::from_secs(6)).await;
    let mut client = Client::connect(&simulator).await;
    client.until(10).await;
    client.identify(0, 1).await;
    assert_eq!(client.end().await, Some(4014));
}

#[tokio::test(start_paused = true)]
async fn gw_191_ready_tells_which_privileged_intents_are_enabled() {
    for (allowed, flags) in [(INTENTS, 1 << 23 | 1 << 12 | 1 << 14 | 1 << 18), (INTENTS & !33_026, 1 << 23)] {
        let simulator = simulator(|config| config.allowed_intents = allowed);
        let mut client = Client::connect(&simulator).await;
        client.until(10).await;
        let mut payload = identify(0, 1);
        payload["d"]["intents"] = json!(1);
        payload["d"].as_object_mut().unwrap().remove("shard");
        client.send(&payload).await;
        let ready = client.until_event("READY").await["d"].take();
        assert_eq!(ready["application"]["flags"], flags);
        assert_eq!(ready["application"]["flags_new"], flags.to_string());
        assert!(ready.get("shard").is_none(), "it was not in Identify");
    }
}

#[tokio::test(start_paused = true)]
async fn gw_087_229_235_layouts_that_discord_refuses() {
    let simulator = simulator(|config| {
        config.guilds = 10;
        config.max_guilds_per_shard = 4;
        config.shard_multiple = 2;
    });
    for (shard, count, code) in [(0, 2, Some(4011)), (0, 3, Some(4010)), (0, 4, None)] {
        let mut client = Client::connect(&simulator).await;
        client.until(10).await;
        client.identify(shard, count).await;
        match code {
            Some(code) => assert_eq!(client.end().await, Some(code)),
            None => drop(client.until_event("READY").await),
        }
        sleep(Duration::from_secs(6)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn gw_103_a_clock_that_jumps_ages_sessions_and_limits() {
    let simulator = simulator(|config| config.guilds = 1);
    let mut client = Client::connect(&simulator).await;
    let session = client.login(0, 1).await;
    client.close(4000).await;
    simulator.act(&Action::ClockJump { ms: 181_000 }).unwrap();
    let mut client =
        Client::connect_to(&simulator, "ws://resume.sim.invalid/resume?v=10&encoding=json").await;
    client.until(10).await;
    client.send(&resume(&session, 1)).await;
    assert_eq!(client.until(9).await["d"], false, "it is too old");
    // The key's window is over too, and on the same connection it may go on (GW-150).
    client.identify(0, 1).await;
    client.until_event("READY").await;
    assert!(rules(&simulator).is_empty());
}
