//! Calls to the handle of a process. Each must be answered within its time limit.

use std::sync::Arc;

use shardkeeper::command::{RequestMembers, VoiceStateUpdate};
use shardkeeper::{Activity, OnlineStatus, Presence, ShardId};

use crate::checkers::answers::{AT_ONCE, COLLECTING, SENDING};
use crate::plan::Ask;
use crate::world::World;

/// The id of the simulator's guild with this number. Consecutive numbers differ in the bits that determine
/// the shard.
pub(crate) fn guild_id(number: u32) -> u64 {
    let number = u64::from(number);
    ((281_474_976 + number) << 22) | number
}

/// Makes a call, and records its answer.
pub(crate) async fn ask(world: Arc<World>, ask: Ask) {
    let place = match ask {
        Ask::Presence { shard: Some(shard), .. } => {
            world.state().owners.get(&shard).copied().unwrap_or_default()
        }
        Ask::Voice { guild } | Ask::Members { guild, .. } | Ask::Flood { guild, .. } => {
            // Computed here instead of by the library, since the process may not be running.
            let shard =
                u32::try_from((guild_id(guild) >> 22) % u64::from(world.plan.shards)).unwrap_or_default();
            world.state().owners.get(&shard).copied().unwrap_or_default()
        }
        _ => 0,
    };
    let Some(keeper) = world.keeper(place) else { return };
    let answers = &world.answers;
    let answer = match ask {
        Ask::Status => {
            let status = answers.within(AT_ONCE, "status", keeper.status()).await.and_then(Result::ok);
            let sessions = answers.within(AT_ONCE, "sessions", keeper.sessions()).await;
            let sessions = sessions.and_then(Result::ok).unwrap_or_default();
            let phases = status
                .map(|status| status.shards.iter().map(|shard| shard.phase.to_string()).collect::<Vec<_>>());
            format!("{phases:?}, {} sessions", sessions.len())
        }
        Ask::Presence { shard: None, number } => {
            let presence =
                Presence::new(OnlineStatus::Online).activity(Activity::playing(number.to_string()));
            format!(
                "{:?}",
                answers.within(AT_ONCE, "update_presence", keeper.update_presence(presence)).await
            )
        }
        Ask::Presence { shard: Some(shard), number } => {
            let presence = Presence::new(OnlineStatus::Idle).activity(Activity::playing(number.to_string()));
            let call = keeper.update_presence_on([ShardId(shard)], presence);
            format!("{:?}", answers.within(AT_ONCE, "update_presence_on", call).await)
        }
        Ask::Voice { guild } => {
            let command = VoiceStateUpdate::leave(guild_id(guild));
            match answers.within(AT_ONCE, "command", keeper.command(command)).await {
                Some(Ok(accepted)) => {
                    format!("{:?}", answers.within(SENDING, "written", accepted.written()).await)
                }
                rejected => format!("{rejected:?}"),
            }
        }
        Ask::Members { guild, all } => {
            let guild_id = guild_id(guild);
            let request =
                if all { RequestMembers::all(guild_id) } else { RequestMembers::prefix(guild_id, "a", 10) };
            match answers.within(COLLECTING, "members", keeper.members(request)).await {
                Some(Ok(members)) => format!("{} members", members.raw_members.len()),
                failed => format!("{failed:?}"),
            }
        }
        Ask::Sounds { guild } => {
            let guilds = [guild_id(guild), guild_id(0)];
            let call = keeper.request_soundboard_sounds(&guilds);
            format!("{:?}", answers.within(2 * AT_ONCE, "request_soundboard_sounds", call).await)
        }
        Ask::Flood { guild, count } => {
            let mut accepted = Vec::new();
            for _ in 0..count {
                let command = VoiceStateUpdate::leave(guild_id(guild));
                accepted.extend(
                    answers.within(AT_ONCE, "command", keeper.command(command)).await.and_then(Result::ok),
                );
            }
            let taken = accepted.len();
            let mut written = 0;
            for command in accepted {
                written +=
                    usize::from(answers.within(SENDING, "written", command.written()).await == Some(Ok(())));
            }
            format!("{taken} of {count} commands accepted, {written} written")
        }
    };
    world.trace.note("bot", format_args!("{ask:?}: {answer}"));
}
