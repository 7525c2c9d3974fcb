//! What the demo has shown.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use shardkeeper::status::{ManagerStatus, ShardStatus};
use shardkeeper_sim::{IdentifyRecord, SimTimings, Simulator, Violation};
use tokio::time::Instant;

use super::faults::{Drill, Injected};
use super::lateness::Lateness;
use super::{IDENTIFY_MARGIN, Options, SETTLE};

/// How many violations, and how much advice, are printed; the report has more of them.
const PRINTED: usize = 20;
/// How long after a stall a rule may still be broken because of it: a heartbeat that was late, and its answer.
const AFTERMATH: Duration = Duration::from_secs(10);

/// What is to be thought of a demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// Nothing lost, doubled or out of order, no rule broken, every fault healed, no Identify wasted.
    Good,
    /// Nothing lost, doubled or out of order; but the demo's own clock was so late that rules of time were broken.
    Late,
    /// Something is wrong that lateness does not explain.
    Wrong,
    /// It was ended by a signal.
    EndedEarly,
}

/// The summary; its JSON form is the report.
#[derive(Serialize)]
pub(super) struct Summary {
    shards: u32,
    max_concurrency: u32,
    seed: u64,
    terminated: bool,
    /// Identify that the simulator received.
    identifies: u64,
    cadence: Cadence,
    /// Sessions that it resumed.
    resumes: u64,
    /// Dispatches that it sent again.
    replayed: u64,
    /// Dispatches that it sent, each counted once.
    sent: u64,
    /// Of those, how many a subscriber received.
    delivered: u64,
    lost: u64,
    duplicated: u64,
    out_of_order: u64,
    violations: Vec<Violation>,
    /// What Discord advises against and takes all the same.
    advice: Vec<Violation>,
    /// By how much the demo's own clock was late, at worst.
    late_by_ms: u64,
    verdict: Verdict,
    faults: Vec<Injected>,
    shard_states: Vec<ShardStatus>,
    #[serde(skip)]
    time: Time,
}

/// The demo's clock: when its simulator started, how fast it goes, and when it stood still.
struct Time {
    started: Instant,
    scale: f64,
    lateness: Lateness,
}

impl Time {
    /// How late the demo has to be to break a rule through no fault of the bot's; `None` for what no lateness explains.
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

    /// Whether the demo stood still for so long, shortly before a rule was broken, that this explains it.
    fn explains(&self, rule: &str, at_ms: u64) -> bool {
        let at = self.started + Duration::from_millis(at_ms);
        self.slack(rule).is_some_and(|slack| {
            self.lateness.worst_between(at.checked_sub(AFTERMATH).unwrap_or(self.started), at) >= slack
        })
    }
}

/// What a demo is judged by.
struct Facts {
    /// Nothing was lost, doubled or out of order.
    whole: bool,
    /// The rules that were broken, and when, in milliseconds since the simulator started.
    broken: Vec<(&'static str, u64)>,
    /// Every fault was made, and healed as it should.
    healed: bool,
    /// As many Identify as it took, and not one more.
    spent: bool,
}

impl Facts {
    fn verdict(&self, time: &Time) -> Verdict {
        // Whatever the machine does, no event may be lost, doubled or out of order.
        if !self.whole {
            return Verdict::Wrong;
        }
        if self.broken.is_empty() && self.healed && self.spent {
            return Verdict::Good;
        }
        // Each rule that was broken needs its own stall. What did not heal, or identified once more than it had to, may have
        // lost its time bit by bit: it is explained when the demo stood still for longer than it has to spare in all.
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
    /// The window of a key: 5 s, compressed.
    window_ms: u64,
    /// The least time between two Identify of one key; none when no key had two.
    closest_of_one_key_ms: Option<u64>,
    /// The most Identify in any window.
    most_in_a_window: usize,
}

impl Cadence {
    fn new(log: &[IdentifyRecord], options: &Options) -> Self {
        let window_ms = (5000.0 / options.time_scale) as u64;
        // The log is in the order in which they were judged; two that were read at the same moment may change places.
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
        write!(f, "at most {} in any {} ms", self.most_in_a_window, self.window_ms)?;
        match self.closest_of_one_key_ms {
            Some(gap) => write!(f, ", two of one key at least {gap} ms apart"),
            None => Ok(()),
        }
    }
}

impl Summary {
    pub(super) fn new(
        options: &Options,
        simulator: &Simulator,
        status: &ManagerStatus,
        faults: &[Injected],
        terminated: bool,
        (started, lateness): (Instant, &Lateness),
    ) -> Self {
        let (report, delivery) = (simulator.report(), simulator.delivery());
        let mut summary = Self {
            shards: options.shards,
            max_concurrency: options.max_concurrency,
            seed: options.seed,
            terminated,
            identifies: report.identifies,
            cadence: Cadence::new(&report.identify_log, options),
            resumes: report.resumes,
            replayed: report.replayed,
            sent: delivery.sent,
            delivered: delivery.delivered,
            lost: delivery.lost,
            duplicated: delivery.duplicated,
            out_of_order: delivery.out_of_order,
            violations: report.violations,
            advice: report.notices,
            late_by_ms: u64::try_from(lateness.worst().as_millis()).unwrap_or(u64::MAX),
            verdict: Verdict::Wrong,
            faults: faults.to_vec(),
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
        let facts = Facts {
            whole: self.lost + self.duplicated + self.out_of_order == 0,
            broken: self.violations.iter().map(|violation| (violation.rule, violation.at_ms)).collect(),
            healed: self.faults.len() == Drill::ALL.len() && self.faults.iter().all(Injected::is_good),
            spent: self.identifies == self.needed_identifies(),
        };
        facts.verdict(&self.time)
    }

    /// One for each shard, and one for each session that was taken away.
    fn needed_identifies(&self) -> u64 {
        let taken = self.faults.iter().filter(|fault| !fault.drill.keeps_session()).count();
        u64::from(self.shards) + taken as u64
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
        writeln!(f, "doubled      {:>8}", self.duplicated)?;
        writeln!(f, "out of order {:>8}", self.out_of_order)?;
        writeln!(f, "violations   {:>8}", self.violations.len())?;
        for violation in self.violations.iter().take(PRINTED) {
            writeln!(f, "  {violation}")?;
        }
        writeln!(f, "advice       {:>8}   ignored", self.advice.len())?;
        for advice in self.advice.iter().take(PRINTED) {
            writeln!(f, "  {advice}")?;
        }
        for fault in &self.faults {
            write!(f, "fault        {} on shard {}: ", fault.drill, fault.shard)?;
            match fault.recovery {
                Some(recovery) => {
                    let how = if recovery.resumed { "resumed" } else { "new session" };
                    let after = recovery.after_ms as f64 / 1000.0;
                    writeln!(f, "{how} after {after:.1} s, {} replayed", recovery.replayed)?;
                }
                None => writeln!(f, "not healed")?,
            }
        }
        writeln!(f, "late by      {:>8}   ms at worst, the demo itself", self.late_by_ms)?;
        f.write_str(match self.verdict {
            Verdict::EndedEarly => "ended early, as asked; the sessions were kept",
            Verdict::Good => "all is well: nothing lost, nothing doubled, no rule broken",
            Verdict::Late => {
                "not judged: this machine was too busy for the demo's compressed clock, which explains all of the above. \
                 Nothing was lost or doubled. Try fewer --shards, or a smaller --time-scale"
            }
            Verdict::Wrong => "something is wrong: see above",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A demo ten times as fast as Discord, which stood still for so long at some moment.
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
        // The Identify that follows the refused one.
        let again = Facts { spent: false, ..facts(&[("GW-170", 21_000)]) };
        assert_eq!(again.verdict(&busy), Verdict::Late);
        let out_of_time = Facts { healed: false, ..facts(&[]) };
        assert_eq!(out_of_time.verdict(&demo(&[(5_000, 9_000), (20_000, 9_000)])), Verdict::Late);
    }

    #[test]
    fn lateness_hides_no_true_failure() {
        let busy = demo(&[(20_000, 1_200)]);
        for wrong in [
            // Before the stall, long after it, or beyond what it explains.
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
        // A tolerance of 1 s, and a stall of less.
        assert_eq!(facts(&[("GW-111", 21_300)]).verdict(&demo(&[(20_000, 900)])), Verdict::Wrong);
        assert_eq!(facts(&[("GW-170", 21_300)]).verdict(&demo(&[(21_000, 74)])), Verdict::Wrong);
    }
}
