//! A bot made of actors: it spawns the manager as its child, controls it only by messages, and receives
//! events in its mailbox. It counts messages per shard, shows the count as its presence, and stops after a
//! number of messages.

use std::collections::BTreeMap;

use shardkeeper::actor::{ManagerArguments, ManagerMessage, ShardManager};
use shardkeeper::command::PresenceUpdate;
use shardkeeper::config::ShutdownMode;
use shardkeeper::ractor::{self, Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use shardkeeper::{
    Activity, Delivery, EventName, Intents, OnlineStatus, Presence, ShardId, Shardkeeper,
    SubscriptionOptions, Topic,
};
use shardkeeper_examples::Discord;

struct Bot;

enum BotMessage {
    /// Dropping the delivery acknowledges it; until then it counts against the credit.
    Event(Delivery),
}

struct BotState {
    manager: ActorRef<ManagerMessage>,
    counts: BTreeMap<ShardId, u64>,
}

impl Actor for Bot {
    type Msg = BotMessage;
    type State = BotState;
    type Arguments = ManagerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<BotMessage>,
        config: ManagerArguments,
    ) -> Result<BotState, ActorProcessingErr> {
        let (manager, _) = Actor::spawn_linked(None, ShardManager, config, myself.get_cell()).await?;
        let keeper = Shardkeeper::of(manager.clone()).await?;
        let messages = Topic::events([EventName::MessageCreate]);
        keeper.subscribe_actor(messages, SubscriptionOptions::default(), myself, BotMessage::Event);
        Ok(BotState { manager, counts: BTreeMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<BotMessage>,
        BotMessage::Event(delivery): BotMessage,
        state: &mut BotState,
    ) -> Result<(), ActorProcessingErr> {
        let Some(dispatch) = delivery.dispatch() else { return Ok(()) };
        *state.counts.entry(dispatch.shard()).or_default() += 1;
        let total: u64 = state.counts.values().sum();
        if total.is_multiple_of(10) {
            let presence =
                Presence::new(OnlineStatus::Online).activity(Activity::watching(format!("{total} messages")));
            let update = PresenceUpdate::new(presence)?;
            // No reply is needed: an invalid presence is reported in the log.
            state.manager.cast(ManagerMessage::presence(None, update))?;
            println!("{total} messages");
        }
        if total >= 30 {
            // The reply holds the sessions; after a stop there are none.
            let _ = ractor::call!(state.manager, |reply| ManagerMessage::Shutdown(ShutdownMode::Stop, reply));
            myself.stop(None);
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<BotMessage>,
        event: SupervisionEvent,
        _: &mut BotState,
    ) -> Result<(), ActorProcessingErr> {
        // The manager restarts its own children. If the manager itself ends, for example because Discord
        // refuses the token, the bot ends too.
        match event {
            SupervisionEvent::ActorFailed(_, error) => myself.stop(Some(error.to_string())),
            SupervisionEvent::ActorTerminated(..) => myself.stop(None),
            _ => {}
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<BotMessage>,
        state: &mut BotState,
    ) -> Result<(), ActorProcessingErr> {
        for (shard, count) in &state.counts {
            println!("shard {shard}: {count} messages");
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let discord = Discord::find().await?;
    let config =
        Shardkeeper::builder(discord.token(), Intents::GUILD_MESSAGES).api_url(discord.api_url()).build()?;
    let (_, done) = Actor::spawn(None, Bot, config).await?;
    done.await?;
    Ok(())
}
