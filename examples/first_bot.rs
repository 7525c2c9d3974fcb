//! The first program of README.

use std::env;
use std::error::Error;

use shardkeeper::{Intents, Shardkeeper};
use twilight_model::gateway::payload::incoming::MessageCreate;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Warnings and errors of shardkeeper go to the log. Without this line nobody sees them.
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    let token = env::var("DISCORD_TOKEN").map_err(|_| "DISCORD_TOKEN is not set to the bot's token")?;
    let intents = Intents::GUILDS | Intents::GUILD_MESSAGES | Intents::MESSAGE_CONTENT;
    let mut bot = Shardkeeper::builder(token, intents);
    // Connects to the simulator instead of Discord.
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
    // The messages end when the bot has ended. An error says why.
    Ok(bot.wait().await?)
}
