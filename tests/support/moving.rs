//! A bot under load whose shards are replaced, and the verdict on what its subscriber received meanwhile.
//!
//! The simulator's events are the same in each session that receives them ([`Traces::World`]), so it can tell
//! over all layouts which events were lost, doubled or out of order.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ractor::ActorStatus;
use shardkeeper::{
    Builder, Dispatch, Event, EventName, Lifecycle, Shardkeeper, Subscription, SubscriptionOptions, Topic,
};
use shardkeeper_sim::{SimConfig, Simulator, Traces, WorldDelivery};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::PATIENCE;

/// Events that often repeat byte for byte at Discord, so that their content tells nothing about their place.
const REPEATING: [&str; 3] = ["PRESENCE_UPDATE", "MESSAGE_REACTION_ADD", "VOICE_STATE_UPDATE"];

/// Gives the simulator 400 guilds with 5,000 events per second, the same events in each layout, and an
/// identify limit that does not slow a test down.
pub fn busy(config: &mut SimConfig) {
    calm(config);
    config.guilds = 400;
    config.events_per_second = 5_000.0;
}

/// The same events in each layout, in few guilds and at a rate that costs little.
pub fn calm(config: &mut SimConfig) {
    let repeating = REPEATING.map(str::to_owned).to_vec();
    config.traces = Traces::World { repeating };
    config.guilds = 24;
    config.large_guild_members = 30;
    config.events_per_second = 100.0;
    config.max_concurrency = 16;
}

/// What a subscriber received.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tally {
    /// Dispatches, each as often as it came.
    pub dispatches: u64,
    /// Those marked as sent again by Discord after a Resume.
    pub replayed: u64,
    /// Those marked as possible repetitions, because the two layouts' streams could not be compared.
    pub guessed: u64,
    /// Those marked as the load of a new shard.
    pub warming: u64,
    /// GUILD_CREATEs without that mark.
    pub creates: u64,
    /// Events that the subscriber was told to have missed.
    pub missed: u64,
    /// The first events that came again without a mark: how they came before, and how they came again.
    pub surprises: Vec<(String, String)>,
    /// How each event came, by its trace.
    came: Came,
}

/// How each event with a trace came: its shard, sequence and marks.
#[derive(Clone, Default)]
struct Came(HashMap<Vec<u8>, String>);

impl fmt::Debug for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events", self.0.len())
    }
}

/// How many surprises a tally lists.
const LISTED: usize = 5;

impl Tally {
    fn note(&mut self, dispatch: &Dispatch, marked: bool) {
        const MARK: &[u8] = b"\"world:";
        let data = dispatch.data();
        let Some(start) = data.windows(MARK.len()).position(|window| window == MARK) else { return };
        let trace = data[start + 1..].split(|byte| *byte == b'"').next().unwrap_or_default();
        let how = format!("{dispatch:?}, repeats: {}, at {:?}", dispatch.may_repeat(), Instant::now());
        if let Some(before) = self.came.0.insert(trace.to_vec(), how.clone())
            && !marked
            && self.surprises.len() < LISTED
        {
            self.surprises.push((before, how));
        }
    }
}

/// A running bot whose subscriber reports everything to the simulator.
pub struct Moving {
    /// The simulated Discord.
    pub simulator: Simulator,
    /// The bot's handle.
    pub keeper: Shardkeeper,
    /// The lifecycle changes of the bot.
    pub lifecycle: Subscription,
    tally: Arc<Mutex<Tally>>,
    stalled: watch::Sender<bool>,
    reading: JoinHandle<()>,
}

impl Moving {
    /// Starts a bot, waits until each of its shards is ready, and starts the traffic.
    pub async fn start(simulator: &Simulator, builder: Builder) -> Self {
        Self::start_with(simulator, builder, 1 << 16).await
    }

    /// The same, with a subscriber of this capacity.
    pub async fn start_with(simulator: &Simulator, builder: Builder, capacity: usize) -> Self {
        let mut moving = Self::begin(simulator, builder, capacity).await;
        moving.until(|lifecycle| matches!(lifecycle, Lifecycle::AllReady { .. })).await;
        simulator.start_traffic();
        moving
    }

    /// Starts a bot and returns at once. The traffic is left as it is.
    pub async fn begin(simulator: &Simulator, builder: Builder, capacity: usize) -> Self {
        let options = |capacity| SubscriptionOptions { capacity, ..SubscriptionOptions::default() };
        let lifecycle = builder.subscribe_with(Topic::lifecycle(), options(1 << 16));
        let events = builder.subscribe_with(Topic::all(), options(capacity));
        let (stalled, stall) = watch::channel(false);
        let tally = Arc::<Mutex<Tally>>::default();
        let reading = tokio::spawn(read(simulator.clone(), events, Arc::clone(&tally), stall));
        let keeper = builder.start().await.expect("the bot starts");
        Self { simulator: simulator.clone(), keeper, lifecycle, tally, stalled, reading }
    }

    /// What the subscriber has received up to now.
    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Makes the subscriber stop reading, or read on.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Reads until a lifecycle change matches, and returns it.
    pub async fn until(&mut self, mut matches: impl FnMut(&Lifecycle) -> bool) -> Lifecycle {
        let reading = async {
            loop {
                let event = self.lifecycle.next().await.expect("the manager is running");
                if let Event::Lifecycle(lifecycle) = &*event
                    && matches(lifecycle)
                {
                    return lifecycle.clone();
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("the lifecycle change arrives in time")
    }

    /// Stops the traffic, and waits until the subscriber has all events or it takes too long. Returns the
    /// verdict.
    pub async fn verdict(&self) -> WorldDelivery {
        self.simulator.stop_traffic();
        let is_real = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        let deadline = Instant::now() + Duration::from_secs(if is_real { 15 } else { 300 });
        let mut wait = Duration::from_millis(20);
        loop {
            sleep(wait).await;
            let verdict = self.simulator.world_delivery();
            if verdict.lost == 0 || Instant::now() > deadline {
                // Whatever comes twice comes after the first time.
                sleep(wait).await;
                return self.simulator.world_delivery();
            }
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }

    /// Checks that each event came once and in order, apart from repetitions that were marked, and that no
    /// rule was broken. Returns what the subscriber received.
    ///
    /// # Panics
    ///
    /// When that is not so.
    pub async fn check(&self) -> Tally {
        self.check_except(&[]).await
    }

    /// The same, except for advice of these rules.
    ///
    /// # Panics
    ///
    /// When an event is lost, doubled or out of order, or a rule is broken.
    pub async fn check_except(&self, advice: &[&str]) -> Tally {
        let (verdict, tally) = (self.verdict().await, self.tally());
        assert!(verdict.is_flawless(), "{tally:?} {verdict:#?}");
        assert!(
            verdict.happened > 0 && verdict.observed + verdict.excused == verdict.happened,
            "{verdict:?}"
        );
        assert_eq!(tally.missed, 0, "{tally:?}");
        crate::no_violations_except(&self.simulator, advice);
        tally
    }

    /// Kills the process between two instructions, as SIGKILL does.
    pub async fn kill(self) -> Tally {
        let manager = self.keeper.manager().get_cell();
        let mut cells = vec![manager.clone()];
        cells.extend(manager.get_children());
        cells.iter().for_each(ractor::ActorCell::kill);
        self.reading.abort();
        while cells.iter().any(|cell| cell.get_status() != ActorStatus::Stopped) {
            sleep(Duration::from_millis(1)).await;
        }
        let _ = self.reading.await;
        // A driver may be in the middle of a step.
        sleep(Duration::from_millis(1)).await;
        lock(&self.tally).clone()
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a subscription until its end, and reports each dispatch to the simulator before it is acknowledged.
async fn read(
    simulator: Simulator,
    mut events: Subscription,
    tally: Arc<Mutex<Tally>>,
    mut stalled: watch::Receiver<bool>,
) {
    while let Some(event) = events.next().await {
        if stalled.wait_for(|stalled| !stalled).await.is_err() {
            return;
        }
        match &*event {
            Event::Dispatch(dispatch) => {
                let mut tally = lock(&tally);
                tally.dispatches += 1;
                tally.replayed += u64::from(dispatch.is_replayed());
                tally.guessed += u64::from(dispatch.may_repeat());
                tally.warming += u64::from(dispatch.is_warming());
                let is_create = dispatch.event_name() == Some(EventName::GuildCreate);
                tally.creates += u64::from(is_create && !dispatch.is_warming());
                let marked = dispatch.is_replayed() || dispatch.may_repeat();
                tally.note(dispatch, marked);
                drop(tally);
                simulator.observe_event(dispatch.name(), dispatch.data(), marked);
            }
            Event::Lagged { missed } => lock(&tally).missed += missed,
            _ => {}
        }
    }
}
