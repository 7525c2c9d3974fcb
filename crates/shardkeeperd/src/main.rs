//! `shardkeeperd`: runs the Gateway shards of a Discord bot, or demonstrates them against a simulator.

mod demo;
mod intents;
mod record;
mod run;
mod sim;
mod terminate;
mod wire;

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Keeps the Gateway shards of a Discord bot alive.
#[derive(Parser)]
#[command(name = "shardkeeperd", version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs shards against a simulated Discord on this machine, injects faults, and counts lost events.
    Demo(demo::Options),
    /// Runs the shards of a real bot, with the token in DISCORD_TOKEN.
    Run(run::Options),
    /// Runs only the simulated Discord, for clients of any library.
    Sim(sim::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // `demo` prints its own progress; the output of `run` is the log.
    let level = match arguments.command {
        Command::Demo(_) => "off",
        Command::Run(_) => "info,ractor=warn",
        Command::Sim(_) => "info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(wants_colours(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    let outcome = match arguments.command {
        Command::Demo(options) => demo::run(&options).await,
        Command::Run(options) => run::run(&options).await,
        Command::Sim(options) => sim::run(&options).await,
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Whether a stream is a terminal that shows colours, and NO_COLOR does not disable them.
fn wants_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && allows_colours(std::env::var_os("NO_COLOR").as_deref()) && can_move_cursor()
}

/// Whether NO_COLOR permits colours: any text in it disables them, an empty value does not
/// (<https://no-color.org>).
fn allows_colours(no_color: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty)
}

/// Whether the terminal supports escape sequences.
fn can_move_cursor() -> bool {
    std::env::var_os("TERM").is_none_or(|name| name != "dumb")
}

/// Prints a line to standard output. A closed output is ignored: it is no reason to stop or to panic.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Formats an error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_is_heeded_unless_it_is_empty() {
        assert!(allows_colours(None) && allows_colours(Some(OsStr::new(""))));
        assert!(!allows_colours(Some(OsStr::new("1"))) && !allows_colours(Some(OsStr::new("0"))));
    }
}
