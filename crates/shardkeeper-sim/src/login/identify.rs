//! Identify: its limits, what it asks for, and the session that it starts.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::attempt::{Attempt, Login, judge_pause, report};
use crate::config::SimConfig;
use crate::discord::{Discord, Owner, Session, State, send_initial};
use crate::fault::ConnectFault;
use crate::intents;
use crate::judge::Finding;
use crate::judgement::{self, Judgement};
use crate::link::{Feed, Out};
use crate::report::IdentifyRecord;
use crate::world::{self, Audience};

/// The data of an Identify.
pub(crate) struct Identify {
    token: String,
    /// The shard and the number of shards; `None` if the field is missing.
    shard: Option<(u32, u32)>,
    audience: Audience,
    compress: bool,
    pub(crate) presence: Option<Value>,
}

/// The close code and reason for an invalid Identify, with the judgement if it is the client's mistake.
/// Whether a token or an intent is enabled is not the client's responsibility.
type Invalid = (Option<&'static Judgement>, u16, &'static str);

impl Identify {
    /// Parses the data of op 2; `None` if a required field is missing or has another type (GW-069).
    pub(crate) fn read(data: &Value) -> Option<Self> {
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let shard = match data.get("shard") {
            None | Some(Value::Null) => None,
            Some(pair) => Some((number(pair.get(0)?)?, number(pair.get(1)?)?)),
        };
        data.get("properties").filter(|properties| properties.is_object())?;
        Some(Self {
            token: data.get("token")?.as_str()?.to_owned(),
            shard,
            audience: Audience {
                intents: data.get("intents")?.as_u64()?,
                large_threshold: data.get("large_threshold").and_then(number).unwrap_or(50),
            },
            compress: data.get("compress").and_then(Value::as_bool).unwrap_or(false),
            presence: data.get("presence").filter(|presence| !presence.is_null()).cloned(),
        })
    }

    pub(crate) fn shard_id(&self) -> u32 {
        self.shard.map_or(0, |(shard, _)| shard)
    }

    fn count(&self) -> u32 {
        self.shard.map_or(1, |(_, count)| count)
    }
}

/// Judges an Identify, and starts a session if it is accepted.
pub(crate) fn identify(discord: &Discord, identify: &Identify, attempt: Attempt<'_>) -> Login {
    let mut findings = Vec::new();
    let login = {
        let mut state = discord.state();
        let attempt = Attempt { at: state.clock.at(attempt.at), ..attempt };
        let login = judge(discord, &mut state, identify, attempt, &mut findings);
        discord.changed(state);
        login
    };
    report(discord, Some(identify.shard_id()), findings);
    login
}

fn judge(
    discord: &Discord,
    state: &mut State,
    identify: &Identify,
    attempt: Attempt<'_>,
    findings: &mut Vec<Finding>,
) -> Login {
    let Attempt { mode, link, fault, at } = attempt;
    let config = &discord.config;
    let (shard, count) = (identify.shard_id(), identify.count());
    if identify.token.starts_with("Bot ") {
        // Some libraries do this. Discord accepts it, as long as the Resume has the same token.
        let detail = "the token of an Identify has the prefix of REST";
        findings.push((judgement::PREFIXED_TOKEN, detail.into()));
    }
    judge_return(state, config, (shard, count), at, findings);
    state.sessions.expire(at);
    state.identifies.renew(at);
    let key = state.identifies.key(shard);
    let too_close = state.identifies.too_close(key, at);
    if let Some(apart) = too_close {
        let window = config.timings.identify_window;
        let detail =
            format!("an Identify of key {key} only {apart:?} from another one; the window is {window:?}");
        findings.push((judgement::IDENTIFY_TOO_EARLY, detail));
    }
    if let Some(highest) = state.identifies.overtaken_by(shard, count, key) {
        let detail = format!("shard {shard} of key {key} identified after shard {highest}");
        findings.push((judgement::IDENTIFY_OUT_OF_ORDER, detail));
    }
    if !state.identifies.spend(at) {
        let detail = "an Identify beyond the limit of the day: every session ends, and the token is reset";
        findings.push((judgement::IDENTIFIES_EXHAUSTED, detail.into()));
        reset_token(state);
    }
    state.report.identifies += 1;
    let invalid = invalid(state, identify);
    let refused = too_close.is_some() || fault == Some(ConnectFault::InvalidIdentify);
    let at_ms = at.saturating_duration_since(discord.started).as_millis();
    let record = IdentifyRecord {
        shard_id: shard,
        shard_count: count,
        key,
        at_ms: u64::try_from(at_ms).unwrap_or(u64::MAX),
        accepted: !refused && invalid.is_none() && fault.is_none(),
        held: !state.access.is_reset() && state.sessions.holds(shard, count),
        beside: state.sessions.is_beside(shard, count),
    };
    state.report.log_identify(record);
    let now = state.now();
    if let Some((judgement, code, reason)) = invalid {
        if let Some(judgement) = judgement {
            findings.push((judgement, format!("an Identify that was refused: {reason}")));
        }
        state.refusals.close((shard, count), code, now);
        return Login::Closed { code, reason };
    }
    if let Some(ConnectFault::Close { code }) = fault {
        state.refusals.close((shard, count), code, now);
        return Login::Closed { code, reason: "fault" };
    }
    if refused {
        state.report.identifies_refused += 1;
        state.refusals.invalidate((shard, count), now);
        return Login::Refused;
    }
    if fault == Some(ConnectFault::NoReady) {
        return Login::Ignored;
    }
    if let Some(presence) = &identify.presence {
        state.report.presences.insert(shard, presence.clone());
    }
    if identify.compress && mode.is_packable() {
        link.pack();
    }
    Login::Accepted { session: start_session(discord, state, identify, attempt) }
}

/// Judges whether the shard may log in again at all, and so soon.
fn judge_return(
    state: &State,
    config: &SimConfig,
    shard: (u32, u32),
    at: Instant,
    findings: &mut Vec<Finding>,
) {
    if let Some(code) = state.refusals.of_shard(shard) {
        findings.push((judgement::RETURN_AFTER_REFUSAL, format!("an Identify after close {code}")));
    } else if let Some((code, since)) = state.refusals.of_bot() {
        // Identifies that the client had sent before may still arrive.
        let grace = config.timings.identify_window * 2;
        if at.saturating_duration_since(since) > grace {
            let detail = format!("an Identify long after close {code} of another shard");
            findings.push((judgement::RETURN_OF_ANOTHER_SHARD, detail));
        }
    }
    judge_pause(state, shard, at, config.timings.invalid_session_wait, findings);
}

/// Resets the token and ends every session: the consequence of too many Identify (GW-166).
fn reset_token(state: &mut State) {
    state.access.reset_token();
    for session in state.sessions.all_mut() {
        session.over = true;
        if let Some(link) = &session.link {
            link.send(Out::Close { code: 4004, reason: "Authentication failed." });
        }
    }
}

/// Checks what the Identify asks for; `None` if everything is valid.
fn invalid(state: &State, identify: &Identify) -> Option<Invalid> {
    let (shard, count) = (identify.shard_id(), identify.count());
    let intents = identify.audience.intents;
    if !state.access.accepts_token(&identify.token) {
        Some((None, 4004, "Authentication failed."))
    } else if shard >= count {
        Some((Some(judgement::INVALID_SHARD), 4010, "Invalid shard."))
    } else if !count.is_multiple_of(state.identifies.multiple) {
        Some((Some(judgement::SHARDS_NOT_A_MULTIPLE), 4010, "Invalid shard: not a multiple."))
    } else if count < state.identifies.least_shards
        || state.world.of_shard(shard, count).len() > state.identifies.max_guilds as usize
    {
        Some((None, 4011, "Sharding required."))
    } else if intents & !intents::DOCUMENTED != 0 {
        Some((Some(judgement::UNKNOWN_INTENTS), 4013, "Invalid intents."))
    } else if intents & intents::PRIVILEGED & !state.access.allowed_intents() != 0 {
        Some((None, 4014, "Disallowed intents."))
    } else {
        None
    }
}

/// Starts a session with READY and the guilds of its shard. Returns its id.
fn start_session(discord: &Discord, state: &mut State, identify: &Identify, attempt: Attempt<'_>) -> String {
    let Attempt { mode, link, .. } = attempt;
    let ordinal = state.sessions.next_ordinal();
    let id = format!("{:016x}{:016x}", state.random.u64(..), state.random.u64(..));
    let (shard, count) = (identify.shard_id(), identify.count());
    let guilds = state.world.of_shard(shard, count);
    let owner = Owner { shard, count, audience: identify.audience, mode, token: identify.token.clone() };
    let limit = discord.config.replay_limit;
    let settings = state.sessions.settings(shard, count, ordinal);
    let gap = Duration::from_millis(settings.guild_gap_ms);
    let mut session = Session::new(owner, ordinal, guilds.clone(), link.clone(), limit, settings);
    session.presence.clone_from(&identify.presence);
    state.ledger.open(shard, ordinal, count);
    let unavailable: Vec<Value> = guilds
        .iter()
        .map(|place| json!({"id": state.world.guild(*place).id.to_string(), "unavailable": true}))
        .collect();
    let flags = world::application_flags(state.access.allowed_intents());
    let mut ready = json!({
        "_trace": [state.ledger.send(shard, ordinal)], "v": mode.version, "user": world::bot_user(),
        "user_settings": {}, "session_type": "normal", "session_id": id,
        "resume_gateway_url": discord.urls.resume(ordinal), "relationships": [], "private_channels": [],
        "presences": [], "guilds": unavailable, "geo_ordered_rtc_regions": ["rotterdam"],
        "application": {"id": world::BOT.to_string(), "flags": flags, "flags_new": flags.to_string()},
    });
    if identify.shard.is_some() {
        ready["shard"] = json!([shard, count]);
    }
    session.push("READY", &ready.to_string(), Some(link.id));
    // GW-253: without the intent GUILDS, READY lists the guilds but no GUILD_CREATE follows.
    if identify.audience.intents & intents::GUILDS != 0 {
        if gap.is_zero() {
            for place in guilds {
                send_initial(&mut session, &mut state.ledger, state.world.guild(place), place);
            }
        } else {
            // GW-248: in no fixed order, and not at once.
            let mut guilds = guilds;
            session.random.shuffle(&mut guilds);
            let at = |turn: u32| Instant::now() + gap * turn;
            session.arriving = (1..).map(at).zip(guilds).collect();
        }
    }
    state.sessions.add(id.clone(), session);
    link.feed(Some(Feed { session: id.clone(), cursor: 0 }));
    id
}
