//! What a session is asked for, and gets: presences, voice, members, sounds, channel info (sections 11 to 14).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::discord::{Discord, State};
use crate::intents;
use crate::judge::Finding;
use crate::judgement::{self, Judgement};
use crate::world::{self, Member, Voice};

/// Members per chunk (GW-217).
const CHUNK: usize = 1000;
/// Members that a search by name or by ids gives (GW-211).
const MAX_FOUND: usize = 100;
const MAX_NONCE_BYTES: usize = 32;
/// A presence is told to so many guilds of the session.
const MAX_FAN_OUT: usize = 100;

/// A command of a session.
pub(crate) struct Command {
    pub(crate) op: u64,
    pub(crate) data: Value,
    pub(crate) session: String,
    pub(crate) at: Instant,
}

/// What a command has brought its client, apart from dispatches.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) findings: Vec<Finding>,
    pub(crate) close: Option<(u16, &'static str)>,
}

impl Outcome {
    fn judge(&mut self, judgement: &'static Judgement, detail: impl Into<String>) {
        self.findings.push((judgement, detail.into()));
    }
}

impl Discord {
    /// Carries out a command.
    pub(crate) fn command_of(&self, command: &Command) -> Outcome {
        let mut outcome = Outcome::default();
        let mut state = self.state();
        let at = command.at + state.skew;
        let mut desk = Desk {
            state: &mut state,
            session: &command.session,
            limit: self.config.replay_limit,
            outcome: &mut outcome,
        };
        match command.op {
            3 => desk.presence(&command.data),
            4 => desk.voice(&command.data),
            8 => desk.members(&command.data, at, self.config.timings.members_window),
            31 => desk.sounds(&command.data),
            _ => desk.channel_info(&command.data),
        }
        self.changed(state);
        outcome
    }
}

/// Where the commands of one session are dealt with.
struct Desk<'a> {
    state: &'a mut State,
    session: &'a str,
    limit: usize,
    outcome: &'a mut Outcome,
}

impl Desk<'_> {
    fn answer(&mut self, event: &str, data: Value) {
        self.state.answer(self.session, event, data, self.limit);
    }

    fn intents(&self) -> u64 {
        self.state.sessions.get(self.session).map_or(0, |session| session.audience.intents)
    }

    /// The guild, by its id as text or as a number, if it is one of this session's; else nothing comes (GW-208, GW-215,
    /// GW-222).
    fn guild(&mut self, id: &Value, judgement: &'static Judgement) -> Option<usize> {
        let place = number(id).and_then(|id| self.state.world.find(id));
        let session = self.state.sessions.get(self.session)?;
        let own = place.filter(|place| session.guilds.contains(place));
        if own.is_none() {
            self.outcome.judge(judgement, format!("a command for guild {id}, which is not of this session"));
        }
        // From a guild in an outage nothing comes.
        own.filter(|place| self.state.world.guild(*place).is_available())
    }

    /// Other sessions of the same guilds hear of it too.
    fn presence(&mut self, presence: &Value) {
        let Some(session) = self.state.sessions.get(self.session) else { return };
        let (shard, guilds) = (session.shard, session.guilds.clone());
        self.state.report.presences.insert(shard, presence.clone());
        let status = match presence["status"].as_str() {
            Some("invisible") | None => "offline",
            Some(status) => status,
        };
        let client = if status == "offline" { json!({}) } else { json!({"web": status}) };
        let activities = told_activities(&presence["activities"]);
        for place in guilds.into_iter().take(MAX_FAN_OUT) {
            let guild = self.state.world.guild_mut(place);
            let told = json!({
                "user": {"id": world::BOT.to_string()}, "guild_id": guild.id.to_string(), "status": status,
                "client_status": client, "activities": activities,
            });
            guild.bot_presence = Some(told.clone());
            if guild.is_available() {
                self.state.publish("PRESENCE_UPDATE", Some(place), &told, self.limit);
            }
        }
    }

    /// GW-201: all four fields are needed. GW-202: joining brings two events. GW-205: a full channel does not answer.
    fn voice(&mut self, data: &Value) {
        for field in ["guild_id", "channel_id", "self_mute", "self_deaf"] {
            if data.get(field).is_none() {
                self.outcome.judge(judgement::VOICE_INCOMPLETE, format!("op 4 without {field}"));
            }
        }
        let Some(place) = self.guild(&data["guild_id"], judgement::VOICE_ELSEWHERE) else { return };
        // The token is a new one each time (GW-203).
        self.state.happenings += 1;
        let now = world::seconds(self.state.happenings);
        let guild = self.state.world.guild_mut(place);
        let to = match &data["channel_id"] {
            Value::Null => None,
            wanted => match number(wanted).filter(|id| guild.is_spoken(*id)) {
                Some(channel) => Some(channel),
                None => {
                    let detail = format!("op 4 for channel {wanted}, which is no voice channel of the guild");
                    return self.outcome.judge(judgement::VOICE_ELSEWHERE, detail);
                }
            },
        };
        let flag = |field: &str| data[field].as_bool().unwrap_or(false);
        let to =
            to.map(|channel| Voice { channel, self_mute: flag("self_mute"), self_deaf: flag("self_deaf") });
        let in_second = |voice: &&Voice| voice.channel == guild.voice_channels[1];
        let is_full = guild.voice.iter().any(|(user, voice)| *user != world::BOT && in_second(&voice));
        // The second one is for one member only; when it is full there is no answer at all.
        if to.as_ref().is_some_and(|voice| in_second(&voice) && is_full)
            || !guild.move_voice(Member::Bot, to, now)
        {
            return;
        }
        let told = guild.voice_state(Member::Bot, to);
        let id = guild.id;
        self.state.publish("VOICE_STATE_UPDATE", Some(place), &told, self.limit);
        if to.is_some() {
            let server = world::voice_server(id, self.state.happenings);
            self.answer("VOICE_SERVER_UPDATE", server);
        }
    }

    /// Section 13.
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
                if let Some(wait) = self.state.wait_for_members(guild_id, at, window) {
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

    /// GW-214: a nonce that is too long is ignored without a word.
    fn nonce(&mut self, data: &Value) -> Option<String> {
        let nonce = data.get("nonce").and_then(Value::as_str)?;
        if nonce.len() > MAX_NONCE_BYTES {
            self.outcome.judge(judgement::NONCE_TOO_LONG, format!("a nonce of {} bytes", nonce.len()));
            return None;
        }
        Some(nonce.to_owned())
    }

    /// GW-163: a request for all members above the limit is answered with RATE_LIMITED and dropped.
    fn rate_limited(&mut self, guild: u64, nonce: Option<String>, wait: Duration) {
        let mut meta = json!({"guild_id": guild.to_string()});
        if let Some(nonce) = nonce {
            meta["nonce"] = nonce.into();
        }
        self.state.report.members_limited += 1;
        self.answer("RATE_LIMITED", json!({"opcode": 8, "retry_after": wait.as_secs_f64(), "meta": meta}));
    }

    /// GW-217: at most 1000 members per chunk. GW-219: `not_found` has the ids that are not members. One chunk
    /// comes even when nobody was found.
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
                let told = members.iter().map(|member| world::without(guild.presence(*member), "guild_id"));
                data["presences"] = told.collect::<Vec<_>>().into();
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

    /// GW-221: one SOUNDBOARD_SOUNDS per guild. GW-222: only for guilds of this shard.
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

    /// GW-224, GW-226: only what was asked for, and only channels that have it.
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

impl State {
    /// How long until all members of a guild may be asked for; else the window begins (GW-162).
    fn wait_for_members(&mut self, guild: u64, at: Instant, window: Duration) -> Option<Duration> {
        let free_at = self.members_free_at.entry(guild).or_insert(at);
        if *free_at > at {
            return Some(*free_at - at);
        }
        *free_at = at + window;
        None
    }
}

/// Bots can set name, state, type and URL of an activity, and nothing else (GW-194).
fn told_activities(activities: &Value) -> Value {
    let told = activities.as_array().into_iter().flatten().map(|activity| {
        let mut told = json!({"id": "ec0b28a579ecb4bd", "created_at": 1_790_000_000_000_u64});
        for field in ["name", "state", "type", "url"] {
            if let Some(value) = activity.get(field) {
                told[field] = value.clone();
            }
        }
        told
    });
    Value::Array(told.collect())
}

/// An id, as text or as a number.
fn number(id: &Value) -> Option<u64> {
    id.as_u64().or_else(|| id.as_str()?.parse().ok())
}

/// An id that is no snowflake comes back as an integer (GW-025, GW-219).
fn echoed(id: &Value) -> Value {
    match number(id) {
        Some(small) if small < 1 << 22 => small.into(),
        Some(id) => id.to_string().into(),
        None => id.clone(),
    }
}
