//! The demo's summary and verdict.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use shardkeeper::status::{ManagerStatus, ShardStatus};
use shardkeeper_sim::{IdentifyRecord, SimTimings, Violation};
use tokio::time::Instant;

use super::faults::{Drill, Injected};
use super::lateness::Lateness;
use super::reshard::{Outcome, Reshard};
use super::tally::Tally;
use super::{IDENTIFY_MARGIN, Options, SETTLE, Stage};

/// How many violations and notices of advice are printed; the report has more of them.
const PRINTED: usize = 20;
/// How long after a stall a rule may still be broken because of it: a late heartbeat and its answer.
const AFTERMATH: Duration = Duration::from_secs(10);

/// The verdict on a demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// No event lost, duplicated or out of order, no rule broken, every shard recovered, no Identify wasted.
    Good,
    /// No event lost, duplicated or out of order, but the demo's own clock was so late that timing rules were
    /// broken.
    Late,
    /// A failure that lateness does not explain.
    Wrong,
    /// The demo was ended by a signal.
    EndedEarly,
}

/// The summary; its JSON form is the report.
#[derive(Serialize)]
pub(super) struct Summary {
    shards: u32,
    max_concurrency: u32,
    seed: u64,
    terminated: bool,
    /// How many Identify the simulator received.
    identifies: u64,
    cadence: Cadence,
    /// How many sessions the simulator resumed.
    resumes: u64,
    /// How many dispatches the simulator replayed.
    replayed: u64,
    /// How many dispatches the simulator sent; replays do not count again, and neither does a dispatch that was
    /// sent by both layouts during a reshard.
    sent: u64,
    /// How many of the sent dispatches a subscriber received.
    delivered: u64,
    lost: u64,
    duplicated: u64,
    /// How many dispatches came again, marked as possible repetitions. They do not count as duplicated.
    marked: u64,
    out_of_order: u64,
    violations: Vec<Violation>,
    /// What Discord advises against, but accepts.
    advice: Vec<Violation>,
    /// How late the demo's own clock was at worst, in milliseconds.
    late_by_ms: u64,
    verdict: Verdict,
    faults: Vec<Injected>,
    reshard: Option<Outcome>,
    shard_states: Vec<ShardStatus>,
    #[serde(skip)]
    time: Time,
}

/// The demo's clock: when the simulator started, how fast it runs, and when it stalled.
struct Time {
    started: Instant,
    scale: f64,
    lateness: Lateness,
}

impl Time {
    /// How long a stall must be to break this rule without the bot being at fault; `None` if no stall
    /// explains it.
    fn slack(&self, rule: &str) -> Option<Duration> {
        let timings = SimTimings::default().compressed(self.scale);
        match rule {
            "GW-170" => Some(IDENTIFY_MARGIN),
            "GW-111" | "GW-115" => Some(timings.heartbeat_tolerance),
            "GW-118" => Some(timings.heartbeat_tolerance / 2),
            "GW-144" => Some(timings.reconnect_grace),
            _ => None,
        }
    }

    /// Whether a long enough stall shortly before explains why this rule was broken.
    fn explains(&self, rule: &str, at_ms: u64) -> bool {
        let at = self.started + Duration::from_millis(at_ms);
        self.slack(rule).is_some_and(|slack| {
            self.lateness.worst_between(at.checked_sub(AFTERMATH).unwrap_or(self.started), at) >= slack
        })
    }
}

/// The facts that determine the verdict.
struct Facts {
    /// Whether no event was lost, duplicated or out of order.
    whole: bool,
    /// The broken rules, each with its time in milliseconds since the simulator started.
    broken: Vec<(&'static str, u64)>,
    /// Whether every fault was injected, every shard recovered as it should, and the reshard was finished.
    healed: bool,
    /// Whether exactly the needed number of Identify was used.
    spent: bool,
}

impl Facts {
    fn verdict(&self, time: &Time) -> Verdict {
        // No stall of the machine excuses a lost, duplicated or reordered event.
        if !self.whole {
            return Verdict::Wrong;
        }
        if self.broken.is_empty() && self.healed && self.spent {
            return Verdict::Good;
        }
        // Each broken rule needs a stall of its own. A shard that did not recover, or an additional Identify,
        // may have lost time in many small stalls: these are explained when all stalls together exceed the
        // demo's spare time.
        let out_of_time = time.lateness.total() >= SETTLE;
        let refused = self.broken.iter().any(|(rule, _)| matches!(*rule, "GW-111" | "GW-170"));
        let explained = self.broken.iter().all(|(rule, at_ms)| time.explains(rule, *at_ms))
            && (self.healed || out_of_time)
            && (self.spent || refused || out_of_time);
        if explained { Verdict::Late } else { Verdict::Wrong }
    }
}

/// How fast the shards identified, by the simulator's clock.
#[derive(Serialize)]
struct Cadence {
    /// The window of an identify key, in milliseconds: 5 s, compressed.
    window_ms: u64,
    /// The shortest time between two Identify of one key, in milliseconds; `None` when no key had two.
    closest_of_one_key_ms: Option<u64>,
    /// The largest number of Identify within any window.
    most_in_a_window: usize,
}

impl Cadence {
    fn new(log: &[IdentifyRecord], options: &Options) -> Self {
        let window_ms = (5000.0 / options.time_scale) as u64;
        // The log is ordered by when Identify were judged; two that arrived at the same moment may be
        // swapped.
        let mut log = log.to_vec();
        log.sort_by_key(|record| record.at_ms);
        let mut last = BTreeMap::new();
        let gaps =
            log.iter().filter_map(|record| Some(record.at_ms - last.insert(record.key, record.at_ms)?));
        let in_window = |(place, first): (usize, &IdentifyRecord)| {
            log[place..].iter().take_while(|record| record.at_ms - first.at_ms < window_ms).count()
        };
        Self {
            window_ms,
            closest_of_one_key_ms: gaps.min(),
            most_in_a_window: log.iter().enumerate().map(in_window).max().unwrap_or(0),
        }
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} Identify within any {} ms", self.most_in_a_window, self.window_ms)?;
        match self.closest_of_one_key_ms {
            Some(gap) => write!(f, ", those of one key at least {gap} ms apart"),
            None => Ok(()),
        }
    }
}

impl Summary {
    pub(super) fn new(
        options: &Options,
        stage: &Stage,
        status: &ManagerStatus,
        terminated: bool,
        (started, lateness): (Instant, &Lateness),
    ) -> Self {
        let report = stage.simulator.report();
        let Tally { sent, delivered, lost, duplicated, marked, out_of_order } = stage.tally();
        let mut summary = Self {
            shards: options.shards,
            max_concurrency: options.max_concurrency,
            seed: options.seed,
            terminated,
            identifies: report.identifies,
            cadence: Cadence::new(&report.identify_log, options),
            resumes: report.resumes,
            replayed: report.replayed,
            sent,
            delivered,
            lost,
            duplicated,
            marked,
            out_of_order,
            violations: report.violations,
            advice: report.notices,
            late_by_ms: u64::try_from(lateness.worst().as_millis()).unwrap_or(u64::MAX),
            verdict: Verdict::Wrong,
            faults: stage.faults.drills().to_vec(),
            reshard: stage.reshard.as_ref().map(Reshard::outcome),
            shard_states: status.shards.clone(),
            time: Time { started, scale: options.time_scale, lateness: lateness.clone() },
        };
        summary.verdict = summary.judge();
        summary
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn judge(&self) -> Verdict {
        if self.terminated {
            return Verdict::EndedEarly;
        }
        let drilled = self.faults.len() == Drill::ALL.len() && self.faults.iter().all(Injected::is_good);
        let facts = Facts {
            whole: self.lost + self.duplicated + self.out_of_order == 0,
            broken: self.violations.iter().map(|violation| (violation.rule, violation.at_ms)).collect(),
            healed: drilled && self.reshard.is_none_or(|reshard| reshard.took_ms.is_some()),
            spent: self.identifies == self.needed_identifies(),
        };
        facts.verdict(&self.time)
    }

    /// The needed number of Identify: one for each shard of each layout, and one for each session that a fault
    /// ended.
    fn needed_identifies(&self) -> u64 {
        let taken = self.faults.iter().filter(|fault| !fault.drill.keeps_session()).count();
        u64::from(self.shards) + self.reshard.map_or(0, |reshard| u64::from(reshard.to)) + taken as u64
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), Box<dyn Error>> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()).into())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        writeln!(f, "identifies   {:>8}   ({} needed)", self.identifies, self.needed_identifies())?;
        writeln!(f, "cadence                 {}", self.cadence)?;
        writeln!(f, "resumes      {:>8}   ({} dispatches replayed)", self.resumes, self.replayed)?;
        writeln!(f, "sent         {:>8}   dispatches, by the simulator", self.sent)?;
        writeln!(f, "delivered    {:>8}", self.delivered)?;
        writeln!(f, "lost         {:>8}", self.lost)?;
        match self.marked {
            0 => writeln!(f, "doubled      {:>8}", self.duplicated)?,
            marked => {
                writeln!(f, "doubled      {:>8}   ({marked} more were marked as such)", self.duplicated)?
            }
        }
        writeln!(f, "out of order {:>8}", self.out_of_order)?;
        writeln!(f, "violations   {:>8}", self.violations.len())?;
        for violation in self.violations.iter().take(PRINTED) {
            writeln!(f, "  {violation}")?;
        }
        writeln!(f, "advice       {:>8}   notices", self.advice.len())?;
        for advice in self.advice.iter().take(PRINTED) {
            writeln!(f, "  {advice}")?;
        }
        if self.reshard.is_some() && self.advice.iter().any(|advice| advice.rule == "GW-118") {
            writeln!(
                f,
                "  (GW-118: by an early heartbeat, a shard shows before a cut-over that it has read on)"
            )?;
        }
        for fault in &self.faults {
            write!(f, "fault        {} on shard {}: ", fault.drill, fault.shard)?;
            match fault.recovery {
                Some(recovery) => {
                    let how = if recovery.resumed { "resumed" } else { "new session" };
                    let after = recovery.after_ms as f64 / 1000.0;
                    writeln!(f, "{how} after {after:.1} s, {} replayed", recovery.replayed)?;
                }
                None => writeln!(f, "not recovered")?,
            }
        }
        if let Some(Outcome { from, to, groups, done, took_ms }) = self.reshard {
            write!(f, "reshard      {from} → {to} shards: {done} of {groups} groups moved")?;
            match took_ms {
                Some(took) => writeln!(f, ", finished after {:.1} s", took as f64 / 1000.0)?,
                None => writeln!(f, ", not finished")?,
            }
        }
        writeln!(f, "late by      {:>8}   ms at worst, by the demo itself", self.late_by_ms)?;
        f.write_str(match self.verdict {
            Verdict::EndedEarly => "ended early by a signal; the sessions were kept",
            Verdict::Good => "success: no event lost or duplicated, no rule broken",
            Verdict::Late => {
                "no verdict: this machine was too busy for the demo's compressed clock, which explains the above. \
                 No event was lost or duplicated. Try fewer --shards, or a smaller --time-scale"
            }
            Verdict::Wrong => "failure: see the lost or duplicated events, violations, faults or reshard above",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time of a demo that runs ten times as fast as Discord, with stalls given as (start, length) in
    /// milliseconds.
    fn demo(stalls: &[(u64, u64)]) -> Time {
        let time = Time { started: Instant::now(), scale: 10.0, lateness: Lateness::default() };
        for (at, length) in stalls {
            let due = time.started + Duration::from_millis(*at);
            time.lateness.note(due, due + Duration::from_millis(*length));
        }
        time
    }

    fn facts(broken: &[(&'static str, u64)]) -> Facts {
        Facts { whole: true, broken: broken.to_vec(), healed: true, spent: true }
    }

    #[test]
    fn a_rule_of_time_is_excused_by_a_stall_that_explains_it() {
        let busy = demo(&[(20_000, 1_200)]);
        assert_eq!(facts(&[]).verdict(&busy), Verdict::Good);
        assert_eq!(facts(&[("GW-111", 21_300), ("GW-170", 21_000)]).verdict(&busy), Verdict::Late);
        // A refused Identify is followed by another one.
        let again = Facts { spent: false, ..facts(&[("GW-170", 21_000)]) };
        assert_eq!(again.verdict(&busy), Verdict::Late);
        let out_of_time = Facts { healed: false, ..facts(&[]) };
        assert_eq!(out_of_time.verdict(&demo(&[(5_000, 9_000), (20_000, 9_000)])), Verdict::Late);
    }

    #[test]
    fn lateness_hides_no_true_failure() {
        let busy = demo(&[(20_000, 1_200)]);
        for wrong in [
            // The violation is before the stall, long after it, or of another rule.
            facts(&[("GW-111", 19_000)]),
            facts(&[("GW-111", 40_000)]),
            facts(&[("GW-170", 21_000), ("GW-148", 21_000)]),
            Facts { whole: false, ..facts(&[]) },
            Facts { whole: false, ..facts(&[("GW-111", 21_300)]) },
            Facts { healed: false, ..facts(&[]) },
            Facts { healed: false, ..facts(&[("GW-111", 21_300)]) },
            Facts { spent: false, ..facts(&[]) },
        ] {
            assert_eq!(wrong.verdict(&busy), Verdict::Wrong, "{:?}", wrong.broken);
        }
        // The stall is shorter than the tolerance of 1 s.
        assert_eq!(facts(&[("GW-111", 21_300)]).verdict(&demo(&[(20_000, 900)])), Verdict::Wrong);
        assert_eq!(facts(&[("GW-170", 21_300)]).verdict(&demo(&[(21_000, 74)])), Verdict::Wrong);
    }
}
