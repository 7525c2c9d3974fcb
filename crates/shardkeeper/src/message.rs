//! Messages between the actors, and from a bot to the actors. The doc of each variant names its sender.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorRef, RpcReplyPort};
use shardkeeper_proto::shard::FatalClose;
use shardkeeper_proto::{
    Command, IdentifyBudget, IdentifyPermit, PresenceUpdate, Priority, Session, ShardId,
};
use tokio::sync::watch;
use url::Url;

use crate::command::{AcceptedCommand, MembersRequests, PendingCommand};
use crate::dispatch::{Hub, Service};
use crate::error::{CommandError, ExitReason, ReshardRejected, ShardChangeError, StartError};
use crate::gate::IdentifyPass;
use crate::gateway_info::{GatewayInfo, GatewayInfoError};
use crate::layout::ShardKey;
use crate::reshard::{ReshardPlan, ReshardRequest};
use crate::status::{ManagerStatus, ShardStatus};
use crate::store::{StoreError, Stored};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Number of one life of a shard's actor, higher after each restart. It identifies late messages of an
/// earlier actor of the same shard, which are ignored.
pub type Incarnation = u64;

/// Messages that a [`ShardManager`](crate::actor::ShardManager) accepts.
///
/// Once the manager has ended, a send fails and a call returns an error; the manager is never restarted. A
/// call made while the manager ends may never be answered: use a timeout, or use
/// [`Shardkeeper`](crate::Shardkeeper), whose methods also return when the manager ends.
#[derive(Debug)]
#[non_exhaustive]
pub enum ManagerMessage {
    /// From the bot: answer when the layout is known and the shards are started, or with the error that
    /// prevents it.
    AwaitStart(RpcReplyPort<Result<(), StartError>>),
    /// From the bot: return the address of a shard's actor; `None` when this manager does not run the shard,
    /// or the shard is waiting to restart after a crash.
    Shard(ShardId, RpcReplyPort<Option<ActorRef<ShardMessage>>>),
    /// From the bot: return the shard that owns a guild in the current layout; `None` until the layout is
    /// known.
    OwnerOf(u64, RpcReplyPort<Option<ShardId>>),
    /// From the bot: return the shard that owns a guild, and then the one that will own it after the cut-over
    /// of a reshard that goes on, if any; nothing until the layout is known.
    OwnersOf(u64, RpcReplyPort<Vec<ShardKey>>),
    /// From the bot: return the data that handles share with this manager, for
    /// [`Shardkeeper::of`](crate::Shardkeeper::of).
    Share(RpcReplyPort<Shared>),
    /// From the bot: return the status of all shards and of the identify queue. No shard is asked for it, so
    /// a shard that hangs does not delay the answer.
    Status(RpcReplyPort<ManagerStatus>),
    /// From the bot: return the status of one shard; `None` when this manager does not run it.
    ShardStatus(ShardId, RpcReplyPort<Option<ShardStatus>>),
    /// From the bot: show this presence on every shard (`None`) or on these, now and after each later
    /// Identify or restart. The answer says whether the presence was accepted; a shard that is down sends it
    /// once it is back.
    UpdatePresence(Option<Vec<ShardId>>, PresenceUpdate, RpcReplyPort<Result<(), CommandError>>),
    /// From the bot: also run these shards of the current layout, and resume these sessions of theirs. The
    /// answer comes when the shards are started, before they are ready.
    AddShards(Vec<ShardId>, Vec<Session>, RpcReplyPort<Result<(), ShardChangeError>>),
    /// From the bot: stop running these shards. The answer comes when they have closed or the shutdown
    /// timeout has passed, with the sessions of the shards that closed in a way that lets another process
    /// resume them.
    RemoveShards(Vec<ShardId>, ShutdownMode, RpcReplyPort<Result<Vec<Session>, ShardChangeError>>),
    /// From the bot: make a new connection for this shard. The answer comes when the shard has been notified.
    RestartShard(ShardId, RestartBy, RpcReplyPort<Result<(), ShardChangeError>>),
    /// From the bot: return the sessions as another process could resume them now. They stay in use here.
    Sessions(RpcReplyPort<Vec<Session>>),
    /// From the bot: send a command on the shard that owns its guild. The answer says whether the command was
    /// accepted. It is sent when the shard is ready and the rate limits allow, if necessary after a
    /// reconnect. A crash of the shard loses it.
    Command(Command, RpcReplyPort<Result<AcceptedCommand, CommandError>>),
    /// From the bot: shut down. The answer comes when every shard has ended or the shutdown timeout has
    /// passed, with the sessions that can be resumed.
    Shutdown(ShutdownMode, RpcReplyPort<Vec<Session>>),
    /// From a shard's actor or driver: an event in the life of the shard.
    Report {
        /// Shard that reports.
        shard: ShardKey,
        /// Incarnation of the shard's actor that reports.
        incarnation: Incarnation,
        /// Event that is reported.
        report: ShardReport,
    },
    /// From a shard's driver: commands that it has not sent, for the shards that now own their guilds.
    CommandsGivenUp {
        /// Shard that had accepted them.
        shard: ShardKey,
        /// The commands.
        commands: GivenUpCommands,
    },
    /// From its own task: the content of the session store, or the error of reading it.
    Stored(Result<Stored, StoreError>),
    /// From its own task: every change has been written to the session store.
    Flushed,
    /// From its own task: the session store is no longer in use.
    StoreClosed,
    /// From the sentinel: the answer of `GET /gateway/bot`.
    Gateway(GatewayInfo),
    /// From the sentinel: `GET /gateway/bot` failed.
    NoGateway {
        /// Cause of the failure.
        error: GatewayInfoError,
        /// Time until the next request; `None` when there will be no other.
        retry_after: Option<Duration>,
    },
    /// From its own timer: replace a service that crashed.
    Replace(Service),
    /// From its own timer: start a crashed shard again.
    Restart {
        /// The shard.
        shard: ShardKey,
        /// Incarnation of the actor that crashed.
        incarnation: Incarnation,
    },
    /// From its own timer: kill the shards of this removal that have not closed yet.
    RemovalDeadline(u64),
    /// From the bot: reshard as requested. The answer comes with the plan, before the first group begins.
    Reshard(ReshardRequest, RpcReplyPort<Result<ReshardPlan, ReshardRejected>>),
    /// From the bot: control the reshard that is running.
    ControlReshard(ReshardControl, RpcReplyPort<Result<(), ReshardRejected>>),
    /// From its own timer: take the next step of a reshard.
    ReshardTick,
    /// From its own task: whether the layout of this number is in the session store.
    ReshardSaved {
        /// Number of the save, counted for each reshard.
        number: u64,
        /// Whether the save succeeded.
        durable: bool,
    },
    /// From its own timer: look for shards that no longer respond, and for watermarks that are stuck.
    Look,
    /// From its own timer: the shutdown timeout has passed, kill everything that still runs.
    ShutdownDeadline,
}

/// Commands that a shard has given up, with the receipts of those that it had accepted.
#[derive(Debug)]
pub struct GivenUpCommands(pub(crate) Vec<PendingCommand>);

/// State that a manager shares with its handles, for subscribing, collecting members and waiting for the end.
#[derive(Clone, Debug)]
pub struct Shared {
    pub(crate) hub: Arc<Hub>,
    pub(crate) members: Arc<MembersRequests>,
    pub(crate) ended: watch::Receiver<Option<ExitReason>>,
}

/// How a shard shuts down, and what happens to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShutdownMode {
    /// Close for good: the session is given up, and Discord shows the bot as offline at once.
    Stop,
    /// Close for a successor: the session can be resumed for some minutes.
    Detach,
}

impl ManagerMessage {
    /// Makes a message for `cast` that sends a command without waiting for an answer. A rejected command is
    /// logged as a warning.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn command(command: impl Into<Command>) -> Self {
        Self::Command(command.into(), command_port())
    }

    /// Makes a message for `cast` that shows a presence on every shard (`None`) or on these, without waiting
    /// for an answer. A rejected presence is logged as a warning.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn presence(shards: Option<Vec<ShardId>>, presence: PresenceUpdate) -> Self {
        Self::UpdatePresence(shards, presence, presence_port())
    }
}

impl ShardMessage {
    /// Makes a message for `cast` that sends a command without waiting for an answer. A rejected command is
    /// logged as a warning.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn command(command: impl Into<Command>) -> Self {
        Self::Command(command.into(), command_port())
    }

    /// Makes a message for `cast` that shows a presence without waiting for an answer. A rejected presence is
    /// logged as a warning.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn presence(presence: PresenceUpdate) -> Self {
        Self::UpdatePresence(presence, presence_port())
    }
}

/// Reply port of a command whose sender does not wait for the answer.
fn command_port() -> RpcReplyPort<Result<AcceptedCommand, CommandError>> {
    unawaited(async |accepted: Result<AcceptedCommand, CommandError>| Ok(accepted?.written().await?))
}

/// Reply port of a presence whose sender does not wait for the answer.
fn presence_port() -> RpcReplyPort<Result<(), CommandError>> {
    unawaited(async |accepted: Result<(), CommandError>| Ok(accepted?))
}

/// Makes a reply port that logs a warning when the message fails or is not answered.
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
            tracing::warn!("a message sent without waiting for the answer failed: {reason}");
        }
    });
    reply.into()
}

/// How a shard makes a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RestartBy {
    /// Resume the current session. No event is lost.
    Resume,
    /// Start a new session. This costs one Identify of the daily budget, and the events between the two
    /// sessions are lost.
    Identify,
}

/// Orders to a reshard that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReshardControl {
    /// Begin no further group. The group under way goes on.
    Pause,
    /// Go on after a pause, an abort or a failure.
    Resume,
    /// Withdraw the group under way, or end after it if its new shards have taken over.
    Abort,
}

/// Reports of a shard to its manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardReport {
    /// The driver has stopped running and its connection is dropped. The driver sends this report itself, so
    /// it also comes when the actor was killed.
    DriverGone,
    /// The shard is in service, after READY or RESUMED.
    Ready,
    /// Discord refuses the shard with a close code after which reconnecting is pointless.
    Refused(FatalClose),
    /// The answer of `GET /gateway/bot` may be out of date: the bootstrap URL cannot be reached, or an
    /// Identify came too early.
    AskGateway,
    /// The driver has ended as requested.
    Ended,
}

/// Messages that a [`ShardActor`](crate::actor::ShardActor) accepts.
///
/// Once the actor has ended, a send fails and a call returns an error. The manager restarts the actor at a
/// new address, which [`Shardkeeper::shard`](crate::Shardkeeper::shard) then returns. A call made while the
/// actor ends may never be answered: use a timeout, or use
/// [`Shardkeeper::command`](crate::Shardkeeper::command).
#[derive(Debug)]
#[non_exhaustive]
pub enum ShardMessage {
    /// From the bot: show this presence, now and after each later Identify of this incarnation. The answer
    /// says whether the presence was accepted for sending; the newest one wins.
    UpdatePresence(PresenceUpdate, RpcReplyPort<Result<(), CommandError>>),
    /// From the bot: send a command, as [`ManagerMessage::Command`] does. A command for a guild of another
    /// shard is rejected.
    Command(Command, RpcReplyPort<Result<AcceptedCommand, CommandError>>),
    /// From the manager: make a new connection.
    Restart(RestartBy),
    /// From the manager: send a heartbeat now. Its acknowledgement proves to a reshard that the shard has
    /// received everything that was under way.
    Probe(u64),
    /// From an operator: make the driver panic, as a drill of the supervision. The shard restarts and
    /// resumes.
    CrashDrill,
    /// From the manager: give up the commands that were not sent yet, because other shards own their guilds
    /// now. Later commands are rejected. The driver answers with [`ManagerMessage::CommandsGivenUp`].
    GiveUpCommands,
    /// From the manager: shut down and give up the session.
    Stop,
    /// From the manager: shut down and keep the session resumable.
    Detach,
    /// From the manager: use this new address of the identify queue.
    QueueReplaced(ActorRef<QueueMessage>),
    /// From the identify queue: connect now, because the shard's turn to identify is near.
    ConnectGrant,
    /// From the identify queue: send Identify.
    Permit(IdentifyPermit),
    /// From the driver: the shard is in service, after READY or RESUMED.
    BecameReady,
    /// From the manager: use this new bootstrap URL.
    GatewayUrl(Url),
    /// From the driver: the answer of `GET /gateway/bot` may be out of date.
    AskGateway,
    /// From the driver: Discord refuses the shard.
    Refused(FatalClose),
    /// From the driver's watcher: the driver ended, or panicked with this message.
    DriverEnded(Result<(), String>),
}

/// Messages that an [`IdentifyQueue`](crate::actor::IdentifyQueue) accepts.
///
/// Once the queue has ended, a send fails. The manager starts a new queue, and every shard that was waiting
/// joins it again.
#[derive(Debug)]
#[non_exhaustive]
pub enum QueueMessage {
    /// From a shard: join the queue in order to identify. The answer is [`ShardMessage::ConnectGrant`], when
    /// the shard may connect.
    Join {
        /// The shard.
        shard: ShardKey,
        /// Incarnation of the shard's actor. A later incarnation replaces an earlier one, whose messages are
        /// ignored from then on.
        incarnation: Incarnation,
        /// Urgency of this Identify compared with others.
        priority: Priority,
        /// Actor that receives the answer.
        actor: ActorRef<ShardMessage>,
    },
    /// From a shard that was granted to connect: its connection begins only after this wait, because
    /// connections are paced.
    ConnectDelayed {
        /// The shard.
        shard: ShardKey,
        /// Incarnation of the shard's actor.
        incarnation: Incarnation,
        /// Time until the connection begins, counted from now.
        wait: Duration,
    },
    /// From a shard: it has received Hello and asks for its permit. The answer is [`ShardMessage::Permit`].
    Claim {
        /// The shard.
        shard: ShardKey,
        /// Incarnation of the shard's actor.
        incarnation: Incarnation,
        /// Urgency of this Identify compared with others.
        priority: Priority,
        /// Actor that receives the answer.
        actor: ActorRef<ShardMessage>,
    },
    /// From a shard: it stops waiting, and has not sent an Identify.
    Leave {
        /// The shard.
        shard: ShardKey,
        /// Incarnation of the shard's actor.
        incarnation: Incarnation,
    },
    /// From the manager: the shard's actor has ended.
    Gone {
        /// The shard.
        shard: ShardKey,
        /// Incarnation of the actor that ended. Messages of this and earlier incarnations that arrive later
        /// are ignored.
        incarnation: Incarnation,
    },
    /// From the manager: the latest answer of `GET /gateway/bot`.
    Update {
        /// Number of rate-limit keys: shards of different keys may identify at the same time.
        max_concurrency: u32,
        /// What is left of the daily identify budget.
        budget: IdentifyBudget,
    },
    /// From a task that asks the identify gate: the gate has granted a pass.
    Passed {
        /// The shard.
        shard: ShardKey,
        /// Number of the request to the gate.
        ask: u64,
        /// Pass that the gate granted.
        pass: IdentifyPass,
    },
    /// From a task that asks the identify gate: the gate failed, and the task will ask again.
    GateFailed {
        /// The shard.
        shard: ShardKey,
        /// Number of the request to the gate.
        ask: u64,
        /// Error text of the gate.
        error: String,
        /// Time until the gate is asked again.
        retry_after: Duration,
    },
    /// From the manager: stop granting permits.
    Freeze,
    /// From its own timer, or from a driver whose permit has ended: check again who may identify.
    Wake,
}

/// Messages that a [`ReshardSentinel`](crate::actor::ReshardSentinel) accepts. Once the sentinel has ended, a
/// send fails, and the manager replaces it.
#[derive(Debug)]
#[non_exhaustive]
pub enum SentinelMessage {
    /// From the manager: the answer of `GET /gateway/bot` may be out of date. The sentinel requests a new
    /// one, unless the last request was less than 60 s ago.
    Doubt,
    /// From the manager: send `GET /gateway/bot` now, because an operator waits for the answer.
    Ask,
    /// From its own timer: send `GET /gateway/bot`.
    Due,
    /// From its own request: the answer of `GET /gateway/bot`, or the error.
    Answered(Result<GatewayInfo, GatewayInfoError>),
}
