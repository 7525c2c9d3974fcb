//! Changing presences: one computed for each Identify, one rotated on every shard, and one shown by a single
//! shard.

use std::time::Duration;

use shardkeeper::{Activity, Event, Intents, Lifecycle, OnlineStatus, Presence, ShardId, Shardkeeper, Topic};
use shardkeeper_examples::Discord;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let discord = Discord::find().await?;
    // What a shard shows from its Identify on. A presence that is set later takes precedence, also in later
    // Identify payloads.
    let bot = Shardkeeper::builder(discord.token(), Intents::GUILDS).api_url(discord.api_url()).presence_fn(
        |shard| {
            Presence::new(OnlineStatus::Idle).activity(Activity::custom(format!("shard {shard} wakes up")))
        },
    );
    let mut lifecycle = bot.subscribe(Topic::lifecycle());
    let bot = bot.start().await?;
    while let Some(event) = lifecycle.next().await {
        if let Event::Lifecycle(Lifecycle::AllReady { shards, .. }) = &*event {
            println!("all {shards} shards are ready");
            break;
        }
    }
    drop(lifecycle);

    let rotation = [
        Activity::playing("with shards"),
        Activity::listening("the Gateway").state("as every day"),
        Activity::watching("heartbeats"),
        Activity::competing("uptime"),
        Activity::streaming("the logs", "https://www.twitch.tv/discord"),
    ];
    // Discord's limit is five updates in 20 s. Faster ones wait, and only the newest is sent.
    let mut every = tokio::time::interval(Duration::from_secs(1));
    for activity in rotation {
        every.tick().await;
        println!("{activity:?}");
        bot.update_presence(Presence::new(OnlineStatus::Online).activity(activity)).await?;
    }
    bot.update_presence_on([ShardId(0)], Presence::new(OnlineStatus::Dnd)).await?;

    // Discord would silently not show this presence; shardkeeper returns an error with the reason.
    let refused = Presence::default().activity(Activity::streaming("it", "https://example.com"));
    if let Err(error) = bot.update_presence(refused).await {
        println!("{error}");
    }

    if let Some(simulator) = discord.simulator() {
        println!("waiting until the rate limit permits the last updates");
        simulator
            .wait_until(|report| {
                let status = |shard: u32| report.presences.get(&shard).map(|presence| &presence["status"]);
                status(0) == Some(&"dnd".into()) && status(1) == Some(&"online".into())
            })
            .await;
        println!("the simulator shows shard 0 as dnd, and shard 1 as online");
    }
    bot.stop().await;
    Ok(())
}
