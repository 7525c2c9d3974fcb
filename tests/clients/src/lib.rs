//! What the tests with other people's libraries share: a simulator on a TCP port, and a note of what a library heard.
//!
//! twilight and serenity come from the registry as they are. Both run on Discord, so a payload that their models
//! refuse, or a login that does not end in READY, is the simulator's mistake until shown otherwise. Time is real
//! here, and short: a paused clock does not go with TCP.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use shardkeeper_sim::{Mix, Report, SimConfig, Simulator};
use tokio::sync::watch;
use tokio::time::timeout;

/// Both libraries wait 5 s between two Identify, whatever the simulator's window is; and machines may be slow.
const PATIENCE: Duration = Duration::from_secs(90);

/// A simulator on loopback, two guilds per shard, whose clock suits libraries with clocks of their own.
pub async fn simulator(shards: u32) -> Simulator {
    simulator_of(shards, Mix::Busy).await
}

/// The same, with other events.
pub async fn simulator_of(shards: u32, mix: Mix) -> Simulator {
    let mut config = SimConfig::default();
    config.seed = 7;
    config.token = "sim-token".to_owned();
    config.mix = mix;
    config.shards = shards;
    config.max_concurrency = shards.clamp(4, 16);
    config.guilds = shards * 2;
    config.events_per_second = 500.0;
    // 30 heartbeats per minute leave enough of the 120 commands for the rest.
    config.timings.heartbeat_interval = Duration::from_secs(2);
    config.timings.identify_window = Duration::from_millis(200);
    Simulator::bind(config, ([127, 0, 0, 1], 0).into()).await.expect("a port is free")
}

/// Waits until the simulator's report is as the test wants it.
pub async fn until(simulator: &Simulator, what: &str, predicate: impl FnMut(&Report) -> bool) {
    if timeout(PATIENCE, simulator.wait_until(predicate)).await.is_err() {
        panic!("not in time: {what}; {:#?}", simulator.report());
    }
}

/// What a library made of the dispatches.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// How many of each event its models took, RESUMED apart.
    pub events: BTreeMap<String, u64>,
    /// How many RESUMED.
    pub resumed: u64,
    /// What its models refused or did not know, and why.
    pub refused: Vec<String>,
}

impl Heard {
    /// All events, RESUMED apart; the simulator counts them likewise.
    pub fn total(&self) -> u64 {
        self.events.values().sum()
    }

    /// How many of one event.
    pub fn count(&self, event: &str) -> u64 {
        self.events.get(event).copied().unwrap_or_default()
    }
}

/// A note of what a library heard, for the test that waits and the tasks that listen.
#[derive(Debug, Default)]
pub struct Ears(watch::Sender<Heard>);

impl Ears {
    /// An event that the models took.
    pub fn took(&self, event: &str) {
        self.0.send_modify(|heard| match event {
            "RESUMED" => heard.resumed += 1,
            _ => *heard.events.entry(event.to_owned()).or_default() += 1,
        });
    }

    /// A payload that they did not take.
    pub fn refused(&self, error: &dyn Debug, payload: &str) {
        let start: String = payload.chars().take(4_000).collect();
        self.0.send_modify(|heard| heard.refused.push(format!("{error:?} in {start}")));
    }

    /// What was heard so far.
    pub fn heard(&self) -> Heard {
        self.0.borrow().clone()
    }

    /// Waits until enough was heard, and returns it. A refused payload ends the test at once.
    pub async fn until(&self, what: &str, mut predicate: impl FnMut(&Heard) -> bool) -> Heard {
        let mut changes = self.0.subscribe();
        let waiting = changes.wait_for(|heard| !heard.refused.is_empty() || predicate(heard));
        // What it returns is a lock, to be let go before the next look.
        let in_time = timeout(PATIENCE, waiting).await.is_ok();
        let heard = self.heard();
        assert!(heard.refused.is_empty(), "refused: {}", heard.refused.join("\n"));
        assert!(in_time, "not in time: {what}; {heard:#?}");
        heard
    }

    /// Lets traffic run until `count` more events were heard, and everything that was sent.
    pub async fn until_traffic(&self, simulator: &Simulator, count: u64) -> Heard {
        let goal = self.heard().total() + count;
        simulator.start_traffic();
        self.until("traffic", |heard| heard.total() >= goal).await;
        simulator.stop_traffic();
        let sent = simulator.report().sent;
        let heard = self.until("everything sent", |heard| heard.total() >= sent).await;
        assert_eq!(heard.total(), sent, "something came twice");
        heard
    }
}

/// Checks that the simulator has seen no rule broken.
pub fn no_violations(simulator: &Simulator) {
    let violations = simulator.report().violations;
    assert!(violations.is_empty(), "{violations:#?}");
}
