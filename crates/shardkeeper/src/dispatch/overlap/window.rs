//! The overlap of one reshard group: the streams of its guilds, and the events that the new side holds.
//!
//! Input: what each shard of the group receives, in the order of each session. Output: what to do with it, and
//! what the new shards are to publish of the events that they held. The window has no clock, task or lock of
//! its own, and does not know what it holds (`T`).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use shardkeeper_proto::{ShardCount, ShardId};

use super::barrier::{Barrier, Step};
use super::identity::{Event, StreamKey};
use super::load::Load;
use super::stream::{Entry, Stream, Verdict};
use super::{NotYet, OverlapCounts, OverlapLimits, OverlapSide, Side};

/// Fingerprints of one stream. When there are more, the oldest is forgotten: 16,384 are minutes of the busiest
/// guild.
const PRINTS_PER_STREAM: usize = 16_384;
/// What a stream counts in fingerprints: its memory apart from them.
const STREAM_COSTS: usize = 8;

/// How an event of the new side is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::dispatch) struct Marks {
    /// The event may have been delivered by the old side.
    pub(in crate::dispatch) repeats: bool,
    /// The event belongs to the initial load of a session.
    pub(in crate::dispatch) warming: bool,
}

/// What to do with an event of the old side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatch) enum OldVerdict {
    Publish,
    /// The new side delivers it.
    Suppress,
}

/// What to do with an event of the new side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatch) enum NewVerdict {
    Publish(Marks),
    /// For subscriptions that asked for the load of new sessions; nobody else.
    Warming,
    /// The window keeps it, or has dropped it.
    Taken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Cut { at: Instant },
    Withdrawn,
}

#[derive(Debug, Default)]
struct OldShard {
    /// Whether a lossless subscription has not taken everything yet. `true` until the publisher reports.
    behind: bool,
    /// The session was lost when the new side had everything already, so the new side alone goes on.
    frozen: bool,
    /// The session was lost when the new side was not there yet, so the record has a gap.
    torn: bool,
    /// Highest sequence number that was recorded in the session.
    recorded: u64,
}

#[derive(Debug)]
struct NewShard<T> {
    in_session: bool,
    load: Load,
    /// Highest sequence number that was received in the session.
    received: u64,
    /// Whether the session was resumed, so that it began before any record of this overlap.
    resumed: bool,
    /// Events to publish now, in order.
    out: VecDeque<(Held<T>, Marks)>,
}

#[derive(Debug)]
struct Held<T> {
    shard: ShardId,
    bytes: usize,
    event: T,
}

#[derive(Debug)]
pub(super) struct Window<T> {
    limits: OverlapLimits,
    old_count: ShardCount,
    new_count: ShardCount,
    old: BTreeMap<ShardId, OldShard>,
    new: BTreeMap<ShardId, NewShard<T>>,
    streams: HashMap<StreamKey, Stream>,
    /// Fingerprints and streams, in units of a fingerprint.
    prints: usize,
    /// Events of the new side whose verdict is open, in the order of their arrival.
    held: BTreeMap<Entry, Held<T>>,
    next_entry: Entry,
    /// Events and bytes in `held` and in all `out`.
    events: usize,
    bytes: usize,
    phase: Phase,
    /// Whether the tail window is over: nothing is compared any more.
    expired: bool,
    barrier: Barrier,
    counts: OverlapCounts,
}

impl<T> Window<T> {
    pub(super) fn new(old: &OverlapSide, new: &OverlapSide, limits: OverlapLimits) -> Self {
        let old_shard = || OldShard { behind: true, ..OldShard::default() };
        let new_shard = || NewShard {
            in_session: false,
            load: Load::default(),
            received: 0,
            resumed: false,
            out: VecDeque::new(),
        };
        Self {
            limits,
            old_count: old.count,
            new_count: new.count,
            old: old.shards.iter().map(|shard| (*shard, old_shard())).collect(),
            new: new.shards.iter().map(|shard| (*shard, new_shard())).collect(),
            streams: HashMap::new(),
            prints: 0,
            held: BTreeMap::new(),
            next_entry: 0,
            events: 0,
            bytes: 0,
            phase: Phase::Open,
            expired: false,
            barrier: Barrier::new(),
            counts: OverlapCounts::default(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    fn old_shard_of(&self, stream: StreamKey) -> ShardId {
        match stream {
            StreamKey::Guild(guild) => self.old_count.owner_of(guild),
            StreamKey::Shard(shard) => shard,
        }
    }

    fn new_shard_of(&self, stream: StreamKey) -> ShardId {
        match stream {
            StreamKey::Guild(guild) => self.new_count.owner_of(guild),
            StreamKey::Shard(shard) => shard,
        }
    }

    /// Whether a new record of this stream would begin before the new session of its guild.
    fn is_complete(&self, stream: StreamKey) -> bool {
        let torn = self.old.get(&self.old_shard_of(stream)).is_some_and(|old| old.torn);
        let resumed = self.new.get(&self.new_shard_of(stream)).is_some_and(|new| new.resumed);
        !torn && !resumed
    }

    fn is_full_of_prints(&self) -> bool {
        self.prints >= self.limits.fingerprints
    }

    /// The stream, recorded from now on if it was not. `None` when there is no room for another one.
    fn stream(&mut self, key: StreamKey) -> Option<&mut Stream> {
        if !self.streams.contains_key(&key) {
            if self.is_full_of_prints() {
                return None;
            }
            let complete = self.is_complete(key);
            self.prints += STREAM_COSTS;
            self.streams.insert(key, Stream::new(complete));
        }
        self.streams.get_mut(&key)
    }

    /// An event of an old shard. To be called, and carried out, while nothing else uses the window.
    pub(super) fn old(
        &mut self,
        shard: ShardId,
        event: &Event,
        (sequence, replayed): (u64, bool),
    ) -> OldVerdict {
        let Some(old) = self.old.get_mut(&shard) else { return OldVerdict::Publish };
        match self.phase {
            Phase::Cut { .. } => return OldVerdict::Suppress,
            Phase::Open if old.frozen => return OldVerdict::Suppress,
            Phase::Withdrawn => return OldVerdict::Publish,
            Phase::Open => {}
        }
        // After a crash the same dispatch may come once more.
        let again = replayed && sequence <= old.recorded;
        old.recorded = sequence.max(old.recorded);
        if again || !event.common {
            return OldVerdict::Publish;
        }
        let is_full = self.is_full_of_prints();
        let mut verdicts = Vec::new();
        let Some(stream) = self.stream(event.stream) else {
            // Without a record of the guild, nothing that the new side brings of it can be decided.
            if let Some(old) = self.old.get_mut(&shard) {
                old.torn = true;
            }
            return OldVerdict::Publish;
        };
        let before = stream.lead();
        if before >= PRINTS_PER_STREAM || is_full && before > 0 {
            stream.forget_oldest();
        }
        stream.old(event.print, &mut |entry, verdict| verdicts.push((entry, verdict)));
        let after = stream.lead();
        self.prints = (self.prints + after).saturating_sub(before);
        self.decide(verdicts);
        OldVerdict::Publish
    }

    /// An event of a new shard. `make` makes what the window holds, and returns its size.
    pub(super) fn new_event(
        &mut self,
        now: Instant,
        shard: ShardId,
        event: &Event,
        (sequence, replayed): (u64, bool),
        make: impl FnOnce() -> (T, usize),
    ) -> NewVerdict {
        let is_cut = matches!(self.phase, Phase::Cut { .. });
        let Some(new) = self.new.get_mut(&shard) else { return NewVerdict::Publish(Marks::default()) };
        if self.phase == Phase::Withdrawn {
            return NewVerdict::Taken;
        }
        Self::begin_resumed(new, now);
        let again = replayed && sequence <= new.received;
        new.received = sequence.max(new.received);
        let warming = new.load.takes(now, event, replayed);
        if !is_cut {
            if warming {
                return NewVerdict::Warming;
            }
            if again || !event.common {
                return NewVerdict::Taken;
            }
            self.hold(shard, event, make);
            return NewVerdict::Taken;
        }
        let repeats = match self.compare(event, warming) {
            Verdict::Double => {
                self.counts.matched += 1;
                return NewVerdict::Taken;
            }
            Verdict::New => false,
            Verdict::Doubtful => {
                self.counts.guessed += 1;
                true
            }
        };
        self.publish_or_queue(shard, Marks { repeats, warming }, make)
    }

    /// A dispatch of a new shard that belongs to its session.
    pub(super) fn new_of_session(
        &mut self,
        now: Instant,
        shard: ShardId,
        sequence: u64,
        make: impl FnOnce() -> (T, usize),
    ) -> NewVerdict {
        let Some(new) = self.new.get_mut(&shard) else { return NewVerdict::Publish(Marks::default()) };
        Self::begin_resumed(new, now);
        new.received = sequence.max(new.received);
        match self.phase {
            Phase::Cut { .. } => self.publish_or_queue(shard, Marks::default(), make),
            Phase::Open | Phase::Withdrawn => NewVerdict::Taken,
        }
    }

    /// READY of a new shard, with the guilds that will arrive.
    pub(super) fn new_ready(
        &mut self,
        now: Instant,
        shard: ShardId,
        guilds: Vec<u64>,
        make: impl FnOnce() -> (T, usize),
    ) -> NewVerdict {
        let Some(new) = self.new.get_mut(&shard) else { return NewVerdict::Publish(Marks::default()) };
        match self.phase {
            Phase::Open => {
                new.load = Load::ready(now, guilds);
                new.in_session = true;
                NewVerdict::Warming
            }
            // A session that begins after the cut-over begins as any other: nothing is compared with it.
            Phase::Cut { .. } => self.publish_or_queue(shard, Marks::default(), make),
            Phase::Withdrawn => NewVerdict::Taken,
        }
    }

    /// A dispatch without a READY before it: another process has begun the session.
    fn begin_resumed(new: &mut NewShard<T>, now: Instant) {
        if !new.load.has_begun() {
            new.load = Load::resumed(now);
            (new.in_session, new.resumed) = (true, true);
        }
    }

    fn publish_or_queue(
        &mut self,
        shard: ShardId,
        marks: Marks,
        make: impl FnOnce() -> (T, usize),
    ) -> NewVerdict {
        let Some(new) = self.new.get_mut(&shard).filter(|new| !new.out.is_empty()) else {
            return NewVerdict::Publish(marks);
        };
        let (event, bytes) = make();
        (self.events, self.bytes) = (self.events + 1, self.bytes + bytes);
        new.out.push_back((Held { shard, bytes, event }, marks));
        NewVerdict::Taken
    }

    fn hold(&mut self, shard: ShardId, event: &Event, make: impl FnOnce() -> (T, usize)) {
        let entry = self.next_entry;
        self.next_entry += 1;
        let (held, bytes) = make();
        (self.events, self.bytes) = (self.events + 1, self.bytes + bytes);
        self.held.insert(entry, Held { shard, bytes, event: held });
        let mut verdicts = Vec::new();
        match self.stream(event.stream) {
            Some(stream) => {
                let before = stream.lead();
                stream.new_held(event.print, entry, &mut |entry, verdict| verdicts.push((entry, verdict)));
                let after = stream.lead();
                self.prints = (self.prints + after).saturating_sub(before);
            }
            None => verdicts.push((entry, Verdict::Doubtful)),
        }
        self.decide(verdicts);
    }

    /// After the cut-over: whether the old side has delivered the event.
    fn compare(&mut self, event: &Event, warming: bool) -> Verdict {
        if self.expired || warming || !event.common {
            return Verdict::New;
        }
        let complete = self.is_complete(event.stream);
        let Some(stream) = self.streams.get_mut(&event.stream) else {
            return if complete { Verdict::New } else { Verdict::Doubtful };
        };
        let before = stream.lead();
        let verdict = stream.new_after_cut(event.print);
        self.prints = (self.prints + stream.lead()).saturating_sub(before);
        verdict
    }

    /// Carries out verdicts before the cut-over: what the old side has delivered is dropped. What is in doubt is
    /// published at once, since the old side has already delivered something later.
    fn decide(&mut self, verdicts: Vec<(Entry, Verdict)>) {
        for (entry, verdict) in verdicts {
            let Some(held) = self.held.remove(&entry) else { continue };
            match verdict {
                Verdict::Double => {
                    self.counts.matched += 1;
                    self.forget(&held);
                }
                Verdict::New | Verdict::Doubtful => self.release(held, verdict == Verdict::Doubtful),
            }
        }
    }

    fn release(&mut self, held: Held<T>, repeats: bool) {
        match repeats {
            true => self.counts.guessed += 1,
            false => self.counts.released += 1,
        }
        match self.new.get_mut(&held.shard) {
            Some(new) => new.out.push_back((held, Marks { repeats, warming: false })),
            None => self.forget(&held),
        }
    }

    fn forget(&mut self, held: &Held<T>) {
        (self.events, self.bytes) = (self.events - 1, self.bytes - held.bytes);
    }

    /// Takes the next event that this shard is to publish.
    pub(super) fn take(&mut self, shard: ShardId) -> Option<(T, Marks)> {
        let (held, marks) = self.new.get_mut(&shard)?.out.pop_front()?;
        self.forget(&held);
        Some((held.event, marks))
    }

    /// Whether this shard has an event to publish.
    pub(super) fn has_out(&self, shard: ShardId) -> bool {
        self.new.get(&shard).is_some_and(|new| !new.out.is_empty())
    }

    /// Highest sequence number of a new shard up to which everything is published or dropped; `None` while the
    /// shard holds events.
    pub(super) fn done_up_to(&self, shard: ShardId) -> Option<u64> {
        let new = self.new.get(&shard).filter(|new| new.out.is_empty())?;
        matches!(self.phase, Phase::Cut { .. }).then_some(new.received)
    }

    /// Whether the new side has to pause reading.
    pub(super) fn is_full(&self) -> bool {
        self.phase == Phase::Open
            && (self.events >= self.limits.held_events || self.bytes >= self.limits.held_bytes)
    }

    pub(super) fn set_behind(&mut self, shard: ShardId, behind: bool) {
        if let Some(old) = self.old.get_mut(&shard) {
            old.behind = behind;
        }
    }

    pub(super) fn answered(&mut self, side: Side, shard: ShardId, number: u64) {
        self.barrier.answered(side, shard, number);
    }

    /// The session of an old shard ended, or another one begins.
    pub(super) fn old_session_changed(&mut self, shard: ShardId) {
        if self.phase != Phase::Open {
            return;
        }
        let new_side_is_there = self.new.values().all(|new| new.in_session);
        let Some(old) = self.old.get_mut(&shard).filter(|old| !old.frozen) else { return };
        old.recorded = 0;
        old.frozen = new_side_is_there;
        if !new_side_is_there {
            old.torn = true;
            for key in self.keys_of(Side::Old, shard) {
                if let Some(stream) = self.streams.get_mut(&key) {
                    self.prints = self.prints.saturating_sub(stream.lead());
                    stream.old_lost();
                }
            }
            self.barrier.restart();
        }
    }

    /// The session of a new shard ended, or another one begins.
    pub(super) fn new_session_changed(&mut self, now: Instant, shard: ShardId, begins: bool) {
        let is_cut = match self.phase {
            Phase::Open => false,
            Phase::Cut { .. } => true,
            Phase::Withdrawn => return,
        };
        let Some(new) = self.new.get_mut(&shard) else { return };
        (new.in_session, new.received, new.resumed) = (begins, 0, false);
        // Before the cut-over READY's list follows. After it, guilds arrive as after any other READY.
        new.load = Load::default();
        if is_cut {
            (new.in_session, new.load) = (true, Load::ready(now, Vec::new()));
        }
        let mut lost = Vec::new();
        for key in self.keys_of(Side::New, shard) {
            let Some(stream) = self.streams.get_mut(&key) else { continue };
            if is_cut {
                self.prints = self.prints.saturating_sub(stream.lead());
                stream.finish();
            } else {
                lost.extend(stream.new_lost());
            }
        }
        for entry in lost {
            if let Some(held) = self.held.remove(&entry) {
                self.counts.dropped += 1;
                self.forget(&held);
            }
        }
        if !is_cut {
            self.barrier.restart();
        }
    }

    fn keys_of(&self, side: Side, shard: ShardId) -> Vec<StreamKey> {
        let owner = |key: &StreamKey| match side {
            Side::Old => self.old_shard_of(*key),
            Side::New => self.new_shard_of(*key),
        };
        self.streams.keys().filter(|key| owner(key) == shard).copied().collect()
    }

    /// The new shards that are loaded.
    pub(super) fn warm(&self, now: Instant) -> BTreeSet<ShardId> {
        let warm = |new: &NewShard<T>| new.in_session && new.load.is_done(now);
        self.new.iter().filter(|(_, new)| warm(new)).map(|(shard, _)| *shard).collect()
    }

    /// The old shards that lost their session.
    pub(super) fn frozen(&self) -> BTreeSet<ShardId> {
        self.old.iter().filter(|(_, old)| old.frozen).map(|(shard, _)| *shard).collect()
    }

    pub(super) fn undecided(&self) -> usize {
        self.streams.values().filter(|stream| !stream.is_locked()).count()
    }

    /// Moves the barrier on, and returns which shards are to send a heartbeat.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<(Side, ShardId, u64)> {
        if self.phase != Phase::Open {
            return Vec::new();
        }
        let warm = self.warm(now).len() == self.new.len();
        let new = self.new.keys().copied().collect();
        let old = self.old.iter().filter(|(_, old)| !old.frozen).map(|(shard, _)| *shard).collect();
        while let Some(step) = self.barrier.step(now, (&old, &new), warm, self.undecided() > 0) {
            self.carry_out(step);
        }
        self.barrier.questions(now, (&old, &new))
    }

    fn carry_out(&mut self, step: Step) {
        let mut verdicts = Vec::new();
        let mut decide = |entry, verdict| verdicts.push((entry, verdict));
        let (frozen, old_count) = (self.frozen(), self.old_count);
        for (key, stream) in &mut self.streams {
            let old_shard = match key {
                StreamKey::Guild(guild) => old_count.owner_of(*guild),
                StreamKey::Shard(shard) => *shard,
            };
            // The old side does not go on there, so that it delivers nothing proves nothing.
            if frozen.contains(&old_shard) {
                continue;
            }
            match step {
                Step::MarkOld => stream.mark_old(),
                Step::MarkNew => stream.mark_new(),
                Step::Settle => {
                    let before = stream.lead();
                    stream.settle(&mut decide);
                    self.prints = (self.prints + stream.lead()).saturating_sub(before);
                }
            }
        }
        self.decide(verdicts);
    }

    pub(super) fn is_warming(&self) -> bool {
        self.barrier.is_warming()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.barrier.is_done()
    }

    /// From here on the new side delivers. Everything held gets its verdict.
    pub(super) fn cut_over(&mut self, now: Instant) -> Result<(), NotYet> {
        if self.phase != Phase::Open {
            return Err(NotYet::Over);
        }
        if let Some((shard, _)) = self.old.iter().find(|(_, old)| old.behind) {
            return Err(NotYet::Behind(*shard));
        }
        if self.barrier.is_warming() || !self.new.values().all(|new| new.in_session) {
            return Err(NotYet::Warming);
        }
        if !self.barrier.is_passed() {
            return Err(NotYet::Probing);
        }
        self.phase = Phase::Cut { at: now };
        let mut verdicts = HashMap::new();
        for stream in self.streams.values_mut() {
            let before = stream.lead();
            stream.cut(&mut |entry, verdict| {
                verdicts.insert(entry, verdict);
            });
            self.prints = (self.prints + stream.lead()).saturating_sub(before);
        }
        // In the order of their arrival, so that each shard publishes in the order of its session.
        for (entry, held) in std::mem::take(&mut self.held) {
            self.release(held, verdicts.get(&entry) != Some(&Verdict::New));
        }
        Ok(())
    }

    /// Drops what the new side holds. The old side goes on.
    pub(super) fn withdraw(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Withdrawn;
        self.counts.dropped += u64::try_from(self.events).unwrap_or(u64::MAX);
        self.held.clear();
        self.streams = HashMap::new();
        for new in self.new.values_mut() {
            new.out = VecDeque::new();
        }
        (self.events, self.bytes, self.prints) = (0, 0, 0);
    }

    /// Whether the overlap is over: everything is released, and nothing is left to compare with, or nothing
    /// was to come any more.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let at = match self.phase {
            Phase::Open => return false,
            Phase::Cut { at } => at,
            Phase::Withdrawn => return true,
        };
        if !self.expired && now.saturating_duration_since(at) >= self.limits.tail {
            self.expired = true;
            (self.streams, self.prints) = (HashMap::new(), 0);
        }
        let has_gaps = self.old.values().any(|old| old.torn) || self.new.values().any(|new| new.resumed);
        let compares = has_gaps || !self.streams.values().all(Stream::is_done);
        self.events == 0 && (self.expired || !compares)
    }

    pub(super) fn held(&self) -> (usize, usize) {
        (self.events, self.bytes)
    }

    #[cfg(test)]
    pub(super) fn prints(&self) -> usize {
        self.prints
    }

    pub(super) fn counts(&self) -> OverlapCounts {
        self.counts
    }
}
