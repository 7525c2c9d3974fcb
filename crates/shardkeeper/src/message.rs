//! What the actors tell each other, and what a bot tells them. Each variant names its sender.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorRef, RpcReplyPort};
use shardkeeper_proto::shard::FatalClose;
use shardkeeper_proto::{
    Command, IdentifyBudget, IdentifyPermit, PresenceUpdate, Priority, Session, ShardId,
};
use tokio::sync::watch;
use url::Url;

use crate::command::{AcceptedCommand, MembersRequests};
use crate::dispatch::{Hub, Service};
use crate::error::{CommandError, ExitReason, ShardChangeError, StartError};
use crate::gate::IdentifyPass;
use crate::gateway_info::{GatewayInfo, GatewayInfoError};
use crate::status::{ManagerStatus, ShardStatus};
use crate::store::{StoreError, Stored};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Counts the lives of a shard's actor, so that what an earlier one said late is not taken for the present one's.
pub type Incarnation = u64;

/// What a [`ShardManager`](crate::actor::ShardManager) is told. When it is gone a send fails, and a call answers with an
/// error; nothing brings it back. A call that crosses its end may never be answered: give it a time limit, or use
/// [`Shardkeeper`](crate::Shardkeeper), which waits for the end too.
#[derive(Debug)]
#[non_exhaustive]
pub enum ManagerMessage {
    /// From the bot: answer when the layout is known and the shards are started, or why that cannot be.
    AwaitStart(RpcReplyPort<Result<(), StartError>>),
    /// From the bot: the address of a shard's actor; `None` when this manager has no such shard, or when it is
    /// about to come back from a crash.
    Shard(ShardId, RpcReplyPort<Option<ActorRef<ShardMessage>>>),
    /// From the bot: the shard that owns a guild, in the layout that there is now; `None` as long as there is none.
    OwnerOf(u64, RpcReplyPort<Option<ShardId>>),
    /// From the bot: what a handle shares with this manager. [`Shardkeeper::of`](crate::Shardkeeper::of) asks for it.
    Share(RpcReplyPort<Shared>),
    /// From the bot: how everything stands. Answered without asking any shard.
    Status(RpcReplyPort<ManagerStatus>),
    /// From the bot: how one shard stands; `None` when this manager has no such shard.
    ShardStatus(ShardId, RpcReplyPort<Option<ShardStatus>>),
    /// From the bot: show this presence on every shard (`None`) or on these, now and after each later Identify or restart.
    /// Answers whether it was accepted; a shard that is down sends it when it is back.
    UpdatePresence(Option<Vec<ShardId>>, PresenceUpdate, RpcReplyPort<Result<(), CommandError>>),
    /// From the bot: run these shards too, of the layout that there is, and resume these sessions of theirs. Answers when
    /// they are started, and not yet ready.
    AddShards(Vec<ShardId>, Vec<Session>, RpcReplyPort<Result<(), ShardChangeError>>),
    /// From the bot: run these shards no longer. Answers when they have closed, or the deadline of an end has passed: with their
    /// sessions, if they closed so that another process can resume them.
    RemoveShards(Vec<ShardId>, ShutdownMode, RpcReplyPort<Result<Vec<Session>, ShardChangeError>>),
    /// From the bot: make another connection for this shard. Answers when it was told to.
    RestartShard(ShardId, RestartBy, RpcReplyPort<Result<(), ShardChangeError>>),
    /// From the bot: the sessions as another process could resume them now. They go on here.
    Sessions(RpcReplyPort<Vec<Session>>),
    /// From the bot: send a command on the shard that owns its guild. Answers whether it was accepted for sending; it is
    /// sent when the shard is ready and the limits allow, also over a reconnect. A crash of the shard loses it.
    Command(Command, RpcReplyPort<Result<AcceptedCommand, CommandError>>),
    /// From the bot: end. Answers with the sessions that can be resumed, when every shard has ended or the deadline
    /// has passed.
    Shutdown(ShutdownMode, RpcReplyPort<Vec<Session>>),
    /// From a shard's actor.
    Report {
        /// Which shard.
        shard: ShardId,
        /// Which life of its actor.
        incarnation: Incarnation,
        /// What it reports.
        report: ShardReport,
    },
    /// From its own task: what the session store holds, or why that is not known.
    Stored(Result<Stored, StoreError>),
    /// From its own task: the session store holds everything.
    Flushed,
    /// From its own task: nobody uses the session store any more.
    StoreClosed,
    /// From the sentinel: what the gateway said.
    Gateway(GatewayInfo),
    /// From the sentinel: the gateway could not be asked.
    NoGateway {
        /// Why.
        error: GatewayInfoError,
        /// When it is asked again; `None` for never.
        retry_after: Option<Duration>,
    },
    /// From its own timer: a child that crashed is to be replaced.
    Replace(Service),
    /// From its own timer: a shard that crashed may come back.
    Restart {
        /// Which shard.
        shard: ShardId,
        /// Which life of its actor ended.
        incarnation: Incarnation,
    },
    /// From its own timer: shards of this removal that have not closed by now are killed.
    RemovalDeadline(u64),
    /// From its own timer: look for shards that have fallen silent, and for watermarks that are stuck.
    Look,
    /// From its own timer: what has not ended by now is killed.
    ShutdownDeadline,
}

/// What the handles on a manager share with it, for whatever goes beyond a message: subscribing, collecting members.
#[derive(Clone, Debug)]
pub struct Shared {
    pub(crate) hub: Arc<Hub>,
    pub(crate) members: Arc<MembersRequests>,
    pub(crate) ended: watch::Receiver<Option<ExitReason>>,
}

/// How a shard ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShutdownMode {
    /// For good: sessions are given up, the bot shows as offline at once.
    Stop,
    /// For a successor: sessions can be resumed for some minutes.
    Detach,
}

impl ManagerMessage {
    /// A command without an answer, for `cast`. What keeps it from being sent is a warning in the log.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn command(command: impl Into<Command>) -> Self {
        Self::Command(command.into(), command_port())
    }

    /// A presence for every shard (`None`) or for these, without an answer, for `cast`. Why it is not shown is a warning in
    /// the log.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn presence(shards: Option<Vec<ShardId>>, presence: PresenceUpdate) -> Self {
        Self::UpdatePresence(shards, presence, presence_port())
    }
}

impl ShardMessage {
    /// A command without an answer, for `cast`. What keeps it from being sent is a warning in the log.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn command(command: impl Into<Command>) -> Self {
        Self::Command(command.into(), command_port())
    }

    /// A presence without an answer, for `cast`. Why it is not shown is a warning in the log.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn presence(presence: PresenceUpdate) -> Self {
        Self::UpdatePresence(presence, presence_port())
    }
}

/// The port of a command whose sender does not wait.
fn command_port() -> RpcReplyPort<Result<AcceptedCommand, CommandError>> {
    unawaited(async |accepted: Result<AcceptedCommand, CommandError>| Ok(accepted?.written().await?))
}

/// The port of a presence whose sender does not wait.
fn presence_port() -> RpcReplyPort<Result<(), CommandError>> {
    unawaited(async |accepted: Result<(), CommandError>| Ok(accepted?))
}

/// A port that logs why a message came to nothing.
fn unawaited<T: Send + 'static, F: Future<Output = Result<(), BoxError>> + Send>(
    outcome: impl FnOnce(T) -> F + Send + 'static,
) -> RpcReplyPort<T> {
    let (reply, answer) = ractor::concurrency::oneshot();
    tokio::spawn(async move {
        let lost = match answer.await {
            Ok(answer) => outcome(answer).await.map_err(|error| crate::chain::chain(error.as_ref())),
            Err(_) => Err("its actor has ended".to_owned()),
        };
        if let Err(reason) = lost {
            tracing::warn!("a message that nobody waits for had no effect: {reason}");
        }
    });
    reply.into()
}

/// How a shard gets another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RestartBy {
    /// For the session that it has. Nothing is lost.
    Resume,
    /// For a new session: costs one of the day's Identify, and the events in between.
    Identify,
}

/// What a shard's actor reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardReport {
    /// Nothing of its driver runs any more, and its connection is dropped. Comes from the driver itself, also when its actor was
    /// killed.
    DriverGone,
    /// In service, after READY or RESUMED.
    Ready,
    /// Discord refuses it.
    Refused(FatalClose),
    /// The bootstrap URL cannot be reached, or an Identify came at the wrong time: what `GET /gateway/bot` said may be
    /// out of date.
    AskGateway,
    /// Its driver has ended as it was told.
    Ended,
}

/// What a [`ShardActor`](crate::actor::ShardActor) is told. When the actor is gone a send fails, and a call answers with an error; the
/// manager brings the actor back, at the address that [`Shardkeeper::shard`](crate::Shardkeeper::shard) then has. A call that
/// crosses its end may never be answered: give it a time limit, or use [`Shardkeeper::command`](crate::Shardkeeper::command).
#[derive(Debug)]
#[non_exhaustive]
pub enum ShardMessage {
    /// From the bot: show this presence, now and after each later Identify of this incarnation. Answers whether it
    /// was accepted for sending; the newest wins.
    UpdatePresence(PresenceUpdate, RpcReplyPort<Result<(), CommandError>>),
    /// From the bot: send a command, as [`ManagerMessage::Command`] does. One for a guild of another shard is refused.
    Command(Command, RpcReplyPort<Result<AcceptedCommand, CommandError>>),
    /// From the manager: make another connection.
    Restart(RestartBy),
    /// From an operator: make the driver panic, to see the supervision at work. The shard resumes.
    CrashDrill,
    /// From the manager: end, and give the session up.
    Stop,
    /// From the manager: end, and keep the session.
    Detach,
    /// From the manager: the identify queue has a new address.
    QueueReplaced(ActorRef<QueueMessage>),
    /// From the identify queue: connect, your turn is near.
    ConnectGrant,
    /// From the identify queue: identify.
    Permit(IdentifyPermit),
    /// From the driver: in service, after READY or RESUMED.
    BecameReady,
    /// From the manager: the bootstrap URL is another one.
    GatewayUrl(Url),
    /// From the driver: what `GET /gateway/bot` said may be out of date.
    AskGateway,
    /// From the driver: Discord refuses the shard.
    Refused(FatalClose),
    /// From the driver's watcher: it ended, or panicked with this message.
    DriverEnded(Result<(), String>),
}

/// What an [`IdentifyQueue`](crate::actor::IdentifyQueue) is told. When it is gone, a send fails; the manager replaces it, and every shard that
/// waited asks again.
#[derive(Debug)]
#[non_exhaustive]
pub enum QueueMessage {
    /// From a shard: it wants to identify. The answer is [`ShardMessage::ConnectGrant`] when it may connect.
    Join {
        /// Which shard.
        shard: ShardId,
        /// Which life of its actor. A later one replaces an earlier one, whose messages are ignored from then on.
        incarnation: Incarnation,
        /// How urgent it is.
        priority: Priority,
        /// Where to answer.
        actor: ActorRef<ShardMessage>,
    },
    /// From a shard: it has its Hello. The answer is [`ShardMessage::Permit`].
    Claim {
        /// Which shard.
        shard: ShardId,
        /// Which life of its actor.
        incarnation: Incarnation,
        /// How urgent it is.
        priority: Priority,
        /// Where to answer.
        actor: ActorRef<ShardMessage>,
    },
    /// From a shard: it no longer waits, and spent nothing.
    Leave {
        /// Which shard.
        shard: ShardId,
        /// Which life of its actor.
        incarnation: Incarnation,
    },
    /// From the manager: the shard's actor died.
    Gone {
        /// Which shard.
        shard: ShardId,
        /// Which life of its actor. What it and earlier ones said, and have not been heard yet, is ignored.
        incarnation: Incarnation,
    },
    /// From the manager: what `GET /gateway/bot` said last.
    Update {
        /// The number of keys.
        max_concurrency: u32,
        /// The budget.
        budget: IdentifyBudget,
    },
    /// From a task that asks the identify gate: the shard has a pass.
    Passed {
        /// Which shard.
        shard: ShardId,
        /// Which ask.
        ask: u64,
        /// The pass.
        pass: IdentifyPass,
    },
    /// From a task that asks the identify gate: that failed, and it asks again.
    GateFailed {
        /// Which shard.
        shard: ShardId,
        /// Which ask.
        ask: u64,
        /// What the gate said.
        error: String,
        /// When it is asked again.
        retry_after: Duration,
    },
    /// From the manager: grant nothing any more.
    Freeze,
    /// From its own timer, or from a driver whose permit is over.
    Wake,
}

/// What a [`ReshardSentinel`](crate::actor::ReshardSentinel) is told. When it is gone, a send fails, and the manager replaces it.
#[derive(Debug)]
#[non_exhaustive]
pub enum SentinelMessage {
    /// From the manager: what the gateway said may be out of date. It is asked, unless it was in the last 60 s.
    Doubt,
    /// From its own timer: ask the gateway.
    Due,
    /// From its own request.
    Answered(Result<GatewayInfo, GatewayInfoError>),
}
