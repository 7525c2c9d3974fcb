//! `demo`: runs the real supervisor against a simulated Discord, injects faults, and counts lost events.
//!
//! Only the timing of the rules is compressed; the code is the same as in `run`.

mod faults;
mod lateness;
mod screen;
mod summary;

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use shardkeeper::config::Timings;
use shardkeeper::status::{Change, ManagerStatus, Next, Phase};
use shardkeeper::{
    Builder, Event, Intents, Lifecycle, Overflow, Shardkeeper, Subscription, SubscriptionOptions, Topic,
};
use shardkeeper_sim::{SimConfig, SimTimings, Simulator};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use self::faults::Plan;
use self::lateness::Lateness;
use self::screen::Screen;
use self::summary::{Summary, Verdict};
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

#[derive(Args)]
pub(crate) struct Options {
    /// The number of shards.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=2048))]
    shards: u32,
    /// How many shards may identify at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    max_concurrency: u32,
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

pub(crate) async fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    faults::hush_drills();
    let mut terminate = Terminate::listen()?;
    let lateness = Lateness::measure();
    let started = Instant::now();
    let simulator = simulate(options).await?;
    let builder = configure(options, &simulator);
    let everything = SubscriptionOptions { capacity: BACKLOG, overflow: Overflow::Wait };
    let mut events = builder.subscribe_with(Topic::all().with_lifecycle(), everything);
    let mut screen = Screen::new(options.plain);
    screen.line(&format!(
        "{} shards, {} at a time, against a simulated Discord at {}; time passes {} times as fast",
        options.shards,
        options.max_concurrency,
        simulator.api_url(),
        options.time_scale
    ));
    let keeper = builder.start().await?;
    simulator.start_traffic();

    let end = Instant::now() + Duration::from_secs(options.seconds);
    // Ends even if recovery fails, but allows enough time for many shards to identify.
    let windows = options.shards.div_ceil(options.max_concurrency);
    let identifying = Duration::from_secs(5).div_f64(options.time_scale) + IDENTIFY_MARGIN;
    let latest = end + identifying * windows + SETTLE;
    let mut plan = Plan::new(options.shards, options.seed);
    let terminated = tokio::select! {
        () = show(&keeper, &simulator, &mut events, &mut screen, &mut plan, (end, latest)) => false,
        () = terminate.wait() => true,
    };

    simulator.stop_traffic();
    if !terminated {
        // Waits for events in progress; a shard that is down reconnects and has its events replayed.
        let (mut delivered, mut since) = (0, Instant::now());
        loop {
            let delivery = simulator.delivery();
            let ready = keeper.status().await.is_ok_and(|status| all_ready(&status));
            if ready && delivery.delivered == delivery.sent {
                break;
            }
            // As long as events arrive, none is counted as lost, however slow the machine is.
            if delivery.delivered > delivered {
                (delivered, since) = (delivery.delivered, Instant::now());
            } else if since.elapsed() >= SETTLE {
                break;
            }
            take_for(Duration::from_millis(20), &simulator, &mut events, &mut screen, &mut plan).await;
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
            observe(&event, &simulator, &mut screen, &mut plan)
        }
    };
    tokio::join!(ending, reading);
    screen.finish();

    let summary = Summary::new(options, &simulator, &status, plan.drills(), terminated, (started, &lateness));
    say(&summary);
    if let Some(file) = &options.report {
        summary.write(file)?;
        say(format_args!("report written to {}", file.display()));
    }
    simulator.shutdown();
    Ok(match summary.verdict() {
        Verdict::Good | Verdict::EndedEarly => ExitCode::SUCCESS,
        Verdict::Late => ExitCode::from(LATE),
        Verdict::Wrong => ExitCode::FAILURE,
    })
}

async fn simulate(options: &Options) -> std::io::Result<Simulator> {
    let mut config = SimConfig::default();
    config.token = TOKEN.to_owned();
    config.seed = options.seed;
    config.shards = options.shards;
    config.max_concurrency = options.max_concurrency;
    config.identify_total = config.identify_total.max(options.shards * 2);
    config.identify_remaining = config.identify_total;
    config.guilds = options.shards * 4;
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
    let builder = Shardkeeper::builder(TOKEN, Intents::all());
    options.wire.apply(builder).api_url(simulator.api_url()).timings(timings).seed(options.seed)
}

/// Runs until the end of the demo, and until every shard has recovered.
async fn show(
    keeper: &Shardkeeper,
    simulator: &Simulator,
    events: &mut Subscription,
    screen: &mut Screen,
    plan: &mut Plan,
    (end, latest): (Instant, Instant),
) {
    let mut frame = interval(Duration::from_millis(100));
    frame.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            () = sleep_until(latest) => return,
            _ = frame.tick() => {
                let Ok(status) = keeper.status().await else { return };
                screen.draw(&status, &simulator.delivery());
                if all_ready(&status) {
                    for line in plan.inject_due(Instant::now(), end, keeper, simulator).await {
                        screen.line(&line);
                    }
                }
                if Instant::now() >= end && plan.is_healed() && all_ready(&status) {
                    return;
                }
            }
            event = events.next() => match event {
                Some(event) => observe(&event, simulator, screen, plan),
                None => return,
            },
        }
    }
}

/// Takes events for this long.
async fn take_for(
    span: Duration,
    simulator: &Simulator,
    events: &mut Subscription,
    screen: &mut Screen,
    plan: &mut Plan,
) {
    let taking = async {
        while let Some(event) = events.next().await {
            observe(&event, simulator, screen, plan);
        }
        // The stream has ended: wait until the time is over.
        std::future::pending::<()>().await;
    };
    let _ = timeout(span, taking).await;
}

fn observe(event: &Event, simulator: &Simulator, screen: &mut Screen, plan: &mut Plan) {
    match event {
        Event::Dispatch(dispatch) => simulator.observe(dispatch.shard().0, dispatch.name(), dispatch.data()),
        Event::Lifecycle(lifecycle) => {
            plan.watch(Instant::now(), lifecycle);
            if is_worth_a_line(lifecycle) {
                screen.line(&lifecycle.to_string());
            }
        }
        Event::Lagged { missed } => {
            screen.line(&format!("the demo itself was too slow: its display missed {missed} events"))
        }
        _ => {}
    }
}

/// Whether to print this lifecycle change. The steps of a normal start and of the end would hide the
/// important ones.
fn is_worth_a_line(lifecycle: &Lifecycle) -> bool {
    let Lifecycle::Shard { change, .. } = lifecycle else { return true };
    matches!(change, Change::Ready | Change::Resumed { .. } | Change::Refused(_))
        || matches!(change, Change::Disconnected { next, .. } if *next != Next::End)
}

fn all_ready(status: &ManagerStatus) -> bool {
    !status.shards.is_empty() && status.shards.iter().all(|shard| shard.phase == Phase::Ready)
}
