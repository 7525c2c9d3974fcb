//! Stored values: versioned, and with wall clock times, because only these mean the same in another process.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use shardkeeper_proto::{IdentifyBudget, Session, ShardCount};

use crate::layout::{Layouts, ShardKey};

/// Format that is written. A change that an older version would misread has to raise it.
///
/// - 1: sessions were stored by shard count and id, without a layout.
/// - 2: sessions are stored by [`ShardKey`], with a [`LayoutRecord`].
pub(super) const FORMAT: u32 = 2;

/// A session as another process can resume it. It is a secret, like the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionRecord {
    /// Format version of this record.
    pub format: u32,
    /// The session. Its sequence number is the watermark: every lossless subscription has acknowledged the
    /// dispatches up to it.
    pub session: Session,
    /// Generation of the layout that the shard belonged to.
    pub generation: u32,
    /// Time of the last save, in milliseconds of Unix time. The manager saves an unchanged session again long
    /// before it is [too old](crate::Builder::max_session_age), also while its shard has no connection.
    pub stored_at_ms: u64,
}

/// Reason why a stored session is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A later version of this library wrote the record.
    #[error("the stored session has format {format}, this version reads up to {FORMAT}")]
    Format {
        /// Format of the record.
        format: u32,
    },
    /// The record is so old that Discord has probably forgotten the session.
    #[error("the stored session is {age:.0?} old, more than {limit:.0?}")]
    TooOld {
        /// Age of the record.
        age: Duration,
        /// Largest age ([`Builder::max_session_age`](crate::Builder::max_session_age)).
        limit: Duration,
    },
}

impl SessionRecord {
    /// Makes the record of a session that is stored at the given time.
    pub fn new(session: Session, generation: u32, stored_at: SystemTime) -> Self {
        Self { format: FORMAT, session, generation, stored_at_ms: unix_ms(stored_at) }
    }

    /// The shard whose session it is. A store holds one record for each.
    pub fn slot(&self) -> ShardKey {
        ShardKey { id: self.session.shard, generation: self.generation }
    }

    /// Checks format and age. Whether the session fits a shard is checked by [`Session::check`].
    ///
    /// # Errors
    ///
    /// The reason why the record cannot be used.
    pub fn check(&self, now: SystemTime, max_age: Duration) -> Result<(), RecordError> {
        if self.format > FORMAT {
            return Err(RecordError::Format { format: self.format });
        }
        // A clock that was set back makes the record look younger, which costs at most one failed Resume.
        let age = since(now, self.stored_at_ms);
        if age > max_age {
            return Err(RecordError::TooOld { age, limit: max_age });
        }
        Ok(())
    }
}

/// The layout that the stored sessions belong to, and how far it is resharded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayoutRecord {
    /// Format version of this record.
    pub format: u32,
    /// Number of the layout, counted up by one at each reshard.
    pub generation: u32,
    /// Shard count of the layout.
    pub count: ShardCount,
    /// Whether Discord has refused the layout (close code 4010 or 4011). No process starts from it again.
    #[serde(default)]
    pub refused: bool,
    /// The reshard under way.
    pub reshard: Option<ReshardRecord>,
}

/// A reshard that has begun, so that the next process can continue it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReshardRecord {
    /// Generation of the new layout.
    pub generation: u32,
    /// Shard count of the new layout.
    pub count: ShardCount,
    /// Groups that have been cut over, in ascending order: the new shards own the guilds of these groups, the
    /// old ones own the rest. A group is a residue modulo the greatest common divisor of both counts.
    pub moved: Vec<u32>,
}

impl LayoutRecord {
    /// Makes the record of a layout that is not being resharded.
    pub fn new(generation: u32, count: ShardCount) -> Self {
        Self { format: FORMAT, generation, count, refused: false, reshard: None }
    }

    /// Makes the record of these layouts.
    pub(crate) fn of(layouts: &Layouts, refused: bool) -> Self {
        let record = Self { refused, ..Self::new(layouts.current.generation, layouts.current.count) };
        match &layouts.next {
            Some(next) => {
                let moved = next.moved.iter().copied().collect();
                record.with_reshard(next.layout.generation, next.layout.count, moved)
            }
            None => record,
        }
    }

    /// Whether this version understands the record.
    pub(crate) fn is_readable(&self) -> bool {
        self.format <= FORMAT
    }

    /// Adds a reshard to the layout `generation` with `count` shards, in which these groups are cut over.
    pub fn with_reshard(self, generation: u32, count: ShardCount, moved: Vec<u32>) -> Self {
        Self { reshard: Some(ReshardRecord { generation, count, moved }), ..self }
    }
}

/// What is left of the token's daily identify budget (GW-166: a token allows 1000 Identifies in 24 h, and
/// reaching the limit resets it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BudgetRecord {
    /// Format version of this record.
    pub format: u32,
    /// Identifies allowed per period.
    pub total: u32,
    /// Identifies left in the current period.
    pub remaining: u32,
    /// End of the period, in milliseconds of Unix time.
    pub resets_at_ms: u64,
    /// Time of the last Identify, in milliseconds of Unix time; `None` before the first.
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

/// Converts to milliseconds of Unix time.
pub(crate) fn unix_ms(at: SystemTime) -> u64 {
    milliseconds(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Converts a moment of this process to the wall clock, by the current time of both clocks.
fn to_wall((now, wall): (Instant, SystemTime), at: Instant) -> u64 {
    let (ahead, behind) = (at.saturating_duration_since(now), now.saturating_duration_since(at));
    unix_ms(wall).saturating_add(milliseconds(ahead)).saturating_sub(milliseconds(behind))
}

/// Time since a moment of the wall clock; zero if the moment is in the future, because the clock was set
/// back.
pub(crate) fn since(now: SystemTime, at_ms: u64) -> Duration {
    Duration::from_millis(unix_ms(now).saturating_sub(at_ms))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use shardkeeper_proto::ShardId;

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
        assert_eq!(read, SessionRecord { format: 1, stored_at_ms: 7, ..record() });
        assert_eq!(read.check(UNIX_EPOCH, Duration::ZERO), Ok(()));
        let text = r#"{"format":1,"total":1000,"remaining":990,"resets_at_ms":9,"last_identify_ms":null}"#;
        let budget: BudgetRecord = serde_json::from_str(text).unwrap();
        assert_eq!((budget.remaining, budget.last_identify_ms), (990, None));
        let count = |count| ShardCount::new(count).unwrap();
        let text =
            r#"{"format":2,"generation":3,"count":4,"reshard":{"generation":4,"count":6,"moved":[1]}}"#;
        let layout: LayoutRecord = serde_json::from_str(text).unwrap();
        assert_eq!(layout, LayoutRecord::new(3, count(4)).with_reshard(4, count(6), vec![1]));
    }

    #[test]
    fn nothing_printed_holds_the_session_id() {
        let mut secret = record();
        secret.session.id = "secret".into();
        assert!(!format!("{secret:?}").contains("secret"));
    }
}
