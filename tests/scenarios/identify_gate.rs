//! Several managers of one bot that share the pace of Identify through a gate.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join};
use shardkeeper::actor::{QueueMessage, ShardMessage};
use shardkeeper::gate::{GateError, IdentifyGate, IdentifyPass, IdentifyRequest, LocalGate};
use shardkeeper::status::{Change, Phase};
use shardkeeper::{Builder, Event, Lifecycle, ShardId, Topic};
use shardkeeper_sim::{IdentifyRecord, Simulator};
use shardkeeper_tests::{Running, bot, eventually, in_both_worlds, no_violations_except, service, simulator};
use tokio::time::Instant;

/// Two bots: one with the even shards of `count`, one with the odd ones.
fn halves(simulator: &Simulator, count: u32) -> (Builder, Builder) {
    let half = |first: u32| bot(simulator).shard_ids((first..count).step_by(2), count);
    (half(0), half(1))
}

async fn start(simulator: &Simulator, (even, odd): (Builder, Builder)) -> (Running, Running) {
    let even = Running::start_with(simulator.clone(), even);
    join(even, Running::start_with(simulator.clone(), odd)).await
}

/// The times between successive Identify of each key, in milliseconds.
fn apart(log: &[IdentifyRecord], max_concurrency: u32) -> Vec<u64> {
    let of_key = |key| log.iter().filter(move |record| record.key == key).map(|record| record.at_ms);
    (0..max_concurrency).flat_map(|key| of_key(key).zip(of_key(key).skip(1)).map(|(a, b)| b - a)).collect()
}

#[tokio::test(start_paused = true)]
async fn gw_174_managers_that_share_a_gate_keep_one_pace() {
    for max_concurrency in [1, 2, 3] {
        let simulator = simulator(12, |config| config.max_concurrency = max_concurrency);
        let gate = Arc::new(LocalGate::default());
        let (even, odd) = halves(&simulator, 12);
        let builders = (even.identify_gate(gate.clone()), odd.identify_gate(gate));
        let (_even, odd) = start(&simulator, builders).await;
        let report = simulator.report();
        // GW-171: between processes, shards identify in the order of their requests, not of their ids.
        no_violations_except(&simulator, &["GW-171"]);
        assert_eq!(odd.keeper.status().await.unwrap().identify.sent, 6);
        assert_eq!(report.identifies, 12);
        let apart = apart(&report.identify_log, max_concurrency);
        // As in a single process: the window and its margin, and not more.
        assert!(apart.iter().all(|ms| (5250..5500).contains(ms)), "{max_concurrency}: {apart:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_gate_the_judge_finds_that_they_do_not() {
    let simulator = simulator(12, |config| config.max_concurrency = 1);
    let builders = halves(&simulator, 12);
    start(&simulator, builders).await;
    let report = simulator.report();
    assert!(report.violations.iter().any(|violation| violation.rule == "GW-170"), "{:?}", report.violations);
    assert!(report.identifies > 12, "some were refused");
}

#[tokio::test(start_paused = true)]
async fn gw_166_managers_that_share_a_gate_spend_one_budget() {
    let simulator = simulator(4, |config| config.identify_remaining = 12);
    let gate = Arc::new(LocalGate::default());
    let (even, odd) = halves(&simulator, 4);
    let builders = (even.identify_gate(gate.clone()), odd.identify_gate(gate));
    let begin = Instant::now();
    let (running, _odd) = start(&simulator, builders).await;
    // Ten are reserved. By itself, each manager would use two more.
    let log = simulator.report().identify_log;
    assert!(begin.elapsed() > Duration::from_secs(3600));
    assert_eq!(log.iter().filter(|record| record.at_ms < 60_000).count(), 2, "{log:?}");
    running.no_violations();
}

/// A gate that fails, and sometimes panics, until a given time.
struct Failing {
    gate: LocalGate,
    until: Instant,
}

impl IdentifyGate for Failing {
    fn admit(&self, request: IdentifyRequest) -> BoxFuture<'_, Result<IdentifyPass, GateError>> {
        let left = self.until.saturating_duration_since(Instant::now());
        assert!(left < Duration::from_secs(55), "it is broken");
        Box::pin(async move {
            if left.is_zero() { self.gate.admit(request).await } else { Err("nobody is there".into()) }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_fails_for_a_minute_lets_nobody_identify_and_is_reported_once() {
    let simulator = simulator(4, |_| {});
    let gate = Failing { gate: LocalGate::default(), until: Instant::now() + Duration::from_secs(60) };
    let builder = bot(&simulator).identify_gate(Arc::new(gate));
    let mut lifecycle = builder.subscribe(Topic::lifecycle());
    let mut running = Running::start_with(simulator, builder).await;
    let log = running.simulator.report().identify_log;
    assert!(log[0].at_ms >= 60_000, "{log:?}");
    let mut reported = Vec::new();
    while let Some(event) = lifecycle.next().await {
        match &*event {
            Event::Lifecycle(Lifecycle::AllReady { .. }) => break,
            Event::Lifecycle(lifecycle) if lifecycle.shard().is_none() => {
                reported.push(lifecycle.to_string())
            }
            _ => {}
        }
    }
    let [failed, recovered] = &reported[..] else { panic!("once each: {reported:?}") };
    assert!(failed.starts_with("identify gate: failed (panicked: it is broken), next try in 1."), "{failed}");
    assert_eq!(recovered, "identify gate: works again");
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_stops_at_the_gate_frees_its_place() {
    let simulator = simulator(2, |config| config.max_concurrency = 1);
    let gate = Arc::new(LocalGate::default());
    let request = IdentifyRequest::new(ShardId(0), 1, Duration::from_secs(5));
    let somebody_elses = gate.admit(request).await.unwrap();
    let (even, odd) = halves(&simulator, 2);
    let first = even.identify_gate(gate.clone()).start().await.unwrap();
    // The shard waits at Hello, and requests a permit before the other one does.
    eventually(async || {
        let shards = first.status().await.unwrap().shards;
        shards.iter().any(|shard| shard.phase == Phase::AwaitingPermit)
    })
    .await;
    let second = tokio::spawn(Running::start_with(simulator.clone(), odd.identify_gate(gate)));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(simulator.report().identifies, 0);
    first.stop().await;
    drop(somebody_elses);
    let running = second.await.unwrap();
    assert_eq!(running.simulator.report().identifies, 1);
    running.no_violations();
}

#[test]
fn crashes_of_shards_and_queues_at_every_moment_keep_the_common_pace() {
    in_both_worlds(|| async {
        // Crashes at each step of a shard that others wait for; and of shard 4, which is the last on the
        // paused clock, when all are ready.
        for (crashing, steps) in (1..6).map(|steps| (2, steps)).chain([(4, 5)]) {
            let simulator = simulator(6, |config| config.max_concurrency = 1);
            let gate = Arc::new(LocalGate::default());
            let (even, odd) = halves(&simulator, 6);
            let odd = tokio::spawn(Running::start_with(simulator.clone(), odd.identify_gate(gate.clone())));
            let builder = even.identify_gate(gate);
            let events = builder.subscribe(Topic::all().with_lifecycle());
            // Read separately: AllReady is published before the crash if that shard is the last one to become
            // ready.
            let mut news = builder.subscribe(Topic::lifecycle());
            let keeper = builder.start().await.unwrap();
            let mut even = Running { simulator, keeper, events };
            let mut seen = 0;
            even.until_shard(crashing, |_| {
                seen += 1;
                seen == steps
            })
            .await;
            let shard = even.keeper.shard(ShardId(crashing)).await.unwrap();
            shard.cast(ShardMessage::CrashDrill).unwrap();
            even.until_shard(crashing, |change| matches!(change, Change::Queued | Change::Resuming { .. }))
                .await;
            service::<QueueMessage>(&even.keeper).unwrap().kill();
            even.until_shard(crashing, |change| matches!(change, Change::Ready | Change::Resumed { .. }))
                .await;
            while !matches!(&*news.next().await.unwrap(), Event::Lifecycle(Lifecycle::AllReady { .. })) {}
            odd.await.unwrap();
            let report = even.simulator.report();
            no_violations_except(&even.simulator, &["GW-171"]);
            assert!(report.identifies <= 7, "at most the one that was lost");
        }
    });
}
