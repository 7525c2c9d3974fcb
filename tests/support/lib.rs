//! Shared by the scenarios: a bot and its simulated Discord in one process, on in-memory streams and a paused
//! clock.
//!
//! Hours of a shard's life take milliseconds, and nothing waits for real time.

mod moving;
mod network;
// The file lies in `races/`, next to the tests that use it most.
#[path = "../races/support.rs"]
pub mod races;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

pub use self::moving::{Moving, Tally, busy, calm};
pub use self::network::{Dial, Network, Weather};
use self::races::Round;

use futures_util::future::BoxFuture;
use ractor::ActorCell;
use shardkeeper::config::{BoxedIo, Dialer};
use shardkeeper::error::ConnectError;
use shardkeeper::status::Change;
use shardkeeper::{
    Builder, Delivery, Event, Intents, Lifecycle, ShardId, Shardkeeper, Subscription, SubscriptionOptions,
    Topic,
};
use shardkeeper_sim::{SimConfig, Simulator, Violation};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

/// The longest wait of a scenario, in virtual time; what has not happened by then never happens.
const PATIENCE: Duration = Duration::from_secs(48 * 3600);

/// A dialer that connects to the simulator, whatever the URL.
#[derive(Clone)]
pub struct SimDialer(pub Simulator);

impl Dialer for SimDialer {
    fn dial<'a>(&'a self, _: &'a Url) -> BoxFuture<'a, Result<BoxedIo, ConnectError>> {
        Box::pin(async { Ok(Box::new(self.0.connect()) as BoxedIo) })
    }
}

tokio::task_local! {
    /// The current round of a scenario that runs in real time.
    static ROUND: Round;
}

/// How many rounds each scenario runs in real time.
const ROUNDS: u64 = 3;

/// Runs a scenario on one thread with a paused clock, and then several [rounds](races) in real time on
/// several threads. The scenario must not measure time or wait for hours.
///
/// # Panics
///
/// When the scenario panics, or hangs in real time.
pub fn in_both_worlds<F: Future<Output = ()> + Send + 'static>(scenario: impl Fn() -> F) {
    let paused = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    paused.expect("a runtime can be built").block_on(scenario());
    for round in races::rounds(ROUNDS) {
        round.run(ROUND.scope(round.clone(), scenario()));
    }
}

/// A simulator with this many shards and some guilds. Events are sent only when a test requests them. In a
/// scenario that runs in real time, the simulator's time is compressed.
pub fn simulator(shards: u32, configure: impl FnOnce(&mut SimConfig)) -> Simulator {
    match ROUND.try_with(Round::clone) {
        Ok(round) => round.simulator(shards, configure),
        Err(_) => simulator_of(shards, configure),
    }
}

fn simulator_of(shards: u32, configure: impl FnOnce(&mut SimConfig)) -> Simulator {
    let mut config = SimConfig::default();
    config.token = "sim-token".to_owned();
    config.seed = 7;
    config.shards = shards;
    config.max_concurrency = shards.clamp(1, 16);
    config.guilds = shards * 2;
    config.events_per_second = 20.0 * f64::from(shards);
    configure(&mut config);
    Simulator::in_memory(config)
}

/// A bot for this simulator, which receives everything.
pub fn bot(simulator: &Simulator) -> Builder {
    bot_with(simulator, Intents::all())
}

/// A bot for this simulator, which receives the events of these intents.
pub fn bot_with(simulator: &Simulator, intents: Intents) -> Builder {
    match ROUND.try_with(Round::clone) {
        Ok(round) => round.bot_with(simulator, intents),
        Err(_) => bot_of(simulator, intents),
    }
}

fn bot_of(simulator: &Simulator, intents: Intents) -> Builder {
    Shardkeeper::builder("sim-token", intents)
        .api_url(simulator.api_url())
        .dialer(Arc::new(SimDialer(simulator.clone())))
        .wall_clock(wall_clock)
        .seed(7)
}

/// The time of day by tokio's clock: hours pass in milliseconds, and all processes of a test share it.
pub fn wall_clock() -> SystemTime {
    static ORIGIN: OnceLock<(Instant, SystemTime)> = OnceLock::new();
    let now = Instant::now();
    let (origin, wall) = *ORIGIN.get_or_init(|| (now, SystemTime::now()));
    wall + now.saturating_duration_since(origin) - origin.saturating_duration_since(now)
}

/// Waits until the condition holds, which it must within an hour. On the paused clock this takes only as long
/// as the tasks need to get there.
pub async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(3600), waiting).await.expect("the condition holds in time");
}

/// The manager's child service that receives messages of this type; `None` while it is being replaced.
pub fn service<M: ractor::Message>(keeper: &Shardkeeper) -> Option<ActorCell> {
    let takes = |child: &ActorCell| child.is_message_type_of::<M>() == Some(true);
    keeper.manager().get_cell().get_children().into_iter().find(takes)
}

/// A running bot and its events.
pub struct Running {
    /// The simulated Discord.
    pub simulator: Simulator,
    /// The bot's handle.
    pub keeper: Shardkeeper,
    /// A subscription to all events of the bot.
    pub events: Subscription,
}

impl Running {
    /// Starts a bot and waits until each of its shards is ready.
    pub async fn start(simulator: Simulator) -> Self {
        let builder = bot(&simulator);
        Self::start_with(simulator, builder).await
    }

    /// The same as [`start`](Self::start), with a custom builder.
    pub async fn start_with(simulator: Simulator, builder: Builder) -> Self {
        let options = SubscriptionOptions { capacity: 1 << 16, ..SubscriptionOptions::default() };
        let events = builder.subscribe_with(Topic::all().with_lifecycle(), options);
        let keeper = builder.start().await.expect("the bot starts");
        let mut running = Self { simulator, keeper, events };
        // READY may arrive after the lifecycle event. The simulator does not count the session before READY
        // has arrived.
        let (mut logged_in, mut expected) = (BTreeSet::new(), None);
        while expected != Some(logged_in.len()) {
            match &*running.next().await {
                Event::Dispatch(dispatch) => drop(logged_in.insert(dispatch.shard())),
                Event::Lifecycle(Lifecycle::AllReady { shards, .. }) => expected = Some(*shards),
                _ => {}
            }
        }
        running.drain().await;
        running
    }

    /// Reads until everything that the simulator has sent has arrived.
    async fn drain(&mut self) {
        while self.simulator.delivery().delivered < self.simulator.delivery().sent {
            drop(self.next().await);
        }
    }

    /// Returns the next event; a dispatch is also reported to the simulator.
    pub async fn next(&mut self) -> Delivery {
        let event = timeout(PATIENCE, self.events.next()).await.expect("an event arrives in time");
        let event = event.expect("the manager is running");
        self.observe(&event);
        event
    }

    fn observe(&self, event: &Event) {
        if let Event::Dispatch(dispatch) = event {
            self.simulator.observe(dispatch.shard().0, dispatch.name(), dispatch.data());
        }
    }

    /// Reads until a lifecycle change matches, and returns it.
    pub async fn until(&mut self, mut matches: impl FnMut(&Lifecycle) -> bool) -> Lifecycle {
        let reading = async {
            loop {
                if let Event::Lifecycle(lifecycle) = &*self.next().await
                    && matches(lifecycle)
                {
                    return lifecycle.clone();
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("arrives in time")
    }

    /// Reads until a change of this shard matches, and returns it.
    pub async fn until_shard(&mut self, shard: u32, mut matches: impl FnMut(&Change) -> bool) -> Change {
        let found = self
            .until(|lifecycle| match lifecycle {
                Lifecycle::Shard { shard: ShardId(id), change, .. } => *id == shard && matches(change),
                _ => false,
            })
            .await;
        match found {
            Lifecycle::Shard { change, .. } => change,
            _ => unreachable!("only a shard's change matches"),
        }
    }

    /// Reads until the shard has resumed; returns how many dispatches were replayed.
    pub async fn until_resumed(&mut self, shard: u32) -> u64 {
        match self.until_shard(shard, |change| matches!(change, Change::Resumed { .. })).await {
            Change::Resumed { replayed } => replayed,
            _ => unreachable!("only a resume matches"),
        }
    }

    /// Reads until everything that the simulator sent has arrived, and checks that no event was lost,
    /// duplicated or out of order, and no rule broken.
    pub async fn check(&mut self) {
        self.simulator.stop_traffic();
        self.drain().await;
        let delivery = self.simulator.delivery();
        assert_eq!((delivery.lost, delivery.duplicated, delivery.out_of_order), (0, 0, 0), "{delivery:?}");
        self.no_violations();
    }

    /// Checks that the simulator has seen no broken rule and no ignored advice.
    pub fn no_violations(&self) {
        // In real time a shard may take longer than a window until its Hello, and then other shards identify
        // before it.
        let in_order = ROUND.try_with(|_| ()).is_err();
        no_violations_except(&self.simulator, if in_order { &[] } else { &["GW-171"] });
    }
}

/// Checks that the simulator has seen no violation, and no ignored advice except that of these rules.
pub fn no_violations_except(simulator: &Simulator, advice: &[&str]) {
    let report = simulator.report();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    let ignored = report.notices.iter().filter(|notice| !advice.contains(&notice.rule));
    assert_eq!(ignored.collect::<Vec<_>>(), [] as [&Violation; 0]);
}
