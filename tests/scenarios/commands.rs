//! Presences, and commands for guilds.

use shardkeeper::{
    Activity, ChannelInfoField, Command, CommandRejected, Event, Presence, PresenceUpdate, RequestMembers,
    ShardId, ShardMessage, Status, VoiceStateUpdate, request_channel_info, request_soundboard_sounds,
};
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

/// The next dispatch of this name, as JSON.
async fn until_event(running: &mut Running, name: &str) -> serde_json::Value {
    loop {
        if let Event::Dispatch(dispatch) = &*running.next().await
            && dispatch.name() == name
        {
            return dispatch.parse().unwrap();
        }
    }
}

fn id(value: &serde_json::Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_command_reaches_the_shard_of_its_guild_and_is_answered() {
    let simulator = simulator(3, |config| config.large_guild_members = 1500);
    let options = shardkeeper::SubscriptionOptions { capacity: 1 << 12, ..Default::default() };
    let builder = bot(&simulator);
    let mut guilds =
        builder.subscribe_with(shardkeeper::Topic::events([shardkeeper::EventName::GuildCreate]), options);
    let mut running = Running::start_with(simulator, builder).await;
    for _ in 0..6 {
        let Event::Dispatch(dispatch) = &*guilds.next().await.unwrap() else { panic!("a dispatch") };
        let guild: serde_json::Value = dispatch.parse().unwrap();
        let guild_id = id(&guild["id"]);
        let voice =
            guild["channels"].as_array().unwrap().iter().find(|channel| channel["type"] == 2).unwrap();
        let join = VoiceStateUpdate {
            guild_id,
            channel_id: Some(id(&voice["id"])),
            self_mute: true,
            self_deaf: false,
        };
        running.keeper.command(join).await.unwrap();
        assert_eq!(
            id(&until_event(&mut running, "VOICE_STATE_UPDATE").await["channel_id"]),
            id(&voice["id"])
        );
        assert_eq!(id(&until_event(&mut running, "VOICE_SERVER_UPDATE").await["guild_id"]), guild_id);

        let all = RequestMembers::all(guild_id).with_presences().nonce("n").command().unwrap();
        running.keeper.command(all).await.unwrap();
        let mut members = 0;
        loop {
            let chunk = until_event(&mut running, "GUILD_MEMBERS_CHUNK").await;
            assert_eq!(chunk["nonce"], "n");
            members += chunk["members"].as_array().unwrap().len() as u64;
            if chunk["chunk_index"].as_u64().unwrap() + 1 == chunk["chunk_count"] {
                break;
            }
        }
        assert_eq!(members, guild["member_count"].as_u64().unwrap());

        for command in request_soundboard_sounds(&[guild_id]) {
            running.keeper.command(command).await.unwrap();
        }
        assert_eq!(id(&until_event(&mut running, "SOUNDBOARD_SOUNDS").await["guild_id"]), guild_id);
        running.keeper.command(request_channel_info(guild_id, &[ChannelInfoField::Status])).await.unwrap();
        assert_eq!(id(&until_event(&mut running, "CHANNEL_INFO").await["guild_id"]), guild_id);
    }
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn gw_155_157_two_hundred_commands_keep_the_limit_over_a_reconnect() {
    let mut running = Running::start(simulator(1, |config| config.guilds = 1)).await;
    let guild_id = 281_474_976 << 22;
    let ask = || RequestMembers::prefix(guild_id, "m", 1).command().unwrap();
    for _ in 0..200 {
        running.keeper.command(ask()).await.unwrap();
    }
    running.simulator.wait_until(|report| report.commands >= 100).await;
    running.simulator.inject(0, Fault::Cut).unwrap();
    running.until_resumed(0).await;
    for _ in 0..150 {
        running.keeper.command(ask()).await.unwrap();
    }
    // None that was accepted is lost, but those that were on their way when the connection was cut.
    running.simulator.wait_until(|report| report.commands >= 236 + 110).await;
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_is_refused_with_its_reason() {
    let simulator = simulator(4, |_| {});
    let builder = bot(&simulator).shard_ids([1], 4);
    let running = Running::start_with(simulator, builder).await;
    let at = |shard: u64| {
        Command::from(VoiceStateUpdate {
            guild_id: shard << 22,
            channel_id: None,
            self_mute: false,
            self_deaf: false,
        })
    };
    let error = running.keeper.command(at(2)).await.unwrap_err();
    assert_eq!(error, CommandRejected::NoSuchShard { shard: ShardId(2) });
    running.simulator.inject(1, Fault::HalfOpen).unwrap();
    let mut full = None;
    for _ in 0..1000 {
        if let Err(error) = running.keeper.command(at(1)).await {
            full = Some(error);
            break;
        }
    }
    assert_eq!(full.unwrap().to_string(), "shard 1 has 256 commands waiting");
}
