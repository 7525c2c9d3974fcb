//! The phases of one reshard. Pure: the manager supplies time and facts, and carries out the actions.
//!
//! # Invariants
//!
//! 1. Each guild belongs to one side, old or new, at any time: [`Action::CutOver`] switches a group at one
//!    instant, and nothing switches it back.
//! 2. No [`Action::StopOld`] before the group's new ownership was saved, and no [`Action::StopNew`] after the
//!    group was cut over. So at no time are both sides of a group stopped, and a process that is killed
//!    finds a saved layout of which every shard can still be resumed.
//! 3. One group at a time has shards of both sides.
//! 4. Each state in which something is awaited has a deadline, except those that wait for the operator, for
//!    the identify budget, for the session store (whose keeper tries again for ever), or for children that
//!    the manager ends within the shutdown timeout.
//!
//! `model.rs` checks them in every interleaving of two groups, with a crash of the process at each step.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use shardkeeper_proto::close::CloseCode;

use super::plan::ReshardGroup;
use super::policy::{ReshardPolicy, VoicePolicy};

/// Where a group of a reshard is.
///
/// ```text
///             ┌────── not warm any more ─────┐
///             ▼                              │
/// Pending ─▶ Warming ── new shards warm ──▶ Warm ── old shards level ──▶ Draining ──▶ Retired
///   ▲         │                              │                           ▲
///   │         └─ refused, deadline, abort ─┬─┘                           └ the instant of the cut-over
///   │                                      ▼
///   └──────── tried again later ─────── Withdrawn
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroupPhase {
    /// Not begun: the old shards work alone.
    Pending,
    /// The new shards identify and receive their guilds. What they receive is held.
    Warming,
    /// The new shards have all their guilds. The old ones catch up on what is under way.
    Warm,
    /// The new shards have taken over. The old ones finish requests that are under way.
    Draining,
    /// The old shards have closed.
    Retired,
    /// The new shards are closed or being closed; the old ones work on as if nothing had happened.
    Withdrawn,
}

impl fmt::Display for GroupPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Warming => "warming",
            Self::Warm => "warm",
            Self::Draining => "draining",
            Self::Retired => "retired",
            Self::Withdrawn => "withdrawn",
        })
    }
}

/// Why a group was withdrawn, or a reshard stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HaltReason {
    /// [`Shardkeeper::abort_reshard`](crate::Shardkeeper::abort_reshard) was called.
    Aborted,
    /// The new shards were not ready to take over within
    /// [`ReshardPolicy::group_deadline`](crate::config::ReshardPolicy::group_deadline).
    Deadline,
    /// Discord refuses a new shard with this close code: the shard count (4010, 4011) or the intents (4013,
    /// 4014).
    Refused(CloseCode),
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted => f.write_str("aborted on request"),
            Self::Deadline => f.write_str("the new shards were not ready in time"),
            Self::Refused(code) => write!(f, "discord refuses a new shard: {code}"),
        }
    }
}

/// A side of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    Old,
    New,
}

/// Something that happened, or was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// The manager has read the facts, as it does several times per second.
    Look(Reading),
    /// The answer to [`Action::CutOver`]: whether the new shards have taken over.
    CutOver(bool),
    /// Everything up to the save of this number is in the session store. At once without a store.
    Saved(u64),
    /// The shards of this side of the group have closed and are forgotten.
    Gone(Side),
    /// Discord refuses a new shard of the group for good.
    Refused(CloseCode),
    Pause,
    Resume,
    Abort,
}

/// Facts about the group that is next or under way. Each phase uses some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reading {
    /// The identify budget allows the Identifies of the group, and leaves the reserve; and no earlier overlap
    /// of its old shards goes on.
    pub(crate) affordable: bool,
    /// The bot is in a voice channel of one of the group's guilds.
    pub(crate) in_voice: bool,
    /// Every new shard is READY, has its guilds, and is not behind.
    pub(crate) warm: bool,
    /// The old shards have received all that Discord had sent by the time that the new ones were warm.
    pub(crate) level: bool,
    /// An old shard has lost its session, so that nobody delivers the events of its guilds.
    pub(crate) frozen: bool,
    /// The old shards have no request under way, and all their deliveries are acknowledged.
    pub(crate) drained: bool,
}

/// What the manager has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Record what the old shards publish from now on, and then start the new shards.
    Warm(Arc<ReshardGroup>),
    /// Try to let the new shards take over, at this instant, in delivery and in routing. The answer is
    /// [`Input::CutOver`].
    CutOver(Arc<ReshardGroup>),
    /// Save the layout as it is now, with the sessions. The answer is [`Input::Saved`].
    Save(u64),
    /// Close the old shards for good. The answer is [`Input::Gone`].
    StopOld(Arc<ReshardGroup>),
    /// Close the new shards for good, and drop what is held of them. The answer is [`Input::Gone`].
    StopNew(Arc<ReshardGroup>),
    /// Announce that the group is in another phase.
    Announce(Arc<ReshardGroup>, GroupPhase),
    /// The reshard stands still until the operator or the next check resumes it: both layouts serve their
    /// own guilds.
    Halt(HaltReason),
    /// Every group has moved: the new layout is the only one.
    Finish,
    /// Nothing has moved: the old layout is the only one again.
    Withdraw(HaltReason),
}

/// How long the phases may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Spans {
    /// From the first Identify until the cut-over.
    pub(crate) group: Duration,
    pub(crate) drain: Duration,
    pub(crate) pause: Duration,
    /// `None`: a group of a guild with voice waits for its turn.
    pub(crate) voice: Option<Duration>,
}

impl Spans {
    /// `pace` is the time that the Identifies of the largest group need.
    pub(crate) fn new(policy: &ReshardPolicy, pace: Duration) -> Self {
        let voice = match policy.voice {
            VoicePolicy::MoveAfter(wait) => Some(wait),
            VoicePolicy::Later => None,
        };
        Self {
            group: policy.group_deadline.saturating_add(pace),
            drain: policy.drain_deadline,
            pause: policy.pause,
            voice,
        }
    }
}

/// How long a group that has to be given up may still try to cut over, if a withdrawal would lose events: the
/// old shards that are left have to catch up.
const CUT_TAKES: Duration = Duration::from_secs(30);

/// One reshard, from the first group to the last. Its groups take their turns in the order of `pending`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reshard {
    /// Groups that have not moved, without the one under way.
    pending: VecDeque<Arc<ReshardGroup>>,
    /// Residues of the groups whose new shards have taken over.
    moved: BTreeSet<u32>,
    spans: Spans,
    paused: bool,
    last_save: u64,
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// No group is under way.
    Between {
        not_before: Instant,
    },
    Warming {
        group: Arc<ReshardGroup>,
        until: Instant,
        /// The deadline of a group that waits for voice: it must not run into the other because of that.
        latest: Instant,
    },
    /// The old shards catch up.
    Warm {
        group: Arc<ReshardGroup>,
        until: Instant,
        latest: Instant,
        voice_until: Instant,
        frozen: bool,
        /// Cut over first, and then halt: a withdrawal would lose the events of a frozen shard.
        halt: Option<HaltReason>,
    },
    /// The new shards have taken over.
    Draining {
        group: Arc<ReshardGroup>,
        until: Instant,
        /// The save that has to be in the store before the old shards may stop; `None` once it is.
        unsaved: Option<u64>,
        /// An abort came too late for this group.
        halt: Option<HaltReason>,
    },
    /// The old shards are closing.
    Retiring {
        group: Arc<ReshardGroup>,
        halt: Option<HaltReason>,
    },
    /// The new shards are closing.
    Withdrawing {
        group: Arc<ReshardGroup>,
        why: HaltReason,
    },
    /// Some groups have moved, and no other begins until the operator or the next check resumes.
    Halted(HaltReason),
    Over,
}

impl Reshard {
    /// A reshard whose groups begin with the first look. After a restart of the process, `moved` has the
    /// groups that had moved according to the session store.
    pub(crate) fn new(groups: Vec<ReshardGroup>, moved: BTreeSet<u32>, spans: Spans, now: Instant) -> Self {
        let pending = groups.into_iter().map(Arc::new).collect();
        Self { pending, moved, spans, paused: false, last_save: 0, step: Step::Between { not_before: now } }
    }

    /// The next step, and what has to be done because of this input.
    pub(crate) fn input(&mut self, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Pause => self.paused = true,
            Input::Resume => self.resume(now),
            Input::Abort => self.halt(now, HaltReason::Aborted, &mut actions),
            Input::Refused(code) => {
                // After the cut-over it is a refusal of the present layout, and not a matter of the reshard.
                if matches!(self.step, Step::Warming { .. } | Step::Warm { .. }) {
                    self.halt(now, HaltReason::Refused(code), &mut actions);
                }
            }
            Input::Look(reading) => self.look(now, reading, &mut actions),
            Input::CutOver(done) => self.cut_over(now, done, &mut actions),
            Input::Saved(number) => {
                if let Step::Draining { unsaved, .. } = &mut self.step {
                    unsaved.take_if(|awaited| *awaited <= number);
                }
            }
            Input::Gone(side) => self.gone(now, side, &mut actions),
        }
        actions
    }

    fn look(&mut self, now: Instant, reading: Reading, actions: &mut Vec<Action>) {
        match &mut self.step {
            Step::Between { not_before } => {
                if self.pending.is_empty() {
                    self.finish(actions);
                } else if now >= *not_before && !self.paused {
                    self.begin(now, reading, actions);
                }
            }
            Step::Warming { group, until, latest } if reading.warm => {
                let (group, until, latest) = (Arc::clone(group), *until, *latest);
                actions.push(Action::Announce(Arc::clone(&group), GroupPhase::Warm));
                let voice_until = self.spans.voice.map_or(now, |wait| later(now, wait));
                let frozen = reading.frozen;
                self.step = Step::Warm { group, until, latest, voice_until, frozen, halt: None };
            }
            Step::Warming { until, .. } if now < *until => {}
            Step::Warm { group, until, latest, halt: None, .. } if !reading.warm && now < *until => {
                let (group, until, latest) = (Arc::clone(group), *until, *latest);
                actions.push(Action::Announce(Arc::clone(&group), GroupPhase::Warming));
                self.step = Step::Warming { group, until, latest };
            }
            Step::Warm { group, until, latest, voice_until, frozen, halt } if reading.warm => {
                *frozen = reading.frozen;
                if reading.in_voice && halt.is_none() {
                    *until = *latest;
                }
                let may_move = !reading.in_voice || now >= *voice_until;
                if *frozen || halt.is_some() || reading.level && may_move {
                    actions.push(Action::CutOver(Arc::clone(group)));
                } else if now >= *until {
                    self.halt(now, HaltReason::Deadline, actions);
                }
            }
            Step::Warming { .. } | Step::Warm { .. } => self.withdraw(HaltReason::Deadline, actions),
            Step::Draining { group, until, unsaved: None, halt } if reading.drained || now >= *until => {
                let (group, halt) = (Arc::clone(group), *halt);
                actions.push(Action::StopOld(Arc::clone(&group)));
                self.step = Step::Retiring { group, halt };
            }
            Step::Draining { .. }
            | Step::Retiring { .. }
            | Step::Withdrawing { .. }
            | Step::Halted(_)
            | Step::Over => {}
        }
    }

    /// Begins the next group, if its Identifies are there.
    fn begin(&mut self, now: Instant, reading: Reading, actions: &mut Vec<Action>) {
        if reading.in_voice && self.spans.voice.is_none() {
            // Its turn comes again after the others.
            self.pending.rotate_left(1);
            return;
        }
        if !reading.affordable {
            return;
        }
        let Some(group) = self.pending.pop_front() else { return };
        actions.push(Action::Announce(Arc::clone(&group), GroupPhase::Warming));
        actions.push(Action::Warm(Arc::clone(&group)));
        let until = later(now, self.spans.group);
        let latest = later(until, self.spans.voice.unwrap_or_default());
        self.step = Step::Warming { group, until, latest };
    }

    fn cut_over(&mut self, now: Instant, done: bool, actions: &mut Vec<Action>) {
        let Step::Warm { group, until, halt, .. } = &self.step else { return };
        if !done {
            // Tried again at the next look.
            if now >= *until {
                match halt {
                    Some(_) => self.withdraw(HaltReason::Deadline, actions),
                    None => self.halt(now, HaltReason::Deadline, actions),
                }
            }
            return;
        }
        let (group, halt) = (Arc::clone(group), *halt);
        self.moved.insert(group.residue);
        let save = self.save(actions);
        actions.push(Action::Announce(Arc::clone(&group), GroupPhase::Draining));
        let until = later(now, self.spans.drain);
        self.step = Step::Draining { group, until, unsaved: Some(save), halt };
    }

    fn gone(&mut self, now: Instant, side: Side, actions: &mut Vec<Action>) {
        match (&self.step, side) {
            (Step::Retiring { group, halt }, Side::Old) => {
                let halt = *halt;
                actions.push(Action::Announce(Arc::clone(group), GroupPhase::Retired));
                self.step = Step::Between { not_before: later(now, self.spans.pause) };
                match halt {
                    _ if self.pending.is_empty() => self.finish(actions),
                    Some(why) => self.stand_still(why, actions),
                    None => {}
                }
            }
            (Step::Withdrawing { group, why }, Side::New) => {
                let why = *why;
                self.pending.push_front(Arc::clone(group));
                self.stand_still(why, actions);
            }
            _ => {}
        }
    }

    /// Withdraws the group under way, or ends with it if it has been cut over.
    fn halt(&mut self, now: Instant, why: HaltReason, actions: &mut Vec<Action>) {
        match &mut self.step {
            Step::Between { .. } => self.stand_still(why, actions),
            Step::Warm { group, until, frozen: true, halt, .. } => {
                if halt.is_none() {
                    (*halt, *until) = (Some(why), later(now, CUT_TAKES));
                    actions.push(Action::CutOver(Arc::clone(group)));
                }
            }
            Step::Warming { .. } | Step::Warm { .. } => self.withdraw(why, actions),
            Step::Draining { halt, .. } | Step::Retiring { halt, .. } => *halt = Some(why),
            // The first reason counts.
            Step::Withdrawing { .. } | Step::Halted(_) | Step::Over => {}
        }
    }

    /// Closes the new shards of the group under way, if it has not been cut over.
    fn withdraw(&mut self, why: HaltReason, actions: &mut Vec<Action>) {
        let (group, why) = match &self.step {
            Step::Warming { group, .. } => (Arc::clone(group), why),
            Step::Warm { group, halt, .. } => (Arc::clone(group), halt.unwrap_or(why)),
            _ => return,
        };
        actions.push(Action::StopNew(Arc::clone(&group)));
        actions.push(Action::Announce(Arc::clone(&group), GroupPhase::Withdrawn));
        self.step = Step::Withdrawing { group, why };
    }

    /// No group is under way: the reshard is withdrawn if none has moved, and stands half way otherwise.
    fn stand_still(&mut self, why: HaltReason, actions: &mut Vec<Action>) {
        if self.moved.is_empty() {
            actions.push(Action::Withdraw(why));
            self.step = Step::Over;
            self.save(actions);
        } else {
            actions.push(Action::Halt(why));
            self.step = Step::Halted(why);
        }
    }

    fn resume(&mut self, now: Instant) {
        self.paused = false;
        match &mut self.step {
            Step::Halted(_) => self.step = Step::Between { not_before: now },
            Step::Draining { halt, .. } | Step::Retiring { halt, .. } => *halt = None,
            _ => {}
        }
    }

    fn finish(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::Finish);
        self.save(actions);
        self.step = Step::Over;
    }

    fn save(&mut self, actions: &mut Vec<Action>) -> u64 {
        self.last_save += 1;
        actions.push(Action::Save(self.last_save));
        self.last_save
    }

    /// The group under way, or the next one.
    pub(crate) fn group(&self) -> Option<&Arc<ReshardGroup>> {
        match &self.step {
            Step::Warming { group, .. }
            | Step::Warm { group, .. }
            | Step::Draining { group, .. }
            | Step::Retiring { group, .. }
            | Step::Withdrawing { group, .. } => Some(group),
            Step::Between { .. } | Step::Halted(_) => self.pending.front(),
            Step::Over => None,
        }
    }

    /// The phase of the group under way. `None` between two groups.
    pub(crate) fn phase(&self) -> Option<GroupPhase> {
        match &self.step {
            Step::Warming { .. } => Some(GroupPhase::Warming),
            Step::Warm { .. } => Some(GroupPhase::Warm),
            Step::Draining { .. } | Step::Retiring { .. } => Some(GroupPhase::Draining),
            Step::Withdrawing { .. } => Some(GroupPhase::Withdrawn),
            Step::Between { .. } | Step::Halted(_) | Step::Over => None,
        }
    }

    /// Why no group begins, if the operator or the next check has to resume.
    pub(crate) fn halted(&self) -> Option<HaltReason> {
        match self.step {
            Step::Halted(why) => Some(why),
            _ => None,
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn is_over(&self) -> bool {
        self.step == Step::Over
    }

    /// Groups that have not begun, or will be tried again.
    pub(crate) fn pending(&self) -> impl ExactSizeIterator<Item = &Arc<ReshardGroup>> {
        self.pending.iter()
    }

    /// Residues of the groups whose new shards have taken over.
    pub(crate) fn moved(&self) -> &BTreeSet<u32> {
        &self.moved
    }
}

/// A time that much later. Spans are checked to be at most a year, so it exists.
fn later(now: Instant, span: Duration) -> Instant {
    now.checked_add(span).unwrap_or(now)
}

#[cfg(test)]
mod tests;
