//! A bot that gets twice as many shards while it runs. Events go on meanwhile: none is lost, and none comes
//! twice.
//!
//! With `DISCORD_TOKEN` set, this costs the bot one Identify per shard at the start, and two for each of them
//! later.

use std::time::Duration;

use shardkeeper::config::{ReshardPolicy, ReshardRequest, ShardCount};
use shardkeeper::{Event, Intents, Lifecycle, Shardkeeper, Topic};
use shardkeeper_examples::Discord;
use shardkeeper_sim::Traces;
use tokio::time::timeout;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let discord = Discord::find_with(|config| {
        config.max_concurrency = 4;
        // An event is the same in each session that receives it, as at Discord. So the simulator can tell
        // whether the bot got it exactly once.
        config.traces = Traces::World { repeating: Vec::new() };
    })
    .await?;
    let bot = Shardkeeper::builder(discord.token(), Intents::GUILDS | Intents::GUILD_MESSAGES)
        .api_url(discord.api_url())
        // A bot follows Discord's recommendation by itself. This program decides instead.
        .reshard(ReshardPolicy::off());
    let mut events = bot.subscribe(Topic::all().with_lifecycle());
    let bot = bot.start().await?;

    let mut plan = None;
    while let Some(event) = events.next().await {
        observe(&discord, &event);
        match event.lifecycle() {
            Some(Lifecycle::AllReady { shards, .. }) if plan.is_none() => {
                println!("all {shards} shards are ready");
                let twice =
                    u32::try_from(shards * 2).ok().and_then(ShardCount::new).ok_or("too many shards")?;
                // With `dry_run()` nothing is done, and only the plan is returned.
                let planned = plan.insert(bot.reshard(ReshardRequest::to(twice)).await?);
                println!("{planned}");
            }
            Some(change @ Lifecycle::ReshardGroup { .. }) => println!("{change}"),
            Some(change @ Lifecycle::ReshardFinished { .. }) => {
                println!("{change}");
                break;
            }
            Some(change @ (Lifecycle::ReshardHalted { .. } | Lifecycle::ReshardWithdrawn { .. })) => {
                return Err(change.to_string().into());
            }
            _ => {}
        }
    }

    if let Some(simulator) = discord.simulator() {
        simulator.stop_traffic();
        // Reads what is under way.
        while let Ok(Some(event)) = timeout(Duration::from_secs(2), events.next()).await {
            observe(&discord, &event);
        }
        let delivery = simulator.world_delivery();
        println!(
            "{} events happened: {} lost, {} came twice, {} out of order",
            delivery.happened, delivery.lost, delivery.doubled, delivery.out_of_order
        );
        if !delivery.is_flawless() {
            return Err("an event was lost, came twice or out of order".into());
        }
    }
    drop(events);
    bot.stop().await;
    Ok(())
}

/// Tells the simulator what the bot got.
fn observe(discord: &Discord, event: &Event) {
    if let (Some(simulator), Event::Dispatch(dispatch)) = (discord.simulator(), event) {
        // What shardkeeper marks as a possible repetition, a bot can compare with what it has.
        let is_marked = dispatch.is_replayed() || dispatch.may_repeat();
        simulator.observe_event(dispatch.name(), dispatch.data(), is_marked);
    }
}
