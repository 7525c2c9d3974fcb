//! The simulator's handle, and the state behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::SimConfig;
use crate::fault::{ConnectFault, Fault, InjectError, RestFault};
use crate::ledger::Ledger;
use crate::link::{Feed, Link, Out};
use crate::report::{Delivery, IdentifyRecord, Report, Violation};
use crate::session::Session;
use crate::world::{self, World};
use crate::{http, intents};

/// How many of each are kept for the report.
const MAX_VIOLATIONS: usize = 1_000;
const MAX_IDENTIFY_LOG: usize = 100_000;
/// Op 9 `false`, compact, with `s` and `t` as in every payload.
const INVALID_SESSION: &str = r#"{"t":null,"s":null,"op":9,"d":false}"#;

/// A simulated Discord. Clones are handles of the same one.
#[derive(Clone)]
pub struct Simulator {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: SimConfig,
    addr: Option<SocketAddr>,
    started: Instant,
    state: Mutex<State>,
    /// Counts changes, for whoever waits for one.
    changes: watch::Sender<u64>,
    traffic: watch::Sender<bool>,
    pub(crate) over: watch::Sender<bool>,
}

struct State {
    random: Rng,
    world: World,
    happenings: u64,
    sessions: HashMap<String, Session>,
    /// The newest session of each shard.
    newest: BTreeMap<u32, String>,
    /// Sessions that the client itself gave up by closing with 1000 or 1001 (GW-098).
    given_up: BTreeSet<String>,
    last_session: u64,
    last_connection: u64,
    last_identify: HashMap<u32, Instant>,
    remaining: u32,
    period_ends: Option<Instant>,
    /// Shards whose last connection was closed for good, with the code (GW-095).
    refused: BTreeMap<u32, u16>,
    armed: VecDeque<(ConnectFault, usize)>,
    armed_rest: VecDeque<(RestFault, usize)>,
    ledger: Ledger,
    report: Report,
}

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

impl Simulator {
    fn new(config: SimConfig, addr: Option<SocketAddr>) -> Self {
        let mut random = Rng::with_seed(config.seed);
        let state = State {
            world: World::new(config.guilds, &mut random),
            random,
            happenings: 0,
            sessions: HashMap::new(),
            newest: BTreeMap::new(),
            given_up: BTreeSet::new(),
            last_session: 0,
            last_connection: 0,
            last_identify: HashMap::new(),
            remaining: config.identify_remaining,
            // Spent identifies mean that a period is running already.
            period_ends: (config.identify_remaining < config.identify_total)
                .then(|| Instant::now() + config.timings.budget_period),
            refused: BTreeMap::new(),
            armed: VecDeque::new(),
            armed_rest: VecDeque::new(),
            ledger: Ledger::default(),
            report: Report::default(),
        };
        let inner = Inner {
            config,
            addr,
            started: Instant::now(),
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
            traffic: watch::Sender::new(false),
            over: watch::Sender::new(false),
        };
        let simulator = Self { inner: Arc::new(inner) };
        tokio::spawn(generate(Arc::clone(&simulator.inner)));
        simulator
    }

    /// Listens on a TCP address, REST and Gateway on one port; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub async fn bind(config: SimConfig, addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let simulator = Self::new(config, Some(listener.local_addr()?));
        tokio::spawn(http::listen(listener, Arc::clone(&simulator.inner)));
        Ok(simulator)
    }

    /// Listens on nothing: [`connect`](Self::connect) makes connections within the process. Under a paused clock
    /// hours pass in milliseconds.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn in_memory(config: SimConfig) -> Self {
        Self::new(config, None)
    }

    /// A new connection to the simulator's one port, as a stream in memory of 64 KiB each way.
    pub fn connect(&self) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(http::serve(theirs, Arc::clone(&self.inner)));
        ours
    }

    /// Where it listens, if it does.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.inner.addr
    }

    /// The URL of its REST API, with the version.
    pub fn api_url(&self) -> String {
        match self.inner.addr {
            Some(addr) => format!("http://{addr}/api/v10"),
            None => "http://sim.invalid/api/v10".to_owned(),
        }
    }

    /// Generates events from now on, as many as the configuration says.
    pub fn start_traffic(&self) {
        self.inner.traffic.send_replace(true);
    }

    /// Generates no more events, not one, from this call on. Those of logins still come.
    pub fn stop_traffic(&self) {
        // Under the lock that events are generated under.
        let _state = self.inner.state();
        self.inner.traffic.send_replace(false);
    }

    /// Generates as many events at once, in the newest session of a shard.
    pub fn emit(&self, shard_id: u32, count: usize) {
        let mut state = self.inner.state();
        for _ in 0..count {
            // An event that the intents filter out is made up for by another one.
            for _ in 0..100 {
                if state.happen(shard_id, self.inner.config.replay_limit) {
                    break;
                }
            }
        }
        self.inner.changed(state);
    }

    /// Makes a fault on the live connection of a shard.
    ///
    /// # Errors
    ///
    /// When the shard has no connection that is logged in.
    pub fn inject(&self, shard_id: u32, fault: Fault) -> Result<(), InjectError> {
        let mut state = self.inner.state();
        let state_ref = &mut *state;
        let session = state_ref.newest.get(&shard_id).and_then(|id| state_ref.sessions.get_mut(id));
        let Some((session, link)) =
            session.and_then(|session| session.link.clone().map(|link| (session, link)))
        else {
            return Err(InjectError::NotConnected { shard_id });
        };
        match fault {
            Fault::StopAcking => link.stop_acking(),
            Fault::Silence => link.silence(),
            Fault::HalfOpen => link.half_open(),
            Fault::Cut => link.cut(),
            Fault::Corrupt => link.send(Out::Corrupt),
            Fault::RequestHeartbeat => link.send(text(1, "null")),
            Fault::Reconnect => {
                link.send_later(text(7, "null"));
                let grace = self.inner.config.timings.reconnect_grace;
                tokio::spawn(async move {
                    tokio::time::sleep(grace).await;
                    link.send_later(Out::Close { code: 4000, reason: "reconnect" });
                });
            }
            Fault::InvalidSession { resumable } => {
                if !resumable {
                    session.over = true;
                }
                link.send_later(text(9, if resumable { "true" } else { "false" }));
            }
            Fault::Close { code } => {
                if matches!(code, 4003 | 4004 | 4006 | 4007 | 4009..=4014) {
                    session.over = true;
                }
                if matches!(code, 4004 | 4010..=4014) {
                    state_ref.refused.insert(shard_id, code);
                }
                link.send_later(Out::Close { code, reason: "fault" });
            }
        }
        self.inner.changed(state);
        Ok(())
    }

    /// Makes a fault on each of the next `times` gateway connections. Faults that are armed later come later.
    pub fn arm(&self, fault: ConnectFault, times: usize) {
        self.inner.state().armed.push_back((fault, times));
    }

    /// Makes a fault on each of the next `times` REST requests.
    pub fn arm_rest(&self, fault: RestFault, times: usize) {
        self.inner.state().armed_rest.push_back((fault, times));
    }

    /// What it has seen so far.
    pub fn report(&self) -> Report {
        self.inner.state().report(self.inner.config.identify_total)
    }

    /// Waits until the report is as the caller wants it. Asks after each change, and never by the clock.
    pub async fn wait_until(&self, mut predicate: impl FnMut(&Report) -> bool) {
        let mut changes = self.inner.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if predicate(&self.report()) {
                return;
            }
            // The sender lives as long as this handle.
            let _ = changes.changed().await;
        }
    }

    /// A subscriber of the client got a dispatch: its shard, event and the JSON of its data.
    pub fn observe(&self, _shard_id: u32, _event: &str, data: &[u8]) {
        let mut state = self.inner.state();
        state.ledger.observe(data);
        self.inner.changed(state);
    }

    /// What became of the dispatches.
    pub fn delivery(&self) -> Delivery {
        self.inner.state().ledger.delivery()
    }

    /// Ends every connection and listens no more.
    pub fn shutdown(&self) {
        self.inner.over.send_replace(true);
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.changes.send_modify(|count| *count += 1);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes that the client broke a rule.
    pub(crate) fn violation(&self, rule: &'static str, shard_id: Option<u32>, detail: impl Into<String>) {
        let at_ms = self.now_ms();
        let mut state = self.state();
        if state.report.violations.len() < MAX_VIOLATIONS {
            state.report.violations.push(Violation { rule, shard_id, at_ms, detail: detail.into() });
        }
        self.changed(state);
    }

    /// The fault that is armed for this connection.
    pub(crate) fn take_connect_fault(&self) -> Option<ConnectFault> {
        let mut state = self.state();
        state.report.connections += 1;
        let fault = take(&mut state.armed);
        self.changed(state);
        fault
    }

    pub(crate) fn take_rest_fault(&self) -> Option<RestFault> {
        take(&mut self.state().armed_rest)
    }

    pub(crate) fn new_link(&self) -> Arc<Link> {
        let mut state = self.state();
        state.last_connection += 1;
        Arc::new(Link::new(state.last_connection))
    }

    /// Cuts a payload into pieces, if it is the turn of this one.
    pub(crate) fn cuts(&self, length: usize) -> Vec<usize> {
        let mut state = self.state();
        if !self.config.split_frames || length < 3 || state.random.u32(0..3) > 0 {
            return Vec::new();
        }
        // One cut anywhere, and one within the last four bytes: the suffix itself may come in two pieces (GW-045).
        let anywhere = state.random.usize(1..length);
        let mut cuts = vec![anywhere, length - state.random.usize(1..length.min(4))];
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }

    /// The answer of `GET /gateway/bot`.
    pub(crate) fn gateway_bot(&self) -> Value {
        let state = self.state();
        let reset_after = state.period_ends.map_or(0, |end| (end - Instant::now()).as_millis());
        json!({
            "url": self.gateway_url(),
            "shards": self.config.shards,
            "session_start_limit": {
                "total": self.config.identify_total,
                "remaining": state.remaining,
                "reset_after": u64::try_from(reset_after).unwrap_or(u64::MAX),
                "max_concurrency": self.config.max_concurrency,
            },
        })
    }

    pub(crate) fn gateway_url(&self) -> String {
        match self.addr {
            Some(addr) => format!("ws://{addr}"),
            None => "ws://gateway.sim.invalid".to_owned(),
        }
    }

    /// Another one than for Identify (GW-132), and without a query (GW-012).
    fn resume_url(&self) -> String {
        match self.addr {
            Some(addr) => format!("ws://{addr}/resume"),
            None => "ws://resume.sim.invalid/resume".to_owned(),
        }
    }

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
        if identify.token != self.config.token {
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
        if token.starts_with("Bot ") || state.given_up.contains(id) {
            drop(guard);
            if token.starts_with("Bot ") {
                self.violation("GW-070", shard, "the token of a Resume has the prefix of REST");
            } else {
                self.violation(
                    "GW-098",
                    shard,
                    "a Resume of a session that the client closed with 1000 or 1001",
                );
            }
            self.state().report.resumes_refused += 1;
            return Login::Refused;
        }
        if let Some(ConnectFault::Close { code }) = fault {
            self.changed(guard);
            return Login::Closed { code, reason: "fault" };
        }
        let alive = |session: &&mut Session| !session.over && token == self.config.token;
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

    /// The next dispatch for a connection's writer; `None` when there is none yet.
    pub(crate) fn next_dispatch(&self, feed: &Feed, link: &Link) -> Result<Option<Arc<[u8]>>, SlowClient> {
        let state = self.state();
        let Some(session) = state.sessions.get(&feed.session) else { return Ok(None) };
        if !session.can_replay_after(feed.cursor) {
            return Err(SlowClient);
        }
        Ok(match session.next_after(feed.cursor, link.id) {
            Ok((sequence, payload)) => {
                link.advance(sequence);
                Some(payload)
            }
            Err(last) => {
                link.advance(last.max(feed.cursor));
                None
            }
        })
    }

    /// The shard of a session, and the last sequence that was sent in it.
    pub(crate) fn last_sequence(&self, id: &str) -> Option<u64> {
        Some(self.state().sessions.get(id)?.sequence)
    }

    pub(crate) fn shard_of(&self, id: &str) -> Option<u32> {
        Some(self.state().sessions.get(id)?.shard)
    }

    pub(crate) fn is_over(&self, id: &str) -> bool {
        self.state().sessions.get(id).is_none_or(|session| session.over)
    }

    pub(crate) fn heartbeat(&self) {
        let mut state = self.state();
        state.report.heartbeats += 1;
        self.changed(state);
    }

    pub(crate) fn command(&self) {
        let mut state = self.state();
        state.report.commands += 1;
        self.changed(state);
    }

    pub(crate) fn presence(&self, shard: u32, presence: Value) {
        let mut state = self.state();
        state.report.presences.insert(shard, presence);
        self.changed(state);
    }

    /// A connection ended. With 1000 or 1001 from the client its session ends too (GW-098).
    pub(crate) fn disconnected(&self, session: Option<&str>, link: &Arc<Link>, code: Option<u16>) {
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(id) = session
            && let Some(found) = state.sessions.get_mut(id)
            && found.link.as_ref().is_some_and(|mine| mine.id == link.id)
        {
            found.link = None;
            found.lost_at = Some(Instant::now());
            if matches!(code, Some(1000 | 1001)) {
                state.given_up.insert(id.to_owned());
                state.sessions.remove(id);
            } else if found.over {
                state.sessions.remove(id);
            }
        }
        self.changed(guard);
    }
}

/// The client reads so slowly that what it has not read is forgotten.
pub(crate) struct SlowClient;

impl State {
    fn report(&self, total: u32) -> Report {
        let mut report = self.report.clone();
        report.sent = self.ledger.delivery().sent;
        report.ready_sessions =
            self.sessions.values().filter(|session| session.link.is_some()).count() as u64;
        report.remaining = self.remaining.min(total);
        report
    }

    fn expire(&mut self, now: Instant, lifetime: Duration) {
        let alive =
            |session: &Session| session.lost_at.is_none_or(|lost| now.duration_since(lost) < lifetime);
        self.sessions.retain(|_, session| alive(session));
    }

    /// Something happens in a guild of the shard's newest session. Says whether it was sent.
    fn happen(&mut self, shard: u32, limit: usize) -> bool {
        let Some(session) = self.newest.get(&shard).and_then(|id| self.sessions.get_mut(id)) else {
            return false;
        };
        if session.over {
            return false;
        }
        self.happenings += 1;
        let content = session.intents & intents::MESSAGE_CONTENT != 0;
        let happening = self.world.happening(&session.guilds, self.happenings, content, &mut self.random);
        let Some((event, mut data)) = happening else { return false };
        if intents::needed(event) & !session.intents != 0 {
            return false;
        }
        data["_trace"] = json!([self.ledger.send(shard, session.ordinal)]);
        session.push(event, &data.to_string(), None, limit);
        true
    }
}

fn take<T: Copy>(armed: &mut VecDeque<(T, usize)>) -> Option<T> {
    armed.retain(|(_, times)| *times > 0);
    let (fault, times) = armed.front_mut()?;
    *times -= 1;
    Some(*fault)
}

/// A payload without a sequence.
pub(crate) fn text(op: u8, data: &str) -> Out {
    Out::Text(format!(r#"{{"t":null,"s":null,"op":{op},"d":{data}}}"#))
}

/// Op 9 `false`.
pub(crate) fn invalid_session() -> Out {
    Out::Text(INVALID_SESSION.to_owned())
}

/// Generates events while traffic is on, at random shards.
async fn generate(inner: Arc<Inner>) {
    /// Events come in small batches: a timer per event would cost more than the event.
    const TICK: Duration = Duration::from_millis(10);
    let mut traffic = inner.traffic.subscribe();
    let mut over = inner.over.subscribe();
    let rate = inner.config.events_per_second.max(0.0);
    // Below one per tick, wait for the next event instead.
    let tick = if rate > 0.0 { TICK.max(Duration::from_secs_f64((1.0 / rate).min(86_400.0))) } else { TICK };
    let mut owed = 0.0;
    loop {
        if traffic.wait_for(|on| *on).await.is_err() || *over.borrow_and_update() || rate <= 0.0 {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(tick) => {}
            _ = over.changed() => return,
        }
        owed += rate * tick.as_secs_f64();
        let mut state = inner.state();
        if !*traffic.borrow() {
            owed = 0.0;
            continue;
        }
        let shards: Vec<u32> = state.newest.keys().copied().collect();
        while owed >= 1.0 {
            owed -= 1.0;
            if let Some(shard) = state.random.choice(&shards).copied() {
                state.happen(shard, inner.config.replay_limit);
            }
        }
        inner.changed(state);
    }
}
