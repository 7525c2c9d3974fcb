//! No log line contains the token, a session id, or the content of an event.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use shardkeeper_sim::Fault;
use shardkeeper_tests::{Running, simulator};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Collects the log of all crates at all levels.
#[derive(Clone, Default)]
struct Everything(Arc<Mutex<String>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Fields(&mut self.0.lock().unwrap()));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, record: &Record<'_>) {
        record.record(&mut Fields(&mut self.0.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        // The simulator's own log is not checked.
        if !event.metadata().target().starts_with("shardkeeper_sim") {
            event.record(&mut Fields(&mut self.0.lock().unwrap()));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Records of the `log` crate at all levels, which a bot sees when its subscriber bridges `log`, as the usual
/// one does.
impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let _ = write!(self.0.lock().unwrap(), " {}: {}", record.target(), record.args());
    }

    fn flush(&self) {}
}

#[tokio::test(start_paused = true)]
async fn nothing_secret_is_logged_or_printed() {
    let log = Everything::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    log::set_boxed_logger(Box::new(log.clone())).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let mut running = Running::start(simulator(2, |_| {})).await;
    running.simulator.emit(0, 50);
    running.simulator.inject(0, Fault::Cut).unwrap();
    running.until_resumed(0).await;
    running.simulator.inject(1, Fault::Close { code: 4009 }).unwrap();
    running.until_shard(1, |change| matches!(change, shardkeeper::status::Change::Ready)).await;
    let printed = format!("{:?} {:?} {:?}", running.keeper, running.keeper.status().await, running.events);
    let sessions = running.keeper.detach().await.unwrap();
    let log = log.0.lock().unwrap().clone() + &printed + &format!("{sessions:?}");
    assert!(log.contains("resumed"), "something is logged: {log}");
    assert!(log.contains("tungstenite"), "records of `log` are seen: {log}");
    assert!(!log.contains("sim-token"));
    assert!(!log.contains("content"));
    assert!(!log.contains("READY"), "a frame is logged: {log}");
    for session in sessions {
        assert!(!log.contains(&session.id));
    }
}
