//! Several processes of one bot on one machine that share the pace of Identify through files.
//!
//! The program starts itself two more times, each with other shards. All of them identify at once, but
//! [`FileGate`] ensures that two Identify of one key are never within one window.

use std::error::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{BoxFuture, try_join_all};
use shardkeeper::gate::{GateError, IdentifyGate, IdentifyPass, IdentifyRequest};
use shardkeeper::status::Change;
use shardkeeper::{Event, Intents, Lifecycle, Shardkeeper, Topic};
use shardkeeper_examples::Discord;
use tokio::process::Command;
use tokio::time::sleep;

const PROCESSES: u32 = 2;
const SHARDS: u32 = 6;

/// A gate in a directory that the processes share.
///
/// Each key has a file with the time of its last Identify. The process that locks the file has the key's
/// pass. The system releases the lock when a process dies, so a dead process never blocks a key. The order
/// among waiting processes is random. If the machine's clock is set forward within a window, that window is
/// cut short, and Discord refuses one Identify.
///
/// A local disk answers in microseconds, so file operations are not made asynchronous. Each process counts
/// the daily limit by itself: set `identify_reserve` to what the other processes need.
struct FileGate {
    directory: PathBuf,
}

impl IdentifyGate for FileGate {
    fn admit(&self, request: IdentifyRequest) -> BoxFuture<'_, Result<IdentifyPass, GateError>> {
        Box::pin(async move {
            let keys = self.directory.join("max_concurrency");
            loop {
                let mut key =
                    lock(&self.directory.join(format!("key-{}", request.key())), File::try_lock).await?;
                let last = read(&mut key)?;
                // A clock that was set back must not cause a wait longer than a window.
                let since = Duration::from_nanos(now().saturating_sub(last));
                sleep(request.window.saturating_sub(since)).await;

                // Shared by everyone who has a pass; changing the number of keys takes an exclusive lock.
                let mut shared = lock(&keys, File::try_lock_shared).await?;
                if read(&mut shared)? == u64::from(request.max_concurrency) {
                    // If this process dies with the pass, it may have identified, so the window starts now.
                    write(&mut key, now())?;
                    let pass = Pass { key, last, _keys: shared };
                    return Ok(IdentifyPass::new(move || pass.spent()));
                }
                drop((key, shared));
                let (mut keys, number) = (lock(&keys, File::try_lock).await?, request.max_concurrency.into());
                // With the exclusive lock, nobody has a pass, and after this wait no window is open. In a new
                // directory the number is 0.
                if ![0, number].contains(&read(&mut keys)?) {
                    sleep(request.window).await;
                }
                write(&mut keys, number)?;
            }
        })
    }
}

/// A pass for one key. Dropping it records when the key was last used, and unlocks the key.
struct Pass {
    key: File,
    last: u64,
    _keys: File,
}

impl Pass {
    fn spent(mut self) {
        self.last = now();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // If the write fails, the time at which the pass was granted remains in the file.
        let _ = write(&mut self.key, self.last);
    }
}

/// Tries until it gets the lock. Nothing waits inside the system, so dropping the future has no effects.
async fn lock(path: &Path, try_lock: fn(&File) -> Result<(), TryLockError>) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    loop {
        match try_lock(&file) {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(20)).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn read(file: &mut File) -> io::Result<u64> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text.trim().parse().unwrap_or(0))
}

fn write(file: &mut File, number: u64) -> io::Result<()> {
    file.rewind()?;
    // The width is constant, so that the new number overwrites all of the old one.
    write!(file, "{number:020}")
}

/// The time in nanoseconds since 1970. All processes run on one machine, so they share one clock.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(process) => run_shards(process.parse()?).await,
        None => run_processes().await,
    }
}

/// A process of the bot, with its part of the shards.
async fn run_shards(process: u32) -> Result<(), Box<dyn Error>> {
    let gate = FileGate { directory: std::env::var("GATE")?.into() };
    let part = SHARDS / PROCESSES;
    let bot = Shardkeeper::builder(std::env::var("DISCORD_TOKEN")?, Intents::GUILDS)
        .api_url(std::env::var("API_URL")?)
        .shard_ids(process * part..(process + 1) * part, SHARDS)
        .identify_gate(Arc::new(gate));
    let mut lifecycle = bot.subscribe(Topic::lifecycle());
    let bot = bot.start().await?;
    while let Some(event) = lifecycle.next().await {
        match &*event {
            Event::Lifecycle(Lifecycle::Shard {
                change: Change::Connecting { .. } | Change::Hello { .. },
                ..
            }) => {}
            Event::Lifecycle(lifecycle) => println!("process {process}: {lifecycle}"),
            _ => {}
        }
        if let Event::Lifecycle(Lifecycle::AllReady { .. }) = &*event {
            break;
        }
    }
    bot.stop().await;
    Ok(())
}

async fn run_processes() -> Result<(), Box<dyn Error>> {
    let discord = Discord::find_with(|config| config.shards = SHARDS).await?;
    // A real bot uses one fixed directory.
    let directory = std::env::temp_dir().join(format!("identify-gate-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let process = |process: u32| {
        Command::new(std::env::current_exe()?)
            .arg(process.to_string())
            .env("DISCORD_TOKEN", discord.token())
            .env("API_URL", discord.api_url())
            .env("GATE", &directory)
            .kill_on_drop(true)
            .spawn()
    };
    let mut processes = (0..PROCESSES).map(process).collect::<Result<Vec<_>, _>>()?;
    let ended = try_join_all(processes.iter_mut().map(|process| process.wait())).await;
    std::fs::remove_dir_all(&directory)?;
    if !ended?.iter().all(|status| status.success()) {
        return Err("a process failed".into());
    }
    if let Some(simulator) = discord.simulator() {
        let report = simulator.report();
        for identify in report.identify_log.iter() {
            let at = Duration::from_millis(identify.at_ms);
            println!("key {}: shard {} identified after {at:.1?}", identify.key, identify.shard_id);
        }
        if let Some(violation) = report.violations.first() {
            return Err(violation.to_string().into());
        }
        println!("the simulator found no broken rule");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs in real time, because file times are real.
    #[tokio::test]
    async fn the_gate_keeps_all_the_rules() -> Result<(), Box<dyn Error>> {
        let directory = std::env::temp_dir().join(format!("identify-gate-test-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let make = || Arc::new(FileGate { directory: directory.clone() }) as Arc<dyn IdentifyGate>;
        let checked = shardkeeper::gate::conformance::check(make, Duration::from_millis(200)).await;
        std::fs::remove_dir_all(&directory)?;
        Ok(checked?)
    }
}
