//! Identify and Resume: what is asked, and how it is judged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::discord::{Discord, State};
use crate::fault::ConnectFault;
use crate::intents;
use crate::judge::Finding;
use crate::judgement::{self, Judgement};
use crate::link::{Feed, Link, Out};
use crate::report::IdentifyRecord;
use crate::session::{Over, Owner, Session};
use crate::wire::Mode;
use crate::world::{self, Audience};

/// How many Identify are kept for the report.
const MAX_IDENTIFY_LOG: usize = 100_000;
/// How many Identify of one key are remembered, to find the nearest one to an Identify that is read late.
const MAX_IDENTIFIED_AT: usize = 1024;

/// What becomes of an Identify or Resume.
pub(crate) enum Login {
    Accepted {
        session: String,
    },
    /// There is no answer.
    Ignored,
    Refused,
    Closed {
        code: u16,
        reason: &'static str,
    },
}

/// What an Identify asks for.
pub(crate) struct Identify {
    pub(crate) token: String,
    /// `None` when it is not sharded.
    pub(crate) shard: Option<(u32, u32)>,
    pub(crate) audience: Audience,
    pub(crate) compress: bool,
    pub(crate) presence: Option<Value>,
}

/// Without the prefix of REST.
fn bare(token: &str) -> &str {
    token.strip_prefix("Bot ").unwrap_or(token)
}

impl Identify {
    /// Reads the data of op 2; `None` when something that it needs is not there, or of another type (GW-069).
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

/// Why an Identify is refused: what it is judged as, if it is the client's fault, and the close frame.
type Wrong = (Option<&'static Judgement>, u16, &'static str);

/// What a Resume asks for.
pub(crate) struct Resume<'a> {
    pub(crate) token: &'a str,
    pub(crate) session: &'a str,
    pub(crate) sequence: u64,
    pub(crate) mode: Mode,
    /// When it was written, or else read.
    pub(crate) at: Instant,
}

impl Discord {
    /// Judges an Identify that was written at `at`, or read then where that is unknown, and starts the session if it may.
    pub(crate) fn identify(
        &self,
        identify: &Identify,
        mode: Mode,
        link: &Arc<Link>,
        fault: Option<ConnectFault>,
        at: Instant,
    ) -> Login {
        let mut findings = Vec::new();
        let login = {
            let mut guard = self.state();
            let at = at + guard.skew;
            let login = self.judge_identify(&mut guard, identify, mode, link, fault, at, &mut findings);
            self.changed(guard);
            login
        };
        self.note(Some(identify.shard_id()), findings);
        login
    }

    fn note(&self, shard: Option<u32>, findings: Vec<Finding>) {
        for (judgement, detail) in findings {
            self.judge(judgement, shard, detail);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one judgement needs all that is known")]
    fn judge_identify(
        &self,
        state: &mut State,
        identify: &Identify,
        mode: Mode,
        link: &Arc<Link>,
        fault: Option<ConnectFault>,
        at: Instant,
        findings: &mut Vec<Finding>,
    ) -> Login {
        let timings = self.config.timings;
        let (shard, count) = (identify.shard_id(), identify.count());
        if identify.token.starts_with("Bot ") {
            // Some libraries do it, and Discord takes it, as long as the Resume has the same.
            let detail = "the token of an Identify has the prefix of REST";
            findings.push((judgement::PREFIXED_TOKEN, detail.into()));
        }
        self.judge_return(state, shard, at, findings);
        state.expire(at, timings.session_lifetime);
        state.renew_period(at);
        let key = shard % state.limits.max_concurrency;
        let identified_at = state.identified_at.entry(key).or_default();
        let early = nearest(identified_at, at).filter(|apart| *apart < timings.identify_window);
        identified_at.insert(at);
        if identified_at.len() > MAX_IDENTIFIED_AT {
            identified_at.pop_first();
        }
        if let Some(apart) = early {
            let window = timings.identify_window;
            let detail = format!("an Identify of key {key} {apart:?} apart from another, not {window:?}");
            findings.push((judgement::IDENTIFY_TOO_EARLY, detail));
        }
        judge_order(state, shard, count, key, findings);
        state.period_ends.get_or_insert(at + timings.budget_period);
        let exhausted = state.limits.remaining == 0;
        if exhausted {
            let detail = "an Identify with none left: every session ends, and the token is reset";
            findings.push((judgement::IDENTIFIES_EXHAUSTED, detail.into()));
            state.reset_token();
        }
        state.limits.remaining = state.limits.remaining.saturating_sub(1);
        state.report.identifies += 1;
        let wrong = self.what_is_wrong(state, identify);
        let refused = early.is_some() || fault == Some(ConnectFault::InvalidIdentify);
        let accepted = !refused && wrong.is_none() && fault.is_none();
        if state.report.identify_log.len() < MAX_IDENTIFY_LOG {
            let at_ms = at.saturating_duration_since(self.started).as_millis();
            let at_ms = u64::try_from(at_ms).unwrap_or(u64::MAX);
            let held = state.holds_session(shard, count);
            let record = IdentifyRecord { shard_id: shard, shard_count: count, key, at_ms, accepted, held };
            Arc::make_mut(&mut state.report.identify_log).push(record);
        }
        if let Some((judgement, code, reason)) = wrong {
            if let Some(judgement) = judgement {
                findings.push((judgement, format!("an Identify that was refused: {reason}")));
            }
            state.refuse(shard, code);
            return Login::Closed { code, reason };
        }
        if let Some(ConnectFault::Close { code }) = fault {
            state.refuse(shard, code);
            return Login::Closed { code, reason: "fault" };
        }
        if refused {
            state.report.identifies_refused += 1;
            let now = state.now();
            state.invalidated.insert(shard, now);
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
        Login::Accepted { session: self.start_session(state, identify, mode, link) }
    }

    /// Whether the client may come back at all, and so soon.
    fn judge_return(&self, state: &State, shard: u32, at: Instant, findings: &mut Vec<Finding>) {
        if let Some(code) = state.refused.get(&shard) {
            findings.push((judgement::RETURN_AFTER_REFUSAL, format!("an Identify after close {code}")));
        } else if let Some((code, since)) = state.bot_refused {
            // Those that were on their way may still arrive.
            let grace = self.config.timings.identify_window * 2;
            if at.saturating_duration_since(since) > grace {
                let detail = format!("an Identify long after close {code} of another shard");
                findings.push((judgement::RETURN_OF_ANOTHER_SHARD, detail));
            }
        }
        self.judge_pause(state, shard, at, findings);
    }

    /// GW-149: 1 to 5 s should pass between op 9 and the next login. A login that was written before op 9 is not judged.
    fn judge_pause(&self, state: &State, shard: u32, at: Instant, findings: &mut Vec<Finding>) {
        let wait = self.config.timings.invalid_session_wait;
        let since = state.invalidated.get(&shard).and_then(|since| at.checked_duration_since(*since));
        if let Some(since) = since.filter(|since| *since < wait) {
            findings
                .push((judgement::LOGIN_TOO_SOON, format!("a new login {since:?} after op 9, not {wait:?}")));
        }
    }

    /// The close code that an Identify earns for what it says, and what it is judged as; that a token or an intent is
    /// not enabled is no fault of the client's.
    fn what_is_wrong(&self, state: &State, identify: &Identify) -> Option<Wrong> {
        let (shard, count) = (identify.shard_id(), identify.count());
        let intents = identify.audience.intents;
        if state.token_reset || bare(&identify.token) != self.config.token {
            Some((None, 4004, "Authentication failed."))
        } else if shard >= count {
            Some((Some(judgement::INVALID_SHARD), 4010, "Invalid shard."))
        } else if count % self.config.shard_multiple.max(1) != 0 {
            Some((Some(judgement::SHARDS_NOT_A_MULTIPLE), 4010, "Invalid shard: not a multiple."))
        } else if state.world.of_shard(shard, count).len() > self.config.max_guilds_per_shard as usize {
            Some((None, 4011, "Sharding required."))
        } else if intents & !intents::DOCUMENTED != 0 {
            Some((Some(judgement::UNKNOWN_INTENTS), 4013, "Invalid intents."))
        } else if intents & intents::PRIVILEGED & !state.allowed_intents != 0 {
            Some((None, 4014, "Disallowed intents."))
        } else {
            None
        }
    }

    fn start_session(&self, state: &mut State, identify: &Identify, mode: Mode, link: &Arc<Link>) -> String {
        state.last_session += 1;
        let ordinal = state.last_session;
        let id = format!("{:016x}{:016x}", state.random.u64(..), state.random.u64(..));
        let (shard, count) = (identify.shard_id(), identify.count());
        let guilds = state.world.of_shard(shard, count);
        let limit = self.config.replay_limit;
        let owner = Owner { shard, count, audience: identify.audience, mode, token: identify.token.clone() };
        let mut session = Session::new(owner, ordinal, guilds.clone(), Arc::clone(link));
        let unavailable: Vec<Value> = guilds
            .iter()
            .map(|place| json!({"id": state.world.guild(*place).id.to_string(), "unavailable": true}))
            .collect();
        let flags = world::application_flags(state.allowed_intents);
        let mut ready = json!({
            "_trace": [state.ledger.send(shard, ordinal)], "v": mode.version, "user": world::bot_user(),
            "user_settings": {}, "session_type": "normal", "session_id": id, "resume_gateway_url": self.resume_url(ordinal),
            "relationships": [], "private_channels": [], "presences": [], "guilds": unavailable,
            "geo_ordered_rtc_regions": ["rotterdam"],
            "application": {"id": world::BOT.to_string(), "flags": flags, "flags_new": flags.to_string()},
        });
        if identify.shard.is_some() {
            ready["shard"] = json!([shard, count]);
        }
        session.push("READY", &ready.to_string(), Some(link.id), limit);
        // GW-253: without the intent they are listed, and never come.
        if identify.audience.intents & intents::GUILDS != 0 {
            for place in guilds {
                let guild = state.world.guild(place);
                // GW-249, GW-250: one in an outage says so, in either of two ways.
                let (event, mut data) = match guild.is_available() {
                    true => ("GUILD_CREATE", guild.create(identify.audience, true)),
                    false => {
                        let event = if place % 2 == 0 { "GUILD_DELETE" } else { "GUILD_CREATE" };
                        (event, json!({"id": guild.id.to_string(), "unavailable": true}))
                    }
                };
                data["_trace"] = json!([state.ledger.send(shard, ordinal)]);
                session.push(event, &data.to_string(), None, limit);
            }
        }
        state.add_session(id.clone(), session);
        link.feed(Some(Feed { session: id.clone(), cursor: 0 }));
        id
    }

    /// Judges a Resume, and goes on with the session if it can.
    pub(crate) fn resume(&self, resume: &Resume<'_>, link: &Arc<Link>, fault: Option<ConnectFault>) -> Login {
        let mut findings = Vec::new();
        let (shard, login) = {
            let mut guard = self.state();
            let shard = guard.sessions.get(resume.session).map(|session| session.shard);
            let login = self.judge_resume(&mut guard, resume, link, fault, &mut findings);
            if let (Login::Refused, Some(shard)) = (&login, shard) {
                let now = guard.now();
                guard.invalidated.insert(shard, now);
            }
            self.changed(guard);
            (shard, login)
        };
        self.note(shard, findings);
        login
    }

    fn judge_resume(
        &self,
        state: &mut State,
        resume: &Resume<'_>,
        link: &Arc<Link>,
        fault: Option<ConnectFault>,
        findings: &mut Vec<Finding>,
    ) -> Login {
        let id = resume.session;
        let (at, now) = (resume.at + state.skew, state.now());
        state.expire(now, self.config.timings.session_lifetime);
        let refuse = |state: &mut State| {
            state.end_session(id, Over { since: now, judgement: judgement::RESUME_AFTER_REFUSAL });
            state.report.resumes_refused += 1;
            Login::Refused
        };
        let told = state.sessions.get(id).and_then(|session| session.told);
        if let Some(Over { since, judgement }) = told.or_else(|| state.ended.get(id).copied()) {
            if at < since {
                // It is refused as well, but no fault of the client's.
                state.report.resumes_refused += 1;
                return Login::Refused;
            }
            findings.push((judgement, judgement.what.into()));
            return refuse(state);
        }
        if let Some(ConnectFault::Close { code } | ConnectFault::CloseResume { code }) = fault {
            if let Some(session) = state.sessions.get_mut(id) {
                session.over |= matches!(code, 4003 | 4004 | 4006 | 4007 | 4009..=4014);
                let shard = session.shard;
                state.refuse(shard, code);
            }
            return Login::Closed { code, reason: "fault" };
        }
        let valid = !state.token_reset && bare(resume.token) == self.config.token;
        let session = state.sessions.get_mut(id).filter(|session| !session.over && valid);
        let Some(session) = session.filter(|_| fault.is_none()) else { return refuse(state) };
        if session.token != resume.token {
            let detail = "a Resume whose token is not written as in the Identify";
            findings.push((judgement::RESUME_OTHER_TOKEN, detail.into()));
            return refuse(state);
        }
        if session.mode != resume.mode {
            let detail = format!("a Resume as {:?} of a session made as {:?}", resume.mode, session.mode);
            findings.push((judgement::RESUME_OTHER_QUERY, detail));
        }
        if resume.sequence > session.sequence {
            let last = session.sequence;
            let detail = format!("a Resume from {}, when {last} was the last", resume.sequence);
            findings.push((judgement::RESUME_AHEAD, detail));
            state.end_session(id, Over { since: now, judgement: judgement::RESUME_AFTER_4007 });
            return Login::Closed { code: 4007, reason: "Invalid seq." };
        }
        if !session.can_replay_after(resume.sequence) {
            return refuse(state);
        }
        // One connection per session: the older one goes (GW-141).
        let older = session.link.replace(Arc::clone(link));
        state.report.ready_sessions += u64::from(older.is_none());
        let older = older.filter(|older| older.id != link.id);
        if let Some(older) = older {
            older.feed(None);
            // One that is half open would never write it.
            if older.is_half_open() {
                older.cut();
            }
            older.send(Out::Close { code: 4000, reason: "resumed elsewhere" });
        }
        session.lost_at = None;
        session.proven = true;
        let shard = session.shard;
        // Perhaps the client has lost a later one: from now on this is what happens to the shard.
        state.newest.insert(shard, id.to_owned());
        state.report.resumes += 1;
        state.report.replayed += session.replay_length(resume.sequence);
        state.ledger.known(shard, session.ordinal);
        session.push("RESUMED", r#"{"_trace":[]}"#, Some(link.id), self.config.replay_limit);
        link.feed(Some(Feed { session: id.to_owned(), cursor: resume.sequence }));
        self.judge_pause(state, shard, at, findings);
        state.invalidated.remove(&shard);
        Login::Accepted { session: id.to_owned() }
    }
}

/// How far the nearest of these times is from this one.
fn nearest(times: &BTreeSet<Instant>, at: Instant) -> Option<Duration> {
    let before = times.range(..=at).next_back().map(|before| at.duration_since(*before));
    let after = times.range(at..).next().map(|after| after.duration_since(at));
    before.into_iter().chain(after).min()
}

/// GW-171: of one key, lower shards come first. One that comes again may come at any time.
fn judge_order(state: &mut State, shard: u32, count: u32, key: u32, findings: &mut Vec<Finding>) {
    let first = state.identified.insert((count, shard));
    let highest = state.highest_identified.entry((count, key)).or_insert(shard);
    if first && shard < *highest {
        findings.push((
            judgement::IDENTIFY_OUT_OF_ORDER,
            format!("shard {shard} of key {key} came after shard {highest}"),
        ));
    }
    *highest = (*highest).max(shard);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SimConfig;
    use crate::wire::Query;

    struct Bench {
        discord: Discord,
        begun: Instant,
        mode: Mode,
    }

    impl Bench {
        fn new() -> Self {
            let mode = Query::parse("v=10&encoding=json").unwrap().mode;
            Self { discord: Discord::new(SimConfig::default(), None, false), begun: Instant::now(), mode }
        }

        /// When so many milliseconds have passed.
        fn at(&self, ms: u64) -> Instant {
            self.begun + Duration::from_millis(ms)
        }

        /// An Identify on a connection of its own.
        fn identify(&self, ms: u64) -> (Login, Arc<Link>) {
            let data = json!({
                "token": self.discord.config.token, "intents": 0, "shard": [0, 1],
                "properties": {"os": "", "browser": "", "device": ""},
            });
            let link = self.discord.new_link();
            let identify = Identify::read(&data).unwrap();
            (self.discord.identify(&identify, self.mode, &link, None, self.at(ms)), link)
        }

        fn resume(&self, session: &str, ms: u64) -> Login {
            let token = &self.discord.config.token;
            let resume = Resume { token, session, sequence: 1, mode: self.mode, at: self.at(ms) };
            self.discord.resume(&resume, &self.discord.new_link(), None)
        }

        fn violations(&self) -> Vec<&'static str> {
            self.discord.state().report().violations.iter().map(|violation| violation.rule).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gw_170_identifies_that_are_read_in_another_order_are_judged_by_when_they_were_written() {
        let bench = Bench::new();
        for written in [5_000, 0, 10_000] {
            assert!(matches!(bench.identify(written).0, Login::Accepted { .. }), "{written}");
        }
        assert!(bench.violations().is_empty());
        // Too close to the first one, which was read second; and one at the same time as another.
        for written in [4_999, 10_000] {
            assert!(matches!(bench.identify(written).0, Login::Refused), "{written}");
        }
        assert_eq!(bench.violations(), ["GW-170", "GW-170"]);
    }

    #[tokio::test(start_paused = true)]
    async fn gw_098_a_resume_counts_as_late_only_when_it_was_written_after_the_close() {
        let bench = Bench::new();
        let (Login::Accepted { session }, link) = bench.identify(0) else { panic!("it identifies") };
        bench.discord.disconnected(Some(&session), &link, Some((1000, bench.at(20))));
        assert!(matches!(bench.resume(&session, 19), Login::Refused), "the session is over all the same");
        assert!(bench.violations().is_empty());
        assert!(matches!(bench.resume(&session, 20), Login::Refused));
        assert_eq!(bench.violations(), ["GW-098"]);
    }
}
