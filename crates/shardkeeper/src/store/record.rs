//! What is stored: versioned values, with times of the wall clock, since they outlive every other one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use shardkeeper_proto::{IdentifyBudget, Session, ShardCount, ShardId};

/// The format that is written. A change that an older version would misread raises it.
pub(super) const FORMAT: u32 = 1;

/// A session as another process can resume it. A secret, like the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionRecord {
    /// The format of this record.
    pub format: u32,
    /// The session. Its sequence is the watermark: everything up to there was acknowledged by every lossless subscription.
    pub session: Session,
    /// The generation of the layout that the shard belonged to.
    pub generation: u32,
    /// When it was stored last, in milliseconds of Unix time. The manager stores one that does not get on anew, long before it
    /// is [too old](crate::Builder::max_session_age), also while its shard has no connection.
    pub stored_at_ms: u64,
}

/// A stored session is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A later version of this library has written it.
    #[error("it has format {format}, this version reads up to {FORMAT}")]
    Format {
        /// Its format.
        format: u32,
    },
    /// It was stored so long ago that Discord has hardly kept it.
    #[error("it is {age:.0?} old, more than {limit:.0?}")]
    TooOld {
        /// Its age.
        age: Duration,
        /// What is allowed.
        limit: Duration,
    },
}

impl SessionRecord {
    /// The record of a session, stored at that time.
    pub fn new(session: Session, generation: u32, stored_at: SystemTime) -> Self {
        Self { format: FORMAT, session, generation, stored_at_ms: unix_ms(stored_at) }
    }

    /// The slot of a layout that it belongs to. A store holds one record of each.
    pub fn slot(&self) -> (ShardCount, ShardId) {
        (self.session.count, self.session.shard)
    }

    /// Whether it can be used at all. Whether it fits the shard is [another question](Session::check).
    ///
    /// # Errors
    ///
    /// What stands against it.
    pub fn check(&self, now: SystemTime, max_age: Duration) -> Result<(), RecordError> {
        if self.format > FORMAT {
            return Err(RecordError::Format { format: self.format });
        }
        // A clock that was set back makes it young, which costs one vain Resume.
        let age = since(now, self.stored_at_ms);
        if age > max_age {
            return Err(RecordError::TooOld { age, limit: max_age });
        }
        Ok(())
    }
}

/// What the bot has left of the token's daily Identifies (GW-166).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BudgetRecord {
    /// The format of this record.
    pub format: u32,
    /// What a period allows.
    pub total: u32,
    /// What is left of this one.
    pub remaining: u32,
    /// When the period ends, in milliseconds of Unix time.
    pub resets_at_ms: u64,
    /// When the last Identify was sent, in milliseconds of Unix time; `None` before the first.
    pub last_identify_ms: Option<u64>,
}

pub(crate) fn budget_record(
    clocks: (Instant, SystemTime),
    budget: &IdentifyBudget,
    last_identify: Option<Instant>,
) -> BudgetRecord {
    BudgetRecord {
        format: FORMAT,
        total: budget.total(),
        remaining: budget.remaining(),
        resets_at_ms: to_wall(clocks, budget.resets_at(clocks.0)),
        last_identify_ms: last_identify.map(|at| to_wall(clocks, at)),
    }
}

/// In milliseconds of Unix time.
pub(crate) fn unix_ms(at: SystemTime) -> u64 {
    milliseconds(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A moment of this process as one of the wall clock, by what both say now.
fn to_wall((now, wall): (Instant, SystemTime), at: Instant) -> u64 {
    let (ahead, behind) = (at.saturating_duration_since(now), now.saturating_duration_since(at));
    unix_ms(wall).saturating_add(milliseconds(ahead)).saturating_sub(milliseconds(behind))
}

/// How long ago a moment of the wall clock was; nothing when it is still to come, for then the clock was set back.
pub(crate) fn since(now: SystemTime, at_ms: u64) -> Duration {
    Duration::from_millis(unix_ms(now).saturating_sub(at_ms))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> SessionRecord {
        let mut session = Session::sample(ShardId(3), ShardCount::new(16).unwrap());
        (session.id, session.sequence) = ("S".into(), 42);
        SessionRecord::new(session, 1, SystemTime::now())
    }

    #[test]
    fn a_record_is_refused_when_it_is_too_old_or_of_a_later_version() {
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        assert_eq!(record().check(now, hour), Ok(()));
        let later = SessionRecord { format: FORMAT + 1, ..record() };
        assert_eq!(later.check(now, hour), Err(RecordError::Format { format: FORMAT + 1 }));
        let old = SessionRecord { stored_at_ms: unix_ms(now) - 3_700_000, ..record() };
        assert!(matches!(old.check(now, hour), Err(RecordError::TooOld { .. })));
        assert!(old.check(now, hour).unwrap_err().to_string().ends_with("old, more than 3600s"));
        let future = SessionRecord { stored_at_ms: unix_ms(now) + 1_000_000, ..record() };
        assert_eq!(future.check(now, hour), Ok(()));
    }

    #[test]
    fn a_clock_that_jumped_costs_a_vain_resume_or_an_identify_and_no_more() {
        let year = 365 * 24 * 3_600_000;
        let now = SystemTime::now();
        let now_ms = unix_ms(now);
        for (stored_at_ms, fits) in
            [(0, false), (now_ms - year, false), (now_ms + year, true), (u64::MAX, true)]
        {
            let record = SessionRecord { stored_at_ms, ..record() };
            assert_eq!(record.check(now, Duration::from_secs(3600)).is_ok(), fits, "{stored_at_ms}");
        }
        assert_eq!(since(now, u64::MAX), Duration::ZERO);
        let here = Instant::now();
        assert!(here.checked_sub(since(now, 0)).is_none_or(|at| at < here));
    }

    #[test]
    fn what_is_written_stays_readable() {
        let text = r#"{"format":1,"session":{"id":"S","resume_url":"wss://resume.example","sequence":42,"shard":3,
            "count":16,"intents":1,"query":"v=10&encoding=json"},"generation":1,"stored_at_ms":7}"#;
        let read: SessionRecord = serde_json::from_str(text).unwrap();
        assert_eq!(read, SessionRecord { stored_at_ms: 7, ..record() });
        let text = r#"{"format":1,"total":1000,"remaining":990,"resets_at_ms":9,"last_identify_ms":null}"#;
        let budget: BudgetRecord = serde_json::from_str(text).unwrap();
        assert_eq!((budget.remaining, budget.last_identify_ms), (990, None));
    }

    #[test]
    fn nothing_printed_holds_the_session_id() {
        let mut secret = record();
        secret.session.id = "secret".into();
        assert!(!format!("{secret:?}").contains("secret"));
    }
}
