//! The client's heartbeats on one connection, and the judgements on them (GW-110 to GW-121).

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::judge::Finding;
use crate::judgement;

/// The schedule of the heartbeats, and what is known of the last ones.
pub(super) struct Heartbeats {
    interval: Duration,
    tolerance: Duration,
    hello_at: Option<Instant>,
    /// When the next heartbeat is overdue; `None` before Hello and after the end.
    due: Option<Instant>,
    /// When the last heartbeat came that was not requested with op 1.
    last: Option<Instant>,
    /// Whether the last heartbeat that was not requested was not acknowledged.
    unacknowledged: bool,
    last_sequence: Option<u64>,
}

/// A heartbeat, and the state of its connection.
pub(super) struct Seen<'a> {
    pub(super) data: &'a Value,
    /// The last sequence that was sent in the session.
    pub(super) sent: Option<u64>,
    /// Whether the session was resumed on this connection, so that the client knows a sequence from the
    /// beginning.
    pub(super) resumed: bool,
    /// Whether the heartbeat may be the answer to op 1.
    pub(super) requested: bool,
    /// Whether the simulator acknowledges heartbeats.
    pub(super) acknowledging: bool,
    pub(super) at: Instant,
}

impl Heartbeats {
    pub(super) fn new(interval: Duration, tolerance: Duration) -> Self {
        Self {
            interval,
            tolerance,
            hello_at: None,
            due: None,
            last: None,
            unacknowledged: false,
            last_sequence: None,
        }
    }

    /// Begins with the first interval, when Hello is sent.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        self.hello_at = Some(now);
        self.due = Some(now + self.interval + self.tolerance);
    }

    /// When the next heartbeat is overdue.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Expects no more heartbeats.
    pub(super) fn end(&mut self) {
        self.due = None;
    }

    /// The time of the first heartbeat after Hello, as a fraction of the interval; `None` for later
    /// heartbeats.
    pub(super) fn first_at(&self, at: Instant) -> Option<f64> {
        let since = at.saturating_duration_since(self.hello_at?);
        self.last.is_none().then(|| since.as_secs_f64() / self.interval.as_secs_f64())
    }

    /// Judges a heartbeat, and begins the next interval.
    pub(super) fn beat(&mut self, seen: &Seen<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.due.is_some() {
            self.due = Some(seen.at + self.interval + self.tolerance);
        }
        self.judge_sequence(seen, &mut findings);
        let since = self.last.map(|last| seen.at.saturating_duration_since(last));
        if !seen.requested {
            if self.unacknowledged && since.is_some_and(|since| since > self.interval / 2) {
                let detail = "a heartbeat after one that was not acknowledged".to_owned();
                findings.push((judgement::HEARTBEAT_TO_ZOMBIE, detail));
            }
            if let Some(since) = since.filter(|since| *since < self.interval.mul_f64(0.8)) {
                let detail =
                    format!("a heartbeat {since:?} after the last one; the interval is {:?}", self.interval);
                findings.push((judgement::HEARTBEAT_TOO_EARLY, detail));
            }
            self.last = Some(seen.at);
            self.unacknowledged = !seen.acknowledging;
        }
        findings
    }

    /// Judges the sequence: it has to be the last one received, or null before the first (GW-019, GW-112).
    fn judge_sequence(&mut self, seen: &Seen<'_>, findings: &mut Vec<Finding>) {
        let wrong = |detail: String| (judgement::HEARTBEAT_SEQUENCE, detail);
        match seen.data {
            Value::Null if seen.resumed || self.last_sequence.is_some() => {
                findings.push(wrong("a heartbeat with null, although the session has a sequence".into()));
            }
            Value::Null => {}
            Value::Number(number) => match (number.as_u64(), seen.sent) {
                (Some(sequence), Some(sent)) if sequence > sent => {
                    findings.push(wrong(format!(
                        "a heartbeat with sequence {sequence}, but the last one sent was {sent}"
                    )));
                }
                (Some(sequence), _) if self.last_sequence.is_some_and(|last| sequence < last) => {
                    let detail =
                        format!("a heartbeat with sequence {sequence}, after one with a higher sequence");
                    findings.push((judgement::HEARTBEAT_SEQUENCE_BACK, detail));
                }
                (Some(sequence), _) => self.last_sequence = Some(sequence),
                (None, _) => {
                    findings.push(wrong(format!("a heartbeat with {number}, which is not a sequence")))
                }
            },
            _ => findings.push(wrong("a heartbeat whose data is neither null nor a number".into())),
        }
    }

    /// Begins another session on this connection.
    pub(super) fn new_session(&mut self) {
        self.last_sequence = None;
    }
}
