//! Channel that brings commands to a driver.

use ractor::RpcReplyPort;
use shardkeeper_proto::{Command, CommandClass, CommandQueueError, ShardId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::AcceptedCommand;
use crate::error::CommandError;

/// Commands that may wait in the channel: as many as the shard's machine can hold of all classes, in case all
/// come at once. Commands have a channel of their own so that a flood of them cannot keep the driver from
/// ending.
const CAPACITY: usize = CommandClass::Voice.capacity() + CommandClass::Bulk.capacity();

/// A command on its way to a driver, with the reply port of its sender.
#[derive(Debug)]
pub(crate) struct PendingCommand {
    pub(crate) command: Command,
    pub(crate) reply: RpcReplyPort<Result<AcceptedCommand, CommandError>>,
}

/// The driver's end of the command channel.
pub(crate) struct CommandInbox(pub(crate) mpsc::Receiver<PendingCommand>);

/// The senders' end of the command channel of one driver.
///
/// The manager and the shard's actor each hold one and drop it when the actor ends. A command sent at that
/// moment is dropped with the channel, so its sender gets an error. In a mailbox it would stay as long as any
/// clone of the actor's address exists.
#[derive(Clone, Debug)]
pub(crate) struct CommandSender {
    shard: ShardId,
    sender: mpsc::Sender<PendingCommand>,
}

/// Makes the command channel of one driver.
pub(crate) fn channel(shard: ShardId) -> (CommandSender, CommandInbox) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    (CommandSender { shard, sender }, CommandInbox(receiver))
}

impl CommandSender {
    /// Sends a command to the driver, which answers; if the channel is full or closed, the error is returned
    /// from here.
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
