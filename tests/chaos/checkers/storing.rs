//! Checks that sessions survive their process as far as the store permits, and that a failing store is
//! reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shardkeeper::Session;
use shardkeeper::status::{Change, Reason};
use shardkeeper::store::SessionRecord;
use tokio::time::Instant;

use crate::pace::Pace;
use crate::store::Loaded;
use crate::trace::Trace;

/// How far a store may be behind: the library saves every 250 ms, and a save may be in progress then.
pub(crate) const GRACE: Duration = Duration::from_millis(400);
/// The default of [`max_session_age`](shardkeeper::Builder::max_session_age), in milliseconds.
const MAX_AGE_MS: u64 = 3_600_000;
/// The age, in milliseconds, at which an unchanged session is stored again at the latest: a quarter of the
/// maximum.
const LATELY_MS: u64 = MAX_AGE_MS / 4 + 1000;
/// A save that takes longer is reported at the next check.
const SLOW: Duration = Duration::from_secs(10);
const SLOW_IS_REPORTED: Duration = Duration::from_millis(10_600);

/// An event between a process and its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Loaded,
    SaveBegan,
    Saved,
    SaveFailed,
    /// The keeper died, and its unfinished save with it.
    KeeperGone,
    ToldFailed,
    ToldRecovered,
    End,
}

/// A log of all stores. Clones are the same log.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Processes>>);

/// The events of each process, with their times.
type Processes = BTreeMap<usize, Vec<(Instant, Entry)>>;

impl Log {
    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, process: usize, entry: Entry) {
        self.processes().entry(process).or_default().push((Instant::now(), entry));
    }

    /// Judges the reports of each process about its store.
    pub(crate) fn judge(&self, pace: &Pace, trace: &Trace) {
        for (process, entries) in &*self.processes() {
            let telling = Telling { late_by: pace.late_by(), ..Telling::default() };
            if let Err(complaint) = telling.follow(entries) {
                trace.complain(format_args!("process {process}: {complaint}"));
            }
        }
    }
}

/// The state of a store while its log is read.
#[derive(Default)]
struct Telling {
    loaded: bool,
    saving_since: Option<Instant>,
    /// When the last save failed.
    failed_at: Option<Instant>,
    /// When the last save succeeded after failures had been reported.
    recovered_at: Option<Instant>,
    reported: bool,
    /// How late the writer of the log receives reports in real time.
    late_by: Duration,
    last_failed_at: Option<Instant>,
}

impl Telling {
    fn follow(mut self, entries: &[(Instant, Entry)]) -> Result<(), String> {
        for (at, entry) in entries {
            self.overdue(*at)?;
            self.take(*at, *entry).map_err(|complaint| format!("{complaint}, at {at:?}"))?;
        }
        Ok(())
    }

    /// Whether a report should have come by now.
    fn overdue(&self, now: Instant) -> Result<(), String> {
        let over = |since: Option<Instant>, wait: Duration| {
            since.is_some_and(|since| now > since + wait + self.late_by)
        };
        if !self.reported && over(self.failed_at, Duration::ZERO) {
            return Err("a save failed, and nobody was notified".to_owned());
        }
        if !self.reported && over(self.saving_since, SLOW_IS_REPORTED) {
            return Err("a save hangs, and nobody was notified".to_owned());
        }
        if over(self.recovered_at, Duration::ZERO) {
            return Err("the store works again, and nobody was notified".to_owned());
        }
        Ok(())
    }

    fn take(&mut self, at: Instant, entry: Entry) -> Result<(), &'static str> {
        match entry {
            Entry::Loaded => self.loaded = true,
            Entry::SaveBegan => {
                if !self.loaded && !self.reported {
                    return Err("it goes on without its store, and nobody was notified");
                }
                self.saving_since = Some(at);
            }
            Entry::Saved => {
                (self.saving_since, self.failed_at, self.loaded) = (None, None, true);
                self.recovered_at = self.reported.then_some(at);
            }
            Entry::SaveFailed => {
                (self.saving_since, self.failed_at) = (None, Some(at));
                self.last_failed_at = Some(at);
            }
            Entry::KeeperGone => {
                // The successor detects by itself what the keeper would have reported now.
                (self.saving_since, self.failed_at, self.recovered_at) = (None, None, None);
            }
            Entry::ToldFailed => {
                let hangs = self.saving_since.is_some_and(|since| at > since + SLOW);
                if self.reported {
                    return Err("it was reported twice that the store fails");
                }
                let failed_lately = !self.late_by.is_zero()
                    && self.last_failed_at.is_some_and(|failed| at < failed + self.late_by);
                if self.loaded && self.failed_at.is_none() && !hangs && !failed_lately {
                    return Err("it was reported without a reason that the store fails");
                }
                self.reported = true;
            }
            Entry::ToldRecovered => {
                if self.recovered_at.take().is_none() {
                    return Err("it was reported without a reason that the store works again");
                }
                self.reported = false;
            }
            Entry::End => (self.saving_since, self.failed_at, self.recovered_at) = (None, None, None),
        }
        Ok(())
    }
}

fn record_of(stored: &[SessionRecord], shard: u32) -> Option<&SessionRecord> {
    stored.iter().find(|record| record.session.shard.0 == shard)
}

/// Checks that a store is never ahead of what was acknowledged.
pub(crate) fn not_ahead(stored: &[SessionRecord], truth: &[Session], trace: &Trace) {
    for session in truth {
        let record = record_of(stored, session.shard.0).filter(|record| record.session.id == session.id);
        if let Some(record) = record.filter(|record| record.session.sequence > session.sequence) {
            let sequence = record.session.sequence;
            trace.complain(format_args!("{sequence} is stored of {session:?}"));
        }
    }
}

/// Checks that a working store holds everything older than [`GRACE`].
pub(crate) fn not_behind(
    stored: &[SessionRecord],
    (before, truth): (&[Session], &[Session]),
    now_ms: Option<u64>,
    trace: &Trace,
) {
    for session in truth {
        let is_it = |other: &&Session| other.id == session.id;
        let Some(before) = before.iter().find(is_it) else { continue };
        match record_of(stored, session.shard.0).filter(|record| record.session.id == session.id) {
            None => trace.complain(format_args!("nothing is stored of {session:?}")),
            Some(record) if record.session.sequence < before.sequence => {
                let sequence = record.session.sequence;
                trace.complain(format_args!("only {sequence} is stored of {before:?}, for long"));
            }
            Some(record) if now_ms.is_some_and(|now_ms| record.stored_at_ms.abs_diff(now_ms) > LATELY_MS) => {
                trace.complain(format_args!("{record:?} was not stored again by {now_ms:?}"));
            }
            Some(_) => {}
        }
    }
}

/// Checks that a working store no longer holds the shards that moved to another process more than [`GRACE`]
/// ago.
pub(crate) fn gone(stored: &[SessionRecord], gone: &[u32], trace: &Trace) {
    for shard in gone {
        if let Some(record) = record_of(stored, *shard) {
            trace.complain(format_args!("{record:?} is stored still, and belongs to another process"));
        }
    }
}

/// The shards of which a store does not hold what a process left at its end.
pub(crate) fn stale(stored: &[SessionRecord], shards: &[u32], left: &[Session]) -> Vec<u32> {
    let is_stale = |shard: &u32| {
        let record = record_of(stored, *shard).map(|record| &record.session);
        record != left.iter().find(|session| session.shard.0 == *shard)
    };
    shards.iter().copied().filter(is_stale).collect()
}

/// Whether a process finds a usable session of this shard in its store, judged by its age.
pub(crate) fn is_usable(loaded: &Loaded, shard: u32, now_ms: u64) -> bool {
    let record = record_of(&loaded.stored.sessions, shard);
    record.is_some_and(|record| now_ms.saturating_sub(record.stored_at_ms) <= MAX_AGE_MS)
}

/// The first login of a shard in a process: a resume exactly if the process has a session of the shard.
#[derive(Default)]
pub(crate) struct Logins {
    /// Whether a resume is expected, by process and shard.
    expected: BTreeMap<(usize, u32), bool>,
    seen: BTreeMap<(usize, u32), bool>,
    /// How often each shard had to begin without a session, including the first time.
    pub(crate) beginnings: BTreeMap<u32, u32>,
    /// The shards that were ready in a process.
    ready: BTreeSet<(usize, u32)>,
}

impl Logins {
    /// Records that a shard begins in a process.
    pub(crate) fn begin(&mut self, process: usize, shard: u32) {
        self.expected.remove(&(process, shard));
        self.ready.remove(&(process, shard));
        self.seen.remove(&(process, shard));
    }

    /// Records the result of a login. A store may hold only a session from before the last one: when Discord
    /// refuses that, the shard has none, although Discord still keeps the last one.
    pub(crate) fn note(&mut self, process: usize, shard: u32, change: &Change) {
        match change {
            Change::Ready | Change::Resumed { .. } => drop(self.ready.insert((process, shard))),
            Change::Disconnected { reason: Reason::InvalidSession { resumable: false }, .. }
                if self.expected.get(&(process, shard)) != Some(&false)
                    && !self.ready.contains(&(process, shard)) =>
            {
                self.begins_again(shard);
            }
            _ => {}
        }
    }

    pub(crate) fn begins_again(&mut self, shard: u32) {
        *self.beginnings.entry(shard).or_default() += 1;
    }

    pub(crate) fn expect(&mut self, process: usize, shard: u32, resumes: bool) {
        self.expected.insert((process, shard), resumes);
    }

    /// Records that the shard connects, or waits for its turn to identify.
    pub(crate) fn see(&mut self, process: usize, shard: u32, resumes: bool) {
        self.seen.entry((process, shard)).or_insert(resumes);
    }

    /// Compares the expected and the actual logins of a process that ends.
    pub(crate) fn judge(&self, process: usize, trace: &Trace) {
        for ((_, shard), expected) in self.expected.range((process, 0)..=(process, u32::MAX)) {
            match self.seen.get(&(process, *shard)) {
                Some(seen) if seen != expected => trace.complain(format_args!(
                    "shard {shard} of process {process}: resumes {seen}, and should {expected}"
                )),
                _ => {}
            }
        }
    }
}
