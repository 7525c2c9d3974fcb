//! Guilds that the bot joins and leaves, outages, and which sessions receive which events.

use std::time::Duration;

use serde_json::{Value, json};
use shardkeeper_sim::{Action, Mix};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn gw_249_251_252_outages_removals_and_joins_are_distinguished() {
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
    assert_eq!(error.to_string(), "there is no guild 9: guilds are numbered from 0");
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
    // And no events happen in it.
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
        // GW-261: events of a guild have `guild_id`; GUILD_CREATE and GUILD_UPDATE have `id`.
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
    // Undocumented events come too (GW-273).
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
    // The window of the key is over too, and an Identify on the same connection is allowed (GW-150).
    client.identify(0, 1).await;
    client.until_event("READY").await;
    assert!(rules(&simulator).is_empty());
}

#[tokio::test(start_paused = true)]
async fn gw_274_276_a_hidden_channel_is_obfuscated_until_the_bot_gains_access() {
    let simulator = simulator(|config| config.guilds = 1);
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    let guild = client.until_event("GUILD_CREATE").await["d"].take();
    let hidden = |channel: &&Value| channel["flags"].as_u64().unwrap() & 1 << 17 != 0;
    let channels = guild["channels"].as_array().unwrap();
    let channel = channels.iter().find(hidden).unwrap();
    assert_eq!(channel["name"], "___hidden___");
    assert_eq!(channel["permission_overwrites"].as_array().unwrap().len(), 1);
    assert_eq!(channel["permission_overwrites"][0]["deny"], "1024");
    simulator.act(&Action::RevealChannel { guild: 0 }).unwrap();
    let revealed = client.until_event("CHANNEL_UPDATE").await["d"].take();
    assert_eq!(
        (&revealed["id"], &revealed["name"], &revealed["flags"]),
        (&channel["id"], &json!("general"), &json!(0))
    );
}

/// One event of each name, as JSON.
async fn shapes(intents: u64) -> std::collections::BTreeMap<String, Vec<Value>> {
    let simulator = simulator(|config| {
        config.guilds = 1;
        config.mix = Mix::Everything;
    });
    let mut client = Client::connect(&simulator).await;
    client.until(10).await;
    let mut payload = identify(0, 1);
    payload["d"]["intents"] = json!(intents);
    client.send(&payload).await;
    let guild = client.until_event("GUILD_CREATE").await["d"].take();
    let channels = guild["channels"].as_array().unwrap();
    let voice = &channels.iter().find(|channel| channel["type"] == 2).unwrap()["id"];
    let join = json!({"guild_id": guild["id"], "channel_id": voice, "self_mute": false, "self_deaf": false});
    client.send(&json!({"op": 4, "d": join})).await;
    client.until_event("VOICE_SERVER_UPDATE").await;
    simulator.emit(0, 2000);
    let mut shapes = std::collections::BTreeMap::from([("GUILD_CREATE".to_owned(), vec![guild])]);
    for _ in 0..2000 {
        let mut payload = client.next().await.unwrap();
        let event = payload["t"].as_str().unwrap_or_default().to_owned();
        shapes.entry(event).or_default().push(payload["d"].take());
    }
    shapes
}

fn has(event: &Value, field: &str) -> bool {
    event.get(field).is_some()
}

#[tokio::test(start_paused = true)]
async fn gw_225_258_263_to_272_events_have_the_shapes_that_the_rules_give_them() {
    let shapes = shapes(INTENTS).await;
    let guild = &shapes["GUILD_CREATE"][0];
    for field in [
        "joined_at",
        "large",
        "unavailable",
        "member_count",
        "voice_states",
        "members",
        "channels",
        "threads",
        "presences",
        "stage_instances",
        "guild_scheduled_events",
        "soundboard_sounds",
    ] {
        assert!(has(guild, field), "GW-258: {field}");
    }
    assert!(guild["channels"].as_array().unwrap().iter().all(|channel| !has(channel, "guild_id")));
    assert!(guild["voice_states"].as_array().unwrap().iter().all(|state| !has(state, "guild_id")));
    for status in &shapes["VOICE_CHANNEL_STATUS_UPDATE"] {
        assert!(has(status, "id") && has(status, "guild_id") && has(status, "status"), "GW-225");
    }
    let start = shapes["VOICE_CHANNEL_START_TIME_UPDATE"][0]["voice_start_time"].as_u64().unwrap();
    let typing = shapes["TYPING_START"][0]["timestamp"].as_u64().unwrap();
    assert!(start < 10_000_000_000 && typing < 10_000_000_000, "GW-272: seconds");
    let active = |presence: &&Value| presence["activities"][0]["created_at"].is_u64();
    let presence = shapes["PRESENCE_UPDATE"].iter().find(active).unwrap();
    assert!(
        presence["activities"][0]["created_at"].as_u64().unwrap() > 1_000_000_000_000,
        "GW-272: milliseconds"
    );
    let members: Vec<&Value> =
        guild["members"].as_array().unwrap().iter().map(|member| &member["user"]["id"]).collect();
    assert!(shapes["GUILD_MEMBER_ADD"].iter().any(|added| members.contains(&&added["user"]["id"])), "GW-263");
    for update in &shapes["MESSAGE_UPDATE"] {
        assert!(has(update, "author") && has(update, "content") && update["tts"] == false, "GW-264");
    }
    for message in shapes["MESSAGE_CREATE"].iter().filter(|message| has(message, "guild_id")) {
        assert!(!has(&message["member"], "user") && has(message, "channel_type"), "GW-265");
    }
    let both = |event: &str, field: &str| {
        let given = shapes[event].iter().filter(|event| has(event, field)).count();
        given > 0 && given < shapes[event].len()
    };
    assert!(both("THREAD_CREATE", "newly_created"), "GW-266");
    assert!(both("THREAD_LIST_SYNC", "channel_ids"), "GW-267");
    assert!(shapes["ENTITLEMENT_UPDATE"].iter().all(|ended| ended["ends_at"].is_string()), "GW-269");
    // Large libraries require these fields.
    for integration in shapes["INTEGRATION_CREATE"].iter().chain(&shapes["INTEGRATION_UPDATE"]) {
        for field in ["id", "name", "icon", "description", "summary", "bot"] {
            assert!(has(&integration["application"], field), "{field} in {integration}");
        }
    }
    let sounds = &shapes["VOICE_CHANNEL_EFFECT_SEND"];
    assert!(sounds.iter().any(|effect| effect["sound_id"].is_u64()), "GW-271");
    assert!(sounds.iter().any(|effect| effect["sound_id"].is_string()), "GW-271");
}

#[tokio::test(start_paused = true)]
async fn gw_182_without_the_intent_thread_members_are_about_the_bot_alone() {
    let shapes = shapes(1).await;
    let added = &shapes["THREAD_MEMBERS_UPDATE"];
    let bot = "104694319306248192";
    for update in added {
        let came = update["added_members"].as_array().unwrap();
        let went = update["removed_member_ids"].as_array().unwrap();
        assert_eq!(came.len() + went.len(), 1);
        assert!(came.iter().all(|member| member["member"]["user"]["id"] == bot));
        assert!(went.iter().all(|id| id == bot));
    }
}
