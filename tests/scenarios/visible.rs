//! Visible state of a shard: heartbeats, the send window, the URL and encoding; and shards that end with
//! their connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shardkeeper::command::{Command, RequestMembers};
use shardkeeper::config::{Direction, RestartBy};
use shardkeeper::status::{Change, Next, Phase};
use shardkeeper::{Event, Lifecycle, ShardId, Topic};
use shardkeeper_sim::Fault;
use shardkeeper_tests::{Running, bot, eventually, simulator};
use tokio::time::sleep;

const GUILD: u64 = 281_474_976 << 22;
const SHARD: ShardId = ShardId(0);

#[tokio::test(start_paused = true)]
async fn a_status_shows_heartbeats_what_waits_and_where_the_connection_goes() {
    let mut running = Running::start(simulator(1, |config| config.guilds = 1)).await;
    sleep(Duration::from_secs(100)).await;
    let status = running.keeper.shard_status(SHARD).await.unwrap();
    let heartbeat = status.heartbeat.unwrap();
    assert_eq!(heartbeat.interval, Duration::from_millis(41_250));
    assert!(heartbeat.acknowledged_at.unwrap().elapsed() < Duration::from_secs(42));
    assert_eq!(heartbeat.outstanding_since, None);
    assert!(!status.latencies.is_empty());
    assert!(
        status.url.as_deref().is_some_and(|url| url.starts_with("ws://") && !url.contains('?')),
        "{status:?}"
    );
    for _ in 0..200 {
        let command = Command::members(&RequestMembers::prefix(GUILD, "m", 1)).unwrap();
        drop(running.keeper.command(command).await.unwrap());
    }
    let sending = async || running.keeper.shard_status(SHARD).await.unwrap().sending;
    eventually(async || sending().await.sent + sending().await.bulk_waiting >= 200).await;
    let sending = sending().await;
    assert_eq!((sending.voice_waiting, sending.presence_waiting), (0, false));
    assert!((105..=108).contains(&sending.sent), "{sending:?}");
    let heartbeats = sending.sent - (200 - sending.bulk_waiting);
    assert!(heartbeats <= 3, "{sending:?}");
    let json = serde_json::to_value(&running.keeper.status().await.unwrap().shards[0]).unwrap();
    assert_eq!(json["heartbeat"]["interval_ms"], 41_250.0);
    running.simulator.inject(0, Fault::StopAcking).unwrap();
    sleep(Duration::from_secs(42)).await;
    let heartbeat = running.keeper.shard_status(SHARD).await.unwrap().heartbeat.unwrap();
    assert!(heartbeat.outstanding_since.is_some());
    running.until_resumed(0).await;
    assert_eq!(running.keeper.shard_status(SHARD).await.unwrap().heartbeat.unwrap().outstanding_since, None);
}

#[tokio::test(start_paused = true)]
async fn a_tap_sees_every_payload_and_content_on_demand_only() {
    for with_content in [false, true] {
        let simulator = simulator(1, |_| {});
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let tap = move |payload: &shardkeeper::config::WirePayload<'_>| {
            let debug = format!("{payload:?}");
            assert!(!debug.contains("sim-token") && !debug.contains("session_id"), "{debug}");
            let data = payload.data().map(<[u8]>::to_vec);
            let event = payload.event.map(str::to_owned);
            log.lock().unwrap().push((payload.direction, payload.opcode, event, payload.bytes, data));
        };
        let builder = match with_content {
            true => bot(&simulator).wire_tap_with_content(tap),
            false => bot(&simulator).wire_tap(tap),
        };
        let mut running = Running::start_with(simulator, builder).await;
        running.simulator.emit(0, 20);
        running.check().await;
        sleep(Duration::from_secs(60)).await;
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        let count = |direction, opcode| {
            seen.iter().filter(|(way, op, ..)| (*way, *op) == (direction, Some(opcode))).count()
        };
        assert_eq!((count(Direction::Received, 10), count(Direction::Sent, 2)), (1, 1), "hello, identify");
        let beats = count(Direction::Sent, 1);
        assert!(beats >= 1);
        assert_eq!(count(Direction::Received, 11), beats);
        let dispatches = running.keeper.shard_status(SHARD).await.unwrap().dispatches;
        assert_eq!(count(Direction::Received, 0) as u64, dispatches);
        for (way, opcode, event, bytes, data) in seen {
            assert_eq!(event.is_some(), opcode == Some(0));
            assert!(bytes > 8);
            let secret = way == Direction::Sent && opcode == Some(2);
            assert_eq!(data.is_some(), with_content && !secret, "{way:?} {opcode:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tap_that_panics_costs_nothing_but_itself() {
    let simulator = simulator(1, |_| {});
    let builder = bot(&simulator).wire_tap(|_| panic!("the bot's own fault"));
    let mut running = Running::start_with(simulator, builder).await;
    running.simulator.emit(0, 20);
    running.check().await;
    assert_eq!(running.keeper.shard_status(SHARD).await.unwrap().restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_not_to_reconnect_reports_its_end_and_stays_down() {
    for fault in [Fault::Cut, Fault::Reconnect, Fault::Close { code: 4000 }, Fault::StopAcking] {
        let simulator = simulator(2, |_| {});
        let builder = bot(&simulator).reconnect(false);
        let mut lifecycle = builder.subscribe(Topic::lifecycle());
        let mut running = Running::start_with(simulator, builder).await;
        running.simulator.inject(0, fault).unwrap();
        let ended = running.until_shard(0, |change| matches!(change, Change::Disconnected { .. })).await;
        assert!(matches!(ended, Change::Disconnected { next: Next::End, .. }), "{ended:?}");
        running.until_shard(0, |change| *change == Change::Stopped).await;
        sleep(Duration::from_secs(60)).await;
        let status = running.keeper.shard_status(SHARD).await.unwrap();
        assert_eq!((status.phase, status.restarts), (Phase::Stopped, 0));
        assert_eq!(running.simulator.report().connections, 2);
        // The other shard continues, and this one does when the test allows it.
        running.simulator.emit(1, 20);
        running.keeper.restart_shard(SHARD, RestartBy::Resume).await.unwrap();
        running.until_resumed(0).await;
        running.check().await;
        assert_eq!(running.simulator.report().identifies, 2);
        running.keeper.stop().await;
        while let Some(delivery) = lifecycle.next().await {
            assert!(!matches!(&*delivery, Event::Lifecycle(Lifecycle::Crashed { .. })));
        }
    }
}
