//! The way of commands to a driver.

use ractor::RpcReplyPort;
use shardkeeper_proto::{Command, CommandClass, CommandQueueError, ShardId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::AcceptedCommand;
use crate::error::CommandError;

/// How many commands wait for a driver, in a channel of their own so that a flood of them does not keep it from ending:
/// all that may wait in the machine, should they come at once.
const CAPACITY: usize = CommandClass::Voice.capacity() + CommandClass::Bulk.capacity();

/// A command that somebody wants to be sent.
#[derive(Debug)]
pub(crate) struct PendingCommand {
    pub(crate) command: Command,
    pub(crate) reply: RpcReplyPort<Result<AcceptedCommand, CommandError>>,
}

/// Where a driver takes its commands from.
pub(crate) struct CommandInbox(pub(crate) mpsc::Receiver<PendingCommand>);

/// Hands commands to one driver. The manager and the shard's actor have one each and drop it at the actor's end: a command
/// that crosses it is dropped with the channel, and its asker hears of it. In a mailbox it would stay as long as
/// anybody has the actor's address.
#[derive(Clone, Debug)]
pub(crate) struct CommandSender {
    shard: ShardId,
    sender: mpsc::Sender<PendingCommand>,
}

/// The channel for the commands of one driver.
pub(crate) fn channel(shard: ShardId) -> (CommandSender, CommandInbox) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    (CommandSender { shard, sender }, CommandInbox(receiver))
}

impl CommandSender {
    /// Hands a command on; the driver answers, or this does.
    pub(crate) fn send(&self, command: Command, reply: RpcReplyPort<Result<AcceptedCommand, CommandError>>) {
        let shard = self.shard;
        let (pending, rejection) = match self.sender.try_send(PendingCommand { command, reply }) {
            Ok(()) => return,
            Err(TrySendError::Closed(pending)) => (pending, CommandError::ShardEnded { shard }),
            Err(TrySendError::Full(pending)) => {
                let class = pending.command.class();
                let full = CommandQueueError::QueueFull { shard, class, capacity: class.capacity() };
                (pending, full.into())
            }
        };
        let _ = pending.reply.send(Err(rejection));
    }
}
