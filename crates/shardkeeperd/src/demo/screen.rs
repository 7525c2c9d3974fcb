//! The demo's output: a live table on a terminal, plain lines elsewhere.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use crossterm::style::{Color, ResetColor, SetForegroundColor};
use crossterm::{cursor, queue, terminal};
use shardkeeper::status::{ManagerStatus, Phase, ReshardStatus, ShardStatus};

use super::tally::Tally;
use crate::{can_move_cursor, say, wants_colours};

/// How many of the latest lines are kept; a small terminal shows fewer of them.
const LINES: usize = 8;
/// The width from which on the table has all its columns, in characters.
const WIDE: usize = 76;
/// The width of the columns that only a demo with a reshard has.
const LAYOUT: usize = 14;
/// How often a status line is printed without a terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Screen {
    started: Instant,
    /// `None` if standard output is not a terminal.
    terminal: Option<Stdout>,
    colours: bool,
    /// Whether there is a reshard, and so shards of two layouts.
    reshards: bool,
    lines: VecDeque<String>,
    last_plain: Option<Instant>,
}

impl Screen {
    pub(super) fn new(plain: bool, reshards: bool) -> Self {
        let stdout = io::stdout();
        let colours = wants_colours(&stdout);
        let terminal = (!plain && stdout.is_terminal() && can_move_cursor()).then_some(stdout);
        let (started, lines) = (Instant::now(), VecDeque::new());
        let mut screen = Self { started, terminal, colours, reshards, lines, last_plain: None };
        screen.on_terminal(|out| queue!(out, terminal::EnterAlternateScreen, cursor::Hide));
        screen
    }

    /// Adds a line about an event.
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

    /// Draws the current state.
    pub(super) fn draw(&mut self, status: &ManagerStatus, tally: &Tally) {
        if self.terminal.is_none() {
            if self.last_plain.is_none_or(|last| last.elapsed() >= PLAIN_EVERY) {
                self.last_plain = Some(Instant::now());
                let mut parts = totals(status, tally).to_vec();
                parts.extend(status.reshard.iter().map(resharding));
                self.line(&parts.join(" · "));
            }
            return;
        }
        let (width, height) = terminal::size().unwrap_or((80, 24));
        let size = (width.into(), height.into());
        let picture = picture(status, tally, self.reshards, &self.lines, size);
        let colours = self.colours;
        self.on_terminal(|out| {
            for (row, line) in (0..height).zip(&picture) {
                queue!(out, cursor::MoveTo(0, row), terminal::Clear(terminal::ClearType::CurrentLine))?;
                for (text, colour) in line {
                    match colour.filter(|_| colours) {
                        Some(colour) => {
                            queue!(out, SetForegroundColor(colour))?;
                            write!(out, "{text}")?;
                            queue!(out, ResetColor)?;
                        }
                        None => write!(out, "{text}")?,
                    }
                }
            }
            queue!(out, terminal::Clear(terminal::ClearType::FromCursorDown))
        });
    }

    /// Restores the terminal. The last lines stay readable above the summary.
    pub(super) fn finish(&mut self) {
        self.on_terminal(|out| queue!(out, cursor::Show, terminal::LeaveAlternateScreen));
        if self.terminal.take().is_some() {
            self.lines.drain(..).for_each(say);
        }
    }

    /// Draws on the terminal. If that fails, the display stops, but the demo continues.
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

/// A line: pieces of text, each with its colour.
type Line = Vec<(String, Option<Color>)>;

/// Composes the whole display, cut to the size of the terminal.
fn picture(
    status: &ManagerStatus,
    tally: &Tally,
    reshards: bool,
    lines: &VecDeque<String>,
    (width, height): (usize, usize),
) -> Vec<Line> {
    let mut picture: Vec<Line> = wrapped(&totals(status, tally), width).into_iter().map(plain).collect();
    picture.push(plain(progress(status, width)));
    picture.extend(status.reshard.iter().map(|reshard| plain(resharding(reshard))));
    picture.push(plain(header(width, reshards)));
    // A third of the remaining height is for the latest lines, with a blank one above them.
    let left = height.saturating_sub(picture.len() + 1);
    let logged = (left / 3).clamp(1, LINES).min(lines.len().max(1));
    picture.extend(table(&status.shards, left.saturating_sub(logged).max(1), width, reshards));
    picture.push(Line::new());
    picture.extend(lines.iter().skip(lines.len().saturating_sub(logged)).map(|line| {
        let colour = line.contains("  ── ").then_some(Color::Magenta);
        vec![(line.clone(), colour)]
    }));
    picture.truncate(height);
    picture.into_iter().map(|line| cut(line, width)).collect()
}

fn plain(text: String) -> Line {
    vec![(text, None)]
}

fn cut(line: Line, width: usize) -> Line {
    let mut left = width;
    line.into_iter()
        .map(|(text, colour)| {
            let text: String = text.chars().take(left).collect();
            left -= text.chars().count();
            (text, colour)
        })
        .collect()
}

/// Joins as many parts into each line as fit.
fn wrapped(parts: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 3 + part.chars().count() <= width => {
                line.push_str(" · ");
                line.push_str(part);
            }
            _ => lines.push(part.clone()),
        }
    }
    lines
}

fn totals(status: &ManagerStatus, tally: &Tally) -> [String; 4] {
    let ready = status.shards.iter().filter(|shard| shard.phase == Phase::Ready).count();
    let identify = &status.identify;
    [
        format!("{ready}/{} shards ready", status.shards.len()),
        format!("{} waiting to identify", identify.waiting),
        format!("{} of {} identifies left", identify.remaining, identify.total),
        format!("{} events sent, {} delivered", tally.sent, tally.delivered),
    ]
}

/// A progress bar of the shards' sessions.
fn progress(status: &ManagerStatus, width: usize) -> String {
    let total = status.shards.len();
    let done = status.shards.iter().filter(|shard| shard.session > 0).count();
    let cells = width.saturating_sub(30).clamp(10, 60);
    let full = (cells * done).checked_div(total).unwrap_or(0);
    format!("sessions  [{}{}] {done}/{total}", "█".repeat(full), "·".repeat(cells - full))
}

/// Where the reshard stands.
fn resharding(reshard: &ReshardStatus) -> String {
    let ReshardStatus { count, next_count, groups, done, remaining, .. } = reshard;
    let now = match (reshard.halted, reshard.group, reshard.phase) {
        (Some(reason), ..) => format!("halted: {reason}"),
        (None, Some(group), Some(phase)) => format!("group {group} {phase}"),
        _ => "between two groups".to_owned(),
    };
    format!(
        "reshard {count} → {next_count} · {now} · {done}/{groups} groups done · {} s left",
        remaining.as_secs()
    )
}

/// Whether the table has all its columns.
fn is_wide(width: usize, reshards: bool) -> bool {
    width >= WIDE + if reshards { LAYOUT } else { 0 }
}

fn header(width: usize, reshards: bool) -> String {
    let layout = if reshards { format!("  {:>3} {:<8}", "gen", "role") } else { String::new() };
    if is_wide(width, reshards) {
        format!(
            "{:>5}{layout}  {:<12} {:>7} {:>9} {:>9} {:>8}  last reason",
            "shard", "state", "session", "sequence", "latency", "events"
        )
    } else if reshards {
        format!("{:>5}{layout}  {:<12}  last reason", "shard", "state")
    } else {
        format!("{:>5}  {:<12} {:>8}  last reason", "shard", "state", "events")
    }
}

/// Composes the table of shards. If there is no room for all, shards with problems come first.
fn table(shards: &[ShardStatus], rows: usize, width: usize, reshards: bool) -> Vec<Line> {
    let mut shown: Vec<&ShardStatus> = shards.iter().collect();
    let hidden = shown.len().saturating_sub(rows);
    if hidden > 0 {
        let place = |shard: &&ShardStatus| (shard.shard, shard.generation);
        shown.sort_by_key(|shard| (shard.phase == Phase::Ready, shard.last_reason.is_none(), place(shard)));
        shown.truncate(rows.saturating_sub(1).max(1));
        shown.sort_by_key(place);
    }
    let left = shards.len() - shown.len();
    let mut lines: Vec<Line> = shown.into_iter().map(|shard| row(shard, width, reshards)).collect();
    if left > 0 {
        lines.push(plain(format!("       and {left} more")));
    }
    lines
}

fn row(shard: &ShardStatus, width: usize, reshards: bool) -> Line {
    let reason = shard.last_reason.as_deref().unwrap_or("-");
    let layout =
        if reshards { format!("  {:>3} {:<8}", shard.generation, shard.role) } else { String::new() };
    let rest = if !is_wide(width, reshards) {
        if reshards { format!("  {reason}") } else { format!(" {:>8}  {reason}", shard.dispatches) }
    } else {
        let latency = shard
            .latency
            .map_or_else(|| "-".to_owned(), |latency| format!("{:.1} ms", latency.as_secs_f64() * 1000.0));
        format!(" {:>7} {:>9} {latency:>9} {:>8}  {reason}", shard.session, shard.sequence, shard.dispatches)
    };
    vec![
        (format!("{:>5}{layout}  ", shard.shard.0), None),
        (format!("{:<12}", shard.phase), Some(colour(shard.phase))),
        (rest, None),
    ]
}

fn colour(phase: Phase) -> Color {
    match phase {
        Phase::Ready => Color::Green,
        Phase::Disconnected | Phase::Resuming => Color::Yellow,
        Phase::Quarantined | Phase::Refused => Color::Red,
        _ => Color::Cyan,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn readme_shows_the_columns_of_the_table() {
        let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
        let mut lines = readme.lines().skip_while(|line| *line != header(WIDE, false));
        lines.next().expect("README shows the header");
        let rows: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
        assert_eq!(rows.len(), 8);
        for (shard, row) in rows.into_iter().enumerate() {
            // Where the gaps are, whatever the numbers.
            assert_eq!(row[..7], format!("{shard:>5}  "), "{row}");
            for gap in [19, 27, 37, 47, 56] {
                assert_eq!(&row[gap..=gap], " ", "{row}");
            }
        }
    }

    /// All parts are shown at each size, and nothing is wider or higher than the terminal.
    #[test]
    fn the_picture_fits_the_terminal() {
        let status: ManagerStatus = ManagerStatus::default();
        let tally = Tally::default();
        let lines: VecDeque<String> =
            (0..LINES).map(|line| format!("line {line} {}", "x".repeat(200))).collect();
        let sizes = [(50, 15), (80, 24), (120, 40), (10, 3), (1, 1)];
        for ((width, height), reshards) in sizes.into_iter().flat_map(|size| [(size, false), (size, true)]) {
            let picture = picture(&status, &tally, reshards, &lines, (width, height));
            let text: Vec<String> =
                picture.iter().map(|line| line.iter().map(|(text, _)| text.as_str()).collect()).collect();
            assert!(text.len() <= height, "{width}x{height}: {text:#?}");
            assert!(text.iter().all(|line| line.chars().count() <= width), "{width}x{height}: {text:#?}");
            if width >= 50 {
                let all = text.join("\n");
                for part in [
                    "shards ready",
                    "waiting to identify",
                    "identifies left",
                    "delivered",
                    "sessions",
                    "last reason",
                    if reshards { "gen role" } else { "state" },
                ] {
                    assert!(all.contains(part), "{width}x{height}: no {part} in {text:#?}");
                }
                assert!(
                    all.contains(&format!("line {}", LINES - 1)),
                    "the newest line is missing: {text:#?}"
                );
            }
        }
    }
}
