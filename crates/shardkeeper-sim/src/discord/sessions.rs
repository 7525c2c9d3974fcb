//! All sessions: those that are alive, which connections they have, and how the others ended.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::session::{Ended, Session};
use crate::judgement;
use crate::link::Link;
use crate::report::SessionRecord;
use crate::settings::{SessionFilter, SessionSettings};

/// How many ended sessions are remembered, so that a Resume of one can be judged.
const MAX_ENDED: usize = 100_000;
/// How many settings of sessions are kept. Beyond that the oldest is dropped.
const MAX_SETTINGS: usize = 1_000;

/// The sessions of the bot.
pub(crate) struct Sessions {
    lifetime: Duration,
    /// The sessions by id. Sorted, so that an action on all of them has the same order in each run.
    by_id: BTreeMap<String, Session>,
    /// The newest session of each shard.
    newest: BTreeMap<u32, String>,
    /// The newest session of each number of shards and shard.
    newest_of: BTreeMap<(u32, u32), String>,
    /// The settings of present and future sessions; the last one that includes a session applies.
    settings: Vec<(SessionFilter, SessionSettings)>,
    /// When the client closed sessions with 1000 or 1001, by the number of the session.
    closed: BTreeMap<u64, Instant>,
    /// The shards and numbers of shards of expired sessions whose guilds another session has, until
    /// [`Self::take_left_behind`].
    left_behind: Vec<(u32, u32)>,
    /// The numbers of the sessions that Discord dropped, or that the client may never have known.
    dropped: BTreeSet<u64>,
    /// The ids of sessions by number of shards and shard, to find those that receive the events of a guild.
    listeners: BTreeMap<u32, HashMap<u32, Vec<String>>>,
    /// The sessions without a connection, in the order in which they lost it, with the time.
    lost: VecDeque<(Instant, String)>,
    /// How the sessions ended that are forgotten.
    ended: BTreeMap<String, Ended>,
    /// How many sessions were ever started.
    started: u64,
    /// How many sessions have a connection.
    connected: u64,
}

impl Sessions {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            by_id: BTreeMap::new(),
            newest: BTreeMap::new(),
            newest_of: BTreeMap::new(),
            settings: Vec::new(),
            closed: BTreeMap::new(),
            left_behind: Vec::new(),
            dropped: BTreeSet::new(),
            listeners: BTreeMap::new(),
            lost: VecDeque::new(),
            ended: BTreeMap::new(),
            started: 0,
            connected: 0,
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Session> {
        self.by_id.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Session> {
        self.by_id.get_mut(id)
    }

    /// The session with this id, unless it is over.
    pub(crate) fn live_mut(&mut self, id: &str) -> Option<&mut Session> {
        self.by_id.get_mut(id).filter(|session| !session.over)
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.by_id.values_mut()
    }

    /// The session that has this connection.
    pub(crate) fn of_link(&mut self, link: &Link) -> Option<&mut Session> {
        let has_link = |session: &&mut Session| session.link.as_ref().is_some_and(|own| own.id == link.id);
        self.by_id.values_mut().find(has_link)
    }

    /// The ids of the sessions that a filter includes and that are not over, by shard and number.
    pub(crate) fn matching(&self, of: &SessionFilter) -> Vec<String> {
        let is_meant =
            |session: &Session| !session.over && of.includes(session.shard, session.count, session.ordinal);
        let mut meant: Vec<_> = self.by_id.iter().filter(|(_, session)| is_meant(session)).collect();
        meant.sort_by_key(|(_, session)| (session.shard, session.ordinal));
        meant.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// Changes how the sessions are treated that a filter includes, and those that start later.
    pub(crate) fn set(&mut self, of: SessionFilter, settings: &SessionSettings) {
        self.settings.retain(|(other, _)| *other != of);
        if self.settings.len() >= MAX_SETTINGS {
            self.settings.remove(0);
        }
        self.settings.push((of, settings.clone()));
        for session in self.by_id.values_mut() {
            if of.includes(session.shard, session.count, session.ordinal) {
                session.settings = settings.clone();
            }
        }
    }

    /// How a new session is treated.
    pub(crate) fn settings(&self, shard: u32, count: u32, session: u64) -> SessionSettings {
        let mut newest_first = self.settings.iter().rev();
        let found = newest_first.find(|(of, _)| of.includes(shard, count, session));
        found.map(|(_, settings)| settings.clone()).unwrap_or_default()
    }

    /// Whether a session of this shard and number of shards has a connection that is not about to end.
    pub(crate) fn is_beside(&self, shard: u32, count: u32) -> bool {
        let is_same = |session: &Session| (session.shard, session.count) == (shard, count);
        self.by_id.values().any(|session| is_same(session) && session.is_live())
    }

    /// Whether the client can deliver, or could have delivered, an event that this session got at this time.
    pub(crate) fn owes(&self, ended: &BTreeSet<u64>, session: u64, at: Instant) -> bool {
        !ended.contains(&session) && self.closed.get(&session).is_none_or(|since| at < *since)
    }

    /// The numbers of the sessions that Discord dropped.
    pub(crate) fn dropped(&self) -> BTreeSet<u64> {
        let over = self.by_id.values().filter(|session| session.over).map(|session| session.ordinal);
        self.dropped.iter().copied().chain(over).collect()
    }

    /// Forgets a session. Remembers whether the client could not keep it.
    fn forget(&mut self, id: &str, by_discord: bool) -> Option<Session> {
        let session = self.by_id.remove(id)?;
        if (by_discord || session.over) && self.dropped.len() < MAX_ENDED {
            self.dropped.insert(session.ordinal);
        }
        Some(session)
    }

    /// The shards that have ever had a session.
    pub(crate) fn shards(&self) -> Vec<u32> {
        self.newest.keys().copied().collect()
    }

    /// The id of the newest session of a shard, which may have ended.
    pub(crate) fn newest(&self, shard: u32) -> Option<&String> {
        self.newest.get(&shard)
    }

    /// How many sessions have a connection.
    pub(crate) fn connected(&self) -> u64 {
        self.connected
    }

    /// The number of a new session.
    pub(crate) fn next_ordinal(&mut self) -> u64 {
        self.started += 1;
        self.started
    }

    /// Adds a session with its connection. It receives the events of its guilds from now on.
    pub(crate) fn add(&mut self, id: String, session: Session) {
        for other in self.by_id.values_mut() {
            other.succeeded |= other.is_live() && other.may_share(session.shard, session.count);
        }
        let listeners = self.listeners.entry(session.count).or_default();
        listeners.entry(session.shard).or_default().push(id.clone());
        self.newest.insert(session.shard, id.clone());
        self.newest_of.insert((session.count, session.shard), id.clone());
        self.connected += 1;
        self.by_id.insert(id, session);
    }

    /// Gives a session another connection. Returns the one that it had.
    pub(crate) fn resume(&mut self, id: &str, link: &Arc<Link>) -> Option<Arc<Link>> {
        let session = self.by_id.get_mut(id)?;
        let older = session.link.replace(Arc::clone(link));
        self.connected += u64::from(older.is_none());
        session.lost_at = None;
        session.proven = true;
        // The client may have lost a later session of this shard. From now on, actions on the shard concern
        // this one.
        self.newest.insert(session.shard, id.to_owned());
        self.newest_of.insert((session.count, session.shard), id.to_owned());
        older
    }

    /// Notes that a connection has ended, with the code and time of the client's close frame if there was
    /// one. 1000 and 1001 end the session too (GW-098).
    pub(crate) fn disconnect(&mut self, id: &str, link: &Link, close: Option<(u16, Instant)>, now: Instant) {
        let Some(session) = self.by_id.get_mut(id) else { return };
        if session.link.as_ref().is_none_or(|own| own.id != link.id) {
            return;
        }
        session.link = None;
        session.lost_at = Some(now);
        self.connected -= 1;
        self.lost.push_back((now, id.to_owned()));
        let (announced_end, over) = (session.announced_end, session.over);
        if let Some((1000 | 1001, since)) = close {
            if self.closed.len() < MAX_ENDED {
                self.closed.insert(session.ordinal, since);
            }
            self.end(id, Ended { since, judgement: judgement::RESUME_AFTER_OWN_CLOSE });
        } else if let Some(ended) = announced_end {
            self.end(id, ended);
        } else if over {
            self.forget(id, true);
        }
    }

    /// Forgets a session, but not how it ended.
    pub(crate) fn end(&mut self, id: &str, ended: Ended) {
        // At a refused Resume, Discord has dropped the session.
        let is_refused = ended.judgement == judgement::RESUME_AFTER_REFUSAL;
        if self.forget(id, is_refused).is_some_and(|session| session.link.is_some()) {
            self.connected -= 1;
        }
        if self.ended.len() < MAX_ENDED {
            self.ended.insert(id.to_owned(), ended);
        }
    }

    /// The end of a session that the client knows of.
    pub(crate) fn ended(&self, id: &str) -> Option<Ended> {
        let announced = self.by_id.get(id).and_then(|session| session.announced_end);
        announced.or_else(|| self.ended.get(id).copied())
    }

    /// Forgets the sessions that have been without a connection for their lifetime.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((lost, id)) = self.lost.front()
            && now.saturating_duration_since(*lost) >= self.lifetime
        {
            // A session that was resumed since then has another `lost_at`, or none.
            let expired = self.by_id.get(id).filter(|session| session.lost_at == Some(*lost));
            let is_proven = expired.map(|session| session.proven);
            let Some((_, id)) = self.lost.pop_front() else { return };
            if let Some(is_proven) = is_proven
                && let Some(session) = self.forget(&id, !is_proven)
                && session.succeeded
                && !session.over
                && self
                    .by_id
                    .values()
                    .any(|other| other.is_live() && other.may_share(session.shard, session.count))
                && self.left_behind.len() < MAX_ENDED
            {
                self.left_behind.push((session.shard, session.count));
            }
        }
    }

    /// When the next session without a connection expires.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.lost.front().and_then(|(lost, _)| lost.checked_add(self.lifetime))
    }

    /// Whether the client closed the session with 1000 or 1001.
    pub(crate) fn is_closed_by_client(&self, id: &str) -> bool {
        let own = |ended: &Ended| ended.judgement == judgement::RESUME_AFTER_OWN_CLOSE;
        self.ended.get(id).is_some_and(own)
    }

    pub(crate) fn take_left_behind(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.left_behind)
    }

    /// Whether the client could resume a session of this shard, as far as it knows.
    pub(crate) fn holds(&self, shard: u32, count: u32) -> bool {
        let newest = self.newest_of.get(&(count, shard)).and_then(|id| self.by_id.get(id));
        newest.is_some_and(|session| session.proven && !session.over && session.announced_end.is_none())
    }

    /// The sessions of the shards that `shard_of` gives, by number of shards.
    pub(crate) fn listeners(&mut self, shard_of: impl Fn(u32) -> u32) -> Vec<String> {
        let mut all = Vec::new();
        for (count, shards) in &mut self.listeners {
            let Some(ids) = shards.get_mut(&shard_of(*count)) else { continue };
            ids.retain(|id| self.by_id.contains_key(id));
            all.extend(ids.iter().cloned());
        }
        all
    }

    /// Adds the ids of the sessions to records that are sorted by shard and session, and whether they are
    /// alive.
    pub(crate) fn complete(&self, records: &mut [SessionRecord], now: Instant) {
        for (id, session) in &self.by_id {
            let key = (session.shard, session.ordinal);
            if let Ok(place) = records.binary_search_by_key(&key, |record| (record.shard_id, record.session))
            {
                let is_expired =
                    session.lost_at.is_some_and(|lost| now.saturating_duration_since(lost) >= self.lifetime);
                records[place].id.clone_from(id);
                records[place].alive = !session.over && !is_expired;
                records[place].connected = session.link.is_some();
                records[place].presence.clone_from(&session.presence);
            }
        }
    }
}
