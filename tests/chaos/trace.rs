//! The trace of a run: one line per event, for finding out why a seed failed.

use std::fmt::{Display, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// The trace of a run. Clones write to the same trace.
#[derive(Clone)]
pub(crate) struct Trace {
    start: Instant,
    /// Whether each dispatch has its own line.
    in_full: bool,
    lines: Arc<Mutex<Lines>>,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    /// A digest of all observed dispatches, which are too many for lines of their own.
    digest: u64,
    dispatches: u64,
    /// What the checkers found wrong.
    complaints: Vec<String>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        let in_full = std::env::var_os("CHAOS_IN_FULL").is_some();
        Self { start: Instant::now(), in_full, lines: Arc::default() }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line: the actor, and what it did.
    pub(crate) fn note(&self, who: impl Display, what: impl Display) {
        let mut line = String::new();
        let _ =
            write!(line, "{:>11.3} s  {:<12} {what}", self.start.elapsed().as_secs_f64(), who.to_string());
        self.lines().lines.push(line);
    }

    /// Records a failed check.
    pub(crate) fn complain(&self, what: impl Display) {
        self.note("CHECKER", &what);
        self.lines().complaints.push(what.to_string());
    }

    /// Records that a subscriber has finished a dispatch.
    pub(crate) fn observed(&self, facts: [u64; 4]) {
        if self.in_full {
            let [listener, shard, session, number] = facts;
            let (who, process) = (listener >> 32, listener as u32);
            self.note(
                format_args!("shard {shard}"),
                format_args!("{session}:{number} to subscriber {who} of process {process}"),
            );
        }
        let at = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut lines = self.lines();
        lines.dispatches += 1;
        for fact in facts.into_iter().chain([at]) {
            lines.digest = (lines.digest ^ fact).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    /// Adds a line with the digest of everything observed so far.
    pub(crate) fn mark(&self) {
        let (dispatches, digest) = {
            let lines = self.lines();
            (lines.dispatches, lines.digest)
        };
        self.note("subscribers", format_args!("{dispatches} dispatches by now, digest {digest:016x}"));
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.lines().complaints.clone()
    }

    pub(crate) fn take_lines(&self) -> Vec<String> {
        std::mem::take(&mut self.lines().lines)
    }

    pub(crate) fn elapsed(&self) -> std::time::Duration {
        self.start.elapsed()
    }
}
