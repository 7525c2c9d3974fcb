//! The REST API.

use serde_json::{Value, json};
use shardkeeper_sim::{RestFault, Simulator};

use crate::support::*;

async fn read(simulator: &Simulator, path: &str) -> Value {
    let (status, _, body) = request(simulator, "GET", &format!("/api/v10{path}"), &Value::Null).await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

#[tokio::test(start_paused = true)]
async fn what_clients_ask_at_login_is_answered() {
    let simulator = simulator(|config| config.guilds = 2);
    let user = read(&simulator, "/users/@me").await;
    for path in ["/oauth2/applications/@me", "/applications/@me"] {
        let application = read(&simulator, path).await;
        assert_eq!(application["id"], user["id"]);
        assert_eq!(application["bot"]["id"], user["id"]);
    }
    let guilds = read(&simulator, "/users/@me/guilds").await;
    let id = guilds[0]["id"].as_str().unwrap();
    let guild = read(&simulator, &format!("/guilds/{id}?with_counts=true")).await;
    assert!(guild["approximate_member_count"].as_u64().unwrap() >= 4);
    // GW-277: the list does not have the hidden channel.
    let channels = read(&simulator, &format!("/guilds/{id}/channels")).await;
    assert!(channels.as_array().unwrap().iter().all(|channel| channel["name"] != "___hidden___"));
    let channel = channels[0]["id"].as_str().unwrap();
    assert_eq!(read(&simulator, &format!("/channels/{channel}")).await["guild_id"], guild["id"]);
    let first = read(&simulator, &format!("/guilds/{id}/members?limit=2")).await;
    let after = first[1]["user"]["id"].as_str().unwrap();
    let second = read(&simulator, &format!("/guilds/{id}/members?limit=1000&after={after}")).await;
    assert_eq!(2 + second.as_array().unwrap().len() as u64, guild["approximate_member_count"]);
    let owner = guild["owner_id"].as_str().unwrap();
    assert_eq!(read(&simulator, &format!("/guilds/{id}/members/{owner}")).await["user"]["id"], owner);
    assert_eq!(read(&simulator, &format!("/users/{owner}")).await["id"], owner);
    assert_eq!(request(&simulator, "GET", "/api/v10/guilds/1", &Value::Null).await.0, 404);
    assert!(is_spotless(&simulator));
}

#[tokio::test(start_paused = true)]
async fn commands_are_kept() {
    let simulator = simulator(|_| {});
    let path = "/api/v10/applications/1/commands";
    let ping = json!({"name": "ping", "description": "pong"});
    let (status, _, made) = request(&simulator, "PUT", path, &json!([ping])).await;
    assert_eq!((status, &made[0]["name"], &made[0]["type"]), (200, &json!("ping"), &json!(1)));
    let (status, _, more) = request(&simulator, "POST", path, &json!({"name": "duck"})).await;
    assert_eq!(status, 201);
    assert_ne!(more["id"], made[0]["id"]);
    let (_, _, all) = request(&simulator, "GET", path, &Value::Null).await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(request(&simulator, "POST", path, &json!(5)).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_posted_comes_back() {
    let simulator = simulator(|config| config.guilds = 1);
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    let guild = client.until_event("GUILD_CREATE").await["d"].take();
    let channel = &guild["channels"][1]["id"].as_str().unwrap();
    let path = format!("/api/v10/channels/{channel}/messages");
    let (status, _, posted) = request(&simulator, "POST", &path, &json!({"content": "hi"})).await;
    assert_eq!((status, &posted["content"]), (200, &json!("hi")));
    let created = client.until_event("MESSAGE_CREATE").await["d"].take();
    assert_eq!((&created["id"], &created["content"]), (&posted["id"], &json!("hi")));
    assert_eq!(created["guild_id"], guild["id"]);
}

#[tokio::test(start_paused = true)]
async fn gw_283_290_292_limits_are_announced_and_enforced() {
    let simulator = simulator(|config| config.guilds = 1);
    let path = "/api/v10/channels/1/messages";
    for left in (0..5).rev() {
        let (status, head, _) = request(&simulator, "POST", path, &json!({})).await;
        assert_eq!(status, 404, "there is no such channel, and it counts");
        assert!(head.contains(&format!("x-ratelimit-remaining: {left}\r\n")), "{head}");
    }
    for expected in [vec![], vec!["GW-290"]] {
        let (status, head, body) = request(&simulator, "POST", path, &json!({})).await;
        assert_eq!((status, &body["global"]), (429, &json!(false)));
        assert!((4.0..=5.0).contains(&body["retry_after"].as_f64().unwrap()));
        assert!(head.contains("retry-after: 5") && head.contains("x-ratelimit-scope: user"), "{head}");
        let notices: Vec<_> = simulator.report().notices.iter().map(|notice| notice.rule).collect();
        assert_eq!(notices, expected);
    }
    simulator.arm_rest(RestFault::RateLimited { retry_after_ms: 1500, global: true }, 1);
    let (status, head, body) = request(&simulator, "GET", "/api/v10/gateway/bot", &Value::Null).await;
    assert_eq!((status, &body["retry_after"], &body["global"]), (429, &json!(1.5), &json!(true)));
    assert!(head.contains("retry-after: 2\r\n") && head.contains("x-ratelimit-global: true"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn gw_281_282_297_requests_are_judged() {
    let simulator = simulator(|_| {});
    get(&simulator, "/users/@me", "Bot sim-token").await;
    for _ in 0..2 {
        get(&simulator, "/api/v10/users/@me", "Bot wrong").await;
    }
    assert_eq!(rules(&simulator), ["GW-297"]);
    assert_eq!(advice(&simulator), ["GW-282", "GW-281"]);
}

#[tokio::test(start_paused = true)]
async fn the_simulator_is_controlled_over_http() {
    let simulator = simulator(|config| config.guilds = 1);
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    let act = json!({"do": "fault", "shard": 0, "fault": {"close": {"code": 4000}}});
    assert_eq!(request(&simulator, "POST", "/sim/act", &act).await.0, 204);
    assert_eq!(client.end().await, Some(4000));
    let (_, _, report) = request(&simulator, "GET", "/sim/report", &Value::Null).await;
    assert_eq!((&report["identifies"], &report["violations"]), (&json!(1), &json!([])));
    assert_eq!((&report["sent"], report.get("delivery")), (&json!(2), None), "nothing was observed");
    for (wrong, culprit) in [
        (json!({"do": "explode"}), "explode"),
        (json!({"do": "fault", "shard": 5, "fault": "cut"}), "shard 5 has no connection"),
        (json!(1), "line 1: invalid type"),
    ] {
        let (status, _, body) = request(&simulator, "POST", "/sim/act", &wrong).await;
        assert_eq!(status, 400);
        assert!(body["message"].as_str().unwrap().contains(culprit), "{body}");
    }
    assert_eq!(request(&simulator, "GET", "/sim/nothing", &Value::Null).await.0, 404);
}

/// A guild of one client, the client, and the path of the guild's first text channel.
async fn channel(simulator: &Simulator) -> (Client, Value, String) {
    let mut client = Client::connect(simulator).await;
    client.login(0, 1).await;
    let guild = client.until_event("GUILD_CREATE").await["d"].take();
    let channels = guild["channels"].as_array().unwrap();
    let text = channels.iter().find(|channel| channel["type"] == 0).unwrap()["id"].as_str().unwrap();
    let path = format!("/api/v10/channels/{text}");
    (client, guild, path)
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_named_by_discords_codes() {
    let simulator = simulator(|config| config.guilds = 1);
    let (_client, guild, channel) = channel(&simulator).await;
    let guild = format!("/api/v10/guilds/{}", guild["id"].as_str().unwrap());
    for (method, path, code) in [
        ("GET", "/api/v10/channels/1".to_owned(), 10003),
        ("POST", "/api/v10/channels/1/messages".to_owned(), 10003),
        ("GET", "/api/v10/guilds/1".to_owned(), 10004),
        ("GET", format!("{guild}/members/1"), 10007),
        ("GET", "/api/v10/users/1".to_owned(), 10013),
        ("GET", format!("{channel}/messages/1"), 10008),
        ("PATCH", format!("{channel}/messages/1"), 10008),
        ("PUT", format!("{channel}/messages/1/reactions/party%3A1/@me"), 10014),
        ("GET", "/api/v10/nothing".to_owned(), 0),
    ] {
        let (status, _, body) = request(&simulator, method, &path, &json!({"content": "x"})).await;
        assert_eq!((status, &body["code"]), (404, &json!(code)), "{method} {path}");
    }
    assert!(rules(&simulator).is_empty());
}

#[tokio::test(start_paused = true)]
async fn messages_and_reactions_are_edited_taken_back_and_come_as_events() {
    let simulator = simulator(|config| config.guilds = 1);
    let (mut client, guild, channel) = channel(&simulator).await;
    let messages = format!("{channel}/messages");
    let embed = json!({"title": "t"});
    let (_, _, posted) =
        request(&simulator, "POST", &messages, &json!({"content": "one", "embeds": [embed]})).await;
    client.until_event("MESSAGE_CREATE").await;
    let message = format!("{messages}/{}", posted["id"].as_str().unwrap());

    let (status, _, edited) = request(&simulator, "PATCH", &message, &json!({"content": "two"})).await;
    assert_eq!((status, &edited["content"], &edited["id"]), (200, &json!("two"), &posted["id"]));
    assert_eq!(edited["embeds"][0]["title"], "t");
    let update = client.until_event("MESSAGE_UPDATE").await["d"].take();
    assert_eq!((&update["content"], &update["guild_id"]), (&json!("two"), &guild["id"]));
    assert!(update["edited_timestamp"].as_str() > update["timestamp"].as_str());

    // 🦆 with percent-encoding, twice. The second request changes nothing.
    let reactions = format!("{message}/reactions");
    let duck = format!("{reactions}/%F0%9F%A6%86");
    for _ in 0..2 {
        assert_eq!(request(&simulator, "PUT", &format!("{duck}/@me"), &Value::Null).await.0, 204);
    }
    let party = guild["emojis"][0]["id"].as_str().unwrap();
    let party = format!("{reactions}/party:{party}/@me");
    assert_eq!(request(&simulator, "PUT", &party, &Value::Null).await.0, 204);
    for emoji in [json!({"id": null, "name": "🦆"}), json!({"id": guild["emojis"][0]["id"], "name": "party"})]
    {
        let added = client.next().await.unwrap();
        assert_eq!((&added["t"], &added["d"]["emoji"]), (&json!("MESSAGE_REACTION_ADD"), &emoji));
        assert_eq!(
            (&added["d"]["message_id"], &added["d"]["channel_id"]),
            (&posted["id"], &posted["channel_id"])
        );
    }
    let (_, _, users) = request(&simulator, "GET", &duck, &Value::Null).await;
    assert_eq!(users[0]["bot"], true);
    let (_, _, read) = request(&simulator, "GET", &message, &Value::Null).await;
    assert_eq!((&read["reactions"][0]["count"], &read["reactions"][1]["me"]), (&json!(1), &json!(true)));
    assert_eq!(request(&simulator, "DELETE", &format!("{duck}/@me"), &Value::Null).await.0, 204);
    assert_eq!(client.next().await.unwrap()["t"], "MESSAGE_REACTION_REMOVE");
    assert_eq!(request(&simulator, "DELETE", &reactions, &Value::Null).await.0, 204);
    assert_eq!(client.next().await.unwrap()["t"], "MESSAGE_REACTION_REMOVE_ALL");

    assert_eq!(request(&simulator, "DELETE", &message, &Value::Null).await.0, 204);
    assert_eq!(client.next().await.unwrap()["d"]["id"], posted["id"]);
    assert_eq!(request(&simulator, "GET", &message, &Value::Null).await.0, 404);

    let mut ids = Vec::new();
    for content in ["three", "four"] {
        let (_, _, posted) = request(&simulator, "POST", &messages, &json!({"content": content})).await;
        ids.push(posted["id"].clone());
        client.until_event("MESSAGE_CREATE").await;
    }
    let (_, _, list) = request(&simulator, "GET", &format!("{messages}?limit=10"), &Value::Null).await;
    assert_eq!((&list[0]["id"], &list[1]["id"], list.as_array().unwrap().len()), (&ids[1], &ids[0], 2));
    let bulk = format!("{messages}/bulk-delete");
    assert_eq!(request(&simulator, "POST", &bulk, &json!({"messages": ids})).await.0, 204);
    assert_eq!(client.next().await.unwrap()["d"]["ids"], json!(ids));
    let (status, head, _) = request(&simulator, "POST", &format!("{channel}/typing"), &Value::Null).await;
    assert_eq!(status, 204);
    assert!(!head.contains("content-type"), "libraries would read a body of JSON: {head}");
    assert_eq!(client.next().await.unwrap()["t"], "TYPING_START");
    assert!(rules(&simulator).is_empty());
}

#[tokio::test(start_paused = true)]
async fn others_messages_are_not_edited_and_no_message_is_empty_or_too_long() {
    let simulator = simulator(|config| config.guilds = 1);
    let (mut client, _, channel) = channel(&simulator).await;
    let action = json!({"do": "emit", "shard": 0, "event": "MESSAGE_CREATE"});
    request(&simulator, "POST", "/sim/act", &action).await;
    let said = client.until_event("MESSAGE_CREATE").await["d"].take();
    let text = |field: &str| said[field].as_str().unwrap().to_owned();
    let path = format!("/api/v10/channels/{}/messages/{}", text("channel_id"), text("id"));
    let messages = format!("{channel}/messages");
    for (method, path, body, expected) in [
        ("PATCH", &path, json!({"content": "mine"}), (403, 50005)),
        ("POST", &messages, json!({"content": ""}), (400, 50006)),
        ("POST", &messages, json!({"content": "x".repeat(2001)}), (400, 50035)),
        ("POST", &messages, json!({"content": 5}), (400, 50035)),
        ("POST", &messages, json!({"embeds": [{"description": "x".repeat(20_000)}]}), (400, 50035)),
    ] {
        let (status, _, answer) = request(&simulator, method, path, &body).await;
        assert_eq!((status, answer["code"].as_u64().unwrap()), expected, "{method} {path}");
    }
    // The bot reacts to the message, and is allowed to delete it.
    let turtle = format!("{path}/reactions/%F0%9F%90%A2/@me");
    assert_eq!(request(&simulator, "PUT", &turtle, &Value::Null).await.0, 204);
    assert_eq!(client.next().await.unwrap()["d"]["message_author_id"], said["author"]["id"]);
    assert_eq!(request(&simulator, "DELETE", &path, &Value::Null).await.0, 204);
    assert_eq!(client.next().await.unwrap()["t"], "MESSAGE_DELETE");
}

#[tokio::test(start_paused = true)]
async fn a_direct_channel_is_opened_and_answers() {
    let simulator = simulator(|config| config.guilds = 1);
    let (mut client, guild, _) = channel(&simulator).await;
    let open = json!({"recipient_id": guild["owner_id"]});
    let (_, _, direct) = request(&simulator, "POST", "/api/v10/users/@me/channels", &open).await;
    assert_eq!((&direct["type"], &direct["recipients"][0]["id"]), (&json!(1), &guild["owner_id"]));
    let path = format!("/channels/{}", direct["id"].as_str().unwrap());
    assert_eq!(read(&simulator, &path).await["id"], direct["id"]);
    let path = format!("/api/v10{path}/messages");
    let (_, _, posted) = request(&simulator, "POST", &path, &json!({"content": "psst"})).await;
    let created = client.until_event("MESSAGE_CREATE").await["d"].take();
    assert_eq!((&created["id"], &created["channel_type"]), (&posted["id"], &json!(1)));
    assert!(created.get("guild_id").is_none());
    let path = format!("{path}/{}", posted["id"].as_str().unwrap());
    assert_eq!(request(&simulator, "PATCH", &path, &json!({"content": "pst"})).await.0, 200);
    assert_eq!(client.until_event("MESSAGE_UPDATE").await["d"]["content"], "pst");
}
