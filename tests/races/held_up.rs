//! Subscribers that wait for an answer, panic, or end the bot, while shards publish on other threads.

use std::time::Duration;

use shardkeeper::command::RequestMembers;
use shardkeeper::{
    Builder, Event, Lifecycle, Overflow, ShardId, Shardkeeper, Subscription, SubscriptionOptions, Topic,
};
use shardkeeper_tests::races::repeat;
use tokio::time::Instant;

const GUILD: u64 = 281_474_976 << 22;

/// Starts the bot, and waits until all shards are ready.
async fn ready(builder: Builder) -> Shardkeeper {
    let mut lifecycle = builder.subscribe(Topic::lifecycle());
    let keeper = builder.start().await.unwrap();
    while !matches!(&*lifecycle.next().await.unwrap(), Event::Lifecycle(Lifecycle::AllReady { .. })) {}
    keeper
}

fn lossless(keeper: &Shardkeeper, capacity: usize) -> Subscription {
    let options = SubscriptionOptions { capacity, overflow: Overflow::Wait };
    keeper.subscribe_with(Topic::all(), options)
}

#[test]
fn members_can_be_awaited_in_the_loop_that_reads_their_chunks() {
    repeat(40, |round| async move {
        let simulator = round.simulator(1, |config| {
            config.guilds = 1;
            config.large_guild_members = 3500;
        });
        let keeper = ready(round.bot(&simulator)).await;
        let mut own = lossless(&keeper, round.rng().usize(1..70));
        simulator.emit(0, 300);
        let in_hand = own.next().await.unwrap();
        let all = keeper.members(RequestMembers::all(GUILD)).await.unwrap();
        // Members join and leave with the traffic, so the number varies.
        assert!((3400..3600).contains(&all.raw_members.len()), "{}", all.raw_members.len());
        drop(in_hand);
        let (mut chunks, mut last) = (0, 0);
        while chunks < 4 {
            let delivery = own.next().await.unwrap();
            let dispatch = delivery.dispatch().unwrap();
            assert!(dispatch.sequence() > last, "each event comes once and in order");
            last = dispatch.sequence();
            chunks += usize::from(dispatch.name() == "GUILD_MEMBERS_CHUNK");
        }
        keeper.stop().await;
    });
}

#[test]
fn an_end_in_the_loop_that_reads_is_as_fast_as_its_reader() {
    repeat(60, |round| async move {
        let simulator = round.simulator(2, |_| {});
        let keeper = ready(round.bot(&simulator)).await;
        let mut own = lossless(&keeper, round.rng().usize(1..20));
        (0..2).for_each(|shard| simulator.emit(shard, 100));
        let (mut read, mut detaching) = (0, None);
        let at = round.rng().usize(1..100);
        let start = tokio::time::Instant::now();
        while let Some(delivery) = own.next().await {
            read += 1;
            if read == at {
                // The subscriber detaches while it still holds a delivery.
                detaching = Some(keeper.detach());
            }
            round.stir().await;
            drop(delivery);
        }
        assert_eq!(detaching.unwrap().await.unwrap().len(), 2);
        // The detach finishes at once; the shutdown timeout would take ten seconds.
        assert!(start.elapsed().as_secs() < 8, "{:?}", start.elapsed());
    });
}

#[test]
fn an_end_awaited_with_a_delivery_in_hand_goes_on_without_it_alone() {
    repeat(6, |round| async move {
        let simulator = round.simulator(2, |_| {});
        let keeper = ready(round.bot(&simulator)).await;
        let mut own = lossless(&keeper, round.rng().usize(1..150));
        let mut other = lossless(&keeper, 1000);
        (0..2).for_each(|shard| simulator.emit(shard, 100));
        let (at, slow) = (round.rng().usize(1..100), round.rng().bool());
        let others_work = Duration::from_millis(if slow { 3000 } else { 0 });
        // Another task holds a delivery for a while, and then reads on.
        let reading = tokio::spawn(async move {
            let in_hand = other.next().await.unwrap();
            tokio::time::sleep(others_work).await;
            drop(in_hand);
            while other.next().await.is_some() {}
        });
        for _ in 1..at {
            round.stir().await;
            drop(own.next().await);
        }
        let in_hand = own.next().await.unwrap();
        let (shard, sequence) = in_hand.dispatch().map(|it| (it.shard(), it.sequence())).unwrap();
        let start = Instant::now();
        let sessions = match round.rng().bool() {
            true => keeper.detach().await.unwrap(),
            false => keeper.remove_shards([ShardId(0), ShardId(1)]).await.unwrap(),
        };
        // The detach finishes at once; the shutdown timeout would take ten seconds.
        assert!(start.elapsed().as_secs() < 8, "{:?}", start.elapsed());
        let session = sessions.iter().find(|session| session.shard == shard).unwrap();
        assert_eq!(
            session.sequence,
            sequence - 1,
            "everything before was acknowledged, the delivery still held was not"
        );
        drop(in_hand);
        reading.abort();
        keeper.stop().await;
    });
}

#[test]
fn what_a_subscriber_has_when_it_panics_is_not_acknowledged() {
    repeat(60, |round| async move {
        let simulator = round.simulator(1, |_| {});
        let keeper = ready(round.bot(&simulator)).await;
        let mut own = lossless(&keeper, 1000);
        let mut other = lossless(&keeper, 1000);
        simulator.emit(0, 100);
        let stirring = round.clone();
        let panicking = tokio::spawn(async move {
            for _ in 0..5 {
                stirring.stir().await;
                drop(own.next().await);
            }
            let in_hand = own.next().await.unwrap();
            stirring.stir().await;
            let sequence = in_hand.dispatch().unwrap().sequence();
            std::panic::panic_any(sequence);
        });
        for _ in 0..100 {
            drop(other.next().await);
        }
        let sequence = *panicking.await.unwrap_err().into_panic().downcast::<u64>().unwrap();
        // The shutdown must not wait for a subscriber that no longer exists.
        let sessions = keeper.detach();
        drop(other);
        assert_eq!(sessions.await.unwrap()[0].sequence, sequence - 1);
    });
}
