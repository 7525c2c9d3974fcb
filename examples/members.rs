//! Members of a guild: all of them chunk by chunk, and some found by name in one answer.

use std::sync::Arc;

use futures_util::StreamExt;
use serde::Deserialize;
use shardkeeper::command::RequestMembers;
use shardkeeper::{Event, EventName, Intents, Shardkeeper, Topic};
use shardkeeper_examples::Discord;

#[derive(Deserialize)]
struct Guild {
    id: String,
    name: String,
    member_count: u64,
}

#[derive(Deserialize)]
struct Member {
    user: User,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let discord = Discord::find_with(|config| config.large_guild_members = 2500).await?;
    let bot = Shardkeeper::builder(discord.token(), Intents::GUILDS | Intents::GUILD_MEMBERS)
        .api_url(discord.api_url());
    let mut guilds = bot.subscribe(Topic::events([EventName::GuildCreate]));
    let bot = bot.start().await?;
    let mut guild: Option<Guild> = None;
    while guild.as_ref().is_none_or(|guild| guild.member_count < 100) {
        let Some(event) = guilds.next().await else { return Ok(()) };
        if let Event::Dispatch(dispatch) = &*event {
            // Parsing fails for an unavailable guild, which has only an id.
            guild = dispatch.parse().ok();
        }
    }
    drop(guilds);
    let Some(Guild { id, name, member_count }) = guild else { return Ok(()) };
    let id = id.parse()?;
    println!("{name} has {member_count} members");

    // Chunk by chunk, so that a large guild does not have to fit into memory at once. Discord answers a
    // request for all members once in 30 s per guild; a second request would wait.
    let mut chunks = bot.members_chunks(RequestMembers::all(id));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        println!(
            "chunk {} of {}: {} members",
            chunk.chunk_index + 1,
            chunk.chunk_count,
            chunk.members.raw_members.len()
        );
    }

    // One answer with all results, which equal requests at the same time share.
    let some = || bot.members(RequestMembers::prefix(id, "m", 3));
    let (found, same) = tokio::join!(some(), some());
    let (found, same) = (found?, same?);
    let names: Vec<String> =
        found.members::<Member>()?.into_iter().map(|member| member.user.username).collect();
    println!("some of them: {}", names.join(", "));
    println!("requested twice, sent {}", if Arc::ptr_eq(&found, &same) { "once" } else { "twice" });
    bot.stop().await;
    Ok(())
}
