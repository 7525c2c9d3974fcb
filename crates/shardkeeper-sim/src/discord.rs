//! What the connections of one simulator share: its guilds, sessions, limits and everything it counts.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::buckets::Buckets;
use crate::config::SimConfig;
use crate::fault::{ConnectFault, RestFault};
use crate::hosts::{Host, Hosts};
use crate::http;
use crate::intents;
use crate::judgement::{self, Grade, Judgement};
use crate::ledger::Ledger;
use crate::link::{Feed, Link, Out};
use crate::report::{Report, SessionRecord, Violation};
use crate::session::{Over, Session};
use crate::world::{self, Place, World};

/// How many are kept for the report.
const MAX_VIOLATIONS: usize = 1_000;
/// So many sessions that ended are remembered, to tell who resumes one.
const MAX_ENDED: usize = 100_000;

/// So many first heartbeats are looked at together. If they are spread evenly, they lie within a tenth of the
/// interval once in 10^14 times.
const JITTER_SAMPLE: usize = 16;
/// So many samples may wait for the rest of their connections; beyond that the oldest one is let go.
const MAX_JITTER_SAMPLES: usize = 1024;
const JITTER_SPREAD: f64 = 0.1;

/// What all connections of one simulator share.
pub(crate) struct Discord {
    pub(crate) config: SimConfig,
    pub(crate) addr: Option<SocketAddr>,
    pub(crate) tls: bool,
    pub(crate) started: Instant,
    pub(crate) state: Mutex<State>,
    /// Counts changes, for whoever waits for one.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) traffic: watch::Sender<bool>,
    connections: Arc<Semaphore>,
    pub(crate) over: watch::Sender<bool>,
}

/// All of it is behind one lock, held for moments.
pub(crate) struct State {
    pub(crate) random: Rng,
    pub(crate) world: World,
    pub(crate) happenings: u64,
    /// In order, so that whatever is done to all of them is done in the same order each time.
    pub(crate) sessions: BTreeMap<String, Session>,
    /// Sessions in the order in which they lost their connections, and when.
    lost: VecDeque<(Instant, String)>,
    /// The newest session of each shard.
    pub(crate) newest: BTreeMap<u32, String>,
    /// Sessions by number of shards and shard: who hears of a guild.
    listeners: BTreeMap<u32, HashMap<u32, Vec<String>>>,
    /// Sessions that are over.
    pub(crate) ended: BTreeMap<String, Over>,
    pub(crate) last_session: u64,
    pub(crate) last_connection: u64,
    pub(crate) limits: Limits,
    pub(crate) allowed_intents: u64,
    pub(crate) period_ends: Option<Instant>,
    /// Whether the token was reset, because the limit of Identify was reached (GW-166).
    pub(crate) token_reset: bool,
    /// By key, when the newest ones were written; not all are read in that order.
    pub(crate) identified_at: HashMap<u32, BTreeSet<Instant>>,
    /// Of each number of shards and key, the highest shard that has identified: shards start in order (GW-171).
    pub(crate) highest_identified: BTreeMap<(u32, u32), u32>,
    pub(crate) identified: BTreeSet<(u32, u32)>,
    /// Shards whose last connection was closed with a fatal code, after which they must not come back (GW-095).
    pub(crate) refused: BTreeMap<u32, u16>,
    /// A code that concerns the whole bot, and since when (GW-096).
    pub(crate) bot_refused: Option<(u16, Instant)>,
    /// When op 9 was last sent to a shard: its next login should be 1 to 5 s later (GW-149).
    pub(crate) invalidated: BTreeMap<u32, Instant>,
    /// Where in its interval the first heartbeat of each connection came: a random place (GW-110).
    pub(crate) first_heartbeats: BTreeMap<u64, Vec<f64>>,
    /// When all members of a guild may be requested again: once in 30 s (GW-162).
    pub(crate) members_free_at: HashMap<u64, Instant>,
    pub(crate) buckets: Buckets,
    /// Authorizations that were answered with 401 and must not be used again (GW-297).
    pub(crate) rejected_tokens: BTreeSet<Vec<u8>>,
    pub(crate) last_command: u64,
    pub(crate) armed: VecDeque<(ConnectFault, usize)>,
    pub(crate) hosts: Hosts,
    pub(crate) armed_rest: VecDeque<(RestFault, usize)>,
    pub(crate) ledger: Ledger,
    pub(crate) report: Report,
    /// How far the clock has jumped.
    pub(crate) skew: Duration,
}

/// What `GET /gateway/bot` tells.
pub(crate) struct Limits {
    pub(crate) shards: u32,
    pub(crate) max_concurrency: u32,
    pub(crate) total: u32,
    pub(crate) remaining: u32,
}

/// The client reads so slowly that what it has not read is forgotten.
pub(crate) struct SlowClient;

impl Discord {
    pub(crate) fn new(config: SimConfig, addr: Option<SocketAddr>, tls: bool) -> Self {
        let mut random = Rng::with_seed(config.seed);
        let state = State {
            world: World::new(config.guilds, config.large_guild_members, config.mix, &mut random),
            random,
            happenings: 0,
            sessions: BTreeMap::new(),
            lost: VecDeque::new(),
            newest: BTreeMap::new(),
            listeners: BTreeMap::new(),
            ended: BTreeMap::new(),
            last_session: 0,
            last_connection: 0,
            limits: Limits {
                shards: config.shards,
                max_concurrency: config.max_concurrency.max(1),
                total: config.identify_total,
                remaining: config.identify_remaining.min(config.identify_total),
            },
            allowed_intents: config.allowed_intents,
            // Spent identifies mean that a period is running already.
            period_ends: (config.identify_remaining < config.identify_total)
                .then(|| Instant::now() + config.timings.budget_period),
            token_reset: false,
            identified_at: HashMap::new(),
            highest_identified: BTreeMap::new(),
            identified: BTreeSet::new(),
            refused: BTreeMap::new(),
            bot_refused: None,
            invalidated: BTreeMap::new(),
            first_heartbeats: BTreeMap::new(),
            members_free_at: HashMap::new(),
            buckets: Buckets::default(),
            rejected_tokens: BTreeSet::new(),
            last_command: 0,
            armed: VecDeque::new(),
            hosts: Hosts::default(),
            armed_rest: VecDeque::new(),
            ledger: Ledger::default(),
            report: Report::default(),
            skew: Duration::ZERO,
        };
        Self {
            connections: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
            config,
            addr,
            tls,
            started: Instant::now(),
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
            traffic: watch::Sender::new(false),
            over: watch::Sender::new(false),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By the simulator's own clock.
    pub(crate) fn now(&self) -> Instant {
        self.state().now()
    }

    pub(crate) fn changed(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A place for one more connection; `None` when there are as many as there may be.
    pub(crate) fn admit(&self) -> Option<http::Place> {
        let place = Arc::clone(&self.connections).try_acquire_owned();
        if place.is_err() {
            let mut state = self.state();
            state.report.connections_refused += 1;
            self.changed(state);
        }
        place.ok().map(Arc::new)
    }

    /// Notes what the client did, by its grade.
    pub(crate) fn judge(
        &self,
        judgement: &'static Judgement,
        shard_id: Option<u32>,
        detail: impl Into<String>,
    ) {
        let &Judgement { rule, grade, reason, .. } = judgement;
        let entry = Violation { rule, grade, reason, shard_id, at_ms: self.now_ms(), detail: detail.into() };
        let mut state = self.state();
        let list = match grade {
            Grade::Violation => &mut state.report.violations,
            Grade::Advice => &mut state.report.notices,
        };
        if list.len() < MAX_VIOLATIONS {
            list.push(entry);
        }
        self.changed(state);
    }

    /// The fault of this connection.
    pub(crate) fn take_connect_fault(&self, host: Host) -> Option<ConnectFault> {
        let mut state = self.state();
        state.report.connections += 1;
        let fault = state.fault_at(host);
        self.changed(state);
        fault
    }

    pub(crate) fn take_rest_fault(&self) -> Option<RestFault> {
        let mut state = self.state();
        state.report.rest_requests += 1;
        take(&mut state.armed_rest)
    }

    pub(crate) fn new_link(&self) -> Arc<Link> {
        let mut state = self.state();
        state.last_connection += 1;
        Arc::new(Link::new(state.last_connection))
    }

    /// Where to cut a payload into pieces, if it is the turn of this one. Its last `suffix` bytes stay together, unless
    /// that is what shall be tried.
    pub(crate) fn cuts(&self, length: usize, suffix: usize) -> Vec<usize> {
        let (split, suffix_too) = (self.config.split_frames, self.config.split_suffix);
        let end = if suffix_too { length } else { length.saturating_sub(suffix) };
        if !(split || suffix_too) || end < 3 {
            return Vec::new();
        }
        let mut state = self.state();
        if state.random.u32(0..3) > 0 {
            return Vec::new();
        }
        let last = if suffix_too {
            length - state.random.usize(1..length.min(4))
        } else {
            state.random.usize(1..=end)
        };
        let mut cuts = vec![state.random.usize(1..end), last.min(length - 1)];
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }

    /// The answer of `GET /gateway/bot`.
    pub(crate) fn gateway_bot(&self) -> Value {
        let mut state = self.state();
        let now = state.now();
        state.renew_period(now);
        let reset_after = state.period_ends.map_or(0, |end| (end - now).as_millis());
        json!({
            "url": self.gateway_url(),
            "shards": state.limits.shards,
            "session_start_limit": {
                "total": state.limits.total,
                "remaining": state.limits.remaining,
                "reset_after": u64::try_from(reset_after).unwrap_or(u64::MAX),
                "max_concurrency": state.limits.max_concurrency,
            },
        })
    }

    /// Where clients find it, if it listens anywhere.
    pub(crate) fn public_addr(&self) -> Option<SocketAddr> {
        self.config.public_addr.or(self.addr)
    }

    pub(crate) fn gateway_url(&self) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        match self.public_addr() {
            Some(addr) => format!("{scheme}://{addr}"),
            None => format!("{scheme}://gateway.sim.invalid"),
        }
    }

    /// The next dispatch for a connection's writer; `None` when there is none yet.
    pub(crate) fn next_dispatch(&self, feed: &Feed, link: &Link) -> Result<Option<Arc<[u8]>>, SlowClient> {
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(session) = state.sessions.get(&feed.session) else { return Ok(None) };
        if !session.can_replay_after(feed.cursor) {
            return Err(SlowClient);
        }
        let (sequence, payload) = match session.next_after(feed.cursor, link.id) {
            Ok(next) => next,
            Err(last) => {
                link.advance(last.max(feed.cursor));
                return Ok(None);
            }
        };
        if link.reorders()
            && let Ok((later, overtaking)) = session.next_after(sequence, link.id)
        {
            link.reordered();
            state.ledger.sent_late(&payload);
            link.send(Out::Text(String::from_utf8_lossy(&payload).into_owned()));
            link.advance(later);
            return Ok(Some(overtaking));
        }
        link.advance(sequence);
        Ok(Some(payload))
    }

    /// The shard of a session, and the last sequence that was sent in it.
    pub(crate) fn last_sequence(&self, id: &str) -> Option<u64> {
        Some(self.state().sessions.get(id)?.sequence)
    }

    /// The client has shown that it knows of its session: it has named a sequence of it.
    pub(crate) fn proven(&self, id: &str) {
        if let Some(session) = self.state().sessions.get_mut(id) {
            session.proven = true;
        }
    }

    pub(crate) fn shard_of(&self, id: &str) -> Option<u32> {
        Some(self.state().sessions.get(id)?.shard)
    }

    pub(crate) fn is_over(&self, id: &str) -> bool {
        self.state().sessions.get(id).is_none_or(|session| session.over)
    }

    /// Whether this connection is the session's own, and nothing ended it.
    pub(crate) fn owns(&self, id: &str, link: &Link) -> bool {
        let state = self.state();
        let session = state.sessions.get(id).filter(|session| !session.over);
        session.and_then(|session| session.link.as_ref()).is_some_and(|mine| mine.id == link.id)
    }

    /// A heartbeat came; if it is the first of its connection, at this place of the interval.
    pub(crate) fn heartbeat(&self, connection: u64, first: Option<f64>) {
        let mut state = self.state();
        state.report.heartbeats += 1;
        let unjittered = first.is_some_and(|first| state.note_first_heartbeat(connection, first));
        self.changed(state);
        if unjittered {
            let detail = format!(
                "{JITTER_SAMPLE} connections whose first heartbeat came at the same time after Hello"
            );
            self.judge(judgement::HEARTBEATS_UNJITTERED, None, detail);
        }
    }

    pub(crate) fn command(&self) {
        let mut state = self.state();
        state.report.commands += 1;
        self.changed(state);
    }

    /// The client was told op 9: its session is over, or to be resumed once more.
    pub(crate) fn told_invalid(&self, id: &str, resumable: bool, at: Instant) {
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(session) = state.sessions.get_mut(id) {
            state.invalidated.insert(session.shard, at);
            if !resumable {
                session.told = Some(Over { since: at, judgement: judgement::RESUME_AFTER_OP_9 });
            }
        }
    }

    /// The client was told so by a close code.
    pub(crate) fn told_close(&self, link: &Link, code: u16, at: Instant) {
        let judgement = match code {
            4003 => judgement::RESUME_AFTER_4003,
            4006 => judgement::RESUME_AFTER_4006,
            4007 => judgement::RESUME_AFTER_4007,
            4009 => judgement::RESUME_AFTER_4009,
            _ => return,
        };
        let mut state = self.state();
        let mine = |session: &&mut Session| session.link.as_ref().is_some_and(|mine| mine.id == link.id);
        if let Some(session) = state.sessions.values_mut().find(mine) {
            session.told = Some(Over { since: at, judgement });
        }
    }

    /// A connection ended. With 1000 or 1001 from the client its session ends too (GW-098).
    pub(crate) fn disconnected(
        &self,
        session: Option<&str>,
        link: &Arc<Link>,
        close: Option<(u16, Instant)>,
    ) {
        let mut guard = self.state();
        let state = &mut *guard;
        let now = state.now();
        if let Some(id) = session
            && let Some(found) = state.sessions.get_mut(id)
            && found.link.as_ref().is_some_and(|mine| mine.id == link.id)
        {
            found.link = None;
            found.lost_at = Some(now);
            state.report.ready_sessions -= 1;
            state.lost.push_back((now, id.to_owned()));
            if let Some((1000 | 1001, at)) = close {
                let since = at + state.skew;
                state.end_session(id, Over { since, judgement: judgement::RESUME_AFTER_OWN_CLOSE });
            } else if let Some(over) = found.told {
                state.end_session(id, over);
            } else if found.over {
                state.sessions.remove(id);
            }
        }
        self.changed(guard);
    }
}

impl State {
    /// By the simulator's own clock.
    pub(crate) fn now(&self) -> Instant {
        Instant::now() + self.skew
    }

    /// Says whether those of one sample were all at the same place: that is no jitter (GW-110). A sample is of connections
    /// that were made one after the other. Those whose heartbeats come one after the other prove nothing: where many are
    /// opened at once, neighbours are close.
    fn note_first_heartbeat(&mut self, connection: u64, first: f64) -> bool {
        let sample = connection.saturating_sub(1) / JITTER_SAMPLE as u64;
        let firsts = self.first_heartbeats.entry(sample).or_default();
        firsts.push(first);
        let is_unjittered = firsts.len() == JITTER_SAMPLE && {
            let (least, most) =
                firsts.iter().fold((f64::MAX, f64::MIN), |(least, most), at| (least.min(*at), most.max(*at)));
            most - least < JITTER_SPREAD
        };
        if firsts.len() == JITTER_SAMPLE {
            self.first_heartbeats.remove(&sample);
        } else if self.first_heartbeats.len() > MAX_JITTER_SAMPLES {
            self.first_heartbeats.pop_first();
        }
        is_unjittered
    }

    /// The number of the next thing that happens.
    pub(crate) fn next_event(&mut self) -> u64 {
        self.happenings += 1;
        self.happenings
    }

    pub(crate) fn renew_period(&mut self, now: Instant) {
        if self.period_ends.is_some_and(|end| end <= now) {
            self.period_ends = None;
            self.limits.remaining = self.limits.total;
        }
    }

    pub(crate) fn report(&self) -> Report {
        let mut report = self.report.clone();
        report.sent = self.ledger.sent();
        report.remaining = self.limits.remaining;
        report
    }

    /// What was sent in each session there ever was.
    pub(crate) fn session_records(&self, lifetime: Duration) -> Vec<SessionRecord> {
        let now = self.now();
        let mut records = self.ledger.records();
        for (id, session) in &self.sessions {
            let key = (session.shard, session.ordinal);
            if let Ok(place) = records.binary_search_by_key(&key, |record| (record.shard_id, record.session))
            {
                let expired =
                    session.lost_at.is_some_and(|lost| now.saturating_duration_since(lost) >= lifetime);
                records[place].id.clone_from(id);
                records[place].alive = !session.over && !expired;
                records[place].connected = session.link.is_some();
            }
        }
        records
    }

    /// Whether a session of this shard is there to be resumed, and its client knows of it and was told nothing else.
    pub(crate) fn holds_session(&self, shard: u32, count: u32) -> bool {
        let newest = self.newest.get(&shard).and_then(|id| self.sessions.get(id));
        let held = |session: &Session| {
            session.count == count && session.proven && !session.over && session.told.is_none()
        };
        !self.token_reset && newest.is_some_and(held)
    }

    pub(crate) fn expire(&mut self, now: Instant, lifetime: Duration) {
        while let Some((lost, id)) = self.lost.front()
            && now.saturating_duration_since(*lost) >= lifetime
        {
            // A session that was resumed in between is lost at another time, or never.
            if self.sessions.get(id).is_some_and(|session| session.lost_at == Some(*lost)) {
                self.sessions.remove(id);
            }
            self.lost.pop_front();
        }
    }

    /// Adds a session, which hears of its guilds from now on.
    pub(crate) fn add_session(&mut self, id: String, session: Session) {
        let listeners = self.listeners.entry(session.count).or_default();
        listeners.entry(session.shard).or_default().push(id.clone());
        self.newest.insert(session.shard, id.clone());
        self.report.ready_sessions += 1;
        self.sessions.insert(id, session);
    }

    /// Forgets a session.
    pub(crate) fn end_session(&mut self, id: &str, over: Over) {
        if self.sessions.remove(id).is_some_and(|session| session.link.is_some()) {
            self.report.ready_sessions -= 1;
        }
        if self.ended.len() < MAX_ENDED {
            self.ended.insert(id.to_owned(), over);
        }
    }

    /// The sessions that hear of a guild (GW-227, GW-231), or of what has none (GW-228).
    pub(crate) fn listeners(&mut self, guild: Option<usize>) -> Vec<String> {
        let mut all = Vec::new();
        for (count, shards) in &mut self.listeners {
            let shard = guild.map_or(0, |place| self.world.shard_of(place, *count));
            let Some(ids) = shards.get_mut(&shard) else { continue };
            ids.retain(|id| self.sessions.contains_key(id));
            all.extend(ids.iter().cloned());
        }
        all
    }

    /// Sends an event to each session that hears of it and has the intents.
    pub(crate) fn publish(&mut self, event: &str, guild: Option<usize>, data: &Value, limit: usize) {
        let place = if guild.is_some() { Place::Guild } else { Place::Elsewhere };
        for id in self.listeners(guild) {
            let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.over) else { continue };
            let Some(mut data) = world::seen_by(event, data, place, session.audience.intents) else {
                continue;
            };
            data["_trace"] = json!([self.ledger.send(session.shard, session.ordinal)]);
            session.push(event, &data.to_string(), None, limit);
        }
    }

    /// Sends an event in one session only: the answer to a command, or what a test wants to be sent.
    pub(crate) fn answer(&mut self, id: &str, event: &str, mut data: Value, limit: usize) {
        let Some(session) = self.sessions.get_mut(id).filter(|session| !session.over) else { return };
        data["_trace"] = json!([self.ledger.send(session.shard, session.ordinal)]);
        session.push(event, &data.to_string(), None, limit);
    }

    /// Tells each session that owns a guild what has become of it.
    pub(crate) fn publish_guild(&mut self, place: usize, joining: bool, limit: usize) {
        for id in self.listeners(Some(place)) {
            let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.over) else { continue };
            let guild = self.world.guild(place);
            if guild.joined && !session.guilds.contains(&place) {
                session.guilds.push(place);
            } else if !guild.joined {
                session.guilds.retain(|known| *known != place);
            }
            if session.audience.intents & intents::GUILDS == 0 {
                continue;
            }
            let (event, mut data) = if !guild.joined {
                ("GUILD_DELETE", json!({"id": guild.id.to_string()}))
            } else if !guild.is_available() {
                ("GUILD_DELETE", json!({"id": guild.id.to_string(), "unavailable": true}))
            } else {
                ("GUILD_CREATE", guild.create(session.audience, !joining))
            };
            data["_trace"] = json!([self.ledger.send(session.shard, session.ordinal)]);
            session.push(event, &data.to_string(), None, limit);
        }
    }
}

pub(crate) fn take<T: Copy>(armed: &mut VecDeque<(T, usize)>) -> Option<T> {
    armed.retain(|(_, times)| *times > 0);
    let (fault, times) = armed.front_mut()?;
    *times -= 1;
    Some(*fault)
}

/// A payload without a sequence.
pub(crate) fn text(op: u8, data: &str) -> Out {
    Out::Text(format!(r#"{{"t":null,"s":null,"op":{op},"d":{data}}}"#))
}
