//! Commands and presences: their order, their limits, and how long they wait.

use super::*;
use crate::RequestMembers;

#[test]
fn gw_029_commands_wait_for_ready_and_voice_goes_first() {
    let mut bench = Bench::new();
    bench.feed(bulk(1)).feed(Input::Presence(presence("p"))).feed(Input::Start).feed(Input::ConnectGrant);
    bench.feed(Input::Connected).hello().permit().feed(voice()).clear();
    bench.receive(r#"{"t":"TYPING_START","s":1,"op":0,"d":{}}"#).ready();
    // The presence was in Identify.
    let opcodes: Vec<&str> = bench.sent().iter().map(|text| &text[..7]).collect();
    assert_eq!(opcodes, [r#"{"op":4"#, r#"{"op":8"#]);
    bench.clear().feed(bulk(2)).feed(voice());
    assert_eq!(bench.sent().len(), 2, "at once");
}

#[test]
fn gw_155_158_159_never_more_than_120_in_any_minute_heartbeats_included() {
    let mut bench = Bench::new();
    bench.up();
    let begin = bench.now;
    // The Identify counts too (GW-156).
    let mut times = vec![begin];
    let mut fed = 0;
    while bench.now < begin + Duration::from_secs(600) {
        while fed < 1000 && bench.shard.check_command(&members(fed)).is_ok() {
            bench.feed(bulk(fed));
            fed += 1;
        }
        let sent = bench.sent().len();
        times.extend(std::iter::repeat_n(bench.now, sent));
        let beats = bench.sent().iter().filter(|text| text.starts_with(r#"{"op":1"#)).count();
        bench.clear();
        if beats > 0 {
            bench.ack();
        }
        bench.sleep();
    }
    assert!(times.len() > 1000, "{}", times.len());
    for (at, time) in times.iter().enumerate() {
        let window = times[at..].iter().take_while(|other| **other - *time < Duration::from_secs(60)).count();
        assert!(window <= 120, "{window} payloads in a minute");
    }
}

#[test]
fn gw_120_a_heartbeat_is_not_late_behind_commands() {
    let mut bench = Bench::new();
    bench.up();
    let due = bench.wakes_at.unwrap();
    for number in 0..200 {
        bench.feed(bulk(number));
    }
    assert_eq!(bench.sent().len(), 104, "Identify, five for heartbeats, ten for what is urgent, and these");
    bench.clear();
    while bench.now < due {
        bench.sleep();
    }
    assert_eq!(bench.now, due);
    assert!(bench.sent().contains(&r#"{"op":1,"d":1}"#));
}

#[test]
fn gw_157_160_commands_survive_a_reconnect_and_its_window_is_new() {
    let mut bench = Bench::new();
    bench.up();
    for number in 0..200 {
        bench.feed(bulk(number));
    }
    bench.closed(None).reconnect().feed(Input::Connected).clear().hello();
    assert_eq!(bench.sent().len(), 1, "the Resume alone");
    bench.clear().receive(r#"{"t":"RESUMED","s":9,"op":0,"d":{}}"#);
    assert_eq!(bench.sent().len(), 200 - 104);
    assert!(bench.sent()[0].contains(&guild(104).to_string()), "in their order");
}

#[test]
fn commands_that_waited_too_long_are_given_up_by_class_and_say_so() {
    let mut bench = Bench::new();
    bench.up();
    bench.closed(None).feed(voice()).feed(bulk(7)).clear();
    let begin = bench.now;
    let expired = |bench: &Bench, id| {
        bench.has(|out| matches!(out, Output::CommandExpired(CommandId(it)) if *it == id))
    };
    // No connection can be had; the machine wakes for them all the same.
    let mut times = Vec::new();
    for id in [1000, 7] {
        while !expired(&bench, id) {
            assert!(bench.now - begin <= Duration::from_secs(600), "command {id} is never given up");
            bench.clear().sleep();
            bench.feed(Input::ConnectFailed);
        }
        times.push((bench.now - begin).as_secs());
    }
    assert_eq!(times, [90, 600]);
}

#[test]
fn a_command_without_an_end_to_its_time_waits() {
    let mut bench = Bench::new();
    bench.shard.config.timings.bulk_lifetime = Duration::MAX;
    bench.feed(bulk(1)).up();
    assert!(!bench.has(|out| matches!(out, Output::CommandExpired(_))));
}

#[test]
fn a_command_that_is_not_for_this_shard_is_refused() {
    let bench = Bench::new();
    let refused = |command: Command| bench.shard.check_command(&command).unwrap_err().to_string();
    let elsewhere = Command::raw(ShardId(1), 4, &"").unwrap();
    assert_eq!(refused(elsewhere), "the command belongs on shard 1, not on shard 3");
    let all = Command::members(&RequestMembers::all(guild(1)).with_presences()).unwrap();
    assert_eq!(
        refused(all),
        "the command needs GUILD_MEMBERS | GUILD_PRESENCES, which the bot did not ask for when it started"
    );
}

#[test]
fn gw_161_presences_are_limited_and_the_newest_wins() {
    let mut bench = Bench::new();
    bench.up();
    let start = bench.now;
    for number in 0..10 {
        bench.feed(Input::Presence(presence(&format!("game {number}"))));
    }
    assert_eq!(bench.sent().len(), 5);
    while bench.sent().len() < 6 {
        bench.sleep();
    }
    let timings = Timings::default();
    assert_eq!(bench.now - start, timings.presence_window + timings.command_margin);
    assert!(bench.sent()[5].contains("game 9"));
}

#[test]
fn a_presence_overtakes_500_requests_and_only_the_newest_is_sent() {
    let mut bench = Bench::new();
    bench.up();
    for number in 0..500 {
        bench.feed(bulk(number));
    }
    bench.clear();
    for number in 0..50 {
        bench.feed(Input::Presence(presence(&format!("game {number}"))));
    }
    bench.feed(voice());
    assert_eq!(bench.sent().len(), 6, "five presences and a voice command, at once");
    for _ in 0..4 {
        bench.feed(voice());
    }
    bench.clear().feed(voice());
    assert!(bench.sent().is_empty(), "the window is full");
    let full_until = bench.now + Duration::from_millis(60_250);
    while bench.sent().iter().all(|text| text.starts_with(r#"{"op":1,"#)) {
        bench.sleep();
    }
    assert!(bench.now <= full_until);
    let commands: Vec<&str> =
        bench.sent().into_iter().filter(|text| !text.starts_with(r#"{"op":1,"#)).take(3).collect();
    assert!(commands[0].starts_with(r#"{"op":4,"#), "{commands:?}");
    assert!(commands[1].starts_with(r#"{"op":3,"#) && commands[1].contains("game 49"), "{commands:?}");
    assert!(commands[2].starts_with(r#"{"op":8,"#), "{commands:?}");
}

#[test]
fn a_presence_that_may_not_have_arrived_is_sent_again_after_a_resume() {
    let mut bench = Bench::new();
    bench.up();
    bench.feed(Input::Presence(presence("lost?")));
    assert_eq!(bench.sent().len(), 1);
    let resumed = |bench: &mut Bench| {
        bench.closed(None).reconnect().feed(Input::Connected).hello().clear().dispatch(2, "RESUMED");
        bench.sent().iter().filter(|text| text.contains("lost?")).count()
    };
    assert_eq!(resumed(&mut bench), 1);
    assert_eq!(resumed(&mut bench), 1, "this one neither");
    bench.sleep().ack();
    assert_eq!(resumed(&mut bench), 0, "what came before a heartbeat that was acknowledged has arrived");
}

#[test]
fn gw_029_197_198_a_presence_waits_for_ready_and_is_in_every_identify() {
    let mut bench = Bench::new();
    bench.feed(Input::Presence(presence("early"))).connect().hello();
    // GW-028: before Identify nothing goes but heartbeats.
    assert!(bench.sent().is_empty());
    bench.permit();
    assert!(bench.sent()[0].contains("early"));
    bench.clear().feed(Input::Presence(presence("between")));
    assert!(bench.sent().is_empty(), "Identify is out, READY is not in");
    bench.ready();
    // GW-058: op 3 is the presence update.
    assert!(bench.sent()[0].contains(r#""op":3"#) && bench.sent()[0].contains("between"));
    // Kept by a resume, repeated in the next Identify.
    bench.sleep().ack();
    bench.closed(None).reconnect().feed(Input::Connected).hello().clear().dispatch(2, "RESUMED");
    assert!(bench.sent().is_empty());
    bench
        .receive(r#"{"op":9,"d":false}"#)
        .closed(None)
        .reconnect()
        .feed(Input::Connected)
        .hello()
        .clear()
        .permit();
    assert!(bench.sent()[0].contains("between"));
}

#[test]
fn commands_that_another_shard_takes_over_keep_their_order_and_their_lifetime() {
    const GUILD: u64 = 3 << 22;
    let (mut old, mut new) = (Bench::new(), Bench::new());
    let given_up = |bench: &mut Bench| -> Vec<(u64, Command, Option<Instant>)> {
        let out = bench.out.drain(..).filter_map(|out| match out {
            Output::CommandGivenUp(id, command, expires_at) => Some((id.0, command, expires_at)),
            _ => None,
        });
        out.collect()
    };
    let second = Duration::from_secs(1);
    let begin = old.now;
    let lifetime = Timings::default().voice_lifetime;
    old.feed(Input::Command(CommandId(1), members(1)));
    old.feed(Input::Command(CommandId(2), VoiceStateUpdate::leave(GUILD).into()));
    old.now = begin + lifetime - second;
    old.feed(Input::Command(CommandId(3), VoiceStateUpdate::join(GUILD, 2).into()));
    let sounds = Command::sounds(&[GUILD]).remove(0);
    old.feed(Input::Command(CommandId(4), sounds));
    old.now = begin + lifetime;
    old.clear().feed(Input::GiveUpCommands);
    assert!(matches!(old.out[0], Output::CommandExpired(CommandId(2))), "{:?}", old.out);
    let commands = given_up(&mut old);
    let ids: Vec<u64> = commands.iter().map(|(id, ..)| *id).collect();
    assert_eq!(ids, [3, 1], "the urgent one first");
    assert!(given_up(old.feed(Input::GiveUpCommands)).is_empty(), "once");
    assert_eq!(old.shard.sending(old.now).bulk_waiting, 1, "of several guilds, so it stays");
    // The new shard has accepted others: one after these, and one before them.
    new.now = begin + second;
    new.feed(Input::Command(CommandId(10), members(10)));
    new.now = old.now;
    new.feed(Input::Command(CommandId(11), VoiceStateUpdate::leave(GUILD).into()));
    for (id, command, expires_at) in commands {
        new.feed(Input::TakeOver(CommandId(id), command, expires_at));
    }
    new.identify().ready();
    let sent = new.out.iter().filter_map(|out| match out {
        Output::CommandSent(id) => Some(id.0),
        _ => None,
    });
    assert_eq!(sent.collect::<Vec<_>>(), [3, 11, 1, 10]);
    // A command that expires on its way is not sent.
    new.clear().feed(Input::TakeOver(CommandId(12), members(12), Some(old.now)));
    assert!(matches!(new.out[..], [Output::CommandExpired(CommandId(12))]), "{:?}", new.out);
}
