//! Members of a guild, requested and collected.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use serde::Deserialize;
use shardkeeper::command::{Command, MembersError, RequestMembers};
use shardkeeper::config::{Direction, WirePayload};
use shardkeeper::status::Change;
use shardkeeper_sim::{ConnectFault, Fault, Simulator};
use shardkeeper_tests::{Running, bot, in_both_worlds, simulator};
use tokio::time::Instant;

const GUILD: u64 = 281_474_976 << 22;

#[derive(Deserialize)]
struct Member {
    user: User,
}

#[derive(Deserialize)]
struct User {
    id: String,
}

fn large(members: u32) -> Simulator {
    simulator(1, |config| {
        config.guilds = 1;
        config.large_guild_members = members;
    })
}

/// Reads the bot's events until `work` is finished.
async fn meanwhile<T>(running: &mut Running, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = running.next() => {}
        }
    }
}

/// The requested guild does not exist in the simulator, so the test itself answers for it.
#[tokio::test(start_paused = true)]
async fn chunks_out_of_order_doubled_or_of_somebody_else_make_one_answer() {
    let simulator = large(10);
    let nonce = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&nonce);
    let tap = move |payload: &WirePayload<'_>| {
        if let (Direction::Sent, Some(8), Some(data)) = (payload.direction, payload.opcode, payload.data()) {
            let data: serde_json::Value = serde_json::from_slice(data).unwrap();
            *heard.lock().unwrap() = data["nonce"].as_str().map(str::to_owned);
        }
    };
    let builder = bot(&simulator).wire_tap_with_content(tap);
    let mut running = Running::start_with(simulator.clone(), builder).await;
    let keeper = running.keeper.clone();
    let elsewhere = GUILD + (1 << 40);
    let answer = async {
        let mine = loop {
            let mine = nonce.lock().unwrap().clone();
            match mine {
                Some(mine) => break mine,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let quoted = format!("not {mine}");
        for (nonce, place) in [(&mine, 2), (&quoted, 1), (&mine, 2), (&mine, 0), (&mine, 0), (&mine, 1)] {
            let members =
                serde_json::json!([{"user": {"id": place.to_string()}, "nick": format!("\"{mine}\"")}]);
            let data = serde_json::json!({"guild_id": elsewhere.to_string(), "members": members,
                "chunk_index": place, "chunk_count": 3, "nonce": nonce, "about": &mine});
            simulator.dispatch(0, "GUILD_MEMBERS_CHUNK", data).unwrap();
        }
        std::future::pending::<()>().await;
    };
    let ask = async {
        tokio::select! {
            all = keeper.members(RequestMembers::prefix(elsewhere, "m", 5)) => all.unwrap(),
            () = answer => unreachable!("it answers and waits"),
        }
    };
    let all = meanwhile(&mut running, ask).await;
    let members: Vec<Member> = all.members().unwrap();
    let ids: Vec<&str> = members.iter().map(|member| member.user.id.as_str()).collect();
    assert_eq!(ids, ["0", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn gw_217_218_every_chunk_is_collected_with_presences_and_what_was_not_found() {
    let mut running = Running::start(large(3500)).await;
    let keeper = running.keeper.clone();
    let all =
        meanwhile(&mut running, keeper.members(RequestMembers::all(GUILD).with_presences())).await.unwrap();
    assert_eq!((all.raw_members.len(), all.raw_presences.len()), (3500, 3500));
    let parsed: Vec<Member> = all.members().unwrap();
    let ids: std::collections::BTreeSet<&str> = parsed.iter().map(|member| member.user.id.as_str()).collect();
    assert_eq!(ids.len(), 3500);
    let known: u64 = parsed[7].user.id.parse().unwrap();
    let some = RequestMembers::users(GUILD, [known, 80_351_110_224_678_912]);
    let some = meanwhile(&mut running, keeper.members(some)).await.unwrap();
    assert_eq!((some.raw_members.len(), some.not_found.as_slice()), (1, &[80_351_110_224_678_912][..]));
    let found =
        meanwhile(&mut running, keeper.members(RequestMembers::prefix(GUILD, "member", 5))).await.unwrap();
    assert_eq!(found.raw_members.len(), 5);
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn equal_requests_share_one_answer_and_a_later_one_waits_for_its_turn() {
    let mut running = Running::start(large(50)).await;
    let keeper = running.keeper.clone();
    let start = Instant::now();
    let both = async {
        tokio::join!(
            keeper.members(RequestMembers::all(GUILD)),
            keeper.members(RequestMembers::all(GUILD).nonce("mine"))
        )
    };
    let (first, second) = meanwhile(&mut running, both).await;
    // The nonce makes the requests differ, so the second one waited.
    assert!(!Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
    assert!(start.elapsed() >= Duration::from_secs(30));
    let both = async {
        tokio::join!(keeper.members(RequestMembers::all(GUILD)), keeper.members(RequestMembers::all(GUILD)))
    };
    let (first, second) = meanwhile(&mut running, both).await;
    assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()), "one answer for both");
    assert_eq!((running.simulator.report().commands, running.simulator.report().members_limited), (3, 0));
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn gw_164_when_somebody_else_has_asked_the_answer_comes_when_discord_says() {
    let mut running = Running::start(large(50)).await;
    // Sent without the members service, as another process of the bot would do.
    running.keeper.command(Command::members(&RequestMembers::all(GUILD)).unwrap()).await.unwrap();
    let keeper = running.keeper.clone();
    let start = Instant::now();
    let all = meanwhile(&mut running, keeper.members(RequestMembers::all(GUILD))).await.unwrap();
    assert_eq!(all.raw_members.len(), 50);
    assert!(start.elapsed() >= Duration::from_secs(29), "{:?}", start.elapsed());
    assert_eq!(running.simulator.report().members_limited, 1);
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn gw_216_an_answer_goes_on_over_a_resume_and_fails_with_its_session() {
    let mut running = Running::start(large(2500)).await;
    let (keeper, simulator) = (running.keeper.clone(), running.simulator.clone());
    // The connection is cut as soon as the request was received.
    let cut = async {
        let before = simulator.report().commands;
        let (answer, ()) = tokio::join!(keeper.members(RequestMembers::all(GUILD)), async {
            simulator.wait_until(|report| report.commands > before).await;
            simulator.inject(0, Fault::Cut).unwrap();
        });
        answer
    };
    assert_eq!(meanwhile(&mut running, cut).await.unwrap().raw_members.len(), 2500);

    let lost = async {
        // The request is dropped by the simulator, so no chunk arrives; then the session ends.
        tokio::time::sleep(Duration::from_secs(31)).await;
        simulator.inject(0, Fault::Silence).unwrap();
        let before = simulator.report().commands;
        let (answer, ()) = tokio::join!(keeper.members(RequestMembers::all(GUILD)), async {
            simulator.wait_until(|report| report.commands > before).await;
            simulator.inject(0, Fault::Close { code: 4009 }).unwrap();
        });
        answer
    };
    let error = meanwhile(&mut running, lost).await.unwrap_err();
    assert!(matches!(error, MembersError::SessionLost { .. }), "{error}");
    running.no_violations();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_answered_times_out() {
    let mut running = Running::start(large(50)).await;
    let keeper = running.keeper.clone();
    running.simulator.inject(0, Fault::Silence).unwrap();
    let error = meanwhile(&mut running, keeper.members(RequestMembers::all(GUILD))).await.unwrap_err();
    assert_eq!(error.to_string(), "no chunk of members came within 30 s");
    let error = keeper.members(RequestMembers::prefix(GUILD, "", 1)).await.unwrap_err();
    assert!(error.to_string().starts_with("the prefix is empty"), "{error}");
}

#[test]
fn chunks_can_be_read_one_by_one_over_a_resume_too() {
    in_both_worlds(|| async {
        let mut running = Running::start(large(3500)).await;
        let (keeper, simulator) = (running.keeper.clone(), running.simulator.clone());
        let reading = async {
            let mut chunks = keeper.members_chunks(RequestMembers::all(GUILD));
            let mut members = 0;
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.unwrap();
                assert_eq!(chunk.chunk_count, 4);
                members += chunk.members.raw_members.len();
                if members == 1000 {
                    simulator.inject(0, Fault::Cut).unwrap();
                }
            }
            members
        };
        assert_eq!(meanwhile(&mut running, reading).await, 3500);
        running.check().await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_request_may_wait_for_the_limits_for_minutes() {
    let mut running = Running::start(large(50)).await;
    let keeper = running.keeper.clone();
    for _ in 0..400 {
        keeper.command(Command::members(&RequestMembers::prefix(GUILD, "m", 1)).unwrap()).await.unwrap();
    }
    let start = Instant::now();
    let all = meanwhile(&mut running, keeper.members(RequestMembers::all(GUILD))).await.unwrap();
    assert_eq!(all.raw_members.len(), 50);
    assert!(start.elapsed() > Duration::from_secs(170), "{:?}", start.elapsed());
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn gw_162_requests_that_had_to_wait_for_their_shard_are_half_a_minute_apart() {
    let mut running = Running::start(large(50)).await;
    let (keeper, simulator) = (running.keeper.clone(), running.simulator.clone());
    simulator.arm(ConnectFault::Hang, 10);
    simulator.inject(0, Fault::Cut).unwrap();
    let start = Instant::now();
    let both = async {
        tokio::join!(
            keeper.members(RequestMembers::all(GUILD)),
            keeper.members(RequestMembers::all(GUILD).with_presences())
        )
    };
    let (first, second) = meanwhile(&mut running, both).await;
    assert!(start.elapsed() > Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!((first.unwrap().raw_members.len(), second.unwrap().raw_presences.len()), (50, 50));
    assert_eq!(running.simulator.report().members_limited, 0);
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_new_session_is_answered_in_it() {
    let mut running = Running::start(large(50)).await;
    let keeper = running.keeper.clone();
    for _ in 0..20 {
        running.simulator.inject(0, Fault::Close { code: 4009 }).unwrap();
        running.until_shard(0, |change| matches!(change, Change::Disconnected { .. })).await;
        let some = keeper.members(RequestMembers::prefix(GUILD, "m", 5));
        assert_eq!(meanwhile(&mut running, some).await.unwrap().raw_members.len(), 5);
    }
    running.check().await;
}
