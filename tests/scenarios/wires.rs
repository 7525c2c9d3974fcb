//! Every compression with every encoding and every fault: ready again, no event lost, no rule broken.

use std::time::Duration;

use shardkeeper::Lifecycle;
use shardkeeper::config::{Compression, Encoding};
use shardkeeper::status::Change;
use shardkeeper_sim::{Action, ConnectFault, Fault, Odd};
use shardkeeper_tests::{Running, bot, simulator};

const WIRES: [(Compression, Encoding); 7] = [
    (Compression::None, Encoding::Json),
    (Compression::ZlibStream, Encoding::Json),
    (Compression::ZstdStream, Encoding::Json),
    (Compression::Payload, Encoding::Json),
    (Compression::None, Encoding::Etf),
    (Compression::ZlibStream, Encoding::Etf),
    (Compression::ZstdStream, Encoding::Etf),
];

/// What happens to the shard after a fault.
#[derive(Clone, Copy, PartialEq)]
enum After {
    /// The shard continues without a change.
    Nothing,
    Resume,
    /// The session ends, and another one begins.
    Identify,
}

const FAULTS: [(Fault, After); 22] = [
    (Fault::StopAcking, After::Resume),
    (Fault::Reconnect, After::Resume),
    (Fault::InvalidSession { resumable: true }, After::Resume),
    (Fault::InvalidSession { resumable: false }, After::Identify),
    (Fault::Close { code: 1000 }, After::Resume),
    (Fault::Close { code: 4000 }, After::Resume),
    (Fault::Close { code: 4003 }, After::Identify),
    (Fault::Close { code: 4007 }, After::Identify),
    (Fault::Close { code: 4009 }, After::Identify),
    (Fault::Cut, After::Resume),
    (Fault::HalfOpen, After::Resume),
    (Fault::Corrupt, After::Resume),
    (Fault::Truncate, After::Resume),
    (Fault::StallReading, After::Resume),
    (Fault::RequestHeartbeat, After::Nothing),
    (Fault::SlowWriting { bytes_per_second: 50_000 }, After::Nothing),
    (Fault::Duplicate { count: 10 }, After::Nothing),
    (Fault::Reorder, After::Nothing),
    (Fault::Gap { count: 1000 }, After::Nothing),
    (Fault::Huge { bytes: 3 << 20 }, After::Nothing),
    (Fault::Odd, After::Nothing),
    // A cut follows: heartbeats are acknowledged during the silence, so the shard cannot notice it.
    (Fault::Silence, After::Resume),
];

async fn survives(compression: Compression, encoding: Encoding, fault: Fault, after: After) {
    let simulator = simulator(1, |config| {
        config.split_suffix = true;
        config.mixed_atoms = true;
        config.max_concurrency = 1;
    });
    let builder = bot(&simulator).compression(compression).encoding(encoding);
    let mut running = Running::start_with(simulator, builder).await;
    running.simulator.emit(0, 20);
    running.simulator.inject(0, fault).unwrap();
    running.simulator.emit(0, 20);
    if fault == Fault::Silence {
        running.simulator.inject(0, Fault::Cut).unwrap();
    }
    match after {
        After::Nothing => {}
        After::Resume => {
            running.until_resumed(0).await;
        }
        After::Identify => {
            running.until_shard(0, |change| matches!(change, Change::Ready)).await;
        }
    }
    running.simulator.emit(0, 20);
    running.check().await;
    let report = running.simulator.report();
    let expected = match after {
        After::Nothing => (1, 0),
        After::Resume => (1, 1),
        After::Identify => (2, 0),
    };
    assert_eq!((report.identifies, report.resumes), expected, "{compression:?} {encoding:?} {fault:?}");
    assert_eq!(report.ready_sessions, 1, "{compression:?} {encoding:?} {fault:?}");
    assert_eq!(report.notices, [], "{compression:?} {encoding:?} {fault:?}");
}

#[tokio::test(start_paused = true)]
async fn every_compression_and_encoding_survives_every_fault() {
    // The rules at stake. The simulator reports every violation that is visible in URLs, frames and payloads:
    //
    // - GW-010, GW-012: every URL has `v` and `encoding`, and a Resume has the query of its session.
    // - GW-014: the message of 3 MiB is accepted. GW-021: so are unknown fields, events and opcodes.
    // - GW-040: at most one compression. GW-043: each new connection has a new inflate context.
    // - GW-053: after corrupt data the shard reconnects and resumes.
    // - GW-100, GW-101: a close has a code from 4000 on. GW-118: no heartbeat is too early.
    // - GW-130, GW-132: after each fault that allows it the shard resumes, at the URL of the session.
    for (compression, encoding) in WIRES {
        for (fault, after) in FAULTS {
            survives(compression, encoding, fault, after).await;
        }
    }
}

/// Reads until everything that was sent has arrived.
async fn caught_up(running: &mut Running) {
    while running.simulator.delivery().delivered < running.simulator.delivery().sent {
        drop(running.next().await);
    }
}

/// Reads until a dispatch with a sequence number of its own, so that a resume continues exactly after it.
async fn until_numbered(running: &mut Running) {
    let mut last = u64::MAX;
    loop {
        running.simulator.emit(0, 1);
        let sequence = loop {
            if let shardkeeper::Event::Dispatch(dispatch) = &*running.next().await {
                break dispatch.sequence();
            }
        };
        if std::mem::replace(&mut last, sequence) < sequence {
            return;
        }
    }
}

/// Checks a gateway that differs from Discord's on every connection: the shard becomes ready, resumes after a
/// cut, and no event is lost or duplicated.
async fn puts_up_with(compression: Compression, encoding: Encoding, odd: Odd) {
    let case = format!("{compression:?} {encoding:?} {odd:?}");
    let simulator = simulator(1, |config| config.max_concurrency = 1);
    // No client can continue after these two, so they happen only once.
    let times = if matches!(odd, Odd::HelloUseless | Odd::ReadyOtherShard) { 1 } else { 1000 };
    simulator.arm(ConnectFault::Odd(odd), times);
    let builder = bot(&simulator).compression(compression).encoding(encoding);
    let starting = Running::start_with(simulator.clone(), builder);
    let starting = tokio::time::timeout(Duration::from_secs(600), starting).await;
    let mut running = starting.unwrap_or_else(|_| panic!("{case}: {:?}", simulator.report()));
    running.simulator.emit(0, 20);
    caught_up(&mut running).await;
    until_numbered(&mut running).await;
    running.simulator.inject(0, Fault::Cut).unwrap();
    let resuming = tokio::time::timeout(Duration::from_secs(600), running.until_resumed(0)).await;
    assert!(resuming.is_ok(), "{case}: {:?}", simulator.report());
    running.simulator.emit(0, 20);
    caught_up(&mut running).await;
    let delivery = running.simulator.delivery();
    assert_eq!(
        (delivery.lost, delivery.duplicated, delivery.out_of_order),
        (0, 0, 0),
        "{case}: {delivery:?}"
    );
    let report = running.simulator.report();
    let identifies = if odd == Odd::ReadyOtherShard { 2 } else { 1 };
    assert_eq!((report.identifies, report.resumes), (identifies, 1), "{case}");
    assert_eq!(report.violations, [], "{case}");
    let at_bootstrap_url =
        matches!(odd, Odd::ReadyWithoutUrl | Odd::ReadyEmptyUrl | Odd::ReadyNoUrl | Odd::ReadyHttpUrl);
    let advice: Vec<_> = report.notices.iter().map(|notice| notice.rule).collect();
    assert_eq!(advice, if at_bootstrap_url { vec!["GW-132"] } else { vec![] }, "{case}");
}

#[tokio::test(start_paused = true)]
async fn every_oddity_is_put_up_with_on_every_wire() {
    for (compression, encoding) in WIRES {
        for odd in Odd::ALL {
            puts_up_with(compression, encoding, odd).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn gw_129_a_gateway_that_always_answers_as_another_shard_costs_two_identifies() {
    let simulator = simulator(1, |_| {});
    simulator.arm(ConnectFault::Odd(Odd::ReadyOtherShard), 1000);
    let builder = bot(&simulator);
    let mut events = builder.subscribe(shardkeeper::Topic::lifecycle());
    let _keeper = builder.start().await.unwrap();
    let mut reported = Vec::new();
    while let Some(event) = events.next().await {
        reported.extend(event.lifecycle().cloned());
    }
    assert!(
        matches!(&reported[..], [.., Lifecycle::Refused(refusal), Lifecycle::Ended] if refusal.code.0 == 4010),
        "{reported:?}"
    );
    let why = reported
        .iter()
        .any(|reported| reported.to_string().contains("READY is of shard [7, 16], not of [0, 1]"));
    assert!(why, "{reported:?}");
    assert_eq!(simulator.report().identifies, 2);
}

#[tokio::test(start_paused = true)]
async fn more_payloads_in_one_message_than_are_taken_cost_a_resume_and_no_event() {
    for (compression, encoding) in WIRES {
        let simulator = simulator(1, |_| {});
        simulator.arm(ConnectFault::Odd(Odd::ManyInOne), 1);
        let builder = bot(&simulator).compression(compression).encoding(encoding);
        let mut running = Running::start_with(simulator, builder).await;
        running.simulator.emit(0, 100);
        let ended = running.until_shard(0, |change| matches!(change, Change::Disconnected { .. })).await;
        let line =
            Lifecycle::Shard { shard: shardkeeper::ShardId(0), generation: 1, change: ended }.to_string();
        assert!(line.contains("more payloads in one message than are taken"), "{line}");
        running.until_resumed(0).await;
        running.check().await;
        let report = running.simulator.report();
        assert_eq!((report.identifies, report.resumes), (1, 1), "{compression:?} {encoding:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_a_close_frame_is_shown_with_its_code() {
    let mut running = Running::start(simulator(1, |_| {})).await;
    running.simulator.inject(0, Fault::Close { code: 4000 }).unwrap();
    let change = running.until_shard(0, |change| matches!(change, Change::Disconnected { .. })).await;
    let line = Lifecycle::Shard { shard: shardkeeper::ShardId(0), generation: 1, change }.to_string();
    assert!(line.contains(r#"(closed by discord with 4000 (unknown error): "fault")"#), "{line}");
    let status = running.keeper.shard_status(shardkeeper::ShardId(0)).await.unwrap();
    let last = status.last_disconnect.unwrap();
    assert_eq!((last.close_code, last.detail.as_deref()), (Some(4000), Some(r#""fault""#)));
    assert!(status.last_reason.unwrap().ends_with(r#": "fault""#));
}

#[tokio::test(start_paused = true)]
async fn events_arrive_in_the_same_form_whatever_the_encoding() {
    let mut runs = Vec::new();
    for encoding in [Encoding::Json, Encoding::Etf] {
        let simulator = simulator(1, |config| {
            config.mix = shardkeeper_sim::Mix::Everything;
            config.seed = 3;
        });
        let builder = bot(&simulator).encoding(encoding);
        let mut running = Running::start_with(simulator, builder).await;
        running.simulator.emit(0, 400);
        let mut run = Vec::new();
        while run.len() < 400 {
            if let shardkeeper::Event::Dispatch(dispatch) = &*running.next().await {
                let data: serde_json::Value = dispatch.parse().unwrap();
                run.push((dispatch.name().to_owned(), dispatch.sequence(), data));
            }
        }
        runs.push(run);
    }
    for (json, etf) in runs[0].iter().zip(&runs[1]) {
        // GW-032: snowflakes are integers in ETF and strings in JSON.
        assert_eq!(json, etf);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_to_which_nothing_comes_any_more_is_reported() {
    let mut running = Running::start(simulator(3, |_| {})).await;
    running.simulator.start_traffic();
    let twenty_minutes = tokio::time::Instant::now() + Duration::from_secs(1200);
    while tokio::time::Instant::now() < twenty_minutes {
        drop(running.next().await);
    }
    running.simulator.act(&Action::Fault { shard: Some(1), fault: Fault::Silence }).unwrap();
    let reported = running.until(|lifecycle| matches!(lifecycle, Lifecycle::Silent { .. })).await;
    let Lifecycle::Silent { shard, quiet_for, .. } = &reported else { unreachable!("just matched") };
    assert_eq!(shard.0, 1);
    assert!((60..120).contains(&quiet_for.as_secs()), "{quiet_for:?}");
    running.no_violations();
}
