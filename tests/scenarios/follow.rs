//! Starts that follow stored sessions, whatever shard count is configured or recommended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shardkeeper::config::{ReshardPolicy, ShardCount};
use shardkeeper::error::ExitReason;
use shardkeeper::status::{Phase, Role};
use shardkeeper::store::{Changes, FileStore, LayoutRecord, MemoryStore, SessionStore, Stored};
use shardkeeper::{Builder, Intents, Lifecycle, Shardkeeper, Topic};
use shardkeeper_sim::{Action, Fault, Simulator};
use shardkeeper_tests::{Running, bot, bot_with, no_violations_except, simulator};
use tokio::time::sleep;

fn recommend(simulator: &Simulator, shards: u32) {
    let limits = Action::Limits { shards: Some(shards), max_concurrency: None, remaining: None };
    simulator.act(&limits).unwrap();
}

fn count(count: u32) -> ShardCount {
    ShardCount::new(count).unwrap()
}

/// Waits until the process has stored this many sessions.
async fn until_stored(store: &MemoryStore, sessions: usize) -> Stored {
    loop {
        let stored = store.load().await.unwrap();
        if stored.sessions.len() == sessions && stored.layout.is_some() {
            return stored;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Kills the bot without any preparation, and waits until all of its actors have ended.
async fn kill(keeper: Shardkeeper) {
    keeper.manager().kill();
    assert_eq!(keeper.exit_reason().await, ExitReason::Crashed);
}

/// Starts a process, and returns what it says about the shard count that is wanted.
async fn start(builder: Builder) -> (Shardkeeper, Option<(u32, u32)>) {
    let mut lifecycle = builder.subscribe(Topic::lifecycle());
    let keeper = builder.start().await.unwrap();
    let mut followed = None;
    while let Some(event) = lifecycle.next().await {
        match event.lifecycle() {
            Some(Lifecycle::LayoutFollowed { count, wanted }) => followed = Some((count.get(), wanted.get())),
            Some(Lifecycle::AllReady { .. }) => break,
            _ => {}
        }
    }
    (keeper, followed)
}

fn with(builder: Builder, store: &MemoryStore) -> Builder {
    builder.session_store(Arc::new(store.clone()))
}

#[tokio::test(start_paused = true)]
async fn a_recommendation_that_changes_between_two_processes_costs_no_identify_and_no_event() {
    let simulator = simulator(4, |_| {});
    let store = MemoryStore::default();
    let first = Running::start_with(simulator.clone(), with(bot(&simulator), &store)).await;
    until_stored(&store, 4).await;
    // What was acknowledged last is stored by then.
    sleep(Duration::from_secs(1)).await;
    kill(first.keeper).await;
    for (recommended, changed) in [(9, true), (2, true), (4, false)] {
        recommend(&simulator, recommended);
        for shard in 0..4 {
            simulator.emit(shard, 50);
        }
        let builder = with(bot(&simulator), &store);
        let mut lifecycle = builder.subscribe(Topic::lifecycle());
        let mut running = Running::start_with(simulator.clone(), builder).await;
        running.check().await;
        let told = lifecycle.next().await.unwrap();
        let followed = matches!(told.lifecycle(), Some(Lifecycle::LayoutFollowed { .. }));
        assert_eq!(followed, changed, "{told:?}");
        if followed {
            let text = format!(
                "the bot has 4 shards, because their sessions can be resumed; {recommended} are wanted"
            );
            assert_eq!(told.lifecycle().unwrap().to_string(), text);
        }
        drop((told, lifecycle, running.events));
        running.keeper.detach().await.unwrap();
        let stored = store.load().await.unwrap();
        assert_eq!(stored.layout, Some(LayoutRecord::new(1, count(4))));
    }
    let report = simulator.report();
    assert_eq!((report.identifies, report.resumes), (4, 12));
}

#[tokio::test(start_paused = true)]
async fn a_configured_count_waits_for_its_reshard_while_there_are_sessions() {
    let simulator = simulator(4, |_| {});
    let store = MemoryStore::default();
    let (first, followed) = start(with(bot(&simulator).shards(4), &store)).await;
    assert_eq!(followed, None);
    until_stored(&store, 4).await;
    kill(first).await;
    let (second, followed) = start(with(bot(&simulator).shards(6), &store)).await;
    assert_eq!(followed, Some((4, 6)));
    assert_eq!(second.status().await.unwrap().shards.len(), 4);
    assert_eq!((simulator.report().identifies, simulator.report().resumes), (4, 4));
    // After a stop there is no session, so the next process has the configured count.
    second.stop().await;
    let (third, followed) = start(with(bot(&simulator).shards(6), &store)).await;
    assert_eq!((followed, third.status().await.unwrap().shards.len()), (None, 6));
    let stored = until_stored(&store, 6).await;
    assert_eq!(stored.layout, Some(LayoutRecord::new(2, count(6))));
    assert!(stored.sessions.iter().all(|record| record.generation == 2));
    third.stop().await;
    no_violations_except(&simulator, &[]);
}

#[tokio::test(start_paused = true)]
async fn sessions_that_are_too_old_leave_the_choice_to_the_recommendation() {
    let simulator = simulator(2, |_| {});
    let store = MemoryStore::default();
    let (first, _) = start(with(bot(&simulator), &store)).await;
    until_stored(&store, 2).await;
    kill(first).await;
    sleep(Duration::from_secs(3700)).await;
    recommend(&simulator, 3);
    let (second, followed) = start(with(bot(&simulator), &store)).await;
    assert_eq!((followed, second.status().await.unwrap().shards.len()), (None, 3));
    let stored = until_stored(&store, 3).await;
    assert_eq!(stored.layout, Some(LayoutRecord::new(2, count(3))));
    assert_eq!((simulator.report().identifies, simulator.report().resumes), (5, 0));
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn sessions_that_the_bot_was_given_decide_like_stored_ones() {
    let simulator = simulator(4, |_| {});
    let (first, _) = start(bot(&simulator)).await;
    let sessions = first.detach().await.unwrap();
    recommend(&simulator, 6);
    let (second, followed) = start(bot(&simulator).sessions(sessions)).await;
    assert_eq!(followed, Some((4, 6)));
    assert_eq!((simulator.report().identifies, simulator.report().resumes), (4, 4));
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn gw_087_a_count_that_discord_refused_does_not_come_back() {
    let simulator = simulator(2, |_| {});
    let store = MemoryStore::default();
    let first = Running::start_with(simulator.clone(), with(bot(&simulator), &store)).await;
    until_stored(&store, 2).await;
    simulator.inject(0, Fault::Close { code: 4011 }).unwrap();
    while !store.load().await.unwrap().layout.unwrap().refused {
        sleep(Duration::from_millis(10)).await;
    }
    kill(first.keeper).await;
    let refused = store.load().await.unwrap();
    assert_eq!(refused.sessions.len(), 1);
    // Whoever wants the same count all the same loses no session.
    let (same, followed) = start(with(bot(&simulator).shards(2), &store_of(refused).await)).await;
    assert_eq!((followed, simulator.report().resumes), (None, 1));
    same.detach().await.unwrap();
    // The other store does not know when this process identified.
    sleep(Duration::from_secs(10)).await;
    let identifies = simulator.report().identifies;
    recommend(&simulator, 4);
    let (second, followed) = start(with(bot(&simulator), &store)).await;
    assert_eq!((followed, second.status().await.unwrap().shards.len()), (None, 4));
    assert_eq!(simulator.report().identifies, identifies + 4);
    let stored = until_stored(&store, 4).await;
    assert_eq!(stored.layout, Some(LayoutRecord::new(2, count(4))));
    assert!(stored.sessions.iter().all(|record| record.generation == 2), "the others are forgotten");
    second.stop().await;
}

/// What a process would leave behind that is killed in the middle of a reshard: sessions of both layouts, of
/// which the new ones own the guilds of group 1, and shard 0 of group 0 is warming up.
async fn resharding(simulator: &Simulator, (from, to): (u32, u32)) -> Stored {
    let (old, new) = (MemoryStore::default(), MemoryStore::default());
    for (store, shards) in [(&old, from), (&new, to)] {
        let (process, _) = start(with(bot(simulator).shards(shards), store)).await;
        until_stored(store, shards as usize).await;
        process.detach().await.unwrap();
    }
    let (mut old, new) = (old.load().await.unwrap(), new.load().await.unwrap());
    let groups = (1..=from).rev().find(|groups| from % groups == 0 && to % groups == 0).unwrap();
    old.sessions.extend(new.sessions.into_iter().filter_map(|mut record| {
        record.generation = 2;
        let shard = record.session.shard.0;
        (shard % groups == 1 || shard == 0).then_some(record)
    }));
    old.layout = Some(LayoutRecord::new(1, count(from)).with_reshard(2, count(to), vec![1]));
    old
}

async fn store_of(stored: Stored) -> MemoryStore {
    let store = MemoryStore::default();
    let mut changes = Changes::default();
    (changes.sessions, changes.layout, changes.budget) = (stored.sessions, stored.layout, stored.budget);
    store.save(changes).await.unwrap();
    store
}

/// Leaves a bot too few Identifies to go on with a reshard, so that what it started with stays.
fn held(simulator: &Simulator, builder: Builder) -> Builder {
    let limits = Action::Limits { shards: None, max_concurrency: None, remaining: Some(400) };
    simulator.act(&limits).unwrap();
    let mut policy = ReshardPolicy::off();
    (policy.reserve, policy.spread) = (500, false);
    builder.reshard(policy)
}

#[tokio::test(start_paused = true)]
async fn a_process_killed_in_the_middle_of_a_reshard_has_both_layouts_again() {
    for (from, to) in [(4, 6), (4, 8), (4, 4), (6, 4)] {
        let simulator = simulator(from, |config| config.max_concurrency = 16);
        let stored = resharding(&simulator, (from, to)).await;
        let groups = (1..=from).rev().find(|groups| from % groups == 0 && to % groups == 0).unwrap();
        let layout = stored.layout.clone();
        let store = store_of(stored).await;
        let identifies = simulator.report().identifies;
        let mut expected: BTreeSet<(u32, u32)> =
            (0..from).filter(|id| id % groups != 1).map(|id| (1, id)).collect();
        expected.extend((0..to).filter(|id| id % groups == 1).map(|id| (2, id)));
        for _ in 0..2 {
            // The count that is wanted has no influence: the reshard that was begun comes first.
            let builder = with(held(&simulator, bot(&simulator).shards(from + 1)), &store);
            let keeper = builder.start().await.unwrap();
            let active = async || {
                let shards = keeper.status().await.unwrap().shards;
                let active = shards.into_iter().filter(|shard| shard.role == Role::Active);
                active
                    .filter(|shard| shard.phase == Phase::Ready)
                    .map(|shard| (shard.generation, shard.shard.0))
                    .collect::<BTreeSet<_>>()
            };
            while active().await != expected {
                sleep(Duration::from_millis(10)).await;
            }
            // A guild is routed to the shard that owns it.
            for guild in 0..from * to {
                let owner = keeper.owner_of(u64::from(guild) << 22).await.unwrap();
                let moved = guild % groups == 1;
                assert_eq!(owner.0, guild % if moved { to } else { from }, "{from} -> {to}");
                assert!(expected.contains(&(if moved { 2 } else { 1 }, owner.0)));
            }
            kill(keeper).await;
            let after = store.load().await.unwrap();
            assert_eq!(after.layout, layout, "{from} -> {to}");
            let kept: BTreeSet<_> = after
                .sessions
                .iter()
                .map(|record| record.slot())
                .map(|key| (key.generation, key.id.0))
                .collect();
            let mut with_warming = expected.clone();
            with_warming.insert((2, 0));
            assert_eq!(
                kept, with_warming,
                "{from} -> {to}: the sessions of shards that were replaced are gone"
            );
        }
        assert_eq!(simulator.report().identifies, identifies, "{from} -> {to}");
        assert_eq!(simulator.report().resumes, 2 * expected.len() as u64, "{from} -> {to}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_detach_in_the_middle_of_a_reshard_hands_over_the_shards_that_own_their_guilds() {
    let simulator = simulator(4, |config| config.max_concurrency = 16);
    let store = store_of(resharding(&simulator, (4, 6)).await).await;
    let mut running = with(held(&simulator, bot(&simulator)), &store).start().await.unwrap();
    let identifies = simulator.report().identifies;
    for _ in 0..2 {
        simulator.wait_until(|report| report.ready_sessions == 5).await;
        let sessions = running.detach().await.unwrap();
        let slots: BTreeSet<_> =
            sessions.iter().map(|session| (session.count.get(), session.shard.0)).collect();
        assert_eq!(slots, BTreeSet::from([(4, 0), (4, 2), (6, 1), (6, 3), (6, 5)]));
        running = held(&simulator, bot(&simulator)).sessions(sessions).start().await.unwrap();
    }
    simulator.wait_until(|report| report.ready_sessions == 5).await;
    assert_eq!(simulator.report().identifies, identifies);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reshard_that_changes_the_intents_goes_on_with_both() {
    let simulator = simulator(2, |config| config.max_concurrency = 16);
    let mut stored = Stored::default();
    for (generation, intents) in [(1, Intents::GUILDS), (2, Intents::GUILDS | Intents::GUILD_MESSAGES)] {
        let store = MemoryStore::default();
        let (process, _) = start(with(bot_with(&simulator, intents), &store)).await;
        until_stored(&store, 2).await;
        process.detach().await.unwrap();
        stored.sessions.extend(store.load().await.unwrap().sessions.into_iter().filter_map(|mut record| {
            record.generation = generation;
            (record.session.shard.0 == generation - 1).then_some(record)
        }));
    }
    stored.layout = Some(LayoutRecord::new(1, count(2)).with_reshard(2, count(2), vec![1]));
    let store = store_of(stored).await;
    let identifies = simulator.report().identifies;
    let builder = held(&simulator, bot_with(&simulator, Intents::GUILDS));
    let keeper = with(builder, &store).start().await.unwrap();
    simulator.wait_until(|report| report.ready_sessions == 2).await;
    assert_eq!(simulator.report().identifies, identifies);
    keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slice_follows_what_it_can_run_and_leaves_the_rest_to_others() {
    let simulator = simulator(2, |config| config.max_concurrency = 16);
    let stores = [MemoryStore::default(), MemoryStore::default()];
    let mut processes = Vec::new();
    for (shard, store) in (0..2_u32).zip(&stores) {
        let (process, _) = start(with(bot(&simulator).shard_ids([shard], 2), store)).await;
        until_stored(store, 1).await;
        processes.push(process);
    }
    for process in processes.drain(..) {
        kill(process).await;
    }
    // Each process has the guilds that it had, on twice as many shards.
    for (shard, store) in (0..2_u32).zip(&stores) {
        let (process, followed) = start(with(bot(&simulator).shard_ids([shard, shard + 2], 4), store)).await;
        assert_eq!(followed, Some((2, 4)));
        processes.push(process);
    }
    assert_eq!((simulator.report().identifies, simulator.report().resumes), (2, 2));
    for process in processes.drain(..) {
        kill(process).await;
    }
    // Here each process has a half of the guilds of either shard, so none can resume one.
    for (shard, store) in [(0_u32, &stores[0]), (2, &stores[1])] {
        let (process, followed) = start(with(bot(&simulator).shard_ids([shard, shard + 1], 4), store)).await;
        assert_eq!(followed, None);
        processes.push(process);
    }
    assert_eq!((simulator.report().identifies, simulator.report().resumes), (6, 2));
    for process in processes {
        process.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_layout_in_a_file_is_followed_after_a_kill() {
    let simulator = simulator(4, |_| {});
    let path = std::env::temp_dir().join(format!("shardkeeper-follow-{}", std::process::id()));
    let bot = || bot(&simulator).session_store(Arc::new(FileStore::open(&path).unwrap()));
    let (first, _) = start(bot()).await;
    first.detach().await.unwrap();
    recommend(&simulator, 8);
    let (second, followed) = start(bot()).await;
    assert_eq!(followed, Some((4, 8)));
    second.stop().await;
    std::fs::remove_file(&path).unwrap();
    assert_eq!((simulator.report().identifies, simulator.report().resumes), (4, 4));
}
