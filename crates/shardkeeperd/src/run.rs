//! `run`: runs the shards of a real bot.

use std::error::Error;
use std::fs;
use std::mem::ManuallyDrop;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::FutureExt;
use shardkeeper::config::{DISCORD_API, ReshardPolicy, TcpDialer, client_config_trusting};
use shardkeeper::store::FileStore;
use shardkeeper::{Intents, Shardkeeper, Subscription, Topic};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::chain;
use crate::intents::intents;
use crate::record::Record;
use crate::terminate::Terminate;
use crate::wire::Wire;

/// How often the log reports that the bot is running.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// The largest number of events recorded in one write.
const TAKEN_AT_ONCE: usize = 256;

#[derive(Args)]
pub(crate) struct Options {
    /// The bot's token. Prefer the environment variable: other users can see the arguments of a process.
    #[arg(long, env = "DISCORD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Which events to receive: names like GUILDS,GUILD_MESSAGES, the number of their bits, `unprivileged`,
    /// or `all`. May be repeated.
    #[arg(long, default_value = "GUILDS", value_parser = intents)]
    intents: Vec<Intents>,
    /// The URL of Discord's API, or of a proxy or simulator.
    #[arg(long, default_value = DISCORD_API)]
    api_url: String,
    /// The number of shards. Default: the number that Discord recommends. A run that can resume the sessions in
    /// --store begins with their number of shards, and reshards to this one while it runs.
    #[arg(long)]
    shards: Option<u32>,
    /// Which shards run in this process, such as 0,1 or 4-7, when other processes run the rest. Default: all.
    /// May be repeated.
    #[arg(long, value_name = "IDS", requires = "shards", value_delimiter = ',', value_parser = shard_ids)]
    shard_ids: Vec<RangeInclusive<u32>>,
    /// Whether to reshard while running when Discord recommends clearly more or fewer shards, or refuses a shard
    /// that has too many guilds. Default: off.
    #[arg(long, value_enum, value_name = "WHEN")]
    reshard: Option<Reshard>,
    /// How often Discord is asked how many shards it recommends: after a random part of the second half of this
    /// time. Default: 8 hours. At least 60.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(60..))]
    gateway_check_every: Option<u64>,
    /// How long to try to reach the gateway at the start before ending with an error. Default: no limit.
    #[arg(long, value_name = "SECONDS")]
    start_timeout: Option<u64>,
    /// The file that stores sessions, so that the next run resumes them even after a crash. Keep it secret,
    /// like the token.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// The file to which each event is appended as a line of JSON, before it is acknowledged. With --store,
    /// no event is missing. `-` is standard output.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// A PEM file with an additional trusted certificate, for example of a proxy or of the simulator.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    #[command(flatten)]
    wire: Wire,
}

#[derive(Clone, Copy, ValueEnum)]
enum Reshard {
    Auto,
    Off,
}

/// Parses one shard id, or an inclusive range of them.
fn shard_ids(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err("give shard ids or ranges of them, such as 0,1 or 4-7".to_owned()),
    }
}

pub(crate) async fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let mut terminate = Terminate::listen()?;
    let token = options
        .token
        .as_ref()
        .ok_or("DISCORD_TOKEN is not set: set it to the bot token from the developer portal")?;
    let intents = options.intents.iter().copied().collect();
    let mut builder = Shardkeeper::builder(token, intents).api_url(&options.api_url);
    builder = options.wire.apply(builder);
    if let Some(file) = &options.trust {
        let pem = fs::read(file)
            .map_err(|error| format!("cannot read the certificate {}: {error}", file.display()))?;
        let tls =
            client_config_trusting(&pem).map_err(|error| format!("{}: {}", file.display(), chain(&error)))?;
        builder = builder.dialer(Arc::new(TcpDialer::with_tls(tls)));
    }
    if let Some(shards) = options.shards {
        builder = builder.shards(shards);
        if let Some(last) = options.shard_ids.iter().map(RangeInclusive::end).max() {
            if *last >= shards {
                return Err(format!(
                    "--shard-ids names shard {last}, but with --shards {shards} the highest is {}",
                    shards.saturating_sub(1)
                )
                .into());
            }
            builder = builder.shard_ids(options.shard_ids.iter().cloned().flatten(), shards);
        }
    }
    builder = match options.reshard {
        Some(Reshard::Auto) => builder.reshard(ReshardPolicy::on()),
        Some(Reshard::Off) => builder.reshard(ReshardPolicy::off()),
        None => builder,
    };
    if let Some(seconds) = options.gateway_check_every {
        builder = builder.gateway_check_every(Duration::from_secs(seconds));
    }
    if let Some(seconds) = options.start_timeout {
        builder = builder.start_timeout(Duration::from_secs(seconds));
    }
    let record = options.record.as_deref().map(Record::open).transpose()?;
    if let Some(file) = &options.store {
        builder = builder.session_store(Arc::new(FileStore::open(file)?));
    }
    // Dispatches are enough: the log already has a line for each lifecycle change.
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
                // Events in progress are taken and acknowledged, so that the next process does not receive
                // them again.
                let detaching = async { keeper.detach().await.map_err(|error| error.to_string()) };
                let (sessions, ()) = tokio::try_join!(detaching, taker.take_all())?;
                tracing::info!(sessions = sessions.len(), dispatches = taker.dispatches, "detached");
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    keeper.wait().await?;
    Err("the bot ended without a request to stop; the log above names the reason".into())
}

/// Takes the dispatches, and acknowledges each one after it is recorded; without a record, after it is
/// counted.
struct Taker {
    /// Never dropped: dropping would acknowledge events that were not taken. The end of the process releases
    /// the subscription.
    events: ManuallyDrop<Subscription>,
    record: Option<Record>,
    dispatches: u64,
}

impl Taker {
    /// Takes at least one event and all that are ready; returns `false` at the end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: after taking an event, this does not wait any more.
    async fn take(&mut self) -> Result<bool, String> {
        let Some(first) = self.events.next().await else { return Ok(false) };
        // Not dropped after an error: an event that was not recorded must not be acknowledged.
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
