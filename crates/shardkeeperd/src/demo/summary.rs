//! What the demo has shown.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;
use shardkeeper::{ManagerStatus, ShardStatus};
use shardkeeper_sim::{IdentifyRecord, Simulator, Violation};

use super::Options;
use super::faults::{Drill, Injected};

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
    faults: Vec<Injected>,
    shard_states: Vec<ShardStatus>,
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
    ) -> Self {
        let (report, delivery) = (simulator.report(), simulator.delivery());
        Self {
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
            faults: faults.to_vec(),
            shard_states: status.shards.clone(),
        }
    }

    /// Nothing lost, doubled or out of order, no rule broken, every fault healed, no Identify wasted.
    pub(super) fn is_good(&self) -> bool {
        self.lost == 0
            && self.duplicated == 0
            && self.out_of_order == 0
            && self.violations.is_empty()
            && self.faults.len() == Drill::ALL.len()
            && self.faults.iter().all(Injected::is_good)
            && self.identifies == self.needed_identifies()
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
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
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
        let verdict = match (self.terminated, self.is_good()) {
            (true, _) => "ended early, as asked; the sessions were kept",
            (false, true) => "all is well: nothing lost, nothing doubled, no rule broken",
            (false, false) => "something is wrong: see above",
        };
        write!(f, "{verdict}")
    }
}
