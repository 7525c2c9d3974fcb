//! A simulated Discord behind a network, `shardkeeperd run` in process after process, and the books of what came.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use shardkeeper_sim::{SimConfig, Simulator};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::proxy::Proxy;
use crate::support::{Directory, LOOPBACK, PATIENCE, Running, shardkeeperd};

pub(crate) const TOKEN: &str = "sim-token";
/// Every intent.
pub(crate) const INTENTS: &str = "53608447";
/// So often a file is looked at that is waited for.
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
        Self::build(name, shards, events_per_second, false).await
    }

    /// With TLS, which alone can tell a byte that was changed on the way.
    pub(crate) async fn with_tls(name: &str, shards: u32, events_per_second: f64) -> Self {
        Self::build(name, shards, events_per_second, true).await
    }

    async fn build(name: &str, shards: u32, events_per_second: f64, tls: bool) -> Self {
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
        // So that what is silently gone is noticed soon.
        config.timings.heartbeat_interval = Duration::from_secs(2);
        config.timings.heartbeat_tolerance = Duration::from_secs(4);
        config.public_addr = Some(listener.local_addr().unwrap());
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

    /// The file with this name.
    pub(crate) fn file(&self, name: &str) -> String {
        self.directory.file(name)
    }

    /// The store of the processes. One at a time can open it.
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

    /// The next process.
    pub(crate) fn start(&self) -> Running {
        Running::spawn(self.command(&self.book.path))
    }

    /// The next process, in another environment.
    pub(crate) fn start_with(&self, prepare: impl FnOnce(&mut Command)) -> Running {
        let mut command = self.command(&self.book.path);
        prepare(&mut command);
        Running::spawn(command)
    }

    /// The next process, which records elsewhere.
    pub(crate) fn start_recording_to(&self, file: &str) -> Running {
        Running::spawn(self.command(file))
    }

    /// The next process, whose disk can be filled; and what copies its record, which is no file.
    pub(crate) fn start_on_small_disk(&self) -> (Running, JoinHandle<()>) {
        // The signal would kill it; what is tested is the error.
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

    /// From now on the process can write so many bytes of each file.
    pub(crate) async fn limit_disk(&self, running: &Running, bytes: &str) {
        let id = running.child.id().expect("it runs").to_string();
        let limit = format!("--fsize={bytes}:");
        assert!(Command::new("prlimit").args(["--pid", &id, &limit]).status().await.unwrap().success());
    }

    /// Waits until every shard of a process was ready; how long it took.
    pub(crate) async fn ready(&self, running: &mut Running) -> Duration {
        let before = Instant::now();
        running.until(&format!("all {} shards of generation 1 are ready", self.shards)).await;
        before.elapsed()
    }

    /// Waits until so many more events are recorded.
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
        tokio::time::timeout(PATIENCE, connected).await.expect("they come back");
    }

    /// Waits until everything that was sent is recorded, and checks that nothing was lost, out of order, or against a rule.
    pub(crate) async fn settle(&mut self) {
        self.settle_but_for("").await;
    }

    /// As [`settle`](Self::settle), when this rule cannot be kept.
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
        // GW-132: a Resume goes to the URL of its session. A network that lets nobody through makes a shard try the bootstrap URL in
        // turn (GW-139), and the simulator does not know of the network.
        let advice = report.notices.iter().filter(|notice| notice.rule != "GW-132");
        let blamed: Vec<_> = report.violations.iter().chain(advice).collect();
        assert!(blamed.iter().all(|violation| violation.rule == rule), "{blamed:?}");
    }
}

/// Ends a process in order, and returns its log.
pub(crate) async fn deploy(running: Running) -> String {
    running.signal("TERM").await;
    let before = Instant::now();
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(before.elapsed() < Duration::from_secs(11), "{:?}", before.elapsed());
    log
}

/// Ends a process as the machine's memory being short would.
pub(crate) async fn kill(mut running: Running) {
    running.child.kill().await.unwrap();
}

/// The record of all processes, read as it grows.
pub(crate) struct Book {
    path: String,
    offset: u64,
    /// What is not a whole line yet.
    rest: Vec<u8>,
    seen: HashSet<(u32, String)>,
    /// Events that came again.
    pub(crate) repeated: u64,
    /// Lines that a killed process left incomplete.
    pub(crate) torn: u64,
}

#[derive(Deserialize)]
struct Line<'a> {
    shard: u32,
    sequence: u64,
    name: &'a str,
    replayed: bool,
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
