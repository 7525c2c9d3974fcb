//! `run`: the real thing.

use std::error::Error;
use std::fs;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt;
use shardkeeper::store::FileStore;
use shardkeeper::{
    DISCORD_API, Ended, Intents, Shardkeeper, Subscription, TcpDialer, Topic, client_config_trusting,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::chain;
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
    /// What to receive: names like GUILDS,GUILD_MESSAGES, or the number of their bits.
    #[arg(long, default_value = "GUILDS", value_parser = intents)]
    intents: Intents,
    /// The API's URL, for a proxy or a simulator.
    #[arg(long, default_value = DISCORD_API)]
    api_url: String,
    /// How many shards; without it, as many as Discord recommends.
    #[arg(long)]
    shards: Option<u32>,
    /// Where sessions are kept for the next run, which resumes them however this one ended. A secret, like the token.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Where each event is appended as a line of JSON, before it is acknowledged: with --store none is missing in it.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// A certificate in PEM that is trusted too: of a proxy, or of the simulator.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    #[command(flatten)]
    wire: Wire,
}

fn intents(text: &str) -> Result<Intents, String> {
    if let Ok(bits) = text.parse() {
        return Intents::from_bits(bits).ok_or_else(|| format!("{bits} has bits that no intent has"));
    }
    text.split(',')
        .map(str::trim)
        .map(|name| {
            Intents::from_name(&name.to_ascii_uppercase())
                .ok_or_else(|| format!("there is no intent {name:?}"))
        })
        .try_fold(Intents::empty(), |all, intent| Ok(all | intent?))
}

pub(crate) async fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let mut terminate = Terminate::listen()?;
    let token = options
        .token
        .as_ref()
        .ok_or("DISCORD_TOKEN is not set: it takes the bot token of the developer portal")?;
    let mut builder = Shardkeeper::builder(token, options.intents).api_url(&options.api_url);
    builder = options.wire.apply(builder);
    if let Some(file) = &options.trust {
        let pem = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let tls =
            client_config_trusting(&pem).map_err(|error| format!("{}: {}", file.display(), chain(&error)))?;
        builder = builder.dialer(Arc::new(TcpDialer::with_tls(tls)));
    }
    if let Some(shards) = options.shards {
        builder = builder.shards(shards);
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
                let detaching = async { Ok(keeper.detach().await) };
                let (sessions, ()) = tokio::try_join!(detaching, taker.take_all())?;
                tracing::info!(sessions = sessions.len(), dispatches = taker.dispatches, "detached");
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    match keeper.ended().await {
        Ended::Refused(refusal) => Err(refusal.into()),
        ended => Err(format!("the manager ended by itself: {ended:?}").into()),
    }
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
    fn intents_by_name_and_number() {
        assert_eq!(intents("guilds, GUILD_MESSAGES"), Ok(Intents::GUILDS | Intents::GUILD_MESSAGES));
        assert_eq!(intents("513"), Ok(Intents::GUILDS | Intents::GUILD_MESSAGES));
        assert_eq!(intents("0"), Ok(Intents::empty()));
        assert_eq!(intents("GUILDZ"), Err(r#"there is no intent "GUILDZ""#.to_owned()));
        assert!(intents("131072").is_err());
    }
}
