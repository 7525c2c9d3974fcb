//! Supervision: every part of a bot, ended in every way, at every stage of a shard's life.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use shardkeeper::actor::{
    KeeperMessage, ManagerMessage, QueueMessage, SentinelMessage, ShardMessage, ShardReport,
};
use shardkeeper::config::RestartBy;
use shardkeeper::error::ExitReason;
use shardkeeper::status::{Change, Phase, ShardKey};
use shardkeeper::store::{Changes, MemoryStore, SessionStore, StoreError, Stored};
use shardkeeper::{Activity, Lifecycle, OnlineStatus, Presence, Session, ShardId};
use shardkeeper_sim::{ConnectFault, Fault};
use shardkeeper_tests::{Network, Running, bot, eventually, no_violations_except, service, simulator};
use tokio::time::{Instant, sleep, timeout};

/// The shard that is hit; shard 0 must not be affected.
const SHARD: u32 = 1;

/// The stage of the shard when the part ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// On a new connection before Hello, without a session.
    Connecting,
    /// After Hello, waiting for a permit.
    AwaitingPermit,
    /// Identify is sent but not answered.
    Identifying,
    /// On a new connection before Hello, with a session to resume.
    Returning,
    /// Resume is sent but not answered.
    Resuming,
    Ready,
    /// A close frame is sent but not answered.
    Closing,
}

use Moment::{AwaitingPermit, Closing, Connecting, Identifying, Ready, Resuming, Returning};

const MOMENTS: [Moment; 7] = [Connecting, AwaitingPermit, Identifying, Returning, Resuming, Ready, Closing];

impl Moment {
    fn has_session(self) -> bool {
        matches!(self, Returning | Resuming | Ready | Closing)
    }

    /// The total number of Identify, including the first one of each shard.
    fn identifies(self) -> u64 {
        match self {
            Returning | Resuming | Ready | Closing => 2,
            Connecting | AwaitingPermit => 3,
            // The interrupted Identify counts too.
            Identifying => 4,
        }
    }

    /// How long a restarted shard takes to be ready again: at once, or when its key is free.
    fn begun_again(self) -> Duration {
        if self.has_session() { Duration::from_millis(100) } else { Duration::from_millis(5400) }
    }

    /// How long an undisturbed shard takes to be ready: its own time limit, a wait, and its key's window.
    fn left_alone(self) -> Duration {
        Duration::from_secs(match self {
            Connecting => 20 + 3 + 2 + 6,
            AwaitingPermit => 6,
            Identifying => 120 + 3 + 10,
            Returning => 20 + 3 + 2,
            Resuming => 60 + 3 + 2,
            Ready => 1,
            Closing => 3 + 1,
        })
    }

    /// Brings the shard to this stage.
    async fn reach(self, running: &mut Running) {
        let simulator = running.simulator.clone();
        if self != AwaitingPermit {
            // After this wait the shard's key is free.
            sleep(Duration::from_secs(6)).await;
        }
        match self {
            Connecting | Returning => simulator.arm(ConnectFault::NoHello, 1),
            Identifying | Resuming => simulator.arm(ConnectFault::NoReady, 1),
            _ => {}
        }
        match self {
            Ready => {}
            Closing => {
                simulator.inject(SHARD, Fault::HalfOpen).unwrap();
                running.keeper.restart_shard(ShardId(SHARD), RestartBy::Resume).await.unwrap();
            }
            _ if self.has_session() => simulator.inject(SHARD, Fault::Cut).unwrap(),
            _ => simulator.inject(SHARD, Fault::Close { code: 4009 }).unwrap(),
        }
        let reported = |change: &Change| match self {
            Connecting => matches!(change, Change::Connecting { resuming: false }),
            AwaitingPermit => matches!(change, Change::Hello { .. }),
            Identifying => matches!(change, Change::Identifying),
            Returning => matches!(change, Change::Connecting { resuming: true }),
            Resuming => matches!(change, Change::Resuming { .. }),
            Ready => true,
            Closing => matches!(change, Change::Disconnected { .. }),
        };
        if self != Ready {
            running.until_shard(SHARD, reported).await;
        }
        let expected = match self {
            Connecting | Returning => Phase::Connecting,
            AwaitingPermit => Phase::AwaitingPermit,
            Identifying => Phase::Identifying,
            Resuming => Phase::Resuming,
            Ready => Phase::Ready,
            Closing => Phase::Disconnected,
        };
        eventually(async || running.keeper.shard_status(ShardId(SHARD)).await.unwrap().phase == expected)
            .await;
    }
}

/// The part that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Driver,
    Shard,
    Queue,
    Keeper,
    Sentinel,
    /// The session store, which is the bot's own code.
    Store,
    Manager,
}

/// How the part ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Panic,
    Error,
    Kill,
    Stop,
}

const ENDS: [(Part, Manner); 13] = [
    (Part::Driver, Manner::Panic),
    (Part::Shard, Manner::Error),
    (Part::Shard, Manner::Kill),
    (Part::Shard, Manner::Stop),
    (Part::Queue, Manner::Kill),
    (Part::Queue, Manner::Stop),
    (Part::Keeper, Manner::Kill),
    (Part::Keeper, Manner::Stop),
    (Part::Sentinel, Manner::Kill),
    (Part::Sentinel, Manner::Stop),
    (Part::Store, Manner::Panic),
    (Part::Manager, Manner::Kill),
    (Part::Manager, Manner::Stop),
];

/// A store that panics once on demand.
#[derive(Clone, Default)]
struct Fragile {
    store: MemoryStore,
    panics: Arc<AtomicBool>,
}

impl SessionStore for Fragile {
    fn load(&self) -> BoxFuture<'_, Result<Stored, StoreError>> {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "the store breaks down");
        self.store.load()
    }

    fn save(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "the store breaks down");
        self.store.save(changes)
    }
}

async fn strike(running: &Running, store: &Fragile, part: Part, manner: Manner) {
    let shard = running.keeper.shard(ShardId(SHARD)).await.unwrap();
    let cell = match part {
        Part::Driver => return shard.cast(ShardMessage::CrashDrill).unwrap(),
        Part::Shard if manner == Manner::Error => {
            return shard.cast(ShardMessage::DriverEnded(Err("drill".into()))).unwrap();
        }
        Part::Store => {
            store.panics.store(true, Ordering::Relaxed);
            // An event, so that there is something to save.
            return running.simulator.emit(0, 1);
        }
        Part::Shard => shard.get_cell(),
        Part::Queue => service::<QueueMessage>(&running.keeper).unwrap(),
        Part::Keeper => service::<KeeperMessage>(&running.keeper).unwrap(),
        Part::Sentinel => service::<SentinelMessage>(&running.keeper).unwrap(),
        Part::Manager => running.keeper.manager().get_cell(),
    };
    match manner {
        Manner::Kill => cell.kill(),
        _ => cell.stop(None),
    }
}

/// Reads until the end of the part is reported, and then until both shards are ready. Returns the reported
/// ends.
async fn recover(running: &mut Running, what: &str) -> Vec<String> {
    let mut reported = Vec::new();
    let reading = async {
        loop {
            let event = running.next().await;
            let Some(lifecycle) = event.lifecycle() else { continue };
            match lifecycle {
                Lifecycle::Shard { shard, .. } => assert_eq!(shard.0, SHARD, "{what}: {lifecycle}"),
                other => reported.push(other.to_string()),
            }
            drop(event);
            let status = running.keeper.status().await.unwrap();
            if !reported.is_empty() && status.shards.iter().all(|shard| shard.phase == Phase::Ready) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(600), reading).await.unwrap_or_else(|_| panic!("{what}: not ready again"));
    reported
}

/// Waits until the store holds this session of the shard, or none.
async fn until_stored(store: &Fragile, session: Option<&Session>) {
    let key = |session: &Session| (session.id.clone(), session.sequence);
    eventually(async || {
        let stored = store.store.load().await.unwrap().sessions;
        let stored = stored.iter().find(|record| record.session.shard.0 == SHARD);
        stored.map(|stored| key(&stored.session)) == session.map(key)
    })
    .await;
}

fn session_of(sessions: &[Session]) -> Option<&Session> {
    sessions.iter().find(|session| session.shard.0 == SHARD)
}

fn presence(text: &str) -> Presence {
    Presence::new(OnlineStatus::Online).activity(Activity::custom(text))
}

#[tokio::test(start_paused = true)]
async fn every_end_of_every_part_at_every_moment_costs_what_the_manual_says() {
    for (part, manner) in ENDS {
        for moment in MOMENTS {
            let what = format!("{part:?}, {manner:?}, {moment:?}");
            let simulator = simulator(2, |_| {});
            let network = Network::new(&simulator);
            let store = Fragile::default();
            let builder =
                || bot(&simulator).dialer(Arc::new(network.clone())).session_store(Arc::new(store.clone()));
            let mut running = Running::start_with(simulator.clone(), builder()).await;
            let on_it = [ShardId(SHARD)];
            running.keeper.update_presence_on(on_it, presence("before")).await.unwrap();
            running.check().await;
            moment.reach(&mut running).await;
            let before = running.keeper.sessions().await.unwrap();
            assert_eq!(session_of(&before).is_some(), moment.has_session(), "{what}");
            until_stored(&store, session_of(&before)).await;
            strike(&running, &store, part, manner).await;
            let struck = Instant::now();

            if part == Part::Manager {
                let subscribed = async { while running.events.next().await.is_some() {} };
                timeout(Duration::from_secs(1), subscribed)
                    .await
                    .unwrap_or_else(|_| panic!("{what}: still heard"));
                assert_eq!(running.keeper.exit_reason().await, ExitReason::Crashed, "{what}");
                eventually(async || network.open() == 0).await;
                network.take_dials();
                sleep(Duration::from_secs(60)).await;
                assert!(network.take_dials().is_empty(), "{what}: something goes on");
                running = Running::start_with(simulator.clone(), builder()).await;
            } else {
                // A presence that is set while the shard is down is shown after it is back.
                running.keeper.update_presence_on(on_it, presence("after")).await.unwrap();
                let reported = recover(&mut running, &what).await;
                let expected = match part {
                    Part::Driver => "shard 1: crashed (driver panicked: crash drill), back at once",
                    Part::Shard if manner == Manner::Error => {
                        "shard 1: crashed (driver panicked: drill), back at once"
                    }
                    Part::Shard if manner == Manner::Kill => "shard 1: crashed (killed), back at once",
                    Part::Shard => "shard 1: crashed (stopped), back at once",
                    Part::Queue if manner == Manner::Kill => "identify queue: crashed (killed), replaced",
                    Part::Queue => "identify queue: crashed (stopped), replaced",
                    Part::Keeper if manner == Manner::Kill => "session keeper: crashed (killed), replaced",
                    Part::Keeper => "session keeper: crashed (stopped), replaced",
                    Part::Sentinel if manner == Manner::Kill => {
                        "reshard sentinel: crashed (killed), replaced"
                    }
                    Part::Sentinel => "reshard sentinel: crashed (stopped), replaced",
                    Part::Store => "the session store failed (panicked: the store breaks down)",
                    Part::Manager => unreachable!("dealt with above"),
                };
                assert!(reported[0].starts_with(expected), "{what}: {reported:?}");
                let more: &[&str] =
                    if part == Part::Store { &["the session store works again"] } else { &[] };
                assert!(
                    reported[1..].iter().all(|line| more.contains(&line.as_str())),
                    "{what}: {reported:?}"
                );
                let allowed = match part {
                    Part::Driver | Part::Shard => moment.begun_again(),
                    _ => moment.left_alone(),
                };
                assert!(struck.elapsed() <= allowed, "{what}: {:?}", struck.elapsed());
                sleep(Duration::from_secs(25)).await;
                let shown = simulator.report().presences[&SHARD].to_string();
                assert!(shown.contains("after"), "{what}: {shown}");
            }
            // The session is the same with a higher sequence, or another one.
            simulator.emit(0, 20);
            simulator.emit(SHARD, 20);
            running.check().await;
            let after = running.keeper.sessions().await.unwrap();
            let (old, new) = (session_of(&before), session_of(&after).unwrap());
            assert_eq!(old.is_some_and(|old| old.id == new.id), moment.has_session(), "{what}");
            assert!(old.is_none_or(|old| old.sequence < new.sequence), "{what}");
            assert_eq!(simulator.report().identifies, moment.identifies(), "{what}");
            // The session is stored, also if the keeper was replaced.
            until_stored(&store, Some(new)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_incarnation_says_late_changes_nothing() {
    let mut running = Running::start(simulator(2, |_| {})).await;
    let old = running.keeper.shard(ShardId(SHARD)).await.unwrap();
    old.cast(ShardMessage::CrashDrill).unwrap();
    running.until_resumed(SHARD).await;
    let present = running.keeper.shard(ShardId(SHARD)).await.unwrap();
    assert!(old.cast(ShardMessage::Stop).is_err(), "nobody is there to be told");
    let refusal = refusal().await;
    let manager = running.keeper.manager().clone();
    let shard = ShardKey { id: ShardId(SHARD), generation: 1 };
    for incarnation in [0, 1] {
        for report in
            [ShardReport::Ended, ShardReport::Refused(refusal), ShardReport::AskGateway, ShardReport::Ready]
        {
            manager.cast(ManagerMessage::Report { shard, incarnation, report }).unwrap();
        }
        manager.cast(ManagerMessage::Restart { shard, incarnation }).unwrap();
    }
    sleep(Duration::from_secs(3600)).await;
    let status = running.keeper.status().await.unwrap();
    assert!(status.shards.iter().all(|shard| shard.phase == Phase::Ready), "{status:?}");
    assert_eq!(running.keeper.shard(ShardId(SHARD)).await.unwrap().get_id(), present.get_id());
    assert_eq!((running.simulator.report().identifies, running.simulator.report().rest_requests), (2, 1));
    assert_eq!(manager.get_cell().get_children().len(), 4, "two shards, a queue and a sentinel");
    running.check().await;
}

/// A fatal close code that ends the whole bot.
async fn refusal() -> shardkeeper::status::FatalClose {
    let running = Running::start(simulator(1, |_| {})).await;
    running.simulator.inject(0, Fault::Close { code: 4004 }).unwrap();
    match running.keeper.exit_reason().await {
        ExitReason::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_while_it_is_read_is_done_without() {
    let simulator = simulator(2, |_| {});
    let store = Fragile::default();
    store.panics.store(true, Ordering::Relaxed);
    let builder = bot(&simulator).session_store(Arc::new(store));
    let start = Instant::now();
    Running::start_with(simulator, builder).await.no_violations();
    assert!(start.elapsed() <= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn gw_166_168_shards_that_crash_after_each_identify_cannot_spend_the_budget() {
    let simulator = simulator(8, |config| {
        config.max_concurrency = 8;
        config.events_per_second = 0.1;
    });
    let network = Network::new(&simulator);
    let builder = bot(&simulator).dialer(Arc::new(network.clone())).presence(presence(&"long ".repeat(25)));
    let mut running = Running::start_with(simulator.clone(), builder).await;
    network.break_at_identify();
    for shard in 0..4 {
        simulator.inject(shard, Fault::Close { code: 4009 }).unwrap();
    }
    let end = Instant::now() + Duration::from_secs(23 * 3600);
    let mut cuts = 0;
    while Instant::now() < end {
        simulator.inject(7, Fault::Cut).unwrap();
        cuts += 1;
        let next_cut = Instant::now() + Duration::from_secs(3600);
        while tokio::time::timeout_at(next_cut, running.next()).await.is_ok() {}
    }
    let report = simulator.report();
    // 5 within a minute, and then one after 5, 10, 20 and 40 minutes and after each hour.
    let spent = report.identifies - 8;
    assert!(spent <= 4 * 31, "{spent} of four shards");
    assert!(spent >= 4 * 20, "{spent}: they are tried all the same");
    assert!(report.remaining >= 10, "{}", report.remaining);
    assert_eq!(report.resumes, cuts);
    no_violations_except(&running.simulator, &[]);
    for shard in 4..8 {
        let status = running.keeper.shard_status(ShardId(shard)).await.unwrap();
        assert_eq!((status.phase, status.identifies, status.restarts), (Phase::Ready, 1, 0));
    }
}
