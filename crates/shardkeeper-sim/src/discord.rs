//! What the connections of one simulator share: its guilds, sessions, limits and everything it counts.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::SimConfig;
use crate::fault::{ConnectFault, Fault, InjectError, RestFault};
use crate::ledger::Ledger;
use crate::link::{Feed, Link, Out};
use crate::report::{Report, Violation};
use crate::session::Session;
use crate::world::World;

/// What tells the URL for Resume from the bootstrap URL, on one port.
pub(crate) const RESUME_PATH: &str = "/resume";
/// How many are kept for the report.
const MAX_VIOLATIONS: usize = 1_000;

/// What all connections of one simulator share.
pub(crate) struct Discord {
    pub(crate) config: SimConfig,
    pub(crate) addr: Option<SocketAddr>,
    pub(crate) started: Instant,
    pub(crate) state: Mutex<State>,
    /// Counts changes, for whoever waits for one.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) traffic: watch::Sender<bool>,
    pub(crate) over: watch::Sender<bool>,
}

/// All of it is behind one lock, held for moments.
pub(crate) struct State {
    pub(crate) random: Rng,
    pub(crate) world: World,
    pub(crate) happenings: u64,
    pub(crate) sessions: HashMap<String, Session>,
    /// The newest session of each shard.
    pub(crate) newest: BTreeMap<u32, String>,
    /// Sessions that the client itself gave up by closing with 1000 or 1001 (GW-098).
    pub(crate) given_up: BTreeSet<String>,
    pub(crate) last_session: u64,
    pub(crate) last_connection: u64,
    pub(crate) last_identify: HashMap<u32, Instant>,
    pub(crate) remaining: u32,
    pub(crate) period_ends: Option<Instant>,
    /// Shards whose last connection was closed for good, with the code (GW-095).
    pub(crate) refused: BTreeMap<u32, u16>,
    pub(crate) armed: VecDeque<(ConnectFault, usize)>,
    pub(crate) armed_rest: VecDeque<(RestFault, usize)>,
    pub(crate) ledger: Ledger,
    pub(crate) report: Report,
}

/// The client reads so slowly that what it has not read is forgotten.
pub(crate) struct SlowClient;

impl Discord {
    pub(crate) fn new(config: SimConfig, addr: Option<SocketAddr>) -> Self {
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
        Self {
            config,
            addr,
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

    pub(crate) fn changed(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn now_ms(&self) -> u64 {
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
    pub(crate) fn resume_url(&self) -> String {
        match self.addr {
            Some(addr) => format!("ws://{addr}{RESUME_PATH}"),
            None => format!("ws://resume.sim.invalid{RESUME_PATH}"),
        }
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

    /// Makes a fault on the live connection of a shard.
    pub(crate) fn inject(&self, shard_id: u32, fault: Fault) -> Result<(), InjectError> {
        let mut state = self.state();
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
                let grace = self.config.timings.reconnect_grace;
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
        self.changed(state);
        Ok(())
    }
}

impl State {
    pub(crate) fn report(&self, total: u32) -> Report {
        let mut report = self.report.clone();
        report.sent = self.ledger.delivery().sent;
        report.ready_sessions =
            self.sessions.values().filter(|session| session.link.is_some()).count() as u64;
        report.remaining = self.remaining.min(total);
        report
    }

    pub(crate) fn expire(&mut self, now: Instant, lifetime: Duration) {
        let alive =
            |session: &Session| session.lost_at.is_none_or(|lost| now.duration_since(lost) < lifetime);
        self.sessions.retain(|_, session| alive(session));
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
