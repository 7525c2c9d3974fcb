//! Judgements that have no test elsewhere.

use std::time::Duration;

use serde_json::{Value, json};
use shardkeeper_sim::{ConnectFault, Fault};
use tokio::time::sleep;

use crate::support::*;

const RESUME_URL: &str = "ws://resume.sim.invalid/resume?v=10&encoding=json";

async fn settle() {
    sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn gw_012_a_resume_has_the_query_of_its_session() {
    let simulator = simulator(|_| {});
    let mut client = Client::connect(&simulator).await;
    let session = client.login(0, 1).await;
    client.close(4000).await;
    let mut client = Client::connect_to(&simulator, &format!("{RESUME_URL}&compress=zlib-stream")).await;
    client.until(10).await;
    client.send(&resume(&session, 1)).await;
    client.until_event("RESUMED").await;
    assert_eq!(advice(&simulator), ["GW-012"]);
}

#[tokio::test(start_paused = true)]
async fn gw_140_148_083_085_sessions_that_are_over_are_not_resumed() {
    // After a close code, the first Resume gets op 9 from Discord. After op 9, a client must not resume
    // again.
    for (fault, first, then) in [
        (Fault::InvalidSession { resumable: false }, (vec!["GW-148"], vec![]), vec!["GW-148", "GW-140"]),
        (Fault::Close { code: 4007 }, (vec![], vec!["GW-083"]), vec!["GW-140"]),
        (Fault::Close { code: 4009 }, (vec![], vec!["GW-085"]), vec!["GW-140"]),
        (Fault::Close { code: 4003 }, (vec![], vec!["GW-079"]), vec!["GW-140"]),
    ] {
        let simulator = simulator(|_| {});
        let mut client = Client::connect(&simulator).await;
        let session = client.login(0, 1).await;
        simulator.inject(0, fault).unwrap();
        if let Fault::InvalidSession { .. } = fault {
            client.until(9).await;
            client.close(4000).await;
        } else {
            client.end().await;
        }
        settle().await;
        let noted = first.1;
        for expected in [first.0, then] {
            let mut client = Client::connect_to(&simulator, RESUME_URL).await;
            client.until(10).await;
            client.send(&resume(&session, 1)).await;
            client.until(9).await;
            settle().await;
            assert_eq!((rules(&simulator), advice(&simulator)), (expected, noted.clone()), "{fault:?}");
        }
    }
    // GW-143: a Resume of an unknown session gets op 9 `false`.
    // A Resume of an unknown session may be tried once.
    let simulator = simulator(|_| {});
    for expected in [vec![], vec!["GW-140"]] {
        let mut client = Client::connect_to(&simulator, RESUME_URL).await;
        client.until(10).await;
        client.send(&resume("unknown", 1)).await;
        assert_eq!(client.until(9).await["d"], false);
        settle().await;
        assert_eq!(rules(&simulator), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn gw_135_an_identify_behind_a_resume() {
    let simulator = simulator(|_| {});
    let mut client = Client::connect(&simulator).await;
    let session = client.login(0, 1).await;
    client.close(4000).await;
    simulator.arm(ConnectFault::NoReady, 1);
    let mut client = Client::connect_to(&simulator, RESUME_URL).await;
    client.until(10).await;
    client.send(&resume(&session, 1)).await;
    client.identify(0, 1).await;
    assert_eq!(client.end().await, Some(4005));
    assert_eq!(rules(&simulator), ["GW-135"]);
}

#[tokio::test(start_paused = true)]
async fn gw_114_a_heartbeat_after_one_that_was_not_acknowledged() {
    let simulator = simulator(|_| {});
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    simulator.inject(0, Fault::StopAcking).unwrap();
    for expected in [vec![], vec!["GW-114"]] {
        client.send(&heartbeat(json!(1))).await;
        sleep(Duration::from_secs(41)).await;
        assert_eq!(advice(&simulator), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn gw_115_118_requested_heartbeats_come_and_others_keep_their_time() {
    let simulator = simulator(|_| {});
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    client.send(&heartbeat(json!(1))).await;
    client.until(11).await;
    simulator.inject(0, Fault::RequestHeartbeat).unwrap();
    client.until(1).await;
    client.send(&heartbeat(json!(1))).await;
    client.until(11).await;
    assert!(advice(&simulator).is_empty());
    client.send(&heartbeat(json!(1))).await;
    client.until(11).await;
    assert_eq!(advice(&simulator), ["GW-118"]);
    simulator.inject(0, Fault::RequestHeartbeat).unwrap();
    sleep(Duration::from_secs(11)).await;
    assert_eq!(advice(&simulator), ["GW-118", "GW-115"]);
}

#[tokio::test(start_paused = true)]
async fn gw_110_first_heartbeats_without_jitter() {
    let simulator = simulator(|_| {});
    for _ in 0..16 {
        let mut client = Client::connect(&simulator).await;
        client.until(10).await;
        sleep(Duration::from_secs(41)).await;
        client.send(&heartbeat(Value::Null)).await;
        client.until(11).await;
    }
    assert_eq!(advice(&simulator), ["GW-110"]);
}

#[tokio::test(start_paused = true)]
async fn gw_144_op_7_is_followed_by_a_new_connection() {
    let simulator = simulator(|_| {});
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    simulator.inject(0, Fault::Reconnect).unwrap();
    assert_eq!(client.end().await, Some(4000));
    assert_eq!(rules(&simulator), ["GW-144"]);
}

#[tokio::test(start_paused = true)]
async fn gw_096_other_shards_stop_too_when_the_token_is_refused() {
    let simulator = simulator(|config| config.max_concurrency = 2);
    let mut client = Client::connect(&simulator).await;
    client.login(0, 2).await;
    simulator.inject(0, Fault::Close { code: 4004 }).unwrap();
    client.end().await;
    for (wait, expected) in [(1, vec![]), (11, vec!["GW-096"])] {
        sleep(Duration::from_secs(wait)).await;
        let mut client = Client::connect(&simulator).await;
        client.until(10).await;
        client.identify(1, 2).await;
        client.next().await.unwrap();
        assert_eq!(advice(&simulator), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn gw_010_071_072_100_101_132_149_171_279_what_is_unwise_is_noted_and_taken() {
    let simulator = simulator(|_| {});
    let mut client = Client::connect_to(&simulator, "ws://x.invalid/?v=10").await;
    client.until(10).await;
    let mut payload = identify(1, 2);
    payload["d"]["properties"] = json!({"$os": "x"});
    payload["d"]["large_threshold"] = json!(1000);
    payload["d"]["capabilities"] = json!(32768);
    client.send(&payload).await;
    let session = client.until_event("READY").await["d"]["session_id"].as_str().unwrap().to_owned();
    client.close(3000).await;
    settle().await;
    assert_eq!(advice(&simulator), ["GW-010", "GW-071", "GW-072", "GW-279", "GW-100"]);

    let mut client = Client::connect(&simulator).await;
    client.until(10).await;
    client.send(&resume(&session, 1)).await;
    client.until_event("RESUMED").await;
    client.socket.close(None).await.unwrap();
    client.end().await;
    settle().await;
    assert_eq!(advice(&simulator)[5..], ["GW-132", "GW-101"]);

    sleep(Duration::from_secs(6)).await;
    let mut client = Client::connect(&simulator).await;
    client.login(0, 2).await;
    simulator.inject(0, Fault::InvalidSession { resumable: true }).unwrap();
    client.until(9).await;
    client.close(4000).await;
    sleep(Duration::from_millis(500)).await;
    let mut client = Client::connect_to(&simulator, RESUME_URL).await;
    client.until(10).await;
    client.identify(1, 2).await;
    settle().await;
    assert_eq!(advice(&simulator)[7..], ["GW-171", "GW-140"], "the last Identify came at the wrong URL");
    assert_eq!(rules(&simulator), ["GW-170"], "and too early");
}

#[tokio::test(start_paused = true)]
async fn gw_149_a_login_too_soon_after_op_9() {
    let simulator = simulator(|_| {});
    let mut client = Client::connect(&simulator).await;
    let session = client.login(0, 1).await;
    simulator.inject(0, Fault::InvalidSession { resumable: true }).unwrap();
    client.until(9).await;
    client.close(4000).await;
    let mut client = Client::connect_to(&simulator, RESUME_URL).await;
    client.until(10).await;
    client.send(&resume(&session, 1)).await;
    client.until_event("RESUMED").await;
    assert_eq!(advice(&simulator), ["GW-149"]);
    assert!(rules(&simulator).is_empty());
}

#[tokio::test(start_paused = true)]
async fn gw_195_196_odd_presences_are_taken_and_noted() {
    let simulator = simulator(|_| {});
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    let presence = json!({
        "since": 0, "status": "idle", "afk": true,
        "activities": [{"name": "", "type": 9}, {"name": "s", "type": 1, "url": "https://example.org/"}, 5],
    });
    client.send(&json!({"op": 3, "d": presence})).await;
    client.send(&heartbeat(json!(1))).await;
    client.until(11).await;
    assert!(rules(&simulator).is_empty());
    assert_eq!(advice(&simulator), ["GW-195", "GW-196", "GW-195", "GW-196"]);
    assert_eq!(simulator.report().presences[&0]["status"], "idle");
}

#[tokio::test(start_paused = true)]
async fn gw_070_a_prefixed_token_is_noted_and_the_resume_has_to_have_the_same() {
    for (token, rule) in [("Bot sim-token", None), ("sim-token", Some("GW-070"))] {
        let simulator = simulator(|_| {});
        let mut client = Client::connect(&simulator).await;
        client.until(10).await;
        let mut payload = identify(0, 1);
        payload["d"]["token"] = json!("Bot sim-token");
        client.send(&payload).await;
        let session = client.until_event("READY").await["d"]["session_id"].as_str().unwrap().to_owned();
        client.close(4000).await;
        let mut client = Client::connect_to(&simulator, RESUME_URL).await;
        client.until(10).await;
        let mut payload = resume(&session, 1);
        payload["d"]["token"] = json!(token);
        client.send(&payload).await;
        match rule {
            None => drop(client.until_event("RESUMED").await),
            Some(_) => assert_eq!(client.until(9).await["d"], false),
        }
        assert_eq!(rules(&simulator), rule.into_iter().collect::<Vec<_>>());
        assert_eq!(advice(&simulator), ["GW-070"]);
    }
}
