//! First steps of a new user: how a bot reports its end, and typed subscriptions.

use std::time::Duration;

use futures_util::FutureExt;
use serde::Deserialize;
use shardkeeper::actor::{ManagerMessage, ShardMessage};
use shardkeeper::command::{PresenceUpdate, VoiceStateUpdate};
use shardkeeper::dispatch::TypedError;
use shardkeeper::error::{ExitError, StartError};
use shardkeeper::{
    EventModel, EventName, Intents, OnlineStatus, Overflow, Presence, ShardId, SubscriptionOptions, Topic,
};
use shardkeeper_sim::{Fault, RestFault};
use shardkeeper_tests::{Running, bot, bot_with, simulator};
use twilight_model::gateway::payload::incoming::{GuildCreate, MessageCreate};

#[tokio::test(start_paused = true)]
async fn a_bot_that_discord_refuses_says_so_when_it_ends() {
    let simulator = simulator(2, |config| config.allowed_intents = Intents::GUILDS.bits());
    let builder = bot_with(&simulator, Intents::GUILDS | Intents::MESSAGE_CONTENT);
    let mut events = builder.subscribe(Topic::all());
    let keeper = builder.start().await.unwrap();
    while events.next().await.is_some() {}
    let error = keeper.wait().await.unwrap_err();
    assert!(matches!(error, ExitError::Refused(refusal) if refusal.code.0 == 4014));
    let printed = format!("{error:?}");
    assert!(
        printed.contains("switch it on in the developer portal") && printed.ends_with(": MESSAGE_CONTENT"),
        "{printed}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_bot_that_is_shut_down_has_ended_well() {
    let running = Running::start(simulator(1, |_| {})).await;
    assert!(running.keeper.wait().now_or_never().is_none());
    running.keeper.stop().await;
    assert_eq!(running.keeper.wait().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_has_a_timeout_says_why_the_gateway_did_not_answer() {
    for (fault, why) in [
        (RestFault::Garbage, "did not answer as the Discord API: check the API URL"),
        (RestFault::Hang, "did not answer within 15 s"),
    ] {
        let simulator = simulator(1, |_| {});
        simulator.arm_rest(fault, usize::MAX);
        let builder = bot(&simulator).start_timeout(Duration::from_secs(30));
        let mut events = builder.subscribe(Topic::all());
        let error = builder.start().await.unwrap_err();
        assert!(matches!(error, StartError::Unreachable { .. }));
        let printed = format!("{error:?}");
        assert!(
            printed.starts_with("no answer from the gateway within 30s: ") && printed.contains(why),
            "{printed}"
        );
        assert!(events.next().await.is_none());
    }
}

/// A type of the bot's own with a single field of a message.
#[derive(Deserialize)]
struct Written {
    channel_id: String,
}

impl EventModel for Written {
    const EVENT: EventName = EventName::MessageCreate;
}

/// A type that fits no message.
#[derive(Deserialize)]
struct Misfit {
    #[serde(rename = "channel_id")]
    _channel_id: bool,
}

impl EventModel for Misfit {
    const EVENT: EventName = EventName::MessageCreate;
}

#[tokio::test(start_paused = true)]
async fn a_typed_subscription_yields_twilights_models_and_the_bots_own_types() {
    let simulator = simulator(1, |_| {});
    let builder = bot(&simulator);
    let mut guilds = builder.subscribe_to::<GuildCreate>();
    let running = Running::start_with(simulator, builder).await;
    let guild = guilds.next().await.unwrap().unwrap();
    assert!(matches!(&*guild, GuildCreate::Available(guild) if !guild.name.is_empty()));
    assert_eq!((guild.dispatch().shard().0, guild.dispatch().name()), (0, "GUILD_CREATE"));

    let mut messages = running.keeper.subscribe_to::<MessageCreate>();
    let mut written = running.keeper.subscribe_to::<Written>();
    let mut misfits = running.keeper.subscribe_to::<Misfit>();
    running.simulator.emit(0, 200);
    for _ in 0..5 {
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!(message.channel_id.to_string(), written.next().await.unwrap().unwrap().channel_id);
        let error = misfits.next().await.unwrap().unwrap_err();
        let printed = format!("{error:?}");
        assert!(printed.starts_with("MESSAGE_CREATE of ") && printed.contains("Misfit"), "{printed}");
        let TypedError::Malformed { delivery, .. } = error else { panic!("{printed}") };
        assert_eq!(delivery.dispatch().unwrap().data(), message.dispatch().data());
    }
    running.keeper.stop().await;
    while messages.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_typed_subscription_tells_what_it_lost() {
    let running = Running::start(simulator(1, |_| {})).await;
    let options = SubscriptionOptions { capacity: 1, overflow: Overflow::DropOldest };
    let topic = Topic::events([EventName::MessageCreate, EventName::TypingStart]).with_lifecycle();
    let mut messages = running.keeper.subscribe_with(topic, options).typed::<Written>();
    running.simulator.emit(0, 200);
    running.keeper.stop().await;
    match messages.next().await {
        Some(Err(TypedError::Lagged { missed })) => assert!(missed > 10, "{missed}"),
        other => panic!("{other:?}"),
    }
    // Other events of the topic are skipped.
    assert!(messages.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_typed_delivery_is_acknowledged_by_being_dropped() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let mut messages = running.keeper.subscribe_to::<Written>();
    running.simulator.emit(0, 50);
    let held = messages.next().await.unwrap().unwrap();
    running.simulator.inject(0, Fault::Reconnect).unwrap();
    running.until_resumed(0).await;
    while running.events.next().now_or_never().is_some() {}
    while messages.next().now_or_never().is_some() {}
    let before = held.dispatch().sequence();
    assert!(running.keeper.sessions().await.unwrap()[0].sequence < before);
    drop(held);
    assert!(running.keeper.sessions().await.unwrap()[0].sequence > before + 10);
}

#[tokio::test(start_paused = true)]
async fn messages_without_an_answer_are_carried_out() {
    let running = Running::start(simulator(1, |_| {})).await;
    let guild = 281_474_976 << 22;
    let shard = running.keeper.shard(ShardId(0)).await.unwrap();
    let presence = PresenceUpdate::new(Presence::new(OnlineStatus::Dnd)).unwrap();
    shard.cast(ShardMessage::command(VoiceStateUpdate::leave(guild))).unwrap();
    running.keeper.manager().cast(ManagerMessage::command(VoiceStateUpdate::leave(guild))).unwrap();
    running.keeper.manager().cast(ManagerMessage::presence(None, presence)).unwrap();
    running
        .simulator
        .wait_until(|report| report.commands >= 3 && report.presences[&0]["status"] == "dnd")
        .await;
    running.no_violations();
}
