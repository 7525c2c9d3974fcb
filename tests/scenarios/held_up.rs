//! Subscriptions that block a shard, a request or the shutdown: what still works, and which subscription is
//! named.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use shardkeeper::command::{MembersError, RequestMembers, VoiceStateUpdate};
use shardkeeper::config::{RestartBy, ShutdownMode};
use shardkeeper::status::Phase;
use shardkeeper::{
    Builder, Event, Lifecycle, Overflow, Session, ShardId, Shardkeeper, Subscription, SubscriptionOptions,
    Topic,
};
use shardkeeper_sim::{Fault, Simulator};
use shardkeeper_tests::{Running, bot, simulator};
use tokio::time::{Instant, sleep, timeout};

const GUILD: u64 = 281_474_976 << 22;
const SHARD: ShardId = ShardId(0);

fn lossless(capacity: usize) -> SubscriptionOptions {
    SubscriptionOptions { capacity, overflow: Overflow::Wait }
}

/// A simulator with one shard and one guild.
fn large(members: u32) -> Simulator {
    simulator(1, |config| {
        config.guilds = 1;
        config.large_guild_members = members;
    })
}

/// The loop of a bot that requests members while it handles an event, so it reads nothing meanwhile.
async fn ask_in_the_loop(simulator: &Simulator, keeper: &Shardkeeper, mut own: Subscription) {
    simulator.emit(0, 300);
    let first = own.next().await.unwrap();
    let asked = Instant::now();
    let all = keeper.members(RequestMembers::all(GUILD)).await.unwrap();
    // Members join and leave with the traffic, so the number varies.
    assert!((3400..3600).contains(&all.raw_members.len()), "{}", all.raw_members.len());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    drop(first);
    // The loop continues, and has missed nothing.
    let (mut chunks, mut last) = (0, 0);
    while chunks < 4 {
        let delivery = timeout(Duration::from_secs(60), own.next()).await.unwrap().unwrap();
        let dispatch = delivery.dispatch().unwrap();
        assert!(dispatch.sequence() > last, "in order");
        last = dispatch.sequence();
        chunks += usize::from(dispatch.name() == "GUILD_MEMBERS_CHUNK");
    }
}

#[tokio::test(start_paused = true)]
async fn members_can_be_awaited_in_the_loop_that_reads_their_chunks() {
    for capacity in [1, 4, 100] {
        let running = Running::start(large(3500)).await;
        let own = running.keeper.subscribe_with(Topic::all(), lossless(capacity));
        ask_in_the_loop(&running.simulator, &running.keeper, own).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_can_be_awaited_in_the_loop_in_real_time_too() {
    for capacity in [1, 2, 3, 5, 8, 60, 70] {
        let running = Running::start(large(3500)).await;
        let own = running.keeper.subscribe_with(Topic::all(), lossless(capacity));
        ask_in_the_loop(&running.simulator, &running.keeper, own).await;
        running.keeper.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_is_written_though_the_asker_does_not_read_what_the_resume_brings() {
    let running = Running::start(simulator(1, |_| {})).await;
    let mut own = running.keeper.subscribe_with(Topic::all(), lossless(1));
    running.simulator.emit(0, 100);
    let in_hand = own.next().await.unwrap();
    running.simulator.inject(0, Fault::Cut).unwrap();
    sleep(Duration::from_secs(120)).await;
    assert_eq!(running.keeper.shard_status(SHARD).await.unwrap().phase, Phase::Resuming);
    let accepted = running.keeper.command(VoiceStateUpdate::leave(GUILD)).await.unwrap();
    let asked = Instant::now();
    accepted.written().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    drop(in_hand);
    let mut read = 1;
    while read < 100 {
        read += usize::from(own.next().await.unwrap().dispatch().unwrap().name() != "RESUMED");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_to_lifecycle_alone_never_stops_its_shards() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let mut unread = running.keeper.subscribe_with(Topic::lifecycle(), lossless(2));
    for _ in 0..5 {
        running.simulator.inject(0, Fault::Cut).unwrap();
        running.until_resumed(0).await;
    }
    running.simulator.emit(0, 500);
    running.check().await;
    // The newest events are there, and the missed ones are reported.
    assert_eq!(unread.backlog(), 2);
    assert!(matches!(*unread.next().await.unwrap(), Event::Lagged { missed } if missed > 10));
    running.keeper.stop().await;
    let mut last = None;
    while let Some(delivery) = unread.next().await {
        last = delivery.lifecycle().cloned().or(last);
    }
    assert_eq!(last, Some(shardkeeper::Lifecycle::Ended));
}

#[tokio::test(start_paused = true)]
async fn what_a_subscriber_has_when_it_panics_comes_again_to_the_next_process() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let mut own = running.keeper.subscribe(Topic::all());
    running.simulator.emit(0, 20);
    running.check().await;
    let before = running.keeper.sessions().await.unwrap()[0].sequence;
    let panicked = tokio::spawn(async move {
        for _ in 0..5 {
            drop(own.next().await.unwrap());
        }
        let delivery = own.next().await.unwrap();
        panic!("on {delivery:?}");
    });
    assert!(panicked.await.unwrap_err().is_panic());
    let session = running.keeper.sessions().await.unwrap().remove(0);
    assert_eq!(session.sequence, before + 5, "neither what was in work nor what was unread");
    // The shutdown does not wait for a subscriber that no longer exists.
    let start = Instant::now();
    let sessions = running.keeper.detach();
    let sessions =
        tokio::join!(sessions, async { while running.events.next().await.is_some() {} }).0.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(sessions[0].sequence, before + 5);
}

fn with_probe(builder: &Builder) -> (Subscription, Arc<()>) {
    let probe = Arc::new(());
    let held = Arc::clone(&probe);
    let topic = Topic::all().with_lifecycle().matching(move |_| Arc::strong_count(&held) > 0);
    (builder.subscribe(topic), probe)
}

#[tokio::test(start_paused = true)]
async fn subscriptions_of_a_start_that_fails_or_never_comes_end_and_are_freed() {
    // Case 1: the builder was never started.
    let builder = bot(&simulator(1, |_| {}));
    let (mut dropped, probe) = with_probe(&builder);
    drop(builder);
    assert!(timeout(Duration::from_secs(60), dropped.next()).await.unwrap().is_none());
    assert_eq!(Arc::strong_count(&probe), 1);
    // Case 2: the builder was rejected by its checks.
    let builder = bot(&simulator(1, |_| {})).large_threshold(1);
    let (mut refused, probe) = with_probe(&builder);
    assert!(builder.start().await.is_err());
    assert!(timeout(Duration::from_secs(60), refused.next()).await.unwrap().is_none());
    assert_eq!(Arc::strong_count(&probe), 1);
    // Case 3: the builder was checked and never spawned.
    let builder = bot(&simulator(1, |_| {}));
    let (mut built, probe) = with_probe(&builder);
    drop(builder.build().unwrap());
    assert!(timeout(Duration::from_secs(60), built.next()).await.unwrap().is_none());
    assert_eq!(Arc::strong_count(&probe), 1);
    // Case 4: the future of the start was never polled.
    let builder = bot(&simulator(1, |_| {}));
    let (mut unpolled, probe) = with_probe(&builder);
    drop(builder.start());
    assert!(timeout(Duration::from_secs(60), unpolled.next()).await.unwrap().is_none());
    assert_eq!(Arc::strong_count(&probe), 1);
    // Case 5: the future of the start was polled once and then dropped.
    let builder = bot(&simulator(1, |_| {}));
    let (mut begun, _probe) = with_probe(&builder);
    assert!(builder.start().now_or_never().is_none());
    while timeout(Duration::from_secs(60), begun.next()).await.unwrap().is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_nobody_reads_is_named_and_so_is_its_resumption() {
    let mut running = Running::start(simulator(2, |_| {})).await;
    let line = line!() + 1;
    let mut unread = running.keeper.subscribe_with(Topic::all(), lossless(5)).named("commands");
    let since = Instant::now();
    for shard in [0, 1] {
        running.simulator.emit(shard, 50);
    }
    let stalled = |lifecycle: &Lifecycle| matches!(lifecycle, Lifecycle::SubscriptionStalled { .. });
    let Lifecycle::SubscriptionStalled { subscription, stalled_for, .. } = running.until(stalled).await
    else {
        unreachable!()
    };
    assert_eq!(subscription, unread.label());
    assert_eq!((subscription.name(), subscription.place().line()), (Some("commands"), line));
    assert!(subscription.place().file().ends_with("held_up.rs"));
    assert!((5..7).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    assert!(stalled_for >= Duration::from_secs(5));
    // One log line for both shards; the status shows each.
    sleep(Duration::from_secs(60)).await;
    for status in running.keeper.status().await.unwrap().shards {
        let held_up = status.held_up.unwrap();
        assert_eq!(held_up.subscription, subscription);
        assert!(held_up.since.elapsed() < Duration::from_secs(70) && status.reading_paused);
        assert_eq!(status.phase, Phase::Ready);
    }
    let reader = tokio::spawn(async move { while unread.next().await.is_some() {} });
    let mut stalls = 0;
    let resumed = running
        .until(|lifecycle| {
            stalls += usize::from(stalled(lifecycle));
            matches!(lifecycle, Lifecycle::SubscriptionResumed { .. })
        })
        .await;
    assert!(
        resumed.to_string().starts_with("subscription \"commands\" (tests/scenarios/held_up.rs"),
        "{resumed}"
    );
    assert_eq!(stalls, 0);
    running.check().await;
    for status in running.keeper.status().await.unwrap().shards {
        assert!(status.held_up.is_none() && !status.reading_paused);
    }
    running.keeper.stop().await;
    reader.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_never_dropped_is_reported_with_its_subscription() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let mut holder = running.keeper.subscribe(Topic::all()).named("holder");
    let mut good = running.keeper.subscribe(Topic::all());
    running.simulator.emit(0, 30);
    let held = holder.next().await.unwrap();
    let sequence = held.dispatch().unwrap().sequence();
    for _ in 1..30 {
        drop((holder.next().await, good.next().await));
    }
    let stuck = running.until(|lifecycle| matches!(lifecycle, Lifecycle::WatermarkStuck { .. })).await;
    let label = holder.label();
    assert!(
        matches!(&stuck, Lifecycle::WatermarkStuck { shard: SHARD, subscription: Some(named), sequence: at, stuck_for, .. }
            if *named == label && *at == sequence && stuck_for.as_secs() >= 60),
        "{stuck}"
    );
    let status = running.keeper.shard_status(SHARD).await.unwrap();
    assert_eq!(status.watermark_stuck.unwrap().subscription, Some(label));
    assert_eq!((status.acknowledged, status.sequence), (sequence - 1, sequence + 29));
    drop((held, good));
    let moves = running.until(|lifecycle| matches!(lifecycle, Lifecycle::WatermarkMoves { .. })).await;
    assert_eq!(moves, Lifecycle::WatermarkMoves { shard: SHARD, generation: 1 });
    let status = running.keeper.shard_status(SHARD).await.unwrap();
    assert_eq!((status.acknowledged, status.watermark_stuck), (status.sequence, None));
}

#[tokio::test(start_paused = true)]
async fn what_is_abandoned_comes_again_to_the_next_process() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let mut own = running.keeper.subscribe(Topic::all());
    running.simulator.emit(0, 3);
    running.check().await;
    drop(own.next().await);
    let abandoned = own.next().await.unwrap();
    let sequence = abandoned.dispatch().unwrap().sequence();
    abandoned.abandon();
    drop(own.next().await);
    let detaching = running.keeper.detach();
    drop((own, running.events));
    let start = Instant::now();
    let sessions = detaching.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "nobody waits for it: {:?}", start.elapsed());
    assert_eq!(sessions[0].sequence, sequence - 1);
    let builder = bot(&running.simulator).sessions(sessions);
    let mut again = builder.subscribe(Topic::all());
    let _successor = builder.start().await.unwrap();
    for expected in [sequence, sequence + 1] {
        let delivery = timeout(Duration::from_secs(60), again.next()).await.unwrap().unwrap();
        assert_eq!(delivery.dispatch().unwrap().sequence(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_in_the_loop_that_reads_takes_no_longer_than_its_reader() {
    let mut running = Running::start(simulator(2, |_| {})).await;
    let mut own = running.keeper.subscribe_with(Topic::all(), lossless(10));
    for shard in [0, 1] {
        running.simulator.emit(shard, 200);
    }
    let reading = tokio::spawn(async move { while running.events.next().await.is_some() {} });
    let (start, mut detaching, mut read) = (Instant::now(), None, 0);
    while let Some(delivery) = own.next().await {
        read += 1;
        sleep(Duration::from_millis(1)).await;
        if read == 100 {
            // The bot detaches while the loop still holds a delivery.
            detaching = Some(running.keeper.detach());
        }
        drop(delivery);
    }
    let sessions = detaching.unwrap().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(sessions.len(), 2);
    reading.await.unwrap();
}

/// How a bot ends, or removes its shards, inside its reading loop.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Remove,
    Detach,
    Stop,
}

impl End {
    async fn begin_and_await(self, keeper: &Shardkeeper) -> Vec<Session> {
        match self {
            Self::Remove => keeper.remove_shards([SHARD]).await.unwrap(),
            Self::Detach => keeper.detach().await.unwrap(),
            Self::Stop => {
                keeper.stop().await;
                Vec::new()
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_awaited_with_a_delivery_in_hand_does_not_wait_for_it_and_names_it() {
    for end in [End::Remove, End::Detach] {
        let mut running = Running::start(simulator(2, |_| {})).await;
        let mut own = running.keeper.subscribe(Topic::all()).named("own");
        running.simulator.emit(0, 1);
        let in_hand = own.next().await.unwrap();
        let keeper = running.keeper.clone();
        let listening = tokio::spawn(async move {
            running.until(|lifecycle| matches!(lifecycle, Lifecycle::WatermarkStuck { .. })).await
        });
        let start = Instant::now();
        let sessions = end.begin_and_await(&keeper).await;
        assert!(start.elapsed() < Duration::from_secs(3), "{end:?}: {:?}", start.elapsed());
        assert_eq!(sessions[0].sequence, in_hand.dispatch().unwrap().sequence() - 1);
        let stuck = listening.await.unwrap();
        assert!(stuck.to_string().contains("by subscription \"own\" (tests"), "{stuck}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_awaited_in_the_loop_that_reads_does_not_wait_for_what_is_unread_either() {
    for end in [End::Remove, End::Detach, End::Stop] {
        // With enough capacity, and with one event, where the shard waits for the subscription.
        for capacity in [1000, 1] {
            for lifecycle_in_hand in [false, true] {
                let running = Running::start(simulator(2, |_| {})).await;
                drop(running.events);
                let mut own =
                    running.keeper.subscribe_with(Topic::all().with_lifecycle(), lossless(capacity));
                if lifecycle_in_hand {
                    running.keeper.restart_shard(ShardId(1), RestartBy::Resume).await.unwrap();
                }
                let in_hand = own.next();
                if !lifecycle_in_hand {
                    running.simulator.emit(0, 100);
                }
                let in_hand = in_hand.await.unwrap();
                assert_eq!(in_hand.lifecycle().is_some(), lifecycle_in_hand);
                running.simulator.emit(0, 100);
                sleep(Duration::from_secs(20)).await;
                let acknowledged = running.keeper.sessions().await.unwrap()[0].sequence;
                let start = Instant::now();
                let sessions = end.begin_and_await(&running.keeper).await;
                let case = format!("{end:?}, {capacity}, {lifecycle_in_hand}");
                assert!(start.elapsed() < Duration::from_secs(4), "{case}: {:?}", start.elapsed());
                assert_eq!(sessions.is_empty(), end == End::Stop, "{case}");
                if let Some(session) = sessions.first() {
                    assert_eq!(session.sequence, acknowledged, "{case}");
                }
                drop(in_hand);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_asker_had_in_hand_comes_again_to_the_next_process_marked_as_replayed() {
    let running = Running::start(simulator(1, |_| {})).await;
    drop(running.events);
    let mut own = running.keeper.subscribe(Topic::all());
    running.simulator.emit(0, 3);
    drop(own.next().await.unwrap());
    let in_hand = own.next().await.unwrap();
    let sessions = running.keeper.detach().await.unwrap();
    let builder = bot(&running.simulator).sessions(sessions);
    let mut again = builder.subscribe(Topic::all());
    let _successor = builder.start().await.unwrap();
    let first = again.next().await.unwrap();
    let (first, in_hand) = (first.dispatch().unwrap(), in_hand.dispatch().unwrap());
    assert_eq!((first.sequence(), first.is_replayed()), (in_hand.sequence(), true));
    assert_eq!(first.data(), in_hand.data());
}

/// The task that awaits the shutdown has passed its deliveries to others, which need some time.
#[tokio::test(start_paused = true)]
async fn an_end_waits_for_deliveries_in_the_hands_of_others_than_its_asker() {
    for end in [End::Remove, End::Detach] {
        for reads_on in [true, false] {
            let running = Running::start(simulator(1, |_| {})).await;
            drop(running.events);
            let mut own = running.keeper.subscribe(Topic::all());
            running.simulator.emit(0, 1);
            let keeper = running.keeper.clone();
            let slow = |delivery| {
                tokio::spawn(async move {
                    sleep(Duration::from_secs(6)).await;
                    drop(delivery);
                })
            };
            let (asked, sequence) = match reads_on {
                // The task that passed the delivery on has also asked for the next event.
                true => {
                    let delivery = own.next().await.unwrap();
                    let sequence = delivery.dispatch().unwrap().sequence();
                    slow(delivery);
                    assert!(own.next().now_or_never().is_none());
                    (Instant::now(), sequence)
                }
                // Another task reads the subscription.
                false => {
                    let reading = tokio::spawn(async move {
                        let delivery = own.next().await.unwrap();
                        let sequence = delivery.dispatch().unwrap().sequence();
                        slow(delivery);
                        (own, sequence)
                    });
                    let (_own, sequence) = reading.await.unwrap();
                    (Instant::now(), sequence)
                }
            };
            let sessions = end.begin_and_await(&keeper).await;
            assert!(asked.elapsed() >= Duration::from_secs(6), "{end:?}: {:?}", asked.elapsed());
            assert!(asked.elapsed() < Duration::from_secs(7), "{end:?}: {:?}", asked.elapsed());
            assert_eq!(sessions[0].sequence, sequence, "{end:?}, {reads_on}");
        }
    }
}

/// The wait for the shutdown was dropped, so the held delivery counts as being handled again.
#[tokio::test(start_paused = true)]
async fn an_end_that_is_not_awaited_any_more_waits_for_what_its_asker_has_in_hand() {
    let running = Running::start(simulator(1, |_| {})).await;
    drop(running.events);
    let mut own = running.keeper.subscribe(Topic::all());
    running.simulator.emit(0, 1);
    let in_hand = own.next().await.unwrap();
    let sequence = in_hand.dispatch().unwrap().sequence();
    let start = Instant::now();
    assert!(timeout(Duration::from_millis(500), running.keeper.detach()).await.is_err());
    let detaching = running.keeper.detach();
    sleep(Duration::from_secs(4)).await;
    drop(in_hand);
    let sessions = detaching.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(sessions[0].sequence, sequence);
}

#[tokio::test(start_paused = true)]
async fn shards_can_be_removed_for_good() {
    let mut running = Running::start(simulator(3, |_| {})).await;
    let sessions = running.keeper.remove_shards_with([ShardId(1)], ShutdownMode::Stop).await.unwrap();
    assert_eq!(sessions, []);
    running.simulator.wait_until(|report| report.ready_sessions == 2).await;
    assert_eq!(running.keeper.sessions().await.unwrap().len(), 2);
    running.keeper.add_shards([ShardId(1)], []).await.unwrap();
    running.until_shard(1, |change| matches!(change, shardkeeper::status::Change::Ready)).await;
    assert_eq!((running.simulator.report().identifies, running.simulator.report().resumes), (4, 0));
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn when_there_is_no_room_to_read_on_whoever_waits_for_members_learns_the_cause() {
    let running = Running::start(simulator(1, |config| config.guilds = 1)).await;
    let mut own = running.keeper.subscribe_with(Topic::all(), lossless(1)).named("own");
    running.simulator.emit(0, 10_000);
    let in_hand = own.next().await.unwrap();
    let start = Instant::now();
    let error = running.keeper.members(RequestMembers::all(GUILD)).await.unwrap_err();
    assert!(
        matches!(&error, MembersError::HeldUp { shard: SHARD, subscription } if *subscription == own.label())
    );
    assert!(error.to_string().contains("subscription \"own\" (tests/scenarios/held_up.rs"), "{error}");
    assert!(start.elapsed() <= Duration::from_secs(10), "{:?}", start.elapsed());
    drop(in_hand);
    // The limit applies: the subscription does not hold all events.
    let held = running.keeper.shard_status(SHARD).await.unwrap();
    assert!((4000..5000).contains(&held.dispatches), "{}", held.dispatches);
    let mut read = 1;
    while read < 10_000 {
        read += usize::from(own.next().await.unwrap().dispatch().is_some());
    }
}
