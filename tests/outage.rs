//! Outages of the whole network, in virtual time: number of attempts, number of log lines, and recovery.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Once};
use std::time::Duration;

use shardkeeper::Lifecycle;
use shardkeeper::status::{Change, Next, Reason};
use shardkeeper_sim::{Action, ConnectFault, Fault, Host, SimConfig};
use shardkeeper_tests::{Dial, Network, Running, Weather, bot, no_violations_except, simulator};
use tokio::time::{Instant, timeout};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    /// Counts log lines of shardkeeper's own crates at level info and above. Each test has its own thread.
    static LINES: Cell<usize> = const { Cell::new(0) };
}

struct CountLines;

impl Subscriber for CountLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && !metadata.target().starts_with("shardkeeper_sim")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        LINES.set(LINES.get() + 1);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn count_lines() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(CountLines).unwrap());
    LINES.set(0);
}

const IN_TROUBLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}";
const PAGE: &str = "HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 28\r\n\r\n<html>Error 502 here</html>\n";

/// A bot with this many shards, all ready, on a network that the test controls. Its sessions live for an
/// hour.
async fn start(shards: u32) -> (Running, Network) {
    start_with(shards, |_| {}).await
}

async fn start_with(shards: u32, configure: impl FnOnce(&mut SimConfig)) -> (Running, Network) {
    count_lines();
    let simulator = simulator(shards, |config| {
        config.max_concurrency = shards;
        config.guilds = 0;
        config.timings.session_lifetime = Duration::from_secs(3600);
        (config.identify_total, config.identify_remaining) = (4000, 4000);
        configure(config);
    });
    let network = Network::new(&simulator);
    let builder = bot(&simulator).dialer(Arc::new(network.clone()));
    let running = Running::start_with(simulator, builder).await;
    // Wait until as many connects as at the beginning are allowed at once.
    tokio::time::sleep(Duration::from_secs(2)).await;
    network.take_dials();
    (running, network)
}

fn cut_all(running: &Running) {
    running.simulator.act(&Action::Fault { shard: None, fault: Fault::Cut }).unwrap();
}

/// Reads events until this time.
async fn read_until(running: &mut Running, end: Instant) -> Vec<(Instant, Lifecycle)> {
    let mut reported = Vec::new();
    while let Ok(event) = tokio::time::timeout_at(end, running.next()).await {
        reported.extend(event.lifecycle().map(|lifecycle| (Instant::now(), lifecycle.clone())));
    }
    reported
}

/// Reads events until this many shards are ready again.
async fn read_until_back(running: &mut Running, shards: u32) -> Vec<(Instant, Lifecycle)> {
    let mut reported = Vec::new();
    let mut back = 0;
    while back < shards {
        let event = timeout(Duration::from_secs(24 * 3600), running.next()).await.unwrap();
        let Some(lifecycle) = event.lifecycle() else { continue };
        back += u32::from(matches!(
            lifecycle,
            Lifecycle::Shard { change: Change::Ready | Change::Resumed { .. }, .. }
        ));
        reported.push((Instant::now(), lifecycle.clone()));
    }
    reported
}

/// The largest number of attempts within any second.
fn most_in_a_second(dials: &[Dial]) -> usize {
    let within = |(place, first): (usize, &Dial)| {
        dials[place..].iter().take_while(|dial| dial.at - first.at < Duration::from_secs(1)).count()
    };
    dials.iter().enumerate().map(within).max().unwrap_or_default()
}

fn to_gateway(dials: &[Dial]) -> Vec<Dial> {
    dials.iter().filter(|dial| dial.host != "sim.invalid").cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn gw_138_153_ten_minutes_without_a_network_cost_no_identify_and_no_storm() {
    let (mut running, network) = start(100).await;
    let start = Instant::now();
    cut_all(&running);
    let mut reported = Vec::new();
    let mut seasons = Vec::new();
    for weather in
        [Weather::NoNames, Weather::Cut, Weather::Answers(IN_TROUBLE), Weather::Answers(PAGE), Weather::Hangs]
    {
        network.set_weather(weather);
        let before = LINES.get();
        let end = Instant::now() + Duration::from_secs(120);
        reported.extend(read_until(&mut running, end).await);
        let dials = network.take_dials();
        seasons.push((weather, to_gateway(&dials).len(), dials.len(), LINES.get() - before));
        assert!(most_in_a_second(&dials) <= 101, "{weather:?}");
    }
    network.set_weather(Weather::Fine);
    let end = Instant::now();
    assert_eq!(end - start, Duration::from_secs(600));
    let reported_back = read_until_back(&mut running, 100).await;
    let took = end.elapsed();
    let dials = to_gateway(&network.take_dials());
    // One attempt of each shard per half minute, and more in the first minute, when the waits are shorter.
    let tries: usize = seasons.iter().map(|season| season.1).sum();
    assert!(tries <= 100 * 26, "{tries} connections tried");
    let asked: usize = seasons.iter().map(|season| season.2 - season.1).sum();
    assert!(asked <= 11, "the API was asked {asked} times");
    // Each attempt logs three lines: the connect, its failure, and the next attempt.
    assert!(LINES.get() <= 3 * tries + 3000, "{} lines", LINES.get());
    reported.extend(reported_back);
    assert!(!reported.iter().any(|(_, lifecycle)| matches!(lifecycle, Lifecycle::Crashed { .. })));
    eprintln!(
        "ten minutes without a network: {tries} connections tried, the API asked {asked} times, {} lines logged, all back \
         after {took:.1?}",
        LINES.get()
    );
    // The longest wait is a minute, and an attempt without an answer ends after ten seconds.
    assert!(took <= Duration::from_secs(72), "{took:?}");
    assert!(most_in_a_second(&dials) <= 15, "they come back one by one: {}", most_in_a_second(&dials));
    let report = running.simulator.report();
    assert_eq!((report.identifies, report.resumes), (100, 100));
    check(&mut running).await;
}

/// Checks that every shard continued where it was, and that no rule was broken except for the URL of some
/// resumes.
async fn check(running: &mut Running) {
    running.simulator.emit(0, 50);
    while running.simulator.delivery().delivered < running.simulator.delivery().sent {
        drop(running.next().await);
    }
    let delivery = running.simulator.delivery();
    assert_eq!((delivery.lost, delivery.duplicated, delivery.out_of_order), (0, 0, 0), "{delivery:?}");
    // GW-132 (resume at the session's URL): the simulator does not know that the URL was unreachable
    // (GW-139).
    no_violations_except(&running.simulator, &["GW-132"]);
}

/// When a shard lost its connection, when it announced its next attempt, and how long it then waited for its
/// turn.
#[derive(Default)]
struct Story {
    lost_at: Option<Instant>,
    waits: Duration,
    back_at: Option<Instant>,
}

#[tokio::test(start_paused = true)]
async fn gw_138_175_a_thousand_shards_cut_at_once_resume_in_turn_and_say_what_they_wait_for() {
    let (mut running, network) = start(1000).await;
    let latency = Duration::from_millis(300);
    network.set_latency(latency);
    let before = (LINES.get(), Instant::now());
    cut_all(&running);
    let reported = read_until_back(&mut running, 1000).await;
    let dials = network.take_dials();
    // Fifty at once, and then fifty per second: each takes 300 ms, and they do not wait for each other.
    assert_eq!(dials.len(), 1000);
    assert!(most_in_a_second(&dials) <= 100);
    let steady = dials.iter().position(|dial| dial.at > before.1 + Duration::from_secs(1)).unwrap();
    assert!(most_in_a_second(&dials[steady..]) <= 51);
    assert!(before.1.elapsed() <= Duration::from_millis(19_000 + 300 + 100), "{:?}", before.1.elapsed());
    // Six lines each: disconnected, connecting, paced, hello, resuming, resumed.
    assert!(LINES.get() - before.0 <= 6 * 1000, "{} lines", LINES.get() - before.0);
    let mut stories: BTreeMap<u32, Story> = BTreeMap::new();
    for (at, lifecycle) in reported {
        let Lifecycle::Shard { shard, change, .. } = lifecycle else { panic!("{lifecycle}") };
        let story = stories.entry(shard.0).or_default();
        match change {
            Change::Disconnected { reason: Reason::Lost, next: Next::Resume { after }, .. } => {
                (story.lost_at, story.waits) = (Some(at), story.waits + after);
            }
            Change::Paced { wait } => story.waits += wait,
            Change::Resumed { .. } => story.back_at = Some(at),
            _ => {}
        }
    }
    for (shard, story) in stories {
        let took = story.back_at.unwrap() - story.lost_at.unwrap();
        let expected = story.waits + latency;
        assert!(took >= expected && took <= expected + Duration::from_millis(50), "{shard}: {took:?}");
    }
    let report = running.simulator.report();
    assert_eq!((report.identifies, report.resumes), (1000, 1000));
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn gw_139_a_dead_resume_url_is_left_for_the_bootstrap_url() {
    let (mut running, network) = start(4).await;
    network.set_unreachable(Some("resume.sim.invalid"));
    let start = Instant::now();
    cut_all(&running);
    read_until_back(&mut running, 4).await;
    assert!(start.elapsed() <= Duration::from_secs(3), "{:?}", start.elapsed());
    let hosts: Vec<_> = network.take_dials().into_iter().map(|dial| dial.host).collect();
    assert_eq!(hosts.iter().filter(|host| *host == "resume.sim.invalid").count(), 4);
    assert_eq!(hosts.iter().filter(|host| *host == "gateway.sim.invalid").count(), 4);
    assert_eq!(running.simulator.report().identifies, 4);
    // After the bootstrap URL the resume URL is tried again.
    network.set_unreachable(Some("gateway.sim.invalid"));
    cut_all(&running);
    read_until_back(&mut running, 4).await;
    assert_eq!(running.simulator.report().identifies, 4);
    check(&mut running).await;
}

#[tokio::test(start_paused = true)]
async fn gw_140_149_after_an_outage_too_long_for_its_session_a_shard_identifies_when_discord_says_so() {
    let simulator = simulator(16, |config| config.max_concurrency = 16);
    let network = Network::new(&simulator);
    let builder = bot(&simulator).dialer(Arc::new(network.clone()));
    let mut running = Running::start_with(simulator, builder).await;
    cut_all(&running);
    network.set_weather(Weather::NoNames);
    let end = Instant::now() + Duration::from_secs(600);
    read_until(&mut running, end).await;
    network.set_weather(Weather::Fine);
    let reported = read_until_back(&mut running, 16).await;
    let is_reported = |(_, lifecycle): &&(Instant, Lifecycle)| {
        let invalid = Reason::InvalidSession { resumable: false };
        matches!(lifecycle, Lifecycle::Shard { change: Change::Disconnected { reason, .. }, .. } if *reason == invalid)
    };
    assert_eq!(reported.iter().filter(is_reported).count(), 16);
    // Twice the longest wait: an answer alone does not reset the waits (GW-154).
    assert!(end.elapsed() <= Duration::from_secs(60 + 60 + 6), "{:?}", end.elapsed());
    let report = running.simulator.report();
    assert_eq!((report.identifies, report.resumes_refused), (32, 16));
    no_violations_except(&running.simulator, &["GW-132"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_in_an_outage_begins_when_it_is_over() {
    for weather in [Weather::NoNames, Weather::Cut, Weather::Answers(PAGE), Weather::Hangs, Weather::Panics] {
        let simulator = simulator(2, |_| {});
        let network = Network::new(&simulator);
        network.set_weather(weather);
        let builder = bot(&simulator).dialer(Arc::new(network.clone()));
        let clearing = network.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(600)).await;
            clearing.set_weather(Weather::Fine);
        });
        let start = Instant::now();
        let running = Running::start_with(simulator, builder).await;
        assert!(start.elapsed() <= Duration::from_secs(600 + 60 + 1), "{weather:?}: {:?}", start.elapsed());
        assert!(network.take_dials().len() <= 26 + 2, "{weather:?}");
        running.no_violations();
    }
}

/// Faults of a host where nothing works, without any error message.
const BROKEN: [ConnectFault; 8] = [
    ConnectFault::Refuse,
    ConnectFault::Hang,
    ConnectFault::Status { status: 502 },
    ConnectFault::RetryLater { status: 503, seconds: 20 },
    ConnectFault::NoHello,
    ConnectFault::ReconnectInsteadOfHello,
    ConnectFault::CloseInsteadOfHello { code: 1001 },
    ConnectFault::NoReady,
];

fn break_host(running: &Running, host: Host, fault: ConnectFault, lasts: Duration) {
    let lasts_ms = lasts.as_millis().try_into().unwrap();
    running.simulator.act(&Action::Host { host, fault, lasts_ms }).unwrap();
}

#[tokio::test(start_paused = true)]
async fn gw_091_092_094_a_brownout_that_answers_every_resume_with_a_close_costs_no_identify() {
    for code in [1000, 1001, 1011, 1012, 4000, 4002, 4005, 4008] {
        for left in [4000, 160] {
            let (mut running, network) = start_with(100, |config| config.identify_remaining = left).await;
            let brownout = Duration::from_secs(10);
            break_host(&running, Host::Any, ConnectFault::CloseResume { code }, brownout);
            let begin = Instant::now();
            cut_all(&running);
            read_until_back(&mut running, 100).await;
            let took = begin.elapsed();
            let report = running.simulator.report();
            assert_eq!((report.identifies, report.resumes), (100, 100), "{code}");
            // The fourth wait, which begins within the ten seconds, lasts 8 to 16 s; then the shards connect
            // one by one.
            assert!(took > brownout && took <= Duration::from_secs(10 + 16 + 2), "{code}: {took:?}");
            let dials = to_gateway(&network.take_dials());
            assert!(dials.len() <= 100 * 6, "{code}: {} dials", dials.len());
            eprintln!(
                "a brownout of 10 s with {code}, {left} identifies left: {} dials, {} identifies, all back after {took:.1?}",
                dials.len(),
                report.identifies - 100
            );
            running.check().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn gw_139_a_host_at_which_nothing_works_costs_its_shard_a_minute_and_no_session() {
    for fault in BROKEN.into_iter().chain([ConnectFault::CloseResume { code: 1012 }]) {
        let (mut running, network) = start_with(4, |config| config.resume_hosts = 1000).await;
        let of_shard_2 =
            running.simulator.sessions().into_iter().find(|session| session.shard_id == 2).unwrap();
        let day = Duration::from_secs(24 * 3600);
        break_host(&running, Host::Resume(of_shard_2.session % 1000), fault, day);
        let broken = format!("resume-{}.sim.invalid", of_shard_2.session % 1000);
        for round in 0..3 {
            let begin = Instant::now();
            cut_all(&running);
            read_until_back(&mut running, 4).await;
            // A Resume without an answer takes a minute, and five that are closed at once take half a minute.
            assert!(begin.elapsed() <= Duration::from_secs(75), "{fault:?}: {:?}", begin.elapsed());
            let dials = to_gateway(&network.take_dials());
            let (there, elsewhere): (Vec<_>, Vec<_>) = dials.iter().partition(|dial| dial.host == broken);
            assert!((1..=5).contains(&there.len()), "{fault:?}, {round}: {} dials", there.len());
            let at_bootstrap = elsewhere.iter().filter(|dial| dial.host == "gateway.sim.invalid").count();
            assert_eq!((at_bootstrap, elsewhere.len()), (1, 4), "{fault:?}, {round}");
            // Wait until the waits between attempts are short again, for the next round.
            let end = Instant::now() + Duration::from_secs(120);
            read_until(&mut running, end).await;
        }
        let report = running.simulator.report();
        assert_eq!((report.identifies, report.resumes), (4, 12), "{fault:?}");
        running.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn gw_132_each_shard_resumes_at_the_url_of_its_own_session() {
    let (mut running, network) = start_with(8, |config| config.resume_hosts = u64::MAX).await;
    for _ in 0..3 {
        cut_all(&running);
        read_until_back(&mut running, 8).await;
        let mut hosts: Vec<_> = network.take_dials().into_iter().map(|dial| dial.host).collect();
        hosts.sort();
        hosts.dedup();
        assert_eq!(hosts.len(), 8, "{hosts:?}");
        assert!(hosts.iter().all(|host| host.starts_with("resume-")), "{hosts:?}");
    }
    running.check().await;
}

#[tokio::test(start_paused = true)]
async fn gw_002_103_139_when_no_host_works_for_hours_all_are_tried_and_the_session_is_let_go() {
    for fault in BROKEN {
        let (mut running, network) = start(4).await;
        let hours = Duration::from_secs(6 * 3600);
        break_host(&running, Host::Any, fault, hours);
        let end = Instant::now() + hours;
        cut_all(&running);
        let reported = read_until(&mut running, end).await;
        let let_go = reported.iter().filter(|(_, lifecycle)| {
            let Lifecycle::Shard { change: Change::Disconnected { reason, next, .. }, .. } = lifecycle else {
                return false;
            };
            !matches!(reason, Reason::InvalidSession { .. }) && matches!(next, Next::Identify { .. })
        });
        let first = let_go.clone().next().unwrap().0 - (end - hours);
        assert!((900..900 + 150).contains(&first.as_secs()), "{fault:?}: {first:?}");
        let dials = network.take_dials();
        let count = |host: &str| dials.iter().filter(|dial| dial.host == host).count();
        assert!(count("resume.sim.invalid") >= 4 && count("gateway.sim.invalid") >= 4 * 30, "{fault:?}");
        assert!(to_gateway(&dials).len() <= 4 * 6 * 130, "{fault:?}: {} dials in six hours", dials.len());
        // If this URL sends no Hello, the API is asked for another one.
        let answers = matches!(fault, ConnectFault::NoReady);
        assert!(answers || count("sim.invalid") >= 100, "{fault:?}: {}", count("sim.invalid"));
        assert!(count("sim.invalid") <= 6 * 60 + 2, "{fault:?}: {}", count("sim.invalid"));
        let begin = Instant::now();
        read_until_back(&mut running, 4).await;
        assert!(begin.elapsed() <= Duration::from_secs(600 + 123), "{fault:?}: {:?}", begin.elapsed());
        assert_eq!(running.simulator.report().violations, [], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_asks_for_patience_gets_it() {
    let (mut running, network) = start(4).await;
    let fault = ConnectFault::RetryLater { status: 429, seconds: 90 };
    break_host(&running, Host::Any, fault, Duration::from_secs(60));
    let begin = Instant::now();
    cut_all(&running);
    read_until_back(&mut running, 4).await;
    let took = begin.elapsed();
    assert!((90..=92).contains(&took.as_secs()), "{took:?}");
    assert_eq!(to_gateway(&network.take_dials()).len(), 8, "one refused, and one that works");
    assert_eq!(running.simulator.report().identifies, 4);
    check(&mut running).await;
}
