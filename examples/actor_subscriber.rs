//! An actor that subscribes: it counts messages per shard, and ends the program when it has seen enough.

use std::collections::BTreeMap;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use shardkeeper::{Delivery, EventName, Intents, ShardId, Shardkeeper, SubscriptionOptions, Topic};
use shardkeeper_examples::Discord;

struct Counter;

enum CounterMessage {
    /// Dropping the delivery says that it was dealt with; until then it counts against the credit.
    Event(Delivery),
}

impl Actor for Counter {
    type Msg = CounterMessage;
    type State = BTreeMap<ShardId, u64>;
    type Arguments = ();

    async fn pre_start(
        &self,
        _: ActorRef<CounterMessage>,
        (): (),
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(BTreeMap::new())
    }

    async fn handle(
        &self,
        myself: ActorRef<CounterMessage>,
        CounterMessage::Event(delivery): CounterMessage,
        counts: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(dispatch) = delivery.dispatch() {
            *counts.entry(dispatch.shard()).or_default() += 1;
        }
        if counts.values().sum::<u64>() >= 20 {
            myself.stop(None);
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<CounterMessage>,
        counts: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        for (shard, count) in counts {
            println!("shard {shard}: {count} messages");
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let discord = Discord::find().await?;
    let bot = Shardkeeper::builder(discord.token(), Intents::GUILD_MESSAGES)
        .api_url(discord.api_url())
        .start()
        .await?;
    let (counter, done) = Actor::spawn(None, Counter, ()).await?;
    let messages = Topic::events([EventName::MessageCreate]);
    bot.subscribe_actor(messages, SubscriptionOptions::default(), counter, CounterMessage::Event);
    done.await?;
    bot.stop().await;
    Ok(())
}
