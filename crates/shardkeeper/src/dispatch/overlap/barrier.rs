//! The proof that both sides have received everything up to some moment.
//!
//! Input: which new shards are loaded, and which shards have answered a heartbeat. Output: which shards are to
//! send one, and when the streams can be compared by position.
//!
//! A round asks the new side first and then the old side. An acknowledgement comes behind everything that
//! Discord had sent to the session before. So when the old side has answered, it has delivered everything from
//! before the new sessions began, and nothing is missing at a cut-over; and a stream in which the old side
//! delivered nothing during the round has the same last event on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use shardkeeper_proto::ShardId;

use super::Side;

/// After this time an unanswered heartbeat is asked for again: the shard may have been down. 5 s: repeated at
/// this pace, they take a tenth of the room that the rate limit has for them.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long a round waits for the new side. A new shard that has stopped reading because the window is full
/// cannot answer; the round then compares nothing.
const NEW_SIDE: Duration = Duration::from_secs(10);
/// Pause between the two halves of a round. Discord writes guilds' events and acknowledgements from different
/// processes, so a stream has to be quiet for a while.
const REST: Duration = Duration::from_secs(1);
/// Rounds as long as streams are undecided. What is undecided after three is busy all the time, and will more
/// likely be decided by an event that cannot occur twice.
const ROUNDS: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Warming,
    AskNew { since: Instant },
    Rest { until: Instant },
    AskOld { compares: bool },
    Done,
}

/// What a step of the barrier asks of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    MarkOld,
    MarkNew,
    Settle,
}

#[derive(Debug)]
pub(super) struct Barrier {
    stage: Stage,
    rounds: u32,
    /// Number of the present question; a later one is higher.
    number: u64,
    answered: BTreeMap<(Side, ShardId), u64>,
    asked: BTreeMap<(Side, ShardId), (u64, Instant)>,
}

impl Barrier {
    pub(super) fn new() -> Self {
        let (answered, asked) = (BTreeMap::new(), BTreeMap::new());
        Self { stage: Stage::Warming, rounds: 0, number: 0, answered, asked }
    }

    /// Begins again: a session was lost.
    pub(super) fn restart(&mut self) {
        (self.stage, self.rounds) = (Stage::Warming, 0);
        self.number += 1;
    }

    pub(super) fn is_warming(&self) -> bool {
        self.stage == Stage::Warming
    }

    /// Whether the old side has delivered everything from before the new sessions.
    pub(super) fn is_passed(&self) -> bool {
        self.rounds > 0
    }

    /// Whether nothing more is worth waiting for.
    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    pub(super) fn answered(&mut self, side: Side, shard: ShardId, number: u64) {
        let last = self.answered.entry((side, shard)).or_default();
        *last = number.max(*last);
    }

    /// Moves on by one step, if the time or the answers allow. `warm`: whether every new shard is loaded;
    /// `undecided`: whether any stream still is. Call it until it returns `None`.
    pub(super) fn step(
        &mut self,
        now: Instant,
        (old, new): (&BTreeSet<ShardId>, &BTreeSet<ShardId>),
        warm: bool,
        undecided: bool,
    ) -> Option<Step> {
        match self.stage {
            Stage::Warming if warm => Some(self.begin_round(now)),
            Stage::AskNew { .. } if self.have_answered(Side::New, new) => {
                self.stage = Stage::Rest { until: now + REST };
                Some(Step::MarkNew)
            }
            Stage::AskNew { since } if now.saturating_duration_since(since) >= NEW_SIDE => {
                self.ask_old(false);
                None
            }
            Stage::Rest { until } if until <= now => {
                self.ask_old(true);
                self.step(now, (old, new), warm, undecided)
            }
            Stage::AskOld { compares } if self.have_answered(Side::Old, old) => {
                self.rounds += 1;
                self.stage = Stage::Done;
                compares.then_some(Step::Settle)
            }
            Stage::Done if undecided && self.rounds < ROUNDS => Some(self.begin_round(now)),
            _ => None,
        }
    }

    fn begin_round(&mut self, now: Instant) -> Step {
        self.number += 1;
        self.stage = Stage::AskNew { since: now };
        Step::MarkOld
    }

    fn ask_old(&mut self, compares: bool) {
        self.number += 1;
        self.stage = Stage::AskOld { compares };
    }

    fn have_answered(&self, side: Side, shards: &BTreeSet<ShardId>) -> bool {
        shards.iter().all(|shard| self.answered.get(&(side, *shard)).is_some_and(|last| *last >= self.number))
    }

    /// The shards that are to send a heartbeat now, with the number of the question.
    pub(super) fn questions(
        &mut self,
        now: Instant,
        (old, new): (&BTreeSet<ShardId>, &BTreeSet<ShardId>),
    ) -> Vec<(Side, ShardId, u64)> {
        let (side, shards) = match self.stage {
            Stage::AskNew { .. } => (Side::New, new),
            Stage::AskOld { .. } => (Side::Old, old),
            Stage::Warming | Stage::Rest { .. } | Stage::Done => return Vec::new(),
        };
        let number = self.number;
        let mut due = Vec::new();
        for shard in shards {
            let key = (side, *shard);
            let is_answered = self.answered.get(&key).is_some_and(|last| *last >= number);
            let asked = self.asked.get(&key).is_some_and(|(last, at)| {
                *last == number && now.saturating_duration_since(*at) < ASK_AGAIN_AFTER
            });
            if !is_answered && !asked {
                self.asked.insert(key, (number, now));
                due.push((side, *shard, number));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_asks_the_new_side_and_then_the_old_side_and_repeats_what_is_lost() {
        let (mut barrier, start) = (Barrier::new(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        let (old, new) = (BTreeSet::from([ShardId(0)]), BTreeSet::from([ShardId(0), ShardId(1)]));
        let sides = (&old, &new);
        assert_eq!(barrier.step(start, sides, false, true), None);
        assert_eq!(barrier.step(start, sides, true, true), Some(Step::MarkOld));
        let asked = barrier.questions(start, sides);
        assert_eq!(asked, [(Side::New, ShardId(0), 1), (Side::New, ShardId(1), 1)]);
        barrier.answered(Side::New, ShardId(0), 1);
        assert_eq!(barrier.questions(after(4999), sides), []);
        assert_eq!(barrier.questions(after(5000), sides), [(Side::New, ShardId(1), 1)]);
        barrier.answered(Side::New, ShardId(1), 1);
        // An answer of the old side to an earlier question does not count.
        barrier.answered(Side::Old, ShardId(0), 1);
        assert_eq!(barrier.step(after(5000), sides, true, true), Some(Step::MarkNew));
        assert_eq!(barrier.step(after(5999), sides, true, true), None);
        assert_eq!(barrier.step(after(6000), sides, true, true), None);
        assert_eq!(barrier.questions(after(6000), sides), [(Side::Old, ShardId(0), 2)]);
        assert!(!barrier.is_passed());
        barrier.answered(Side::Old, ShardId(0), 2);
        assert_eq!(barrier.step(after(6100), sides, true, true), Some(Step::Settle));
        assert!(barrier.is_passed());
        assert_eq!(barrier.step(after(6100), sides, true, false), None, "nothing is undecided");
        assert!(barrier.is_done());
        assert_eq!(barrier.step(after(6100), sides, true, true), Some(Step::MarkOld), "another round");
        barrier.restart();
        assert!(barrier.is_warming() && !barrier.is_passed());
    }

    #[test]
    fn a_new_side_that_cannot_answer_does_not_hold_up_the_barrier() {
        let (mut barrier, start) = (Barrier::new(), Instant::now());
        let shards = BTreeSet::from([ShardId(0)]);
        let sides = (&shards, &shards);
        barrier.step(start, sides, true, true);
        assert_eq!(barrier.step(start + NEW_SIDE, sides, true, true), None);
        barrier.answered(Side::Old, ShardId(0), 2);
        assert_eq!(barrier.step(start + NEW_SIDE, sides, true, true), None, "nothing to compare");
        assert!(barrier.is_passed());
    }
}
