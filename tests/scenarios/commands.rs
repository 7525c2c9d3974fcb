//! Presences, and commands for guilds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shardkeeper::actor::ShardMessage;
use shardkeeper::command::{
    AcceptedCommand, ChannelInfoField, Command, PresenceUpdate, RequestMembers, VoiceStateUpdate, WriteError,
};
use shardkeeper::error::{CommandError, ManagerEnded};
use shardkeeper::status::Change;
use shardkeeper::{Activity, Event, EventName, Intents, OnlineStatus, Presence, ShardId, Topic};
use shardkeeper_sim::{ConnectFault, Fault};
use shardkeeper_tests::{Running, bot, bot_with, eventually, in_both_worlds, simulator};
use tokio::time::Instant;

fn playing(name: &str) -> Presence {
    Presence::new(OnlineStatus::Online).activity(Activity::playing(name))
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

#[test]
fn a_presence_survives_a_new_session_and_a_crash() {
    in_both_worlds(|| async {
        let mut running = Running::start(simulator(1, |_| {})).await;
        running.keeper.update_presence(playing("kept")).await.unwrap();
        running.simulator.wait_until(|report| report.presences.contains_key(&0)).await;
        running.keeper.shard(ShardId(0)).await.unwrap().cast(ShardMessage::CrashDrill).unwrap();
        running.until_resumed(0).await;
        running.simulator.inject(0, Fault::InvalidSession { resumable: false }).unwrap();
        running.until_shard(0, |change| matches!(change, shardkeeper::status::Change::Ready)).await;
        // GW-198: a presence set at run time is also sent in later Identify payloads.
        assert_eq!(shows(&running.simulator, 0).as_deref(), Some("kept"));
        // The same applies to the presence of a single shard.
        running.keeper.update_presence_on([ShardId(0)], playing("own")).await.unwrap();
        running.keeper.shard(ShardId(0)).await.unwrap().cast(ShardMessage::CrashDrill).unwrap();
        running.until_resumed(0).await;
        running.simulator.inject(0, Fault::Close { code: 4009 }).unwrap();
        running.until_shard(0, |change| matches!(change, shardkeeper::status::Change::Ready)).await;
        assert_eq!(shows(&running.simulator, 0).as_deref(), Some("own"));
        running.no_violations();
    });
}

#[tokio::test(start_paused = true)]
async fn gw_161_many_presences_keep_the_limit_and_the_last_one_wins() {
    let running = Running::start(simulator(1, |_| {})).await;
    for number in 0..50 {
        running.keeper.update_presence_on([ShardId(0)], playing(&format!("game {number}"))).await.unwrap();
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
    let error = running.keeper.update_presence_on([ShardId(2)], playing("x")).await.unwrap_err();
    assert_eq!(error, CommandError::NoSuchShard { shard: ShardId(2) });
    let error = running.keeper.update_presence(playing(&"x".repeat(5000))).await.unwrap_err();
    assert_eq!(error.to_string(), "the name of an activity has 5000 characters, at most 128 are shown");
    running.keeper.stop().await;
    assert_eq!(running.keeper.update_presence(playing("x")).await, Err(ManagerEnded.into()));
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

/// Reads until the next dispatch of this name, and returns its data as JSON.
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

#[test]
fn every_command_reaches_the_shard_of_its_guild_and_is_answered() {
    in_both_worlds(|| async {
        let simulator = simulator(3, |config| config.large_guild_members = 1500);
        let options = shardkeeper::SubscriptionOptions { capacity: 1 << 12, ..Default::default() };
        let builder = bot(&simulator);
        let mut guilds = builder
            .subscribe_with(shardkeeper::Topic::events([shardkeeper::EventName::GuildCreate]), options);
        let mut running = Running::start_with(simulator, builder).await;
        for _ in 0..6 {
            let Event::Dispatch(dispatch) = &*guilds.next().await.unwrap() else { panic!("a dispatch") };
            let guild: serde_json::Value = dispatch.parse().unwrap();
            let guild_id = id(&guild["id"]);
            let voice =
                guild["channels"].as_array().unwrap().iter().find(|channel| channel["type"] == 2).unwrap();
            running.keeper.command(VoiceStateUpdate::join(guild_id, id(&voice["id"])).muted()).await.unwrap();
            assert_eq!(
                id(&until_event(&mut running, "VOICE_STATE_UPDATE").await["channel_id"]),
                id(&voice["id"])
            );
            assert_eq!(id(&until_event(&mut running, "VOICE_SERVER_UPDATE").await["guild_id"]), guild_id);

            let all = Command::members(&RequestMembers::all(guild_id).with_presences().nonce("n")).unwrap();
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

            for command in Command::sounds(&[guild_id]) {
                running.keeper.command(command).await.unwrap();
            }
            assert_eq!(id(&until_event(&mut running, "SOUNDBOARD_SOUNDS").await["guild_id"]), guild_id);
            running
                .keeper
                .command(Command::channel_info(guild_id, &[ChannelInfoField::Status]))
                .await
                .unwrap();
            assert_eq!(id(&until_event(&mut running, "CHANNEL_INFO").await["guild_id"]), guild_id);
        }
        running.check().await;
    });
}

#[tokio::test(start_paused = true)]
async fn gw_155_157_two_hundred_commands_keep_the_limit_over_a_reconnect() {
    let mut running = Running::start(simulator(1, |config| config.guilds = 1)).await;
    let guild_id = 281_474_976 << 22;
    let ask = || Command::members(&RequestMembers::prefix(guild_id, "m", 1)).unwrap();
    for _ in 0..200 {
        running.keeper.command(ask()).await.unwrap();
    }
    running.simulator.wait_until(|report| report.commands >= 100).await;
    running.simulator.inject(0, Fault::Cut).unwrap();
    running.until_resumed(0).await;
    for _ in 0..150 {
        running.keeper.command(ask()).await.unwrap();
    }
    // No accepted command is lost, except those that were in transit when the connection was cut.
    running.simulator.wait_until(|report| report.commands >= 236 + 110).await;
    running.check().await;
}

/// A harmless command for any guild.
fn ask_for(guild_id: u64) -> Command {
    Command::channel_info(guild_id, &[ChannelInfoField::Status])
}

#[tokio::test(start_paused = true)]
async fn a_command_is_refused_with_its_reason() {
    let simulator = simulator(4, |_| {});
    let builder = bot(&simulator).shard_ids([1], 4);
    let running = Running::start_with(simulator, builder).await;
    let keeper = &running.keeper;
    let rejection = |command: Command| async move { keeper.command(command).await.unwrap_err().to_string() };
    let guild = |shard: u64| shard << 22;
    assert_eq!(
        rejection(ask_for(guild(2))).await,
        "guild 8388608 is on shard 2, which is not run by this manager"
    );
    let raw = Command::raw(ShardId(3), 200, &()).unwrap();
    assert_eq!(rejection(raw).await, "shard 3 is not run by this manager");
    // Sent directly to the shard's actor, which checks the owner of the guild itself.
    let actor = keeper.shard(ShardId(1)).await.unwrap();
    let answer = ractor::call!(actor, |reply| ShardMessage::Command(ask_for(guild(2)), reply)).unwrap();
    assert_eq!(answer.unwrap_err().to_string(), "the command belongs on shard 2, not on shard 1");
    running.simulator.inject(1, Fault::HalfOpen).unwrap();
    let answers = futures_util::future::join_all((0..1000).map(|_| keeper.command(ask_for(guild(1))))).await;
    let full = answers.iter().find_map(|answer| answer.as_ref().err()).unwrap();
    assert_eq!(full.to_string(), "the queue of shard 1 is full: 512 bulk commands are waiting; retry later");
    assert!(answers.iter().filter(|answer| answer.is_ok()).count() >= 512);
    keeper.stop().await;
    assert_eq!(rejection(ask_for(guild(1))).await, ManagerEnded.to_string());
}

#[tokio::test(start_paused = true)]
async fn gw_212_213_a_request_without_its_intents_is_refused_here() {
    let simulator = simulator(1, |_| {});
    let builder = bot_with(&simulator, Intents::GUILDS);
    let running = Running::start_with(simulator, builder).await;
    let error = running.keeper.members(RequestMembers::all(1).with_presences()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the command needs GUILD_MEMBERS | GUILD_PRESENCES, which the bot did not ask for when it started"
    );
    running.no_violations();
}

#[tokio::test(start_paused = true)]
async fn an_accepted_command_says_when_it_is_written_and_when_it_never_is() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let keeper = running.keeper.clone();
    keeper.command(ask_for(1)).await.unwrap().written().await.unwrap();
    let presence = serde_json::json!({"guild_id": "1", "fields": ["status"]});
    let raw = Command::raw(ShardId(0), 43, &presence).unwrap();
    keeper.command(raw).await.unwrap().written().await.unwrap();
    running.simulator.wait_until(|report| report.commands >= 2).await;
    // No connection succeeds, so waiting commands expire, each class after its own lifetime.
    running.simulator.arm(ConnectFault::Refuse, 10_000);
    running.simulator.inject(0, Fault::Cut).unwrap();
    running.until_shard(0, |change| matches!(change, Change::Disconnected { .. })).await;
    let start = Instant::now();
    let voice = keeper.command(VoiceStateUpdate::leave(1)).await.unwrap();
    let bulk = keeper.command(ask_for(1)).await.unwrap();
    let reading = tokio::spawn(async move { while running.events.next().await.is_some() {} });
    let given_up = async |accepted: AcceptedCommand| {
        let outcome = tokio::time::timeout(Duration::from_secs(3600), accepted.written()).await;
        outcome.expect("what waits too long is given up")
    };
    assert_eq!(given_up(voice).await, Err(WriteError::Expired));
    assert_eq!(start.elapsed().as_secs(), 90);
    assert_eq!(given_up(bulk).await, Err(WriteError::Expired));
    assert_eq!(start.elapsed().as_secs(), 600);
    // The commands that wait for a shard end with the shard.
    let lost = keeper.command(ask_for(1)).await.unwrap();
    keeper.stop().await;
    assert_eq!(lost.written().await, Err(WriteError::Lost));
    reading.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_computed_presence_is_in_every_identify_until_another_is_set() {
    let simulator = simulator(2, |_| {});
    let identifies = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&identifies);
    let builder = bot(&simulator).presence(playing("unused")).presence_fn(move |shard| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        assert!(number != 2, "the bot's own code panics");
        playing(&format!("{shard} at {number}"))
    });
    let mut running = Running::start_with(simulator, builder).await;
    assert_eq!(shows(&running.simulator, 0).as_deref(), Some("0 at 0"));
    assert_eq!(shows(&running.simulator, 1).as_deref(), Some("1 at 1"));
    let keeper = running.keeper.clone();
    let mut identify_again = async |shard| {
        running.simulator.inject(shard, Fault::InvalidSession { resumable: false }).unwrap();
        running.until_shard(shard, |change| matches!(change, Change::Ready)).await;
        shows(&running.simulator, shard)
    };
    assert_eq!(
        identify_again(1).await.as_deref(),
        Some("1 at 1"),
        "the panic costs nothing, and leaves the last one"
    );
    assert_eq!(identify_again(1).await.as_deref(), Some("1 at 3"));
    keeper.update_presence_on([ShardId(1)], playing("set")).await.unwrap();
    assert_eq!(identify_again(1).await.as_deref(), Some("set"));
    assert_eq!(identify_again(0).await.as_deref(), Some("0 at 4"));
    assert_eq!(identifies.load(Ordering::Relaxed), 5);
    running.no_violations();
}

/// A running bot and the ids of its guilds.
async fn with_guilds(shards: u32, guilds: u32) -> (Running, Vec<u64>) {
    let simulator = simulator(shards, |config| config.guilds = guilds);
    let builder = bot(&simulator);
    let mut creates = builder.subscribe(Topic::events([EventName::GuildCreate]));
    let running = Running::start_with(simulator, builder).await;
    let mut ids = Vec::new();
    while ids.len() < guilds as usize {
        let Event::Dispatch(dispatch) = &*creates.next().await.unwrap() else { panic!("a dispatch") };
        ids.push(id(&dispatch.parse::<serde_json::Value>().unwrap()["id"]));
    }
    (running, ids)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_mixed_commands_through_a_resume_break_no_rule() {
    let (mut running, guilds) = with_guilds(4, 8).await;
    let keeper = running.keeper.clone();
    let mut receipts = Vec::new();
    for number in 0..1000_usize {
        let guild_id = guilds[number % guilds.len()];
        let command = match number % 20 {
            0..2 => VoiceStateUpdate::leave(guild_id).into(),
            2..12 => Command::members(&RequestMembers::prefix(guild_id, "m", 2)).unwrap(),
            12..15 => Command::sounds(&[guild_id]).remove(0),
            15..18 => ask_for(guild_id),
            18 => Command::raw(
                keeper.owner_of(guild_id).await.unwrap(),
                31,
                &serde_json::json!({"guild_ids": [guild_id.to_string()]}),
            )
            .unwrap(),
            _ => {
                keeper.update_presence(playing(&format!("game {number}"))).await.unwrap();
                continue;
            }
        };
        receipts.push(keeper.command(command).await.unwrap().written());
    }
    assert_eq!(receipts.len(), 950);
    for shard in 0..4 {
        running.simulator.inject(shard, Fault::Cut).unwrap();
    }
    let receipts = tokio::spawn(futures_util::future::join_all(receipts));
    running.until_resumed(0).await;
    let mut written = 0;
    let mut receipts = receipts;
    let outcomes = loop {
        tokio::select! {
            outcomes = &mut receipts => break outcomes.unwrap(),
            _ = running.next() => {}
        }
    };
    written += outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    // Commands in transit when the connections were cut may be lost, and are reported as lost; none expires.
    assert!(!outcomes.contains(&Err(WriteError::Expired)));
    assert!(written >= 950 - 4 * 115, "{written}");
    running
        .simulator
        .wait_until(|report| {
            (0..4).all(|shard| {
                report.presences.get(&shard).is_some_and(|shown| shown["activities"][0]["name"] == "game 999")
            })
        })
        .await;
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn sounds_are_asked_for_on_the_shards_that_own_the_guilds() {
    let (mut running, mut guilds) = with_guilds(3, 9).await;
    guilds.sort_unstable();
    running.keeper.request_soundboard_sounds(&guilds).await.unwrap();
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 9 {
        answered.insert(id(&until_event(&mut running, "SOUNDBOARD_SOUNDS").await["guild_id"]));
    }
    assert!(answered.into_iter().eq(guilds));
    assert_eq!(running.simulator.report().commands, 3, "one for each shard");
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_command_with_a_delivery_in_hand_does_not_hold_up_a_detach() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    let keeper = running.keeper.clone();
    for _ in 0..120 {
        keeper.command(ask_for(1)).await.unwrap();
    }
    // The limits allow no more, and everything that they allowed is answered.
    let simulator = running.simulator.clone();
    eventually(async || {
        let waiting = keeper.shard_status(ShardId(0)).await.unwrap().sending.bulk_waiting;
        waiting > 0 && simulator.report().commands + waiting as u64 == 120
    })
    .await;
    simulator.emit(0, 1);
    let mut last = running.next().await;
    while simulator.delivery().delivered < simulator.delivery().sent {
        last = running.next().await;
    }
    let sequence = last.dispatch().unwrap().sequence();
    let waiting = keeper.command(ask_for(1)).await.unwrap();
    let start = Instant::now();
    let handling = async {
        let lost = waiting.written().await;
        let refused = keeper.command(ask_for(1)).await.map(drop);
        drop(last);
        (lost, refused)
    };
    let (sessions, (lost, refused)) = tokio::join!(keeper.detach(), handling);
    assert_eq!(lost, Err(WriteError::Lost));
    assert_eq!(refused, Err(CommandError::ShardEnded { shard: ShardId(0) }));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(sessions.unwrap()[0].sequence, sequence);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_its_shard_dies_over_says_so() {
    let running = Running::start(simulator(1, |_| {})).await;
    let keeper = &running.keeper;
    for yields in 0..12 {
        let shard = keeper.shard(ShardId(0)).await.unwrap();
        let crash = async {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            shard.cast(ShardMessage::CrashDrill).unwrap();
        };
        let asking = futures_util::future::join_all((0..5).map(|_| keeper.command(ask_for(1))));
        let (answers, ()) = tokio::join!(asking, crash);
        for answer in answers.into_iter().filter_map(Result::err) {
            assert_eq!(answer, CommandError::ShardEnded { shard: ShardId(0) }, "after {yields}");
        }
        tokio::time::sleep(Duration::from_secs(700)).await;
    }
}
