//! Stop and detach, while others call.

use shardkeeper::Ended;
use shardkeeper_tests::races::repeat;

#[test]
fn a_stop_at_any_moment_of_a_start_is_answered() {
    repeat(100, |round| async move {
        let simulator = round.simulator(4, |_| {});
        let keeper = round.bot(&simulator).start().await.unwrap();
        round.stir().await;
        keeper.stop().await;
        assert_eq!(keeper.ended().await, Ended::Stopped);
        assert_eq!(simulator.report().violations, []);
    });
}
