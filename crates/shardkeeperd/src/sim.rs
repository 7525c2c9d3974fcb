//! `sim`: the simulated Discord by itself, for clients of any library in any language.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use shardkeeper::Intents;
use shardkeeper_sim::{Mix, Report, Script, SimConfig, SimTimings, Simulator};

use crate::intents::intents;
use crate::say;
use crate::terminate::Terminate;

/// How many violations, and how much advice, are printed at the end; the report has more of them.
const PRINTED: usize = 20;

#[derive(Args)]
pub(crate) struct Options {
    /// Where to listen, REST and Gateway on one port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7979")]
    listen: SocketAddr,
    /// The only token that is accepted; without it, one of Discord's form, which is printed.
    #[arg(long)]
    token: Option<String>,
    /// TLS, with a certificate that is made now and written here as PEM, for the client to trust.
    #[arg(long, value_name = "FILE")]
    tls: Option<PathBuf>,
    /// Guilds, events and faults are the same for the same seed, but for the machine's own timing.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The recommended number of shards.
    #[arg(long, default_value_t = 1)]
    shards: u32,
    /// How many shards may identify at the same time.
    #[arg(long, default_value_t = 1)]
    max_concurrency: u32,
    /// Identify allowed per day.
    #[arg(long, default_value_t = 1000)]
    identify_total: u32,
    /// Identify left today; without it, all of them.
    #[arg(long)]
    identify_remaining: Option<u32>,
    /// How many guilds the bot is in.
    #[arg(long, default_value_t = 10)]
    guilds: u32,
    /// How many members a large guild has: one in ten is large, beginning with the first.
    #[arg(long, default_value_t = 120)]
    members: u32,
    /// Events per second, over all shards.
    #[arg(long, default_value_t = 10.0)]
    events_per_second: f64,
    /// Which events: those of a busy bot, or every event as often as any other.
    #[arg(long, value_enum, default_value_t = MixName::Busy)]
    mix: MixName,
    /// Faults per minute, of random kinds at random shards.
    #[arg(long, default_value_t = 0.0)]
    faults_per_minute: f64,
    /// A timeline of faults and other actions, in TOML or JSON; it begins at once.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// The intents that are enabled in the developer portal, by names or as the number of their bits; without it, all. May be
    /// repeated.
    #[arg(long, value_parser = intents)]
    allowed_intents: Vec<Intents>,
    /// How much faster than at Discord time passes for heartbeats, windows and waits.
    #[arg(long, default_value_t = 1.0)]
    time_scale: f64,
    /// Sends messages in pieces, cut at odd places; the suffix of zlib-stream stays whole, as most clients need it.
    #[arg(long)]
    split_frames: bool,
    /// Sends messages in pieces, and cuts within the suffix of zlib-stream too.
    #[arg(long)]
    split_suffix: bool,
    /// Writes the atoms of ETF with all four tags, of which some clients know two.
    #[arg(long)]
    mixed_atoms: bool,
    /// Ends with an exit code other than 0 for what Discord would close, refuse or drop a session for; with
    /// --strict=advice also for what it advises against.
    #[arg(long, value_name = "GRADE", num_args = 0..=1, require_equals = true, default_missing_value = "violation")]
    strict: Option<Strict>,
    /// Where to write the report as JSON, at the end.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strict {
    Violation,
    Advice,
}

#[derive(Clone, Copy, ValueEnum)]
enum MixName {
    Busy,
    Everything,
}

pub(crate) async fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let mut terminate = Terminate::listen()?;
    let script = options.script.as_deref().map(Script::read).transpose()?;
    let config = configure(options)?;
    let token = config.token.clone();
    let listen = |error: std::io::Error| format!("cannot listen on {}: {error}", options.listen);
    let simulator = match &options.tls {
        None => Simulator::bind(config, options.listen).await.map_err(listen)?,
        Some(file) => {
            let (simulator, certificate) =
                Simulator::bind_tls(config, options.listen).await.map_err(listen)?;
            fs::write(file, certificate)
                .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
            simulator
        }
    };
    say(format_args!("a simulated Discord: API at {}, token {token}", simulator.api_url()));
    say("GET /sim/report tells what it has seen, POST /sim/act makes faults; Ctrl-C ends it");
    simulator.start_traffic();
    let played = async {
        if let Some(script) = script {
            simulator.play(script).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = played => {}
        () = terminate.wait() => {}
    }
    simulator.stop_traffic();
    let report = simulator.report();
    simulator.shutdown();
    summarize(&report);
    if let Some(file) = &options.report {
        write_report(file, &report)?;
    }
    let failed = match options.strict {
        None => false,
        Some(Strict::Violation) => !report.violations.is_empty(),
        Some(Strict::Advice) => !report.violations.is_empty() || !report.notices.is_empty(),
    };
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn configure(options: &Options) -> Result<SimConfig, String> {
    let positive = |name: &str, number: f64| match number {
        number if number.is_finite() && number > 0.0 => Ok(number),
        number => Err(format!("--{name} is {number}: it has to be above zero")),
    };
    let rate = |name: &str, number: f64| match number {
        number if number.is_finite() && number >= 0.0 => Ok(number),
        number => Err(format!("--{name} is {number}: it cannot be below zero")),
    };
    let mut config = SimConfig::default();
    if let Some(token) = &options.token {
        config.token.clone_from(token);
    }
    config.seed = options.seed;
    config.shards = options.shards.max(1);
    config.max_concurrency = options.max_concurrency.max(1);
    config.identify_total = options.identify_total;
    config.identify_remaining = options.identify_remaining.unwrap_or(options.identify_total);
    config.guilds = options.guilds;
    config.large_guild_members = options.members;
    config.events_per_second = rate("events-per-second", options.events_per_second)?;
    config.mix = match options.mix {
        MixName::Busy => Mix::Busy,
        MixName::Everything => Mix::Everything,
    };
    config.faults_per_minute = rate("faults-per-minute", options.faults_per_minute)?;
    if !options.allowed_intents.is_empty() {
        config.allowed_intents = options.allowed_intents.iter().copied().collect::<Intents>().bits();
    }
    config.split_frames = options.split_frames;
    config.split_suffix = options.split_suffix;
    config.mixed_atoms = options.mixed_atoms;
    config.timings = SimTimings::default().compressed(positive("time-scale", options.time_scale)?);
    Ok(config)
}

fn summarize(report: &Report) {
    say(format_args!(
        "{} connections, {} identifies ({} refused), {} resumes ({} refused), {} commands, {} dispatches",
        report.connections,
        report.identifies,
        report.identifies_refused,
        report.resumes,
        report.resumes_refused,
        report.commands,
        report.sent
    ));
    for notice in report.notices.iter().take(PRINTED) {
        say(format_args!("advice: {notice}; {}", notice.reason));
    }
    for violation in report.violations.iter().take(PRINTED) {
        say(format_args!("violation: {violation}; {}", violation.reason));
    }
    let advice = match report.notices.len() {
        0 => String::new(),
        count => format!("; advice was ignored {}", times(count)),
    };
    match report.violations.len() {
        0 => say(format_args!("no rule was broken{advice}")),
        count => say(format_args!("rules were broken {}{advice}", times(count))),
    }
}

fn times(count: usize) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// Without what became of the dispatches: of clients in other processes it cannot be known.
fn write_report(file: &PathBuf, report: &Report) -> Result<(), Box<dyn Error>> {
    let text = serde_json::to_string_pretty(report)?;
    fs::write(file, text + "\n").map_err(|error| format!("cannot write {}: {error}", file.display()).into())
}
