//! What clients ask of REST.

use serde_json::{Value, json};
use shardkeeper_sim::{RestFault, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

/// An answer: its status, its headers as text, its body.
async fn request(simulator: &Simulator, method: &str, path: &str, body: &Value) -> (u16, String, Value) {
    let mut stream = simulator.connect();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bot sim-token\r\nuser-agent: DiscordBot (x, 1)\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), serde_json::from_str(body).unwrap_or_default())
}

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
    // GW-277: the hidden channel is left out.
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
async fn gw_283_290_292_limits_are_told_and_enforced() {
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
    assert_eq!((&report["sent"], report.get("delivery")), (&json!(2), None), "nobody told what arrived");
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
