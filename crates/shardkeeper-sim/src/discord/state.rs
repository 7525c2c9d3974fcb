//! The state that connections share: its parts, and the events that go from guilds to sessions.

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::access::Access;
use super::clock::Clock;
use super::history::{self, History, Trace};
use super::identifies::Identifies;
use super::jitter::Jitter;
use super::ledger::Ledger;
use super::member_requests::MemberRequests;
use super::refusals::Refusals;
use super::session::Session;
use super::sessions::Sessions;
use super::waiting::WaitingFaults;
use crate::buckets::Buckets;
use crate::config::SimConfig;
use crate::intents;
use crate::judge::Finding;
use crate::judgement;
use crate::report::{Report, SessionRecord, WorldDelivery};
use crate::world::{self, Guild, Place, World, reversed};

/// Everything that changes. It is behind one lock, which is held for moments only.
pub(crate) struct State {
    pub(crate) random: Rng,
    pub(crate) clock: Clock,
    pub(crate) world: World,
    pub(crate) sessions: Sessions,
    pub(crate) identifies: Identifies,
    pub(crate) access: Access,
    pub(crate) refusals: Refusals,
    pub(crate) jitter: Jitter,
    pub(crate) member_requests: MemberRequests,
    pub(crate) buckets: Buckets,
    pub(crate) faults: WaitingFaults,
    pub(crate) ledger: Ledger,
    pub(crate) history: History,
    pub(crate) report: Report,
}

impl State {
    pub(super) fn new(config: &SimConfig) -> Self {
        let mut random = Rng::with_seed(config.seed);
        Self {
            world: World::new(config.guilds, config.large_guild_members, config.mix, &mut random),
            random,
            clock: Clock::default(),
            sessions: Sessions::new(config.timings.session_lifetime),
            identifies: Identifies::new(config),
            access: Access::new(config.token.clone(), config.allowed_intents),
            refusals: Refusals::default(),
            jitter: Jitter::default(),
            member_requests: MemberRequests::default(),
            buckets: Buckets::default(),
            faults: WaitingFaults::default(),
            ledger: Ledger::default(),
            history: History::new(config.traces.clone(), config.history_limit),
            report: Report::default(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The report with the numbers that other parts keep.
    pub(crate) fn report(&self) -> Report {
        let mut report = self.report.clone();
        report.sent = self.ledger.sent();
        report.remaining = self.identifies.remaining;
        report.ready_sessions = self.sessions.connected();
        report
    }

    /// All sessions since the start, sorted by shard and number, with what was sent in them.
    pub(crate) fn session_records(&self) -> Vec<SessionRecord> {
        let mut records = self.ledger.records();
        self.sessions.complete(&mut records, self.now());
        records
    }

    /// The sessions that receive the events of a guild (GW-227, GW-231), or those outside of guilds (GW-228).
    fn listeners(&mut self, guild: Option<usize>) -> Vec<String> {
        let world = &self.world;
        self.sessions.listeners(|count| guild.map_or(0, |place| world.shard_of(place, count)))
    }

    /// Sends an event in each session that receives those of its guild and has the intents.
    /// Returns whether there is one.
    pub(crate) fn publish(&mut self, event: &str, guild: Option<usize>, data: &Value) -> bool {
        let mut is_received = false;
        let place = if guild.is_some() { Place::Guild } else { Place::Elsewhere };
        let trace = self.begin(event, guild, data);
        for id in self.listeners(guild) {
            let Some(session) = self.sessions.live_mut(&id) else { continue };
            if let Some(data) = world::seen_by(event, data, place, session.audience.intents) {
                self.history.received(trace, session.ordinal);
                send(session, &mut self.ledger, trace, event, data);
                is_received = true;
            }
        }
        self.history.end(trace);
        is_received
    }

    /// Carries out what follows from the end of sessions: the bot's voice connections end with their session
    /// (GW-207). Returns what the client did wrong, with the shard.
    pub(crate) fn settle(&mut self) -> Vec<(Option<u32>, Finding)> {
        let mut findings = Vec::new();
        for (shard, count) in self.sessions.take_left_behind() {
            let detail = format!("shard {shard} of {count} was not closed with 1000 after the switch");
            findings.push((Some(shard), (judgement::SESSION_LEFT_BEHIND, detail)));
        }
        let voices: Vec<(usize, String)> =
            self.world.bot_voices().map(|(place, id)| (place, id.to_owned())).collect();
        for (place, id) in voices {
            if self.sessions.live_mut(&id).is_some() {
                continue;
            }
            let Some(update) = self.world.move_bot(place, &id, None) else { continue };
            self.publish("VOICE_STATE_UPDATE", Some(place), &update);
            if self.sessions.is_closed_by_client(&id) && self.is_heard(place) {
                let guild = self.world.guild(place).id;
                let detail = format!("the bot's voice in guild {guild} ended with the session");
                findings.push((None, (judgement::VOICE_CUT, detail)));
            }
        }
        findings
    }

    /// When the next session expires, by tokio's clock.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.sessions.next_expiry().map(|at| self.clock.real(at))
    }

    /// A random guild; `None` if there is none.
    pub(crate) fn any_guild(&mut self) -> Option<usize> {
        let count = self.world.guilds().len();
        (count > 0).then(|| self.random.usize(..count))
    }

    /// Whether a session receives the events of a guild.
    pub(crate) fn is_heard(&mut self, guild: usize) -> bool {
        self.listeners(Some(guild)).iter().any(|id| self.sessions.live_mut(id).is_some())
    }

    fn begin(&mut self, event: &str, guild: Option<usize>, data: &Value) -> Trace {
        let guild = guild.map(|place| self.world.guild(place).id);
        self.history.begin(event, guild, data, self.clock.now())
    }

    /// What the subscribers received over all sessions.
    pub(crate) fn world_delivery(&self) -> WorldDelivery {
        let dropped = self.sessions.dropped();
        self.history.verdict(|session, at| self.sessions.owes(&dropped, session, at))
    }

    /// Sends a dispatch of a session once more.
    pub(crate) fn repeat(&mut self, id: &str, event: &str, data: Value) {
        let now = self.clock.now();
        if let Some(session) = self.sessions.live_mut(id) {
            let trace = self.history.copied(event, &data, session.ordinal, now);
            send(session, &mut self.ledger, trace, event, data);
        }
    }

    /// Sends the GUILD_CREATEs of a session that are due. Returns when the next one is.
    pub(crate) fn let_guilds_arrive(&mut self, id: &str) -> Option<Instant> {
        let now = Instant::now();
        loop {
            let session = self.sessions.live_mut(id)?;
            let (at, place) = *session.arriving.front()?;
            if at > now {
                return Some(at);
            }
            session.arriving.pop_front();
            send_initial(session, &mut self.ledger, self.world.guild(place), place);
        }
    }

    /// Sends an event in one session only: the answer to a command, or an event that a test has chosen.
    pub(crate) fn answer(&mut self, id: &str, event: &str, data: Value) {
        if let Some(session) = self.sessions.live_mut(id) {
            send(session, &mut self.ledger, Trace::Session, event, data);
        }
    }

    /// Sends GUILD_CREATE or GUILD_DELETE in each session of a guild, according to the guild's state.
    pub(crate) fn publish_guild(&mut self, place: usize, joining: bool) {
        let event = if self.world.guild(place).joined { "GUILD_CREATE" } else { "GUILD_DELETE" };
        let trace = self.begin(event, Some(place), &Value::Null);
        for id in self.listeners(Some(place)) {
            let Some(session) = self.sessions.live_mut(&id) else { continue };
            // What is said now replaces the GUILD_CREATE that was still to come.
            session.arriving.retain(|(_, arriving)| *arriving != place);
            let guild = self.world.guild(place);
            if guild.joined && !session.guilds.contains(&place) {
                session.guilds.push(place);
            } else if !guild.joined {
                session.guilds.retain(|known| *known != place);
            }
            if session.audience.intents & intents::GUILDS == 0 {
                continue;
            }
            let (event, data) = if !guild.joined {
                ("GUILD_DELETE", json!({"id": guild.id.to_string()}))
            } else if !guild.is_available() {
                ("GUILD_DELETE", json!({"id": guild.id.to_string(), "unavailable": true}))
            } else {
                ("GUILD_CREATE", guild.create(session.audience, !joining))
            };
            self.history.received(trace, session.ordinal);
            send(session, &mut self.ledger, trace, event, data);
        }
        self.history.end(trace);
    }
}

/// Sends an event in a session, with its trace.
fn send(session: &mut Session, ledger: &mut Ledger, trace: Trace, event: &str, mut data: Value) {
    let (shard, ordinal) = (session.shard, session.ordinal);
    match trace {
        Trace::Session => data["_trace"] = json!([ledger.send(shard, ordinal)]),
        Trace::Serial(serial) => {
            ledger.send_untraced(shard, ordinal);
            history::write(&mut data, serial);
        }
        Trace::Content => ledger.send_untraced(shard, ordinal),
    }
    let text = if session.settings.reversed_keys { reversed(&data) } else { data.to_string() };
    session.push(event, &text, None);
}

/// Sends a guild of READY in its session: GUILD_CREATE, or for a guild in an outage an unavailable GUILD_DELETE
/// (GW-249) or GUILD_CREATE (GW-250). A guild that the bot has left since does not come.
pub(crate) fn send_initial(session: &mut Session, ledger: &mut Ledger, guild: &Guild, place: usize) {
    let named = |numbers: &[u32]| numbers.iter().any(|number| *number as usize == place);
    if !guild.joined || named(&session.settings.missing_guilds) {
        return;
    }
    let is_available = guild.is_available() && !named(&session.settings.unavailable_guilds);
    let (event, data) = match is_available {
        true => ("GUILD_CREATE", guild.create(session.audience, true)),
        false => {
            let event = if place.is_multiple_of(2) { "GUILD_DELETE" } else { "GUILD_CREATE" };
            (event, json!({"id": guild.id.to_string(), "unavailable": true}))
        }
    };
    send(session, ledger, Trace::Session, event, data);
}
