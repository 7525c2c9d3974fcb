//! The demo's face: a live table where there is a terminal, plain lines where there is none.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use crossterm::{cursor, queue, terminal};
use shardkeeper::{ManagerStatus, Phase, ShardStatus};
use shardkeeper_sim::Delivery;

use crate::say;

/// How many of the latest lines are kept below the table.
const LINES: usize = 8;
/// Without a terminal, how often a line says how things stand.
const PLAIN_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Screen {
    started: Instant,
    /// The terminal, if it is one.
    terminal: Option<Stdout>,
    lines: VecDeque<String>,
    last_plain: Option<Instant>,
}

impl Screen {
    pub(super) fn new(plain: bool) -> Self {
        let stdout = io::stdout();
        let terminal = (!plain && stdout.is_terminal()).then_some(stdout);
        let mut screen = Self { started: Instant::now(), terminal, lines: VecDeque::new(), last_plain: None };
        screen.on_terminal(|out| queue!(out, terminal::EnterAlternateScreen, cursor::Hide));
        screen
    }

    /// Something happened.
    pub(super) fn line(&mut self, text: &str) {
        let line = format!("{:6.1} s  {text}", self.started.elapsed().as_secs_f64());
        if self.terminal.is_none() {
            say(&line);
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// How things stand.
    pub(super) fn draw(&mut self, status: &ManagerStatus, delivery: &Delivery) {
        if self.terminal.is_none() {
            if self.last_plain.is_none_or(|last| last.elapsed() >= PLAIN_EVERY) {
                self.last_plain = Some(Instant::now());
                self.line(&totals(status, delivery));
            }
            return;
        }
        let (width, height) = terminal::size().unwrap_or((80, 24));
        let rows = usize::from(height).saturating_sub(LINES + 5).max(1);
        let mut picture = vec![totals(status, delivery), progress(status, usize::from(width)), header()];
        picture.extend(table(&status.shards, rows));
        picture.push(String::new());
        picture.extend(self.lines.iter().cloned());
        self.on_terminal(|out| {
            for (row, line) in (0..height).zip(&picture) {
                let line: String = line.chars().take(usize::from(width)).collect();
                queue!(out, cursor::MoveTo(0, row), terminal::Clear(terminal::ClearType::CurrentLine))?;
                write!(out, "{line}")?;
            }
            queue!(out, terminal::Clear(terminal::ClearType::FromCursorDown))
        });
    }

    /// Gives the terminal back. The last lines stay readable above the summary.
    pub(super) fn finish(&mut self) {
        self.on_terminal(|out| queue!(out, cursor::Show, terminal::LeaveAlternateScreen));
        if self.terminal.take().is_some() {
            self.lines.drain(..).for_each(say);
        }
    }

    /// A terminal that is gone takes the picture with it, and nothing else.
    fn on_terminal(&mut self, draw: impl FnOnce(&mut Stdout) -> io::Result<()>) {
        if let Some(out) = &mut self.terminal {
            let _ = draw(out).and_then(|()| out.flush());
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.finish();
    }
}

fn totals(status: &ManagerStatus, delivery: &Delivery) -> String {
    let ready = status.shards.iter().filter(|shard| shard.phase == Phase::Ready).count();
    let identify = &status.identify;
    format!(
        "{ready}/{} shards ready · {} waiting to identify · {} of {} identifies left · {} events sent, {} delivered",
        status.shards.len(),
        identify.waiting,
        identify.remaining,
        identify.total,
        delivery.sent,
        delivery.delivered,
    )
}

/// How far the identify queue has come.
fn progress(status: &ManagerStatus, width: usize) -> String {
    let total = status.shards.len();
    let done = status.shards.iter().filter(|shard| shard.session > 0).count();
    let cells = width.saturating_sub(30).clamp(10, 60);
    let full = (cells * done).checked_div(total).unwrap_or(0);
    format!("sessions  [{}{}] {done}/{total}", "█".repeat(full), "·".repeat(cells - full))
}

fn header() -> String {
    format!(
        "{:>5}  {:<12} {:>7} {:>9} {:>9} {:>8}  last reason",
        "shard", "state", "session", "sequence", "latency", "events"
    )
}

/// The shards, those that are not well first when there is no room for all.
fn table(shards: &[ShardStatus], rows: usize) -> Vec<String> {
    let mut shown: Vec<&ShardStatus> = shards.iter().collect();
    let hidden = shown.len().saturating_sub(rows);
    if hidden > 0 {
        shown.sort_by_key(|shard| (shard.phase == Phase::Ready, shard.last_reason.is_none(), shard.shard));
        shown.truncate(rows.saturating_sub(1).max(1));
        shown.sort_by_key(|shard| shard.shard);
    }
    let left = shards.len() - shown.len();
    let mut lines: Vec<String> = shown.into_iter().map(row).collect();
    if left > 0 {
        lines.push(format!("       and {left} more"));
    }
    lines
}

fn row(shard: &ShardStatus) -> String {
    let latency = shard
        .latency
        .map_or_else(|| "-".to_owned(), |latency| format!("{:.1} ms", latency.as_secs_f64() * 1000.0));
    format!(
        "{:>5}  {:<12} {:>7} {:>9} {:>9} {:>8}  {}",
        shard.shard.0,
        shard.phase,
        shard.session,
        shard.sequence,
        latency,
        shard.dispatches,
        shard.last_reason.as_deref().unwrap_or("-"),
    )
}
