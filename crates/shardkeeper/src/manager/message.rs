//! What a manager is told, and what it answers.

use ractor::{ActorRef, RpcReplyPort};
use serde::Serialize;
use shardkeeper_proto::shard::Refusal;
use shardkeeper_proto::{PresenceUpdate, Session, ShardId};

use super::Incarnation;
use crate::error::{CommandRejected, StartError};
use crate::gateway_info::{GatewayInfo, GatewayInfoError};
use crate::identify_queue::IdentifyStatus;
use crate::shard::ShardMessage;
use crate::shard::status::ShardStatus;

/// What a [`ShardManager`](super::ShardManager) is told. When it is gone a send fails, and a call answers with an
/// error; nothing brings it back.
#[derive(Debug)]
#[non_exhaustive]
pub enum ManagerMessage {
    /// From the bot: answer when the layout is known and the shards are started, or why that cannot be.
    AwaitStart(RpcReplyPort<Result<(), StartError>>),
    /// From the bot: the address of a shard's actor; `None` when this manager has no such shard, or when it is
    /// about to come back from a crash.
    Shard(ShardId, RpcReplyPort<Option<ActorRef<ShardMessage>>>),
    /// From the bot: how everything stands. Answered without asking any shard.
    Status(RpcReplyPort<ManagerStatus>),
    /// From the bot: show this presence on one shard, or on every shard, now and after each later Identify or
    /// restart. Answers whether it was accepted for sending; a shard that is down sends it when it is back.
    UpdatePresence(Option<ShardId>, PresenceUpdate, RpcReplyPort<Result<(), CommandRejected>>),
    /// From the bot: end. Answers with the sessions that can be resumed, when every shard has ended or the deadline
    /// has passed.
    End(Farewell, RpcReplyPort<Vec<Session>>),
    /// From a shard's actor.
    Report {
        /// Which shard.
        shard: ShardId,
        /// Which life of its actor.
        incarnation: Incarnation,
        /// What it reports.
        report: ShardReport,
    },
    /// From its own request.
    Gateway(Result<GatewayInfo, GatewayInfoError>),
    /// From its own timer: a shard that crashed may come back.
    Restart {
        /// Which shard.
        shard: ShardId,
        /// Which life of its actor ended.
        incarnation: Incarnation,
    },
    /// From its own timer: what has not ended by now is killed.
    EndDeadline,
}

/// How to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Farewell {
    /// For good: sessions are given up, the bot shows as offline at once.
    Stop,
    /// For a successor: sessions can be resumed for some minutes.
    Detach,
}

/// What a shard's actor reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardReport {
    /// In service, after READY or RESUMED.
    Ready,
    /// Discord refuses it.
    Refused(Refusal),
    /// Its driver has ended as it was told.
    Ended,
}

/// How everything stands.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ManagerStatus {
    /// Each shard, in the order of ids. Empty until the layout is known.
    pub shards: Vec<ShardStatus>,
    /// The identify queue.
    pub identify: IdentifyStatus,
}
