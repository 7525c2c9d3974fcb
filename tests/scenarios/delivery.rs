//! Subscriptions: order, limits, overflow policies, and shards that wait for slow subscribers.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use shardkeeper::{Delivery, Event, EventName, Overflow, SubscriptionOptions, Topic};
use shardkeeper_tests::{Running, bot, eventually, in_both_worlds, simulator};
use tokio::sync::mpsc;

fn options(capacity: usize, overflow: Overflow) -> SubscriptionOptions {
    SubscriptionOptions { capacity, overflow }
}

#[tokio::test(start_paused = true)]
async fn topics_bring_what_they_name() {
    let mut running = Running::start(simulator(2, |_| {})).await;
    let mut messages = running.keeper.subscribe(Topic::events([EventName::MessageCreate]));
    running.simulator.emit(0, 200);
    running.check().await;
    assert!(messages.backlog() > 20);
    while messages.backlog() > 0 {
        let delivery = messages.next().await.unwrap();
        assert_eq!(delivery.dispatch().unwrap().event_name(), Some(EventName::MessageCreate));
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_of_guilds_brings_theirs_alone_and_one_of_intents_what_they_bring() {
    let simulator = simulator(2, |_| {});
    let builder = bot(&simulator);
    let guild = 281_474_976_u64 << 22;
    let mut of_guild = builder.subscribe(Topic::all().of_guilds([guild]));
    let mut voice = builder.subscribe(Topic::intents(shardkeeper::Intents::GUILD_VOICE_STATES));
    let mut running = Running::start_with(simulator, builder).await;
    for shard in 0..2 {
        running.simulator.emit(shard, 200);
    }
    running.check().await;
    running.keeper.stop().await;
    let mut count = 0;
    while let Some(event) = of_guild.next().await {
        let dispatch = event.dispatch().unwrap();
        let data: serde_json::Value = dispatch.parse().unwrap();
        let id = if dispatch.name().starts_with("GUILD_CREATE") { &data["id"] } else { &data["guild_id"] };
        let id = if dispatch.name() == "GUILD_UPDATE" { &data["id"] } else { id };
        assert_eq!(*id, guild.to_string(), "{}", dispatch.name());
        count += 1;
    }
    assert!((50..200).contains(&count), "about a quarter of all: {count}");
    let mut names = std::collections::BTreeSet::new();
    while let Some(event) = voice.next().await {
        names.insert(event.dispatch().unwrap().name().to_owned());
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["VOICE_STATE_UPDATE"]);
}

#[tokio::test(start_paused = true)]
async fn a_dispatch_parses_into_what_the_subscriber_wants() {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        channel_id: &'a str,
    }
    let mut running = Running::start(simulator(1, |_| {})).await;
    let mut messages = running.keeper.subscribe(Topic::events([EventName::MessageCreate]));
    running.simulator.emit(0, 100);
    running.check().await;
    let delivery = messages.next().await.unwrap();
    let dispatch = delivery.dispatch().unwrap();
    assert!(dispatch.parse::<Message<'_>>().unwrap().channel_id.parse::<u64>().is_ok());
    assert!(dispatch.parse::<Vec<u8>>().is_err(), "an error, and nothing else happens");
}

#[tokio::test(start_paused = true)]
async fn a_lossless_subscriber_that_stalls_for_five_minutes_loses_nothing_and_costs_no_session() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let slow = running.keeper.subscribe_with(Topic::all(), options(10, Overflow::Wait));
    let heartbeats = running.simulator.report().heartbeats;
    running.simulator.emit(0, 2000);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(slow.backlog(), 10);
    let report = running.simulator.report();
    assert!(
        report.heartbeats >= heartbeats + 6,
        "heartbeats went on: {} after {heartbeats}",
        report.heartbeats
    );
    // The slow subscriber reads on and receives everything.
    let mut slow = slow;
    let reader = tokio::spawn(async move {
        let mut read = 0;
        while read < 2000 {
            match &*slow.next().await.unwrap() {
                Event::Dispatch(_) => read += 1,
                event => panic!("{event:?}"),
            }
        }
    });
    running.check().await;
    reader.await.unwrap();
    let report = running.simulator.report();
    assert_eq!((report.identifies, report.resumes), (1, 0), "the session lived");
}

/// What a subscriber receives after not reading for five minutes, at 10 events per second. Returns how many
/// events were held for it, their bytes, how many it read, how many it missed, and the heartbeats meanwhile.
async fn stalled(overflow: Overflow) -> (usize, usize, u64, u64, u64) {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let mut slow = running.keeper.subscribe_with(Topic::all(), options(100, overflow));
    let heartbeats = running.simulator.report().heartbeats;
    for _ in 0..300 {
        running.simulator.emit(0, 10);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let heartbeats = running.simulator.report().heartbeats - heartbeats;
    let held = slow.backlog();
    let reader = tokio::spawn(async move {
        let (mut bytes, mut read, mut missed) = (0, 0, 0);
        while let Some(delivery) = slow.next().await {
            match &*delivery {
                Event::Dispatch(dispatch) => {
                    bytes += if read < 100 { dispatch.data().len() } else { 0 };
                    read += 1;
                }
                Event::Lagged { missed: more } => missed += more,
                event => panic!("{event:?}"),
            }
        }
        (bytes, read, missed)
    });
    running.check().await;
    let report = running.simulator.report();
    assert_eq!((report.identifies, report.resumes), (1, 0), "the session lived");
    running.keeper.stop().await;
    let (bytes, read, missed) = reader.await.unwrap();
    (held, bytes, read, missed, heartbeats)
}

#[tokio::test(start_paused = true)]
async fn under_any_policy_a_stalled_subscriber_costs_bounded_memory_and_no_session() {
    for overflow in [Overflow::Wait, Overflow::DropOldest, Overflow::DropNewest] {
        let (held, bytes, read, missed, heartbeats) = stalled(overflow).await;
        assert_eq!(held, 100, "{overflow:?}");
        assert!(bytes < 400_000, "{overflow:?} holds {bytes} bytes");
        assert!((6..=9).contains(&heartbeats), "{overflow:?}: {heartbeats} in five minutes");
        let expected = if overflow == Overflow::Wait { (3000, 0) } else { (100, 2900) };
        assert_eq!((read, missed), expected, "{overflow:?}: read and missed");
    }
}

#[test]
fn a_subscriber_that_never_reads_or_panics_stops_nobody_else() {
    in_both_worlds(|| async {
        let mut running = Running::start(simulator(1, |_| {})).await;
        let never_read = running.keeper.subscribe_with(Topic::all(), options(10, Overflow::DropNewest));
        let mut panics = running.keeper.subscribe(Topic::all());
        let panicked = tokio::spawn(async move {
            let delivery = panics.next().await.unwrap();
            panic!("on {delivery:?}");
        });
        let predicate = Topic::all().matching(|_| panic!("in the shard's own task"));
        let mut judged = running.keeper.subscribe(predicate);
        running.simulator.emit(0, 500);
        running.check().await;
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(never_read.backlog(), 10);
        for _ in 0..500 {
            drop(judged.next().await.unwrap());
        }
        let status = running.keeper.shard_status(shardkeeper::ShardId(0)).await.unwrap();
        assert_eq!((status.restarts, status.disconnects), (0, 0));
    });
}

#[tokio::test(start_paused = true)]
async fn subscribing_and_unsubscribing_changes_at_once_what_is_copied() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let typing = running.keeper.subscribe(Topic::events([EventName::TypingStart]));
    running.simulator.emit(0, 300);
    running.check().await;
    let before = typing.backlog();
    assert!(before > 0);
    let messages = running.keeper.subscribe(Topic::events([EventName::MessageCreate]));
    assert_eq!(messages.backlog(), 0, "nothing of what was before");
    running.simulator.emit(0, 300);
    running.check().await;
    assert!(messages.backlog() > 20 && typing.backlog() > before);
    // Dropping a full subscription lets the shard continue.
    drop((typing, messages));
    running.simulator.emit(0, 300);
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_while_a_subscriber_stalls_is_resumed_and_nothing_is_lost() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let mut slow = running.keeper.subscribe_with(Topic::all(), options(10, Overflow::Wait));
    running.simulator.emit(0, 1000);
    let shard = shardkeeper::ShardId(0);
    eventually(async || running.keeper.shard_status(shard).await.unwrap().reading_paused).await;
    running.simulator.inject(0, shardkeeper_sim::Fault::Cut).unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let connections = running.simulator.report().connections;
    assert!(connections <= 3, "no storm of connections: {connections}");
    let reader = tokio::spawn(async move { while slow.next().await.is_some() {} });
    running.until_resumed(0).await;
    running.check().await;
    assert_eq!(running.simulator.report().identifies, 1);
    running.keeper.stop().await;
    reader.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stalled_subscriber_that_goes_away_releases_the_shard() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let slow = running.keeper.subscribe_with(Topic::all(), options(1, Overflow::Wait));
    running.simulator.emit(0, 500);
    let shard = shardkeeper::ShardId(0);
    eventually(async || running.keeper.shard_status(shard).await.unwrap().reading_paused).await;
    drop(slow);
    running.check().await;
}

#[test]
fn subscribers_that_may_lose_learn_what_they_lost_and_stop_nobody() {
    in_both_worlds(|| async {
        let mut running = Running::start(simulator(1, |_| {})).await;
        for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
            let mut lossy = running.keeper.subscribe_with(Topic::all(), options(10, overflow));
            running.simulator.emit(0, 100);
            running.check().await;
            // The newest event may arrive here slightly later than in the other subscription.
            let (mut missed, mut sequences) = (0, Vec::new());
            while missed + sequences.len() as u64 != 100 {
                match &*lossy.next().await.unwrap() {
                    Event::Lagged { missed: more } => missed += more,
                    event => sequences.push(event.dispatch().unwrap().sequence()),
                }
            }
            assert!((10..=11).contains(&sequences.len()), "{sequences:?}");
            assert!(sequences.is_sorted());
            drop(lossy);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_a_subscriber_is_behind_delivers_everything() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let mut slow = running.keeper.subscribe_with(Topic::all(), options(10, Overflow::Wait));
    running.simulator.emit(0, 200);
    eventually(async || slow.backlog() == 10).await;
    let shard = running.keeper.shard(shardkeeper::ShardId(0)).await.unwrap();
    shard.cast(shardkeeper::actor::ShardMessage::CrashDrill).unwrap();
    let reader = tokio::spawn(async move {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 200 {
            if let Event::Dispatch(dispatch) = &*slow.next().await.unwrap()
                && dispatch.name() != "RESUMED"
            {
                seen.insert(dispatch.sequence());
            }
        }
    });
    running.until_resumed(0).await;
    reader.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_an_earlier_session_outlives_a_crash_since_nobody_sends_it_again() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let mut slow = running.keeper.subscribe_with(Topic::all(), options(1, Overflow::Wait));
    running.simulator.emit(0, 2);
    let mut sent = Vec::new();
    for _ in 0..2 {
        sent.push(running.next().await.dispatch().unwrap().data().to_vec());
    }
    running
        .keeper
        .restart_shard(shardkeeper::ShardId(0), shardkeeper::config::RestartBy::Identify)
        .await
        .unwrap();
    running.until_shard(0, |change| matches!(change, shardkeeper::status::Change::Ready)).await;
    let shard = running.keeper.shard(shardkeeper::ShardId(0)).await.unwrap();
    shard.cast(shardkeeper::actor::ShardMessage::CrashDrill).unwrap();
    running.until_shard(0, |change| matches!(change, shardkeeper::status::Change::Resuming { .. })).await;
    for data in sent {
        assert_eq!(slow.next().await.unwrap().dispatch().unwrap().data(), data);
    }
    assert_eq!(slow.next().await.unwrap().dispatch().unwrap().name(), "READY");
    drop(slow);
    running.until_resumed(0).await;
    running.no_violations();
}

#[tokio::test(start_paused = true)]
async fn what_a_subscription_has_not_read_is_acknowledged_when_it_goes_though_nothing_else_happens() {
    let simulator = simulator(2, |_| {});
    let builder = bot(&simulator);
    let mut ready = builder.subscribe(Topic::lifecycle());
    let unread = builder.subscribe(Topic::all());
    let keeper = builder.start().await.unwrap();
    let mut running = Running { simulator, keeper, events: unread };
    while !matches!(*ready.next().await.unwrap(), Event::Lifecycle(shardkeeper::Lifecycle::AllReady { .. })) {
    }
    let sequence = async || running.keeper.shard_status(shardkeeper::ShardId(0)).await.unwrap().sequence;
    let before = sequence().await;
    running.simulator.emit(0, 10);
    eventually(async || sequence().await >= before + 10).await;
    let sequence = sequence().await;
    assert!(running.keeper.sessions().await.unwrap()[0].sequence < sequence);
    running.events = running.keeper.subscribe(Topic::lifecycle());
    assert_eq!(running.keeper.sessions().await.unwrap()[0].sequence, sequence);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_begins_session_after_session_before_a_stalled_subscriber_holds_few_of_them() {
    let running = Running::start(simulator(1, |_| {})).await;
    let mut slow = running
        .keeper
        .subscribe_with(Topic::events([EventName::Ready]).with_lifecycle(), options(1, Overflow::Wait));
    for _ in 0..100 {
        running
            .keeper
            .restart_shard(shardkeeper::ShardId(0), shardkeeper::config::RestartBy::Identify)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(1800)).await;
    }
    let begun = running.simulator.report().identifies;
    assert!(begun > 50, "they do begin: {begun}");
    let reader = tokio::spawn(async move {
        let mut read = 0;
        while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(3600), slow.next()).await {
            read += u64::from(delivery.dispatch().is_some());
        }
        read
    });
    let read = reader.await.unwrap();
    assert!(read < 66, "{read} of {begun}");
    let status = running.keeper.shard_status(shardkeeper::ShardId(0)).await.unwrap();
    assert_eq!(status.phase, shardkeeper::status::Phase::Ready);
    running.no_violations();
}

#[test]
fn what_comes_again_after_a_crash_is_not_handed_over_before_it_is_acknowledged() {
    in_both_worlds(|| async {
        let mut running = Running::start(simulator(1, |_| {})).await;
        // A guild that arrives after READY would take the place of one of the two events.
        running.check().await;
        let mut slow = running.keeper.subscribe_with(Topic::all(), options(1, Overflow::Wait));
        running.simulator.emit(0, 2);
        for _ in 0..2 {
            drop(running.next().await);
        }
        // The subscription has the first event; the second waits for room, and is dropped with the driver.
        let shard = running.keeper.shard(shardkeeper::ShardId(0)).await.unwrap();
        shard.cast(shardkeeper::actor::ShardMessage::CrashDrill).unwrap();
        running.until_shard(0, |change| matches!(change, shardkeeper::status::Change::Resuming { .. })).await;
        let first = slow.next().await.unwrap().dispatch().unwrap().sequence();
        running.until_resumed(0).await;
        let sessions = running.keeper.sessions().await.unwrap();
        assert_eq!(sessions[0].sequence, first, "the second is in its queue, and not dealt with");
    });
}

#[tokio::test(start_paused = true)]
async fn announcements_wait_for_a_lossless_subscriber_too() {
    let running = Running::start(simulator(1, |_| {})).await;
    // The topic includes an event that never comes, because a subscription to only lifecycle changes may lose
    // them.
    let topic = Topic::events([EventName::EntitlementCreate]).with_lifecycle();
    let mut slow = running.keeper.subscribe_with(topic, options(1, Overflow::Wait));
    for _ in 0..3 {
        let shard = loop {
            match running.keeper.shard(shardkeeper::ShardId(0)).await {
                Ok(shard) => break shard,
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        };
        shard.cast(shardkeeper::actor::ShardMessage::CrashDrill).unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let mut crashes = 0;
    while crashes < 3 {
        match &*slow.next().await.unwrap() {
            Event::Lifecycle(shardkeeper::Lifecycle::Crashed { .. }) => crashes += 1,
            Event::Lagged { .. } => panic!("nothing is lost"),
            _ => {}
        }
    }
}

struct Slow {
    seen: mpsc::Sender<Delivery>,
}

struct SlowMessage(Delivery);

impl Actor for Slow {
    type Msg = SlowMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<SlowMessage>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<SlowMessage>,
        message: SlowMessage,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        // Keeping the delivery uses up the subscription's credit.
        self.seen.try_send(message.0).map_err(Into::into)
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_subscribes_has_only_so_many_deliveries_at_a_time() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let (seen, mut kept) = mpsc::channel(1000);
    let (actor, _) = Actor::spawn(None, Slow { seen }, ()).await.unwrap();
    running.keeper.subscribe_actor(Topic::all(), options(16, Overflow::DropNewest), actor, SlowMessage);
    running.simulator.emit(0, 100);
    running.check().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(kept.len() <= 16, "no more than its credit: {}", kept.len());
    // The rest waits in the mailbox up to its capacity; the events above it are reported as missed.
    let (mut dispatches, mut missed) = (0, 0);
    while dispatches + missed < 100 {
        let next = tokio::time::timeout(Duration::from_secs(60), kept.recv()).await;
        let next = next.expect("a delivery that was dropped makes room for the next one").unwrap();
        match next.into_event() {
            Event::Dispatch(_) => dispatches += 1,
            Event::Lagged { missed: count } => missed += count,
            event => panic!("{event:?}"),
        }
    }
    assert!((16..=32).contains(&dispatches), "{dispatches}");
}

#[test]
fn subscriptions_end_with_the_manager() {
    in_both_worlds(|| async {
        let mut running = Running::start(simulator(1, |_| {})).await;
        let mut early = running.keeper.subscribe(Topic::lifecycle());
        running.keeper.stop().await;
        while early.next().await.is_some() {}
        assert!(running.keeper.subscribe(Topic::all()).next().await.is_none());
        while running.events.next().await.is_some() {}
    });
}
