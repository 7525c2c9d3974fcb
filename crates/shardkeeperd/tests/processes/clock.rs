//! A wall clock that jumps, for one process only, through `libfaketime`.
//!
//! Without that library (package `faketime` in Debian and other distributions) these tests print a note and
//! pass. If the library is in an unusual place, `SHARDKEEPER_FAKETIME` names its file; then a missing file is
//! an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shardkeeper::store::{FileStore, SessionStore, Stored};
use shardkeeper_sim::ConnectFault;
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until};

use crate::scene::{LOOK_EVERY, Scene, deploy, kill};
use crate::support::{PATIENCE, Running};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const SHARDS: u32 = 2;

/// The wall clock of the processes started with it. Their monotonic clock, and so every timer, is not
/// changed.
struct Clock {
    library: PathBuf,
    setting: String,
    /// The started processes. A killed process leaves shared memory of the library behind, which has to be
    /// removed.
    processes: Vec<u32>,
}

impl Clock {
    /// Creates a clock; `None` without the library.
    fn new(setting: String) -> Option<Self> {
        let Some(library) = library() else {
            eprintln!("skipped, since libfaketime is missing: install the package `faketime`");
            return None;
        };
        let clock = Self { library, setting, processes: Vec::new() };
        clock.set(0);
        Some(clock)
    }

    /// Sets the clock this many seconds ahead of the machine's.
    fn set(&self, ahead: i64) {
        // Renaming replaces the file in one step: the processes read it each time they ask for the time.
        let new = format!("{}.new", self.setting);
        fs::write(&new, format!("{ahead:+}")).unwrap();
        fs::rename(new, &self.setting).unwrap();
    }

    fn give(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.setting);
        command.envs(
            ["FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "NO_FAKE_STAT"].map(|name| (name, "1")),
        );
    }

    /// Starts the next process of the scene with this clock.
    fn start(&mut self, scene: &Scene) -> Running {
        let running = scene.start_with(|command| self.give(command));
        self.processes.extend(running.child.id());
        running
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        for process in &self.processes {
            for name in ["sem.faketime_sem", "faketime_shm"] {
                let _ = fs::remove_file(format!("/dev/shm/{name}_{process}"));
            }
        }
    }
}

fn library() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SHARDKEEPER_FAKETIME") {
        let named = PathBuf::from(named);
        assert!(
            named.is_file(),
            "SHARDKEEPER_FAKETIME={}: there is no such file; install the package `faketime`",
            named.display()
        );
        return Some(named);
    }
    let debian = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    [&debian, "/usr/lib64", "/usr/lib"]
        .map(|directory| Path::new(directory).join("faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|file| file.is_file())
}

async fn scene(name: &str) -> Option<(Scene, Clock)> {
    let scene = Scene::new(name, SHARDS, 200.0).await;
    let clock = Clock::new(scene.file("clock"))?;
    Some((scene, clock))
}

/// Reads what the last process stored. Call it only between two processes.
async fn stored(scene: &Scene) -> Stored {
    FileStore::open(scene.store()).unwrap().load().await.unwrap()
}

/// How far ahead of the machine's clock the sessions were stored, in seconds.
async fn stored_ahead(scene: &Scene) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let last = stored(scene).await.sessions.iter().map(|record| record.stored_at_ms as i64).max();
    (last.unwrap() - now) / 1000
}

/// The time of the last log line, in seconds since midnight.
fn logged_at(running: &Running) -> i64 {
    let line = running.seen.lines().last().unwrap();
    let clock = line.split('T').nth(1).unwrap().get(..8).unwrap();
    clock.split(':').fold(0, |sum, part| sum * 60 + part.parse::<i64>().unwrap())
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_and_back_under_a_running_process_is_not_noticed() {
    let Some((mut scene, mut clock)) = scene("clock-running").await else { return };
    let mut running = clock.start(&scene);
    scene.ready(&mut running).await;
    let mut before = logged_at(&running);
    scene.simulator.start_traffic();
    for (ahead, by) in [(2 * HOUR, 2 * HOUR), (0, -2 * HOUR)] {
        scene.until_recorded(200).await;
        clock.set(ahead);
        // Cutting the connections writes a line to the log, and makes the shards connect again.
        scene.proxy.cut();
        let resumed = Instant::now();
        for _ in 0..SHARDS {
            running.until("resumed").await;
        }
        assert!(resumed.elapsed() < Duration::from_secs(10), "{:?}", resumed.elapsed());
        let after = logged_at(&running);
        let off = (after - before - by).rem_euclid(24 * HOUR);
        assert!(off < MINUTE, "{before} {after}: the log is {by} s ahead");
        before = after;
        // Wait for more than two heartbeats.
        let (beats, deadline) = (scene.simulator.report().heartbeats, Instant::now() + PATIENCE);
        while scene.simulator.report().heartbeats < beats + 3 * u64::from(SHARDS) {
            assert!(Instant::now() < deadline, "{}", running.seen);
            sleep(LOOK_EVERY).await;
        }
    }
    scene.settle().await;
    deploy(running).await;
    let report = scene.simulator.report();
    assert_eq!((report.identifies, report.resumes), (2, 4));
    assert_eq!(scene.book.repeated, 0);
}

#[derive(PartialEq)]
enum End {
    Killed,
    Detached,
}

/// Runs one process with one clock, and the next one with another.
async fn between(name: &str, end: End, (before, after): (i64, i64)) -> Option<(Scene, Clock, Running)> {
    let (mut scene, mut clock) = scene(name).await?;
    clock.set(before);
    let mut running = clock.start(&scene);
    scene.ready(&mut running).await;
    scene.simulator.start_traffic();
    scene.until_recorded(300).await;
    match end {
        End::Killed => kill(running).await,
        End::Detached => drop(deploy(running).await),
    }
    let ahead = stored_ahead(&scene).await;
    assert!((before - MINUTE..=before).contains(&ahead), "{ahead} s ahead, not {before} s");
    clock.set(after);
    let running = clock.start(&scene);
    Some((scene, clock, running))
}

/// Checks that the sessions are resumed as if the clock had not jumped.
async fn resumes(name: &str, end: End, (before, after): (i64, i64)) {
    let killed = end == End::Killed;
    let Some((mut scene, _clock, mut running)) = between(name, end, (before, after)).await else { return };
    scene.ready(&mut running).await;
    scene.until_recorded(100).await;
    scene.settle().await;
    deploy(running).await;
    let report = scene.simulator.report();
    assert_eq!((report.identifies, report.resumes), (2, 2));
    assert!(killed || scene.book.repeated == 0, "{}", scene.book.repeated);
}

#[tokio::test]
async fn a_clock_that_jumps_back_between_processes_costs_no_session() {
    resumes("clock-back", End::Killed, (HOUR, 0)).await;
}

#[tokio::test]
async fn a_clock_that_jumps_minutes_ahead_between_processes_costs_no_session() {
    resumes("clock-minutes", End::Detached, (0, 20 * MINUTE)).await;
}

#[tokio::test]
async fn a_clock_that_jumps_back_between_processes_holds_up_no_identify_for_longer_than_a_window() {
    let Some((mut scene, mut clock)) = scene("clock-identify").await else { return };
    clock.set(HOUR);
    let mut running = clock.start(&scene);
    scene.ready(&mut running).await;
    deploy(running).await;
    let budget = stored(&scene).await.budget.unwrap();
    clock.set(0);
    scene.simulator.arm(ConnectFault::RefuseResume, SHARDS as usize);
    running = clock.start(&scene);
    let took = scene.ready(&mut running).await;
    // The resume takes up to 5 s each for op 9 and the identify window.
    assert!(took < Duration::from_secs(20), "{took:?}, {budget:?}");
    scene.settle().await;
    deploy(running).await;
    assert_eq!(scene.simulator.report().identifies, 4);
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_of_what_sessions_live_costs_an_identify_each_and_no_more() {
    let Some((mut scene, mut clock)) = scene("clock-hours").await else { return };
    let mut running = clock.start(&scene);
    scene.ready(&mut running).await;
    let ready = Instant::now();
    scene.simulator.start_traffic();
    scene.until_recorded(300).await;
    // No traffic from here on: events that Discord keeps for a session that is never resumed would be lost.
    scene.settle().await;
    // A window that runs while the clock jumps is cut short, which no process can notice, so wait for its
    // end.
    sleep_until(ready + Duration::from_secs(5)).await;
    kill(running).await;
    clock.set(2 * HOUR);
    running = clock.start(&scene);
    let took = scene.ready(&mut running).await;
    assert!(took < Duration::from_secs(20), "{took:?}");
    let reason = "the stored session is 72";
    assert!(running.seen.contains(reason), "{}", running.seen);
    scene.settle().await;
    deploy(running).await;
    assert!(stored_ahead(&scene).await >= 2 * HOUR - MINUTE);
    // Setting the clock back to the right time must not cost an Identify either.
    clock.set(0);
    running = clock.start(&scene);
    scene.ready(&mut running).await;
    deploy(running).await;
    let report = scene.simulator.report();
    assert_eq!((report.identifies, report.resumes), (4, 2));
}

#[tokio::test]
async fn a_clock_that_jumps_over_quiet_sessions_does_not_make_them_old() {
    let Some((mut scene, mut clock)) = scene("clock-quiet").await else { return };
    let mut running = clock.start(&scene);
    scene.ready(&mut running).await;
    scene.settle().await;
    // Long enough for several saves, after which everything is stored.
    sleep(Duration::from_secs(1)).await;
    clock.set(2 * HOUR);
    deploy(running).await;
    running = clock.start(&scene);
    scene.ready(&mut running).await;
    scene.settle().await;
    deploy(running).await;
    let report = scene.simulator.report();
    assert_eq!((report.identifies, report.resumes), (2, 2));
}
