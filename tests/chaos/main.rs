//! Chaos: the whole of a bot and its Discord in one process, on a clock that nobody waits for, with faults of every kind.
//!
//! A seed decides everything: the layout, the faults and when they come, the traffic, who listens and how, what the
//! operator does. Checkers that know nothing of that judge what comes of it. The same seed makes the same run, to the last
//! line of its trace; a seed that fails prints the trace, and the command that runs it again.

mod asking;
mod calm;
mod checkers;
mod clock;
mod network;
mod operator;
mod plan;
mod process;
mod run;
mod store;
mod subscriber;
mod trace;
mod world;

use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Duration;

use crate::plan::Plan;
use crate::run::{Outcome, run};

/// The seeds of an ordinary run of the tests.
const SEEDS: Range<u64> = 0..200;
/// So many tests share them, side by side.
const PARTS: u64 = 4;

fn seeds() -> Range<u64> {
    let Ok(range) = std::env::var("CHAOS_SEEDS") else { return SEEDS };
    let bounds = range.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.expect("CHAOS_SEEDS is like 0..2000")
}

/// A crash that was asked for is no news.
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

#[expect(clippy::print_stdout, reason = "whoever looks for the cause reads it")]
fn check(seed: u64) -> Outcome {
    silence_drills();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| run(Plan::new(seed))));
    let again =
        format!("CHAOS_SEED={seed} cargo test -p shardkeeper-tests --test chaos one_seed -- --nocapture");
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
    for seed in seeds().filter(|seed| seed % PARTS == number) {
        // All of them run, so that one failure does not hide the others.
        match panic::catch_unwind(|| check(seed)) {
            Ok(outcome) => {
                lasted += outcome.lasted;
                doubled += outcome.doubled;
                // Where the budget is used up, everybody waits for the end of the day.
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

/// For looking into one: `CHAOS_SEED` says which.
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
    for seed in 0..20 {
        let (first, second) = (run(Plan::new(seed)), run(Plan::new(seed)));
        let differs = first.trace.iter().zip(&second.trace).find(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}
