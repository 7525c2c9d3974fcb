//! Carrying out actions: faults, and changes of guilds, limits and the clock.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::action::Action;
use crate::discord::{Discord, State, ends_session};
use crate::emission::{Emission, Happenings, check_payload};
use crate::fault::{Fault, InjectError};
use crate::judgement;
use crate::link::{Link, Out, text};
use crate::script::Script;
use crate::settings::SessionFilter;

/// Carries out an action. If it takes long, other tasks run in between.
pub(crate) async fn perform(discord: &Arc<Discord>, action: &Action) -> Result<(), InjectError> {
    match emission(action) {
        Some(emission) => emission.send_in_turns(discord).await,
        None => match happenings(action) {
            Some(happenings) => happenings.send_in_turns(discord).await,
            None => act(discord, action),
        },
    }
}

/// Carries out an action at once.
pub(crate) fn act(discord: &Arc<Discord>, action: &Action) -> Result<(), InjectError> {
    if let Some(emission) = emission(action) {
        return emission.send(discord);
    }
    if let Some(happenings) = happenings(action) {
        return happenings.send(discord);
    }
    match *action {
        Action::Fault { shard: Some(shard), fault } => return inject(discord, shard, fault),
        Action::Fault { shard: None, fault } => {
            // Nothing happens if no session has a connection.
            let _ = inject_in(discord, SessionFilter::all(), fault);
            return Ok(());
        }
        Action::SessionFault { of, fault } => return inject_in(discord, of, fault),
        Action::Dispatch { ref of, ref event, ref data } => return dispatch(discord, of, event, data),
        Action::Traffic { on } => {
            // The lock is the one that events are generated under, so that none comes after `false`.
            let _state = discord.state();
            discord.traffic.send_replace(on);
            return Ok(());
        }
        _ => {}
    }
    let mut guard = discord.state();
    let state = &mut *guard;
    match *action {
        Action::Connect { fault, times } => state.faults.arm_connect(fault, times),
        Action::Host { host, fault, lasts_ms } => {
            state.faults.arm_host(host, fault, Duration::from_millis(lasts_ms));
        }
        Action::Rest { fault, times } => state.faults.arm_rest(fault, times),
        Action::Disarm => state.faults.disarm(),
        Action::GuildOutage { guild, lasts_ms } => {
            let place = place(state, guild)?;
            outage(state, place, true);
            let discord = Arc::clone(discord);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(lasts_ms)).await;
                let mut state = discord.state();
                outage(&mut state, place, false);
                discord.changed(state);
            });
        }
        Action::GuildLeave { guild } => set_joined(state, guild, false)?,
        Action::GuildJoin { guild } => set_joined(state, guild, true)?,
        Action::RevealChannel { guild } => {
            let place = place(state, guild)?;
            let guild = state.world.guild_mut(place);
            if guild.joined
                && guild.is_available()
                && let Some(channel) = guild.reveal()
            {
                state.publish("CHANNEL_UPDATE", Some(place), &channel);
            }
        }
        Action::Limits { shards, max_concurrency, remaining } => {
            state.identifies.change(shards, max_concurrency, remaining);
        }
        Action::Sharding { least_shards, max_guilds_per_shard, shard_multiple } => {
            let identifies = &mut state.identifies;
            identifies.least_shards = least_shards.unwrap_or(identifies.least_shards);
            identifies.max_guilds = max_guilds_per_shard.unwrap_or(identifies.max_guilds);
            identifies.multiple = shard_multiple.unwrap_or(identifies.multiple).max(1);
        }
        Action::Sessions { of, ref set } => state.sessions.set(of, set),
        Action::AllowIntents { intents } => {
            let withdrawn = state.access.allow_intents(intents);
            if withdrawn != 0 {
                // GW-189: all sessions end, whether they use the withdrawn intent or not.
                for session in state.sessions.all_mut() {
                    session.over = true;
                    if let Some(link) = &session.link {
                        link.send_later(Out::Close { code: 4003, reason: "session invalidated" });
                    }
                }
            }
        }
        Action::ClockJump { ms } => state.clock.jump(Duration::from_millis(ms)),
        _ => {}
    }
    discord.changed(guard);
    Ok(())
}

/// Makes a fault on the live connection of a shard's newest session.
fn inject(discord: &Arc<Discord>, shard_id: u32, fault: Fault) -> Result<(), InjectError> {
    let id = discord.state().sessions.newest(shard_id).cloned().unwrap_or_default();
    if inject_into(discord, id, fault) { Ok(()) } else { Err(InjectError::NotConnected { shard_id }) }
}

/// Makes a fault on the live connection of each session that the filter includes.
fn inject_in(discord: &Arc<Discord>, of: SessionFilter, fault: Fault) -> Result<(), InjectError> {
    let ids = discord.state().sessions.matching(&of);
    let made = ids.into_iter().filter(|id| inject_into(discord, id.clone(), fault)).count();
    if made > 0 { Ok(()) } else { Err(InjectError::NoSuchSession { of }) }
}

/// Sends exactly this event in each session that the filter includes.
fn dispatch(discord: &Discord, of: &SessionFilter, event: &str, data: &Value) -> Result<(), InjectError> {
    check_payload(event, data)?;
    let mut state = discord.state();
    let ids = state.sessions.matching(of);
    for id in &ids {
        state.answer(id, event, data.clone());
    }
    discord.changed(state);
    if ids.is_empty() { Err(InjectError::NoSuchSession { of: *of }) } else { Ok(()) }
}

/// Makes a fault on the connection of a session. Returns whether it has one.
pub(crate) fn inject_into(discord: &Arc<Discord>, id: String, fault: Fault) -> bool {
    let mut guard = discord.state();
    let state = &mut *guard;
    let now = state.now();
    let session = state.sessions.get_mut(&id);
    let Some((session, link)) = session.and_then(|session| session.link.clone().map(|link| (session, link)))
    else {
        return false;
    };
    let (shard_id, count) = (session.shard, session.count);
    match fault {
        Fault::StopAcking => link.stop_acking(),
        Fault::Silence => link.silence(),
        Fault::HalfOpen => link.half_open(),
        Fault::StallReading => link.stall_reading(),
        Fault::SlowWriting { bytes_per_second } => link.slow_writing(bytes_per_second),
        Fault::Cut => link.cut(),
        Fault::Corrupt => link.send(Out::Corrupt),
        Fault::Truncate => link.send(Out::Truncate),
        Fault::Reorder => link.reorder(),
        Fault::RequestHeartbeat => {
            link.request_heartbeat();
            expect_heartbeat(discord, shard_id, link);
        }
        Fault::Reconnect => {
            link.send_later(text(7, "null"));
            expect_reconnect(discord, shard_id, link);
        }
        Fault::InvalidSession { resumable } => {
            session.over |= !resumable;
            link.send_later(Out::InvalidSession { session: Some(id), resumable });
        }
        Fault::Close { code } => {
            session.over |= ends_session(code);
            link.send_later(Out::Close { code, reason: "fault" });
            state.refusals.close((shard_id, count), code, now);
        }
        Fault::Gap { count } => session.sequence += u64::from(count),
        Fault::Duplicate { count } => duplicate(state, &id, count as usize),
        Fault::Huge { bytes } => {
            let place = session.guilds.first().copied();
            let mut data = place.map_or(json!({}), |place| state.world.guild(place).properties());
            data["description"] = "x".repeat(bytes as usize).into();
            state.answer(&id, "GUILD_UPDATE", data);
        }
        Fault::Odd => {
            let data =
                json!({"_trace": [state.ledger.send(session.shard, session.ordinal)], "s": 1, "op": [2]});
            session.push_odd("SIMULATED_UNKNOWN_EVENT", &data.to_string());
            link.send(Out::Text(r#"{"d":{"x":[1]},"op":99,"z":0}"#.to_owned()));
            if link.acks() {
                link.send(Out::Text(r#"{"op":11}"#.to_owned()));
            }
        }
    }
    discord.changed(guard);
    true
}

/// Sends the newest events of a session again, as new dispatches.
fn duplicate(state: &mut State, id: &str, count: usize) {
    let newest = state.sessions.get(id).map(|session| session.newest(count));
    for payload in newest.unwrap_or_default() {
        let payload = serde_json::from_slice::<Value>(&payload).unwrap_or_default();
        let event = payload["t"].as_str().unwrap_or_default().to_owned();
        state.repeat(id, &event, payload["d"].clone());
    }
}

/// Expects the client to make a new connection after op 7 (GW-144). After the grace, this side closes the old
/// one (GW-145).
fn expect_reconnect(discord: &Arc<Discord>, shard_id: u32, link: Arc<Link>) {
    let discord = Arc::clone(discord);
    tokio::spawn(async move {
        tokio::time::sleep(discord.config.timings.reconnect_grace).await;
        if !link.is_gone() && !link.is_stalled() {
            discord.judge(
                judgement::RECONNECT_IGNORED,
                Some(shard_id),
                "op 7 was not followed by a new connection",
            );
            link.send_later(Out::Close { code: 4000, reason: "reconnect" });
        }
    });
}

/// Expects the client to answer op 1 with a heartbeat at once (GW-115).
fn expect_heartbeat(discord: &Arc<Discord>, shard_id: u32, link: Arc<Link>) {
    let discord = Arc::clone(discord);
    tokio::spawn(async move {
        tokio::time::sleep(discord.config.timings.heartbeat_tolerance).await;
        if !link.is_gone() && !link.is_stalled() && link.take_requested() {
            discord.judge(
                judgement::HEARTBEAT_NOT_GIVEN,
                Some(shard_id),
                "op 1 was not answered with a heartbeat",
            );
        }
    });
}

/// Carries out a script from now on.
pub(crate) async fn play(discord: Arc<Discord>, script: Script) {
    let begin = tokio::time::Instant::now();
    let mut over = discord.over.subscribe();
    for (at, action) in script.steps() {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(begin + at) => {}
            _ = over.wait_for(|over| *over) => return,
        }
        if let Err(error) = perform(&discord, action).await {
            tracing::warn!(?action, %error, "a step of the script had no effect");
        }
    }
}

fn emission(action: &Action) -> Option<Emission<'_>> {
    let Action::Emit { shard, count, event, data } = action else { return None };
    Some(Emission { shard_id: *shard, count: *count, event: event.as_deref(), data: data.as_ref() })
}

fn happenings(action: &Action) -> Option<Happenings<'_>> {
    let Action::Happen { guild, count, event, data } = action else { return None };
    Some(Happenings { guild: *guild, count: *count, event: event.as_deref(), data: data.as_ref() })
}

/// The index of a guild that an action names by its number.
fn place(state: &State, guild: u32) -> Result<usize, InjectError> {
    let place = guild as usize;
    if place < state.world.guilds().len() { Ok(place) } else { Err(InjectError::NoSuchGuild { guild }) }
}

/// Begins or ends an outage of a guild. Outages may overlap. If the bot has left the guild, no event is sent.
fn outage(state: &mut State, place: usize, begins: bool) {
    let guild = state.world.guild_mut(place);
    let before = guild.is_available();
    guild.outages = if begins { guild.outages + 1 } else { guild.outages.saturating_sub(1) };
    if guild.joined && before != guild.is_available() {
        state.publish_guild(place, false);
    }
}

/// Adds the bot to a guild, or removes it.
fn set_joined(state: &mut State, guild: u32, joined: bool) -> Result<(), InjectError> {
    let place = place(state, guild)?;
    if std::mem::replace(&mut state.world.guild_mut(place).joined, joined) != joined {
        // The bot leaves voice with the guild, and comes back without a presence.
        state.world.move_bot(place, "", None);
        let guild = state.world.guild_mut(place);
        guild.bot_presence = None;
        state.publish_guild(place, joined);
    }
    Ok(())
}
