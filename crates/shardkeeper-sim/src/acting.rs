//! Carrying out actions: faults, and what is done to guilds, limits and the clock.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::action::Action;
use crate::discord::{Discord, State, text};
use crate::fault::{Fault, InjectError};
use crate::intents;
use crate::judgement;
use crate::link::{Link, Out};
use crate::script::Script;
use crate::traffic::Emission;
use crate::world::Member;

impl Discord {
    /// Carries out an action; one that takes long lets others have their turn.
    pub(crate) async fn perform(self: &Arc<Self>, action: &Action) -> Result<(), InjectError> {
        match emission(action) {
            Some(emission) => self.emit_in_turns(emission).await,
            None => self.act(action),
        }
    }

    /// Carries out an action at once.
    pub(crate) fn act(self: &Arc<Self>, action: &Action) -> Result<(), InjectError> {
        let limit = self.config.replay_limit;
        if let Some(emission) = emission(action) {
            return self.emit(emission);
        }
        match *action {
            Action::Fault { shard: Some(shard), fault } => return self.inject(shard, fault),
            Action::Fault { shard: None, fault } => {
                let shards: Vec<u32> = self.state().newest.keys().copied().collect();
                for shard in shards {
                    // One that is between connections is spared.
                    let _ = self.inject(shard, fault);
                }
                return Ok(());
            }
            Action::Traffic { on } => {
                // Under the lock that events are generated under: after this not one more.
                let _state = self.state();
                self.traffic.send_replace(on);
                return Ok(());
            }
            _ => {}
        }
        let mut guard = self.state();
        let state = &mut *guard;
        match *action {
            Action::Connect { fault, times } => state.armed.push_back((fault, times)),
            Action::Host { host, fault, lasts_ms } => {
                state.hosts.arm(host, fault, Duration::from_millis(lasts_ms));
            }
            Action::Rest { fault, times } => state.armed_rest.push_back((fault, times)),
            Action::GuildOutage { guild, lasts_ms } => {
                let place = state.place(guild)?;
                state.outage(place, true, limit);
                let discord = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(lasts_ms)).await;
                    let mut state = discord.state();
                    state.outage(place, false, limit);
                    discord.changed(state);
                });
            }
            Action::GuildLeave { guild } => state.set_joined(guild, false, limit)?,
            Action::GuildJoin { guild } => state.set_joined(guild, true, limit)?,
            Action::RevealChannel { guild } => {
                let place = state.place(guild)?;
                let guild = state.world.guild_mut(place);
                if guild.joined
                    && guild.is_available()
                    && let Some(channel) = guild.reveal()
                {
                    state.publish("CHANNEL_UPDATE", Some(place), &channel, limit);
                }
            }
            Action::Disarm => {
                state.armed.clear();
                state.hosts.disarm();
                state.armed_rest.clear();
            }
            Action::Limits { shards, max_concurrency, remaining } => {
                let limits = &mut state.limits;
                limits.shards = shards.unwrap_or(limits.shards);
                limits.max_concurrency = max_concurrency.unwrap_or(limits.max_concurrency).max(1);
                limits.remaining = remaining.unwrap_or(limits.remaining).min(limits.total);
            }
            Action::AllowIntents { intents } => {
                let withdrawn = state.allowed_intents & !intents & intents::PRIVILEGED;
                state.allowed_intents = intents;
                if withdrawn != 0 {
                    // GW-189: withdrawing an intent ends every session, whether it uses the intent or not.
                    for session in state.sessions.values_mut() {
                        session.over = true;
                        if let Some(link) = &session.link {
                            link.send_later(Out::Close { code: 4003, reason: "session invalidated" });
                        }
                    }
                }
            }
            Action::ClockJump { ms } => state.skew += Duration::from_millis(ms),
            _ => {}
        }
        self.changed(guard);
        Ok(())
    }

    /// Makes a fault on the live connection of a shard.
    fn inject(self: &Arc<Self>, shard_id: u32, fault: Fault) -> Result<(), InjectError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let id = state.newest.get(&shard_id).cloned().unwrap_or_default();
        let session = state.sessions.get_mut(&id);
        let Some((session, link)) =
            session.and_then(|session| session.link.clone().map(|link| (session, link)))
        else {
            return Err(InjectError::NotConnected { shard_id });
        };
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
                self.expect_heartbeat(shard_id, link);
            }
            Fault::Reconnect => {
                link.send_later(text(7, "null"));
                self.expect_reconnect(shard_id, link);
            }
            Fault::InvalidSession { resumable } => {
                session.over |= !resumable;
                link.send_later(Out::InvalidSession { session: Some(id), resumable });
            }
            Fault::Close { code } => {
                session.over |= matches!(code, 4003 | 4004 | 4006 | 4007 | 4009..=4014);
                link.send_later(Out::Close { code, reason: "fault" });
                state.refuse(shard_id, code);
            }
            Fault::Gap { count } => session.sequence += u64::from(count),
            Fault::Duplicate { .. } | Fault::Huge { .. } | Fault::Odd => {
                state.disturb(&id, fault, self.config.replay_limit);
                if fault == Fault::Odd {
                    link.send(Out::Text(r#"{"d":{"x":[1]},"op":99,"z":0}"#.to_owned()));
                    if link.acks() {
                        link.send(Out::Text(r#"{"op":11}"#.to_owned()));
                    }
                }
            }
        }
        self.changed(guard);
        Ok(())
    }

    /// GW-144: whoever was asked for a new connection closes the old one, before this side does (GW-145).
    fn expect_reconnect(self: &Arc<Self>, shard_id: u32, link: Arc<Link>) {
        let discord = Arc::clone(self);
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

    /// GW-115: a heartbeat that was asked for comes at once.
    fn expect_heartbeat(self: &Arc<Self>, shard_id: u32, link: Arc<Link>) {
        let discord = Arc::clone(self);
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

    /// Carries out a script, from now on.
    pub(crate) async fn play(self: Arc<Self>, script: Script) {
        let begin = tokio::time::Instant::now();
        let mut over = self.over.subscribe();
        for (at, action) in script.steps() {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(begin + at) => {}
                _ = over.wait_for(|over| *over) => return,
            }
            if let Err(error) = self.perform(action).await {
                tracing::warn!(?action, %error, "a step of the script had no effect");
            }
        }
    }

    /// One of the faults that a client has to survive, at a random shard.
    pub(crate) fn random_fault(self: &Arc<Self>) {
        let mut state = self.state();
        let shards: Vec<u32> = state.newest.keys().copied().collect();
        let Some(shard) = state.random.choice(&shards).copied() else { return };
        let random = &mut state.random;
        let fault = match random.u32(0..16) {
            0 | 1 => Fault::Reconnect,
            2 | 3 => Fault::Cut,
            4 => Fault::StopAcking,
            5 => Fault::HalfOpen,
            6 => Fault::InvalidSession { resumable: true },
            7 => Fault::InvalidSession { resumable: false },
            8 => Fault::Close { code: [1000, 1001, 4000, 4001, 4002, 4005, 4008][random.usize(..7)] },
            9 => Fault::Close { code: [4007, 4009][random.usize(..2)] },
            10 => Fault::Corrupt,
            11 => Fault::Truncate,
            12 => Fault::RequestHeartbeat,
            13 => Fault::Duplicate { count: random.u32(1..5) },
            14 => Fault::Gap { count: random.u32(1..50) },
            _ => Fault::Odd,
        };
        drop(state);
        tracing::info!(shard, ?fault, "fault");
        // A shard that is between connections is spared.
        let _ = self.inject(shard, fault);
    }
}

fn emission(action: &Action) -> Option<Emission<'_>> {
    let Action::Emit { shard, count, event, data } = action else { return None };
    Some(Emission { shard_id: *shard, count: *count, event: event.as_deref(), data: data.as_ref() })
}

impl State {
    fn place(&self, guild: u32) -> Result<usize, InjectError> {
        let place = guild as usize;
        if place < self.world.guilds().len() { Ok(place) } else { Err(InjectError::NoSuchGuild { guild }) }
    }

    /// An outage of a guild begins or ends. Outages may overlap; and of a guild that the bot has left it hears nothing.
    fn outage(&mut self, place: usize, begins: bool, limit: usize) {
        let guild = self.world.guild_mut(place);
        let before = guild.is_available();
        guild.outages = if begins { guild.outages + 1 } else { guild.outages.saturating_sub(1) };
        if guild.joined && before != guild.is_available() {
            self.publish_guild(place, false, limit);
        }
    }

    fn set_joined(&mut self, guild: u32, joined: bool, limit: usize) -> Result<(), InjectError> {
        let place = self.place(guild)?;
        let guild = self.world.guild_mut(place);
        if std::mem::replace(&mut guild.joined, joined) != joined {
            // Who is removed is no longer in voice, and comes back without a presence.
            guild.move_voice(Member::Bot, None, 0);
            guild.bot_presence = None;
            self.publish_guild(place, joined, limit);
        }
        Ok(())
    }

    /// GW-166: a bot that reaches the limit of Identify loses its sessions and its token.
    pub(crate) fn reset_token(&mut self) {
        self.token_reset = true;
        for session in self.sessions.values_mut() {
            session.over = true;
            if let Some(link) = &session.link {
                link.send(Out::Close { code: 4004, reason: "Authentication failed." });
            }
        }
    }

    /// Remembers a close code that forbids to come back (GW-095, GW-096).
    pub(crate) fn refuse(&mut self, shard: u32, code: u16) {
        if matches!(code, 4004 | 4010..=4014) {
            self.refused.insert(shard, code);
        }
        if matches!(code, 4004 | 4012..=4014) {
            let now = self.now();
            self.bot_refused.get_or_insert((code, now));
        }
    }

    /// Dispatches in one session that have no cause in its guilds.
    fn disturb(&mut self, id: &str, fault: Fault, limit: usize) {
        match fault {
            Fault::Duplicate { count } => {
                let newest = self.sessions.get(id).map(|session| session.newest(count as usize));
                for payload in newest.unwrap_or_default() {
                    let payload = serde_json::from_slice::<Value>(&payload).unwrap_or_default();
                    let event = payload["t"].as_str().unwrap_or_default().to_owned();
                    self.answer(id, &event, payload["d"].clone(), limit);
                }
            }
            Fault::Huge { bytes } => {
                let place = self.sessions.get(id).and_then(|session| session.guilds.first().copied());
                let mut data = place.map_or(json!({}), |place| self.world.guild(place).properties());
                data["description"] = "x".repeat(bytes as usize).into();
                self.answer(id, "GUILD_UPDATE", data, limit);
            }
            _ => {
                let Some(session) = self.sessions.get_mut(id) else { return };
                let data =
                    json!({"_trace": [self.ledger.send(session.shard, session.ordinal)], "s": 1, "op": [2]});
                session.push_odd("SIMULATED_UNKNOWN_EVENT", &data.to_string(), limit);
            }
        }
    }
}
