//! Presences.

use shardkeeper::{Activity, CommandRejected, Presence, PresenceUpdate, ShardId, ShardMessage, Status};
use shardkeeper_sim::Fault;
use shardkeeper_tests::{Running, bot, simulator};

fn playing(name: &str) -> Presence {
    Presence::new(Status::Online).activity(Activity::playing(name))
}

fn shows(simulator: &shardkeeper_sim::Simulator, shard: u32) -> Option<String> {
    let report = simulator.report();
    Some(report.presences.get(&shard)?["activities"][0]["name"].as_str()?.to_owned())
}

#[tokio::test(start_paused = true)]
async fn gw_197_a_presence_is_shown_from_identify_on_and_changed_on_every_shard() {
    let simulator = simulator(3, |_| {});
    let builder = bot(&simulator).presence(playing("first"));
    let running = Running::start_with(simulator, builder).await;
    assert!((0..3).all(|shard| shows(&running.simulator, shard).as_deref() == Some("first")));
    running.keeper.update_presence(playing("second")).await.unwrap();
    let all = |name: &'static str| {
        move |report: &shardkeeper_sim::Report| {
            (0..3).all(|shard| {
                report.presences.get(&shard).is_some_and(|presence| presence["activities"][0]["name"] == name)
            })
        }
    };
    running.simulator.wait_until(all("second")).await;
    running.no_violations();
}

#[tokio::test(start_paused = true)]
async fn b16_a_presence_survives_a_new_session_and_a_crash() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    running.keeper.update_presence(playing("kept")).await.unwrap();
    running.simulator.wait_until(|report| report.presences.contains_key(&0)).await;
    running.keeper.shard(ShardId(0)).await.unwrap().cast(ShardMessage::CrashDrill).unwrap();
    running.until_resumed(0).await;
    running.simulator.inject(0, Fault::InvalidSession { resumable: false }).unwrap();
    running.until_shard(0, |change| matches!(change, shardkeeper::Change::Ready)).await;
    assert_eq!(shows(&running.simulator, 0).as_deref(), Some("kept"));
    // One shard's own as well.
    running.keeper.update_shard_presence(ShardId(0), playing("own")).await.unwrap();
    running.keeper.shard(ShardId(0)).await.unwrap().cast(ShardMessage::CrashDrill).unwrap();
    running.until_resumed(0).await;
    running.simulator.inject(0, Fault::Close { code: 4009 }).unwrap();
    running.until_shard(0, |change| matches!(change, shardkeeper::Change::Ready)).await;
    assert_eq!(shows(&running.simulator, 0).as_deref(), Some("own"));
    running.no_violations();
}

#[tokio::test(start_paused = true)]
async fn gw_161_many_presences_keep_the_limit_and_the_last_one_wins() {
    let running = Running::start(simulator(1, |_| {})).await;
    for number in 0..50 {
        running.keeper.update_shard_presence(ShardId(0), playing(&format!("game {number}"))).await.unwrap();
    }
    running
        .simulator
        .wait_until(|report| {
            report.presences.get(&0).is_some_and(|presence| presence["activities"][0]["name"] == "game 49")
        })
        .await;
    running.no_violations();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_refused_with_the_reason() {
    let running = Running::start(simulator(2, |_| {})).await;
    let error = running.keeper.update_shard_presence(ShardId(2), playing("x")).await.unwrap_err();
    assert_eq!(error, CommandRejected::NoSuchShard { shard: ShardId(2) });
    let error = running.keeper.update_presence(playing(&"x".repeat(5000))).await.unwrap_err();
    assert!(error.to_string().ends_with("at most 3072 are possible"), "{error}");
    running.keeper.stop().await;
    assert_eq!(running.keeper.update_presence(playing("x")).await, Err(CommandRejected::ManagerEnded));
}

#[tokio::test(start_paused = true)]
async fn a_shards_actor_takes_presences_too() {
    let running = Running::start(simulator(1, |_| {})).await;
    let shard = running.keeper.shard(ShardId(0)).await.unwrap();
    let update = PresenceUpdate::new(playing("direct")).unwrap();
    let accepted = ractor::call!(shard, |reply| ShardMessage::UpdatePresence(update, reply)).unwrap();
    assert_eq!(accepted, Ok(()));
    running
        .simulator
        .wait_until(|report| {
            report.presences.get(&0).is_some_and(|presence| presence["activities"][0]["name"] == "direct")
        })
        .await;
}
