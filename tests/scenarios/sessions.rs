//! Sessions in a store that outlive their process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use shardkeeper::actor::KeeperMessage;
use shardkeeper::error::ExitReason;
use shardkeeper::status::Change;
use shardkeeper::store::{Changes, FileStore, MemoryStore, SessionStore, StoreError, Stored};
use shardkeeper::{
    Delivery, Event, EventName, Intents, Lifecycle, ShardId, Shardkeeper, Subscription, SubscriptionOptions,
    Topic,
};
use shardkeeper_sim::{Fault, Simulator};
use shardkeeper_tests::{
    Network, Running, Weather, bot, bot_with, eventually, no_violations_except, service, simulator,
};
use tokio::time::{Instant, sleep, timeout};

/// The events that a bot would record across processes: which came, and which came again.
#[derive(Default)]
struct Log {
    seen: BTreeMap<(u32, String), u64>,
    repeated: u64,
}

impl Log {
    /// Records an event. Every event has a unique trace in its data.
    fn note(&mut self, simulator: &Simulator, delivery: &Delivery) {
        let Event::Dispatch(dispatch) = &**delivery else { return };
        if dispatch.event_name() == Some(EventName::Resumed) {
            return;
        }
        let key = (dispatch.shard().0, String::from_utf8_lossy(dispatch.data()).into_owned());
        match self.seen.entry(key).and_modify(|times| *times += 1).or_insert(1) {
            1 => simulator.observe(dispatch.shard().0, dispatch.name(), dispatch.data()),
            _ => {
                assert!(dispatch.is_replayed(), "{dispatch:?} came again, and does not say so");
                self.repeated += 1;
            }
        }
    }

    async fn read(
        &mut self,
        simulator: &Simulator,
        events: &mut Subscription,
        until: impl Fn(&Simulator) -> bool,
    ) {
        while !until(simulator) {
            let next = timeout(Duration::from_secs(3600), events.next()).await;
            let Some(delivery) = next.unwrap_or_else(|_| panic!("{:?}", simulator.delivery())) else {
                return;
            };
            self.note(simulator, &delivery);
        }
    }
}

fn all_seen(simulator: &Simulator) -> bool {
    simulator.delivery().delivered >= simulator.delivery().sent
}

fn everything() -> (Topic, SubscriptionOptions) {
    (Topic::all(), SubscriptionOptions { capacity: 1 << 14, ..SubscriptionOptions::default() })
}

async fn start(simulator: &Simulator, store: &MemoryStore) -> (Shardkeeper, Subscription) {
    let builder = bot(simulator).session_store(Arc::new(store.clone()));
    let (topic, options) = everything();
    let events = builder.subscribe_with(topic, options);
    (builder.start().await.unwrap(), events)
}

/// Kills the bot without any preparation. Returns when all of its actors have ended.
async fn kill(keeper: Shardkeeper) {
    keeper.manager().kill();
    assert_eq!(keeper.exit_reason().await, ExitReason::Crashed);
}

#[tokio::test(start_paused = true)]
async fn a_killed_process_costs_no_event_and_no_identify_whatever_is_open() {
    let simulator = simulator(4, |_| {});
    let store = MemoryStore::default();
    let mut log = Log::default();
    let mut kept = Vec::new();
    let mut events_before = 0;
    for round in 0..10_u64 {
        let (keeper, mut events) = start(&simulator, &store).await;
        simulator.wait_until(|report| report.ready_sessions == 4).await;
        while store.load().await.unwrap().sessions.len() < 4 {
            tokio::task::yield_now().await;
        }
        for shard in 0..4 {
            simulator.emit(shard, 100);
        }
        let goal = events_before + 250;
        log.read(&simulator, &mut events, |simulator| simulator.delivery().delivered >= goal).await;
        sleep(Duration::from_millis(77 * round)).await;
        // Some events are taken and unfinished, some wait in the subscription, some have not arrived.
        for _ in 0..round {
            kept.extend(events.next().now_or_never().flatten());
        }
        kill(keeper).await;
        events_before = simulator.delivery().delivered;
        sleep(Duration::from_secs(5)).await;
        // Events that were taken and not recorded count as not received. The bot no longer exists, so
        // dropping them acknowledges nothing.
        drop(events);
        kept.clear();
    }
    simulator.stop_traffic();
    let (keeper, mut events) = start(&simulator, &store).await;
    log.read(&simulator, &mut events, all_seen).await;
    let delivery = simulator.delivery();
    assert_eq!((delivery.lost, delivery.duplicated), (0, 0), "{delivery:?}");
    let report = simulator.report();
    assert_eq!((report.identifies, report.resumes), (4, 40));
    no_violations_except(&simulator, &[]);
    assert!(log.repeated > 0 && log.repeated < 10 * 450, "{}", log.repeated);
    keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deploy_hands_everything_over_without_a_repetition() {
    let simulator = simulator(4, |_| {});
    let store = MemoryStore::default();
    let mut log = Log::default();
    for _ in 0..5 {
        let (keeper, mut events) = start(&simulator, &store).await;
        simulator.wait_until(|report| report.ready_sessions == 4).await;
        for shard in 0..4 {
            simulator.emit(shard, 50);
        }
        let ending = tokio::spawn(async move { keeper.detach().await.unwrap() });
        log.read(&simulator, &mut events, |_| false).await;
        assert_eq!(ending.await.unwrap().len(), 4);
        sleep(Duration::from_secs(20)).await;
    }
    simulator.stop_traffic();
    let (keeper, mut events) = start(&simulator, &store).await;
    log.read(&simulator, &mut events, all_seen).await;
    assert_eq!(log.repeated, 0);
    assert_eq!(simulator.report().identifies, 4);
    keeper.stop().await;
    assert_eq!(store.load().await.unwrap().sessions, [], "given up");
}

#[tokio::test(start_paused = true)]
async fn a_stored_session_that_does_not_fit_is_refused_with_its_reason() {
    let simulator = simulator(2, |_| {});
    let store = MemoryStore::default();
    let (keeper, events) = start(&simulator, &store).await;
    until_stored_of(&store, &[0, 1]).await;
    drop(events);
    keeper.detach().await.unwrap();
    // GW-181: intents are fixed for a session, so a bot with other intents cannot resume these sessions.
    let builder = bot_with(&simulator, Intents::GUILDS).session_store(Arc::new(store.clone()));
    let mut running = Running::start_with(simulator.clone(), builder).await;
    assert_eq!((simulator.report().identifies, simulator.report().resumes), (4, 0));
    running.keeper.detach().await.unwrap();
    // Make a stored session too old to be resumed.
    let mut stored = store.load().await.unwrap();
    assert_eq!(stored.sessions.len(), 2);
    stored.sessions[0].stored_at_ms -= 3_700_000;
    let old = MemoryStore::default();
    let mut changes = Changes::default();
    (changes.sessions, changes.budget) = (stored.sessions, stored.budget);
    old.save(changes).await.unwrap();
    let builder = bot_with(&simulator, Intents::GUILDS).session_store(Arc::new(old));
    running = Running::start_with(simulator.clone(), builder).await;
    assert_eq!((simulator.report().identifies, simulator.report().resumes), (5, 1));
    running.no_violations();
}

#[tokio::test(start_paused = true)]
async fn what_another_process_has_stored_is_left_alone() {
    let simulator = simulator(2, |config| config.max_concurrency = 2);
    let store = MemoryStore::default();
    let process = |shard: u32| bot(&simulator).shard_ids([shard], 2).session_store(Arc::new(store.clone()));
    let first = process(0).start().await.unwrap();
    let second = process(1).start().await.unwrap();
    until_stored_of(&store, &[0, 1]).await;
    // A shard that moves to another process takes its stored record with it.
    first.remove_shards([ShardId(0)]).await.unwrap();
    until_stored_of(&store, &[1]).await;
    first.stop().await;
    second.detach().await.unwrap();
    assert_eq!(store.load().await.unwrap().sessions.len(), 1);
}

/// Waits until the store holds the sessions of just these shards.
async fn until_stored_of(store: &MemoryStore, shards: &[u32]) {
    eventually(async || {
        let stored = store.load().await.unwrap().sessions;
        stored.iter().map(|record| record.session.shard.0).eq(shards.iter().copied())
    })
    .await;
}

/// A store that fails or hangs on demand.
#[derive(Clone, Default)]
struct Moody {
    store: MemoryStore,
    fails: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    saves: Arc<AtomicU64>,
}

impl SessionStore for Moody {
    fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
        async {
            if self.fails.load(Ordering::Relaxed) {
                Err("the disk is gone".into())
            } else {
                self.store.load().await
            }
        }
        .boxed()
    }

    fn save(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.saves.fetch_add(1, Ordering::Relaxed);
        async move {
            while self.hangs.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(100)).await;
            }
            if self.fails.load(Ordering::Relaxed) {
                return Err("no space left on device".into());
            }
            self.store.save(changes).await
        }
        .boxed()
    }
}

fn is_store_failure(lifecycle: &Lifecycle) -> bool {
    matches!(lifecycle, Lifecycle::StoreFailed { .. })
}

fn is_store_recovery(lifecycle: &Lifecycle) -> bool {
    matches!(lifecycle, Lifecycle::StoreRecovered)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_or_hangs_is_reported_and_stops_nobody() {
    let simulator = simulator(2, |_| {});
    let store = Moody::default();
    let builder = bot(&simulator).session_store(Arc::new(store.clone()));
    let mut running = Running::start_with(simulator, builder).await;
    for mood in [&store.fails, &store.hangs] {
        mood.store(true, Ordering::Relaxed);
        running.simulator.emit(0, 10);
        let Lifecycle::StoreFailed { error, .. } = running.until(is_store_failure).await else { panic!() };
        assert!(error == "no space left on device" || error == "no answer for 10 s", "{error}");
        let saves = store.saves.load(Ordering::Relaxed);
        let later = Instant::now() + Duration::from_secs(600);
        running.simulator.start_traffic();
        while Instant::now() < later {
            let event = running.next().await;
            assert!(!event.lifecycle().is_some_and(is_store_failure), "told once");
        }
        running.simulator.stop_traffic();
        let tries = store.saves.load(Ordering::Relaxed) - saves;
        assert!(tries < 40, "{tries} tries in ten minutes");
        mood.store(false, Ordering::Relaxed);
        running.until(is_store_recovery).await;
    }
    running.check().await;
    running.keeper.detach().await.unwrap();
    assert_eq!(store.store.load().await.unwrap().sessions.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_end_does_not_wait_for_a_store_that_hangs_beyond_its_deadline() {
    let simulator = simulator(1, |_| {});
    let store = Moody::default();
    let builder = bot(&simulator).session_store(Arc::new(store.clone()));
    let running = Running::start_with(simulator, builder).await;
    store.hangs.store(true, Ordering::Relaxed);
    running.simulator.emit(0, 10);
    drop(running.events);
    let before = Instant::now();
    assert_eq!(running.keeper.detach().await.unwrap().len(), 1);
    assert_eq!(before.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_read_at_the_start_is_tried_again_and_then_done_without() {
    let simulator = simulator(1, |_| {});
    let store = Moody::default();
    store.fails.store(true, Ordering::Relaxed);
    let builder = bot(&simulator).session_store(Arc::new(store.clone()));
    let mut lifecycle = builder.subscribe(Topic::lifecycle());
    let before = Instant::now();
    let keeper = builder.start().await.unwrap();
    assert!((9..=10).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
    let first = lifecycle.next().await.unwrap();
    assert!(is_store_failure(first.lifecycle().unwrap()), "{first:?}");
    drop((first, lifecycle));
    simulator.wait_until(|report| report.ready_sessions == 1).await;
    keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_could_not_be_read_holds_nothing_of_a_shard_that_is_given_away_since() {
    let simulator = simulator(2, |_| {});
    let store = Moody::default();
    let builder = bot(&simulator).session_store(Arc::new(store.clone()));
    let first = Running::start_with(simulator.clone(), builder).await;
    first.keeper.detach().await.unwrap();
    assert_eq!(store.store.load().await.unwrap().sessions.len(), 2);
    store.fails.store(true, Ordering::Relaxed);
    let second = bot(&simulator).session_store(Arc::new(store.clone()));
    let mut lifecycle = second.subscribe(Topic::lifecycle());
    let second = second.start().await.unwrap();
    // The shards leave before they have sessions of their own.
    second.remove_shards([ShardId(0), ShardId(1)]).await.unwrap();
    assert_eq!(store.store.load().await.unwrap().sessions.len(), 2);
    store.fails.store(false, Ordering::Relaxed);
    while !is_store_recovery(lifecycle.next().await.unwrap().lifecycle().unwrap()) {}
    assert_eq!(store.store.load().await.unwrap().sessions, []);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn gw_170_a_process_that_starts_at_once_waits_for_the_window_of_the_one_before() {
    let simulator = simulator(1, |_| {});
    let store = MemoryStore::default();
    for _ in 0..4 {
        let (keeper, events) = start(&simulator, &store).await;
        until_stored_of(&store, &[0]).await;
        drop(events);
        // The session ends, so the next process has to identify.
        keeper.stop().await;
    }
    assert_eq!(simulator.report().identifies, 4);
    no_violations_except(&simulator, &[]);
}

#[tokio::test(start_paused = true)]
async fn a_prefetched_answer_does_not_give_back_what_was_spent_since() {
    let simulator = simulator(2, |_| {});
    let token = shardkeeper::config::Token::new("sim-token").unwrap();
    let dialer = shardkeeper_tests::SimDialer(simulator.clone());
    let url = simulator.api_url().parse().unwrap();
    let info = shardkeeper::config::gateway_info(&dialer, &url, &token).await.unwrap();
    let store = MemoryStore::default();
    let process = || bot(&simulator).gateway(info.clone()).session_store(Arc::new(store.clone()));
    let first = Running::start_with(simulator.clone(), process()).await;
    first.keeper.stop().await;
    let second = Running::start_with(simulator.clone(), process()).await;
    assert_eq!(second.keeper.status().await.unwrap().identify.remaining, 996);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_has_recovered_is_used_as_before() {
    let simulator = simulator(1, |_| {});
    let store = Moody::default();
    let builder = bot(&simulator).session_store(Arc::new(store.clone()));
    let mut running = Running::start_with(simulator, builder).await;
    store.fails.store(true, Ordering::Relaxed);
    running.simulator.emit(0, 1);
    running.until(is_store_failure).await;
    // Long enough for the longest waits between attempts.
    sleep(Duration::from_secs(600)).await;
    store.fails.store(false, Ordering::Relaxed);
    running.until(is_store_recovery).await;
    for _ in 0..10 {
        running.simulator.emit(0, 1);
        while running.next().await.dispatch().is_none() {}
        let before = Instant::now();
        until_stored(&running, &store).await;
        assert!(before.elapsed() <= Duration::from_millis(300), "{:?}", before.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_save_that_is_never_answered_is_given_up_and_tried_again() {
    let simulator = simulator(1, |_| {});
    let store = Moody::default();
    let builder = bot(&simulator).session_store(Arc::new(store.clone()));
    let mut running = Running::start_with(simulator, builder).await;
    until_stored(&running, &store).await;
    let saves = store.saves.load(Ordering::Relaxed);
    store.hangs.store(true, Ordering::Relaxed);
    running.simulator.emit(0, 1);
    let reported = running.until(is_store_failure).await.to_string();
    assert_eq!(reported, "the session store failed (no answer for 10 s), next try in 49.8s");
    sleep(Duration::from_secs(300)).await;
    let saves = store.saves.load(Ordering::Relaxed) - saves;
    assert!((3..=5).contains(&saves), "{saves}");
}

#[tokio::test(start_paused = true)]
async fn a_new_session_is_stored_at_once_after_a_save_that_was_under_way() {
    let simulator = simulator(1, |_| {});
    let store = Moody::default();
    let builder = bot(&simulator).session_store(Arc::new(store.clone()));
    let mut running = Running::start_with(simulator, builder).await;
    // The new session comes at various times relative to the next save.
    for wait in [0, 60, 120, 180, 240] {
        sleep(Duration::from_millis(6000 + wait)).await;
        store.hangs.store(true, Ordering::Relaxed);
        running.simulator.emit(0, 1);
        running.simulator.inject(0, Fault::InvalidSession { resumable: false }).unwrap();
        running.until_shard(0, |change| matches!(change, Change::Ready)).await;
        let new = running.keeper.sessions().await.unwrap().remove(0).id;
        store.hangs.store(false, Ordering::Relaxed);
        let released = Instant::now();
        eventually(async || {
            let stored = store.store.load().await.unwrap().sessions;
            stored.iter().any(|record| record.session.id == new)
        })
        .await;
        assert!(released.elapsed() <= Duration::from_millis(110), "{:?}", released.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_keeper_that_dies_is_replaced_and_goes_on() {
    let simulator = simulator(2, |_| {});
    let store = Moody::default();
    let builder = bot(&simulator).session_store(Arc::new(store.clone()));
    let mut running = Running::start_with(simulator, builder).await;
    for _ in 0..3 {
        service::<KeeperMessage>(&running.keeper).unwrap().kill();
        running.until(|lifecycle| matches!(lifecycle, Lifecycle::ServiceCrashed { .. })).await;
        let before = store.saves.load(Ordering::Relaxed);
        running.simulator.emit(0, 1);
        while store.saves.load(Ordering::Relaxed) == before {
            drop(running.next().now_or_never());
            sleep(Duration::from_millis(10)).await;
        }
    }
    running.check().await;
}

/// Waits until the store holds the same sessions that a detach would return.
async fn until_stored(running: &Running, store: &Moody) {
    eventually(async || {
        let stored = store.store.load().await.unwrap().sessions.into_iter().map(|record| record.session);
        stored.collect::<Vec<_>>() == running.keeper.sessions().await.unwrap()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_for_a_session_keeper_that_is_just_being_replaced() {
    let simulator = simulator(2, |_| {});
    let store = Moody::default();
    // A second crash would be followed by a delayed restart.
    for crashes in 1..4 {
        let builder = bot(&simulator).session_store(Arc::new(store.clone()));
        let mut running = Running::start_with(simulator.clone(), builder).await;
        for crash in 1..=crashes {
            eventually(async || service::<KeeperMessage>(&running.keeper).is_some()).await;
            if crash == crashes {
                running.simulator.emit(0, 10);
                running.check().await;
            }
            service::<KeeperMessage>(&running.keeper).unwrap().kill();
            running.until(|lifecycle| matches!(lifecycle, Lifecycle::ServiceCrashed { .. })).await;
        }
        let Running { keeper, events, .. } = running;
        drop(events);
        let before = Instant::now();
        let sessions = keeper.detach().await.unwrap();
        assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
        let stored = store.store.load().await.unwrap().sessions.into_iter().map(|record| record.session);
        assert_eq!(stored.collect::<Vec<_>>(), sessions, "after crash {crashes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_reported_once_whoever_notices_and_so_is_its_recovery() {
    let simulator = simulator(1, |_| {});
    let store = Moody::default();
    store.fails.store(true, Ordering::Relaxed);
    let builder = bot(&simulator).session_store(Arc::new(store.clone()));
    let reported = builder.subscribe(Topic::lifecycle());
    let running = Running::start_with(simulator, builder).await;
    // The manager could not load, its keeper cannot save, and neither can the next keeper.
    sleep(Duration::from_secs(60)).await;
    service::<KeeperMessage>(&running.keeper).unwrap().kill();
    running.simulator.emit(0, 10);
    sleep(Duration::from_secs(60)).await;
    store.fails.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    running.keeper.detach().await.unwrap();
    let mut of_store = Vec::new();
    let mut reported = reported;
    while let Some(event) = reported.next().await {
        let lifecycle = event.lifecycle().cloned();
        of_store
            .extend(lifecycle.filter(|reported| is_store_failure(reported) || is_store_recovery(reported)));
    }
    assert_eq!(of_store.len(), 2, "{of_store:?}");
    assert!(is_store_failure(&of_store[0]) && is_store_recovery(&of_store[1]), "{of_store:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_comes_with_its_shard_is_stored_before_that_connects() {
    let simulator = simulator(2, |config| config.max_concurrency = 2);
    let first = Running::start_with(simulator.clone(), bot(&simulator).shard_ids([0], 2)).await;
    let (store, network) = (Moody::default(), Network::new(&simulator));
    let builder = bot(&simulator).shard_ids([1], 2).session_store(Arc::new(store.clone()));
    let second = Running::start_with(simulator, builder.dialer(Arc::new(network.clone()))).await;
    until_stored(&second, &store).await;
    let Running { keeper: giver, events, .. } = first;
    drop(events);
    let sessions = giver.remove_shards([ShardId(0)]).await.unwrap();
    network.set_weather(Weather::Hangs);
    second.keeper.add_shards([ShardId(0)], sessions).await.unwrap();
    until_stored_of(&store.store, &[0, 1]).await;
}

#[tokio::test(start_paused = true)]
async fn sessions_that_a_process_is_given_are_stored_before_their_shards_connect() {
    let simulator = simulator(2, |_| {});
    let first = Running::start(simulator.clone()).await;
    let Running { keeper, events, .. } = first;
    drop(events);
    let sessions = keeper.detach().await.unwrap();
    let (store, network) = (MemoryStore::default(), Network::new(&simulator));
    let (url, token) =
        (simulator.api_url().parse().unwrap(), shardkeeper::config::Token::new("sim-token").unwrap());
    let info = shardkeeper::config::gateway_info(&network, &url, &token).await.unwrap();
    let builder = bot(&simulator).gateway(info).sessions(sessions.clone());
    network.set_weather(Weather::Hangs);
    let builder = builder.dialer(Arc::new(network)).session_store(Arc::new(store.clone()));
    let second = builder.start().await.unwrap();
    until_stored_of(&store, &[0, 1]).await;
    let stored = store.load().await.unwrap().sessions.into_iter().map(|record| record.session);
    assert_eq!(stored.collect::<Vec<_>>(), sessions);
    second.detach().await.unwrap();
}

#[tokio::test]
async fn a_file_of_thousands_of_shards_is_stored_in_one_transaction() {
    let path = std::env::temp_dir().join(format!("shardkeeper-scenario-{}", std::process::id()));
    let store = FileStore::open(&path).unwrap();
    shardkeeper::store::conformance::check(async || store.clone()).await.unwrap();
    drop(store);
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_word_is_stored_though_the_session_keeper_has_just_died() {
    for crashes in [1, 2] {
        let simulator = simulator(1, |_| {});
        let store = MemoryStore::default();
        let builder = bot(&simulator).session_store(Arc::new(store.clone()));
        let mut running = Running::start_with(simulator, builder).await;
        // After a second crash the keeper is not replaced at once.
        for _ in 1..crashes {
            service::<KeeperMessage>(&running.keeper).unwrap().kill();
            running.until(|lifecycle| matches!(lifecycle, Lifecycle::ServiceCrashed { .. })).await;
            eventually(async || service::<KeeperMessage>(&running.keeper).is_some()).await;
        }
        running.check().await;
        service::<KeeperMessage>(&running.keeper).unwrap().kill();
        running.until(|lifecycle| matches!(lifecycle, Lifecycle::ServiceCrashed { .. })).await;
        running.simulator.emit(0, 10);
        running.check().await;
        let sessions = running.keeper.detach().await.unwrap();
        let stored = store.load().await.unwrap().sessions;
        assert_eq!(stored[0].session, sessions[0], "after {crashes}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_session_of_a_shard_that_was_given_away_leaves_the_store_though_the_keeper_dies_over_it() {
    let simulator = simulator(2, |_| {});
    let store = MemoryStore::default();
    let builder = bot(&simulator).session_store(Arc::new(store.clone()));
    let running = Running::start_with(simulator, builder).await;
    until_stored_of(&store, &[0, 1]).await;
    running.keeper.remove_shards([ShardId(1)]).await.unwrap();
    service::<KeeperMessage>(&running.keeper).unwrap().kill();
    until_stored_of(&store, &[0]).await;
    running.keeper.stop().await;
}
