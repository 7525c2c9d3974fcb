//! Each fault does what its name says.

use std::time::Duration;

use serde_json::{Value, json};
use shardkeeper_sim::{Action, ConnectFault, Fault, Script, SimConfig, Simulator};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::client_async;

use crate::support::*;

async fn logged_in() -> (Simulator, Client) {
    let simulator = simulator(|config: &mut SimConfig| config.guilds = 1);
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    client.until_event("GUILD_CREATE").await;
    (simulator, client)
}

#[tokio::test(start_paused = true)]
async fn a_truncated_message_ends_the_connection() {
    let (simulator, mut client) = logged_in().await;
    simulator.inject(0, Fault::Truncate).unwrap();
    assert_eq!(client.end().await, None);
}

#[tokio::test(start_paused = true)]
async fn gw_023_duplicates_are_new_dispatches_with_old_content() {
    let (simulator, mut client) = logged_in().await;
    simulator.emit(0, 3);
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(client.next().await.unwrap());
    }
    simulator.inject(0, Fault::Duplicate { count: 2 }).unwrap();
    for (original, sequence) in sent[1..].iter().zip(6..) {
        let copy = client.next().await.unwrap();
        assert_eq!((&copy["t"], &copy["s"]), (&original["t"], &json!(sequence)));
        assert_ne!(copy["d"]["_trace"], original["d"]["_trace"]);
    }
}

#[tokio::test(start_paused = true)]
async fn reordered_dispatches_change_places_and_are_not_held_against_the_client() {
    let (simulator, mut client) = logged_in().await;
    simulator.inject(0, Fault::Reorder).unwrap();
    simulator.emit(0, 3);
    let mut sequences = Vec::new();
    for _ in 0..3 {
        let payload = client.next().await.unwrap();
        sequences.push(payload["s"].as_u64().unwrap());
        simulator.observe(0, "", payload["d"].to_string().as_bytes());
    }
    assert_eq!(sequences, [4, 3, 5]);
    assert_eq!(simulator.delivery().out_of_order, 0);
}

#[tokio::test(start_paused = true)]
async fn gaps_huge_and_odd_dispatches() {
    let (simulator, mut client) = logged_in().await;
    simulator.inject(0, Fault::Gap { count: 100 }).unwrap();
    simulator.emit(0, 1);
    assert_eq!(client.next().await.unwrap()["s"], 103);
    simulator.inject(0, Fault::Huge { bytes: 5 << 20 }).unwrap();
    let huge = client.next().await.unwrap();
    assert!(huge["d"].to_string().len() > 5 << 20);
    simulator.inject(0, Fault::Odd).unwrap();
    assert_eq!(client.until(99).await.get("s"), None);
    assert_eq!(client.until_event("SIMULATED_UNKNOWN_EVENT").await["s"], 105);
    assert!(is_spotless(&simulator));
}

#[tokio::test(start_paused = true)]
async fn a_slow_writer_takes_its_time_and_a_stalled_reader_hears_nothing() {
    let (simulator, mut client) = logged_in().await;
    simulator.inject(0, Fault::SlowWriting { bytes_per_second: 5000 }).unwrap();
    let before = Instant::now();
    simulator.inject(0, Fault::Huge { bytes: 100_000 }).unwrap();
    simulator.emit(0, 1);
    for _ in 0..2 {
        client.next().await.unwrap();
    }
    assert!(before.elapsed() > Duration::from_secs(20), "{:?}", before.elapsed());

    let (simulator, mut client) = logged_in().await;
    simulator.inject(0, Fault::StallReading).unwrap();
    client.send(&heartbeat(json!(1))).await;
    simulator.emit(0, 1);
    assert!(client.next().await.unwrap()["t"].is_string());
    assert!(timeout(Duration::from_secs(600), client.socket_next()).await.is_err(), "no ACK, no close");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_may_be_answered_with_a_page() {
    let simulator = simulator(|_| {});
    simulator.arm(ConnectFault::Status { status: 502 }, 1);
    let error = client_async("ws://x.invalid/?v=10&encoding=json", simulator.connect()).await.unwrap_err();
    assert!(error.to_string().contains("502"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_script_is_carried_out_in_time_and_a_step_without_effect_stops_nothing() {
    let (simulator, mut client) = logged_in().await;
    let script = Script::from_toml(
        r#"
        [[step]]
        at_ms = 1000
        do = "emit"
        shard = 0
        count = 1
        [[step]]
        at_ms = 1500
        do = "fault"
        shard = 7
        fault = "cut"
        [[step]]
        at_ms = 2000
        do = "fault"
        fault = { close = { code = 4009 } }
        "#,
    )
    .unwrap();
    let before = Instant::now();
    let (code, ()) = tokio::join!(client.end(), simulator.play(script));
    assert_eq!(code, Some(4009));
    let took = before.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_faults() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let simulator = simulator(|config| {
            config.guilds = 1;
            config.events_per_second = 5.0;
            config.faults_per_minute = 60.0;
        });
        let mut client = Client::connect(&simulator).await;
        client.login(0, 1).await;
        simulator.start_traffic();
        let mut run: Vec<Value> = Vec::new();
        let end = loop {
            match client.next().await {
                Ok(payload) => run.push(payload),
                Err(code) => break code,
            }
        };
        runs.push((run, end));
    }
    assert_eq!(runs[0], runs[1]);
    assert!(!runs[0].0.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fault_without_a_shard_is_for_all() {
    let simulator = simulator(|config| config.max_concurrency = 2);
    let mut clients = Vec::new();
    for shard in 0..2 {
        let mut client = Client::connect(&simulator).await;
        client.login(shard, 2).await;
        clients.push(client);
    }
    simulator.act(&Action::Fault { shard: None, fault: Fault::Cut }).unwrap();
    for client in &mut clients {
        assert_eq!(client.end().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_did_not_learn_that_its_session_is_over() {
    let simulator = simulator(|_| {});
    let mut client = Client::connect(&simulator).await;
    let session = client.login(0, 1).await;
    // The simulator reads nothing, so it does not notice that the client leaves.
    simulator.inject(0, Fault::StallReading).unwrap();
    sleep(Duration::from_secs(1)).await;
    drop(client);
    simulator.inject(0, Fault::InvalidSession { resumable: false }).unwrap();
    sleep(Duration::from_secs(1)).await;
    let mut client =
        Client::connect_to(&simulator, "ws://resume.sim.invalid/resume?v=10&encoding=json").await;
    client.until(10).await;
    client.send(&resume(&session, 2)).await;
    assert_eq!(client.until(9).await["d"], false);
    assert_eq!(rules(&simulator), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn while_nothing_is_acknowledged_no_stray_acknowledgement_comes_either() {
    let (simulator, mut client) = logged_in().await;
    simulator.inject(0, Fault::StopAcking).unwrap();
    simulator.inject(0, Fault::Odd).unwrap();
    client.until(99).await;
    assert_eq!(client.next().await.unwrap()["op"], 0);
    assert!(timeout(Duration::from_secs(5), client.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_disarmed_does_not_happen() {
    let simulator = simulator(|_| {});
    simulator.arm(ConnectFault::Refuse, 3);
    simulator.act(&Action::Disarm).unwrap();
    Client::connect(&simulator).await.login(0, 1).await;
}

#[tokio::test(start_paused = true)]
async fn sessions_tell_what_was_sent_in_them_and_whether_they_live() {
    let (simulator, mut client) = logged_in().await;
    let before = simulator.sessions();
    assert_eq!((before.len(), before[0].session, before[0].connected, before[0].alive), (1, 1, true, true));
    simulator.inject(0, Fault::Reorder).unwrap();
    simulator.emit(0, 2);
    client.next().await.unwrap();
    client.next().await.unwrap();
    client.close(4000).await;
    sleep(Duration::from_secs(1)).await;
    let after = simulator.sessions();
    assert_eq!((after[0].sent, after[0].late.len()), (before[0].sent + 2, 1));
    assert_eq!((after[0].connected, after[0].alive), (false, true));
    sleep(Duration::from_secs(180)).await;
    assert!(!simulator.sessions()[0].alive);
}

#[tokio::test(start_paused = true)]
async fn a_simulator_that_is_over_leaves_no_task_behind() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let (simulator, client) = logged_in().await;
    assert!(metrics.num_alive_tasks() > 0);
    simulator.shutdown();
    drop(client);
    while metrics.num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_chosen_event_is_sent_from_rust_over_http_and_by_a_script() {
    let (simulator, mut client) = logged_in().await;
    let mine = json!({"id": "5", "guild_id": "1", "content": "chosen", "nested": {"list": [1, null]}});
    let next = async |client: &mut Client| {
        let mut payload = client.next().await.unwrap();
        let data = payload["d"].as_object_mut().unwrap();
        assert!(data.remove("_trace").is_some());
        (payload["t"].take(), payload["d"].take())
    };
    simulator.dispatch(0, "MESSAGE_CREATE", mine.clone()).unwrap();
    assert_eq!(next(&mut client).await, (json!("MESSAGE_CREATE"), mine.clone()));

    let act = json!({"do": "emit", "shard": 0, "event": "MY_OWN_EVENT", "data": mine});
    assert_eq!(request(&simulator, "POST", "/sim/act", &act).await.0, 204);
    assert_eq!(next(&mut client).await, (json!("MY_OWN_EVENT"), mine));

    let script = r#"
        [[step]]
        at_ms = 10
        do = "emit"
        shard = 0
        count = 2
        event = "TYPING_START"
        data = { user_id = "7", timestamp = 5 }
        [[step]]
        at_ms = 20
        do = "emit"
        shard = 0
        event = "GUILD_ROLE_UPDATE"
    "#;
    simulator.play(Script::from_toml(script).unwrap()).await;
    for _ in 0..2 {
        assert_eq!(next(&mut client).await, (json!("TYPING_START"), json!({"user_id": "7", "timestamp": 5})));
    }
    // Without data, the simulator generates the event, and it fits its guild.
    let (event, data) = next(&mut client).await;
    assert_eq!(event, "GUILD_ROLE_UPDATE");
    assert!(data["role"]["color"].is_u64());

    for (wrong, why) in [
        (json!({"do": "emit", "shard": 0, "event": "nothing"}), "cannot generate the event \"nothing\""),
        (json!({"do": "emit", "shard": 0, "event": "A\"B", "data": {}}), "in capitals"),
        (json!({"do": "emit", "shard": 0, "data": {}}), "needs the event's name"),
        (json!({"do": "emit", "shard": 0, "event": "A", "data": [1]}), "has to be a JSON object"),
        (json!({"do": "emit", "shard": 9, "event": "A", "data": {}}), "shard 9 has no session"),
    ] {
        let (status, _, body) = request(&simulator, "POST", "/sim/act", &wrong).await;
        assert_eq!(status, 400, "{wrong}");
        assert!(body["message"].as_str().unwrap().contains(why), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn outages_that_overlap_are_one_and_a_guild_that_was_left_is_silent() {
    let simulator = simulator(|config| config.guilds = 2);
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    for _ in 0..2 {
        client.until_event("GUILD_CREATE").await;
    }
    let start = Instant::now();
    simulator.act(&Action::GuildOutage { guild: 0, lasts_ms: 1000 }).unwrap();
    simulator.act(&Action::GuildOutage { guild: 0, lasts_ms: 3000 }).unwrap();
    simulator.act(&Action::GuildOutage { guild: 1, lasts_ms: 2000 }).unwrap();
    simulator.act(&Action::GuildLeave { guild: 1 }).unwrap();
    let mut reported = Vec::new();
    for _ in 0..4 {
        let payload = client.next().await.unwrap();
        reported.push((payload["t"].as_str().unwrap().to_owned(), payload["d"]["unavailable"].clone()));
    }
    let delete = |unavailable| ("GUILD_DELETE".to_owned(), unavailable);
    let back = ("GUILD_CREATE".to_owned(), json!(false));
    assert_eq!(reported, [delete(json!(true)), delete(json!(true)), delete(Value::Null), back]);
    assert_eq!(start.elapsed().as_millis(), 3000);
}
