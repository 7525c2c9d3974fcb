//! Channel that brings commands to a driver.

use std::time::Instant;

use ractor::RpcReplyPort;
use shardkeeper_proto::{Command, CommandClass, CommandQueueError, ShardId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{AcceptedCommand, Receipt, WriteError};
use crate::error::CommandError;

/// Commands that may wait in the channel: as many as the shard's machine can hold of all classes, in case all
/// come at once. Commands have a channel of their own so that a flood of them cannot keep the driver from
/// ending.
pub(crate) const CAPACITY: usize = CommandClass::Voice.capacity() + CommandClass::Bulk.capacity();

/// A command on its way to a driver.
#[derive(Debug)]
pub(crate) struct PendingCommand {
    pub(crate) command: Command,
    pub(crate) origin: Origin,
}

/// Where a command comes from, and so who is told what becomes of it.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The bot, which learns whether the command is accepted.
    Bot(RpcReplyPort<Result<AcceptedCommand, CommandError>>),
    /// Another shard, which has accepted the command and given it up. It expires when it would have there.
    Shard { receipt: Receipt, expires_at: Option<Instant> },
}

impl PendingCommand {
    /// Reports that no shard will send the command.
    pub(crate) fn refuse(self, error: CommandError) {
        match self.origin {
            Origin::Bot(reply) => drop(reply.send(Err(error))),
            Origin::Shard { receipt, .. } => receipt.not_written(WriteError::Lost),
        }
    }
}

/// What the command channel carries.
#[derive(Debug)]
pub(crate) enum Parcel {
    One(PendingCommand),
    /// Commands that another shard gave up. In one piece, so that they are all here before later ones.
    Several(Vec<PendingCommand>),
}

/// The driver's end of the command channel.
pub(crate) struct CommandInbox(pub(crate) mpsc::Receiver<Parcel>);

/// The senders' end of the command channel of one driver.
///
/// The manager and the shard's actor each hold one and drop it when the actor ends. A command sent at that
/// moment is dropped with the channel, so its sender gets an error. In a mailbox it would stay as long as any
/// clone of the actor's address exists.
#[derive(Clone, Debug)]
pub(crate) struct CommandSender {
    shard: ShardId,
    sender: mpsc::Sender<Parcel>,
}

/// Makes the command channel of one driver.
pub(crate) fn channel(shard: ShardId) -> (CommandSender, CommandInbox) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    (CommandSender { shard, sender }, CommandInbox(receiver))
}

impl CommandSender {
    /// Sends commands to the driver, which answers; if the channel is full or closed, the error is returned
    /// from here.
    pub(crate) fn send(&self, parcel: Parcel) {
        let (parcel, is_full) = match self.sender.try_send(parcel) {
            Ok(()) => return,
            Err(TrySendError::Closed(parcel)) => (parcel, false),
            Err(TrySendError::Full(parcel)) => (parcel, true),
        };
        for pending in parcel {
            let class = pending.command.class();
            pending.refuse(if is_full { full(self.shard, class) } else { self.ended() });
        }
    }

    fn ended(&self) -> CommandError {
        CommandError::ShardEnded { shard: self.shard }
    }
}

/// The error for a command of a shard that has no room for its class.
pub(crate) fn full(shard: ShardId, class: CommandClass) -> CommandError {
    CommandQueueError::QueueFull { shard, class, capacity: class.capacity() }.into()
}

impl IntoIterator for Parcel {
    type Item = PendingCommand;
    type IntoIter =
        std::iter::Chain<std::option::IntoIter<PendingCommand>, std::vec::IntoIter<PendingCommand>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, several) = match self {
            Self::One(one) => (Some(one), Vec::new()),
            Self::Several(several) => (None, several),
        };
        one.into_iter().chain(several)
    }
}
