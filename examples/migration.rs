//! Shards that move to another process while the bot runs: they are closed here so that their sessions stay
//! resumable, and are resumed there. No Identify is needed, and no event is lost.
//!
//! The program starts itself again as the other process, and passes the sessions to it through a pipe.
//! Sessions are secrets, like the token, so they need a private channel.

use std::process::Stdio;

use shardkeeper::config::ShardCount;
use shardkeeper::{Event, Intents, Lifecycle, Session, ShardId, Shardkeeper, Topic};
use shardkeeper_examples::Discord;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

const SHARDS: u32 = 4;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1) {
        Some(api_url) => receive(&api_url).await,
        None => give().await,
    }
}

async fn give() -> Result<(), Box<dyn std::error::Error>> {
    let discord =
        Discord::find_with(|config| (config.shards, config.max_concurrency) = (SHARDS, SHARDS)).await?;
    let bot =
        Shardkeeper::builder(discord.token(), Intents::GUILDS).api_url(discord.api_url()).shards(SHARDS);
    let mut lifecycle = bot.subscribe(Topic::lifecycle());
    let bot = bot.start().await?;
    while let Some(event) = lifecycle.next().await {
        if let Event::Lifecycle(Lifecycle::AllReady { shards, .. }) = &*event {
            println!("all {shards} shards are ready here");
            break;
        }
    }
    // A subscription that is not read would block its shards.
    drop(lifecycle);

    let mut other = Command::new(std::env::current_exe()?)
        .arg(discord.api_url())
        .env("EXAMPLE_TOKEN", discord.token())
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut pipe = other.stdin.take().ok_or("the pipe was just made")?;
    for shards in [vec![3], vec![1, 2]] {
        let sessions = bot.remove_shards(shards.iter().copied().map(ShardId)).await?;
        println!("shards {shards:?} have left, with {} sessions", sessions.len());
        pipe.write_all(format!("{}\n", serde_json::to_string(&sessions)?).as_bytes()).await?;
    }
    // The end of the pipe tells the other process that there are no more sessions.
    drop(pipe);
    other.wait().await?;

    let left = bot.status().await?.shards.len();
    println!("{left} shard stays here");
    bot.stop().await;
    if let Some(simulator) = discord.simulator() {
        let report = simulator.report();
        println!(
            "the simulator received {} identifies, {} resumes and {} violations",
            report.identifies,
            report.resumes,
            report.violations.len()
        );
    }
    Ok(())
}

async fn receive(api_url: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let first = lines.next_line().await?.ok_or("the pipe ended without sessions")?;
    let sessions: Vec<Session> = serde_json::from_str(&first)?;
    let ids: Vec<u32> = sessions.iter().map(|session| session.shard.0).collect();
    let count = sessions.first().map_or(SHARDS, |session| ShardCount::get(session.count));
    let bot = Shardkeeper::builder(std::env::var("EXAMPLE_TOKEN")?, Intents::GUILDS)
        .api_url(api_url)
        .shard_ids(ids.iter().copied(), count)
        .sessions(sessions);
    let mut lifecycle = bot.subscribe(Topic::lifecycle());
    let bot = bot.start().await?;
    let mut expected = ids.len();
    while let Some(line) = lines.next_line().await? {
        let sessions: Vec<Session> = serde_json::from_str(&line)?;
        expected += sessions.len();
        let shards: Vec<ShardId> = sessions.iter().map(|session| session.shard).collect();
        bot.add_shards(shards, sessions).await?;
    }
    while expected > 0 {
        let Some(event) = lifecycle.next().await else { break };
        if let Event::Lifecycle(Lifecycle::Shard {
            shard,
            change: shardkeeper::status::Change::Resumed { replayed },
            ..
        }) = &*event
        {
            println!("  shard {shard} continues in the other process, {replayed} events were replayed");
            expected -= 1;
        }
    }
    drop(lifecycle);
    // A real process would keep running; this example ends its sessions.
    bot.stop().await;
    Ok(())
}
