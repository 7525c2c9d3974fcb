//! The start of a manager, and the handle that a bot uses afterwards.

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
use crate::error::{
    CommandError, ExitError, ExitReason, ManagerEnded, ReshardRejected, ShardChangeError, StartError,
};
use crate::layout::ShardKey;
use crate::manager::{ManagerArguments, ShardManager};
use crate::message::{ManagerMessage, ReshardControl, RestartBy, ShardMessage, Shared, ShutdownMode};
use crate::reshard::{ReshardPlan, ReshardRequest};
use crate::status::{ManagerStatus, ShardStatus};
use futures_util::{FutureExt, Stream};
use ractor::{Actor, ActorCell, ActorRef, Message, RpcReplyPort};
use shardkeeper_proto::{Command, Intents, Presence, PresenceUpdate, RequestMembers, Session, ShardId};

/// A running manager. Clones are cheap and refer to the same manager; dropping all of them does not end it.
#[derive(Clone, Debug)]
pub struct Shardkeeper {
    manager: ActorRef<ManagerMessage>,
    shared: Shared,
}

/// Stops a manager when the future that started it is dropped.
struct EndOnDrop(Option<ActorCell>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some(manager) = &self.0 {
            manager.stop(None);
        }
    }
}

/// Timeout of a start, with the reason why the gateway has not answered.
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
    /// Starts the manager, and returns when the layout is known and the shards have been started.
    ///
    /// While the API cannot be reached the request is repeated, with growing waits. Each failure is logged as
    /// a warning and reported as [`Lifecycle::GatewayUnavailable`].
    ///
    /// # Errors
    ///
    /// When the configuration is not valid, Discord does not accept the token, or nothing answers within
    /// [`start_timeout`](Self::start_timeout).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time, and I/O for the default dialer.
    ///
    /// # Cancel safety
    ///
    /// Cancelling the start ends the manager.
    pub async fn start(self) -> Result<Shardkeeper, StartError> {
        Shardkeeper::start(self.build()?).await
    }
}

impl Shardkeeper {
    /// Makes a builder for the bot of this token, which receives the events of these intents. A leading `Bot
    /// ` and white space around the token are removed.
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

    /// Makes a handle on a manager that was spawned as an actor.
    ///
    /// # Errors
    ///
    /// When the manager has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: the call only asks.
    pub async fn of(manager: ActorRef<ManagerMessage>) -> Result<Self, ManagerEnded> {
        let shared = ask(&manager, ManagerMessage::Share).await.ok_or(ManagerEnded)?;
        Ok(Self { manager, shared })
    }

    /// Subscribes to a topic without losing events. Every matching event from now on is delivered. When 1024
    /// events wait to be read, their shards stop reading until there is room.
    #[track_caller]
    pub fn subscribe(&self, topic: Topic) -> Subscription {
        self.subscribe_with(topic, SubscriptionOptions::default())
    }

    /// Subscribes to a topic with the given capacity and overflow policy. Every matching event from now on is
    /// delivered. After the end of the manager the subscription yields nothing.
    #[track_caller]
    pub fn subscribe_with(&self, topic: Topic, options: SubscriptionOptions) -> Subscription {
        self.shared.hub.subscribe(topic, options)
    }

    /// Subscribes to the events of one kind from now on, each parsed into `T`: a model of twilight-model
    /// (feature `twilight`), or a type of the bot's own that names its event ([`EventModel`]).
    #[track_caller]
    pub fn subscribe_to<T: EventModel>(&self) -> TypedSubscription<T> {
        self.subscribe(Topic::events([T::EVENT])).typed()
    }

    /// Sends each event of a topic to an actor, as the message that `into` makes of it, until the actor or
    /// the manager ends.
    ///
    /// # Ordering
    ///
    /// The same as for a [`Subscription`].
    ///
    /// # Bounds
    ///
    /// The actor has at most [`SubscriptionOptions::capacity`] deliveries at a time, in its mailbox or in
    /// use; dropping one makes room for the next. The same number waits before the mailbox, and then the
    /// overflow policy applies. When the actor ends, the subscription ends with it, and deliveries that the
    /// actor has not dropped by then count as acknowledged.
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

    /// Returns the address of a shard's actor.
    ///
    /// After a crash the shard has a new address. The mailbox has no bound, so wait for answers.
    ///
    /// # Errors
    ///
    /// When the manager has ended, does not run this shard, or is about to restart it.
    ///
    /// # Cancel safety
    ///
    /// Safe: the call only asks.
    pub async fn shard(&self, shard: impl Into<ShardId>) -> Result<ActorRef<ShardMessage>, CommandError> {
        let shard = shard.into();
        let actor = self.ask(|reply| ManagerMessage::Shard(shard, reply)).await?;
        actor.ok_or(CommandError::NoSuchShard { shard })
    }

    /// Shows a presence on every shard, now and after each later Identify or restart. The newest presence
    /// wins. More than five updates in 20 s are delayed.
    ///
    /// # Errors
    ///
    /// When the presence is not valid, or the manager has ended.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the update has been sent to the manager.
    pub async fn update_presence(&self, presence: Presence) -> Result<(), CommandError> {
        let update = PresenceUpdate::new(presence)?;
        self.ask(|reply| ManagerMessage::UpdatePresence(None, update, reply)).await?
    }

    /// Shows a presence on these shards, now and after each later Identify or restart, until another one is
    /// set there or on every shard.
    ///
    /// # Errors
    ///
    /// When the presence is not valid, or the manager does not run one of the shards; then no shard is
    /// changed.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the update has been sent to the manager.
    pub async fn update_presence_on(
        &self,
        shards: impl IntoIterator<Item = impl Into<ShardId>>,
        presence: Presence,
    ) -> Result<(), CommandError> {
        let (update, shards) = (PresenceUpdate::new(presence)?, ids(shards));
        self.ask(|reply| ManagerMessage::UpdatePresence(Some(shards), update, reply)).await?
    }

    /// Sends a command on the shard that owns its guild: [`Command::voice`], [`Command::members`],
    /// [`Command::sounds`], [`Command::channel_info`], or [`Command::raw`] on a shard of the caller's choice.
    ///
    /// `Ok` means accepted for sending: the shard sends the command when it is ready and the rate limits
    /// allow, if necessary after a reconnect. [`AcceptedCommand::written`] waits for that.
    ///
    /// # Errors
    ///
    /// The first check that fails: the manager does not run the shard, or the shard is waiting to restart
    /// after a crash; an intent is missing; too many commands of the
    /// [class](crate::command::CommandClass::capacity) wait.
    ///
    /// # Bounds
    ///
    /// At most 120 payloads are sent in any 60 s, heartbeats included, for which there is always room
    /// (GW-155). Voice commands go before presences, and presences before bulk requests, which leave room for
    /// ten of the others. A command that cannot be sent within
    /// [`Timings::voice_lifetime`](crate::config::Timings::voice_lifetime) or
    /// [`Timings::bulk_lifetime`](crate::config::Timings::bulk_lifetime) is given up. A crash of the shard
    /// loses waiting commands.
    ///
    /// # Ordering
    ///
    /// Commands of one class and shard are sent in the order in which they were accepted.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the command has been sent to the manager.
    pub async fn command(&self, command: impl Into<Command>) -> Result<AcceptedCommand, CommandError> {
        let command = command.into();
        let (guild_id, raw_shard) = (command.guild_id(), command.raw_shard());
        if let Ok(accepted) = self.ask(|reply| ManagerMessage::Command(command, reply)).await {
            return accepted;
        }
        // No answer: the shard ended before it handled the command, or the manager ended; in the second case
        // `owner_of` returns that error.
        let owner = self.owner_of(guild_id.unwrap_or_default()).await?;
        Err(CommandError::ShardEnded { shard: raw_shard.unwrap_or(owner) })
    }

    /// Requests the soundboard sounds of guilds, each on the shard that owns it. They arrive as one
    /// SOUNDBOARD_SOUNDS event per guild.
    ///
    /// # Errors
    ///
    /// When a command is not accepted; the commands for shards of lower ids have then been accepted.
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

    /// Returns the shard that owns a guild in the current layout. Another process may run it.
    ///
    /// # Errors
    ///
    /// When the manager has ended, or does not know the layout yet.
    ///
    /// # Cancel safety
    ///
    /// Safe: the call only asks.
    pub async fn owner_of(&self, guild_id: u64) -> Result<ShardId, CommandError> {
        let owner = self.ask(|reply| ManagerMessage::OwnerOf(guild_id, reply)).await?;
        owner.ok_or(CommandError::Starting)
    }

    /// Returns the shard that owns a guild, and then the one that will own it after a cut-over, if any.
    pub(super) async fn owners_of(&self, guild_id: u64) -> Result<Vec<ShardKey>, CommandError> {
        let owners = self.ask(|reply| ManagerMessage::OwnersOf(guild_id, reply)).await?;
        if owners.is_empty() { Err(CommandError::Starting) } else { Ok(owners) }
    }

    /// Requests members of a guild and collects the whole answer, also across a resume.
    ///
    /// Equal requests at the same time are sent once and share one answer. A nonce in the request is
    /// replaced. All members of a guild may be requested once in 30 s: a further request waits for its turn
    /// (GW-162), and for the time that Discord asks for if somebody else has requested them.
    ///
    /// A loop that reads events can wait here: until the answer is complete, the shard continues to read
    /// although a subscription is full, and buffers up to 4096 events or 32 MiB for subscriptions that are
    /// not read.
    ///
    /// # Errors
    ///
    /// When the request is rejected, the session is lost before the answer is complete, nothing comes for 30
    /// s, or the shard cannot read on ([`MembersError::HeldUp`]).
    ///
    /// # Bounds
    ///
    /// The whole answer is held in memory: use [`members_chunks`](Self::members_chunks) for large guilds.
    ///
    /// # Cancel safety
    ///
    /// Nothing is sent twice. When no caller waits any more, the answer is given up.
    pub async fn members(&self, request: RequestMembers) -> Result<Arc<Members>, MembersError> {
        members::ask(self, &self.shared.members, request).await
    }

    /// Requests members of a guild as [`members`](Self::members) does, and yields each chunk as it comes: for
    /// guilds whose members do not have to be in memory at once.
    ///
    /// The request is sent when the stream is first polled. Equal requests are not shared.
    ///
    /// # Errors
    ///
    /// As [`members`](Self::members); after an error the stream ends.
    ///
    /// # Bounds
    ///
    /// 64 chunks wait to be read; beyond that the shard stops reading from Discord.
    ///
    /// # Cancel safety
    ///
    /// Safe between chunks; dropping the stream gives up the rest of the answer.
    pub fn members_chunks(
        &self,
        request: RequestMembers,
    ) -> impl Stream<Item = Result<MembersChunk, MembersError>> + Send + Unpin + 'static {
        members::chunks(self, &self.shared.members, request)
    }

    /// Returns the current state of all shards and of the identify queue. A shard that hangs does not delay the
    /// answer.
    ///
    /// # Errors
    ///
    /// When the manager has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: the call only asks.
    pub async fn status(&self) -> Result<ManagerStatus, ManagerEnded> {
        self.ask(ManagerMessage::Status).await
    }

    /// Replaces the bot's shards by those of another layout, while the bot runs. Returns the plan; the first
    /// group begins a moment later.
    ///
    /// Discord's recommendation and budget are asked for first. [`Lifecycle`] and [`status`](Self::status)
    /// report the progress.
    ///
    /// # Errors
    ///
    /// When there is nothing to do, a reshard is running, or the count or the budget does not allow it. The
    /// error says what would.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the reshard begins even if the caller is cancelled.
    pub async fn reshard(&self, request: ReshardRequest) -> Result<ReshardPlan, ReshardRejected> {
        self.ask(|reply| ManagerMessage::Reshard(request, reply)).await?
    }

    /// Lets no further group of the reshard begin. The group under way goes on.
    ///
    /// # Errors
    ///
    /// When no reshard is running.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the order has been given.
    pub async fn pause_reshard(&self) -> Result<(), ReshardRejected> {
        self.control_reshard(ReshardControl::Pause).await
    }

    /// Lets a reshard go on that was paused or aborted, or has failed half way.
    ///
    /// # Errors
    ///
    /// When there is no reshard to go on with.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the order has been given.
    pub async fn resume_reshard(&self) -> Result<(), ReshardRejected> {
        self.control_reshard(ReshardControl::Resume).await
    }

    /// Withdraws the group under way: its new shards close, and the old ones go on. A group whose new shards
    /// have taken over is finished instead.
    ///
    /// If no group has moved, the reshard is over. Otherwise it stands half way, and both layouts serve their
    /// own guilds until it is [resumed](Self::resume_reshard).
    ///
    /// # Errors
    ///
    /// When no reshard is running.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the order has been given.
    pub async fn abort_reshard(&self) -> Result<(), ReshardRejected> {
        self.control_reshard(ReshardControl::Abort).await
    }

    async fn control_reshard(&self, control: ReshardControl) -> Result<(), ReshardRejected> {
        self.ask(|reply| ManagerMessage::ControlReshard(control, reply)).await?
    }

    /// Returns the current state of one shard.
    ///
    /// # Errors
    ///
    /// [`NoSuchShard`](CommandError::NoSuchShard) when this manager does not run the shard,
    /// [`ManagerEnded`](CommandError::ManagerEnded) when it has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: the call only asks.
    pub async fn shard_status(&self, shard: impl Into<ShardId>) -> Result<ShardStatus, CommandError> {
        let shard = shard.into();
        let status = self.ask(|reply| ManagerMessage::ShardStatus(shard, reply)).await?;
        status.ok_or(CommandError::NoSuchShard { shard })
    }

    /// Runs more shards of the layout from now on.
    ///
    /// With sessions that another process has given up by [`remove_shards`](Self::remove_shards) or
    /// [`detach`](Self::detach) the shards resume, without an Identify. The call returns when the shards are
    /// started; [`Lifecycle`] reports when they are ready.
    ///
    /// # Errors
    ///
    /// When a shard does not belong to the layout or already runs here, or a session does not fit; then no
    /// shard is added.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the shards are added even if the caller is cancelled.
    pub async fn add_shards(
        &self,
        shards: impl IntoIterator<Item = impl Into<ShardId>>,
        sessions: impl IntoIterator<Item = Session>,
    ) -> Result<(), ShardChangeError> {
        let (shards, sessions) = (ids(shards), sessions.into_iter().collect());
        self.ask(|reply| ManagerMessage::AddShards(shards, sessions, reply)).await?
    }

    /// Stops running these shards, and returns their sessions for another process to [add](Self::add_shards).
    ///
    /// The shards close in a way that keeps their sessions resumable for some minutes. As with
    /// [`detach`](Self::detach), events that subscribers do not acknowledge within the shutdown timeout are
    /// delivered again in the other process.
    ///
    /// The removal begins with the call, not with the first poll of the returned future, so a loop that reads
    /// events can go on reading until it completes. If it is awaited by the reader with a delivery in hand,
    /// it continues after 1 s without that delivery, as [`detach`](Self::detach) does.
    ///
    /// # Errors
    ///
    /// When the manager does not run one of the shards; then no shard is removed.
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

    /// Stops running these shards as [`remove_shards`](Self::remove_shards) does, with the given mode. With
    /// [`ShutdownMode::Stop`] each shard closes with 1000 for good, waits for no subscriber, and leaves no
    /// session.
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

    /// Makes a new connection for a shard, even if it is in quarantine or was refused by Discord. A shard
    /// that is already connecting continues with that. The call returns when the shard has been notified.
    ///
    /// # Errors
    ///
    /// When the manager does not run the shard.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the shard is restarted even if the caller is cancelled.
    pub async fn restart_shard(
        &self,
        shard: impl Into<ShardId>,
        by: RestartBy,
    ) -> Result<(), ShardChangeError> {
        let shard = shard.into();
        self.ask(|reply| ManagerMessage::RestartShard(shard, by, reply)).await?
    }

    /// Returns the sessions as another process could resume them if this one ended now, to be stored in case
    /// of a crash.
    ///
    /// They contain secrets, like the token.
    ///
    /// # Errors
    ///
    /// When the manager has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: the call only asks.
    pub async fn sessions(&self) -> Result<Vec<Session>, ManagerEnded> {
        self.ask(ManagerMessage::Sessions).await
    }

    /// Shuts the bot down for good: each shard closes with 1000, which gives its session up and shows the bot
    /// as offline. The shutdown begins with the call; the returned future waits until all shards have closed
    /// or the shutdown timeout has passed. A manager that has already ended is not an error here.
    ///
    /// # Cancel safety
    ///
    /// The shutdown goes on, whether or not the future is awaited.
    pub fn stop(&self) -> impl Future<Output = ()> + Send + use<> {
        let ended = begin(&self.manager, |reply| ManagerMessage::Shutdown(ShutdownMode::Stop, reply));
        let hub = Arc::clone(&self.shared.hub);
        async move { drop(await_end(hub, ended.wait()).await) }
    }

    /// Shuts the bot down for a successor, and returns the sessions: each shard closes in a way that keeps
    /// its session resumable for some minutes.
    ///
    /// Pass the sessions to the next process with [`Builder::sessions`]; they contain secrets, like the
    /// token.
    ///
    /// Subscribers may finish the events they have until the shutdown timeout passes. Events that they do not
    /// acknowledge are delivered again in the next process. So a loop that reads events must not wait for the
    /// shutdown before it has read everything: the shutdown begins with the call, and the loop goes on until
    /// the subscription ends.
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
    /// If the loop that reads awaits the future with a delivery in hand, the shutdown waits 1 s and then
    /// continues without that delivery. The events in hand or unread are delivered again in the next process,
    /// and a warning and a [`Lifecycle::WatermarkStuck`] name the subscription. So drop the delivery before
    /// awaiting. Other slow subscribers are waited for until the timeout; after 5 s a `WatermarkStuck` or
    /// [`SubscriptionStalled`](crate::Lifecycle::SubscriptionStalled) names the subscription. Dropping a
    /// subscription acknowledges everything in it. The manual gives the reasons in the chapter on
    /// [delivery](crate::manual::_03_delivery).
    ///
    /// # Errors
    ///
    /// When the manager had ended before, or crashes meanwhile.
    ///
    /// # Cancel safety
    ///
    /// The shutdown goes on; a cancelled caller loses the sessions.
    pub fn detach(&self) -> impl Future<Output = Result<Vec<Session>, ManagerEnded>> + Send + use<> {
        let ended = begin(&self.manager, |reply| ManagerMessage::Shutdown(ShutdownMode::Detach, reply));
        let hub = Arc::clone(&self.shared.hub);
        async move { await_end(hub, ended.wait()).await.ok_or(ManagerEnded) }
    }

    /// Waits for the end of the bot: `Ok` when it ended on request, otherwise the cause.
    ///
    /// A subscription that yields `None` does not say why; this method does. It returns at once when the bot
    /// has already ended.
    ///
    /// # Errors
    ///
    /// When Discord refused the bot (a token or intent that is not allowed, a number of shards that is too
    /// small), or the manager crashed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait(&self) -> Result<(), ExitError> {
        self.exit_reason().await.into_result()
    }

    /// Waits for the end of the bot, and returns the reason. [`wait`](Self::wait) gives the same as a
    /// `Result`.
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

    /// Returns the address of the manager's actor, for messages and for supervisors.
    ///
    /// Calling an actor's `stop` or `kill` on it is not an orderly shutdown: it drops every connection
    /// without a close frame, and [`exit_reason`](Self::exit_reason) returns
    /// [`Crashed`](ExitReason::Crashed). The mailbox has no bound, so wait for answers.
    pub fn manager(&self) -> &ActorRef<ManagerMessage> {
        &self.manager
    }

    /// Subscribes to the answer of a request that a caller awaits: its shards continue to read although other
    /// subscriptions are behind.
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
