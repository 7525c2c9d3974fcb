//! Shared by the tests with other libraries: a simulator on a TCP port, and a record of what a library
//! received.
//!
//! twilight and serenity are used unchanged from the registry. Both work with Discord, so a payload that
//! their models reject, or a login that does not end in READY, counts as the simulator's mistake until shown
//! otherwise. Time is real and short, because a paused clock does not work with TCP.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use shardkeeper_sim::{ConnectFault, Fault, Mix, Report, SimConfig, Simulator};
use tokio::sync::watch;
use tokio::time::timeout;

/// Far longer than any step takes. Both libraries wait 5 s between two Identify, whatever the simulator's
/// window is.
const PATIENCE: Duration = Duration::from_secs(90);

/// A simulator on loopback with two guilds per shard, whose timing suits libraries with fixed waits.
pub async fn simulator(shards: u32) -> Simulator {
    simulator_of(shards, Mix::Busy).await
}

/// The same with another mix of events.
pub async fn simulator_of(shards: u32, mix: Mix) -> Simulator {
    simulator_at(shards, mix, 500.0).await
}

async fn simulator_at(shards: u32, mix: Mix, events_per_second: f64) -> Simulator {
    let mut config = SimConfig::default();
    config.seed = 7;
    config.token = "sim-token".to_owned();
    config.mix = mix;
    config.shards = shards;
    config.max_concurrency = shards.clamp(4, 16);
    config.guilds = shards * 2;
    config.events_per_second = events_per_second;
    // 30 heartbeats per minute leave enough of the limit of 120 commands.
    config.timings.heartbeat_interval = Duration::from_secs(2);
    config.timings.identify_window = Duration::from_millis(200);
    Simulator::bind(config, ([127, 0, 0, 1], 0).into()).await.expect("a port is free")
}

/// Waits until the simulator's report matches.
pub async fn until(simulator: &Simulator, what: &str, predicate: impl FnMut(&Report) -> bool) {
    if timeout(PATIENCE, simulator.wait_until(predicate)).await.is_err() {
        panic!("not in time: {what}; {:#?}", simulator.report());
    }
}

/// What a library received.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The number of each event that the models accepted, without RESUMED.
    pub events: BTreeMap<String, u64>,
    /// The number of RESUMED.
    pub resumed: u64,
    /// The payloads that the models rejected or did not know, with the reason.
    pub refused: Vec<String>,
    /// Whether the library has given up, so that no more events will come.
    pub over: bool,
}

impl Heard {
    /// The number of all events without RESUMED, which the simulator does not count either.
    pub fn total(&self) -> u64 {
        self.events.values().sum()
    }

    /// The number of one event.
    pub fn count(&self, event: &str) -> u64 {
        self.events.get(event).copied().unwrap_or_default()
    }
}

/// A record of what a library received, shared by the test and the tasks that listen.
#[derive(Debug, Default)]
pub struct Ears(watch::Sender<Heard>);

impl Ears {
    /// Records an event that the models accepted.
    pub fn took(&self, event: &str) {
        self.0.send_modify(|heard| match event {
            "RESUMED" => heard.resumed += 1,
            _ => *heard.events.entry(event.to_owned()).or_default() += 1,
        });
    }

    /// Records a payload that the models rejected.
    pub fn refused(&self, error: &dyn Debug, payload: &str) {
        let start: String = payload.chars().take(4_000).collect();
        self.0.send_modify(|heard| heard.refused.push(format!("{error:?} in {start}")));
    }

    /// Records that the library has given up.
    pub fn over(&self) {
        self.0.send_modify(|heard| heard.over = true);
    }

    /// Waits until the library has given up.
    async fn until_over(&self) {
        // The result is a lock guard, which is dropped at once; the sender lives as long as `self`.
        let _ = self.0.subscribe().wait_for(|heard| heard.over).await;
    }

    /// What was received so far.
    pub fn heard(&self) -> Heard {
        self.0.borrow().clone()
    }

    /// Waits until the record matches, and returns it. A rejected payload ends the test at once.
    pub async fn until(&self, what: &str, mut predicate: impl FnMut(&Heard) -> bool) -> Heard {
        let mut changes = self.0.subscribe();
        let waiting = changes.wait_for(|heard| !heard.refused.is_empty() || predicate(heard));
        // The result is a lock guard, which must be dropped before the next access.
        let in_time = timeout(PATIENCE, waiting).await.is_ok();
        let heard = self.heard();
        assert!(heard.refused.is_empty(), "refused: {}", heard.refused.join("\n"));
        assert!(in_time, "not in time: {what}; {heard:#?}");
        heard
    }

    /// Lets events come until `count` more were received, and everything that was sent.
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

/// A fault that a bot has to handle.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// On the present connection.
    Live(Fault),
    /// On the next connection, after the present one was cut.
    Resuming(ConnectFault),
    /// On the next connection, after the session was ended.
    Identifying(ConnectFault),
}

/// Tests a bot of one shard with every fault, each with its own simulator and bot, all in parallel. Whatever
/// the bot does, Discord must not punish it. `guilty` are the rules that this library really breaks: Discord
/// would answer them as the simulator does.
pub async fn through_every_fault<B>(guilty: &[&str], start: impl AsyncFn(Simulator) -> (Arc<Ears>, B)) {
    let connect = ConnectFault::every();
    let on_connect =
        connect.iter().flat_map(|fault| [Trouble::Resuming(*fault), Trouble::Identifying(*fault)]);
    let troubles: Vec<Trouble> = Fault::every().into_iter().map(Trouble::Live).chain(on_connect).collect();
    let start = &start;
    let each = troubles.iter().map(|trouble| async move {
        // All simulators share one machine, so each sends few events.
        let simulator = simulator_at(1, Mix::Busy, 5.0).await;
        let (ears, _bot) = start(simulator.clone()).await;
        simulator.start_traffic();
        if let Trouble::Resuming(fault) | Trouble::Identifying(fault) = *trouble {
            simulator.arm(fault, 1);
        }
        let fault = match *trouble {
            Trouble::Live(fault) => fault,
            Trouble::Resuming(_) => Fault::Cut,
            Trouble::Identifying(_) => Fault::InvalidSession { resumable: false },
        };
        let before = simulator.report();
        simulator.inject(0, fault).expect("the shard is there");
        let settled = timeout(PATIENCE, settle(&simulator, &ears, *trouble, &before)).await;
        let report = simulator.report();
        simulator.shutdown();
        let late = settled.is_err().then(|| format!("{trouble:?}: it does not settle: {report:#?}"));
        let violations = report.violations.iter().filter(|violation| !guilty.contains(&violation.rule));
        violations.map(|violation| format!("{trouble:?}: {violation}")).chain(late).collect::<Vec<_>>()
    });
    let wrong: Vec<String> = join_all(each).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Waits until the bot has handled a fault: it has connected again, or has stayed on this connection for
/// several heartbeats, or has given up. Then waits for some more heartbeats, which are judged too.
async fn settle(simulator: &Simulator, ears: &Ears, trouble: Trouble, before: &Report) {
    let is_next = |report: &Report| report.connections > before.connections;
    let stays = |report: &Report| report.heartbeats >= before.heartbeats + 5;
    let settling = async {
        // A library without a time limit of its own waits forever when nothing comes.
        if let Trouble::Resuming(fault) | Trouble::Identifying(fault) = trouble
            && matches!(fault, ConnectFault::Hang | ConnectFault::NoHello)
        {
            return simulator.wait_until(is_next).await;
        }
        let is_back = |report: &Report| is_next(report) && report.ready_sessions > 0;
        if let Trouble::Live(Fault::StallReading) = trouble {
            // The same holds for a library that waits for the answer to its close frame: 8 s of events, the
            // time of four heartbeats.
            let is_past = |report: &Report| report.sent >= before.sent + 40;
            return simulator.wait_until(|report| is_back(report) || is_past(report)).await;
        }
        simulator.wait_until(|report| is_back(report) || stays(report)).await;
        let heartbeats = simulator.report().heartbeats;
        simulator.wait_until(|report| report.heartbeats >= heartbeats + 2).await;
    };
    tokio::select! {
        () = settling => {}
        () = ears.until_over() => {}
    }
}

/// Checks that the simulator has seen no violation.
pub fn no_violations(simulator: &Simulator) {
    let violations = simulator.report().violations;
    assert!(violations.is_empty(), "{violations:#?}");
}
