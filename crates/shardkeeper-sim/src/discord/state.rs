//! The state that connections share: its parts, and the events that go from guilds to sessions.

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::access::Access;
use super::clock::Clock;
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
use crate::report::{Report, SessionRecord};
use crate::world::{self, Place, World};

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
    pub(crate) fn publish(&mut self, event: &str, guild: Option<usize>, data: &Value) {
        let place = if guild.is_some() { Place::Guild } else { Place::Elsewhere };
        for id in self.listeners(guild) {
            let Some(session) = self.sessions.live_mut(&id) else { continue };
            if let Some(data) = world::seen_by(event, data, place, session.audience.intents) {
                send(session, &mut self.ledger, event, data);
            }
        }
    }

    /// Sends an event in one session only: the answer to a command, or an event that a test has chosen.
    pub(crate) fn answer(&mut self, id: &str, event: &str, data: Value) {
        if let Some(session) = self.sessions.live_mut(id) {
            send(session, &mut self.ledger, event, data);
        }
    }

    /// Sends GUILD_CREATE or GUILD_DELETE in each session of a guild, according to the guild's state.
    pub(crate) fn publish_guild(&mut self, place: usize, joining: bool) {
        for id in self.listeners(Some(place)) {
            let Some(session) = self.sessions.live_mut(&id) else { continue };
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
            send(session, &mut self.ledger, event, data);
        }
    }
}

/// Sends an event in a session, with its trace.
pub(crate) fn send(session: &mut Session, ledger: &mut Ledger, event: &str, mut data: Value) {
    data["_trace"] = json!([ledger.send(session.shard, session.ordinal)]);
    session.push(event, &data.to_string(), None);
}
