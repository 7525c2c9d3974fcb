//! Chaos: a whole bot and its Discord in one process, on a virtual clock, with faults of every kind.
//!
//! A seed determines everything: the layout, the faults and their times, the traffic, the subscribers and
//! their behaviour, the operator's actions. Checkers that do not know the plan judge the results. The same
//! seed gives the same run, to the last line of its trace; a seed that fails prints the trace, and the
//! command that runs it again.
//!
//! `CHAOS_SEEDS=0..2000` runs these seeds instead of the usual ones.
//!
//! Runs in which the layout changes have plans and a judge of their own (see `resharding`), since each event
//! comes in the sessions of two layouts. They run on request: `CHAOS_RESHARD_SEEDS`, and `CHAOS_RESHARD_REAL_SEEDS` in real time.
//!
//! Some of the seeds also run in real time, on one to four threads, with the time of the plan compressed (see
//! `pace` and `real_time`). `CHAOS_REAL_SEEDS=0..1000` selects them; seeds whose plan cannot be compressed
//! into seconds are skipped. Threads do not run the same way twice, so a failing seed may have to run many
//! times until it fails again.

mod asking;
mod calm;
mod checkers;
mod clock;
mod network;
mod operator;
mod pace;
mod plan;
mod process;
mod real_time;
mod resharding;
mod run;
mod store;
mod subscriber;
mod trace;
mod world;

use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::plan::Plan;
use crate::run::{Outcome, run, run_in_real_time};

/// The seeds of an ordinary test run; `.ci/run` has 200.
const SEEDS: Range<u64> = 0..80;
/// The seeds with a reshard, unless others are asked for.
const RESHARD_SEEDS: Range<u64> = 0..40;
/// Those in real time.
const RESHARD_REAL_SEEDS: Range<u64> = 0..16;
/// How many tests share the seeds and run in parallel.
const PARTS: u64 = 4;

/// The seeds of an ordinary run in real time; `.ci/run` has 32. About two thirds of them can be compressed.
const REAL_SEEDS: Range<u64> = 0..16;
/// How many real-time runs are executed in parallel: they wait most of the time.
const LANES: usize = 10;

/// The range in this environment variable, or `usual` if it is not set.
fn seeds(variable: &str, usual: Range<u64>) -> Range<u64> {
    let Ok(range) = std::env::var(variable) else { return usual };
    let bounds = range.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.unwrap_or_else(|| panic!("{variable} is like 0..2000, not {range}"))
}

/// Suppresses the output of intended panics.
fn silence_drills() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some("crash drill") {
                usual(info);
            }
        }));
    });
}

fn check(seed: u64) -> Outcome {
    let again =
        format!("CHAOS_SEED={seed} cargo test -p shardkeeper-tests --test chaos one_seed -- --nocapture");
    judge(seed, &again, || run(Plan::new(seed)))
}

fn check_in_real_time(seed: u64) -> Outcome {
    let again = format!(
        "CHAOS_REAL_SEEDS={seed}..{} cargo test -p shardkeeper-tests --test chaos real_time -- --nocapture",
        seed + 1
    );
    judge(seed, &again, || run_in_real_time(Plan::new(seed)))
}

#[expect(clippy::print_stdout, reason = "whoever looks for the cause reads it")]
fn judge(seed: u64, again: &str, run: impl FnOnce() -> Outcome) -> Outcome {
    silence_drills();
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    let Ok(outcome) = outcome else { panic!("seed {seed} panicked; to run it again:\n{again}") };
    if !outcome.complaints.is_empty() {
        for line in &outcome.trace {
            println!("{line}");
        }
        panic!("seed {seed}: {:#?}\nto run it again:\n{again}", outcome.complaints);
    }
    outcome
}

#[expect(clippy::print_stdout, reason = "with --nocapture it says what was run")]
fn part(number: u64) {
    let (mut seeds_run, mut lasted, mut doubled, mut slowest) = (0, Duration::ZERO, 0, (Duration::ZERO, 0));
    let mut failed = Vec::new();
    for seed in seeds("CHAOS_SEEDS", SEEDS).filter(|seed| seed % PARTS == number) {
        // All seeds run, so that one failure does not hide the others.
        match panic::catch_unwind(|| check(seed)) {
            Ok(outcome) => {
                lasted += outcome.lasted;
                doubled += outcome.doubled;
                // When the Identify budget is used up, all shards wait for the end of the day.
                if outcome.bound < Duration::from_secs(24 * 3600) {
                    slowest = slowest.max((outcome.recovered_in, seed));
                }
            }
            Err(_) => failed.push(seed),
        }
        seeds_run += 1;
    }
    let hours = lasted.as_secs() / 3600;
    let (recovery, seed) = slowest;
    println!(
        "{seeds_run} seeds, {hours} hours, {doubled} dispatches twice where they may, slowest recovery \
         {recovery:.0?} (seed {seed})"
    );
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}

#[test]
fn seeds_of_part_0() {
    part(0);
}

#[test]
fn seeds_of_part_1() {
    part(1);
}

#[test]
fn seeds_of_part_2() {
    part(2);
}

#[test]
fn seeds_of_part_3() {
    part(3);
}

#[test]
fn seeds_in_real_time() {
    let seeds: Vec<u64> =
        seeds("CHAOS_REAL_SEEDS", REAL_SEEDS).filter(|seed| Plan::new(*seed).suits_real_time()).collect();
    let next = AtomicU64::new(0);
    let lane = || {
        let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            match panic::catch_unwind(|| check_in_real_time(*seed)) {
                Ok(outcome) => outcomes.push((*seed, outcome)),
                Err(_) => failed.push(*seed),
            }
        }
        (outcomes, failed)
    };
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        for lane in lanes {
            let (more, bad) = lane.join().expect("failures are caught");
            outcomes.extend(more);
            failed.extend(bad);
        }
    });
    let doubled: u64 = outcomes.iter().map(|(_, outcome)| outcome.doubled).sum();
    let late = outcomes.iter().map(|(_, outcome)| outcome.late_by).max().unwrap_or_default();
    let undecidable = outcomes.iter().filter(|(_, outcome)| outcome.undecidable).count();
    let slowest = outcomes.iter().map(|(seed, outcome)| (outcome.recovered_in, *seed)).max();
    let longest = outcomes.iter().map(|(seed, outcome)| (outcome.lasted, *seed)).max();
    println!(
        "{} seeds, {doubled} dispatches twice where they may, slowest recovery {slowest:.1?}, longest {longest:.1?}; \
         the machine was {late:.0?} late, and in {undecidable} seeds too late to judge limits in time",
        seeds.len()
    );
    assert!(failed.is_empty(), "seeds {failed:?} failed in real time");
}

fn check_reshard(seed: u64) -> Outcome {
    let again = format!(
        "CHAOS_RESHARD_SEED={seed} cargo test -p shardkeeper-tests --test chaos one_reshard -- --nocapture"
    );
    judge(seed, &again, || resharding::run(resharding::Plan::new(seed)))
}

#[test]
#[ignore = "about one seed in 25 shows a fault of the overlap, mostly with sessions that lag by seconds"]
fn seeds_with_a_reshard() {
    let seeds: Vec<u64> = seeds("CHAOS_RESHARD_SEEDS", RESHARD_SEEDS).collect();
    in_lanes("reshards", &seeds, PARTS as usize, check_reshard);
}

#[test]
#[ignore = "about one seed in 25 shows a fault of the overlap, mostly with sessions that lag by seconds"]
fn seeds_with_a_reshard_in_real_time() {
    let suits = |seed: &u64| resharding::Plan::new(*seed).suits_real_time();
    let seeds: Vec<u64> = seeds("CHAOS_RESHARD_REAL_SEEDS", RESHARD_REAL_SEEDS).filter(suits).collect();
    in_lanes("reshards in real time", &seeds, LANES, |seed| {
        let again = format!(
            "CHAOS_RESHARD_REAL_SEEDS={seed}..{} cargo test -p shardkeeper-tests --test chaos \
             reshard_in_real_time -- --nocapture",
            seed + 1
        );
        judge(seed, &again, || resharding::run_in_real_time(resharding::Plan::new(seed)))
    });
}

/// Runs the single seed in `CHAOS_RESHARD_SEED`, to investigate it.
#[test]
fn one_reshard() {
    let seed = std::env::var("CHAOS_RESHARD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for line in check_reshard(seed).trace {
        println!("{line}");
    }
}

/// Runs the seeds, several at the same time.
#[expect(clippy::print_stdout, reason = "with --nocapture it says what was run")]
fn in_lanes(what: &str, seeds: &[u64], lanes: usize, check: impl Fn(u64) -> Outcome + Sync) {
    let next = AtomicU64::new(0);
    let lane = || {
        let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            match panic::catch_unwind(AssertUnwindSafe(|| check(*seed))) {
                Ok(outcome) => outcomes.push((outcome.recovered_in, *seed, outcome.doubled)),
                Err(_) => failed.push(*seed),
            }
        }
        (outcomes, failed)
    };
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        for lane in lanes {
            let (more, bad) = lane.join().expect("failures are caught");
            outcomes.extend(more);
            failed.extend(bad);
        }
    });
    failed.sort_unstable();
    let doubled: u64 = outcomes.iter().map(|(.., doubled)| doubled).sum();
    let slowest = outcomes.iter().map(|(took, seed, _)| (*took, *seed)).max();
    println!(
        "{what}: {} seeds, {doubled} events twice and marked, slowest recovery {slowest:.1?}",
        seeds.len()
    );
    assert!(failed.is_empty(), "{what}: seeds {failed:?} failed");
}

/// Runs the single seed in `CHAOS_SEED`, to investigate it.
#[test]
fn one_seed() {
    let seed = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for line in check(seed).trace {
        println!("{line}");
    }
}

#[test]
fn the_same_seed_makes_the_same_run() {
    silence_drills();
    for seed in seeds("CHAOS_SEEDS", SEEDS).step_by(10).take(20) {
        let (first, second) = (run(Plan::new(seed)), run(Plan::new(seed)));
        let differs = first.trace.iter().zip(&second.trace).find(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}
