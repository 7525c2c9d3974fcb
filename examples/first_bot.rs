//! The first program of README.

use std::env;
use std::error::Error;

use shardkeeper::{Intents, Shardkeeper};
use twilight_model::gateway::payload::incoming::MessageCreate;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Without a log a bot is silent about everything that it cannot do.
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    let token = env::var("DISCORD_TOKEN").map_err(|_| "DISCORD_TOKEN is not set to the bot's token")?;
    let intents = Intents::GUILDS | Intents::GUILD_MESSAGES | Intents::MESSAGE_CONTENT;
    let mut bot = Shardkeeper::builder(token, intents);
    // The simulator in place of Discord.
    if let Ok(address) = env::var("DISCORD_SIM") {
        bot = bot.api_url(format!("http://{address}/api/v10"));
    }

    let mut messages = bot.subscribe_to::<MessageCreate>();
    let bot = bot.start().await?;
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => println!("{}: {}", message.author.name, message.content),
            Err(error) => eprintln!("{error}"),
        }
    }
    // There are no more messages because the bot has ended: an error says why.
    Ok(bot.wait().await?)
}
