//! The start of a manager, and the handle by which a bot speaks to it.

use std::sync::Arc;

use ractor::{Actor, ActorCell, ActorRef, Message, RpcReplyPort};
use shardkeeper_proto::{Command, Intents, Presence, PresenceUpdate, RequestMembers, Session, ShardId};
use tokio::sync::watch;

use crate::builder::Builder;
use crate::config::ManagerConfig;
use crate::dispatch::{self, Hub};
use crate::error::{CommandRejected, Ended, StartError};
use crate::manager::ShardManager;
use crate::members::{Members, MembersDesk, MembersError};
use crate::message::{Farewell, ManagerMessage, ShardMessage};
use crate::status::ManagerStatus;
use crate::{Delivery, Subscription, SubscriptionOptions, Topic};

/// A running manager. Clones are cheap and speak to the same one; dropping all of them does not end it.
#[derive(Clone, Debug)]
pub struct Shardkeeper {
    manager: ActorRef<ManagerMessage>,
    hub: Arc<Hub>,
    members: Arc<MembersDesk>,
    ended: watch::Receiver<Option<Ended>>,
}

/// Ends a manager whose start nobody waits for any more.
struct EndOnDrop(Option<ActorCell>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some(manager) = &self.0 {
            manager.stop(None);
        }
    }
}

impl Builder {
    /// Starts the manager, and returns when the layout is known and the shards are on their way.
    ///
    /// While the API cannot be reached it is asked again, with growing waits; each failure is a warning in the log
    /// and a [`Lifecycle::GatewayUnavailable`](crate::Lifecycle::GatewayUnavailable).
    ///
    /// # Errors
    ///
    /// When the configuration cannot work, or Discord does not accept the token.
    ///
    /// # Cancel safety
    ///
    /// Cancelling it ends the manager.
    pub async fn start(self) -> Result<Shardkeeper, StartError> {
        Shardkeeper::start(self.build()?).await
    }
}

impl Shardkeeper {
    /// Configures a manager for the bot of this token, which asks to receive what these intents name.
    pub fn builder(token: impl Into<String>, intents: Intents) -> Builder {
        Builder::new(token.into(), intents)
    }

    async fn start(config: ManagerConfig) -> Result<Self, StartError> {
        let hub = Arc::clone(&config.hub);
        let ended = config.ended.subscribe();
        let (manager, _) = Actor::spawn(None, ShardManager, config).await.map_err(|_| StartError::Ended)?;
        let mut guard = EndOnDrop(Some(manager.get_cell()));
        let keeper = Self { manager, hub, members: Arc::default(), ended };
        keeper.ask(ManagerMessage::AwaitStart).await.unwrap_or(Err(StartError::Ended))?;
        guard.0 = None;
        Ok(keeper)
    }

    /// Subscribes to a topic, with the default capacity, losing nothing.
    pub fn subscribe(&self, topic: Topic) -> Subscription {
        self.subscribe_with(topic, SubscriptionOptions::default())
    }

    /// Subscribes to a topic. Each event from now on that matches comes.
    pub fn subscribe_with(&self, topic: Topic, options: SubscriptionOptions) -> Subscription {
        self.hub.subscribe(topic, options)
    }

    /// Sends each event of a topic to an actor, as the message that `into` makes of it.
    ///
    /// # Bounds
    ///
    /// At most [`SubscriptionOptions::capacity`] deliveries are with the actor at a time, in its mailbox or its
    /// hands; dropping one makes room for the next. As many wait in front, and then the policy applies.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn subscribe_actor<M: Message>(
        &self,
        topic: Topic,
        options: SubscriptionOptions,
        actor: ActorRef<M>,
        into: impl Fn(Delivery) -> M + Send + 'static,
    ) {
        let subscription = self.subscribe_with(topic, options);
        tokio::spawn(dispatch::forward(subscription, options.capacity, actor, into));
    }

    /// The address of a shard's actor. After a crash it has a new one.
    ///
    /// # Errors
    ///
    /// When the manager has ended, does not run this shard, or is about to restart it.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only asks.
    pub async fn shard(&self, shard: ShardId) -> Result<ActorRef<ShardMessage>, CommandRejected> {
        let actor = self.ask(|reply| ManagerMessage::Shard(shard, reply)).await;
        actor.ok_or(CommandRejected::ManagerEnded)?.ok_or(CommandRejected::NoSuchShard { shard })
    }

    /// Shows a presence on every shard, now and after each later Identify or restart. The newest one wins; more
    /// than five in 20 s wait their turn.
    ///
    /// # Errors
    ///
    /// When it is too large, or the manager has ended.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, it is on its way.
    pub async fn update_presence(&self, presence: Presence) -> Result<(), CommandRejected> {
        let update = PresenceUpdate::new(presence)?;
        let accepted = self.ask(|reply| ManagerMessage::UpdatePresence(None, update, reply)).await;
        accepted.ok_or(CommandRejected::ManagerEnded)?
    }

    /// Shows a presence on one shard, now and after each later Identify or restart, until another one is set there or
    /// on every shard.
    ///
    /// # Errors
    ///
    /// When it is too large, was not accepted by the shard, or the manager does not run this shard.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, it is on its way.
    pub async fn update_shard_presence(
        &self,
        shard: ShardId,
        presence: Presence,
    ) -> Result<(), CommandRejected> {
        let update = PresenceUpdate::new(presence)?;
        let accepted = self.ask(|reply| ManagerMessage::UpdatePresence(Some(shard), update, reply)).await;
        accepted.unwrap_or(Err(CommandRejected::ShardEnded { shard }))
    }

    /// Sends a command on the shard that owns its guild: [`VoiceStateUpdate`](crate::VoiceStateUpdate),
    /// [`RequestMembers`](crate::RequestMembers), [`request_soundboard_sounds`](crate::request_soundboard_sounds),
    /// [`request_channel_info`](crate::request_channel_info). `Ok` means accepted for sending: it goes when the shard
    /// is ready and the limits allow, also over a reconnect.
    ///
    /// # Errors
    ///
    /// When the shard is not one of this manager, has [too many](shardkeeper_proto::COMMANDS_WAITING) waiting, or is
    /// about to come back from a crash.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, it is on its way.
    pub async fn command(&self, command: impl Into<Command>) -> Result<(), CommandRejected> {
        let command = command.into();
        let accepted = self.ask(|reply| ManagerMessage::Command(command, reply)).await;
        accepted.unwrap_or(Err(CommandRejected::ManagerEnded))
    }

    /// The shard that owns a guild, in the layout that there is now. Another process may run it.
    ///
    /// # Errors
    ///
    /// When the manager has ended, or does not know the layout yet.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only asks.
    pub async fn owner_of(&self, guild_id: u64) -> Result<ShardId, CommandRejected> {
        let owner = self.ask(|reply| ManagerMessage::OwnerOf(guild_id, reply)).await;
        owner.ok_or(CommandRejected::ManagerEnded)?.ok_or(CommandRejected::Starting)
    }

    /// Asks for members of a guild and collects the answer, over a resume too. Equal requests at the same time are sent
    /// once and share one answer; a nonce of the caller's is replaced. All members of a guild can be had once in 30 s: a
    /// further request waits for its turn (GW-162), and for as long as Discord says, should somebody else have asked.
    ///
    /// # Errors
    ///
    /// When the request is refused, the session is lost before the answer is complete, or nothing comes for 30 s.
    ///
    /// # Cancel safety
    ///
    /// Nothing is sent twice; without anybody who waits for it the answer is given up.
    pub async fn members(&self, request: RequestMembers) -> Result<Arc<Members>, MembersError> {
        self.members.ask(self, request).await
    }

    /// How everything stands now. A shard that hangs does not delay it. `None` once the manager has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only asks.
    pub async fn status(&self) -> Option<ManagerStatus> {
        self.ask(ManagerMessage::Status).await
    }

    /// Ends for good: each shard closes with 1000, which gives its session up and shows the bot as offline. Returns
    /// when all have, or after the configured deadline.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the end takes its course.
    pub async fn stop(&self) {
        let _ = self.ask(|reply| ManagerMessage::End(Farewell::Stop, reply)).await;
    }

    /// Ends for a successor: each shard closes so that its session stays resumable for some minutes. Subscribers may finish
    /// what they have, until the configured deadline; what they do not acknowledge comes again to the successor. So read
    /// on while it ends, or drop the subscriptions first, which acknowledges everything. Give what is returned to the next process with [`Builder::sessions`]; it holds secrets, like the token.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the end takes its course, and a cancelled caller loses the sessions.
    pub async fn detach(&self) -> Vec<Session> {
        self.ask(|reply| ManagerMessage::End(Farewell::Detach, reply)).await.unwrap_or_default()
    }

    /// Waits for the end, and says how it came.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.unwrap_or(Ended::Crashed),
            Err(_) => Ended::Crashed,
        }
    }

    /// The manager's own address.
    pub fn manager(&self) -> &ActorRef<ManagerMessage> {
        &self.manager
    }

    async fn ask<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<T>) -> ManagerMessage,
    ) -> Option<T> {
        let (reply, answer) = ractor::concurrency::oneshot();
        self.manager.cast(message(reply.into())).ok()?;
        answer.await.ok()
    }
}
