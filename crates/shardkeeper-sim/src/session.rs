//! Sessions: what is sent in them, kept for a replay, and forgotten.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use crate::judgement::Judgement;
use crate::link::Link;
use crate::wire::Mode;
use crate::world::Audience;

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) shard: u32,
    pub(crate) count: u32,
    pub(crate) audience: Audience,
    /// The mode of the connection that created the session: a Resume has to use the same (GW-012).
    pub(crate) mode: Mode,
    /// The token as Identify had it: a Resume has to carry the same string (GW-070).
    pub(crate) token: String,
    /// Counted over the simulator's life; part of each trace.
    pub(crate) ordinal: u64,
    /// The places of its guilds in the world.
    pub(crate) guilds: Vec<usize>,
    pub(crate) sequence: u64,
    buffer: VecDeque<Entry>,
    /// The highest sequence that was dropped from the buffer and would have been replayed.
    forgotten: u64,
    pub(crate) link: Option<Arc<Link>>,
    pub(crate) lost_at: Option<Instant>,
    /// Nothing is emitted any more: it was declared invalid.
    pub(crate) over: bool,
    /// The client has named a sequence of it, so that it knows of it.
    pub(crate) proven: bool,
    /// The client was told that it is over; what a later Resume of it is judged as.
    pub(crate) told: Option<Over>,
}

#[derive(Clone, Debug)]
struct Entry {
    sequence: u64,
    payload: Arc<[u8]>,
    /// READY and RESUMED belong to one connection, and are not replayed.
    only_for: Option<u64>,
}

/// That the client was told of a session's end, or ended it: a Resume that was written after `since` is judged so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over {
    pub(crate) since: Instant,
    pub(crate) judgement: &'static Judgement,
}

/// For whom a session is.
pub(crate) struct Owner {
    pub(crate) shard: u32,
    pub(crate) count: u32,
    pub(crate) audience: Audience,
    pub(crate) mode: Mode,
    pub(crate) token: String,
}

impl Session {
    pub(crate) fn new(owner: Owner, ordinal: u64, guilds: Vec<usize>, link: Arc<Link>) -> Self {
        Self {
            shard: owner.shard,
            count: owner.count,
            audience: owner.audience,
            mode: owner.mode,
            token: owner.token,
            ordinal,
            guilds,
            sequence: 0,
            buffer: VecDeque::new(),
            forgotten: 0,
            link: Some(link),
            lost_at: None,
            over: false,
            proven: false,
            told: None,
        }
    }

    /// Appends a dispatch; the connection's writer takes it from here.
    pub(crate) fn push(&mut self, event: &str, data: &str, only_for: Option<u64>, limit: usize) {
        self.sequence += 1;
        let sequence = self.sequence;
        let payload = format!(r#"{{"t":"{event}","s":{sequence},"op":0,"d":{data}}}"#);
        self.append(payload, only_for, limit);
    }

    /// The same in another order of keys, with keys that nobody knows (GW-018, GW-021).
    pub(crate) fn push_odd(&mut self, event: &str, data: &str, limit: usize) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.append(
            format!(r#"{{"x":[{{}}],"d":{data},"op":0,"s":{sequence},"y":null,"t":"{event}"}}"#),
            None,
            limit,
        );
    }

    fn append(&mut self, payload: String, only_for: Option<u64>, limit: usize) {
        let payload = payload.into_bytes().into();
        self.buffer.push_back(Entry { sequence: self.sequence, payload, only_for });
        while self.buffer.len() > limit.max(1) {
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

    /// The newest dispatches that are no READY or RESUMED, oldest first.
    pub(crate) fn newest(&self, count: usize) -> Vec<Arc<[u8]>> {
        let events = self.buffer.iter().rev().filter(|entry| entry.only_for.is_none());
        let mut newest: Vec<_> = events.take(count).map(|entry| Arc::clone(&entry.payload)).collect();
        newest.reverse();
        newest
    }

    /// Whether everything after this sequence is still here (GW-103).
    pub(crate) fn can_replay_after(&self, sequence: u64) -> bool {
        sequence >= self.forgotten
    }

    /// How many dispatches a replay from there has.
    pub(crate) fn replay_length(&self, after: u64) -> u64 {
        let missed = self.buffer.iter().rev().take_while(|entry| entry.sequence > after);
        missed.filter(|entry| entry.only_for.is_none()).count() as u64
    }

    /// The first dispatch after a sequence that is for this connection; or how far there is none.
    pub(crate) fn next_after(&self, sequence: u64, connection: u64) -> Result<(u64, Arc<[u8]>), u64> {
        let start = self.buffer.partition_point(|entry| entry.sequence <= sequence);
        let mine = |entry: &&Entry| entry.only_for.is_none_or(|only| only == connection);
        match self.buffer.iter().skip(start).find(mine) {
            Some(entry) => Ok((entry.sequence, Arc::clone(&entry.payload))),
            None => Err(self.sequence),
        }
    }
}
