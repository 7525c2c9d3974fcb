//! Kills, restarts and network failures between real processes, without losing an event.
//!
//! The ordinary tests are short. Those at full size take minutes, print their figures, and need a release
//! build: `cargo test --release -p shardkeeperd --test processes -- --ignored --nocapture --test-threads 1`.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "figures are what a test at full size is made for")]

#[cfg(target_os = "linux")]
mod clock;
mod proxy;
mod reshard;
mod scene;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use shardkeeper_sim::Action;
use tokio::time::{Instant, sleep};

use self::proxy::Network;
use self::scene::{INTENTS, Scene, TOKEN, deploy, kill};
use self::support::{LOOPBACK, Running, Sim};

struct Lives {
    shards: u32,
    events_per_second: f64,
    times: usize,
    /// The least number of events that each process records.
    events: usize,
    /// The time from the end of one process to the start of the next.
    pause: Duration,
}

/// Kills process after process while events arrive.
async fn killed(name: &str, lives: Lives) {
    let mut scene = Scene::new(name, lives.shards, lives.events_per_second).await;
    let mut running = scene.start();
    scene.ready(&mut running).await;
    scene.simulator.start_traffic();
    let mut ready = Vec::new();
    for _ in 0..lives.times {
        scene.until_recorded(lives.events).await;
        kill(running).await;
        sleep(lives.pause).await;
        running = scene.start();
        ready.push(scene.ready(&mut running).await);
    }
    scene.settle().await;
    deploy(running).await;
    let (report, times) = (scene.simulator.report(), lives.times as u64);
    let shards = u64::from(lives.shards);
    assert_eq!((report.identifies, report.resumes), (shards, shards * times));
    assert!(scene.book.torn <= times);
    eprintln!(
        "killed {times} times at {} events/s, {:?} apart: {} events, 0 lost, {} repeated and marked, {} lines torn; {} \
         identifies, {} resumes; ready after {ready:.2?}",
        lives.events_per_second,
        lives.pause,
        report.sent,
        scene.book.repeated,
        scene.book.torn,
        report.identifies,
        report.resumes,
    );
}

#[tokio::test]
async fn killed_processes_lose_no_event_and_no_session() {
    let pause = Duration::from_millis(300);
    killed("killed", Lives { shards: 4, events_per_second: 400.0, times: 3, events: 300, pause }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "full size"]
async fn full_killed_processes_lose_no_event_and_no_session() {
    let pause = Duration::from_secs(5);
    killed("full-killed", Lives { shards: 16, events_per_second: 5000.0, times: 10, events: 50_000, pause })
        .await;
}

#[tokio::test]
async fn a_kill_costs_nothing_though_another_shard_count_is_recommended_or_given_afterwards() {
    let mut scene = Scene::new("followed", 4, 200.0).await;
    let mut running = scene.start();
    scene.ready(&mut running).await;
    scene.simulator.start_traffic();
    for (recommended, given) in [(9, None), (2, None), (4, Some("6"))] {
        scene.until_recorded(100).await;
        kill(running).await;
        let limits = Action::Limits { shards: Some(recommended), max_concurrency: None, remaining: None };
        scene.simulator.act(&limits).unwrap();
        running = scene.start_with(|command| {
            command.args(given.map(|given| ["--shards", given]).into_iter().flatten());
        });
        let wanted = given.map_or(recommended.to_string(), str::to_owned);
        running.until(&format!("because their sessions can be resumed; {wanted} are wanted")).await;
        scene.until_connected().await;
    }
    scene.settle().await;
    deploy(running).await;
    assert_eq!(scene.simulator.report().identifies, 4);
}

/// Replaces process after process with a clean shutdown while events arrive.
async fn deployed(name: &str, lives: Lives) {
    let mut scene = Scene::new(name, lives.shards, lives.events_per_second).await;
    let mut running = scene.start();
    scene.ready(&mut running).await;
    scene.simulator.start_traffic();
    for _ in 0..lives.times {
        scene.until_recorded(lives.events).await;
        deploy(running).await;
        sleep(lives.pause).await;
        running = scene.start();
        scene.ready(&mut running).await;
    }
    scene.settle().await;
    deploy(running).await;
    let report = scene.simulator.report();
    let shards = u64::from(lives.shards);
    assert_eq!((report.identifies, report.resumes), (shards, shards * lives.times as u64));
    assert_eq!((scene.book.repeated, scene.book.torn), (0, 0));
    eprintln!("deployed {} times: {} events, 0 lost, 0 repeated", lives.times, report.sent);
}

#[tokio::test]
async fn deploys_lose_nothing_and_repeat_nothing() {
    let pause = Duration::from_millis(300);
    deployed("deployed", Lives { shards: 4, events_per_second: 400.0, times: 3, events: 300, pause }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "full size"]
async fn full_deploys_lose_nothing_and_repeat_nothing() {
    let pause = Duration::from_secs(5);
    deployed(
        "full-deployed",
        Lives { shards: 16, events_per_second: 5000.0, times: 5, events: 50_000, pause },
    )
    .await;
}

#[tokio::test]
async fn a_discord_that_dies_and_comes_back_is_identified_to_again() {
    let few = ["--shards", "2", "--max-concurrency", "2", "--strict", "--token", TOKEN];
    let mut sim = Sim::start(LOOPBACK, &few).await;
    let addr: SocketAddr =
        sim.api_url.trim_start_matches("http://").split('/').next().unwrap().parse().unwrap();
    let mut running = Running::start(TOKEN, &sim.api_url, &["--intents", INTENTS]);
    running.until("all 2 shards of generation 1 are ready").await;
    sim.child.kill().await.unwrap();
    for _ in 0..2 {
        running.until("could not connect").await;
    }
    sim = Sim::start(addr, &few).await;
    for _ in 0..2 {
        running.until("session invalid").await;
    }
    for _ in 0..2 {
        running.until(": ready").await;
    }
    deploy(running).await;
    let (code, said) = sim.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("2 identifies (0 refused), 0 resumes (2 refused)"), "{said}");
}

async fn stopped(name: &str, events_per_second: f64, span: Duration) {
    let mut scene = Scene::new(name, 2, events_per_second).await;
    let mut running = scene.start();
    scene.ready(&mut running).await;
    scene.simulator.start_traffic();
    scene.until_recorded(100).await;
    running.signal("STOP").await;
    sleep(span).await;
    running.signal("CONT").await;
    let before = Instant::now();
    scene.until_recorded(100).await;
    // GW-111 (heartbeats on time) cannot hold while the process is stopped.
    scene.settle_but_for("GW-111").await;
    scene.until_connected().await;
    deploy(running).await;
    let report = scene.simulator.report();
    assert_eq!((report.identifies, scene.book.repeated), (2, 0));
    eprintln!(
        "stopped for {span:?}: {} events, 0 lost, {} resumes, caught up {:.2?} after",
        report.sent,
        report.resumes,
        before.elapsed()
    );
}

#[tokio::test]
async fn a_process_that_stands_still_goes_on_where_it_was() {
    // Longer than two heartbeats and the tolerance of the simulator.
    stopped("stopped", 50.0, Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "full size"]
async fn full_a_process_that_stands_still_goes_on_where_it_was() {
    stopped("full-stopped", 1000.0, Duration::from_secs(120)).await;
}

/// Applies this network fault until the log has had a line this many times, then makes the network work
/// again.
async fn failing(name: &str, network: Network, (line, times): (&str, usize)) {
    let mut scene = Scene::with_tls(name, 2, 200.0).await;
    let mut running = scene.start();
    scene.ready(&mut running).await;
    scene.simulator.start_traffic();
    scene.until_recorded(100).await;
    scene.proxy.set(network);
    if network == Network::Refusing {
        scene.proxy.cut();
    }
    for _ in 0..times {
        running.until(line).await;
    }
    scene.proxy.set(Network::Clear);
    // Ends the connections that the fault has damaged, but that nobody has noticed yet.
    scene.proxy.cut();
    scene.until_recorded(100).await;
    scene.settle().await;
    let log = deploy(running).await;
    let report = scene.simulator.report();
    assert_eq!((report.identifies, scene.book.repeated), (2, 0), "{log}");
    assert!(report.resumes >= 2, "{log}");
}

#[tokio::test]
async fn a_network_that_is_cut_and_refuses_costs_nothing() {
    failing("refusing", Network::Refusing, ("could not connect", 3)).await;
}

#[tokio::test]
async fn a_network_that_swallows_everything_costs_nothing() {
    failing("void", Network::Void, ("zombied", 2)).await;
}

#[tokio::test]
async fn a_network_that_changes_bytes_costs_nothing() {
    failing("corrupting", Network::Corrupting(5000), ("disconnected", 4)).await;
}

#[tokio::test]
async fn a_slow_network_costs_nothing() {
    let mut scene = Scene::new("slow", 2, 100.0).await;
    scene.proxy.set(Network::Slow(Duration::from_millis(100)));
    let mut running = scene.start();
    scene.ready(&mut running).await;
    scene.simulator.start_traffic();
    scene.until_recorded(200).await;
    scene.settle().await;
    deploy(running).await;
    let report = scene.simulator.report();
    assert_eq!((report.identifies, report.resumes, scene.book.repeated), (2, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "full size"]
async fn full_a_thousand_shards_that_are_cut_at_once_come_back() {
    let mut scene = Scene::new("thousand", 1000, 1000.0).await;
    let mut running = scene.start();
    eprintln!("1000 shards: ready after {:.1?}", scene.ready(&mut running).await);
    scene.simulator.start_traffic();
    scene.until_recorded(2000).await;
    scene.proxy.cut();
    let before = Instant::now();
    scene.simulator.wait_until(|report| report.resumes == 1000).await;
    scene.until_connected().await;
    let elapsed = before.elapsed();
    // GW-171: shards start in the order of their ids. A thousand shards that start at once join the queue in the
    // order in which their tasks run, and the first of a key to join connects first.
    scene.settle_but_for("GW-171").await;
    let log = deploy(running).await;
    let report = scene.simulator.report();
    assert_eq!((report.identifies, scene.book.repeated), (1000, 0));
    eprintln!(
        "cut at once: back after {elapsed:.1?}, {} resumes, {} identifies, 0 lost",
        report.resumes, report.identifies
    );
    let shard = log.lines().filter(|line| line.contains("shard 999:")).collect::<Vec<_>>().join("\n");
    eprintln!("the log of one of them:\n{shard}");
}

#[tokio::test]
async fn a_record_that_cannot_be_written_ends_the_program_and_loses_nothing() {
    let mut scene = Scene::new("full-record", 2, 100.0).await;
    let mut running = scene.start();
    scene.ready(&mut running).await;
    scene.simulator.start_traffic();
    scene.until_recorded(50).await;
    deploy(running).await;
    let (code, log) = scene.start_recording_to("/dev/full").end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("error: cannot write /dev/full: No space left on device"), "{log}");
    running = scene.start();
    scene.ready(&mut running).await;
    scene.settle().await;
    deploy(running).await;
    assert_eq!((scene.simulator.report().identifies, scene.book.repeated), (2, 0));
}

// Only Linux can limit the disk space of a running process.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_store_on_a_full_disk_is_reported_and_stops_no_shard() {
    let mut scene = Scene::new("full-store", 2, 100.0).await;
    let mut running = scene.start();
    scene.ready(&mut running).await;
    scene.simulator.start_traffic();
    scene.until_recorded(50).await;
    deploy(running).await;
    let copying;
    (running, copying) = scene.start_on_small_disk();
    scene.ready(&mut running).await;
    scene.limit_disk(&running, "1").await;
    running.until("the session store failed (I/O error: File too large").await;
    scene.until_recorded(200).await;
    assert_eq!(scene.simulator.report().ready_sessions, 2);
    scene.limit_disk(&running, "unlimited").await;
    running.until("the session store works again").await;
    kill(running).await;
    copying.await.unwrap();
    running = scene.start();
    scene.ready(&mut running).await;
    scene.settle().await;
    deploy(running).await;
    assert_eq!(scene.simulator.report().identifies, 2);
    assert!(scene.book.repeated < 150, "{}: from where it was stored last", scene.book.repeated);
}
