//! Two layouts of one bot at once, as during a reshard.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use shardkeeper_sim::{
    Action, Fault, InjectError, SessionFilter, SessionSettings, SimConfig, Simulator, Traces,
};
use tokio::time::{Instant, timeout};

use crate::support::*;

fn world(repeating: &[&str], configure: impl FnOnce(&mut SimConfig)) -> Simulator {
    simulator(|config| {
        config.traces =
            Traces::World { repeating: repeating.iter().map(|name| (*name).to_owned()).collect() };
        config.max_concurrency = 16;
        config.guilds = 12;
        config.timings.identify_window = Duration::ZERO;
        // The clients of these tests send no heartbeats.
        config.timings.heartbeat_interval = Duration::from_secs(3600);
        configure(config);
    })
}

/// Everything that comes until nothing comes for a while.
async fn rest(client: &mut Client) -> Vec<Value> {
    let mut all = Vec::new();
    while let Ok(payload) = timeout(Duration::from_secs(10), client.next()).await {
        let payload = payload.unwrap();
        if payload["op"] == 0 {
            all.push(payload);
        }
    }
    all
}

async fn ready(simulator: &Simulator, shard: u32, count: u32) -> Client {
    let mut client = Client::connect(simulator).await;
    client.login(shard, count).await;
    rest(&mut client).await;
    client
}

/// The text of name and data of each event, by guild.
fn by_guild(payloads: &[Value]) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for payload in payloads {
        let (event, data) = (payload["t"].as_str().unwrap(), &payload["d"]);
        let guild = if event.starts_with("GUILD_") && data["guild_id"].is_null() {
            &data["id"]
        } else {
            &data["guild_id"]
        };
        all.entry(guild.to_string()).or_default().push(format!("{event} {data}"));
    }
    all
}

fn observe(simulator: &Simulator, payloads: &[Value], marked: bool) {
    for payload in payloads {
        simulator.observe_event(payload["t"].as_str().unwrap(), payload["d"].to_string().as_bytes(), marked);
    }
}

fn settings(set: impl FnOnce(&mut SessionSettings)) -> SessionSettings {
    let mut settings = SessionSettings::default();
    set(&mut settings);
    settings
}

#[tokio::test(start_paused = true)]
async fn gw_231_each_session_that_owns_a_guild_receives_the_same_events_in_the_same_order() {
    let simulator = world(&[], |config| config.events_per_second = 50.0);
    let mut clients = Vec::new();
    // 2 → 3, which have no shard in common, and a second session of the same shard.
    for (shard, count) in [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3), (1, 3)] {
        clients.push(ready(&simulator, shard, count).await);
    }
    simulator.start_traffic();
    tokio::time::sleep(Duration::from_secs(10)).await;
    simulator.stop_traffic();
    let mut seen = Vec::new();
    for client in &mut clients {
        let payloads = rest(client).await;
        let numbers: Vec<u64> = payloads.iter().map(|payload| payload["s"].as_u64().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "each has its own sequence");
        seen.push(payloads);
    }
    let all = |of: &[usize]| {
        let mut all = BTreeMap::new();
        for client in of {
            for (guild, events) in by_guild(&seen[*client]) {
                // Direct messages come to shard 0 of each layout only.
                assert!(all.insert(guild, events).is_none());
            }
        }
        all
    };
    let (old, new) = (all(&[0, 1]), all(&[2, 3, 4]));
    assert_eq!(old, new);
    assert_eq!(old.len(), 13, "each guild has events, and so have direct messages");
    assert_eq!(by_guild(&seen[3]), by_guild(&seen[5]), "two sessions of one shard");
    assert_eq!(simulator.world_delivery().happened, old.values().map(Vec::len).sum::<usize>() as u64);
    assert!(is_spotless(&simulator), "{:?}", simulator.report().notices);
    let log = simulator.report().identify_log;
    assert!(log[5].beside && !log[4].beside, "two sessions of one shard at once");
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_is_judged_over_all_sessions() {
    let simulator = world(&[], |_| {});
    let mut old = ready(&simulator, 0, 1).await;
    let mut new = ready(&simulator, 0, 1).await;
    simulator.happen(None, 100).unwrap();
    let (old, new) = (rest(&mut old).await, rest(&mut new).await);
    assert_eq!((old.len(), new.len()), (100, 100));
    assert_eq!(simulator.world_delivery().lost, 100);
    // Cut over in the middle: 10 events are in neither half, then in both.
    observe(&simulator, &old[..50], false);
    observe(&simulator, &new[60..], false);
    let verdict = simulator.world_delivery();
    assert_eq!((verdict.lost, verdict.doubled, verdict.out_of_order), (10, 0, 0));
    assert_eq!(verdict.lost_events.len(), 10);
    assert!(!verdict.is_flawless());
    observe(&simulator, &new[50..60], false);
    let verdict = simulator.world_delivery();
    assert!(verdict.lost == 0 && verdict.out_of_order > 0, "they come after later ones");
    observe(&simulator, &old[50..55], true);
    observe(&simulator, &old[55..60], false);
    let verdict = simulator.world_delivery();
    assert_eq!((verdict.doubled, verdict.doubled_marked), (10, 5));
    assert_eq!(verdict.guilds.iter().map(|guild| guild.doubled).sum::<u64>(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_lost_only_if_the_client_could_have_had_it() {
    let simulator = world(&[], |_| {});
    let mut old = ready(&simulator, 0, 1).await;
    let mut new = ready(&simulator, 0, 2).await;
    let sessions = simulator.sessions();
    let numbers: Vec<u64> = sessions.iter().map(|session| session.session).collect();
    assert_eq!(sessions.iter().map(|session| session.shard_count).collect::<Vec<_>>(), [1, 2]);
    simulator.happen(Some(0), 10).unwrap();
    let total = simulator.world_delivery().happened;
    // Discord drops one of the two sessions: the other one still has the events.
    simulator.inject_in(SessionFilter::of_session(numbers[0]), Fault::Close { code: 4009 }).unwrap();
    old.end().await;
    assert!(simulator.world_delivery().lost > 0);
    simulator.inject_in(SessionFilter::of_count(2), Fault::Close { code: 4009 }).unwrap();
    new.end().await;
    let verdict = simulator.world_delivery();
    assert_eq!((verdict.lost, verdict.excused), (0, total));
    // Nobody receives these.
    simulator.happen(Some(0), 10).unwrap();
    assert_eq!(simulator.world_delivery().happened, total);
}

#[tokio::test(start_paused = true)]
async fn events_are_kept_for_sessions_that_can_be_resumed() {
    let simulator = world(&[], |_| {});
    let mut client = Client::connect(&simulator).await;
    let session = client.login(0, 2).await;
    let last = rest(&mut client).await.last().unwrap()["s"].as_u64().unwrap();
    client.close(4000).await;
    settle().await;
    simulator.happen(None, 20).unwrap();
    let happened = simulator.world_delivery().happened;
    assert!(happened > 0 && simulator.world_delivery().lost == happened);
    let mut client =
        Client::connect_to(&simulator, "ws://resume.sim.invalid/resume?v=10&encoding=json").await;
    client.until(10).await;
    client.send(&resume(&session, last)).await;
    observe(&simulator, &rest(&mut client).await, false);
    assert!(simulator.world_delivery().is_flawless(), "{:?}", simulator.world_delivery());
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn events_can_repeat_byte_for_byte_and_are_counted() {
    let simulator = world(&["PRESENCE_UPDATE", "MESSAGE_REACTION_ADD"], |_| {});
    let (mut old, mut new) = (ready(&simulator, 0, 1).await, ready(&simulator, 0, 1).await);
    let idle = json!({"user": {"id": "1"}, "status": "idle", "activities": [], "client_status": {}});
    for _ in 0..3 {
        simulator.happen_exactly(Some(0), "PRESENCE_UPDATE", idle.clone()).unwrap();
    }
    let (old, new) = (rest(&mut old).await, rest(&mut new).await);
    let texts: Vec<String> = old.iter().map(|payload| payload["d"].to_string()).collect();
    assert!(texts.len() == 3 && texts.iter().all(|text| *text == texts[0] && !text.contains("_trace")));
    assert_eq!(by_guild(&old), by_guild(&new));
    observe(&simulator, &old[..2], false);
    assert_eq!(simulator.world_delivery().lost, 1);
    observe(&simulator, &new[2..], false);
    assert!(simulator.world_delivery().is_flawless());
    observe(&simulator, &new[2..], true);
    let verdict = simulator.world_delivery();
    assert!(verdict.is_flawless() && verdict.doubled == 1, "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn generated_traffic_repeats_what_it_may_repeat() {
    let simulator = world(&["PRESENCE_UPDATE"], |_| {});
    let mut client = ready(&simulator, 0, 1).await;
    simulator
        .act(&Action::Happen { guild: None, count: 40, event: Some("PRESENCE_UPDATE".into()), data: None })
        .unwrap();
    let events = rest(&mut client).await;
    let twice = events.windows(2).filter(|pair| pair[0]["d"] == pair[1]["d"]).count();
    assert!((8..32).contains(&twice) && events.len() == 40 + twice, "{twice} of {}", events.len());
    observe(&simulator, &events, false);
    assert!(simulator.world_delivery().is_flawless());
}

#[tokio::test(start_paused = true)]
async fn one_layout_can_lag_behind_the_other_and_either_can_be_ahead() {
    let simulator = world(&[], |_| {});
    let mut old = ready(&simulator, 0, 1).await;
    // The rule is there before the session.
    simulator.treat(SessionFilter::of_count(2), settings(|settings| settings.lag_ms = 700));
    let mut new = ready(&simulator, 0, 2).await;
    let begun = Instant::now();
    // A guild of shard 0 of 2.
    let guild = 0;
    simulator.happen(Some(guild), 5).unwrap();
    let first = old.next().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let second = new.until_event(first["t"].as_str().unwrap()).await;
    assert_eq!(begun.elapsed(), Duration::from_millis(700));
    assert_eq!(first["d"], second["d"]);
    rest(&mut old).await;
    rest(&mut new).await;
    // The other way round, with jitter: late, but never out of order.
    simulator.treat(SessionFilter::of_count(2), SessionSettings::default());
    let late = settings(|settings| (settings.lag_ms, settings.jitter_ms) = (200, 300));
    simulator.treat(SessionFilter::of_shard(0, 1), late);
    let begun = Instant::now();
    simulator.happen(Some(guild), 50).unwrap();
    new.next().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let mut last = (0, Duration::from_millis(200));
    for _ in 0..50 {
        let number = old.next().await.unwrap()["s"].as_u64().unwrap();
        assert!((number, begun.elapsed()) > last, "{last:?}");
        last = (number, begun.elapsed());
    }
    assert!(last.1 > Duration::from_millis(300) && last.1 <= Duration::from_millis(501), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lagging_session_is_closed_and_resumed_without_a_loss() {
    let simulator = world(&[], |_| {});
    simulator.treat(SessionFilter::all(), settings(|settings| settings.lag_ms = 5_000));
    let mut client = Client::connect(&simulator).await;
    let session = client.login(0, 1).await;
    let last = rest(&mut client).await.last().unwrap()["s"].as_u64().unwrap();
    simulator.happen(None, 10).unwrap();
    assert!(timeout(Duration::from_secs(4), client.socket_next()).await.is_err(), "they are late");
    client.close(4000).await;
    let mut client =
        Client::connect_to(&simulator, "ws://resume.sim.invalid/resume?v=10&encoding=json").await;
    client.until(10).await;
    client.send(&resume(&session, last)).await;
    let replayed = rest(&mut client).await;
    assert_eq!(replayed.len(), 11);
    assert_eq!(replayed[10]["t"], "RESUMED", "RESUMED overtakes nothing");
}

#[tokio::test(start_paused = true)]
async fn one_event_can_have_two_texts() {
    let simulator = world(&["PRESENCE_UPDATE"], |_| {});
    let mut old = ready(&simulator, 0, 1).await;
    simulator.treat(SessionFilter::all().after(1), settings(|settings| settings.reversed_keys = true));
    let mut new = ready(&simulator, 0, 1).await;
    simulator.happen_exactly(Some(0), "PRESENCE_UPDATE", json!({"a": [{"x": 1, "y": 2}], "b": 2})).unwrap();
    let texts = [old.socket_next().await.unwrap(), new.socket_next().await.unwrap()];
    let [old, new] = texts.map(|message| message.into_text().unwrap().to_string());
    assert!(old.contains(r#"{"a":[{"x":1,"y":2}],"b":2,"guild_id":""#), "{old}");
    assert!(new.contains(r#","b":2,"a":[{"y":2,"x":1}]}"#), "{new}");
}

#[tokio::test(start_paused = true)]
async fn gw_248_249_250_255_guilds_come_in_any_order_late_unavailable_or_never() {
    let simulator = world(&[], |config| config.guilds = 10);
    let flood = settings(|settings| {
        settings.guild_gap_ms = 100;
        settings.missing_guilds = vec![3];
        settings.unavailable_guilds = vec![4, 5];
    });
    simulator.treat(SessionFilter::all(), flood);
    let mut client = Client::connect(&simulator).await;
    client.until(10).await;
    client.identify(0, 1).await;
    let ready = client.until_event("READY").await;
    let ids: Vec<&Value> =
        ready["d"]["guilds"].as_array().unwrap().iter().map(|guild| &guild["id"]).collect();
    let begun = Instant::now();
    for guild in 0..10 {
        simulator.happen_exactly(Some(guild), "TYPING_START", json!({})).unwrap();
    }
    let mut came = Vec::new();
    while let Ok(payload) = timeout(Duration::from_secs(5), client.next()).await {
        let payload = payload.unwrap();
        let event = payload["t"].as_str().unwrap().to_owned();
        if event == "TYPING_START" {
            assert_eq!(begun.elapsed(), Duration::ZERO, "before the GUILD_CREATE");
            continue;
        }
        assert_eq!(begun.elapsed().as_millis() % 100, 0);
        let place = ids.iter().position(|id| **id == payload["d"]["id"]).unwrap();
        came.push((place, event, payload["d"]["unavailable"] == true));
    }
    assert_eq!(came.len(), 9);
    let of = |place: usize| came.iter().find(|(other, ..)| *other == place);
    assert_eq!(of(3), None);
    assert_eq!(of(4), Some(&(4, "GUILD_DELETE".into(), true)));
    assert_eq!(of(5), Some(&(5, "GUILD_CREATE".into(), true)));
    assert_eq!(of(6), Some(&(6, "GUILD_CREATE".into(), false)));
    assert!(came.windows(2).any(|pair| pair[0].0 > pair[1].0), "in no fixed order");
}

#[tokio::test(start_paused = true)]
async fn faults_and_dispatches_can_name_the_layout_or_the_session() {
    let simulator = world(&[], |_| {});
    let (mut old, mut new) = (ready(&simulator, 0, 1).await, ready(&simulator, 0, 2).await);
    simulator.dispatch_in(SessionFilter::of_count(1), "A", json!({"x": 1})).unwrap();
    simulator.dispatch(0, "B", json!({})).unwrap();
    assert_eq!(old.next().await.unwrap()["t"], "A");
    assert_eq!(new.next().await.unwrap()["t"], "B", "the newest session of shard 0");
    simulator
        .act(
            &serde_json::from_value(json!({"do": "session-fault", "of": {"count": 1}, "fault": "cut"}))
                .unwrap(),
        )
        .unwrap();
    assert_eq!(old.end().await, None);
    assert!(timeout(Duration::from_secs(1), new.next()).await.is_err());
    let of = SessionFilter::of_count(3);
    assert_eq!(simulator.inject_in(of, Fault::Cut), Err(InjectError::NoSuchSession { of }));
    for action in [
        json!({"do": "sessions", "of": {"count": 12}, "set": {"lag_ms": 300, "jitter_ms": 50}}),
        json!({"do": "sessions", "set": {"guild_gap_ms": 5, "missing_guilds": [1]}}),
        json!({"do": "dispatch", "of": {"session": 2}, "event": "MESSAGE_CREATE", "data": {"id": "1"}}),
        json!({"do": "happen", "guild": 0, "count": 2, "event": "PRESENCE_UPDATE", "data": {"status": "idle"}}),
        json!({"do": "limits", "shards": 4}),
        json!({"do": "sharding", "least_shards": 3, "shard_multiple": 2}),
    ] {
        let (status, _, body) = request(&simulator, "POST", "/sim/act", &action).await;
        assert_eq!(status, 204, "{action}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_for_all_reaches_both_layouts() {
    let simulator = world(&[], |_| {});
    let mut clients = Vec::new();
    for (shard, count) in [(0, 1), (0, 2), (0, 2)] {
        clients.push(ready(&simulator, shard, count).await);
    }
    simulator.act(&Action::Fault { shard: None, fault: Fault::Close { code: 4000 } }).unwrap();
    for client in &mut clients {
        assert_eq!(client.end().await, Some(4000));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_fault_sends_twice_is_not_held_against_the_client() {
    let simulator = world(&["PRESENCE_UPDATE"], |_| {});
    let mut client = ready(&simulator, 0, 1).await;
    simulator.happen(Some(0), 3).unwrap();
    simulator.happen_exactly(Some(0), "PRESENCE_UPDATE", json!({"status": "idle"})).unwrap();
    simulator.inject(0, Fault::Duplicate { count: 3 }).unwrap();
    simulator.inject(0, Fault::Reorder).unwrap();
    simulator.happen(Some(0), 2).unwrap();
    let events = rest(&mut client).await;
    observe(&simulator, &events, false);
    let verdict = simulator.world_delivery();
    assert!(verdict.is_flawless() && verdict.doubled == 0, "{verdict:?}");
    observe(&simulator, &events[..1], false);
    assert_eq!(simulator.world_delivery().doubled, 1);
}

#[tokio::test(start_paused = true)]
async fn presences_are_known_by_session() {
    let simulator = world(&[], |_| {});
    let (mut old, mut new) = (ready(&simulator, 0, 1).await, ready(&simulator, 0, 1).await);
    let presence = |status: &str| json!({"since": null, "activities": [], "status": status, "afk": false});
    old.send(&json!({"op": 3, "d": presence("idle")})).await;
    settle().await;
    new.send(&json!({"op": 3, "d": presence("dnd")})).await;
    settle().await;
    let set: Vec<Value> = simulator.sessions().into_iter().map(|session| session.presence.unwrap()).collect();
    assert_eq!(set, [presence("idle"), presence("dnd")]);
}

#[tokio::test(start_paused = true)]
async fn gw_235_247_the_rules_for_shard_counts_change_at_run_time() {
    let simulator = world(&[], |_| {});
    let mut old = ready(&simulator, 3, 4).await;
    let sharding = |least: u32, multiple: u32| Action::Sharding {
        least_shards: Some(least),
        max_guilds_per_shard: None,
        shard_multiple: Some(multiple),
    };
    for (action, count, code) in [(sharding(6, 1), 5, 4011), (sharding(1, 4), 6, 4010)] {
        simulator.act(&action).unwrap();
        let mut client = Client::connect(&simulator).await;
        client.until(10).await;
        client.identify(3, count).await;
        assert_eq!(client.end().await, Some(code));
    }
    // The refusal of one layout costs the other nothing: neither its session nor its right to come back.
    simulator.happen(None, 50).unwrap();
    assert!(!rest(&mut old).await.is_empty(), "the running session continues");
    old.close(1000).await;
    ready(&simulator, 3, 4).await;
    assert!(!rules(&simulator).contains(&"GW-095"), "{:?}", simulator.report().violations);
    let report = simulator.report();
    let log: Vec<_> =
        report.identify_log.iter().map(|record| (record.shard_count, record.accepted)).collect();
    assert_eq!(log, [(4, true), (5, false), (6, false), (4, true)]);
}

#[tokio::test(start_paused = true)]
async fn gw_174_the_layouts_share_the_keys_of_the_identify_limit() {
    let simulator = simulator(|config| config.max_concurrency = 2);
    let mut old = Client::connect(&simulator).await;
    old.login(0, 2).await;
    let mut new = Client::connect(&simulator).await;
    new.until(10).await;
    new.identify(2, 4).await;
    assert_eq!(new.until(9).await["d"], false);
    assert_eq!(rules(&simulator), ["GW-170"]);
}

async fn join_voice(client: &mut Client, guild: &Value) -> Value {
    let voice = guild["channels"].as_array().unwrap().iter().find(|channel| channel["type"] == 2).unwrap();
    let join =
        json!({"guild_id": guild["id"], "channel_id": voice["id"], "self_mute": false, "self_deaf": false});
    client.send(&json!({"op": 4, "d": join})).await;
    client.until_event("VOICE_STATE_UPDATE").await["d"].take()
}

/// A session of shard 0 with its id and the first guild.
async fn with_guild(simulator: &Simulator, count: u32) -> (Client, String, Value) {
    let mut client = Client::connect(simulator).await;
    let session = client.login(0, count).await;
    let guilds = rest(&mut client).await;
    let first = guilds.iter().map(|payload| &payload["d"]).min_by_key(|guild| guild["id"].as_str()).unwrap();
    (client, session, first.clone())
}

#[tokio::test(start_paused = true)]
async fn gw_207_244_the_bots_voice_ends_with_the_session_that_joined() {
    let simulator = world(&[], |_| {});
    let (mut old, session, guild) = with_guild(&simulator, 1).await;
    let (mut new, ..) = with_guild(&simulator, 2).await;
    let joined = join_voice(&mut old, &guild).await;
    assert_eq!(joined["session_id"], session.as_str());
    assert_eq!(new.until_event("VOICE_STATE_UPDATE").await["d"], joined, "the same for both");
    old.close(1000).await;
    let left = new.until_event("VOICE_STATE_UPDATE").await;
    assert_eq!((&left["d"]["channel_id"], &left["d"]["session_id"]), (&Value::Null, &joined["session_id"]));
    settle().await;
    assert_eq!(advice(&simulator), ["GW-244"]);
}

#[tokio::test(start_paused = true)]
async fn gw_244_a_client_that_moves_its_voice_first_keeps_it() {
    let simulator = world(&[], |_| {});
    let (mut old, _, guild) = with_guild(&simulator, 1).await;
    let (mut new, session, _) = with_guild(&simulator, 2).await;
    join_voice(&mut old, &guild).await;
    new.until_event("VOICE_STATE_UPDATE").await;
    assert_eq!(join_voice(&mut new, &guild).await["session_id"], session.as_str());
    new.until_event("VOICE_SERVER_UPDATE").await;
    old.close(1000).await;
    assert!(rest(&mut new).await.is_empty());
    assert!(is_spotless(&simulator));
}

#[tokio::test(start_paused = true)]
async fn gw_207_voice_survives_a_lost_connection_until_the_session_dies() {
    let simulator = world(&[], |_| {});
    let (mut old, session, guild) = with_guild(&simulator, 1).await;
    let (mut new, ..) = with_guild(&simulator, 2).await;
    join_voice(&mut old, &guild).await;
    new.until_event("VOICE_STATE_UPDATE").await;
    let last = rest(&mut old).await.last().unwrap()["s"].clone();
    drop(old);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let url = "ws://resume.sim.invalid/resume?v=10&encoding=json";
    let mut old = Client::connect_to(&simulator, url).await;
    old.until(10).await;
    old.send(&resume(&session, last.as_u64().unwrap())).await;
    old.until_event("RESUMED").await;
    assert!(rest(&mut new).await.is_empty(), "a Resume keeps it");
    drop(old);
    let lost = Instant::now();
    let left = new.until_event("VOICE_STATE_UPDATE").await;
    assert_eq!(left["d"]["channel_id"], Value::Null);
    assert!(
        (Duration::from_secs(180)..Duration::from_secs(181)).contains(&lost.elapsed()),
        "{:?}",
        lost.elapsed()
    );
    assert_eq!(advice(&simulator), ["GW-243"], "it was left to expire");
}

#[tokio::test(start_paused = true)]
async fn gw_243_old_sessions_are_to_be_closed_with_1000() {
    for (code, noted) in [(1000, vec![]), (4000, vec!["GW-243"])] {
        let simulator = world(&[], |_| {});
        let (mut old, _new) = (ready(&simulator, 1, 2).await, ready(&simulator, 1, 2).await);
        old.close(code).await;
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(advice(&simulator), noted, "{code}");
    }
    // A session that was lost before the next one started is not left behind.
    let simulator = world(&[], |_| {});
    ready(&simulator, 1, 2).await.close(4000).await;
    let _new = ready(&simulator, 1, 2).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(is_spotless(&simulator));
}
