//! A session: the events in it, and the buffer that they are replayed from.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::judgement::Judgement;
use crate::link::Link;
use crate::settings::SessionSettings;
use crate::wire::Mode;
use crate::world::Audience;

/// A session, from Identify until it is forgotten.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) shard: u32,
    pub(crate) count: u32,
    pub(crate) audience: Audience,
    /// The version, encoding and compression of the connection that identified (GW-012: a Resume has to use
    /// the same).
    pub(crate) mode: Mode,
    /// The token exactly as in the Identify (GW-070: a Resume has to use the same).
    pub(crate) token: String,
    /// The number of the session, counted over the simulator's life. It is part of each trace.
    pub(crate) ordinal: u64,
    /// The indices of its guilds in the world.
    pub(crate) guilds: Vec<usize>,
    /// The last sequence number that was given to a dispatch.
    pub(crate) sequence: u64,
    /// The most dispatches in the buffer.
    replay_limit: usize,
    buffer: VecDeque<Entry>,
    /// The highest sequence that was dropped from the buffer and would have been replayed.
    forgotten: u64,
    /// When the newest dispatch in the buffer may be written.
    ready_at: Instant,
    pub(crate) settings: SessionSettings,
    /// For everything random in how the session is treated.
    pub(crate) random: Rng,
    /// The guilds of READY that are still to come, each with its time.
    pub(crate) arriving: VecDeque<(Instant, usize)>,
    /// The last presence that the client set.
    pub(crate) presence: Option<serde_json::Value>,
    /// The connection of the session; `None` while it has none.
    pub(crate) link: Option<Arc<Link>>,
    /// Whether another session of its guilds started while this one had a connection.
    pub(crate) succeeded: bool,
    /// When the session lost its connection.
    pub(crate) lost_at: Option<Instant>,
    /// Whether the session is invalid, so that no more events are sent in it.
    pub(crate) over: bool,
    /// Whether the client has sent a sequence of the session, which proves that it received READY.
    pub(crate) proven: bool,
    /// Set once op 9 or a close code has told the client that the session is over.
    pub(crate) announced_end: Option<Ended>,
}

#[derive(Clone, Debug)]
struct Entry {
    sequence: u64,
    /// When the dispatch may be written, because of [`SessionSettings::lag_ms`].
    ready_at: Instant,
    payload: Arc<[u8]>,
    /// The only connection that gets this dispatch. READY and RESUMED belong to one connection and are not
    /// replayed.
    only_for: Option<u64>,
}

/// There is no dispatch to write now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drained {
    /// The sequence up to which there is nothing.
    pub(crate) searched: u64,
    /// When the next dispatch may be written, if there is one.
    pub(crate) due: Option<Instant>,
}

/// The end of a session that the client knows of. A Resume that the client writes after `since` gets the
/// judgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) since: Instant,
    pub(crate) judgement: &'static Judgement,
}

/// The properties of a session that its Identify decides.
pub(crate) struct Owner {
    pub(crate) shard: u32,
    pub(crate) count: u32,
    pub(crate) audience: Audience,
    pub(crate) mode: Mode,
    pub(crate) token: String,
}

/// Whether a close code ends the session too.
pub(crate) fn ends_session(code: u16) -> bool {
    matches!(code, 4003 | 4004 | 4006 | 4007 | 4009..=4014)
}

impl Session {
    pub(crate) fn new(
        owner: Owner,
        ordinal: u64,
        guilds: Vec<usize>,
        link: Arc<Link>,
        replay_limit: usize,
        settings: SessionSettings,
    ) -> Self {
        Self {
            shard: owner.shard,
            count: owner.count,
            audience: owner.audience,
            mode: owner.mode,
            token: owner.token,
            ordinal,
            guilds,
            sequence: 0,
            replay_limit,
            buffer: VecDeque::new(),
            forgotten: 0,
            ready_at: Instant::now(),
            settings,
            random: Rng::with_seed(ordinal),
            arriving: VecDeque::new(),
            presence: None,
            link: Some(link),
            succeeded: false,
            lost_at: None,
            over: false,
            proven: false,
            announced_end: None,
        }
    }

    /// Whether sessions of this shard and number of shards can have a guild in common with this session: the ids
    /// of shards of one guild are congruent modulo the greatest common divisor of the numbers of shards.
    pub(crate) fn may_share(&self, shard: u32, count: u32) -> bool {
        let (mut divisor, mut rest) = (self.count.max(1), count.max(1));
        while rest != 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        self.shard % divisor == shard % divisor
    }

    /// Whether the session has a connection that is not about to end.
    pub(crate) fn is_live(&self) -> bool {
        !self.over && self.link.as_ref().is_some_and(|link| !link.is_gone())
    }

    /// Appends a dispatch, which the connection's writer takes from the buffer.
    pub(crate) fn push(&mut self, event: &str, data: &str, only_for: Option<u64>) {
        self.sequence += 1;
        let sequence = self.sequence;
        let payload = format!(r#"{{"t":"{event}","s":{sequence},"op":0,"d":{data}}}"#);
        self.append(payload, only_for);
    }

    /// Appends a dispatch with unknown keys, and with its keys in another order (GW-018, GW-021).
    pub(crate) fn push_odd(&mut self, event: &str, data: &str) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.append(
            format!(r#"{{"x":[{{}}],"d":{data},"op":0,"s":{sequence},"y":null,"t":"{event}"}}"#),
            None,
        );
    }

    fn append(&mut self, payload: String, only_for: Option<u64>) {
        let payload = payload.into_bytes().into();
        let mut delay = 0;
        if only_for.is_none() && self.settings.lag_ms + self.settings.jitter_ms > 0 {
            delay = self.settings.lag_ms + self.random.u64(0..=self.settings.jitter_ms);
        }
        self.ready_at = self.ready_at.max(Instant::now() + Duration::from_millis(delay));
        let ready_at = self.ready_at;
        self.buffer.push_back(Entry { sequence: self.sequence, ready_at, payload, only_for });
        while self.buffer.len() > self.replay_limit.max(1) {
            if let Some(dropped) = self.buffer.pop_front()
                && dropped.only_for.is_none()
            {
                self.forgotten = dropped.sequence;
            }
        }
        if let Some(link) = &self.link {
            link.wake();
        }
    }

    /// The newest dispatches other than READY and RESUMED, oldest first.
    pub(crate) fn newest(&self, count: usize) -> Vec<Arc<[u8]>> {
        let events = self.buffer.iter().rev().filter(|entry| entry.only_for.is_none());
        let mut newest: Vec<_> = events.take(count).map(|entry| Arc::clone(&entry.payload)).collect();
        newest.reverse();
        newest
    }

    /// Whether everything after this sequence is still in the buffer (GW-103: otherwise a Resume fails).
    pub(crate) fn can_replay_after(&self, sequence: u64) -> bool {
        sequence >= self.forgotten
    }

    /// How many dispatches a replay from this sequence consists of.
    pub(crate) fn replay_length(&self, after: u64) -> u64 {
        let missed = self.buffer.iter().rev().take_while(|entry| entry.sequence > after);
        missed.filter(|entry| entry.only_for.is_none()).count() as u64
    }

    /// The first dispatch for this connection after a sequence that may be written now.
    pub(crate) fn next_after(&self, sequence: u64, connection: u64) -> Result<(u64, Arc<[u8]>), Drained> {
        let start = self.buffer.partition_point(|entry| entry.sequence <= sequence);
        let mine = |entry: &&Entry| entry.only_for.is_none_or(|only| only == connection);
        match self.buffer.iter().skip(start).find(mine) {
            Some(entry) if entry.ready_at > Instant::now() => {
                Err(Drained { searched: sequence, due: Some(entry.ready_at) })
            }
            Some(entry) => Ok((entry.sequence, Arc::clone(&entry.payload))),
            None => Err(Drained { searched: self.sequence, due: None }),
        }
    }
}
