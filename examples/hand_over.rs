//! A bot that hands its sessions to the next process: on Ctrl-C it detaches, and its loop reads until no more
//! events come. The next process starts with these sessions, needs no Identify, and receives the events that
//! were not acknowledged.
//!
//! In this example the next process is a second bot in the same process, and Ctrl-C is simulated after 50
//! events.

use std::pin::pin;

use shardkeeper::{Builder, Delivery, Intents, Session, Shardkeeper, Topic};
use shardkeeper_examples::Discord;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let discord = Discord::find().await?;
    let bot = || {
        Shardkeeper::builder(discord.token(), Intents::GUILDS | Intents::GUILD_MESSAGES)
            .api_url(discord.api_url())
    };
    let sessions = run(bot()).await?;
    println!("{} sessions are handed over", sessions.len());
    let sessions = run(bot().sessions(sessions)).await?;
    println!("the next bot has detached with {} sessions", sessions.len());
    if let Some(simulator) = discord.simulator() {
        let report = simulator.report();
        println!("the simulator received {} identifies and {} resumes", report.identifies, report.resumes);
    }
    Ok(())
}

/// Runs until Ctrl-C, and returns the sessions.
async fn run(bot: Builder) -> Result<Vec<Session>, Box<dyn std::error::Error>> {
    let mut events = bot.subscribe(Topic::all()).named("everything");
    let bot = bot.start().await?;
    let mut ctrl_c = pin!(tokio::signal::ctrl_c());
    let (mut read, mut detaching) = (0, None);
    loop {
        tokio::select! {
            _ = &mut ctrl_c, if detaching.is_none() => detaching = Some(bot.detach()),
            delivery = events.next() => match delivery {
                Some(delivery) => {
                    deal_with(&delivery).await;
                    read += 1;
                    if read == 50 && detaching.is_none() {
                        // The detach starts here. Waiting for it here would stop the loop from reading, and
                        // so the detach from finishing.
                        detaching = Some(bot.detach());
                    }
                    // Dropping the delivery here acknowledges it.
                }
                // The manager has ended, and all events were read.
                None => break,
            },
        }
    }
    println!("{read} events were handled");
    match detaching {
        Some(detaching) => Ok(detaching.await?),
        None => Err(format!("the bot ended without a request to stop: {:?}", bot.exit_reason().await).into()),
    }
}

async fn deal_with(_: &Delivery) {
    tokio::task::yield_now().await;
}
