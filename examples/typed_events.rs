//! Typed events: twilight's cache stores the guilds, and its standby waits for one event. The program prints
//! who wrote the next message, where, and how much the cache holds by then.

use std::time::Duration;

use shardkeeper::{Event, Intents, Shardkeeper, Topic};
use shardkeeper_examples::Discord;
use twilight_cache_inmemory::DefaultInMemoryCache;
use twilight_model::gateway::event::Event as Typed;
use twilight_standby::Standby;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let discord = Discord::find().await?;
    let bot = Shardkeeper::builder(discord.token(), Intents::GUILDS | Intents::GUILD_MESSAGES)
        .api_url(discord.api_url());
    let mut events = bot.subscribe(Topic::all());
    let bot = bot.start().await?;

    let (cache, standby) = (DefaultInMemoryCache::new(), Standby::new());
    let message = standby.wait_for_event(
        |event: &Typed| matches!(event, Typed::MessageCreate(message) if message.guild_id.is_some()),
    );
    let listen = async {
        while let Some(event) = events.next().await {
            let Event::Dispatch(dispatch) = &*event else { continue };
            match dispatch.event() {
                Ok(Some(event)) => {
                    cache.update(&event);
                    standby.process(&event);
                }
                Ok(None) => println!("twilight has no model of {}", dispatch.name()),
                Err(error) => eprintln!("{error}: {}", error.source),
            }
        }
    };
    tokio::select! {
        () = listen => {}
        event = message => {
            if let Typed::MessageCreate(message) = event? {
                let guild = message.guild_id.and_then(|id| cache.guild(id));
                let channel = cache.channel(message.channel_id);
                println!(
                    "{} wrote in #{} of {}",
                    message.author.name,
                    channel.as_ref().and_then(|channel| channel.name.as_deref()).unwrap_or("?"),
                    guild.as_ref().map_or("?", |guild| guild.name()),
                );
            }
        }
        () = tokio::time::sleep(Duration::from_secs(20)) => println!("nobody wrote within 20 s"),
    }
    let known = cache.stats();
    println!(
        "the cache knows {} guilds, {} channels and {} users",
        known.guilds(),
        known.channels(),
        known.users()
    );
    bot.stop().await;
    Ok(())
}
