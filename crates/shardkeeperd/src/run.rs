//! `run`: the real thing.

use std::error::Error;
use std::fs;
use std::mem::ManuallyDrop;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt;
use shardkeeper::config::{DISCORD_API, TcpDialer, client_config_trusting};
use shardkeeper::store::FileStore;
use shardkeeper::{Intents, Shardkeeper, Subscription, Topic};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::chain;
use crate::intents::intents;
use crate::record::Record;
use crate::terminate::Terminate;
use crate::wire::Wire;

/// How often the log says that all is well.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// So many events are recorded in one go, if they are there.
const TAKEN_AT_ONCE: usize = 256;

#[derive(Args)]
pub(crate) struct Options {
    /// The bot's token; better set in the environment than given here, where others can see it.
    #[arg(long, env = "DISCORD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// What to receive: names like GUILDS,GUILD_MESSAGES, the number of their bits, `unprivileged`, or `all`. May be repeated.
    #[arg(long, default_value = "GUILDS", value_parser = intents)]
    intents: Vec<Intents>,
    /// The API's URL, for a proxy or a simulator.
    #[arg(long, default_value = DISCORD_API)]
    api_url: String,
    /// How many shards; without it, as many as Discord recommends.
    #[arg(long)]
    shards: Option<u32>,
    /// Which of them run here, such as 0,1 or 4-7; another process runs the others. Without it, all. May be repeated.
    #[arg(long, value_name = "IDS", requires = "shards", value_delimiter = ',', value_parser = shard_ids)]
    shard_ids: Vec<RangeInclusive<u32>>,
    /// How long the gateway may be out of reach at the start before the run ends with an error; without it, the run goes on
    /// trying.
    #[arg(long, value_name = "SECONDS")]
    start_timeout: Option<u64>,
    /// Where sessions are kept for the next run, which resumes them however this one ended. A secret, like the token.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Where each event is appended as a line of JSON, before it is acknowledged: with --store none is missing in it. `-` is
    /// standard output.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// A certificate in PEM that is trusted too: of a proxy, or of the simulator.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    #[command(flatten)]
    wire: Wire,
}

/// One id, or a range with both of its ends.
fn shard_ids(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err("give ids and ranges of them, such as 0,1 or 4-7".to_owned()),
    }
}

pub(crate) async fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let mut terminate = Terminate::listen()?;
    let token = options
        .token
        .as_ref()
        .ok_or("DISCORD_TOKEN is not set: it takes the bot token of the developer portal")?;
    let intents = options.intents.iter().copied().collect();
    let mut builder = Shardkeeper::builder(token, intents).api_url(&options.api_url);
    builder = options.wire.apply(builder);
    if let Some(file) = &options.trust {
        let pem = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let tls =
            client_config_trusting(&pem).map_err(|error| format!("{}: {}", file.display(), chain(&error)))?;
        builder = builder.dialer(Arc::new(TcpDialer::with_tls(tls)));
    }
    if let Some(shards) = options.shards {
        builder = builder.shards(shards);
        if let Some(last) = options.shard_ids.iter().map(RangeInclusive::end).max() {
            if *last >= shards {
                return Err(format!(
                    "--shard-ids names shard {last}, and --shards {shards} has none above {}",
                    shards.saturating_sub(1)
                )
                .into());
            }
            builder = builder.shard_ids(options.shard_ids.iter().cloned().flatten(), shards);
        }
    }
    if let Some(seconds) = options.start_timeout {
        builder = builder.start_timeout(Duration::from_secs(seconds));
    }
    let record = options.record.as_deref().map(Record::open).transpose()?;
    if let Some(file) = &options.store {
        builder = builder.session_store(Arc::new(FileStore::open(file)?));
    }
    // The log has a line for each lifecycle change already.
    let mut taker =
        Taker { events: ManuallyDrop::new(builder.subscribe(Topic::all())), record, dispatches: 0 };
    let keeper = tokio::select! {
        keeper = builder.start() => keeper?,
        () = terminate.wait() => return Ok(ExitCode::SUCCESS),
    };
    let mut report = interval_at(Instant::now() + REPORT_EVERY, REPORT_EVERY);
    report.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            taken = taker.take() => if !taken? { break },
            _ = report.tick() => tracing::info!(dispatches = taker.dispatches, "running"),
            () = terminate.wait() => {
                tracing::info!("detaching");
                // What is under way is taken, so that the next process does not get it again.
                let detaching = async { keeper.detach().await.map_err(|error| error.to_string()) };
                let (sessions, ()) = tokio::try_join!(detaching, taker.take_all())?;
                tracing::info!(sessions = sessions.len(), dispatches = taker.dispatches, "detached");
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    keeper.wait().await?;
    Err("the bot has ended, though nobody told it to".into())
}

/// Takes the dispatches, and acknowledges each one when it is recorded, or counted if there is no record.
struct Taker {
    /// Never dropped, for that would acknowledge what was not taken. It goes with the process.
    events: ManuallyDrop<Subscription>,
    record: Option<Record>,
    dispatches: u64,
}

impl Taker {
    /// Takes what there is, at least one; `false` at the end.
    ///
    /// # Cancel safety
    ///
    /// Safe: once it has something it does not wait.
    async fn take(&mut self) -> Result<bool, String> {
        let Some(first) = self.events.next().await else { return Ok(false) };
        // With an error it is not dropped: what was not recorded is not acknowledged.
        let mut taken = ManuallyDrop::new(vec![first]);
        while taken.len() < TAKEN_AT_ONCE
            && let Some(Some(event)) = self.events.next().now_or_never()
        {
            taken.push(event);
        }
        if let Some(record) = &mut self.record {
            record.write(&taken)?;
        }
        self.dispatches += taken.len() as u64;
        drop(ManuallyDrop::into_inner(taken));
        Ok(true)
    }

    async fn take_all(&mut self) -> Result<(), String> {
        while self.take().await? {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_ids_are_numbers_or_ranges() {
        assert_eq!(shard_ids("3"), Ok(3..=3));
        assert_eq!(shard_ids("4-7"), Ok(4..=7));
        for wrong in ["", "-", "7-4", "a", "1-", "-1", "1-2-3"] {
            assert!(shard_ids(wrong).is_err(), "{wrong}");
        }
    }
}
