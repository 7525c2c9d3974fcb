//! `demo`: runs the real supervisor against a simulated Discord, injects faults, and counts lost events.
//!
//! Only the timing of the rules is compressed; the code is the same as in `run`.

mod faults;
mod lateness;
mod reshard;
mod screen;
mod summary;
mod tally;

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use shardkeeper::config::{ReshardPolicy, Timings};
use shardkeeper::status::{Change, GroupPhase, ManagerStatus, Next, Phase, Role};
use shardkeeper::{
    Builder, Event, Intents, Lifecycle, Overflow, Shardkeeper, Subscription, SubscriptionOptions, Topic,
};
use shardkeeper_sim::{SimConfig, SimTimings, Simulator, Traces};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use self::faults::Plan;
use self::lateness::Lateness;
use self::reshard::Reshard;
use self::screen::Screen;
use self::summary::{Summary, Verdict};
use self::tally::{Judged, Tally};
use crate::say;
use crate::terminate::Terminate;
use crate::wire::Wire;

/// The exit code when there is no verdict, because the demo's own clock was late. 1 means failure, 2 wrong
/// usage.
const LATE: u8 = 3;
/// The token of the demo's bot, which the simulator expects.
const TOKEN: &str = "demo-token";
/// How long the last events may take to arrive after the traffic has stopped.
const SETTLE: Duration = Duration::from_secs(15);
/// Added to the identify window, for scheduling delays of the simulator and the bot.
const IDENTIFY_MARGIN: Duration = Duration::from_millis(75);
/// The capacity for the last events of the demo; the simulator sends no faster than the demo counts.
const BACKLOG: usize = 4096;
/// The most guilds per shard on average, so that no shard has more than the 2500 that Discord allows.
const MOST_GUILDS: u32 = 2000;

#[derive(Args)]
pub(crate) struct Options {
    /// The number of shards.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=2048))]
    shards: u32,
    /// How many shards may identify at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    max_concurrency: u32,
    /// Reshards the bot to this many shards in the middle of the demo, while events and faults go on.
    #[arg(long, value_name = "SHARDS", value_parser = clap::value_parser!(u32).range(1..=2048))]
    reshard: Option<u32>,
    /// Events per second, over all shards.
    #[arg(long, default_value_t = 500.0, value_parser = positive)]
    events_per_second: f64,
    /// How long the demo lasts, in seconds. It may last longer, since shards need some seconds to recover
    /// from the faults.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The seed of events and faults. The same seed gives the same run, except for the machine's timing.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many times faster than at Discord time passes for heartbeats, windows and waits.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    time_scale: f64,
    /// The file to write the summary to, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    wire: Wire,
    /// Print plain lines instead of a live table.
    #[arg(long)]
    plain: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.001..=1_000_000.0).contains(&number) => Ok(number),
        _ => Err("the value must be a number above zero".to_owned()),
    }
}

/// What the demo shows and counts.
struct Stage {
    simulator: Simulator,
    judged: Judged,
    screen: Screen,
    faults: Plan,
    reshard: Option<Reshard>,
}

pub(crate) async fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    faults::hush_drills();
    let mut terminate = Terminate::listen()?;
    let lateness = Lateness::measure();
    let started = Instant::now();
    let simulator = simulate(options).await?;
    let builder = configure(options, &simulator);
    let everything = SubscriptionOptions { capacity: BACKLOG, overflow: Overflow::Wait };
    let mut events = builder.subscribe_with(Topic::all().with_lifecycle(), everything);
    let mut stage = Stage {
        simulator,
        judged: options.judged(),
        screen: Screen::new(options.plain, options.reshard.is_some()),
        faults: Plan::new(options.seed),
        reshard: options.reshard.map(|to| Reshard::new(options.shards, to)),
    };
    stage.screen.line(&format!(
        "{} shards, {} at a time, against a simulated Discord at {}; time passes {} times as fast",
        options.shards,
        options.max_concurrency,
        stage.simulator.api_url(),
        options.time_scale
    ));
    let keeper = builder.start().await?;
    stage.simulator.start_traffic();

    let end = Instant::now() + Duration::from_secs(options.seconds);
    // Ends even if recovery fails, but allows enough time for many shards to identify.
    let windows = options.shards.div_ceil(options.max_concurrency);
    let identifying = Duration::from_secs(5).div_f64(options.time_scale) + IDENTIFY_MARGIN;
    let latest = end + identifying * windows + SETTLE;
    let terminated = tokio::select! {
        () = stage.show(&keeper, &mut events, (end, latest)) => false,
        () = terminate.wait() => true,
    };

    stage.simulator.stop_traffic();
    if !terminated {
        // Waits for events in progress; a shard that is down reconnects and has its events replayed.
        let (mut delivered, mut since) = (0, Instant::now());
        loop {
            let tally = stage.tally();
            let ready = keeper.status().await.is_ok_and(|status| all_ready(&status));
            if ready && tally.lost == 0 {
                break;
            }
            // As long as events arrive, none is counted as lost, however slow the machine is.
            if tally.delivered > delivered {
                (delivered, since) = (tally.delivered, Instant::now());
            } else if since.elapsed() >= SETTLE {
                break;
            }
            stage.take_for(Duration::from_millis(20), &mut events).await;
        }
    }
    let status = keeper.status().await.unwrap_or_default();
    // On a signal the sessions are kept, so that another process could resume them.
    let ending = async {
        if terminated {
            drop(keeper.detach().await);
        } else {
            keeper.stop().await;
        }
    };
    let reading = async {
        while let Some(event) = events.next().await {
            stage.observe(&event);
        }
    };
    tokio::join!(ending, reading);
    stage.screen.finish();

    let summary = Summary::new(options, &stage, &status, terminated, (started, &lateness));
    say(&summary);
    if let Some(file) = &options.report {
        summary.write(file)?;
        say(format_args!("report written to {}", file.display()));
    }
    stage.simulator.shutdown();
    Ok(match summary.verdict() {
        Verdict::Good | Verdict::EndedEarly => ExitCode::SUCCESS,
        Verdict::Late => ExitCode::from(LATE),
        Verdict::Wrong => ExitCode::FAILURE,
    })
}

impl Options {
    fn judged(&self) -> Judged {
        if self.reshard.is_some() { Judged::OverAllSessions } else { Judged::BySession }
    }
}

async fn simulate(options: &Options) -> std::io::Result<Simulator> {
    let mut config = SimConfig::default();
    config.token = TOKEN.to_owned();
    config.seed = options.seed;
    config.shards = options.shards;
    config.max_concurrency = options.max_concurrency;
    let to = options.reshard.unwrap_or(options.shards);
    config.identify_total = config.identify_total.max((options.shards + to) * 2);
    config.identify_remaining = config.identify_total;
    config.guilds = (options.shards.max(to) * 4).min(options.shards.min(to) * MOST_GUILDS);
    if options.judged() == Judged::OverAllSessions {
        config.traces = Traces::World { repeating: Vec::new() };
    }
    config.events_per_second = options.events_per_second;
    config.timings = SimTimings::default().compressed(options.time_scale);
    // Short enough that a zombie is noticed within the available time.
    let shortest = Duration::from_secs(options.seconds).div_f64(6.0).max(Duration::from_millis(500));
    config.timings.heartbeat_interval = config.timings.heartbeat_interval.min(shortest);
    Simulator::bind(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
}

fn configure(options: &Options, simulator: &Simulator) -> Builder {
    let mut timings = Timings::default().compressed(options.time_scale);
    // The simulator is near; the default margin, meant for the network to Discord, would be half a compressed
    // window.
    timings.identify_margin = IDENTIFY_MARGIN;
    let builder = Shardkeeper::builder(TOKEN, Intents::all()).reshard(ReshardPolicy::off());
    options.wire.apply(builder).api_url(simulator.api_url()).timings(timings).seed(options.seed)
}

impl Stage {
    /// Runs until the end of the demo, and until every shard has recovered.
    async fn show(
        &mut self,
        keeper: &Shardkeeper,
        events: &mut Subscription,
        (end, latest): (Instant, Instant),
    ) {
        let mut frame = interval(Duration::from_millis(100));
        frame.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let resharding = self.reshard.as_ref().map(Reshard::takes).unwrap_or_default();
            tokio::select! {
                biased;
                () = sleep_until(latest + resharding) => return,
                _ = frame.tick() => {
                    let Ok(status) = keeper.status().await else { return };
                    self.screen.draw(&status, &self.tally());
                    if all_serve(&status) {
                        self.act(keeper, &status, end).await;
                    }
                    if Instant::now() >= end && self.is_over() && all_ready(&status) {
                        return;
                    }
                }
                event = events.next() => match event {
                    Some(event) => self.observe(&event),
                    None => return,
                },
            }
        }
    }

    /// Does what is due.
    async fn act(&mut self, keeper: &Shardkeeper, status: &ManagerStatus, end: Instant) {
        let now = Instant::now();
        let mut lines = self.faults.inject_due(now, end, status, keeper, &self.simulator).await;
        if let Some(reshard) = &mut self.reshard {
            lines.extend(reshard.begin_if_due(now, end, keeper, &self.simulator).await);
        }
        for line in lines {
            self.screen.line(&line);
        }
    }

    /// Whether everything that was to happen has happened.
    fn is_over(&self) -> bool {
        self.faults.is_healed() && self.reshard.as_ref().is_none_or(Reshard::is_over)
    }

    fn tally(&self) -> Tally {
        self.judged.tally(&self.simulator)
    }

    /// Takes events for this long.
    async fn take_for(&mut self, span: Duration, events: &mut Subscription) {
        let taking = async {
            while let Some(event) = events.next().await {
                self.observe(&event);
            }
            // The stream has ended: wait until the time is over.
            std::future::pending::<()>().await;
        };
        let _ = timeout(span, taking).await;
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::Dispatch(dispatch) => self.judged.observe(&self.simulator, dispatch),
            Event::Lifecycle(lifecycle) => {
                self.faults.watch(Instant::now(), lifecycle);
                if let Some(reshard) = &mut self.reshard {
                    reshard.watch(lifecycle);
                }
                if is_worth_a_line(lifecycle) {
                    self.screen.line(&lifecycle.to_string());
                }
            }
            Event::Lagged { missed } => {
                let line = format!("the demo itself was too slow: its display missed {missed} events");
                self.screen.line(&line);
            }
            _ => {}
        }
    }
}

/// Whether to print this lifecycle change. The steps of a normal start, of a normal group and of the end would
/// hide the important ones.
fn is_worth_a_line(lifecycle: &Lifecycle) -> bool {
    match lifecycle {
        Lifecycle::Shard { change: Change::Disconnected { next, .. }, .. } => *next != Next::End,
        Lifecycle::Shard { change, .. } => {
            matches!(change, Change::Ready | Change::Resumed { .. } | Change::Refused(_))
        }
        Lifecycle::ReshardGroup { phase, .. } => {
            matches!(phase, GroupPhase::Draining | GroupPhase::Withdrawn)
        }
        // The demo prints its own line.
        Lifecycle::ReshardBegun(_) => false,
        _ => true,
    }
}

fn all_ready(status: &ManagerStatus) -> bool {
    !status.shards.is_empty() && status.shards.iter().all(|shard| shard.phase == Phase::Ready)
}

/// Whether each guild is served: the shards that only warm up or close do not count.
fn all_serve(status: &ManagerStatus) -> bool {
    let mut active = status.shards.iter().filter(|shard| shard.role == Role::Active).peekable();
    active.peek().is_some() && active.all(|shard| shard.phase == Phase::Ready)
}
