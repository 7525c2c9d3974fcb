//! Resharding while events come: nothing is lost, nothing comes twice, and each guild's events keep their order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shardkeeper::command::VoiceStateUpdate;
use shardkeeper::config::{ReshardPolicy, ReshardRequest, ReshardTarget, ShardCount, VoicePolicy};
use shardkeeper::error::{ReshardRejected, ShardChangeError};
use shardkeeper::status::{GroupPhase, HaltReason, Phase, Role};
use shardkeeper::store::MemoryStore;
use shardkeeper::{
    Builder, Event, EventName, Lifecycle, Shardkeeper, Subscription, SubscriptionOptions, Topic,
};
use shardkeeper_sim::{Action, SimConfig, Simulator, Traces, WorldDelivery};
use shardkeeper_tests::{bot, simulator};
use tokio::time::{Instant, timeout};

/// Longest wait of a scenario, in virtual time.
const PATIENCE: Duration = Duration::from_secs(300);

fn count(count: u32) -> ShardCount {
    ShardCount::new(count).unwrap()
}

/// A simulator in which an event is the same in every session that receives it.
fn world(shards: u32, configure: impl FnOnce(&mut SimConfig)) -> Simulator {
    simulator(shards, |config| {
        config.traces = Traces::World { repeating: Vec::new() };
        config.max_concurrency = 16;
        config.guilds = 60;
        config.events_per_second = 200.0;
        configure(config);
    })
}

/// A bot under traffic, whose dispatches are reported to the simulator as they come.
struct Bot {
    simulator: Simulator,
    keeper: Shardkeeper,
    lifecycle: Subscription,
    /// The lifecycle so far, a line each.
    log: Arc<Mutex<Vec<String>>>,
}

impl Bot {
    async fn start(simulator: &Simulator, shards: u32) -> Self {
        Self::start_with(simulator, bot(simulator).shards(shards)).await
    }

    async fn start_with(simulator: &Simulator, builder: Builder) -> Self {
        let options = SubscriptionOptions { capacity: 1 << 12, ..SubscriptionOptions::default() };
        let mut events = builder.subscribe_with(Topic::all(), options);
        let mut lines = builder.subscribe_with(Topic::lifecycle(), options);
        let lifecycle = builder.subscribe_with(Topic::lifecycle(), options);
        let keeper = builder.start().await.unwrap();
        let observer = simulator.clone();
        tokio::spawn(async move {
            while let Some(delivery) = events.next().await {
                if let Event::Dispatch(dispatch) = &*delivery {
                    let marked = dispatch.is_replayed() || dispatch.may_repeat();
                    observer.observe_event(dispatch.name(), dispatch.data(), marked);
                }
            }
        });
        let log = Arc::new(Mutex::new(Vec::new()));
        let (written, start) = (Arc::clone(&log), Instant::now());
        tokio::spawn(async move {
            while let Some(delivery) = lines.next().await {
                if let Some(change) = delivery.lifecycle() {
                    written.lock().unwrap().push(format!("{:.2?} {change}", start.elapsed()));
                }
            }
        });
        let mut bot = Self { simulator: simulator.clone(), keeper, lifecycle, log };
        bot.until(|change| matches!(change, Lifecycle::AllReady { .. })).await;
        simulator.start_traffic();
        bot.traffic(5).await;
        bot
    }

    /// Reads until a change matches, and returns it.
    async fn until(&mut self, mut matches: impl FnMut(&Lifecycle) -> bool) -> Lifecycle {
        let reading = async {
            loop {
                let delivery = self.lifecycle.next().await.expect("the bot runs");
                if let Some(change) = delivery.lifecycle().filter(|change| matches(change)) {
                    return change.clone();
                }
            }
        };
        let found = timeout(PATIENCE, reading).await;
        found.unwrap_or_else(|_| panic!("does not come: {:#?}", self.log.lock().unwrap()))
    }

    async fn until_phase(&mut self, phase: GroupPhase) {
        self.until(|change| matches!(change, Lifecycle::ReshardGroup { phase: now, .. } if *now == phase))
            .await;
    }

    async fn until_finished(&mut self) -> Lifecycle {
        self.until(|change| matches!(change, Lifecycle::ReshardFinished { .. })).await
    }

    async fn traffic(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Checks that each event came once and in order, and that the bot has kept every rule.
    async fn check(&mut self) -> WorldDelivery {
        self.check_except(&[]).await
    }

    /// The same, for a scenario in which these rules are broken on purpose.
    async fn check_except(&mut self, rules: &[&str]) -> WorldDelivery {
        self.traffic(5).await;
        self.simulator.stop_traffic();
        self.traffic(5).await;
        let delivery = self.simulator.world_delivery();
        let log = self.log.lock().unwrap();
        assert!(delivery.happened > 1000, "{delivery:?}");
        let wrong = (delivery.lost, delivery.excused, delivery.doubled, delivery.out_of_order);
        assert_eq!(wrong, (0, 0, 0, 0), "{delivery:?} {log:#?}");
        let report = self.simulator.report();
        let broken = report.violations.iter().filter(|violation| !rules.contains(&violation.rule));
        assert_eq!(broken.count(), 0, "{:?} {log:#?}", report.violations);
        delivery
    }

    /// The shards that run, with their generation, all of which serve guilds.
    async fn shards(&self) -> Vec<(u32, u32)> {
        let status = self.keeper.status().await.unwrap();
        assert!(status.shards.iter().all(|shard| shard.role == Role::Active && shard.phase == Phase::Ready));
        status.shards.iter().map(|shard| (shard.shard.0, shard.generation)).collect()
    }
}

async fn reshards(from: u32, to: u32) {
    let simulator = world(from, |_| {});
    let mut bot = Bot::start(&simulator, from).await;
    let target = if from == to { ReshardTarget::Same } else { ReshardTarget::Count(count(to)) };
    let plan = bot.keeper.reshard(ReshardRequest::new(target)).await.unwrap();
    assert_eq!((plan.count, plan.next_count, plan.forecast.identifies), (count(from), count(to), to));
    bot.until_finished().await;
    bot.check().await;
    assert_eq!(bot.shards().await, (0..to).map(|shard| (shard, 2)).collect::<Vec<_>>());
    assert_eq!(simulator.report().identifies, u64::from(from + to));
    assert!(bot.keeper.status().await.unwrap().reshard.is_none());
    bot.keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn four_shards_become_eight() {
    reshards(4, 8).await;
}

#[tokio::test(start_paused = true)]
async fn eight_shards_become_four() {
    reshards(8, 4).await;
}

#[tokio::test(start_paused = true)]
async fn four_shards_become_six() {
    reshards(4, 6).await;
}

#[tokio::test(start_paused = true)]
async fn six_shards_become_six_with_new_sessions() {
    reshards(6, 6).await;
}

#[tokio::test(start_paused = true)]
async fn five_shards_become_seven_in_one_group() {
    reshards(5, 7).await;
}

#[tokio::test(start_paused = true)]
async fn an_abort_before_the_take_over_leaves_the_old_shards_as_they_were() {
    let simulator = world(4, |_| {});
    let mut bot = Bot::start(&simulator, 4).await;
    bot.keeper.reshard(ReshardRequest::to(count(8))).await.unwrap();
    bot.until_phase(GroupPhase::Warming).await;
    assert_eq!(bot.keeper.add_shards([0], []).await, Err(ShardChangeError::Resharding));
    assert_eq!(bot.keeper.remove_shards([0]).await.unwrap_err(), ShardChangeError::Resharding);
    let again = bot.keeper.reshard(ReshardRequest::to(count(6))).await;
    assert_eq!(again.unwrap_err(), ReshardRejected::AlreadyRunning { count: count(4), next: count(8) });
    bot.keeper.abort_reshard().await.unwrap();
    let over = bot.until(|change| matches!(change, Lifecycle::ReshardWithdrawn { .. })).await;
    assert_eq!(over, Lifecycle::ReshardWithdrawn { count: count(4), reason: HaltReason::Aborted });
    bot.check().await;
    assert_eq!(bot.shards().await, [(0, 1), (1, 1), (2, 1), (3, 1)]);
    assert_eq!(bot.keeper.abort_reshard().await, Err(ReshardRejected::NotRunning));
    bot.keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn gw_246_a_count_that_discord_refuses_leaves_the_old_shards_running() {
    let simulator = world(4, |_| {});
    let mut bot = Bot::start(&simulator, 4).await;
    let only_fives =
        Action::Sharding { least_shards: None, max_guilds_per_shard: None, shard_multiple: Some(5) };
    simulator.act(&only_fives).unwrap();
    bot.keeper.reshard(ReshardRequest::to(count(6))).await.unwrap();
    let over = bot.until(|change| matches!(change, Lifecycle::ReshardWithdrawn { .. })).await;
    assert!(over.to_string().contains("4010"), "{over}");
    bot.check_except(&["GW-235"]).await;
    assert_eq!(bot.shards().await.len(), 4);
    bot.keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reshard_pauses_between_groups_and_goes_on() {
    let simulator = world(4, |_| {});
    let mut bot = Bot::start(&simulator, 4).await;
    let dry = bot.keeper.reshard(ReshardRequest::to(count(8)).dry_run()).await.unwrap();
    assert_eq!(dry.groups.len(), 4);
    assert!(bot.keeper.status().await.unwrap().reshard.is_none(), "only planned");
    bot.keeper.reshard(ReshardRequest::to(count(8))).await.unwrap();
    bot.until_phase(GroupPhase::Draining).await;
    bot.keeper.pause_reshard().await.unwrap();
    bot.until_phase(GroupPhase::Retired).await;
    bot.traffic(60).await;
    let status = bot.keeper.status().await.unwrap().reshard.unwrap();
    assert!(status.paused && status.group.is_none());
    assert_eq!((status.done, status.groups), (1, 4));
    let mut shards = bot.shards().await;
    shards.sort();
    assert_eq!(shards, [(0, 2), (1, 1), (2, 1), (3, 1), (4, 2)]);
    bot.keeper.resume_reshard().await.unwrap();
    bot.until_finished().await;
    bot.check().await;
    assert_eq!(bot.shards().await.len(), 8);
    bot.keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn gw_238_a_group_waits_for_the_budget_of_the_next_period() {
    let simulator = world(2, |config| config.identify_total = 20);
    let policy = ReshardPolicy::off();
    let mut bot = Bot::start_with(&simulator, bot(&simulator).shards(2).reshard(policy)).await;
    simulator.stop_traffic();
    let limits = Action::Limits { shards: None, max_concurrency: None, remaining: Some(12) };
    simulator.act(&limits).unwrap();
    // Half of 20 stay in reserve, so only the first group of two fits into what is left.
    let plan = bot.keeper.reshard(ReshardRequest::to(count(4))).await.unwrap();
    assert!(plan.forecast.waits_for_budget > Duration::from_secs(3600), "{plan}");
    bot.until_phase(GroupPhase::Retired).await;
    bot.traffic(60).await;
    let status = bot.keeper.status().await.unwrap();
    let reshard = status.reshard.unwrap();
    assert!(reshard.waits_for_budget, "{reshard:?} {:?} {:#?}", status.identify, bot.log.lock().unwrap());
    bot.keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_recommendation_is_followed_when_it_is_worth_it() {
    let simulator = world(4, |_| {});
    let builder = bot(&simulator).gateway_check_every(Duration::from_secs(60)).reshard(ReshardPolicy::on());
    let mut bot = Bot::start_with(&simulator, builder).await;
    let recommend = |shards| {
        let limits = Action::Limits { shards: Some(shards), max_concurrency: None, remaining: None };
        simulator.act(&limits).unwrap();
    };
    recommend(5);
    bot.until(|change| matches!(change, Lifecycle::MoreShardsAdvised { advised: 5, .. })).await;
    bot.traffic(1).await;
    assert!(bot.keeper.status().await.unwrap().reshard.is_none(), "50 % full");
    recommend(8);
    bot.until_finished().await;
    bot.check().await;
    assert_eq!(bot.shards().await.len(), 8);
    bot.keeper.stop().await;
}

/// A process that is killed in a phase is followed by another one, which goes on from the session store.
async fn is_killed_in(phase: GroupPhase) {
    let simulator = world(4, |_| {});
    let store = Arc::new(MemoryStore::default());
    let process = || bot(&simulator).shards(4).session_store(store.clone());
    let mut first = Bot::start_with(&simulator, process()).await;
    first.keeper.reshard(ReshardRequest::to(count(8))).await.unwrap();
    first.until_phase(phase).await;
    first.traffic(1).await;
    first.keeper.manager().kill();
    first.keeper.wait().await.unwrap_err();
    let mut second = Bot::start_with(&simulator, process()).await;
    second.until_finished().await;
    second.traffic(5).await;
    simulator.stop_traffic();
    second.traffic(5).await;
    let delivery = simulator.world_delivery();
    let log = second.log.lock().unwrap().clone();
    assert_eq!((delivery.lost, delivery.excused), (0, 0), "{delivery:?} {log:#?}");
    assert_eq!(delivery.doubled, delivery.doubled_marked, "{delivery:?} {log:#?}");
    assert_eq!(second.shards().await.len(), 8);
    // 4 at first, 8 for the new layout, and those of the group that was under way.
    let identifies = simulator.report().identifies;
    assert!((12..=14).contains(&identifies), "{identifies}");
    second.keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_killed_while_shards_warm_up_is_followed() {
    is_killed_in(GroupPhase::Warming).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_killed_after_a_take_over_is_followed() {
    is_killed_in(GroupPhase::Draining).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_killed_between_two_groups_is_followed() {
    is_killed_in(GroupPhase::Retired).await;
}

/// A bot that follows the recommendation, with four shards and eight recommended.
async fn recommended(simulator: &Simulator, check_every: Duration) -> Bot {
    let builder = bot(simulator).gateway_check_every(check_every).reshard(ReshardPolicy::on());
    let bot = Bot::start_with(simulator, builder).await;
    let limits = Action::Limits { shards: Some(8), max_concurrency: None, remaining: None };
    simulator.act(&limits).unwrap();
    bot
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_has_aborted_does_not_begin_again_by_itself() {
    let simulator = world(4, |_| {});
    let mut bot = recommended(&simulator, Duration::from_secs(60)).await;
    bot.until_phase(GroupPhase::Warming).await;
    bot.keeper.abort_reshard().await.unwrap();
    bot.until(|change| matches!(change, Lifecycle::ReshardWithdrawn { .. })).await;
    let identifies = simulator.report().identifies;
    bot.traffic(600).await;
    assert!(bot.keeper.status().await.unwrap().reshard.is_none());
    assert_eq!(simulator.report().identifies, identifies);
    bot.keeper.reshard(ReshardRequest::recommended()).await.unwrap();
    bot.until_finished().await;
    bot.check().await;
    bot.keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn gw_246_a_recommendation_that_discord_refuses_is_not_tried_again() {
    let simulator = world(4, |_| {});
    let only_fives =
        Action::Sharding { least_shards: None, max_guilds_per_shard: None, shard_multiple: Some(5) };
    let mut bot = recommended(&simulator, Duration::from_secs(60)).await;
    simulator.act(&only_fives).unwrap();
    bot.until(|change| matches!(change, Lifecycle::ReshardWithdrawn { .. })).await;
    let identifies = simulator.report().identifies;
    bot.traffic(600).await;
    assert!(bot.keeper.status().await.unwrap().reshard.is_none());
    assert_eq!(simulator.report().identifies, identifies);
    let limits = Action::Limits { shards: Some(10), max_concurrency: None, remaining: None };
    simulator.act(&limits).unwrap();
    bot.until_finished().await;
    bot.check_except(&["GW-235"]).await;
    bot.keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn to_look_at_a_plan_begins_nothing() {
    let simulator = world(4, |_| {});
    let mut bot = recommended(&simulator, Duration::from_secs(3600)).await;
    let plan = bot.keeper.reshard(ReshardRequest::recommended().dry_run()).await.unwrap();
    assert_eq!(plan.next_count, count(8));
    bot.traffic(60).await;
    assert!(bot.keeper.status().await.unwrap().reshard.is_none());
    bot.check().await;
    assert_eq!(bot.shards().await.len(), 4);
    bot.keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_status_every_few_milliseconds_delays_no_take_over() {
    let simulator = world(4, |_| {});
    let mut bot = Bot::start(&simulator, 4).await;
    let keeper = bot.keeper.clone();
    let looking = tokio::spawn(async move {
        while keeper.status().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let start = Instant::now();
    bot.keeper.reshard(ReshardRequest::to(count(8))).await.unwrap();
    bot.until_finished().await;
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
    bot.check().await;
    bot.keeper.stop().await;
    looking.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reshard_right_after_another_one_waits_for_its_tail() {
    let simulator = world(2, |_| {});
    let mut bot = Bot::start(&simulator, 2).await;
    for next in [4, 2, 6] {
        bot.keeper.reshard(ReshardRequest::to(count(next))).await.unwrap();
        bot.until_finished().await;
    }
    bot.check().await;
    assert_eq!(bot.shards().await.len(), 6);
    bot.keeper.stop().await;
}

/// A guild of this shard of four, and a voice channel in it.
async fn voice_channel(mut guilds: Subscription, shard: u64) -> (u64, u64) {
    let id = |value: &serde_json::Value| value["id"].as_str().unwrap().parse::<u64>().unwrap();
    loop {
        let delivery = guilds.next().await.unwrap();
        let Event::Dispatch(dispatch) = &*delivery else { continue };
        let guild: serde_json::Value = dispatch.parse().unwrap();
        if (id(&guild) >> 22) % 4 == shard {
            let channels = guild["channels"].as_array().unwrap();
            return (id(&guild), id(channels.iter().find(|channel| channel["type"] == 2).unwrap()));
        }
    }
}

/// Reads until this shard tells the bot the voice server of its call in a guild.
async fn until_called(events: &mut Subscription, guild: u64, shard: u32) {
    let reading = async {
        loop {
            let delivery = events.next().await.unwrap();
            let Event::Dispatch(dispatch) = &*delivery else { continue };
            let server: serde_json::Value = dispatch.parse().unwrap();
            if dispatch.shard().0 == shard && server["guild_id"].as_str() == Some(&guild.to_string()) {
                return;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("the shard joins");
}

#[tokio::test(start_paused = true)]
async fn gw_244_the_new_shard_joins_the_voice_channel_before_the_old_one_closes() {
    for (voice, waits) in [
        (VoicePolicy::MoveAfter(Duration::from_secs(100)), true),
        (VoicePolicy::MoveAfter(Duration::ZERO), false),
    ] {
        let simulator = world(2, |_| {});
        let options = SubscriptionOptions { capacity: 1 << 12, ..SubscriptionOptions::default() };
        let mut policy = ReshardPolicy::off();
        policy.voice = voice;
        let builder = bot(&simulator).shards(2).reshard(policy);
        let guilds = builder.subscribe_with(Topic::events([EventName::GuildCreate]), options);
        let mut calls = builder.subscribe_with(Topic::events([EventName::VoiceServerUpdate]), options);
        let mut bot = Bot::start_with(&simulator, builder).await;
        let (guild, channel) = voice_channel(guilds, 3).await;
        bot.keeper.command(VoiceStateUpdate::join(guild, channel)).await.unwrap();
        until_called(&mut calls, guild, 1).await;
        let start = Instant::now();
        bot.keeper.reshard(ReshardRequest::to(count(4))).await.unwrap();
        until_called(&mut calls, guild, 3).await;
        assert_eq!(start.elapsed() > Duration::from_secs(100), waits, "{:?}", start.elapsed());
        bot.until_finished().await;
        bot.check().await;
        let notices = simulator.report().notices;
        assert!(notices.iter().all(|notice| notice.rule != "GW-244"), "{notices:?}");
        bot.keeper.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn gw_244_a_group_in_voice_comes_last_and_waits_for_the_end_of_the_call() {
    let simulator = world(2, |_| {});
    let mut policy = ReshardPolicy::off();
    policy.voice = VoicePolicy::Later;
    let builder = bot(&simulator).shards(2).reshard(policy);
    let options = SubscriptionOptions { capacity: 1 << 12, ..SubscriptionOptions::default() };
    let guilds = builder.subscribe_with(Topic::events([EventName::GuildCreate]), options);
    let mut bot = Bot::start_with(&simulator, builder).await;
    let (guild, channel) = voice_channel(guilds, 0).await;
    bot.keeper.command(VoiceStateUpdate::join(guild, channel)).await.unwrap().written().await.unwrap();
    bot.keeper.reshard(ReshardRequest::to(count(4))).await.unwrap();
    bot.until_phase(GroupPhase::Retired).await;
    bot.traffic(1200).await;
    let status = bot.keeper.status().await.unwrap().reshard.unwrap();
    assert_eq!((status.done, status.group), (1, None));
    bot.keeper.command(VoiceStateUpdate::leave(guild)).await.unwrap();
    bot.until_finished().await;
    bot.keeper.stop().await;
}
