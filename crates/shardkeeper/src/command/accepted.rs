//! What becomes of a command after it was accepted.

use tokio::sync::oneshot;

use crate::chain::readable;

/// A command that a shard has accepted for sending. It goes when the shard is ready and the limits allow, over a resume
/// too; to drop this changes nothing.
#[derive(Debug)]
pub struct AcceptedCommand(oneshot::Receiver<Result<(), WriteError>>);

/// The driver's end of an [`AcceptedCommand`]. Dropped without a word it says that the command is lost.
#[derive(Debug)]
pub(crate) struct Receipt(oneshot::Sender<Result<(), WriteError>>);

/// An accepted command was not sent.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// It waited for as long as its class may: [`Timings::voice_lifetime`](crate::config::Timings::voice_lifetime),
    /// [`Timings::bulk_lifetime`](crate::config::Timings::bulk_lifetime).
    #[error("the command could not be sent before its time was over")]
    Expired,
    /// The shard could not become ready in that time, since a lossless subscription is full and nobody reads it: perhaps the one
    /// that the caller would read next. [`ShardStatus::held_up`](crate::status::ShardStatus::held_up) names it.
    #[error("the command could not be sent in time: its shard waits for a subscription that nobody reads")]
    HeldUp,
    /// The shard ended or crashed, or the connection ended while it was being written: Discord may have it, or not.
    #[error("the command was lost with its shard or connection")]
    Lost,
}

pub(crate) fn receipt() -> (Receipt, AcceptedCommand) {
    let (sender, receiver) = oneshot::channel();
    (Receipt(sender), AcceptedCommand(receiver))
}

impl AcceptedCommand {
    /// Waits until it was handed to the operating system for sending. Discord does not say whether it arrived. A loop that reads
    /// events can wait for it: until then a shard that is not ready reads on although a subscription is full.
    ///
    /// # Errors
    ///
    /// When that does not happen any more.
    ///
    /// # Cancel safety
    ///
    /// Safe: the command goes its way.
    pub async fn written(self) -> Result<(), WriteError> {
        self.0.await.unwrap_or(Err(WriteError::Lost))
    }
}

impl Receipt {
    pub(crate) fn written(self) {
        // Hardly anybody waits for it.
        let _ = self.0.send(Ok(()));
    }

    pub(crate) fn not_written(self, reason: WriteError) {
        let _ = self.0.send(Err(reason));
    }

    /// Whether somebody waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.0.is_closed()
    }
}

readable!(WriteError);
