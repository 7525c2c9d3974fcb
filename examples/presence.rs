//! Presences: one for the whole bot from the start, another on every shard, and one sent to a single shard's actor.

use shardkeeper::{
    Activity, Event, Intents, Lifecycle, Presence, PresenceUpdate, ShardId, ShardMessage, Shardkeeper,
    Status, Topic,
};
use shardkeeper_examples::Discord;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let discord = Discord::find().await?;
    // Shown from the first Identify on.
    let bot = Shardkeeper::builder(discord.token(), Intents::GUILDS)
        .api_url(discord.api_url())
        .presence(Presence::new(Status::Idle).activity(Activity::custom("waking up")));
    let mut lifecycle = bot.subscribe(Topic::lifecycle());
    let bot = bot.start().await?;
    while let Some(event) = lifecycle.next().await {
        if let Event::Lifecycle(Lifecycle::AllReady { shards, .. }) = &*event {
            println!("all {shards} shards are ready");
            break;
        }
    }

    // On every shard, now and whenever one has to identify again.
    bot.update_presence(Presence::new(Status::Online).activity(Activity::playing("with shards"))).await?;

    // By a message to one shard's actor, which answers whether it was accepted.
    let shard = bot.shard(ShardId(0)).await?;
    let presence =
        PresenceUpdate::new(Presence::new(Status::Dnd).activity(Activity::listening("the Gateway")))?;
    let accepted = ractor::call!(shard, |reply| ShardMessage::UpdatePresence(presence, reply))?;
    println!("shard 0 {}", if accepted.is_ok() { "accepted its own presence" } else { "refused" });

    if let Some(simulator) = discord.simulator() {
        simulator
            .wait_until(|report| {
                let status =
                    |shard: u32| report.presences.get(&shard).map(|presence| presence["status"].clone());
                status(0) == Some("dnd".into()) && status(1) == Some("online".into())
            })
            .await;
        println!("the simulator shows shard 0 as dnd, and shard 1 as online");
    }
    bot.stop().await;
    Ok(())
}
