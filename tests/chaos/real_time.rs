//! Plans for real time: the same seeds, if they can be compressed into seconds.

use std::time::Duration;

use shardkeeper_sim::{Action, ConnectFault, Fault, RestFault};

use crate::pace::{FACTOR, Pace};
use crate::plan::{Ask, Class, Crash, Kind, Plan, Step};
use crate::store::Mood;

/// How long faults may occur, in the time of the plan.
const LASTS: Duration = Duration::from_secs(240);
/// With more shards than this, most of the time would pass in waiting to identify.
const MOST_SHARDS: u32 = 8;
/// The least number of events per second and shard in real time, so that threads often meet.
const LEAST_EVENTS: f64 = 30.0;
/// With fewer Identify left than this, shards would wait for the end of the day.
const FEW: u32 = 100;

impl Plan {
    /// Whether this plan can be carried out within seconds.
    pub(crate) fn suits_real_time(&self) -> bool {
        self.shards <= MOST_SHARDS && self.identify_remaining >= FEW
    }

    /// The plan with its times adjusted to real time.
    pub(crate) fn compressed(mut self, pace: &Pace) -> Self {
        let last = self.steps.last().map_or(LASTS, |(at, _)| *at);
        // Gentle plans keep the times between faults, because these determine whether a session survives.
        let hurry = match self.class {
            Class::Gentle => 1.0,
            _ => LASTS.div_duration_f64(last).min(1.0),
        };
        let gentle = self.class == Class::Gentle;
        let steps = std::mem::take(&mut self.steps).into_iter();
        let in_time = steps.filter(|(at, _)| at.mul_f64(hurry) <= 2 * LASTS);
        self.steps = in_time
            .filter_map(|(at, step)| Some((pace.wait(at.mul_f64(hurry)), step.compressed(pace, gentle)?)))
            .collect();
        self.events_per_second *= FACTOR;
        // The slow subscribers of a gentle plan keep up only with the plan's own traffic.
        if self.class != Class::Gentle {
            let shards = f64::from(self.shards);
            self.events_per_second = self.events_per_second.max(LEAST_EVENTS * shards);
        }
        self.latency /= 10;
        // A store that never loads delays each start by 10 s, which cannot be configured.
        if self.store.in_the_end != Mood::Fine {
            self.store.in_the_end = Mood::Flaky;
        }
        for habit in &mut self.subscribers {
            habit.breaks_for = pace.wait(habit.breaks_for);
            if let Kind::Fickle { stays } = &mut habit.kind {
                *stays = pace.wait(*stays);
            }
        }
        self
    }
}

impl Step {
    /// The step with compressed times; `None` if it cannot be compressed.
    fn compressed(mut self, pace: &Pace, gentle: bool) -> Option<Self> {
        let wait_ms = |ms: u64| {
            let wait = pace.wait(Duration::from_millis(ms));
            u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)
        };
        match &mut self {
            Self::Outage { lasts, .. } | Self::Store { lasts, .. } => *lasts = pace.wait(*lasts),
            // The wall clock is read in seconds, but compared in milliseconds.
            Self::Jump { .. } => return None,
            // Two requests for all members of a guild are 30 s apart, which cannot be configured.
            Self::Ask(Ask::Members { all: true, .. }) => return None,
            Self::Discord(action) => match action {
                // The deadline of a REST request is 15 s and cannot be compressed.
                Action::Rest { fault: RestFault::Hang, .. } => return None,
                Action::Rest { fault: RestFault::RateLimited { retry_after_ms, .. }, .. } => {
                    *retry_after_ms = u32::try_from(wait_ms(u64::from(*retry_after_ms))).unwrap_or(u32::MAX);
                }
                // Nobody notices a silent connection until Discord ends it, which may be after the last step.
                Action::Fault { fault: Fault::Silence, .. } if gentle => return None,
                Action::Fault { fault: Fault::SlowWriting { bytes_per_second }, .. } => {
                    *bytes_per_second *= FACTOR as u32;
                }
                Action::Host { fault, lasts_ms, .. } => {
                    *lasts_ms = wait_ms(*lasts_ms);
                    // Discord sends this wait in whole seconds.
                    if let ConnectFault::RetryLater { status, .. } = *fault {
                        *fault = ConnectFault::Status { status };
                    }
                }
                Action::ClockJump { ms } | Action::GuildOutage { lasts_ms: ms, .. } => *ms = wait_ms(*ms),
                _ => {}
            },
            Self::Crash(Crash::Driver(_) | Crash::Actor { .. } | Crash::Service { .. })
            | Self::Operate(_)
            | Self::Ask(_) => {}
        }
        Some(self)
    }
}
