//! The commands of a session: presence (op 3), voice (4), members (8), sounds (31) and channel info (43).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::discord::{Discord, State};
use crate::intents;
use crate::judge::Finding;
use crate::judgement::{self, Judgement};
use crate::world::{self, Member, Voice};

/// Members per GUILD_MEMBERS_CHUNK (GW-217).
const CHUNK: usize = 1000;
/// The most members that a search by name or by ids finds (GW-211).
const MAX_FOUND: usize = 100;
/// A longer nonce is ignored (GW-214).
const MAX_NONCE_BYTES: usize = 32;
/// A presence is published in no more than this many guilds of the session.
const MAX_FAN_OUT: usize = 100;

/// A command that was received in a session.
pub(crate) struct Command {
    pub(crate) op: u64,
    pub(crate) data: Value,
    pub(crate) session: String,
    /// When the client wrote the command, or when it was read, by tokio's clock.
    pub(crate) at: Instant,
}

/// The result of a command, apart from dispatches.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) findings: Vec<Finding>,
    /// The close frame that answers the command.
    pub(crate) close: Option<(u16, &'static str)>,
}

impl Outcome {
    fn judge(&mut self, judgement: &'static Judgement, detail: impl Into<String>) {
        self.findings.push((judgement, detail.into()));
    }
}

/// Carries out a command.
pub(crate) fn run(discord: &Discord, command: &Command) -> Outcome {
    let mut outcome = Outcome::default();
    let mut state = discord.state();
    let at = state.clock.at(command.at);
    let mut desk = Desk { state: &mut state, session: &command.session, outcome: &mut outcome };
    match command.op {
        3 => desk.presence(&command.data),
        4 => desk.voice(&command.data),
        8 => desk.members(&command.data, at, discord.config.timings.members_window),
        31 => desk.sounds(&command.data),
        _ => desk.channel_info(&command.data),
    }
    discord.changed(state);
    outcome
}

/// The session of a command, and everything that its handler may change.
struct Desk<'a> {
    state: &'a mut State,
    session: &'a str,
    outcome: &'a mut Outcome,
}

impl Desk<'_> {
    fn answer(&mut self, event: &str, data: Value) {
        self.state.answer(self.session, event, data);
    }

    fn intents(&self) -> u64 {
        self.state.sessions.get(self.session).map_or(0, |session| session.audience.intents)
    }

    /// The guild with this id, which may be text or a number. `None` if it belongs to another session, or is
    /// in an outage: then the command has no answer (GW-208, GW-215, GW-222).
    fn guild(&mut self, id: &Value, judgement: &'static Judgement) -> Option<usize> {
        let place = number(id).and_then(|id| self.state.world.find(id));
        let session = self.state.sessions.get(self.session)?;
        let own = place.filter(|place| session.guilds.contains(place));
        if own.is_none() {
            self.outcome
                .judge(judgement, format!("a command for guild {id}, which does not belong to this session"));
        }
        own.filter(|place| self.state.world.guild(*place).is_available())
    }

    /// Sets the bot's presence. Other sessions of the same guilds receive it too.
    fn presence(&mut self, presence: &Value) {
        let Some(session) = self.state.sessions.get_mut(self.session) else { return };
        session.presence = Some(presence.clone());
        let (shard, guilds) = (session.shard, session.guilds.clone());
        self.state.report.presences.insert(shard, presence.clone());
        let status = match presence["status"].as_str() {
            Some("invisible") | None => "offline",
            Some(status) => status,
        };
        let client = if status == "offline" { json!({}) } else { json!({"web": status}) };
        let activities = shown_activities(&presence["activities"]);
        for place in guilds.into_iter().take(MAX_FAN_OUT) {
            let guild = self.state.world.guild_mut(place);
            let update = json!({
                "user": {"id": world::BOT.to_string()}, "guild_id": guild.id.to_string(), "status": status,
                "client_status": client, "activities": activities,
            });
            guild.bot_presence = Some(update.clone());
            if guild.is_available() {
                self.state.publish("PRESENCE_UPDATE", Some(place), &update);
            }
        }
    }

    /// Moves the bot in voice (GW-201: four fields are required; GW-202: joining has two events; GW-205: a
    /// full channel has no answer).
    fn voice(&mut self, data: &Value) {
        for field in ["guild_id", "channel_id", "self_mute", "self_deaf"] {
            if data.get(field).is_none() {
                self.outcome.judge(judgement::VOICE_INCOMPLETE, format!("op 4 without {field}"));
            }
        }
        let Some(place) = self.guild(&data["guild_id"], judgement::VOICE_ELSEWHERE) else { return };
        // GW-203: each connection gets a new token, which is made from this number.
        let event = self.state.world.next_event();
        let guild = self.state.world.guild(place);
        let to = match &data["channel_id"] {
            Value::Null => None,
            wanted => match number(wanted).filter(|id| guild.is_spoken(*id)) {
                Some(channel) => Some(channel),
                None => {
                    let detail =
                        format!("op 4 for channel {wanted}, which is not a voice channel of the guild");
                    return self.outcome.judge(judgement::VOICE_ELSEWHERE, detail);
                }
            },
        };
        let flag = |field: &str| data[field].as_bool().unwrap_or(false);
        let to =
            to.map(|channel| Voice { channel, self_mute: flag("self_mute"), self_deaf: flag("self_deaf") });
        let in_second = |voice: &&Voice| voice.channel == guild.voice_channels[1];
        let is_full = guild.voice.iter().any(|(user, voice)| *user != world::BOT && in_second(&voice));
        // The second channel takes one member only. A command for a full channel has no answer.
        if to.as_ref().is_some_and(|voice| in_second(&voice) && is_full) {
            return;
        }
        let id = guild.id;
        let Some(update) = self.state.world.move_bot(place, self.session, to) else { return };
        self.state.publish("VOICE_STATE_UPDATE", Some(place), &update);
        if to.is_some() {
            let server = world::voice_server(id, event);
            self.answer("VOICE_SERVER_UPDATE", server);
        }
    }

    /// Sends members of a guild: all of them, those whose name has a prefix, or those with certain ids.
    fn members(&mut self, data: &Value, at: Instant, window: Duration) {
        if data["guild_id"].is_array() {
            self.outcome.judge(judgement::MEMBERS_OF_GUILDS, "op 8 with a list of guilds");
            self.outcome.close = Some((4002, "Decode error."));
            return;
        }
        let by_ids = data.get("user_ids").is_some_and(|ids| !ids.is_null());
        let query = data.get("query").and_then(Value::as_str);
        if by_ids == query.is_some() {
            self.outcome
                .judge(judgement::MEMBERS_AMBIGUOUS, "op 8 with not exactly one of query and user_ids");
        }
        let Some(place) = self.guild(&data["guild_id"], judgement::GUILD_ELSEWHERE) else { return };
        let intents = self.intents();
        let with_presences =
            data["presences"].as_bool().unwrap_or(false) && intents & intents::GUILD_PRESENCES != 0;
        let nonce = self.nonce(data);
        let guild = self.state.world.guild(place);
        let (guild_id, mut not_found) = (guild.id, Vec::new());
        let found: Vec<Member> = match query {
            Some("") if data["limit"].as_u64().unwrap_or(0) == 0 => {
                if intents & intents::GUILD_MEMBERS == 0 {
                    self.outcome.judge(
                        judgement::MEMBERS_WITHOUT_INTENT,
                        "op 8 for all members without the intent GUILD_MEMBERS",
                    );
                    return;
                }
                if let Some(wait) = self.state.member_requests.admit(guild_id, at, window) {
                    return self.rate_limited(guild_id, nonce, wait);
                }
                if data.get("limit").is_none() {
                    self.outcome.judge(judgement::MEMBERS_AMBIGUOUS, "op 8 with a query and without a limit");
                }
                let guild = self.state.world.guild(place);
                std::iter::once(Member::Bot).chain(guild.humans()).collect()
            }
            Some(prefix) if !by_ids => {
                let limit = data["limit"].as_u64().unwrap_or(0).clamp(1, MAX_FOUND as u64) as usize;
                let all = std::iter::once(Member::Bot).chain(guild.humans());
                all.filter(|member| member.name().starts_with(prefix)).take(limit).collect()
            }
            _ => {
                let ids = match &data["user_ids"] {
                    Value::Array(ids) => ids.clone(),
                    one => vec![one.clone()],
                };
                if ids.len() > MAX_FOUND {
                    self.outcome
                        .judge(judgement::MEMBERS_TOO_MANY, format!("op 8 with {} user_ids", ids.len()));
                }
                let mut found = Vec::new();
                for id in ids.iter().take(MAX_FOUND) {
                    match number(id).and_then(|id| guild.member(id)) {
                        Some(member) => found.push(member),
                        None => not_found.push(echoed(id)),
                    }
                }
                found
            }
        };
        self.chunks(place, &found, &not_found, with_presences, nonce);
    }

    /// The nonce of a command. One that is too long is ignored silently (GW-214).
    fn nonce(&mut self, data: &Value) -> Option<String> {
        let nonce = data.get("nonce").and_then(Value::as_str)?;
        if nonce.len() > MAX_NONCE_BYTES {
            self.outcome.judge(judgement::NONCE_TOO_LONG, format!("a nonce of {} bytes", nonce.len()));
            return None;
        }
        Some(nonce.to_owned())
    }

    /// Answers a request for all members that came too early with RATE_LIMITED (GW-163).
    fn rate_limited(&mut self, guild: u64, nonce: Option<String>, wait: Duration) {
        let mut meta = json!({"guild_id": guild.to_string()});
        if let Some(nonce) = nonce {
            meta["nonce"] = nonce.into();
        }
        self.state.report.members_limited += 1;
        self.answer("RATE_LIMITED", json!({"opcode": 8, "retry_after": wait.as_secs_f64(), "meta": meta}));
    }

    /// Sends members in chunks of 1000 (GW-217), with the ids that were not found (GW-219). If there are no
    /// members, one empty chunk is sent.
    fn chunks(
        &mut self,
        place: usize,
        found: &[Member],
        not_found: &[Value],
        presences: bool,
        nonce: Option<String>,
    ) {
        let count = found.len().div_ceil(CHUNK).max(1);
        for index in 0..count {
            let members = &found[index * CHUNK..found.len().min((index + 1) * CHUNK)];
            let guild = self.state.world.guild(place);
            let mut data = json!({
                "guild_id": guild.id.to_string(), "chunk_index": index, "chunk_count": count,
                "members": members.iter().map(|member| guild.member_object(*member, true)).collect::<Vec<_>>(),
            });
            if presences {
                let update = members.iter().map(|member| world::without(guild.presence(*member), "guild_id"));
                data["presences"] = update.collect::<Vec<_>>().into();
            }
            if !not_found.is_empty() {
                data["not_found"] = not_found.into();
            }
            if let Some(nonce) = &nonce {
                data["nonce"] = nonce.clone().into();
            }
            self.answer("GUILD_MEMBERS_CHUNK", data);
        }
    }

    /// Sends the sounds of guilds (GW-221: one event per guild; GW-222: only for guilds of this session).
    fn sounds(&mut self, data: &Value) {
        let Some(ids) = data["guild_ids"].as_array() else {
            self.outcome.judge(judgement::SOUNDS_INCOMPLETE, "op 31 without guild_ids");
            return;
        };
        for id in ids {
            if let Some(place) = self.guild(id, judgement::SOUNDS_ELSEWHERE) {
                let guild = self.state.world.guild(place);
                let sounds = guild.sound_objects();
                let sounds = json!({"guild_id": guild.id.to_string(), "soundboard_sounds": sounds});
                self.answer("SOUNDBOARD_SOUNDS", sounds);
            }
        }
    }

    /// Sends status and start time of voice channels (GW-224: only the requested fields; GW-226: only
    /// channels with them).
    fn channel_info(&mut self, data: &Value) {
        let Some(fields) = data["fields"].as_array() else {
            self.outcome.judge(judgement::CHANNEL_INFO_FIELDS, "op 43 without fields");
            return;
        };
        let unknown =
            fields.iter().find(|field| !matches!(field.as_str(), Some("status" | "voice_start_time")));
        if let Some(unknown) = unknown {
            self.outcome.judge(judgement::CHANNEL_INFO_FIELDS, format!("op 43 with field {unknown}"));
        }
        let Some(place) = self.guild(&data["guild_id"], judgement::GUILD_ELSEWHERE) else { return };
        let guild = self.state.world.guild(place);
        let asked = |field: &str| fields.iter().any(|asked| asked == field);
        let channels: Vec<Value> = guild
            .voice_channels
            .iter()
            .map(|channel| {
                let mut info = json!({"id": channel.to_string()});
                if asked("status") {
                    info["status"] = guild.voice_status(*channel).into();
                }
                if asked("voice_start_time") {
                    info["voice_start_time"] = guild.voice_start(*channel).into();
                }
                info
            })
            .collect();
        let info = json!({"guild_id": guild.id.to_string(), "channels": channels});
        self.answer("CHANNEL_INFO", info);
    }
}

/// The activities as others see them: bots can set only name, state, type and URL (GW-194).
fn shown_activities(activities: &Value) -> Value {
    let update = activities.as_array().into_iter().flatten().map(|activity| {
        let mut update = json!({"id": "ec0b28a579ecb4bd", "created_at": 1_790_000_000_000_u64});
        for field in ["name", "state", "type", "url"] {
            if let Some(value) = activity.get(field) {
                update[field] = value.clone();
            }
        }
        update
    });
    Value::Array(update.collect())
}

/// An id, as text or as a number.
fn number(id: &Value) -> Option<u64> {
    id.as_u64().or_else(|| id.as_str()?.parse().ok())
}

/// An id in `not_found`: an integer if it is too small for a snowflake, otherwise text (GW-025, GW-219).
fn echoed(id: &Value) -> Value {
    match number(id) {
        Some(small) if small < 1 << 22 => small.into(),
        Some(id) => id.to_string().into(),
        None => id.clone(),
    }
}
