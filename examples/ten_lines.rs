//! A whole bot: it prints the messages that its guilds receive, ten of them.

use shardkeeper::{EventName, Intents, Shardkeeper, Topic};
use shardkeeper_examples::Discord;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let discord = Discord::find().await?;
    let bot = Shardkeeper::builder(discord.token(), Intents::GUILDS | Intents::GUILD_MESSAGES)
        .api_url(discord.api_url());
    let mut messages = bot.subscribe(Topic::events([EventName::MessageCreate]));
    let bot = bot.start().await?;
    for _ in 0..10 {
        let Some(message) = messages.next().await else { break };
        println!("{message:?}");
    }
    bot.stop().await;
    Ok(())
}
