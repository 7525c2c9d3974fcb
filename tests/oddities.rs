//! A gateway's oddities are logged once for all shards, and the reasons of lost connections as warnings.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use shardkeeper::status::Change;
use shardkeeper_sim::{Action, ConnectFault, Fault, Odd};
use shardkeeper_tests::{Running, simulator};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Collects the warnings of shardkeeper's own crates.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && !metadata.target().starts_with("shardkeeper_sim")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = String::new();
        event.record(&mut Fields(&mut line));
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Warnings {
    fn with(&self, words: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }
}

#[tokio::test(start_paused = true)]
async fn an_oddity_that_every_shard_meets_is_one_line() {
    for (odd, words) in [
        (Odd::TextFrames, "payloads come uncompressed"),
        (Odd::BinaryFrames, "payloads come uncompressed"),
        (Odd::SomeUnnumbered, "without a sequence number"),
        (Odd::ReadyUnnumbered, "without a sequence number"),
        (Odd::ReadyWithoutUrl, "no usable resume_gateway_url"),
        (Odd::ReadyOddShard, "the shard in READY cannot be read"),
        (Odd::TwoInOne, "several payloads come in one message"),
    ] {
        let log = Warnings::default();
        let _guard = tracing::subscriber::set_default(log.clone());
        let simulator = simulator(4, |_| {});
        simulator.arm(ConnectFault::Odd(odd), 1000);
        let mut running = Running::start(simulator).await;
        for shard in 0..4 {
            running.simulator.emit(shard, 20);
        }
        running.simulator.act(&Action::Fault { shard: None, fault: Fault::Cut }).unwrap();
        for shard in 0..4 {
            running.until_resumed(shard).await;
        }
        assert_eq!(log.with(words), 1, "{odd:?}: {:?}", log.0.lock().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_usual_is_no_warning() {
    let log = Warnings::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let running = Running::start(simulator(1, |_| {})).await;
    running.simulator.emit(0, 20);
    assert_eq!(*log.0.lock().unwrap(), [""; 0]);
    drop(running.keeper.detach().await);
}

#[tokio::test(start_paused = true)]
async fn a_warning_names_the_cause_and_the_reason_of_an_end() {
    let log = Warnings::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let mut running = Running::start(simulator(1, |_| {})).await;
    for (fault, words) in [
        (Fault::Close { code: 4000 }, r#"closed by discord with 4000 (unknown error): "fault""#),
        (
            Fault::Corrupt,
            "received something unreadable: the peer's compressed stream cannot be inflated: corrupt compressed data",
        ),
    ] {
        running.simulator.inject(0, fault).unwrap();
        running.until_shard(0, |change| matches!(change, Change::Disconnected { .. })).await;
        assert_eq!(log.with(words), 1, "{:?}", log.0.lock().unwrap());
        running.until_resumed(0).await;
    }
}
