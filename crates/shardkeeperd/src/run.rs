//! `run`: the real thing.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use shardkeeper::{
    DISCORD_API, Ended, Intents, Session, Shardkeeper, TcpDialer, Topic, client_config_trusting,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::chain;
use crate::terminate::Terminate;
use crate::wire::Wire;

/// How often the log says that all is well.
const REPORT_EVERY: Duration = Duration::from_secs(60);

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
    /// Where sessions are kept from one run to the next, so that a restart resumes them. A secret, like the token.
    #[arg(long, value_name = "FILE")]
    sessions: Option<PathBuf>,
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
    if let Some(file) = &options.sessions {
        builder = builder.sessions(take_sessions(file)?);
    }
    // The log has a line for each lifecycle change already; the dispatches are counted.
    let mut events = builder.subscribe(Topic::all());
    let keeper = tokio::select! {
        keeper = builder.start() => keeper?,
        () = terminate.wait() => return Ok(ExitCode::SUCCESS),
    };
    let mut count = 0_u64;
    let mut report = interval_at(Instant::now() + REPORT_EVERY, REPORT_EVERY);
    report.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(_) => count += 1,
                None => break,
            },
            _ = report.tick() => tracing::info!(dispatches = count, "running"),
            () = terminate.wait() => {
                tracing::info!("detaching");
                // The subscription goes first: nobody reads it any more, and no shard shall wait for it.
                drop(events);
                let sessions = keeper.detach().await;
                tracing::info!(sessions = sessions.len(), dispatches = count, "detached");
                if let Some(file) = &options.sessions {
                    save_sessions(file, &sessions)?;
                }
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    match keeper.ended().await {
        Ended::Refused(refusal) => Err(refusal.into()),
        ended => Err(format!("the manager ended by itself: {ended:?}").into()),
    }
}

/// Reads the sessions and removes the file: a session can be resumed by one process only.
fn take_sessions(file: &Path) -> Result<Vec<Session>, Box<dyn Error>> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("cannot read {}: {error}", file.display()).into()),
    };
    let sessions = serde_json::from_slice(&text).map_err(|error| {
        // What stands in it is secret, and serde would quote it.
        let (line, column) = (error.line(), error.column());
        format!(
            "{} holds no sessions (line {line}, column {column}): remove it to start anew",
            file.display()
        )
    })?;
    fs::remove_file(file).map_err(|error| format!("cannot remove {}: {error}", file.display()))?;
    Ok(sessions)
}

fn save_sessions(file: &Path, sessions: &[Session]) -> Result<(), Box<dyn Error>> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(file).and_then(|mut file| {
        file.write_all(&serde_json::to_vec(sessions)?)?;
        file.sync_all()
    });
    written.map_err(|error| format!("cannot write {}: {error}", file.display()).into())
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
