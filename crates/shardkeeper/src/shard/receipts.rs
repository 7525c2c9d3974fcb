//! Who waits to hear what became of a command.

use std::collections::BTreeMap;

use shardkeeper_proto::CommandId;

use crate::command::{AcceptedCommand, Receipt, WriteError, receipt};

/// The receipts of the commands of one shard. Bounded as the machine's queue is.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    last: u64,
    /// In order: those who wait hear of a loss in the order in which they asked.
    waiting: BTreeMap<CommandId, Receipt>,
    /// Handed to the connection, and not known to be written yet.
    in_flight: Vec<Receipt>,
}

impl Receipts {
    pub(super) fn open(&mut self) -> (CommandId, AcceptedCommand) {
        self.last += 1;
        let (receipt, accepted) = receipt();
        let id = CommandId(self.last);
        self.waiting.insert(id, receipt);
        (id, accepted)
    }

    /// The command was handed to the connection.
    pub(super) fn sent(&mut self, id: CommandId) {
        self.in_flight.extend(self.waiting.remove(&id));
    }

    /// The command is not sent any more.
    pub(super) fn given_up(&mut self, id: CommandId, reason: WriteError) {
        if let Some(receipt) = self.waiting.remove(&id) {
            receipt.not_written(reason);
        }
    }

    /// Whether somebody waits for a command that is not sent yet.
    pub(super) fn are_awaited(&self) -> bool {
        self.waiting.values().any(Receipt::is_awaited)
    }

    /// The connection has written everything.
    pub(super) fn flushed(&mut self) {
        self.in_flight.drain(..).for_each(Receipt::written);
    }

    /// The connection is gone, with whatever was on its way.
    pub(super) fn disconnected(&mut self) {
        self.in_flight.clear();
    }
}
