//! Events parsed into twilight's models.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use shardkeeper::command::{ChannelInfoField, Command, RequestMembers, VoiceStateUpdate};
use shardkeeper::{Dispatch, Event, EventName};
use shardkeeper_sim::{Action, Fault, Mix};
use shardkeeper_tests::{Running, simulator};
use twilight_cache_inmemory::DefaultInMemoryCache;
use twilight_model::gateway::event::Event as Typed;
use twilight_model::gateway::payload::incoming::{GuildCreate, MessageCreate};
use twilight_standby::Standby;

const GUILD: u64 = 281_474_976 << 22;

/// Events that twilight-model has no model for. Every other event is typed.
const RAW: &[EventName] = &[
    EventName::ChannelInfo,
    EventName::VoiceChannelStatusUpdate,
    EventName::VoiceChannelStartTimeUpdate,
    EventName::GuildSoundboardSoundCreate,
    EventName::GuildSoundboardSoundUpdate,
    EventName::GuildSoundboardSoundDelete,
    EventName::GuildSoundboardSoundsUpdate,
    EventName::SoundboardSounds,
    EventName::VoiceChannelEffectSend,
    EventName::GuildJoinRequestCreate,
    EventName::GuildJoinRequestUpdate,
    EventName::GuildJoinRequestDelete,
    EventName::GuildScheduledEventExceptionCreate,
    EventName::GuildScheduledEventExceptionUpdate,
    EventName::GuildScheduledEventExceptionDelete,
    EventName::GuildScheduledEventExceptionsDelete,
    EventName::MessageReactionAddMany,
    EventName::EmbeddedActivityUpdateV2,
];

/// Runs a bot in which many events of every kind occur, and returns all of its dispatches.
async fn everything() -> (Running, Vec<Dispatch>) {
    let mut running = Running::start(simulator(1, |config| {
        config.mix = Mix::Everything;
        config.large_guild_members = 1200;
    }))
    .await;
    // Events during the start were read before this; a new session sends READY and the guilds again.
    running.simulator.inject(0, Fault::Close { code: 4009 }).unwrap();
    let mut heard = Vec::new();
    let all = || Command::members(&RequestMembers::all(GUILD).with_presences()).unwrap();
    let mut is_asked = false;
    loop {
        if let Event::Dispatch(dispatch) = &*running.next().await {
            heard.push(dispatch.clone());
            if !is_asked && dispatch.event_name() == Some(EventName::GuildCreate) {
                is_asked = true;
                // Twice within 30 s, so the second request is rejected with RATE_LIMITED.
                running.keeper.command(all()).await.unwrap();
                running.keeper.command(all()).await.unwrap();
                // Voice servers change only for a bot that is in a voice channel.
                let guild: serde_json::Value = dispatch.parse().unwrap();
                let channels = guild["channels"].as_array().unwrap();
                let voice = channels.iter().find(|channel| channel["type"] == 2).unwrap()["id"].as_str();
                let id = guild["id"].as_str().unwrap().parse().unwrap();
                let join = VoiceStateUpdate::join(id, voice.unwrap().parse().unwrap());
                running.keeper.command(join).await.unwrap();
                for command in Command::sounds(&[GUILD]) {
                    running.keeper.command(command).await.unwrap();
                }
                running
                    .keeper
                    .command(Command::channel_info(GUILD, &[ChannelInfoField::Status]))
                    .await
                    .unwrap();
                running.simulator.act(&Action::GuildOutage { guild: 1, lasts_ms: 1000 }).unwrap();
                running.simulator.emit(0, 4000);
            }
            if dispatch.event_name() == Some(EventName::Resumed) {
                return (running, heard);
            }
        }
        if is_asked && heard.len() > 4000 {
            let _ = running.simulator.inject(0, Fault::Reconnect);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_event_is_typed_or_raw_as_the_table_says() {
    let (_running, heard) = everything().await;
    let mut samples: BTreeMap<&str, Vec<&Dispatch>> = BTreeMap::new();
    for dispatch in &heard {
        samples.entry(dispatch.name()).or_default().push(dispatch);
    }
    for event in EventName::ALL {
        let name = event.as_str();
        let samples = samples.remove(name).unwrap_or_default();
        if RAW.contains(event) {
            // The simulator does not send some of these events.
            let empty = Dispatch::sample(name, b"{}");
            for dispatch in samples.into_iter().chain([&empty]) {
                assert!(dispatch.event().unwrap().is_none(), "{name}");
            }
        } else {
            assert!(!samples.is_empty(), "no {name}");
            for dispatch in samples {
                let typed = dispatch.event().unwrap_or_else(|error| panic!("{error:?}"));
                assert_eq!(typed.as_ref().and_then(|typed| typed.kind().name()), Some(name));
                // Large payloads are parsed in another way, with the same result.
                let large = [dispatch.data(), &[b' '; 4096]].concat();
                assert_eq!(Dispatch::sample(name, &large).event().unwrap(), typed);
            }
        }
    }
    // Events with unknown names have no model.
    for dispatch in samples.values().flatten() {
        assert!(dispatch.event_name().is_none() && dispatch.event().unwrap().is_none(), "{dispatch:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn twilights_cache_and_standby_take_what_comes_out() {
    let (_running, heard) = everything().await;
    let (cache, standby) = (DefaultInMemoryCache::new(), Standby::new());
    let mut outage = standby.wait_for_event(|event: &Typed| matches!(event, Typed::GuildDelete(_))).boxed();
    // The busiest channel is the most likely one to have another message.
    let mut said = BTreeMap::new();
    for dispatch in &heard {
        if let Some(Typed::MessageCreate(created)) = dispatch.event().unwrap() {
            *said.entry(created.channel_id).or_insert(0) += 1;
        }
    }
    let busiest = said.into_iter().max_by_key(|(_, count)| *count).expect("somebody wrote").0;
    let mut message = None;
    for dispatch in &heard {
        let Some(event) = dispatch.event().unwrap() else { continue };
        cache.update(&event);
        standby.process(&event);
        match event {
            Typed::GuildCreate(create) => {
                assert!(matches!(&*create, GuildCreate::Available(_)));
                assert!(cache.guild(create.id()).is_some());
            }
            Typed::MessageCreate(created) if message.is_none() && created.channel_id == busiest => {
                let channel = created.channel_id;
                let next = standby.wait_for_message(channel, |_: &MessageCreate| true).boxed();
                message = Some((channel, next));
            }
            _ => {}
        }
    }
    assert_eq!(cache.stats().guilds(), 2);
    // Includes the members of the small guild; some have joined or left since.
    assert!((1190..1240).contains(&cache.stats().members()), "{}", cache.stats().members());
    assert!(cache.current_user().is_some());
    assert!(
        matches!((&mut outage).now_or_never(), Some(Ok(Typed::GuildDelete(delete))) if delete.unavailable == Some(true))
    );
    let (channel, next) = message.expect("somebody wrote");
    assert_eq!(next.now_or_never().expect("it has come").unwrap().channel_id, channel);
    assert!(cache.channel_messages(channel).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_does_not_fit_its_model_is_reported_and_nothing_else_happens() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    running.simulator.emit(0, 50);
    // A dispatch with an unknown name, and keys in an unusual order.
    running.simulator.inject(0, Fault::Odd).unwrap();
    running.simulator.inject(0, Fault::Huge { bytes: 3_000_000 }).unwrap();
    let (mut unknown, mut huge) = (false, false);
    while !(unknown && huge) {
        if let Event::Dispatch(dispatch) = &*running.next().await {
            let typed = dispatch.event().unwrap();
            unknown |= dispatch.event_name().is_none() && typed.is_none();
            if let Some(Typed::GuildUpdate(guild)) = typed {
                huge |= guild.description.as_ref().is_some_and(|text| text.len() == 3_000_000);
            }
            let wrong = Dispatch::sample("GUILD_UPDATE", &dispatch.data()[1..]);
            assert_eq!(wrong.event().unwrap_err().event, EventName::GuildUpdate);
        }
    }
    running.check().await;
}
