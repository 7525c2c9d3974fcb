//! The dispatches that were sent, and those that the client's subscribers observed.
//!
//! Each dispatch has `sim:<shard>:<session>:<number>` in its `_trace`. Numbers count per session. A session
//! that was never resumed and of which nothing was observed does not count, because its client may not know
//! of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::report::{Delivery, SessionRecord};

/// The account of each session, and the totals.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    sessions: BTreeMap<(u32, u64), Account>,
    /// Dispatches sent in all sessions.
    sent: u64,
    /// Dispatches sent in sessions that the client knows of. Kept as a total, since there may be very many
    /// sessions.
    sent_to_known: u64,
    delivered: u64,
    duplicated: u64,
    out_of_order: u64,
    /// The last session and number that were observed, by number of shards and shard.
    last: BTreeMap<(u32, u32), (u64, u64)>,
    /// Dispatches that were sent after later ones and were not observed yet.
    late: BTreeSet<(u32, u64, u64)>,
}

#[derive(Debug, Default)]
struct Account {
    /// The number of shards of the session.
    count: u32,
    /// Dispatches sent, with or without a trace of the ledger.
    sent: u64,
    /// Dispatches sent with a trace of the ledger.
    traced: u64,
    /// One bit per dispatch.
    observed: Vec<u64>,
    known: bool,
    /// The numbers of dispatches that were sent after later ones.
    late: Vec<u64>,
}

impl Ledger {
    /// Notes the number of shards of a new session.
    pub(crate) fn open(&mut self, shard: u32, session: u64, count: u32) {
        self.sessions.entry((shard, session)).or_default().count = count;
    }

    /// Counts a dispatch of a session that has no trace of the ledger.
    pub(crate) fn send_untraced(&mut self, shard: u32, session: u64) {
        self.sessions.entry((shard, session)).or_default().sent += 1;
        self.sent += 1;
    }

    /// Counts a dispatch of a session, and returns its trace.
    pub(crate) fn send(&mut self, shard: u32, session: u64) -> String {
        let account = self.sessions.entry((shard, session)).or_default();
        account.sent += 1;
        account.traced += 1;
        self.sent += 1;
        self.sent_to_known += u64::from(account.known);
        format!("sim:{shard}:{session}:{}", account.sent)
    }

    /// Notes that the client knows of the session.
    pub(crate) fn known(&mut self, shard: u32, session: u64) {
        let account = self.sessions.entry((shard, session)).or_default();
        if !std::mem::replace(&mut account.known, true) {
            self.sent_to_known += account.traced;
        }
    }

    /// The number of dispatches sent in all sessions, including those that the client does not know of.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Notes that a dispatch is sent after a later one.
    pub(crate) fn sent_late(&mut self, payload: &[u8]) {
        let Some((shard, session, number)) = trace(payload) else { return };
        self.late.insert((shard, session, number));
        if let Some(account) = self.sessions.get_mut(&(shard, session)) {
            account.late.push(number);
        }
    }

    /// Notes that a subscriber received a dispatch with this data. Traces that were never sent are ignored.
    pub(crate) fn observe(&mut self, data: &[u8]) {
        let Some((shard, session, number)) = trace(data) else { return };
        let Some(account) = self.sessions.get_mut(&(shard, session)).filter(|account| number <= account.sent)
        else {
            return;
        };
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if account.observed.len() <= word {
            account.observed.resize(word + 1, 0);
        }
        if account.observed[word] & bit != 0 {
            self.duplicated += 1;
            return;
        }
        account.observed[word] |= bit;
        self.delivered += 1;
        if !std::mem::replace(&mut account.known, true) {
            self.sent_to_known += account.traced;
        }
        let last = self.last.entry((account.count, shard)).or_default();
        if (session, number) < *last {
            self.out_of_order += u64::from(!self.late.remove(&(shard, session, number)));
        } else {
            *last = (session, number);
        }
    }

    /// The number of dispatches sent in each session, sorted by shard and session. `Sessions` adds the ids
    /// and what is alive.
    pub(crate) fn records(&self) -> Vec<SessionRecord> {
        let record = |(&(shard_id, session), account): (&(u32, u64), &Account)| SessionRecord {
            shard_id,
            shard_count: account.count,
            session,
            id: String::new(),
            sent: account.sent,
            late: account.late.clone(),
            alive: false,
            connected: false,
            presence: None,
        };
        self.sessions.iter().map(record).collect()
    }

    /// The delivery, if anything was observed. Clients in other processes report no observations.
    pub(crate) fn known_delivery(&self) -> Option<Delivery> {
        (self.delivered > 0).then(|| self.delivery())
    }

    /// How many dispatches reached the client.
    pub(crate) fn delivery(&self) -> Delivery {
        Delivery {
            sent: self.sent_to_known,
            delivered: self.delivered,
            lost: self.sent_to_known - self.delivered,
            duplicated: self.duplicated,
            out_of_order: self.out_of_order,
        }
    }
}

/// Finds the trace in a dispatch: its shard, session and number.
fn trace(data: &[u8]) -> Option<(u32, u64, u64)> {
    const MARK: &[u8] = b"\"sim:";
    let start = data.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let end = start + data[start..].iter().position(|byte| *byte == b'"')?;
    let mut parts = std::str::from_utf8(&data[start..end]).ok()?.split(':');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(trace: &str) -> Vec<u8> {
        format!(r#"{{"_trace":["{trace}"],"id":"1"}}"#).into_bytes()
    }

    #[test]
    fn lost_doubled_and_reordered_are_distinguished() {
        let mut ledger = Ledger::default();
        let traces: Vec<String> = (0..5).map(|_| ledger.send(3, 1)).collect();
        for place in [0, 2, 1, 2] {
            ledger.observe(&data(&traces[place]));
        }
        let delivery = ledger.delivery();
        assert_eq!((delivery.sent, delivery.delivered, delivery.lost), (5, 3, 2));
        assert_eq!((delivery.duplicated, delivery.out_of_order), (1, 1));
    }

    #[test]
    fn a_session_nobody_heard_of_does_not_count() {
        let mut ledger = Ledger::default();
        let _ = ledger.send(0, 1);
        assert_eq!(ledger.delivery().sent, 0);
        assert_eq!(ledger.sent(), 1, "it was sent");
        ledger.known(0, 1);
        ledger.known(0, 1);
        let _ = ledger.send(0, 1);
        assert_eq!(ledger.delivery().lost, 2);
        assert_eq!(ledger.known_delivery(), None, "nothing was observed yet");
        ledger.observe(&data("sim:0:1:2"));
        assert_eq!(ledger.known_delivery().map(|delivery| (delivery.sent, delivery.lost)), Some((2, 1)));
    }

    #[test]
    fn what_was_never_sent_is_not_believed() {
        let mut ledger = Ledger::default();
        ledger.observe(&data("sim:0:1:7"));
        ledger.observe(b"{}");
        assert_eq!(ledger.delivery(), Delivery::default());
    }
}
