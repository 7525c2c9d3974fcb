//! Checks for each subscriber that none of its events was lost, duplicated or out of order.

use std::collections::BTreeMap;

use shardkeeper::{Dispatch, Overflow};
use shardkeeper_sim::SessionRecord;

use crate::plan::{Habit, Kind};
use crate::trace::Trace;

/// The identity of a dispatch at the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    shard: u32,
    session: u64,
    number: u64,
}

impl Name {
    fn of(dispatch: &Dispatch) -> Option<Self> {
        const MARK: &[u8] = b"\"sim:";
        let data = dispatch.data();
        let start = data.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
        let end = start + data[start..].iter().position(|byte| *byte == b'"')?;
        let mut parts = std::str::from_utf8(&data[start..end]).ok()?.split(':');
        let mut part = || parts.next()?.parse::<u64>().ok();
        Some(Self { shard: u32::try_from(part()?).ok()?, session: part()?, number: part()? })
    }
}

/// What one subscriber has finished: across the processes of the bot, if each process has this subscriber.
pub(crate) struct Ledger {
    who: String,
    habit: Habit,
    /// By process (the same for all in a shared ledger), shard and session.
    sessions: BTreeMap<(usize, u32, u64), Account>,
    /// By process and shard: the last dispatch that came for the first time.
    last: BTreeMap<(usize, u32), Name>,
    /// Dispatches from before the subscription began; a crash repeats them.
    before: Vec<Name>,
    /// Dispatches that came for the first time after a later one.
    inverted: Vec<Name>,
    doubled: BTreeMap<(u32, u64), u64>,
    /// Dispatches that came again without being marked as replayed.
    unmarked: Vec<Name>,
    /// How many events a lossless subscriber was told to have missed.
    pub(crate) missed: u64,
}

struct Account {
    /// The first sequence number that is expected.
    base: u64,
    /// The received sequence numbers, each with the process in which it came first.
    seen: BTreeMap<u64, usize>,
}

/// Which irregularities are allowed for the dispatches of which shard.
#[derive(Default)]
pub(crate) struct Excuses {
    /// The shard crashed or was torn away: dispatches of its sessions up to this one may come twice.
    doubled: BTreeMap<u32, u64>,
    /// The shard moved to another process before everything was acknowledged. READY belongs to a connection
    /// and is not replayed, so it may be missing in sessions up to this one.
    torn: BTreeMap<u32, u64>,
    /// The shard was torn away from a process that may have begun the sessions up to this one without anyone
    /// knowing.
    forgotten: BTreeMap<u32, u64>,
    /// The order of the processes that ran a shard, by process and shard.
    begun: BTreeMap<(usize, u32), usize>,
}

impl Excuses {
    /// Records that a process starts to run the shard.
    pub(crate) fn begun(&mut self, process: usize, shard: u32) {
        let order = self.begun.len();
        self.begun.entry((process, shard)).or_insert(order);
    }

    /// Whether `process` got the shard no earlier than `other`.
    fn is_newer(&self, process: usize, other: usize, shard: u32) -> bool {
        self.begun.get(&(process, shard)) >= self.begun.get(&(other, shard))
    }

    /// Allows duplicates in the shard's sessions up to `newest`; `None` if it never had one.
    pub(crate) fn crashed(&mut self, shard: u32, newest: Option<u64>) {
        self.doubled.extend(newest.map(|newest| (shard, newest)));
    }

    pub(crate) fn torn(&mut self, shard: u32, newest: Option<u64>) {
        self.crashed(shard, newest);
        self.torn.extend(newest.map(|newest| (shard, newest)));
    }

    fn may_come_twice(&self, shard: u32, session: u64) -> bool {
        self.doubled.get(&shard).is_some_and(|newest| session <= *newest)
    }

    /// Allows that nobody knows the shard's sessions up to `newest`, which its killed process had begun.
    pub(crate) fn forgets(&mut self, shard: u32, newest: Option<u64>) {
        self.forgotten.extend(newest.map(|newest| (shard, newest)));
    }

    /// Whether the shard may have continued an earlier session instead, which its store knows.
    pub(crate) fn may_be_forgotten(&self, session: &SessionRecord) -> bool {
        self.forgotten.get(&session.shard_id).is_some_and(|newest| session.session <= *newest)
    }

    /// Whether this dispatch may never be delivered.
    fn is_lost(&self, session: &SessionRecord, number: u64) -> bool {
        session.late.contains(&number)
            || number == 1
                && self.torn.get(&session.shard_id).is_some_and(|newest| session.session <= *newest)
    }
}

impl Ledger {
    pub(crate) fn new(who: String, habit: Habit) -> Self {
        Self {
            who,
            habit,
            sessions: BTreeMap::new(),
            last: BTreeMap::new(),
            before: Vec::new(),
            inverted: Vec::new(),
            doubled: BTreeMap::new(),
            unmarked: Vec::new(),
            missed: 0,
        }
    }

    fn is_lossless(&self) -> bool {
        self.habit.overflow == Overflow::Wait
    }

    /// Whether no event at all may be missing.
    fn is_complete(&self) -> bool {
        self.is_lossless() && self.habit.everything && self.habit.kind == Kind::Steady
    }

    /// Records that the subscriber has finished a dispatch. Returns the entry for the trace.
    pub(crate) fn observe(
        &mut self,
        process: usize,
        dispatch: &Dispatch,
        excuses: &Excuses,
    ) -> Option<[u64; 4]> {
        let name = Name::of(dispatch)?;
        let facts = [process as u64, u64::from(name.shard), name.session, name.number];
        let whole = self.is_complete();
        let mut is_new = false;
        let account = self
            .sessions
            .entry((if whole { 0 } else { process }, name.shard, name.session))
            .or_insert_with(|| Account { base: if whole { 1 } else { name.number }, seen: BTreeMap::new() });
        if name.number < account.base {
            self.before.push(name);
            return Some(facts);
        }
        let first = *account.seen.entry(name.number).or_insert_with(|| {
            is_new = true;
            process
        });
        if !is_new {
            *self.doubled.entry((name.shard, name.session)).or_default() += 1;
            // An old process may finish an event after a newer process has.
            if !dispatch.is_replayed() && excuses.is_newer(process, first, name.shard) {
                self.unmarked.push(name);
            }
            return Some(facts);
        }
        let last = self.last.entry((process, name.shard)).or_insert(name);
        if name < *last {
            self.inverted.push(name);
        } else {
            *last = name;
        }
        Some(facts)
    }

    /// Whether everything has come that was sent in the connected sessions.
    pub(crate) fn is_up_to_date(&self, sessions: &[SessionRecord], excuses: &Excuses) -> bool {
        !self.is_complete()
            || sessions
                .iter()
                .filter(|session| session.connected)
                .all(|session| self.missing(session, excuses).is_empty())
    }

    fn missing(&self, session: &SessionRecord, excuses: &Excuses) -> Vec<u64> {
        let seen = self.sessions.get(&(0, session.shard_id, session.session)).map(|account| &account.seen);
        (1..=session.sent)
            .filter(|number| {
                seen.is_none_or(|seen| !seen.contains_key(number)) && !excuses.is_lost(session, *number)
            })
            .collect()
    }

    /// The verdict, once no more events will come. Returns how many came twice.
    pub(crate) fn judge(&self, sessions: &[SessionRecord], excuses: &Excuses, trace: &Trace) -> u64 {
        let who = &self.who;
        for ((_, shard, number), account) in &self.sessions {
            let key = (*shard, *number);
            let place = sessions.binary_search_by_key(&key, |session| (session.shard_id, session.session));
            let Ok(session) = place.map(|place| &sessions[place]) else { continue };
            let Some((last, _)) = account.seen.last_key_value() else { continue };
            let holes: Vec<u64> = (account.base..*last)
                .filter(|number| !account.seen.contains_key(number) && !excuses.is_lost(session, *number))
                .collect();
            if !holes.is_empty() && self.is_lossless() && self.habit.everything {
                trace.complain(format_args!(
                    "{who} lost dispatches {holes:?} of session {number} of shard {shard}"
                ));
            }
        }
        if self.is_complete() {
            for session in sessions.iter().filter(|session| session.connected) {
                let missing = self.missing(session, excuses);
                if !missing.is_empty() {
                    trace.complain(format_args!(
                        "{who} never got dispatches {missing:?} of session {} of shard {}, which lives",
                        session.session, session.shard_id
                    ));
                }
            }
        }
        // A shard that is torn away loses what is not replayed: READY, lifecycle changes, an earlier session.
        if self.missed > 0 && excuses.torn.is_empty() {
            trace.complain(format_args!("{who} missed {}, and loses nothing", self.missed));
        }
        let unexcused = |name: &&Name| !excuses.may_come_twice(name.shard, name.session);
        for name in self.before.iter().filter(unexcused).chain(&self.inverted) {
            let late = |session: &SessionRecord| {
                (session.shard_id, session.session) == (name.shard, name.session)
                    && session.late.contains(&name.number)
            };
            // A subscriber that may lose events receives some of them for the first time when they are
            // replayed.
            let again = !self.is_lossless() && excuses.may_come_twice(name.shard, name.session);
            if !again && !sessions.iter().any(late) {
                trace.complain(format_args!("{who} got {name:?} after a later one"));
            }
        }
        for ((shard, session), count) in &self.doubled {
            if !excuses.may_come_twice(*shard, *session) {
                trace.complain(format_args!(
                    "{who} got {count} dispatches of session {session} of shard {shard} twice"
                ));
            }
        }
        for name in &self.unmarked {
            trace.complain(format_args!("{who} got {name:?} again, and was not told that it may be"));
        }
        self.doubled.values().sum()
    }
}
