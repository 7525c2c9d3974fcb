//! Every compression with every encoding, through every fault: ready again, nothing lost, no rule broken.

use std::time::Duration;

use shardkeeper::{Change, Compression, Encoding, Lifecycle};
use shardkeeper_sim::{Action, Fault};
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

/// What becomes of a shard.
#[derive(Clone, Copy, PartialEq)]
enum After {
    /// It goes on as if nothing had been.
    Nothing,
    Resume,
    /// A session of its own ends, and another one begins.
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
    // Followed by a cut, since a silent shard comes back of itself only when Discord lets it.
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
    for (compression, encoding) in WIRES {
        for (fault, after) in FAULTS {
            survives(compression, encoding, fault, after).await;
        }
    }
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
        assert_eq!(json, etf);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_to_which_nothing_comes_any_more_is_told() {
    let mut running = Running::start(simulator(3, |_| {})).await;
    running.simulator.start_traffic();
    let twenty_minutes = tokio::time::Instant::now() + Duration::from_secs(1200);
    while tokio::time::Instant::now() < twenty_minutes {
        drop(running.next().await);
    }
    running.simulator.act(&Action::Fault { shard: Some(1), fault: Fault::Silence }).unwrap();
    let told = running.until(|lifecycle| matches!(lifecycle, Lifecycle::Silent { .. })).await;
    let Lifecycle::Silent { shard, quiet_for } = &told else { unreachable!("just matched") };
    assert_eq!(shard.0, 1);
    assert!((60..120).contains(&quiet_for.as_secs()), "{quiet_for:?}");
    running.no_violations();
}
