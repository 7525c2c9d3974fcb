//! `sim`: runs only the simulated Discord, for clients of any library in any language.

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

/// How many violations and notices of advice are printed at the end; the report has more of them.
const PRINTED: usize = 20;

#[derive(Args)]
pub(crate) struct Options {
    /// The address to listen on, for REST and Gateway on one port. Port 0 takes a free port.
    #[arg(long, default_value = "127.0.0.1:7979")]
    listen: SocketAddr,
    /// The only accepted token. Default: a new one in Discord's format, which is printed.
    #[arg(long)]
    token: Option<String>,
    /// Use TLS, and write its new certificate to this PEM file for the client to trust.
    #[arg(long, value_name = "FILE")]
    tls: Option<PathBuf>,
    /// The seed of guilds, events and faults. The same seed gives the same run, except for the machine's
    /// timing.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The recommended number of shards.
    #[arg(long, default_value_t = 1)]
    shards: u32,
    /// How many shards may identify at the same time.
    #[arg(long, default_value_t = 1)]
    max_concurrency: u32,
    /// How many Identify Discord allows per day.
    #[arg(long, default_value_t = 1000)]
    identify_total: u32,
    /// How many Identify are left today. Default: all of them.
    #[arg(long)]
    identify_remaining: Option<u32>,
    /// How many guilds the bot is in.
    #[arg(long, default_value_t = 10)]
    guilds: u32,
    /// How many members a large guild has. One guild in ten is large, beginning with the first.
    #[arg(long, default_value_t = 120)]
    members: u32,
    /// Events per second, over all shards.
    #[arg(long, default_value_t = 10.0)]
    events_per_second: f64,
    /// Which events to send: those of a busy bot, or every kind equally often.
    #[arg(long, value_enum, default_value_t = MixName::Busy)]
    mix: MixName,
    /// Faults per minute, of random kinds at random shards.
    #[arg(long, default_value_t = 0.0)]
    faults_per_minute: f64,
    /// A file with a timeline of faults and other actions, in TOML or JSON; it starts immediately.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// The intents that are enabled in the developer portal, by name or as the number of their bits. Default:
    /// all. May be repeated.
    #[arg(long, value_parser = intents)]
    allowed_intents: Vec<Intents>,
    /// How many times faster than at Discord time passes for heartbeats, windows and waits.
    #[arg(long, default_value_t = 1.0)]
    time_scale: f64,
    /// Split messages into pieces at unusual places, but keep the suffix of zlib-stream whole, as most
    /// clients need it.
    #[arg(long)]
    split_frames: bool,
    /// Split messages into pieces, also within the suffix of zlib-stream.
    #[arg(long)]
    split_suffix: bool,
    /// Write the atoms of ETF with all four tags. Some clients support only two.
    #[arg(long)]
    mixed_atoms: bool,
    /// End with an exit code other than 0 if the client did something for which Discord would close, refuse
    /// or drop a session; with --strict=advice also if it ignored Discord's advice.
    #[arg(long, value_name = "GRADE", num_args = 0..=1, require_equals = true, default_missing_value = "violation")]
    strict: Option<Strict>,
    /// The file to write the report to at the end, as JSON.
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
    say("GET /sim/report returns what it has seen, POST /sim/act injects faults; press Ctrl-C to stop");
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
        number => Err(format!("--{name} is {number}: it must be above zero")),
    };
    let rate = |name: &str, number: f64| match number {
        number if number.is_finite() && number >= 0.0 => Ok(number),
        number => Err(format!("--{name} is {number}: it must not be below zero")),
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

/// Writes the report without delivery counts, which are not known for clients in other processes.
fn write_report(file: &PathBuf, report: &Report) -> Result<(), Box<dyn Error>> {
    let text = serde_json::to_string_pretty(report)?;
    fs::write(file, text + "\n").map_err(|error| format!("cannot write {}: {error}", file.display()).into())
}
