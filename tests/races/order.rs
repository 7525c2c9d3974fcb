//! Subscribers receive events in a meaningful order.

use shardkeeper::status::Change;
use shardkeeper::{Lifecycle, Topic};
use shardkeeper_tests::races::repeat;

#[test]
fn all_ready_comes_after_each_shard_has_said_so() {
    repeat(200, |round| async move {
        let simulator = round.simulator(4, |_| {});
        let builder = round.bot(&simulator);
        let mut lifecycle = builder.subscribe(Topic::lifecycle());
        let keeper = builder.start().await.unwrap();
        let mut ready = 0;
        loop {
            match lifecycle.next().await.unwrap().lifecycle().unwrap() {
                Lifecycle::Shard { change: Change::Ready, .. } => ready += 1,
                Lifecycle::AllReady { .. } => break,
                _ => {}
            }
        }
        assert_eq!(ready, 4, "AllReady comes after each shard is ready");
        keeper.stop().await;
    });
}
