//! The start of a manager, and the handle by which a bot speaks to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ask::{ask, begin};
use super::{Builder, members};
use crate::command::{AcceptedCommand, Members, MembersChunk, MembersError};
use crate::dispatch::{
    self, Delivery, EventModel, Hub, Lifecycle, Overflow, Subscription, SubscriptionOptions, Topic,
    TypedSubscription, await_end,
};
use crate::error::{CommandError, ExitError, ExitReason, ManagerEnded, ShardChangeError, StartError};
use crate::manager::{ManagerArguments, ShardManager};
use crate::message::{ManagerMessage, RestartBy, ShardMessage, Shared, ShutdownMode};
use crate::status::{ManagerStatus, ShardStatus};
use futures_util::{FutureExt, Stream};
use ractor::{Actor, ActorCell, ActorRef, Message, RpcReplyPort};
use shardkeeper_proto::{Command, Intents, Presence, PresenceUpdate, RequestMembers, Session, ShardId};

/// A running manager. Clones are cheap and speak to the same one; dropping all of them does not end it.
#[derive(Clone, Debug)]
pub struct Shardkeeper {
    manager: ActorRef<ManagerMessage>,
    shared: Shared,
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

/// Bounds a start, and remembers why the gateway did not answer.
struct StartTimeout {
    after: Duration,
    lifecycle: Subscription,
}

impl StartTimeout {
    fn new(after: Duration, hub: &Arc<Hub>) -> Self {
        let options = SubscriptionOptions { capacity: 16, overflow: Overflow::DropOldest };
        Self { after, lifecycle: hub.subscribe(Topic::lifecycle(), options) }
    }

    async fn run(mut self, started: impl Future<Output = Result<(), StartError>>) -> Result<(), StartError> {
        let after = self.after;
        tokio::time::timeout(after, started).await.unwrap_or_else(|_| {
            let mut last = None;
            while let Some(Some(event)) = self.lifecycle.next().now_or_never() {
                if let Some(Lifecycle::GatewayUnavailable { error, .. }) = event.lifecycle() {
                    last = Some(error.clone());
                }
            }
            let error = last.unwrap_or_else(|| "the first request has not ended yet".to_owned());
            Err(StartError::Unreachable { after, error })
        })
    }
}

impl Builder {
    /// Starts the manager, and returns when the layout is known and the shards are on their way.
    ///
    /// While the API cannot be reached it is asked again, with growing waits; each failure is a warning in the log
    /// and a [`Lifecycle::GatewayUnavailable`].
    ///
    /// # Errors
    ///
    /// When the configuration cannot work, Discord does not accept the token, or nothing answers within
    /// [`start_timeout`](Self::start_timeout).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time, and I/O for the default dialer.
    ///
    /// # Cancel safety
    ///
    /// Cancelling it ends the manager.
    pub async fn start(self) -> Result<Shardkeeper, StartError> {
        Shardkeeper::start(self.build()?).await
    }
}

impl Shardkeeper {
    /// Configures a manager for the bot of this token, which asks to receive what these intents name. A leading `Bot ` and
    /// white space around the token are taken off.
    pub fn builder(token: impl Into<String>, intents: Intents) -> Builder {
        Builder::new(token.into(), intents)
    }

    async fn start(config: ManagerArguments) -> Result<Self, StartError> {
        let shared = config.live.share();
        let timeout = config.config.settings.start_timeout;
        let timeout = timeout.map(|after| StartTimeout::new(after, &shared.hub));
        let (manager, _) = Actor::spawn(None, ShardManager, config).await.map_err(|_| ManagerEnded)?;
        let mut guard = EndOnDrop(Some(manager.get_cell()));
        let keeper = Self { manager, shared };
        let started = async { keeper.ask(ManagerMessage::AwaitStart).await? };
        match timeout {
            Some(timeout) => timeout.run(started).await?,
            None => started.await?,
        }
        guard.0 = None;
        Ok(keeper)
    }

    /// A handle on a manager that was spawned as an actor.
    ///
    /// # Errors
    ///
    /// When the manager has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only asks.
    pub async fn of(manager: ActorRef<ManagerMessage>) -> Result<Self, ManagerEnded> {
        let shared = ask(&manager, ManagerMessage::Share).await.ok_or(ManagerEnded)?;
        Ok(Self { manager, shared })
    }

    /// Subscribes to a topic, losing nothing. Each event from now on that matches comes; 1024 of them wait to be read, and
    /// then their shards do.
    #[track_caller]
    pub fn subscribe(&self, topic: Topic) -> Subscription {
        self.subscribe_with(topic, SubscriptionOptions::default())
    }

    /// Subscribes to a topic, with a capacity and a policy of the caller's. Each event from now on that matches comes. After
    /// the end of the manager it yields nothing.
    #[track_caller]
    pub fn subscribe_with(&self, topic: Topic, options: SubscriptionOptions) -> Subscription {
        self.shared.hub.subscribe(topic, options)
    }

    /// Subscribes to the events of one kind from now on, each read into `T`: a model of twilight-model (feature `twilight`),
    /// or a type of the bot's own with the name of its event ([`EventModel`]).
    #[track_caller]
    pub fn subscribe_to<T: EventModel>(&self) -> TypedSubscription<T> {
        self.subscribe(Topic::events([T::EVENT])).typed()
    }

    /// Sends each event of a topic to an actor, as the message that `into` makes of it, until the actor or the manager ends.
    ///
    /// # Ordering
    ///
    /// That of a [`Subscription`].
    ///
    /// # Bounds
    ///
    /// At most [`SubscriptionOptions::capacity`] deliveries are with the actor at a time, in its mailbox or its
    /// hands; dropping one makes room for the next. As many wait in front, and then the policy applies. When the actor ends,
    /// the subscription ends with it, and whatever the actor has not dropped by then counts as acknowledged.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn subscribe_actor<M: Message>(
        &self,
        topic: Topic,
        options: SubscriptionOptions,
        actor: ActorRef<M>,
        into: impl Fn(Delivery) -> M + Send + 'static,
    ) {
        let mut subscription = self.subscribe_with(topic, options);
        if let Some(name) = actor.get_name() {
            subscription = subscription.named(name);
        }
        tokio::spawn(dispatch::forward(subscription, options.capacity, actor, into));
    }

    /// The address of a shard's actor. After a crash it has a new one. Its mailbox has no bound, so wait for answers.
    ///
    /// # Errors
    ///
    /// When the manager has ended, does not run this shard, or is about to restart it.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only asks.
    pub async fn shard(&self, shard: impl Into<ShardId>) -> Result<ActorRef<ShardMessage>, CommandError> {
        let shard = shard.into();
        let actor = self.ask(|reply| ManagerMessage::Shard(shard, reply)).await?;
        actor.ok_or(CommandError::NoSuchShard { shard })
    }

    /// Shows a presence on every shard, now and after each later Identify or restart. The newest one wins; more
    /// than five in 20 s wait their turn.
    ///
    /// # Errors
    ///
    /// When it cannot be shown, or the manager has ended.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, it is on its way.
    pub async fn update_presence(&self, presence: Presence) -> Result<(), CommandError> {
        let update = PresenceUpdate::new(presence)?;
        self.ask(|reply| ManagerMessage::UpdatePresence(None, update, reply)).await?
    }

    /// Shows a presence on these shards, now and after each later Identify or restart, until another one is set there or
    /// on every shard.
    ///
    /// # Errors
    ///
    /// When it cannot be shown, or the manager does not run one of the shards; then it is shown on none.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, it is on its way.
    pub async fn update_presence_on(
        &self,
        shards: impl IntoIterator<Item = impl Into<ShardId>>,
        presence: Presence,
    ) -> Result<(), CommandError> {
        let (update, shards) = (PresenceUpdate::new(presence)?, ids(shards));
        self.ask(|reply| ManagerMessage::UpdatePresence(Some(shards), update, reply)).await?
    }

    /// Sends a command on the shard that owns its guild: [`Command::voice`], [`Command::members`], [`Command::sounds`],
    /// [`Command::channel_info`], or [`Command::raw`] on a shard of the caller's choice. `Ok` means accepted for sending: it
    /// goes when the shard is ready and the limits allow, also over a reconnect; [`AcceptedCommand::written`] waits for that.
    ///
    /// # Errors
    ///
    /// The first check that it fails: the shard is not one of this manager, or about to come back from a crash; an intent
    /// is missing; too many of its [class](crate::command::CommandClass::capacity) wait.
    ///
    /// # Bounds
    ///
    /// At most 120 payloads pass in any 60 s, heartbeats included, for which there is always room (GW-155); voice goes
    /// before presences, and these before bulk requests, which leave room for ten of the others. What cannot be sent in
    /// [`Timings::voice_lifetime`](crate::config::Timings::voice_lifetime) or [`Timings::bulk_lifetime`](crate::config::Timings::bulk_lifetime)
    /// is given up. A crash of the shard loses what waits.
    ///
    /// # Ordering
    ///
    /// Commands of one class and shard are sent in the order in which they were accepted.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, it is on its way.
    pub async fn command(&self, command: impl Into<Command>) -> Result<AcceptedCommand, CommandError> {
        let command = command.into();
        let (guild_id, raw_shard) = (command.guild_id(), command.raw_shard());
        if let Ok(accepted) = self.ask(|reply| ManagerMessage::Command(command, reply)).await {
            return accepted;
        }
        // Its shard ended over it; or the manager, and then it says so here.
        let owner = self.owner_of(guild_id.unwrap_or_default()).await?;
        Err(CommandError::ShardEnded { shard: raw_shard.unwrap_or(owner) })
    }

    /// Asks for the soundboard sounds of guilds, each on the shard that owns it. They come as one SOUNDBOARD_SOUNDS event
    /// per guild.
    ///
    /// # Errors
    ///
    /// When a command is not accepted; those for shards of lower ids are on their way then.
    ///
    /// # Bounds
    ///
    /// One bulk command per shard and 160 guilds.
    ///
    /// # Cancel safety
    ///
    /// Each command is sent or not; a cancelled caller does not know which.
    pub async fn request_soundboard_sounds(&self, guild_ids: &[u64]) -> Result<(), CommandError> {
        let mut owned: BTreeMap<ShardId, Vec<u64>> = BTreeMap::new();
        for &guild_id in guild_ids {
            owned.entry(self.owner_of(guild_id).await?).or_default().push(guild_id);
        }
        for command in owned.values().flat_map(|guild_ids| Command::sounds(guild_ids)) {
            self.command(command).await?;
        }
        Ok(())
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
    pub async fn owner_of(&self, guild_id: u64) -> Result<ShardId, CommandError> {
        let owner = self.ask(|reply| ManagerMessage::OwnerOf(guild_id, reply)).await?;
        owner.ok_or(CommandError::Starting)
    }

    /// Asks for members of a guild and collects the answer, over a resume too. Equal requests at the same time are sent
    /// once and share one answer; a nonce of the caller's is replaced. All members of a guild can be had once in 30 s: a
    /// further request waits for its turn (GW-162), and for as long as Discord says, should somebody else have asked.
    ///
    /// A loop that reads events can wait for it: until the answer is complete, the shard reads on although a subscription is
    /// full, and keeps up to 4096 events or 32 MiB for those who do not read.
    ///
    /// # Errors
    ///
    /// When the request is refused, the session is lost before the answer is complete, nothing comes for 30 s, or the shard
    /// cannot read on ([`MembersError::HeldUp`]).
    ///
    /// # Bounds
    ///
    /// The whole answer is held in memory: [`members_chunks`](Self::members_chunks) is for large guilds.
    ///
    /// # Cancel safety
    ///
    /// Nothing is sent twice; without anybody who waits for it the answer is given up.
    pub async fn members(&self, request: RequestMembers) -> Result<Arc<Members>, MembersError> {
        members::ask(self, &self.shared.members, request).await
    }

    /// Asks for members of a guild as [`members`](Self::members) does, and yields each chunk as it comes: for guilds whose
    /// members do not all have to be held at once. The request is sent when the stream is first polled. Equal requests are
    /// not shared.
    ///
    /// # Errors
    ///
    /// As [`members`](Self::members); after an error it ends.
    ///
    /// # Bounds
    ///
    /// 64 chunks wait to be read; beyond that the shard stops reading from Discord.
    ///
    /// # Cancel safety
    ///
    /// Safe between chunks; dropping it gives the rest of the answer up.
    pub fn members_chunks(
        &self,
        request: RequestMembers,
    ) -> impl Stream<Item = Result<MembersChunk, MembersError>> + Send + Unpin + 'static {
        members::chunks(self, &self.shared.members, request)
    }

    /// The state of every shard and of the identify budget now. A shard that hangs does not delay the answer.
    ///
    /// # Errors
    ///
    /// When the manager has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only asks.
    pub async fn status(&self) -> Result<ManagerStatus, ManagerEnded> {
        self.ask(ManagerMessage::Status).await
    }

    /// The state of one shard now.
    ///
    /// # Errors
    ///
    /// [`NoSuchShard`](CommandError::NoSuchShard) when this manager does not run the shard,
    /// [`ManagerEnded`](CommandError::ManagerEnded) when it has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only asks.
    pub async fn shard_status(&self, shard: impl Into<ShardId>) -> Result<ShardStatus, CommandError> {
        let shard = shard.into();
        let status = self.ask(|reply| ManagerMessage::ShardStatus(shard, reply)).await?;
        status.ok_or(CommandError::NoSuchShard { shard })
    }

    /// Runs more shards of the layout, from now on; with sessions that another process has given up by
    /// [`remove_shards`](Self::remove_shards) or [`detach`](Self::detach) they resume, without an Identify. Returns when
    /// they are started; [`Lifecycle`] says when they are ready.
    ///
    /// # Errors
    ///
    /// When a shard does not belong to the layout or runs here already, or a session does not fit; then none is added.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, it takes its course.
    pub async fn add_shards(
        &self,
        shards: impl IntoIterator<Item = impl Into<ShardId>>,
        sessions: impl IntoIterator<Item = Session>,
    ) -> Result<(), ShardChangeError> {
        let (shards, sessions) = (ids(shards), sessions.into_iter().collect());
        self.ask(|reply| ManagerMessage::AddShards(shards, sessions, reply)).await?
    }

    /// Runs these shards no longer. They close so that their sessions stay resumable for some minutes: returns these, for
    /// another process to [add](Self::add_shards). As with [`detach`](Self::detach), what subscribers do not acknowledge
    /// within the configured deadline comes again there. The removal begins with the call and not with the first poll of what
    /// it returns, so whoever reads events can go on reading until then. Awaited with a delivery in hand it does as
    /// [`detach`](Self::detach): after 1 s it goes on without that.
    ///
    /// # Errors
    ///
    /// When the manager does not run one of them; then none is removed.
    ///
    /// # Cancel safety
    ///
    /// The removal goes on; a cancelled caller loses the sessions.
    pub fn remove_shards<I: IntoIterator<Item: Into<ShardId>>>(
        &self,
        shards: I,
    ) -> impl Future<Output = Result<Vec<Session>, ShardChangeError>> + Send + use<I> {
        self.remove_shards_with(shards, ShutdownMode::Detach)
    }

    /// As [`remove_shards`](Self::remove_shards), with the mode of the caller's choice. With [`ShutdownMode::Stop`] each closes
    /// with 1000 for good, waits for no subscriber, and leaves no session.
    ///
    /// # Errors
    ///
    /// As [`remove_shards`](Self::remove_shards).
    ///
    /// # Cancel safety
    ///
    /// The removal goes on; a cancelled caller loses the sessions.
    pub fn remove_shards_with<I: IntoIterator<Item: Into<ShardId>>>(
        &self,
        shards: I,
        mode: ShutdownMode,
    ) -> impl Future<Output = Result<Vec<Session>, ShardChangeError>> + Send + use<I> {
        let shards = ids(shards);
        let removed = begin(&self.manager, |reply| ManagerMessage::RemoveShards(shards, mode, reply));
        let hub = Arc::clone(&self.shared.hub);
        async move { await_end(hub, removed.wait()).await.ok_or(ManagerEnded)? }
    }

    /// Makes another connection for a shard, also for one in quarantine, or refused by Discord. One that is just
    /// connecting goes on with that. Returns when the shard was told.
    ///
    /// # Errors
    ///
    /// When the manager does not run it.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, it takes its course.
    pub async fn restart_shard(
        &self,
        shard: impl Into<ShardId>,
        by: RestartBy,
    ) -> Result<(), ShardChangeError> {
        let shard = shard.into();
        self.ask(|reply| ManagerMessage::RestartShard(shard, by, reply)).await?
    }

    /// The sessions as another process could resume them if this one ended now: to be stored against a crash. They hold
    /// secrets, like the token.
    ///
    /// # Errors
    ///
    /// When the manager has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only asks.
    pub async fn sessions(&self) -> Result<Vec<Session>, ManagerEnded> {
        self.ask(ManagerMessage::Sessions).await
    }

    /// Ends for good: each shard closes with 1000, which gives its session up and shows the bot as offline. The end begins with
    /// the call; what is returned waits until all shards have closed, or the configured deadline has passed. A manager that
    /// has ended already is no error here: nothing is left to do.
    ///
    /// # Cancel safety
    ///
    /// The end goes on, whether anybody waits for it or not.
    pub fn stop(&self) -> impl Future<Output = ()> + Send + use<> {
        let ended = begin(&self.manager, |reply| ManagerMessage::Shutdown(ShutdownMode::Stop, reply));
        let hub = Arc::clone(&self.shared.hub);
        async move { drop(await_end(hub, ended.wait()).await) }
    }

    /// Ends for a successor: each shard closes so that its session stays resumable for some minutes. Give what is returned to
    /// the next process with [`Builder::sessions`]; it holds secrets, like the token.
    ///
    /// Subscribers may finish what they have, until the configured deadline; what they do not acknowledge comes again to the
    /// successor. So the one who reads must not wait for the end before everything is read: the end begins with the call, and
    /// the loop goes on until the subscription ends.
    ///
    /// ```no_run
    /// # use shardkeeper::error::ManagerEnded;
    /// # use shardkeeper::{Delivery, Session, Shardkeeper, Subscription};
    /// # async fn deal_with(delivery: &Delivery) {}
    /// # async fn run(
    /// #     bot: Shardkeeper, mut events: Subscription, term: impl Future<Output = ()>,
    /// # ) -> Result<Vec<Session>, ManagerEnded> {
    /// let mut term = std::pin::pin!(term);
    /// let mut detaching = None;
    /// loop {
    ///     tokio::select! {
    ///         () = &mut term, if detaching.is_none() => detaching = Some(bot.detach()),
    ///         delivery = events.next() => match delivery {
    ///             // Dropped at the end of the arm, which acknowledges it.
    ///             Some(delivery) => deal_with(&delivery).await,
    ///             None => break,
    ///         },
    ///     }
    /// }
    /// match detaching {
    ///     Some(detaching) => detaching.await,
    ///     None => Err(ManagerEnded),
    /// }
    /// # }
    /// ```
    ///
    /// Awaited inside the loop that reads, with a delivery in hand, it waits 1 s for the loop, and then ends without: what is in
    /// hand or unread comes again to the successor, and a warning and a
    /// [`Lifecycle::WatermarkStuck`] name the subscription. So drop the delivery before
    /// awaiting. Others that are slow are waited for until the deadline; after 5 s a `WatermarkStuck` or
    /// [`SubscriptionStalled`](crate::Lifecycle::SubscriptionStalled) names the subscription. Subscriptions that are dropped
    /// acknowledge everything. The manual says why in the chapter on [delivery](crate::manual::_03_delivery).
    ///
    /// # Errors
    ///
    /// When the manager had ended before, or crashes meanwhile.
    ///
    /// # Cancel safety
    ///
    /// The end goes on; a cancelled caller loses the sessions.
    pub fn detach(&self) -> impl Future<Output = Result<Vec<Session>, ManagerEnded>> + Send + use<> {
        let ended = begin(&self.manager, |reply| ManagerMessage::Shutdown(ShutdownMode::Detach, reply));
        let hub = Arc::clone(&self.shared.hub);
        async move { await_end(hub, ended.wait()).await.ok_or(ManagerEnded) }
    }

    /// Waits for the end of the bot: `Ok` when it was told to end, otherwise the cause. A subscription that yields `None` does
    /// not say why; this does. It returns at once when the bot has ended before.
    ///
    /// # Errors
    ///
    /// When Discord refused the bot (a token or intent that is not allowed, a number of shards that is too small), or the
    /// manager crashed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait(&self) -> Result<(), ExitError> {
        self.exit_reason().await.into_result()
    }

    /// Waits for the end, and says how it came. [`wait`](Self::wait) gives the same as a `Result`.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn exit_reason(&self) -> ExitReason {
        let mut ended = self.shared.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.unwrap_or(ExitReason::Crashed),
            Err(_) => ExitReason::Crashed,
        }
    }

    /// The manager's own address, for messages, and for whoever supervises it. An actor's `stop` and `kill` on it are no orderly
    /// end: they drop every connection without a close frame, and [`exit_reason`](Self::exit_reason) says
    /// [`Crashed`](ExitReason::Crashed). Its mailbox has no bound, so wait for answers.
    pub fn manager(&self) -> &ActorRef<ManagerMessage> {
        &self.manager
    }

    /// A subscription to an answer that somebody awaits: its shards read on although other subscriptions are behind.
    #[track_caller]
    pub(crate) fn subscribe_to_answer(&self, topic: Topic, options: SubscriptionOptions) -> Subscription {
        self.shared.hub.subscribe_to_answer(topic, options)
    }

    async fn ask<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<T>) -> ManagerMessage,
    ) -> Result<T, ManagerEnded> {
        ask(&self.manager, message).await.ok_or(ManagerEnded)
    }
}

fn ids(shards: impl IntoIterator<Item = impl Into<ShardId>>) -> Vec<ShardId> {
    shards.into_iter().map(Into::into).collect()
}
