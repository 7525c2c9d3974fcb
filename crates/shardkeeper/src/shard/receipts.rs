//! The receipts for commands: they report to callers what happened to a command.

use std::collections::BTreeMap;

use shardkeeper_proto::CommandId;

use crate::command::{AcceptedCommand, Receipt, WriteError, receipt};
use crate::layout::ShardKey;

/// The receipts of the commands of one shard. Their number is bounded, like the machine's queue.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    last: u64,
    /// Ordered, so that callers learn of a loss in the order of their commands.
    waiting: BTreeMap<CommandId, Receipt>,
    /// Receipts of commands that were handed to the connection, and may not be written yet.
    in_flight: Vec<Receipt>,
}

impl Receipts {
    pub(super) fn open(&mut self) -> (CommandId, AcceptedCommand) {
        let (receipt, accepted) = receipt();
        (self.adopt(receipt), accepted)
    }

    /// Adopts the receipt of a command that another shard has given up.
    pub(super) fn adopt(&mut self, receipt: Receipt) -> CommandId {
        self.last += 1;
        let id = CommandId(self.last);
        self.waiting.insert(id, receipt);
        id
    }

    /// Takes the receipt of a command that this shard gives up.
    pub(super) fn take(&mut self, id: CommandId) -> Option<Receipt> {
        self.waiting.remove(&id)
    }

    /// Records that the command was handed to the connection.
    pub(super) fn sent(&mut self, id: CommandId) {
        self.in_flight.extend(self.waiting.remove(&id));
    }

    /// Reports to the caller that the command will not be sent.
    pub(super) fn given_up(&mut self, id: CommandId, reason: WriteError) {
        if let Some(receipt) = self.waiting.remove(&id) {
            receipt.not_written(reason);
        }
    }

    /// Whether a caller waits for a command that is not sent yet.
    pub(super) fn are_awaited(&self) -> bool {
        self.waiting.values().any(Receipt::is_awaited)
    }

    /// Reports that the connection has written everything.
    pub(super) fn flushed(&mut self, shard: ShardKey) {
        self.in_flight.drain(..).for_each(|receipt| receipt.written(shard));
    }

    /// Drops the receipts of commands that were lost with the connection.
    pub(super) fn disconnected(&mut self) {
        self.in_flight.clear();
    }
}
