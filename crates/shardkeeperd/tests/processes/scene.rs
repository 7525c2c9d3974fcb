//! A simulated Discord with a faulty network, `shardkeeperd run` in one process after another, and a check of
//! what they recorded.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use shardkeeper_sim::{SimConfig, Simulator, Traces};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::proxy::Proxy;
use crate::support::{Directory, LOOPBACK, PATIENCE, Running, shardkeeperd};

pub(crate) const TOKEN: &str = "sim-token";
/// The bits of all intents.
pub(crate) const INTENTS: &str = "53608447";
/// How often a file is read while waiting for a change.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) struct Scene {
    pub(crate) simulator: Simulator,
    pub(crate) proxy: Proxy,
    pub(crate) book: Book,
    directory: Directory,
    shards: u32,
    trust: Option<String>,
}

impl Scene {
    pub(crate) async fn new(name: &str, shards: u32, events_per_second: f64) -> Self {
        Self::build(name, shards, events_per_second, |_| {}, false).await
    }

    /// The events are the same in the sessions of all layouts, so that a reshard can be judged.
    pub(crate) async fn moving(name: &str, shards: u32, events_per_second: f64) -> Self {
        let configure = |config: &mut SimConfig| {
            config.traces = Traces::World { repeating: Vec::new() };
            config.max_concurrency = 16;
        };
        Self::build(name, shards, events_per_second, configure, false).await
    }

    /// Uses TLS, which is needed to detect bytes changed on the way.
    pub(crate) async fn with_tls(name: &str, shards: u32, events_per_second: f64) -> Self {
        Self::build(name, shards, events_per_second, |_| {}, true).await
    }

    async fn build(
        name: &str,
        shards: u32,
        events_per_second: f64,
        configure: impl FnOnce(&mut SimConfig),
        tls: bool,
    ) -> Self {
        let directory = Directory::new(name);
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let mut config = SimConfig::default();
        config.token = TOKEN.to_owned();
        config.shards = shards;
        config.max_concurrency = shards.min(250);
        config.identify_total = shards * 2 + 100;
        config.identify_remaining = config.identify_total;
        config.guilds = shards * 2;
        config.events_per_second = events_per_second;
        config.replay_limit = 1 << 20;
        // A short heartbeat interval, so that a silently lost connection is noticed soon.
        config.timings.heartbeat_interval = Duration::from_secs(2);
        config.timings.heartbeat_tolerance = Duration::from_secs(4);
        config.public_addr = Some(listener.local_addr().unwrap());
        configure(&mut config);
        let (simulator, trust) = if tls {
            let (simulator, certificate) = Simulator::bind_tls(config, LOOPBACK).await.unwrap();
            let file = directory.file("sim.pem");
            std::fs::write(&file, certificate).unwrap();
            (simulator, Some(file))
        } else {
            (Simulator::bind(config, LOOPBACK).await.unwrap(), None)
        };
        let proxy = Proxy::start(listener, simulator.addr().unwrap());
        let book = Book::new(directory.file("events"));
        Self { simulator, proxy, book, directory, shards, trust }
    }

    /// The path of a file in this scene's directory.
    pub(crate) fn file(&self, name: &str) -> String {
        self.directory.file(name)
    }

    /// The path of the session store. Only one process at a time can open it.
    pub(crate) fn store(&self) -> String {
        self.file("sessions")
    }

    fn command(&self, record: &str) -> Command {
        let (api_url, store) = (self.simulator.api_url(), self.store());
        let mut command = shardkeeperd(&["run", "--api-url", &api_url, "--intents", INTENTS]);
        command.args(["--store", &store, "--record", record]).env("DISCORD_TOKEN", TOKEN);
        if let Some(file) = &self.trust {
            command.args(["--trust", file]);
        }
        command
    }

    /// Starts the next process.
    pub(crate) fn start(&self) -> Running {
        Running::spawn(self.command(&self.book.path))
    }

    /// Starts the next process in another environment.
    pub(crate) fn start_with(&self, prepare: impl FnOnce(&mut Command)) -> Running {
        let mut command = self.command(&self.book.path);
        prepare(&mut command);
        Running::spawn(command)
    }

    /// Starts the next process, which records to another file.
    pub(crate) fn start_recording_to(&self, file: &str) -> Running {
        Running::spawn(self.command(file))
    }

    /// Starts the next process with a disk that can be filled. Its record is a pipe, which the returned task
    /// copies to the file.
    pub(crate) fn start_on_small_disk(&self) -> (Running, JoinHandle<()>) {
        // Ignore SIGXFSZ, which would kill the process; the test is about the write error.
        let command = self.command("/dev/stdout");
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
        shell.arg(command.as_std().get_program()).args(command.as_std().get_args());
        shell.env_remove("RUST_LOG").env("DISCORD_TOKEN", TOKEN);
        shell.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut running = Running::spawn(shell);
        let mut output = running.child.stdout.take().unwrap();
        let mut record = OpenOptions::new().append(true).open(&self.book.path).unwrap();
        let copying = tokio::spawn(async move {
            let mut bytes = Vec::new();
            while output.read_buf(&mut bytes).await.unwrap() > 0 {
                record.write_all(&bytes).unwrap();
                bytes.clear();
            }
        });
        (running, copying)
    }

    /// Limits each file of the process to this many bytes from now on.
    pub(crate) async fn limit_disk(&self, running: &Running, bytes: &str) {
        let id = running.child.id().expect("the process runs").to_string();
        let limit = format!("--fsize={bytes}:");
        assert!(Command::new("prlimit").args(["--pid", &id, &limit]).status().await.unwrap().success());
    }

    /// Waits until every shard of a process was ready; returns how long it took.
    pub(crate) async fn ready(&self, running: &mut Running) -> Duration {
        let before = Instant::now();
        running.until(&format!("all {} shards of generation 1 are ready", self.shards)).await;
        before.elapsed()
    }

    /// Waits until this many more events are recorded.
    pub(crate) async fn until_recorded(&mut self, more: usize) {
        let (goal, deadline) = (self.book.seen.len() + more, Instant::now() + PATIENCE);
        while self.book.seen.len() < goal {
            assert!(Instant::now() < deadline, "{} of {goal}", self.book.seen.len());
            sleep(LOOK_EVERY).await;
            self.book.read(&self.simulator);
        }
    }

    /// Waits until every shard is connected with a session.
    pub(crate) async fn until_connected(&self) {
        let shards = u64::from(self.shards);
        let connected = self.simulator.wait_until(|report| report.ready_sessions == shards);
        tokio::time::timeout(PATIENCE, connected).await.expect("the shards reconnect in time");
    }

    /// Waits until everything that was sent is recorded, and checks that no event was lost or out of order
    /// and no rule broken.
    pub(crate) async fn settle(&mut self) {
        self.settle_but_for("").await;
    }

    /// The same as [`settle`](Self::settle), except for one rule that cannot hold in this test.
    pub(crate) async fn settle_but_for(&mut self, rule: &str) {
        self.simulator.stop_traffic();
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.book.read(&self.simulator);
            let delivery = self.simulator.delivery();
            if delivery.delivered == delivery.sent {
                break;
            }
            assert!(Instant::now() < deadline, "{delivery:?}");
            sleep(LOOK_EVERY).await;
        }
        let delivery = self.simulator.delivery();
        assert_eq!((delivery.lost, delivery.duplicated, delivery.out_of_order), (0, 0, 0), "{delivery:?}");
        let report = self.simulator.report();
        // GW-132: a Resume goes to the URL of its session. When the network lets nothing through, a shard
        // also tries the bootstrap URL (GW-139), and the simulator does not know that the network failed.
        let advice = report.notices.iter().filter(|notice| notice.rule != "GW-132");
        let blamed: Vec<_> = report.violations.iter().chain(advice).collect();
        assert!(blamed.iter().all(|violation| violation.rule == rule), "{blamed:?}");
    }
}

impl Scene {
    /// Waits until the sessions that have a connection are those of a layout of this many shards. A killed
    /// process may have left others, which expire.
    pub(crate) async fn until_shards(&self, count: u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sessions = self.simulator.sessions().into_iter();
            let connected: Vec<_> = sessions.filter(|session| session.connected).collect();
            let is_whole = connected.len() == count as usize
                && connected.iter().all(|session| session.shard_count == count);
            if is_whole {
                return;
            }
            assert!(Instant::now() < deadline, "{connected:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until everything that happened is recorded, and checks that no event was lost, out of order or
    /// doubled without a mark, over the sessions of all layouts, and no rule broken.
    pub(crate) async fn settle_over_all_sessions(&mut self) {
        self.simulator.stop_traffic();
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.book.read(&self.simulator);
            let verdict = self.simulator.world_delivery();
            if verdict.is_flawless() && verdict.happened > 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{verdict:?}");
            sleep(LOOK_EVERY).await;
        }
        // GW-170 (pace of Identify): a process that is killed right after an Identify has not stored when that
        // was.
        let violations = self.simulator.report().violations;
        assert!(violations.iter().all(|violation| violation.rule == "GW-170"), "{violations:?}");
    }
}

/// Stops a process with SIGTERM, and returns its log.
pub(crate) async fn deploy(running: Running) -> String {
    running.signal("TERM").await;
    let before = Instant::now();
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(before.elapsed() < Duration::from_secs(11), "{:?}", before.elapsed());
    log
}

/// Kills a process with SIGKILL, as the system does when memory runs out.
pub(crate) async fn kill(mut running: Running) {
    running.child.kill().await.unwrap();
}

/// The record of all processes, read while it grows.
pub(crate) struct Book {
    path: String,
    offset: u64,
    /// The bytes of an incomplete line.
    rest: Vec<u8>,
    seen: HashSet<(u32, String)>,
    /// How many events were recorded again.
    pub(crate) repeated: u64,
    /// How many lines a killed process left incomplete.
    pub(crate) torn: u64,
}

#[derive(Deserialize)]
struct Line<'a> {
    shard: u32,
    sequence: u64,
    name: &'a str,
    replayed: bool,
    may_repeat: bool,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Traced {
    _trace: Vec<String>,
}

impl Book {
    fn new(path: String) -> Self {
        Self { path, offset: 0, rest: Vec::new(), seen: HashSet::new(), repeated: 0, torn: 0 }
    }

    pub(crate) fn read(&mut self, simulator: &Simulator) {
        let Ok(mut file) = File::open(&self.path) else { return };
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        self.offset += file.read_to_end(&mut self.rest).unwrap() as u64;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return };
        let rest = self.rest.split_off(end + 1);
        for line in std::mem::replace(&mut self.rest, rest).split(|byte| *byte == b'\n') {
            if !line.is_empty() {
                self.note(line, simulator);
            }
        }
    }

    fn note(&mut self, line: &[u8], simulator: &Simulator) {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else {
            self.torn += 1;
            return;
        };
        if line.name == "RESUMED" {
            return;
        }
        let trace = serde_json::from_str::<Traced>(line.data.get()).unwrap()._trace.swap_remove(0);
        if trace.starts_with("world:") {
            // The simulator judges what comes twice, since another shard may have brought it.
            self.seen.insert((0, trace));
            let marked = line.replayed || line.may_repeat;
            return simulator.observe_event(line.name, line.data.get().as_bytes(), marked);
        }
        if self.seen.insert((line.shard, trace)) {
            simulator.observe(line.shard, line.name, line.data.get().as_bytes());
        } else {
            assert!(
                line.replayed,
                "{} {} of shard {} came again, and does not say so",
                line.name, line.sequence, line.shard
            );
            self.repeated += 1;
        }
    }
}
