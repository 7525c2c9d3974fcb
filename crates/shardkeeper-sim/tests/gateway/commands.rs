//! Ops 3, 4, 8, 31 and 43: their answers, and the judgements on them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::*;

/// A session with all intents, and the data of its GUILD_CREATE events.
async fn session(simulator: &shardkeeper_sim::Simulator, guilds: usize) -> (Client, Vec<Value>) {
    let mut client = Client::connect(simulator).await;
    client.login(0, 1).await;
    let mut created = Vec::new();
    for _ in 0..guilds {
        created.push(client.until_event("GUILD_CREATE").await["d"].take());
    }
    (client, created)
}

#[tokio::test(start_paused = true)]
async fn gw_202_203_voice_brings_two_events_and_never_the_same_token() {
    let simulator = simulator(|config| config.guilds = 1);
    let (mut client, guilds) = session(&simulator, 1).await;
    let voice = |number: usize| {
        let channels = guilds[0]["channels"].as_array().unwrap();
        channels.iter().filter(|channel| channel["type"] == 2).nth(number).unwrap()["id"].clone()
    };
    let guild = &guilds[0]["id"];
    let join = |channel: Value| json!({"op": 4, "d": {"guild_id": guild, "channel_id": channel, "self_mute": false, "self_deaf": true}});
    let mut tokens = Vec::new();
    for _ in 0..2 {
        // GW-059: op 4 updates the voice state.
        client.send(&join(voice(0))).await;
        let state = client.until_event("VOICE_STATE_UPDATE").await;
        assert_eq!((&state["d"]["channel_id"], &state["d"]["self_deaf"]), (&voice(0), &json!(true)));
        let server = client.until_event("VOICE_SERVER_UPDATE").await;
        assert_eq!(&server["d"]["guild_id"], guild);
        tokens.push(server["d"]["token"].clone());
    }
    assert_ne!(tokens[0], tokens[1]);
    client.send(&join(Value::Null)).await;
    assert_eq!(client.until_event("VOICE_STATE_UPDATE").await["d"]["channel_id"], Value::Null);
    assert!(is_spotless(&simulator));
    // GW-201: op 4 has all four fields. GW-208: it is sent by the shard that has the guild.
    client.send(&json!({"op": 4, "d": {"guild_id": "1", "channel_id": null, "self_mute": false}})).await;
    client.send(&heartbeat(Value::Null)).await;
    client.until(11).await;
    assert_eq!(advice(&simulator)[..2], ["GW-201", "GW-208"]);
}

#[tokio::test(start_paused = true)]
async fn gw_205_a_full_channel_gives_no_answer() {
    let simulator = simulator(|config| config.guilds = 40);
    let (mut client, guilds) = session(&simulator, 40).await;
    let full = |guild: &&Value| guild["voice_states"].as_array().unwrap().len() == 2;
    let guild = guilds.iter().find(full).unwrap();
    let limited =
        guild["channels"].as_array().unwrap().iter().find(|channel| channel["user_limit"] == 1).unwrap();
    let join =
        json!({"guild_id": guild["id"], "channel_id": limited["id"], "self_mute": false, "self_deaf": false});
    client.send(&json!({"op": 4, "d": join})).await;
    client.send(&heartbeat(json!(1))).await;
    assert_eq!(client.next().await.unwrap()["op"], 11, "and nothing else");
    assert!(is_spotless(&simulator));
}

#[tokio::test(start_paused = true)]
async fn gw_217_220_all_members_come_in_chunks_with_presences_and_nonce() {
    let simulator = simulator(|config| {
        config.guilds = 1;
        config.large_guild_members = 2500;
    });
    let (mut client, guilds) = session(&simulator, 1).await;
    let guild = &guilds[0];
    let ask = json!({"guild_id": guild["id"], "query": "", "limit": 0, "presences": true, "nonce": "n1"});
    // GW-062: op 8 requests guild members.
    client.send(&json!({"op": 8, "d": ask})).await;
    let mut members = 0;
    for index in 0..3 {
        let chunk = client.until_event("GUILD_MEMBERS_CHUNK").await["d"].take();
        assert_eq!((&chunk["chunk_index"], &chunk["chunk_count"]), (&json!(index), &json!(3)));
        assert_eq!((&chunk["nonce"], &chunk["guild_id"]), (&json!("n1"), &guild["id"]));
        let count = chunk["members"].as_array().unwrap().len();
        assert_eq!(chunk["presences"].as_array().unwrap().len(), count);
        members += count;
    }
    assert_eq!(members, 2500);
    assert!(is_spotless(&simulator));
}

#[tokio::test(start_paused = true)]
async fn gw_162_163_164_all_members_once_in_thirty_seconds() {
    let simulator = simulator(|config| config.guilds = 1);
    let (mut client, guilds) = session(&simulator, 1).await;
    let ask = |nonce: &str| json!({"op": 8, "d": {"guild_id": guilds[0]["id"], "query": "", "limit": 0, "nonce": nonce}});
    client.send(&ask("first")).await;
    client.until_event("GUILD_MEMBERS_CHUNK").await;
    sleep(Duration::from_secs(10)).await;
    client.send(&ask("second")).await;
    let limited = client.until_event("RATE_LIMITED").await["d"].take();
    assert_eq!(limited["opcode"], 8);
    assert_eq!(limited["meta"], json!({"guild_id": guilds[0]["id"], "nonce": "second"}));
    let wait = limited["retry_after"].as_f64().unwrap();
    assert!((19.9..=20.0).contains(&wait), "{wait}");
    // The limit does not concern a search.
    let search = json!({"guild_id": guilds[0]["id"], "query": "member", "limit": 2});
    client.send(&json!({"op": 8, "d": search})).await;
    let found = client.until_event("GUILD_MEMBERS_CHUNK").await["d"].take();
    assert_eq!(found["members"].as_array().unwrap().len(), 2);
    sleep(Duration::from_secs_f64(wait)).await;
    client.send(&ask("third")).await;
    assert_eq!(client.until_event("GUILD_MEMBERS_CHUNK").await["d"]["nonce"], "third");
    assert_eq!(simulator.report().members_limited, 1);
}

#[tokio::test(start_paused = true)]
async fn gw_025_219_ids_that_are_no_members_are_reported() {
    let simulator = simulator(|config| config.guilds = 1);
    let (mut client, guilds) = session(&simulator, 1).await;
    let known = guilds[0]["owner_id"].clone();
    let ask = json!({"guild_id": guilds[0]["id"], "user_ids": [known, "80351110224678912", "123123"], "nonce": "n"});
    client.send(&json!({"op": 8, "d": ask})).await;
    let chunk = client.until_event("GUILD_MEMBERS_CHUNK").await["d"].take();
    assert_eq!(chunk["members"][0]["user"]["id"], known);
    assert_eq!(chunk["not_found"], json!(["80351110224678912", 123_123]));
    // A single id need not be a list. If no member is found, one empty chunk comes.
    client.send(&json!({"op": 8, "d": {"guild_id": guilds[0]["id"], "user_ids": "1"}})).await;
    let chunk = client.until_event("GUILD_MEMBERS_CHUNK").await["d"].take();
    assert_eq!((&chunk["members"], &chunk["chunk_count"]), (&json!([]), &json!(1)));
    assert!(is_spotless(&simulator));
}

#[tokio::test(start_paused = true)]
async fn gw_209_to_215_requests_for_members_are_judged() {
    let cases = [
        (json!({"query": "", "limit": 0, "user_ids": ["1"]}), vec!["GW-210"]),
        (json!({}), vec!["GW-210"]),
        (json!({"user_ids": vec!["80351110224678912"; 101]}), vec!["GW-211"]),
        (json!({"query": "x", "limit": 1, "nonce": "n".repeat(33)}), vec!["GW-214"]),
        (json!({"query": "x", "limit": 1, "nonce": "ü".repeat(16)}), vec![]),
        // GW-230: op 8 only reaches the session's own guilds.
        (json!({"guild_id": "1", "query": "x", "limit": 1}), vec!["GW-215"]),
    ];
    for (mut ask, expected) in cases {
        let simulator = simulator(|config| config.guilds = 1);
        let (mut client, guilds) = session(&simulator, 1).await;
        if ask.get("guild_id").is_none() {
            ask["guild_id"] = guilds[0]["id"].clone();
        }
        client.send(&json!({"op": 8, "d": ask})).await;
        client.send(&heartbeat(json!(1))).await;
        client.until(11).await;
        assert_eq!(advice(&simulator), expected, "{ask}");
    }
    let simulator = simulator(|config| config.guilds = 1);
    let (mut client, guilds) = session(&simulator, 1).await;
    client.send(&json!({"op": 8, "d": {"guild_id": [guilds[0]["id"]], "query": "", "limit": 0}})).await;
    assert_eq!(client.end().await, Some(4002));
    assert_eq!(rules(&simulator), ["GW-209"]);
}

#[tokio::test(start_paused = true)]
async fn gw_212_213_members_and_presences_need_their_intents() {
    let simulator = simulator(|config| config.guilds = 1);
    let mut client = Client::connect(&simulator).await;
    client.until(10).await;
    let mut payload = identify(0, 1);
    payload["d"]["intents"] = json!(1);
    client.send(&payload).await;
    let guild = client.until_event("GUILD_CREATE").await["d"]["id"].take();
    client.send(&json!({"op": 8, "d": {"guild_id": guild, "query": "", "limit": 0}})).await;
    let search = json!({"guild_id": guild, "query": "sim", "limit": 1, "presences": true});
    client.send(&json!({"op": 8, "d": search})).await;
    let chunk = client.until_event("GUILD_MEMBERS_CHUNK").await["d"].take();
    assert_eq!(chunk["members"].as_array().unwrap().len(), 1, "the answer to the second");
    assert!(chunk.get("presences").is_none());
    assert_eq!(advice(&simulator), ["GW-212"]);
}

#[tokio::test(start_paused = true)]
async fn gw_221_222_sounds_of_each_guild_of_the_session() {
    let simulator = simulator(|config| config.guilds = 3);
    let (mut client, guilds) = session(&simulator, 3).await;
    let ids: Vec<&Value> = guilds.iter().map(|guild| &guild["id"]).collect();
    // GW-066: op 31 requests soundboard sounds by `guild_ids`.
    client.send(&json!({"op": 31, "d": {"guild_ids": ids}})).await;
    for id in ids {
        let sounds = client.until_event("SOUNDBOARD_SOUNDS").await["d"].take();
        assert_eq!(&sounds["guild_id"], id);
        assert_eq!(sounds["soundboard_sounds"][0]["name"], "Yay");
    }
    client.send(&json!({"op": 31, "d": {"guild_ids": ["1"]}})).await;
    client.send(&json!({"op": 31, "d": {}})).await;
    client.send(&heartbeat(json!(1))).await;
    client.until(11).await;
    assert_eq!(advice(&simulator), ["GW-222", "GW-221"]);
}

#[tokio::test(start_paused = true)]
async fn gw_224_226_channel_info_has_the_fields_that_were_asked_for() {
    let simulator = simulator(|config| config.guilds = 1);
    let (mut client, guilds) = session(&simulator, 1).await;
    let ask = |fields: Value| json!({"op": 43, "d": {"guild_id": guilds[0]["id"], "fields": fields}});
    // GW-067: op 43 requests channel info by `guild_id` and `fields`.
    client.send(&ask(json!(["status"]))).await;
    let info = client.until_event("CHANNEL_INFO").await["d"].take();
    assert_eq!(info["channels"].as_array().unwrap().len(), 2);
    assert_eq!(info["channels"][0]["status"], "standup");
    assert!(info["channels"][0].get("voice_start_time").is_none());
    let busy = guilds[0]["channels"].as_array().unwrap().iter().find(|channel| channel["type"] == 2).unwrap();
    let join =
        json!({"guild_id": guilds[0]["id"], "channel_id": busy["id"], "self_mute": true, "self_deaf": true});
    client.send(&json!({"op": 4, "d": join})).await;
    client.send(&ask(json!(["status", "voice_start_time"]))).await;
    let info = client.until_event("CHANNEL_INFO").await["d"].take();
    assert!(info["channels"][0]["voice_start_time"].is_u64());
    client.send(&ask(json!(["colour"]))).await;
    client.until_event("CHANNEL_INFO").await;
    assert_eq!(advice(&simulator), ["GW-224"]);
}

#[tokio::test(start_paused = true)]
async fn gw_194_200_a_presence_is_sent_in_the_guilds_with_what_bots_may_set() {
    let simulator = simulator(|config| config.guilds = 2);
    let (mut client, _) = session(&simulator, 2).await;
    let activity = json!({"name": "chess", "type": 0, "details": "blitz"});
    let presence = json!({"since": null, "activities": [activity], "status": "dnd", "afk": false});
    client.send(&json!({"op": 3, "d": presence})).await;
    for _ in 0..2 {
        let reported = client.until_event("PRESENCE_UPDATE").await["d"].take();
        assert_eq!(
            (&reported["status"], &reported["client_status"]),
            (&json!("dnd"), &json!({"web": "dnd"}))
        );
        assert_eq!(reported["activities"][0]["name"], "chess");
        assert!(reported["activities"][0].get("details").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn gw_211_at_most_a_hundred_members_are_found_and_no_limit_of_time_applies() {
    let simulator = simulator(|config| {
        config.guilds = 1;
        config.large_guild_members = 300;
    });
    let (mut client, guilds) = session(&simulator, 1).await;
    // With a limit above zero, an empty prefix is a search, which has no rate limit.
    for query in ["member", "", ""] {
        let ask = json!({"guild_id": guilds[0]["id"], "query": query, "limit": 1000});
        client.send(&json!({"op": 8, "d": ask})).await;
        let chunk = client.until_event("GUILD_MEMBERS_CHUNK").await["d"].take();
        assert_eq!(chunk["members"].as_array().unwrap().len(), 100);
    }
    assert!(is_spotless(&simulator));
}

#[tokio::test(start_paused = true)]
async fn gw_223_sounds_need_no_intent() {
    let simulator = simulator(|config| config.guilds = 1);
    let mut client = Client::connect(&simulator).await;
    client.until(10).await;
    let mut payload = identify(0, 1);
    payload["d"]["intents"] = json!(1);
    client.send(&payload).await;
    let guild = client.until_event("GUILD_CREATE").await["d"].take();
    assert_eq!(guild["soundboard_sounds"][0]["name"], "Yay");
    client.send(&json!({"op": 31, "d": {"guild_ids": [guild["id"]]}})).await;
    client.until_event("SOUNDBOARD_SOUNDS").await;
}

#[tokio::test(start_paused = true)]
async fn ids_may_be_integers_in_every_command() {
    let simulator = simulator(|config| config.guilds = 1);
    let (mut client, guilds) = session(&simulator, 1).await;
    let integer = |id: &Value| -> Value { id.as_str().unwrap().parse::<u64>().unwrap().into() };
    let guild = integer(&guilds[0]["id"]);
    let channels = guilds[0]["channels"].as_array().unwrap();
    let voice = &channels.iter().find(|channel| channel["type"] == 2).unwrap()["id"];
    let owner = &guilds[0]["owner_id"];
    let join =
        json!({"guild_id": guild, "channel_id": integer(voice), "self_mute": false, "self_deaf": false});
    client.send(&json!({"op": 4, "d": join})).await;
    assert_eq!(client.until_event("VOICE_STATE_UPDATE").await["d"]["channel_id"], *voice);
    client.send(&json!({"op": 8, "d": {"guild_id": guild, "user_ids": [integer(owner), 1_u64 << 40]}})).await;
    let chunk = client.until_event("GUILD_MEMBERS_CHUNK").await["d"].take();
    assert_eq!((&chunk["members"][0]["user"]["id"], &chunk["guild_id"]), (owner, &guilds[0]["id"]));
    assert_eq!(chunk["not_found"], json!([(1_u64 << 40).to_string()]));
    client.send(&json!({"op": 31, "d": {"guild_ids": [guild]}})).await;
    assert_eq!(client.until_event("SOUNDBOARD_SOUNDS").await["d"]["guild_id"], guilds[0]["id"]);
    client.send(&json!({"op": 43, "d": {"guild_id": guild, "fields": ["status"]}})).await;
    assert_eq!(client.until_event("CHANNEL_INFO").await["d"]["guild_id"], guilds[0]["id"]);
    // The bot can join a stage channel too.
    let stage = integer(&channels.iter().find(|channel| channel["type"] == 13).unwrap()["id"]);
    let join = json!({"guild_id": guild, "channel_id": stage, "self_mute": true, "self_deaf": false});
    client.send(&json!({"op": 4, "d": join})).await;
    assert_eq!(integer(&client.until_event("VOICE_STATE_UPDATE").await["d"]["channel_id"]), stage);
    client.until_event("VOICE_SERVER_UPDATE").await;
    assert!(rules(&simulator).is_empty(), "{:?}", rules(&simulator));
    // An invalid id does not mean to leave.
    let odd = json!({"guild_id": guild, "channel_id": "voice", "self_mute": false, "self_deaf": false});
    client.send(&json!({"op": 4, "d": odd})).await;
    client.send(&heartbeat(json!(1))).await;
    assert_eq!(client.next().await.unwrap()["op"], 11);
    assert_eq!(advice(&simulator), ["GW-208"]);
}

#[tokio::test(start_paused = true)]
async fn gw_249_commands_for_a_guild_in_an_outage_bring_nothing() {
    let simulator = simulator(|config| config.guilds = 1);
    let (mut client, guilds) = session(&simulator, 1).await;
    simulator.act(&shardkeeper_sim::Action::GuildOutage { guild: 0, lasts_ms: 1000 }).unwrap();
    client.until_event("GUILD_DELETE").await;
    let guild = &guilds[0]["id"];
    client.send(&json!({"op": 8, "d": {"guild_id": guild, "query": "", "limit": 0}})).await;
    client.send(&json!({"op": 31, "d": {"guild_ids": [guild]}})).await;
    let presence = json!({"since": null, "activities": [], "status": "dnd", "afk": false});
    client.send(&json!({"op": 3, "d": presence})).await;
    assert_eq!(client.next().await.unwrap()["t"], "GUILD_CREATE", "nothing before the guild is back");
    assert!(rules(&simulator).is_empty());
}
