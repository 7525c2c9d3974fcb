//! Identify and Resume: what is asked, and how it is judged.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::discord::{Discord, State};
use crate::fault::ConnectFault;
use crate::link::{Feed, Link, Out};
use crate::report::IdentifyRecord;
use crate::session::Session;
use crate::{intents, world};

/// How many Identify are kept for the report.
const MAX_IDENTIFY_LOG: usize = 100_000;

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
    pub(crate) shard: u32,
    pub(crate) count: u32,
    pub(crate) intents: u64,
    pub(crate) presence: Option<Value>,
}

/// Without the prefix of REST. It is a violation, and taken all the same: twilight and serenity send it in both.
fn bare(token: &str) -> &str {
    token.strip_prefix("Bot ").unwrap_or(token)
}

impl Discord {
    /// Judges an Identify that was read at `at`, and starts the session if it may.
    pub(crate) fn identify(
        &self,
        identify: &Identify,
        link: &Arc<Link>,
        fault: Option<ConnectFault>,
        at: Instant,
    ) -> Login {
        let config = &self.config;
        let shard = Some(identify.shard);
        if identify.token.starts_with("Bot ") {
            self.violation("GW-070", shard, "the token of an Identify has the prefix of REST");
        }
        let mut state = self.state();
        if let Some(code) = state.refused.get(&identify.shard).copied() {
            drop(state);
            self.violation("GW-095", shard, format!("an Identify after close {code}"));
            state = self.state();
        }
        state.expire(at, config.timings.session_lifetime);
        let key = identify.shard % config.max_concurrency.max(1);
        let early = state.last_identify.insert(key, at).and_then(|last| {
            let since = at.saturating_duration_since(last);
            (since < config.timings.identify_window).then_some(since)
        });
        if state.period_ends.is_some_and(|end| end <= at) {
            state.period_ends = None;
            state.remaining = config.identify_total;
        }
        state.period_ends.get_or_insert(at + config.timings.budget_period);
        let exhausted = state.remaining == 0;
        state.remaining = state.remaining.saturating_sub(1);
        state.report.identifies += 1;
        let wrong = self.what_is_wrong(identify);
        let refused = early.is_some() || exhausted || fault == Some(ConnectFault::InvalidIdentify);
        let accepted = !refused && wrong.is_none() && fault.is_none();
        if state.report.identify_log.len() < MAX_IDENTIFY_LOG {
            let at_ms = u64::try_from(at.duration_since(self.started).as_millis()).unwrap_or(u64::MAX);
            let record = IdentifyRecord {
                shard_id: identify.shard,
                shard_count: identify.count,
                key,
                at_ms,
                accepted,
            };
            state.report.identify_log.push(record);
        }
        if let Some(since) = early {
            drop(state);
            let window = config.timings.identify_window;
            self.violation(
                "GW-170",
                shard,
                format!("an Identify of key {key} {since:?} after the last, not {window:?}"),
            );
            state = self.state();
        }
        if exhausted {
            drop(state);
            self.violation("GW-166", shard, "an Identify with none left");
            state = self.state();
        }
        if let Some((code, reason)) = wrong {
            if matches!(code, 4004 | 4010..=4014) {
                state.refused.insert(identify.shard, code);
            }
            self.changed(state);
            return Login::Closed { code, reason };
        }
        if let Some(ConnectFault::Close { code }) = fault {
            if matches!(code, 4004 | 4010..=4014) {
                state.refused.insert(identify.shard, code);
            }
            self.changed(state);
            return Login::Closed { code, reason: "fault" };
        }
        if refused {
            state.report.identifies_refused += 1;
            self.changed(state);
            return Login::Refused;
        }
        if fault == Some(ConnectFault::NoReady) {
            self.changed(state);
            return Login::Ignored;
        }
        if let Some(presence) = &identify.presence {
            state.report.presences.insert(identify.shard, presence.clone());
        }
        let session = self.start_session(&mut state, identify, link);
        self.changed(state);
        Login::Accepted { session }
    }

    /// The close code that an Identify earns for what it says.
    fn what_is_wrong(&self, identify: &Identify) -> Option<(u16, &'static str)> {
        if bare(&identify.token) != self.config.token {
            Some((4004, "authentication failed"))
        } else if identify.shard >= identify.count {
            Some((4010, "invalid shard"))
        } else if identify.intents & !intents::DOCUMENTED != 0 {
            Some((4013, "invalid intents"))
        } else if identify.intents & intents::PRIVILEGED & !self.config.allowed_intents != 0 {
            Some((4014, "disallowed intents"))
        } else {
            None
        }
    }

    fn start_session(&self, state: &mut State, identify: &Identify, link: &Arc<Link>) -> String {
        state.last_session += 1;
        let ordinal = state.last_session;
        let id = format!("{:016x}{:016x}", state.random.u64(..), state.random.u64(..));
        let (shard, count) = (identify.shard, identify.count);
        let guilds = state.world.of_shard(shard, count);
        let limit = self.config.replay_limit;
        let mut session = Session::new(shard, identify.intents, ordinal, guilds.clone(), Arc::clone(link));
        let unavailable: Vec<Value> = guilds
            .iter()
            .map(|place| json!({"id": state.world.guild_id(*place), "unavailable": true}))
            .collect();
        let ready = json!({
            "_trace": [state.ledger.send(shard, ordinal)], "v": 10, "user": world::bot_user(), "user_settings": {},
            "shard": [shard, count], "session_type": "normal", "session_id": id,
            "resume_gateway_url": self.resume_url(), "relationships": [], "private_channels": [], "presences": [],
            "guilds": unavailable, "geo_ordered_rtc_regions": ["rotterdam"], "application": world::application(),
        });
        session.push("READY", &ready.to_string(), Some(link.id), limit);
        if identify.intents & intents::GUILDS != 0 {
            for place in guilds {
                let mut guild = state.world.guild_create(place);
                guild["_trace"] = json!([state.ledger.send(shard, ordinal)]);
                session.push("GUILD_CREATE", &guild.to_string(), None, limit);
            }
        }
        state.sessions.insert(id.clone(), session);
        state.newest.insert(shard, id.clone());
        link.feed(Some(Feed { session: id.clone(), cursor: 0 }));
        id
    }

    /// Judges a Resume, and goes on with the session if it can.
    pub(crate) fn resume(
        &self,
        token: &str,
        id: &str,
        sequence: u64,
        link: &Arc<Link>,
        fault: Option<ConnectFault>,
    ) -> Login {
        let now = Instant::now();
        let limit = self.config.replay_limit;
        let mut guard = self.state();
        let state = &mut *guard;
        state.expire(now, self.config.timings.session_lifetime);
        let shard = state.sessions.get(id).map(|session| session.shard);
        if state.given_up.contains(id) {
            drop(guard);
            self.violation("GW-098", shard, "a Resume of a session that the client closed with 1000 or 1001");
            self.state().report.resumes_refused += 1;
            return Login::Refused;
        }
        if token.starts_with("Bot ") {
            drop(guard);
            self.violation("GW-070", shard, "the token of a Resume has the prefix of REST");
            guard = self.state();
        }
        let state = &mut *guard;
        if let Some(ConnectFault::Close { code }) = fault {
            self.changed(guard);
            return Login::Closed { code, reason: "fault" };
        }
        let alive = |session: &&mut Session| !session.over && bare(token) == self.config.token;
        let session = state.sessions.get_mut(id).filter(alive).filter(|_| fault.is_none());
        let Some(session) = session else {
            state.sessions.remove(id);
            state.report.resumes_refused += 1;
            self.changed(guard);
            return Login::Refused;
        };
        if sequence > session.sequence {
            let (shard, last) = (session.shard, session.sequence);
            state.sessions.remove(id);
            self.changed(guard);
            self.violation(
                "GW-083",
                Some(shard),
                format!("a Resume from {sequence}, when {last} was the last"),
            );
            return Login::Closed { code: 4007, reason: "invalid seq" };
        }
        if !session.can_replay_after(sequence) {
            state.sessions.remove(id);
            state.report.resumes_refused += 1;
            self.changed(guard);
            return Login::Refused;
        }
        // One connection per session: the older one goes (GW-141).
        if let Some(older) = session.link.replace(Arc::clone(link)) {
            older.feed(None);
            // One that is half open would never write it.
            if older.is_half_open() {
                older.cut();
            }
            older.send(Out::Close { code: 4000, reason: "resumed elsewhere" });
        }
        session.lost_at = None;
        state.report.resumes += 1;
        state.report.replayed += session.replay_length(sequence);
        state.ledger.known(session.shard, session.ordinal);
        session.push("RESUMED", r#"{"_trace":[]}"#, Some(link.id), limit);
        link.feed(Some(Feed { session: id.to_owned(), cursor: sequence }));
        self.changed(guard);
        Login::Accepted { session: id.to_owned() }
    }
}
